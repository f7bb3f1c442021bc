//! A market made of two sessions of the binary door: one owns what rests, the other takes. The book is read from
//! market data, as a participant sees it.

use std::time::Duration;

use grid_client::{BookImage, Client, ClientError, Event, Report};
use grid_wire::{CancelOrder, ExecType, NewOrder, OrdStatus, OrderType, ReplaceOrder, TimeInForce};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::flow::{Fill, Market, Side};

/// How long the venue may take to say what must follow from what it has already said.
const PATIENCE: Duration = Duration::from_secs(30);

/// What kept the flow from going through the door.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A request was not done.
    #[error("{what}: {error}")]
    Call {
        /// Which request.
        what: String,
        /// Why not.
        error: ClientError,
    },
    /// The venue did not say something that it must.
    #[error("no {0} in time")]
    Silent(&'static str),
    /// Events were lost because the listener fell behind.
    #[error("{0} events were lost")]
    Lagged(u64),
    /// A recorded price is no whole number of ticks.
    #[error("{0} is no whole number of ticks")]
    OffTick(u64),
    /// This machine could not give what is needed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Two sessions on one instrument.
#[derive(Debug)]
pub struct Door {
    maker: Client,
    taker: Client,
    instrument: u16,
    price_divisor: u64,
    maker_events: Receiver<Event>,
    taker_events: Receiver<Event>,
    book: BookImage,
    book_must_reach: u64,
    runtime: tokio::runtime::Runtime,
}

impl Door {
    /// Opens the door on an instrument whose book is empty. Both accounts need ample dollars and Units, and must be
    /// different accounts. A recorded price divided by `price_divisor` is a price in ticks. Not for async code.
    ///
    /// # Errors
    /// The client is closed, or the venue sends no snapshot.
    pub fn open(
        maker: Client,
        taker: Client,
        instrument: u16,
        price_divisor: u64,
    ) -> Result<Self, DoorError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (maker_events, taker_events) = (maker.events(), taker.events());
        maker
            .subscribe(instrument, 0)
            .map_err(|error| DoorError::Call { what: "subscribe".into(), error })?;
        let mut door = Self {
            maker,
            taker,
            instrument,
            price_divisor,
            maker_events,
            taker_events,
            book: BookImage::new(instrument),
            book_must_reach: 0,
            runtime,
        };
        while !door.book.is_whole() {
            door.hear_maker("snapshot", &mut Vec::new())?;
        }
        Ok(door)
    }

    fn ticks(&self, price: u64) -> Result<u64, DoorError> {
        if price.is_multiple_of(self.price_divisor) {
            Ok(price / self.price_divisor)
        } else {
            Err(DoorError::OffTick(price))
        }
    }

    fn order(
        &self,
        side: Side,
        price: u64,
        qty: u64,
        time_in_force: TimeInForce,
    ) -> Result<NewOrder, DoorError> {
        Ok(NewOrder {
            instrument: self.instrument,
            side: wire_side(side),
            order_type: OrderType::Limit,
            price: self.ticks(price)?,
            qty,
            time_in_force,
            ..NewOrder::default()
        })
    }

    fn call(
        client: &Client,
        request: impl Into<grid_client::Request>,
        what: String,
    ) -> Result<Report, DoorError> {
        client.call_blocking(request).map_err(|error| DoorError::Call { what, error })
    }

    /// Takes in one event of the maker's session: the book, and fills.
    fn hear_maker(
        &mut self,
        waiting_for: &'static str,
        fills: &mut Vec<(u64, Fill)>,
    ) -> Result<(), DoorError> {
        let event = hear(&self.runtime, &mut self.maker_events, waiting_for)?;
        self.book.apply(&event);
        if let Event::Report(Report::Execution(r)) = event
            && r.exec_type == ExecType::Trade
        {
            fills.push((r.log_seq, Fill { order: r.order_id, qty: r.last_qty }));
        }
        Ok(())
    }
}

fn wire_side(side: Side) -> grid_wire::Side {
    match side {
        Side::Buy => grid_wire::Side::Buy,
        Side::Sell => grid_wire::Side::Sell,
    }
}

fn hear(
    runtime: &tokio::runtime::Runtime,
    events: &mut Receiver<Event>,
    waiting_for: &'static str,
) -> Result<Event, DoorError> {
    let heard = runtime.block_on(async { tokio::time::timeout(PATIENCE, events.recv()).await });
    match heard {
        Err(_) | Ok(Err(RecvError::Closed)) => Err(DoorError::Silent(waiting_for)),
        Ok(Err(RecvError::Lagged(lost))) => Err(DoorError::Lagged(lost)),
        Ok(Ok(event)) => Ok(event),
    }
}

impl Market for Door {
    type Error = DoorError;

    fn add(&mut self, side: Side, price: u64, qty: u64) -> Result<u64, DoorError> {
        let order = self.order(side, price, qty, TimeInForce::Gtc)?;
        let answer = Self::call(&self.maker, order, format!("{side:?} {qty} at {price}"))?;
        self.book_must_reach = answer.log_seq();
        Ok(answer.id())
    }

    fn reduce(&mut self, order: u64, price: u64, open: u64) -> Result<(), DoorError> {
        let price = self.ticks(price)?;
        let request = ReplaceOrder { order_id: order, price, qty: open, ..ReplaceOrder::default() };
        let answer = Self::call(&self.maker, request, format!("reduce {order} to {open}"))?;
        self.book_must_reach = answer.log_seq();
        Ok(())
    }

    fn cancel(&mut self, order: u64) -> Result<(), DoorError> {
        let request = CancelOrder { order_id: order, ..CancelOrder::default() };
        let answer = Self::call(&self.maker, request, format!("cancel {order}"))?;
        self.book_must_reach = answer.log_seq();
        Ok(())
    }

    fn take(&mut self, side: Side, price: u64, qty: u64) -> Result<Vec<Fill>, DoorError> {
        let order = self.order(side, price, qty, TimeInForce::Ioc)?;
        let answer = Self::call(&self.taker, order, format!("IOC {side:?} {qty} at {price}"))?;
        // The taker's last report says how much was traded; as much must arrive at the maker.
        let traded = loop {
            if let Event::Report(Report::Execution(r)) =
                hear(&self.runtime, &mut self.taker_events, "end of an IOC")?
                && r.order_id == answer.id()
                && !matches!(r.ord_status, OrdStatus::New | OrdStatus::PartiallyFilled)
            {
                break r.cum_qty;
            }
        };
        let mut fills: Vec<(u64, Fill)> = Vec::new();
        let of_this = |f: &&(u64, Fill)| f.0 == answer.log_seq();
        while fills.iter().filter(of_this).map(|(_, f)| f.qty).sum::<u64>() < traded {
            self.hear_maker("fill", &mut fills)?;
        }
        if traded > 0 {
            self.book_must_reach = answer.log_seq();
        }
        Ok(fills.iter().filter(of_this).map(|(_, f)| *f).collect())
    }

    fn depth(&mut self, side: Side) -> Result<Vec<(u64, u64)>, DoorError> {
        while !self.book.is_whole() || self.book.log_seq() < self.book_must_reach {
            self.hear_maker("book", &mut Vec::new())?;
        }
        let priced = |(price, qty, _): (u64, u64, u32)| (price * self.price_divisor, qty);
        Ok(match side {
            Side::Buy => self.book.bids().map(priced).collect(),
            Side::Sell => self.book.asks().map(priced).collect(),
        })
    }
}
