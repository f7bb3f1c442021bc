//! `grid demo`: the whole venue with simulated participants, on embedded defaults.
//!
//! The participants are clients like everybody else: accounts and money come by operator commands, Units from
//! suppliers that issue them, prices from orders in the book.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use grid_client::{Client, Config as ClientConfig};
use grid_engine::command::{AccountMode, Command, Offer as SupplierOffer, SupplierProfile};
use grid_engine::instrument::InstrumentStatus;
use grid_engine::{AccountId, Engine, InstrumentId, Price, Qty};
use grid_inference::VenueKey;
use grid_maker::{Maker, MakerConfig, Quote};
use grid_replicator::Replica;
use grid_suppliers::{Faults, RunningSupplier, Supplier, SupplierConfig};
use grid_wire::{NewOrder, OrderType, Side, TimeInForce};

use crate::Outcome;
use crate::config::Config;
use crate::desk::{Desk, Offer, RunningDesks};
use crate::participants::{
    CAPACITY, COLLATERAL, MAKER_STOCK, MANAGED_PREMIUM_BPS, ON_OFFER, SUPPLIERS, SupplierTraits, TRADERS,
    ask_ticks,
};
use crate::progress::step;
use crate::ready::{self, Ready, ReadyAccount, ReadySupplier};
use crate::secrets::{Participant, Seed};
use crate::setup::{Operator, SetupError};
use crate::venue::{End, Signals, Started, Venue};

/// What the command line asked for.
pub(crate) struct Options {
    pub(crate) data_dir: PathBuf,
    pub(crate) port_base: Option<u16>,
    pub(crate) maker: bool,
    pub(crate) suppliers: bool,
    pub(crate) ready_file: Option<PathBuf>,
    pub(crate) config: Option<PathBuf>,
}

/// An instrument that the participants trade.
#[derive(Clone, Copy)]
struct Traded {
    id: InstrumentId,
    /// In ticks.
    reference: Price,
}

/// Everything beside the venue itself.
struct Participants {
    accounts: BTreeMap<String, ReadyAccount>,
    simulators: Vec<RunningSupplier>,
    desks: Option<RunningDesks>,
    maker: Option<Maker>,
}

pub(crate) fn run(options: &Options) -> Outcome {
    let mut config = Config::load(options.config.as_deref())?;
    config.data_dir.clone_from(&options.data_dir);
    if let Some(base) = options.port_base {
        config.listen.port_base = base;
    }
    if let Some(path) = &options.ready_file {
        ready::retire(path, &config.data_dir)?;
    }
    if config.cluster.is_some() {
        return Err("a demo is a venue of one node; `grid serve` runs a node of a cluster".into());
    }
    let signals = Signals::listen()?;
    let mut venue = match Venue::start(&config, &signals)? {
        Started::Serving(venue) => venue,
        Started::Ended(_) => return Ok(()),
    };
    let operator = venue.operator(&config)?;
    let participants = match start_participants(&venue, &operator, &config, options) {
        Ok(participants) => participants,
        Err(error) => {
            venue.shutdown();
            return Err(error);
        }
    };
    let ready = Ready {
        urls: venue.urls.clone(),
        accounts: participants.accounts.clone(),
        instruments: venue.replica().read(ready::instruments),
        suppliers: participants.simulators.iter().map(ready_supplier).collect(),
    };
    if let Some(path) = &options.ready_file {
        ready::write(path, &ready)?;
    }
    print_invitation(&ready);
    let end = venue.wait_for_end(&signals);
    step("stopping");
    participants.stop();
    venue.shutdown();
    match end {
        End::Stop(why) => Err(why.into()),
        End::Signal | End::Reload | End::Removed => Ok(()),
    }
}

impl Participants {
    fn stop(self) {
        drop(self.maker);
        if let Some(desks) = self.desks {
            desks.stop();
        }
        drop(self.simulators);
    }
}

fn start_participants(
    venue: &Venue,
    operator: &Client,
    config: &Config,
    options: &Options,
) -> Result<Participants, Box<dyn std::error::Error>> {
    step("participants");
    let (secrets, secrets_path) = venue.secrets();
    let mut secrets = secrets.clone();
    let operator_keys = secrets.participant("operator").consumption_key.clone();
    let names = TRADERS.iter().map(|trader| trader.name).chain(SUPPLIERS.iter().map(|traits| traits.name));
    let keys: BTreeMap<&str, Participant> =
        names.map(|name| (name, secrets.participant(name).clone())).collect();
    secrets.save(secrets_path)?;

    let operator = Operator { client: operator, replica: venue.replica() };
    let mut accounts = BTreeMap::new();
    for trader in &TRADERS {
        let id = operator.participant(trader.name, &keys[trader.name], trader.mode, trader.money)?;
        accounts.insert(trader.name.to_owned(), ReadyAccount::new(id, &keys[trader.name], trader.mode));
    }
    let own = AccountId(operator.client.account());
    operator.consumption_key(own, "operator", &operator_keys)?;
    let operator_keys = Participant { private_key: secrets.operator, consumption_key: operator_keys };
    accounts.insert("operator".into(), ReadyAccount::new(own, &operator_keys, AccountMode::Advanced));

    let traded = traded(venue.replica(), config);
    let mut simulators = Vec::new();
    let mut desks = Vec::new();
    for (number, traits) in (0..).zip(&SUPPLIERS) {
        let id = operator.participant(
            traits.name,
            &keys[traits.name],
            AccountMode::Advanced,
            grid_engine::Usd::ZERO,
        )?;
        if number == 0 {
            accounts
                .insert("supplier".into(), ReadyAccount::new(id, &keys[traits.name], AccountMode::Advanced));
        }
        let running = if options.suppliers { Some(start_simulator(config, traits, number)?) } else { None };
        let url = running.as_ref().map(|running| running.url.clone());
        register_supplier(&operator, id, traits, url, &traded, secrets.venue_key)?;
        if number == 0 {
            manage(&operator, id, &traded)?;
        }
        if let Some(running) = running {
            let client = connect(venue, keys[traits.name].private_key)?;
            let offers = traded.iter().map(|t| offer(t, traits)).collect();
            desks.push(Desk { account: id, client, replica: Arc::clone(venue.replica()), offers });
            simulators.push(running);
        }
    }
    for desk in &desks {
        desk.replenish()?;
    }
    let desks = if desks.is_empty() { None } else { Some(RunningDesks::start(desks)?) };
    let maker =
        if options.maker { Some(start_maker(venue, keys["maker"].private_key, &traded)?) } else { None };
    Ok(Participants { accounts, simulators, desks, maker })
}

fn traded(replica: &Replica<Engine>, config: &Config) -> Vec<Traded> {
    replica.read(|engine| {
        let state = engine.state();
        let live = config.instruments.iter().filter_map(|terms| {
            let record = state.instrument_by_symbol(&terms.symbol)?;
            let reference = terms.ticks(terms.reference_price.as_deref()?).ok()?;
            (record.spec.status == InstrumentStatus::Live).then_some(Traded { id: record.id, reference })
        });
        live.collect()
    })
}

fn offer(traded: &Traded, traits: &SupplierTraits) -> Offer {
    Offer { instrument: traded.id, price: ask_ticks(traded.reference.0, traits.premium_bps), qty: ON_OFFER }
}

fn start_simulator(
    config: &Config,
    traits: &SupplierTraits,
    number: u16,
) -> std::io::Result<RunningSupplier> {
    Supplier::start(SupplierConfig {
        name: traits.name.to_owned(),
        addr: config.listen.at(10 + number),
        control_addr: config.listen.at(20 + number),
        models: vec![model_of(traits)],
        ttft: traits.ttft,
        tokens_per_second: traits.tokens_per_second,
        api_key: Some(credential_of(traits)),
        seed: u64::from(number) + 1,
        faults: Faults { error_rate: traits.error_rate, ..Faults::default() },
    })
}

fn model_of(traits: &SupplierTraits) -> String {
    format!("simulated-{}", traits.name)
}

/// Simulated suppliers guard nothing; what matters is that the venue sends each its own credential and no other.
fn credential_of(traits: &SupplierTraits) -> String {
    format!("simulated-credential-of-{}", traits.name)
}

/// Registers the supplier, or tells the venue its new address after a restart.
fn register_supplier(
    operator: &Operator<'_>,
    account: AccountId,
    traits: &SupplierTraits,
    url: Option<String>,
    traded: &[Traded],
    venue_key: Seed,
) -> Result<(), Box<dyn std::error::Error>> {
    let known = operator.replica.read(|engine| engine.state().suppliers.get(&account).cloned());
    let offers: Vec<_> =
        traded.iter().map(|t| SupplierOffer { instrument: t.id, model: model_of(traits) }).collect();
    let suspended = url.is_none();
    let base_url = url.unwrap_or_default();
    let unchanged = known.as_ref().is_some_and(|supplier| {
        supplier.profile.base_url == base_url
            && supplier.profile.suspended == suspended
            && supplier.profile.offers == offers
    });
    if !unchanged {
        let sealed_credential = VenueKey::new(venue_key.0).seal(credential_of(traits).as_bytes());
        let profile =
            SupplierProfile { name: traits.name.to_owned(), base_url, sealed_credential, offers, suspended };
        operator.command("register supplier", account, &Command::RegisterSupplier(Box::new(profile)))?;
    }
    for t in traded {
        let supply = operator.replica.read(|engine| engine.state().supplies.get(account, t.id).copied());
        let granted = supply.map(|supply| supply.capacity);
        if granted.is_none_or(Qty::is_zero) {
            let grant = Command::SetCapacity { instrument: t.id, capacity: CAPACITY };
            operator.command("grant capacity", account, &grant)?;
            // What a penalty or a cover takes when nothing has been earned yet.
            operator.command("deposit collateral", account, &Command::Deposit { amount: COLLATERAL })?;
            let hold = Command::SetCollateral { instrument: t.id, amount: COLLATERAL };
            operator.command("hold collateral", account, &hold)?;
        }
    }
    Ok(())
}

/// Makes a supplier the one that Auto Mode buys from when the book can't sell, well above what the book usually asks.
fn manage(operator: &Operator<'_>, account: AccountId, traded: &[Traded]) -> Result<(), SetupError> {
    for t in traded {
        let managed = operator
            .replica
            .read(|engine| engine.state().instrument(t.id).is_some_and(|record| record.managed.is_some()));
        if !managed {
            let price = Price(ask_ticks(t.reference.0, MANAGED_PREMIUM_BPS));
            let name = Command::SetManaged { instrument: t.id, price, capacity: CAPACITY };
            operator.command("name the managed supplier", account, &name)?;
        }
    }
    Ok(())
}

fn connect(venue: &Venue, key: Seed) -> Result<Client, grid_client::ClientError> {
    Client::connect(ClientConfig::new(vec![venue.binary_addr()], key.0))
}

/// Buys the maker's first stock from the suppliers' asks and lets it quote.
fn start_maker(venue: &Venue, key: Seed, traded: &[Traded]) -> Result<Maker, Box<dyn std::error::Error>> {
    let client = connect(venue, key)?;
    let account = AccountId(client.account());
    for t in traded {
        let stock = venue.replica().read(|engine| {
            engine
                .state()
                .holding(account, t.id)
                .map_or(Qty::ZERO, |holding| Qty(holding.available.0 + holding.held.0))
        });
        let missing = MAKER_STOCK.0.saturating_sub(stock.0);
        if missing > 0 {
            let order = NewOrder {
                instrument: t.id.0,
                side: Side::Buy,
                order_type: OrderType::Market,
                time_in_force: TimeInForce::Ioc,
                qty: missing,
                ..NewOrder::default()
            };
            // Without suppliers nobody sells, and the maker begins with bids alone.
            let report = client.call_blocking(order)?;
            venue.wait(report.log_seq());
        }
    }
    let units = |id: InstrumentId| {
        venue.replica().read(|engine| {
            engine.state().holding(account, id).map_or(0, |holding| holding.available.0 + holding.held.0)
        })
    };
    let quote = |t: &Traded| Quote::around(t.id.0, t.reference.0, units(t.id));
    let quotes = traded.iter().map(quote).collect();
    Ok(Maker::start(client, MakerConfig { quotes, ..MakerConfig::default() })?)
}

fn ready_supplier(supplier: &RunningSupplier) -> ReadySupplier {
    ReadySupplier {
        name: supplier.name.clone(),
        url: supplier.url.clone(),
        control_url: supplier.control_url.clone(),
    }
}

/// What a newcomer reads first, and can paste.
fn print_invitation(ready: &Ready) {
    let demo = &ready.accounts["demo"];
    let trader = &ready.accounts["trader"];
    let urls = &ready.urls;
    println!(
        "\nThe Grid is open.\n\
         \n  inference  {inference}   OpenAI API, pays from the order book\n  \
         messages   {messages}   the same for Anthropic's clients\n  \
         trading    {trading}   signed HTTP\n  \
         platform   {platform}\n  \
         binary     {binary}   SBE sessions\n\
         \n  demo account (Auto Mode, $25)   key {key}\n  \
         trader account (Advanced Mode)  fingerprint {fingerprint}\n",
        inference = urls.inference_url,
        // Their clients add the version themselves.
        messages = urls.messages_url.trim_end_matches("/v1"),
        trading = urls.trading_url,
        platform = urls.platform_url,
        binary = urls.binary_addr,
        key = demo.consumption_key,
        fingerprint = trader.fingerprint,
    );
    println!(
        "1. A completion with curl:\n\n   \
         curl -N {base}/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n     \
         -d '{{\"model\":\"text-prime\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"What is a spot market?\"}}]}}'\n\n\
         2. The same with the official SDK (pip install openai):\n\n   \
         OPENAI_BASE_URL={base} OPENAI_API_KEY={key} python3 -c \\\n     \
         'from openai import OpenAI; print(OpenAI().chat.completions.create(model=\"text-prime\", messages=[{{\"role\":\"user\",\"content\":\"Hello\"}}]).choices[0].message.content)'\n\n\
         3. A signed order (needs only Node.js; asks for 1 Unit of text-prime):\n\n{order}\n\n\
         Ctrl-C ends it; the next start goes on where this one stops.",
        base = urls.inference_url,
        key = demo.consumption_key,
        order = signed_order(ready),
    );
}

/// A script that fits on a terminal: signs and sends one limit order with nothing but Node.js.
fn signed_order(ready: &Ready) -> String {
    let market = ready.instruments.iter().find(|instrument| instrument.symbol == "text-prime");
    let market = market.map_or("", |instrument| instrument.market_id.as_str());
    let trader = &ready.accounts["trader"];
    format!(
        "   node -e '\n\
         \x20  const {{createPrivateKey, sign}} = require(\"crypto\");\n\
         \x20  const seed = Buffer.from(\"{seed}\", \"base64\");\n\
         \x20  const der = Buffer.concat([Buffer.from(\"302e020100300506032b657004220420\", \"hex\"), seed]);\n\
         \x20  const key = createPrivateKey({{key: der, format: \"der\", type: \"pkcs8\"}});\n\
         \x20  const body = JSON.stringify({{market_id: \"{market}\", side: \"buy\", type: \"limit\", quantity: 1, price: \"0.70\"}});\n\
         \x20  const time = String(Math.floor(Date.now() / 1000));\n\
         \x20  const headers = {{\"content-type\": \"application/json\", \"x-thegrid-timestamp\": time,\n\
         \x20    \"x-thegrid-fingerprint\": \"{fingerprint}\",\n\
         \x20    \"x-thegrid-signature\": sign(null, Buffer.from(time + \"POST/v1/orders\" + body), key).toString(\"base64\")}};\n\
         \x20  fetch(\"{trading}/orders\", {{method: \"POST\", headers, body}}).then(r => r.text()).then(console.log)'",
        seed = trader.private_key,
        fingerprint = trader.fingerprint,
        trading = ready.urls.trading_url,
    )
}
