//! From the log to the wire: an engine report becomes a message.

use grid_engine::command::Side;
use grid_engine::event::{Closure, Exec, OrderReport, Report, ReportBody};
use grid_wire as wire;
use grid_wire::ReportFlags;

/// Appends the message for a report.
pub(crate) fn encode(report: &Report, resent: bool, out: &mut Vec<u8>) {
    let flags = ReportFlags::none()
        .with(ReportFlags::POSS_RESEND, resent)
        .with(ReportFlags::UNSOLICITED, report.client_seq == 0);
    let (session_seq, log_seq, match_time) = (report.number, report.seq.0, report.at.0);
    let (client_seq, account) = (report.client_seq, report.account.0);
    match &report.body {
        ReportBody::Order(order) => execution(report, order, flags).encode(out),
        ReportBody::Rejected { reject, label, order } => wire::CommandReject {
            session_seq,
            log_seq,
            match_time,
            client_seq,
            label: label.0,
            existing_id: order.0,
            account,
            code: reject.code(),
            flags,
        }
        .encode(out),
        ReportBody::MassCancelled { count } => wire::MassCancelReport {
            session_seq,
            log_seq,
            match_time,
            client_seq,
            cancelled: *count,
            account,
            flags,
        }
        .encode(out),
        ReportBody::Quoted { accepted, refused } => wire::MassQuoteReport {
            session_seq,
            log_seq,
            match_time,
            client_seq,
            account,
            accepted: *accepted,
            refused: *refused,
            flags,
        }
        .encode(out),
        ReportBody::QuoteRefused { instrument, quote, side: refused, reject } => wire::QuoteRefused {
            session_seq,
            log_seq,
            match_time,
            account,
            instrument: instrument.0,
            code: reject.code(),
            quote: *quote,
            side: side(*refused),
            // Part of an answer, though it has no request's number.
            flags: ReportFlags::none().with(ReportFlags::POSS_RESEND, resent),
        }
        .encode(out),
        ReportBody::QuotesPulled { count } => {
            wire::QuotesPulled { session_seq, log_seq, match_time, account, count: *count, flags }.encode(out)
        }
        ReportBody::Reserved { reservation, tokens, bought, spent, issuers } => {
            let issuers: Vec<_> = issuers.iter().map(|issuer| wire::Issuer { supplier: issuer.0 }).collect();
            wire::ReserveReport {
                session_seq,
                log_seq,
                match_time,
                client_seq,
                reservation: reservation.0,
                tokens: tokens.0,
                bought_qty: bought.0,
                spent: spent.0,
                account,
                flags,
            }
            .encode(&issuers, out);
        }
        ReportBody::Settled { reservation, billed, unbilled, cost } => wire::SettleReport {
            session_seq,
            log_seq,
            match_time,
            client_seq,
            reservation: reservation.0,
            billed: billed.0,
            unbilled: unbilled.0,
            cost: cost.0,
            account,
            flags,
        }
        .encode(out),
        ReportBody::Done { created } => {
            wire::CommandReport { session_seq, log_seq, match_time, client_seq, id: *created, account, flags }
                .encode(out)
        }
    }
}

#[inline]
fn execution(report: &Report, order: &OrderReport, flags: ReportFlags) -> wire::ExecutionReport {
    let mut told = wire::ExecutionReport {
        session_seq: report.number,
        log_seq: report.seq.0,
        match_time: report.at.0,
        client_seq: report.client_seq,
        order_id: order.order.0,
        label: order.label.0,
        price: order.price().0,
        leaves_qty: order.remaining().0,
        cum_qty: order.filled().0,
        account: report.account.0,
        instrument: order.instrument.0,
        side: side(order.side),
        flags,
        quote: order.quote,
        ord_status: match (order.filled().is_zero(), order.remaining().is_zero()) {
            (true, _) => wire::OrdStatus::New,
            (false, false) => wire::OrdStatus::PartiallyFilled,
            (false, true) => wire::OrdStatus::Filled,
        },
        ..wire::ExecutionReport::default()
    };
    match order.exec() {
        Exec::New => told.exec_type = wire::ExecType::New,
        Exec::Replaced => told.exec_type = wire::ExecType::Replaced,
        Exec::Trade { trade, price, qty, aggressor } => {
            told.exec_type = wire::ExecType::Trade;
            (told.trade_id, told.last_price, told.last_qty) = (trade.0, price.0, qty.0);
            told.flags = flags.with(ReportFlags::AGGRESSOR, aggressor);
        }
        Exec::Closed(reason) => {
            (told.closure, told.exec_type, told.ord_status) = closed(reason);
        }
    }
    told
}

fn closed(reason: Closure) -> (wire::Closure, wire::ExecType, wire::OrdStatus) {
    use wire::{ExecType as E, OrdStatus as S};
    match reason {
        Closure::Filled => (wire::Closure::Filled, E::Status, S::Filled),
        Closure::Cancelled => (wire::Closure::Cancelled, E::Cancelled, S::Cancelled),
        Closure::SelfTrade => (wire::Closure::SelfTrade, E::Cancelled, S::Cancelled),
        Closure::PartiallyFilledNoLiquidity => {
            (wire::Closure::PartiallyFilledNoLiquidity, E::Expired, S::Expired)
        }
        Closure::PartiallyFilledMaxSlippage => {
            (wire::Closure::PartiallyFilledMaxSlippage, E::Expired, S::Expired)
        }
        Closure::NoFillNoLiquidity => (wire::Closure::NoFillNoLiquidity, E::Expired, S::Expired),
        Closure::NoFillMaxSlippage => (wire::Closure::NoFillMaxSlippage, E::Expired, S::Expired),
        Closure::Expired => (wire::Closure::DayOver, E::Expired, S::Expired),
        Closure::Suspended => (wire::Closure::Suspended, E::Cancelled, S::Cancelled),
    }
}

/// The engine's side on the wire.
pub(crate) fn side(side: Side) -> wire::Side {
    match side {
        Side::Buy => wire::Side::Buy,
        Side::Sell => wire::Side::Sell,
    }
}
