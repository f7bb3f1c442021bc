//! What clients were told, as the checker's model writes it.

use grid_client::Report;
use grid_wire::{Closure, ExecType, ExecutionReport, OrdStatus, ReportFlags, Side};
use serde_json::{Value, json};

/// A report as the checker's model writes it.
pub(super) fn told(report: &Report) -> Value {
    let mut told = json!({
        "session_seq": report.session_seq(), "log_seq": report.log_seq(), "client_seq": report.client_seq(),
        "account": report.account(),
    });
    let body = match report {
        Report::Execution(r) => execution(r),
        Report::Reject(r) => json!({
            "kind": "reject", "match_time": r.match_time, "code": r.code, "label": r.label as u64,
            "existing": r.existing_id,
        }),
        Report::MassCancel(r) => {
            json!({ "kind": "mass_cancel", "match_time": r.match_time, "cancelled": r.cancelled })
        }
        Report::Command(r) => json!({ "kind": "done", "match_time": r.match_time, "id": r.id }),
        Report::Reserve(r, _) => json!({ "kind": "delivery", "match_time": r.match_time }),
        Report::Settle(r) => json!({ "kind": "delivery", "match_time": r.match_time }),
        Report::MassQuote(r, _) => json!({
            "kind": "mass_quote", "match_time": r.match_time, "accepted": r.accepted, "refused": r.refused,
        }),
        Report::QuoteRefused(r) => json!({
            "kind": "quote_refused", "match_time": r.match_time, "instrument": r.instrument, "quote": r.quote,
            "side": side(r.side), "code": r.code,
        }),
        Report::QuotesPulled(r) => {
            json!({ "kind": "quotes_pulled", "match_time": r.match_time, "count": r.count })
        }
    };
    if let (Value::Object(told), Value::Object(body)) = (&mut told, body) {
        told.extend(body);
    }
    told
}

fn execution(r: &ExecutionReport) -> Value {
    let exec = match r.exec_type {
        ExecType::New => "new",
        ExecType::Cancelled => "cancelled",
        ExecType::Replaced => "replaced",
        ExecType::Rejected => "rejected",
        ExecType::Expired => "expired",
        ExecType::Restated => "restated",
        ExecType::Trade => "trade",
        ExecType::Status => "status",
    };
    let status = match r.ord_status {
        OrdStatus::New => "new",
        OrdStatus::PartiallyFilled => "partly_filled",
        OrdStatus::Filled => "filled",
        OrdStatus::Cancelled => "cancelled",
        OrdStatus::Rejected => "rejected",
        OrdStatus::Expired => "expired",
    };
    let closure = match r.closure {
        Closure::None => "none",
        Closure::Cancelled => "cancelled",
        Closure::PartiallyFilledNoLiquidity => "partly_filled_no_liquidity",
        Closure::PartiallyFilledMaxSlippage => "partly_filled_max_slippage",
        Closure::NoFillNoLiquidity => "no_fill_no_liquidity",
        Closure::NoFillMaxSlippage => "no_fill_max_slippage",
        Closure::SelfTrade => "self_trade",
        Closure::DayOver => "day_over",
        Closure::Filled => "filled",
        Closure::Suspended => "suspended",
    };
    json!({
        "kind": "execution", "match_time": r.match_time, "exec": exec, "status": status, "closure": closure,
        "order": r.order_id, "label": r.label as u64, "instrument": r.instrument,
        "side": side(r.side), "price": r.price, "leaves": r.leaves_qty,
        "cum": r.cum_qty, "trade": r.trade_id, "last_price": r.last_price, "last_qty": r.last_qty,
        "aggressor": r.flags.has(ReportFlags::AGGRESSOR), "quote": r.quote,
    })
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    }
}
