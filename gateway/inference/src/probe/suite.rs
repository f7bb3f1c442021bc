//! The checks: what is asked, what passes, in which order. A check that fails ends nothing: the others say what else is
//! wrong. Only time ends a probe early, and then what was not asked has failed.

use std::collections::BTreeMap;

use grid_engine::instrument::QualityTerms;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Probing;
use super::asking::{Heard, Silence, Target};
use super::report::{Check, Checked, ModelReport, Verdict};
use super::schema::fits;
use super::wording;
use crate::needs::{Need, Needs};

/// Longest answer to a request with a limit of [`LIMIT`] tokens, by our own count: tokenizers differ.
const LIMIT_OWN_MAX: u64 = 2 * LIMIT + 8;
const LIMIT: u64 = 16;

type Figures = BTreeMap<&'static str, u64>;
/// Nothing, or why not.
type Found = Result<(), &'static str>;

/// A probe of one model under way.
pub(super) struct Suite<'a> {
    target: Target<'a>,
    quality: &'a QualityTerms,
    /// What the model is known to lack.
    lacks: Needs,
    probing: Probing,
    until: Instant,
    requests: u64,
    tokens: u64,
}

impl<'a> Suite<'a> {
    pub(super) fn new(target: Target<'a>, quality: &'a QualityTerms, lacks: Needs, probing: Probing) -> Self {
        let until = Instant::now() + probing.whole;
        Self { target, quality, lacks, probing, until, requests: 0, tokens: 0 }
    }

    /// All of them, one after the other, so that a probe is one call at a time to its supplier.
    pub(super) async fn run(mut self) -> ModelReport {
        const ORDER: [Check; 10] = [
            Check::Stream,
            Check::Whole,
            Check::Limit,
            Check::Tools,
            Check::ParallelTools,
            Check::JsonSchema,
            Check::Output,
            Check::BadRequest,
            Check::Speed,
            Check::Context,
        ];
        let began = Instant::now();
        let mut checks = Vec::new();
        for check in ORDER {
            let mut figures = Figures::new();
            let verdict = match self.needless(check) {
                Some(why) => Verdict::Skipped(why),
                None if Instant::now() >= self.until => Verdict::Failed("no time was left"),
                None => match self.check(check, &mut figures).await {
                    Ok(()) => Verdict::Passed,
                    Err(why) => Verdict::Failed(why),
                },
            };
            checks.push(Checked { check, verdict, figures });
        }
        ModelReport {
            model: self.target.model.to_owned(),
            passed: checks.iter().all(|one| !matches!(one.verdict, Verdict::Failed(_))),
            checks,
            requests: self.requests,
            tokens: self.tokens,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Why a check need not be made, if it needn't.
    fn needless(&self, check: Check) -> Option<&'static str> {
        let lacks = |need: Need| self.lacks.iter().any(|one| one == need).then_some("known to lack it");
        let promised = |floor: u32| (floor == 0).then_some("nothing is promised");
        match check {
            Check::Tools => lacks(Need::Tools).or_else(|| lacks(Need::ToolChoice)),
            Check::ParallelTools => {
                [Need::Tools, Need::ToolChoice, Need::ParallelToolCalls].into_iter().find_map(lacks)
            }
            Check::JsonSchema => lacks(Need::JsonSchema),
            Check::Context => promised(self.quality.context_floor),
            Check::Output => promised(self.quality.output_floor),
            Check::Speed => promised(self.quality.ttft_ceiling_ms | self.quality.tokens_per_second_floor),
            Check::Stream | Check::Whole | Check::Limit | Check::BadRequest => None,
        }
    }

    async fn check(&mut self, check: Check, figures: &mut Figures) -> Found {
        match check {
            Check::Stream => self.conversation(true, figures).await,
            Check::Whole => self.conversation(false, figures).await,
            Check::Limit => self.limit(figures).await,
            Check::Tools => self.tools(figures).await,
            Check::ParallelTools => self.parallel_tools(figures).await,
            Check::JsonSchema => self.json_schema(figures).await,
            Check::Context => self.context(figures).await,
            Check::Output => self.output(figures).await,
            Check::Speed => self.speed(figures).await,
            Check::BadRequest => self.bad_request(figures).await,
        }
    }

    /// Asks within the time of a question and what is left of the probe's.
    async fn ask(&mut self, body: Value, stream: bool) -> Result<Heard, Silence> {
        self.requests += 1;
        let until = self.until.min(Instant::now() + self.probing.question);
        let heard = self.target.ask(body, stream, until).await;
        if let Ok(heard) = &heard {
            self.tokens = self.tokens.saturating_add(heard.tokens());
        }
        heard
    }

    async fn conversation(&mut self, stream: bool, figures: &mut Figures) -> Found {
        let body = wording::count_aloud(self.probing.stream_tokens);
        let heard = self.ask(body, stream).await.map_err(Silence::why)?;
        heard.note(figures);
        if stream {
            figures.insert("first_us", heard.first_us);
        }
        if heard.own.is_none_or(|own| own.completion == 0) {
            return Err("nothing was said");
        }
        match heard.finish.as_deref() {
            Some("stop" | "length") => {}
            Some(_) => return Err("another reason to stop"),
            None => return Err("no reason to stop"),
        }
        self.counted(&heard)
    }

    /// The supplier's counts are there, and near enough to ours on either side.
    fn counted(&self, heard: &Heard) -> Found {
        let (Some(bill), Some(own)) = (heard.bill, heard.own) else {
            return Err("no usage");
        };
        let metering = self.target.metering;
        let far = |told: u64, own: u64| {
            u128::from(own)
                > u128::from(told) * u128::from(100 + metering.percent) / 100 + u128::from(metering.slack)
        };
        if bill.distrusted {
            Err("a usage beyond belief")
        } else if bill.estimated {
            Err("no usage")
        } else if far(bill.prompt, own.prompt) || far(bill.completion, own.completion) {
            Err("a usage below belief")
        } else {
            Ok(())
        }
    }

    async fn limit(&mut self, figures: &mut Figures) -> Found {
        let heard = self.ask(wording::count_aloud(LIMIT), true).await.map_err(Silence::why)?;
        heard.note(figures);
        figures.insert("limit_tokens", LIMIT);
        if heard.own.is_none_or(|own| own.completion > LIMIT_OWN_MAX) {
            return Err("an answer beyond the limit");
        }
        match heard.finish.as_deref() {
            Some("length") => Ok(()),
            _ => Err("the limit is not the reason to stop"),
        }
    }

    async fn tools(&mut self, figures: &mut Figures) -> Found {
        for (stream, name) in [(false, "calls_whole"), (true, "calls_streamed")] {
            let body = wording::forced_call(self.probing.answer_tokens);
            let heard = self.ask(body, stream).await.map_err(Silence::why)?;
            figures.insert(name, heard.calls.len() as u64);
            match heard.calls.as_slice() {
                [] => return Err("the function was not called"),
                [one] => called(one, "get_forecast")?,
                _ => return Err("more calls than one"),
            }
            if !matches!(heard.finish.as_deref(), Some("tool_calls" | "stop")) {
                return Err("another reason to stop");
            }
        }
        Ok(())
    }

    async fn parallel_tools(&mut self, figures: &mut Figures) -> Found {
        let body = wording::two_calls(self.probing.answer_tokens, true);
        let both = self.ask(body, true).await.map_err(Silence::why)?;
        figures.insert("calls_allowed", both.calls.len() as u64);
        for name in ["get_forecast", "get_history"] {
            let call = both.calls.iter().find(|(called, _)| called == name).ok_or("not both were called")?;
            called(call, name)?;
        }
        let body = wording::two_calls(self.probing.answer_tokens, false);
        let one = self.ask(body, true).await.map_err(Silence::why)?;
        figures.insert("calls_forbidden", one.calls.len() as u64);
        if one.calls.len() == 1 { Ok(()) } else { Err("not one call where one is allowed") }
    }

    async fn json_schema(&mut self, figures: &mut Figures) -> Found {
        for stream in [false, true] {
            let body = wording::structured(self.probing.answer_tokens);
            let heard = self.ask(body, stream).await.map_err(Silence::why)?;
            heard.note(figures);
            let value: Value = serde_json::from_str(&heard.text).map_err(|_| "the answer is not JSON")?;
            if !fits(&value, &wording::schema()) {
                return Err("the answer does not fit the schema");
            }
        }
        Ok(())
    }

    async fn context(&mut self, figures: &mut Figures) -> Found {
        let share = u64::from(self.quality.context_floor) * u64::from(self.probing.context_percent) / 100;
        let wanted = share.min(self.probing.context_tokens_max);
        let made = tokio::task::spawn_blocking(move || wording::haystack(wanted)).await;
        let stack = made.map_err(|_| "the prompt could not be made")?;
        figures.insert("floor_tokens", u64::from(self.quality.context_floor));
        figures.insert("sent_tokens", stack.tokens);
        figures.insert("needles", stack.needles.len() as u64);
        let body = wording::ask(&stack.text, self.probing.answer_tokens);
        let heard = self.ask(body, true).await.map_err(|silence| match silence {
            Silence::Refused(_) => "the prompt was refused",
            other => other.why(),
        })?;
        heard.note(figures);
        figures.insert("first_us", heard.first_us);
        let found = stack.needles.iter().filter(|needle| heard.text.contains(needle.as_str())).count();
        figures.insert("found", found as u64);
        if found < stack.needles.len() {
            return Err("not all needles were found");
        }
        // What is long shows counts that a short answer's allowance hides.
        self.counted(&heard)
    }

    async fn output(&mut self, figures: &mut Figures) -> Found {
        let floor = u64::from(self.quality.output_floor);
        figures.insert("limit_tokens", floor);
        let heard = self.ask(wording::say_yes(floor), true).await.map_err(|silence| match silence {
            Silence::Refused(_) => "the limit was refused",
            other => other.why(),
        })?;
        heard.note(figures);
        Ok(())
    }

    /// Several streams; but for a few, each begins and goes on as fast as the instrument promises.
    async fn speed(&mut self, figures: &mut Figures) -> Found {
        let ceiling_us = u64::from(self.quality.ttft_ceiling_ms) * 1_000;
        let floor_milli = u64::from(self.quality.tokens_per_second_floor) * 1_000;
        let (mut firsts, mut paces) = (Vec::new(), Vec::new());
        for _ in 0..self.probing.samples {
            let body = wording::count_aloud(self.probing.stream_tokens);
            let heard = self.ask(body, true).await.map_err(Silence::why)?;
            firsts.push(heard.first_us);
            paces.push(heard.pace_milli().ok_or("too little was said to be measured")?);
        }
        let late = firsts.iter().filter(|first| ceiling_us > 0 && **first > ceiling_us).count() as u64;
        let slow = paces.iter().filter(|pace| **pace < floor_milli).count() as u64;
        firsts.sort_unstable();
        paces.sort_unstable();
        let middle = |sorted: &[u64]| sorted.get(sorted.len() / 2).copied().unwrap_or(0);
        for (name, figure) in [
            ("samples", firsts.len() as u64),
            ("ttft_us_median", middle(&firsts)),
            ("ttft_us_max", firsts.last().copied().unwrap_or(0)),
            ("ttft_us_ceiling", ceiling_us),
            ("millitokens_per_second_median", middle(&paces)),
            ("millitokens_per_second_min", paces.first().copied().unwrap_or(0)),
            ("millitokens_per_second_floor", floor_milli),
            ("late", late),
            ("slow", slow),
        ] {
            figures.insert(name, figure);
        }
        if late > u64::from(self.probing.misses) {
            Err("the first token came too late")
        } else if slow > u64::from(self.probing.misses) {
            Err("the tokens came too slowly")
        } else {
            Ok(())
        }
    }

    async fn bad_request(&mut self, figures: &mut Figures) -> Found {
        self.requests += 1;
        let until = self.until.min(Instant::now() + self.probing.question);
        // The same words in both dialects, and wrong in both.
        let body = json!({"model": self.target.model, "max_tokens": 16, "messages": []});
        match self.target.refusal(&body, until).await {
            Ok(()) => Err("it was answered"),
            Err(Silence::Refused(status)) => {
                figures.insert("status", u64::from(status));
                Ok(())
            }
            Err(Silence::Failed(why)) => Err(why),
        }
    }
}

/// The call is of this function, and its arguments fit.
fn called((name, arguments): &(String, String), wanted: &str) -> Found {
    if name != wanted {
        return Err("another function was called");
    }
    let arguments: Value = serde_json::from_str(arguments).map_err(|_| "the arguments are not JSON")?;
    if fits(&arguments, &wording::parameters()) { Ok(()) } else { Err("the arguments do not fit") }
}
