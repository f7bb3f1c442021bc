//! What only the operator may do, from the command line, through the same door as everything else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use grid_client::{Client, Config as ClientConfig, Request};
use grid_engine::command::{AccountMode, Capabilities, Command};
use grid_engine::funding::PaymentMethod;
use grid_engine::instrument::InstrumentStatus;

use crate::Outcome;
use crate::config::{Accounts, dollars, load_instruments};
use crate::probe;
use crate::secrets::{Secrets, Seed};

/// One operator command.
#[derive(Subcommand)]
pub(crate) enum OperatorCommand {
    /// Open an account with a signing key; prints its number.
    OpenAccount {
        /// For its owner to recognise.
        name: String,
        /// Base64 of the 32 public bytes.
        public_key: String,
        /// Auto Mode instead of Advanced Mode.
        #[arg(long)]
        easy: bool,
    },
    /// Money has arrived.
    Deposit {
        /// The account's number.
        account: u32,
        /// Dollars, decimal.
        amount: String,
    },
    /// Money has left.
    Withdraw {
        /// The account's number.
        account: u32,
        /// Dollars, decimal.
        amount: String,
    },
    /// Give dollars that nobody paid in: they don't lift the free tier's limits.
    Credit {
        /// The account's number.
        account: u32,
        /// Dollars, decimal.
        amount: String,
    },
    /// Give the sign-up credit of the terms; once per account.
    SignUp {
        /// The account's number.
        account: u32,
    },
    /// Change what accounts are given and what they may do before they pay in anything.
    Terms {
        /// Calls per UTC day of an account that never made a deposit; 0 is no limit.
        #[arg(long)]
        free_calls_per_day: u32,
        /// Its calls at once; 0 is no limit, for anybody.
        #[arg(long)]
        free_calls_at_once: u32,
        /// Dollars; one call more at once each time that so much was deposited. 0: whoever paid has no limit.
        #[arg(long)]
        paid_per_call_at_once: String,
        /// Dollars, once per account.
        #[arg(long)]
        sign_up_credit: String,
        /// Units in consumption never go back to trading.
        #[arg(long)]
        one_way_transfers: bool,
    },
    /// What Auto-Reload charges: a customer and a payment method of the payment provider.
    Card {
        /// The account's number.
        account: u32,
        /// The customer's id there.
        customer: String,
        /// The payment method's id there.
        method: String,
    },
    /// Auto-Reload has nothing to charge any more, and uses the line of credit.
    NoCard {
        /// The account's number.
        account: u32,
    },
    /// How much Auto-Reload may lend an account that has no card.
    CreditLine {
        /// The account's number.
        account: u32,
        /// Dollars, decimal.
        limit: String,
    },
    /// An account has paid back what it was lent.
    Repaid {
        /// The account's number.
        account: u32,
        /// Dollars, decimal.
        amount: String,
    },
    /// Define or change the instruments in a file (`[[instrument]]` tables, as in the configuration).
    Define {
        /// The file.
        file: PathBuf,
    },
    /// Have an inference tier try a supplier now, and see what came of it; nobody is billed.
    Probe {
        /// The supplier's account, by number or as `/supplier-liability` shows it.
        #[arg(long, value_parser = probe::supplier)]
        supplier: u32,
        /// The instrument's symbol.
        #[arg(long)]
        instrument: String,
        /// The tier's address.
        #[arg(long, default_value = "127.0.0.1:7401")]
        inference_addr: SocketAddr,
        /// The tier's `operator_key`, where its configuration names one.
        #[arg(long)]
        operator_key: Option<String>,
    },
    /// Open, halt or hide an instrument by its number.
    Status {
        /// The instrument's number.
        instrument: u16,
        /// From now on.
        #[arg(value_enum)]
        status: StatusArg,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum StatusArg {
    Live,
    Halted,
    Preview,
}

pub(crate) fn run(binary_addrs: Vec<SocketAddr>, data_dir: &Path, command: OperatorCommand) -> Outcome {
    let path = data_dir.join("keys.json");
    if !path.exists() {
        let dir = data_dir.display();
        return Err(format!("{dir} holds no keys.json; --data-dir names the venue's data directory").into());
    }
    let secrets = Secrets::open(&path)?;
    let client = Client::connect(ClientConfig::new(binary_addrs, secrets.operator.0))?;
    let done = carry_out(&client, &secrets, command);
    client.close();
    done
}

fn carry_out(client: &Client, secrets: &Secrets, command: OperatorCommand) -> Outcome {
    let own = client.account();
    match command {
        OperatorCommand::OpenAccount { name, public_key, easy } => {
            let mode = if easy { AccountMode::Easy } else { AccountMode::Advanced };
            let public_key = Seed::try_from(public_key)?.0;
            let open =
                Command::OpenAccount { name: name.clone(), mode, capabilities: Capabilities::default() };
            let account = u32::try_from(send(client, own, &open)?)?;
            send(client, account, &Command::AddSigningKey { public_key, label: name })?;
        }
        OperatorCommand::Deposit { account, amount } => {
            send(client, account, &Command::Deposit { amount: dollars(&amount)? })?;
        }
        OperatorCommand::Withdraw { account, amount } => {
            send(client, account, &Command::Withdraw { amount: dollars(&amount)? })?;
        }
        OperatorCommand::Credit { account, amount } => {
            send(client, account, &Command::Credit { amount: dollars(&amount)? })?;
        }
        OperatorCommand::SignUp { account } => {
            send(client, account, &Command::SignUpCredit)?;
        }
        OperatorCommand::Terms {
            free_calls_per_day,
            free_calls_at_once,
            paid_per_call_at_once,
            sign_up_credit,
            one_way_transfers,
        } => {
            let accounts = Accounts {
                free_calls_per_day,
                free_calls_at_once,
                paid_per_call_at_once,
                sign_up_credit,
                one_way_transfers,
            };
            send(client, own, &Command::SetAccountTerms(accounts.terms()?))?;
        }
        OperatorCommand::Card { account, customer, method } => {
            let method = Some(Box::new(PaymentMethod { customer, method }));
            send(client, account, &Command::SetPaymentMethod(method))?;
        }
        OperatorCommand::NoCard { account } => {
            send(client, account, &Command::SetPaymentMethod(None))?;
        }
        OperatorCommand::CreditLine { account, limit } => {
            send(client, account, &Command::SetCreditLine { limit: dollars(&limit)? })?;
        }
        OperatorCommand::Repaid { account, amount } => {
            send(client, account, &Command::RepayCredit { amount: dollars(&amount)? })?;
        }
        OperatorCommand::Define { file } => {
            for spec in load_instruments(&file)? {
                send(client, own, &Command::DefineInstrument(Box::new(spec)))?;
            }
        }
        OperatorCommand::Probe { supplier, instrument, inference_addr, operator_key } => {
            let word = operator_key.unwrap_or_else(|| secrets.operator_word());
            probe::run(inference_addr, &word, supplier, &instrument)?;
        }
        OperatorCommand::Status { instrument, status } => {
            let status = match status {
                StatusArg::Live => InstrumentStatus::Live,
                StatusArg::Halted => InstrumentStatus::Halted,
                StatusArg::Preview => InstrumentStatus::Preview,
            };
            let instrument = grid_engine::InstrumentId(instrument);
            send(client, own, &Command::SetInstrumentStatus { instrument, status })?;
        }
    }
    Ok(())
}

/// Sends one command, prints where it stands in the log, and returns the number of what it made.
fn send(client: &Client, account: u32, command: &Command) -> Result<u64, Box<dyn std::error::Error>> {
    let mut payload = Vec::new();
    command.encode(&mut payload);
    let report = client.call_blocking(Request::Directory { account, payload })?;
    println!("{}", serde_json::json!({ "log_sequence": report.log_seq(), "created": report.id() }));
    Ok(report.id())
}
