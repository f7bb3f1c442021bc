//! What becomes of a supplier that serves badly, on the real engine: faults and lies are counted, a closed window costs
//! it a penalty and its place on the roster, and probes bring it back.

use std::sync::Arc;
use std::time::Duration;

use crate::market::{INSTRUMENT, Market};
use crate::support::*;
use grid_engine::command::{AccountMode, Command};
use grid_engine::sla::{Fault, SlaTerms};
use grid_engine::state::Service;
use grid_engine::{AccountId, Nanos, SECOND, Usd};
use grid_inference::{Pauses, RunningTier};
use grid_suppliers::{Faults, RunningSupplier, Supplier, SupplierConfig};
use serde_json::{Value, json};

/// Of the engine's calendar; a window is one of them.
const MINUTE: u64 = 60;

struct Scene {
    market: Arc<Market>,
    /// The first sells cheapest, so that it is asked first.
    suppliers: Vec<RunningSupplier>,
    tier: RunningTier,
    ids: Vec<AccountId>,
}

impl Scene {
    /// The first supplier has the faults from the start.
    async fn open(required: bool, faults: Faults) -> Self {
        let suppliers: Vec<RunningSupplier> = [faults, Faults::default()]
            .into_iter()
            .map(|faults| {
                let models = vec!["served".into()];
                let config = SupplierConfig { models, faults, ..SupplierConfig::default() };
                Supplier::start(config).expect("loopback is there")
            })
            .collect();
        let market = Market::open(AccountMode::Easy, 25, [&suppliers[0].url, &suppliers[1].url]);
        let terms = SlaTerms {
            window: Nanos(MINUTE * SECOND),
            sample: 1,
            penalty: Usd(50_000_000),
            breaches_to_suspend: 1,
            probes_to_decide: 2,
            late_is_free: false,
            ..SlaTerms::default()
        };
        let terms = Command::SetSlaTerms { instrument: INSTRUMENT, terms: Box::new(terms) };
        market.done(AccountId(1), terms);
        let tier = market
            .tier_set(|config| {
                config.probing.required = required;
                config.probing.suspended = Some(Pauses {
                    // Longer than any test waits: what follows the venue's news alone is what finds the suspended.
                    look: Duration::from_secs(3_600),
                    first: Duration::from_millis(5),
                    longest: Duration::from_millis(50),
                });
            })
            .await;
        let ids = market.state(|state| state.suppliers.keys().copied().collect());
        Self { market, suppliers, tier, ids }
    }

    async fn call(&self) -> Value {
        let answer = Caller::new(&self.tier).chat(&ask(json!({}))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    fn service(&self, at: usize) -> Service {
        self.market.state(|state| state.services.get(self.ids[at], INSTRUMENT).cloned().unwrap_or_default())
    }

    fn is_active(&self, at: usize) -> bool {
        let supply = |state: &grid_engine::state::State| {
            state.supplies.get(self.ids[at], INSTRUMENT).expect("it supplies").standing.is_active()
        };
        self.market.state(supply)
    }

    async fn until(&self, what: &str, met: impl Fn(&Self) -> bool) {
        let waited = async {
            while !met(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waited).await;
        assert!(waited.is_ok(), "waited in vain until {what}");
    }
}

#[tokio::test]
async fn who_fails_too_often_pays_leaves_the_roster_and_comes_back_when_probes_are_passed() {
    let scene = Scene::open(false, Faults { status: Some(500), ..Faults::default() }).await;
    for _ in 0..3 {
        scene.call().await;
    }
    let faults = |scene: &Scene| scene.service(0).window.faults[Fault::Refused as usize];
    scene.until("each failed attempt is counted", |scene| faults(scene) >= 3).await;
    assert!(scene.is_active(0), "nothing is judged before the window closes");
    assert!(scene.market.used().iter().all(|record| record.usage.supplier == scene.ids[1]));

    scene.market.pass(MINUTE);
    let last = scene.service(0).last.expect("a closed window");
    assert!(last.figures.broken.errors && !last.figures.broken.ttft, "{last:?}");
    // It delivered nothing, so the penalty is the fixed part, for each of the terms that it broke.
    assert_eq!(last.penalty, Usd(50_000_000 * i64::from(last.figures.broken.count())));
    assert_eq!(scene.service(1).last.map(|last| last.penalty), Some(Usd::ZERO), "the other kept its terms");
    assert!(!scene.is_active(0) && scene.is_active(1));
    let before = scene.tier.stats().failovers;
    scene.call().await;
    assert_eq!(scene.tier.stats().failovers, before, "no call asks it any more");

    scene.until("a probe is failed", |scene| scene.service(0).probes > 0).await;
    assert!(!scene.is_active(0) && !scene.service(0).probes_pass);
    scene.suppliers[0].set_faults(Faults::default());
    scene.until("probes bring it back", |scene| scene.is_active(0)).await;
    assert!(scene.service(0).probes_pass && scene.service(0).probes >= 2);
    // One that is back is asked again, and nobody paid for probes.
    scene.market.pass(MINUTE);
    scene.suppliers[1].set_faults(Faults { refuse: true, ..Faults::default() });
    scene.call().await;
    let used = scene.market.used();
    assert_eq!((used.len(), used[4].usage.supplier), (5, scene.ids[0]));
    scene.market.state(|state| assert!(state.reservations.is_empty()));
}

#[tokio::test]
async fn a_fault_counts_once_though_the_answer_to_its_report_is_lost() {
    let scene = Scene::open(false, Faults { status: Some(500), ..Faults::default() }).await;
    scene.market.lose_answers(1);
    for _ in 0..2 {
        scene.call().await;
    }
    // Reports are told in order, so whatever became of the first has happened by the time the second is there.
    let attempts = scene.tier.stats().failovers;
    let faults = |scene: &Scene| u64::from(scene.service(0).window.faults[Fault::Refused as usize]);
    scene.until("each failed attempt is counted", |scene| faults(scene) >= attempts).await;
    scene.until("the answer is missed", |scene| scene.tier.stats().faults_lost == 1).await;
    assert_eq!(faults(&scene), attempts);
}

#[tokio::test]
async fn a_lie_about_usage_is_billed_by_our_count_and_breaks_the_terms() {
    let told = |prompt: u64, completion: u64| {
        Some(json!({"prompt_tokens": prompt, "completion_tokens": completion}))
    };
    for (what, fault, lie) in [
        ("fifty times", Faults { usage_factor: 50.0, ..Faults::default() }, true),
        ("nothing for something", Faults { usage: told(5, 0), ..Faults::default() }, true),
        ("a little less than there was", Faults { usage: told(5, 3), ..Faults::default() }, false),
    ] {
        let scene = Scene::open(false, fault).await;
        let shown = scene.call().await["usage"].clone();
        let used = scene.market.used()[0];
        assert_eq!(used.usage.supplier, scene.ids[0], "{what}");
        assert_eq!((used.usage.distrusted, used.usage.estimated), (lie, lie), "{what}");
        let billed = (used.usage.prompt_tokens.0, used.usage.completion_tokens.0);
        let words = scene.suppliers[0].stats().completed;
        if lie {
            assert!(
                (words.completion_tokens..2 * words.completion_tokens).contains(&billed.1),
                "{what}: {used:?}"
            );
        } else {
            assert_eq!(billed, (5, 3), "{what}: only it loses");
        }
        assert_eq!(
            (&shown["prompt_tokens"], &shown["completion_tokens"]),
            (&json!(billed.0), &json!(billed.1))
        );
        assert_eq!(scene.service(0).window.lies, u32::from(lie), "{what}");
        scene.market.pass(MINUTE);
        let last = scene.service(0).last.expect("a closed window");
        assert_eq!((last.figures.broken.errors, last.penalty > Usd::ZERO), (lie, lie), "{what}: {last:?}");
        assert_eq!(scene.is_active(0), !lie, "{what}");
    }
}

#[tokio::test]
async fn where_it_is_required_a_newcomer_gets_calls_only_once_it_has_passed() {
    let scene = Scene::open(true, Faults { omit_usage: true, ..Faults::default() }).await;
    scene.until("one has passed", |scene| scene.service(1).probes_pass).await;
    scene.until("one has failed", |scene| scene.service(0).probes > 0).await;
    assert!(!scene.service(0).probes_pass);
    // The first sells the tokens, and may not deliver them yet.
    scene.call().await;
    assert_eq!(scene.market.used()[0].usage.supplier, scene.ids[1]);
    scene.suppliers[0].set_faults(Faults::default());
    scene.until("it has passed", |scene| scene.service(0).probes_pass).await;
    scene.until("it is on the roster", |scene| scene.is_active(0)).await;
    scene.call().await;
    assert_eq!(scene.market.used()[1].usage.supplier, scene.ids[0]);
}
