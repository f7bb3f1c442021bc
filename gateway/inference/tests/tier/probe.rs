//! Conformance probes of simulated suppliers: who serves as it should passes, and each way of falling short fails the
//! check that is there for it.

use std::sync::Arc;

use crate::support::*;
use grid_engine::KeyHash;
use grid_engine::instrument::QualityTerms;
use grid_inference::{Need, Needs, RunningTier};
use grid_suppliers::{Faults, Lapses, RunningSupplier, Supplier, SupplierConfig};
use serde_json::{Value, json};

const OPERATOR: &str = "operator";
/// Ends of base URLs: chat completions, Messages.
const DIALECTS: [&str; 2] = ["", "/messages"];

struct Scene {
    venue: Arc<Venue>,
    supplier: RunningSupplier,
    tier: RunningTier,
}

impl Scene {
    async fn open(path: &str, faults: Faults, change: impl FnOnce(&mut grid_inference::Config)) -> Self {
        let venue = Venue::new();
        let supplier = Supplier::start(SupplierConfig {
            models: vec!["model-of-2".into()],
            api_key: Some(CREDENTIAL.into()),
            faults,
            ..SupplierConfig::default()
        });
        let supplier = supplier.expect("loopback is there");
        venue.supplier(2, &format!("{}{path}", supplier.url));
        venue.change(|state| {
            // Speeds that only a supplier told to be slow misses, however busy this machine is.
            state.instruments[0].spec.quality = QualityTerms {
                ttft_ceiling_ms: 20_000,
                tokens_per_second_floor: 5,
                context_floor: 3_000,
                output_floor: 4_000,
                ..QualityTerms::default()
            };
        });
        let tier = tier(&venue, |config| {
            config.operator = Some(KeyHash::of(OPERATOR));
            config.probing.samples = 2;
            config.probing.misses = 0;
            change(config);
        })
        .await;
        Self { venue, supplier, tier }
    }

    /// Asks for the probe as an operator does.
    async fn probe(&self) -> Reply {
        self.ask(&json!({"supplier": 2, "instrument": "Text-Prime"}), Some(OPERATOR)).await
    }

    async fn ask(&self, body: &Value, operator: Option<&str>) -> Reply {
        let caller = Caller::new(&self.tier);
        let mut request = caller.chat_request("/operator/probe", None, &body.to_string());
        if let Some(secret) = operator {
            request.headers_mut().insert("x-grid-operator", secret.parse().unwrap());
        }
        Caller::read(caller.open(request).await).await
    }
}

/// The checks with this verdict, with the reason where there is one.
fn with_verdict(report: &Value, verdict: &str) -> Vec<String> {
    let checks = report["models"][0]["checks"].as_array().expect("checks");
    let has = |check: &&Value| check["verdict"] == verdict || check["verdict"][verdict].is_string();
    let names = checks.iter().filter(has).map(|check| {
        let reason =
            check["verdict"][verdict].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{}{reason}", check["check"].as_str().expect("a name"))
    });
    names.collect()
}

#[tokio::test]
async fn who_serves_as_it_should_passes_every_check_and_nobody_is_billed() {
    for dialect in DIALECTS {
        serves_as_it_should(dialect).await;
    }
}

async fn serves_as_it_should(dialect: &str) {
    let scene = Scene::open(dialect, Faults::default(), |_| {}).await;
    let answer = scene.probe().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let report = answer.json();
    assert_eq!((&report["passed"], &report["supplier"]), (&json!(true), &json!(2)), "{report:#}");
    assert_eq!(with_verdict(&report, "passed").len(), 10, "{report:#}");
    let figures = |check: &str| {
        let checks = report["models"][0]["checks"].as_array().unwrap();
        checks.iter().find(|one| one["check"] == check).unwrap()["figures"].clone()
    };
    let context = figures("context");
    assert!((2_100..=2_400).contains(&context["sent_tokens"].as_u64().unwrap()), "{context}");
    assert_eq!((&context["found"], &context["floor_tokens"]), (&json!(3), &json!(3_000)));
    assert_eq!(figures("parallel_tools"), json!({"calls_allowed": 2, "calls_forbidden": 1}));
    assert_eq!(figures("speed")["samples"], 2);
    assert_eq!(figures("bad_request")["status"], 400);
    // Every well-formed request reached the supplier, and none a ledger.
    let sent = report["models"][0]["requests"].as_u64().unwrap();
    assert_eq!(scene.supplier.stats().requests + 1, sent);
    assert!(scene.venue.asked().is_empty());
    // Counts, times, names of ours and of the model: no text of the supplier's.
    assert!(!answer.text.contains("imulated"), "{}", answer.text);
}

#[tokio::test]
async fn each_way_of_falling_short_fails_the_check_that_is_there_for_it() {
    let lapse = |change: fn(&mut Lapses)| {
        let mut lapses = Lapses::default();
        change(&mut lapses);
        Faults { lapses, ..Faults::default() }
    };
    for (what, faults, failing) in [
        (
            "no usage",
            Faults { omit_usage: true, ..Faults::default() },
            &["stream: no usage", "whole: no usage", "context: no usage"][..],
        ),
        (
            "too much",
            Faults { usage_factor: 50.0, ..Faults::default() },
            &["stream: a usage beyond belief", "whole: a usage beyond", "context: a usage beyond"],
        ),
        (
            "too little",
            Faults {
                usage: Some(json!({"prompt_tokens": 20, "completion_tokens": 60})),
                ..Faults::default()
            },
            &["context: a usage beyond belief"],
        ),
        (
            "no reason",
            lapse(|l| l.omit_finish = true),
            &["stream: no reason to stop", "whole: no reason to stop", "limit", "tools: another reason"],
        ),
        ("no limit", lapse(|l| l.ignore_limit = true), &["limit"]),
        (
            "no tools",
            lapse(|l| l.ignore_tools = true),
            &["tools: the function was not called", "parallel_tools"],
        ),
        (
            "odd arguments",
            lapse(|l| l.odd_arguments = true),
            &["tools: the arguments do not fit", "parallel_tools"],
        ),
        ("one call", lapse(|l| l.one_call_only = true), &["parallel_tools: not both"]),
        ("many calls", lapse(|l| l.ignore_parallel = true), &["parallel_tools: not one call"]),
        ("prose", lapse(|l| l.ignore_format = true), &["json_schema: the answer is not JSON"]),
        ("short context", lapse(|l| l.context_max = Some(1_000)), &["context: the prompt was refused"]),
        ("forgetful", lapse(|l| l.remembers = Some(1_000)), &["context: not all needles"]),
        (
            "short output",
            lapse(|l| l.output_max = Some(3_999)),
            &["tools", "parallel_tools", "json_schema", "output: the limit was refused", "context"],
        ),
        ("blames itself", lapse(|l| l.bad_request_status = Some(500)), &["bad_request: status"]),
        (
            "web page",
            Faults { content_type: Some("text/html".into()), ..Faults::default() },
            &[
                "stream",
                "whole",
                "limit",
                "tools",
                "parallel_tools",
                "json_schema",
                "output",
                "speed",
                "context",
            ],
        ),
        (
            "breaks off",
            Faults { cut_after_tokens: Some(3), ..Faults::default() },
            &[
                "stream",
                "whole",
                "limit",
                "tools",
                "parallel_tools",
                "json_schema",
                "output",
                "speed",
                "context",
            ],
        ),
    ] {
        for dialect in DIALECTS {
            // A missing count or reason is a zero or a usual one in Messages.
            if dialect == "/messages" && ["no usage", "no reason"].contains(&what) {
                continue;
            }
            let scene = Scene::open(dialect, faults.clone(), |_| {}).await;
            let report = scene.probe().await.json();
            assert_eq!(report["passed"], false, "{what}: {report:#}");
            let failed = with_verdict(&report, "failed");
            assert_eq!(failed.len(), failing.len(), "{what} {dialect}: {failed:?}");
            for (failed, wanted) in failed.iter().zip(failing) {
                assert!(failed.starts_with(wanted), "{what} {dialect}: {failed}, not {wanted}");
            }
            assert!(scene.venue.asked().is_empty(), "{what}");
        }
    }
}

#[tokio::test]
async fn speed_is_measured_against_what_the_instrument_promises() {
    // A hundredfold below the floor, and beyond the ceiling, whatever the machine does meanwhile.
    for (lapses, reason) in [
        (Lapses { tokens_per_second: Some(100), ..Lapses::default() }, "speed: the tokens came too slowly"),
        (Lapses { ttft_ms: Some(50), ..Lapses::default() }, "speed: the first token came too late"),
    ] {
        let scene = Scene::open("", Faults { lapses, ..Faults::default() }, |_| {}).await;
        scene.venue.change(|state| {
            let quality = &mut state.instruments[0].spec.quality;
            match reason.contains("slowly") {
                true => quality.tokens_per_second_floor = 10_000,
                false => quality.ttft_ceiling_ms = 49,
            }
            (quality.context_floor, quality.output_floor) = (0, 0);
        });
        let report = scene.probe().await.json();
        assert_eq!(with_verdict(&report, "failed"), [reason], "{report:#}");
        let skipped = with_verdict(&report, "skipped");
        assert_eq!(skipped, ["output: nothing is promised", "context: nothing is promised"]);
    }
}

#[tokio::test]
async fn a_silent_supplier_ends_a_probe_in_bounded_time() {
    let faults = Faults { stall_after_tokens: Some(2), ..Faults::default() };
    let scene = Scene::open("", faults, |config| {
        config.probing.question = std::time::Duration::from_millis(100);
        config.probing.whole = std::time::Duration::from_millis(400);
    })
    .await;
    let report = scene.probe().await.json();
    let failed = with_verdict(&report, "failed");
    assert!(failed.iter().any(|one| one.ends_with("no time was left")), "{failed:?}");
    assert!(report["models"][0]["requests"].as_u64().unwrap() < 10);
}

#[tokio::test]
async fn what_a_model_is_known_to_lack_is_not_asked_of_it() {
    let lapses = Lapses { ignore_tools: true, ignore_format: true, ..Lapses::default() };
    let scene = Scene::open("", Faults { lapses, ..Faults::default() }, |config| {
        let lacks = [Need::Tools, Need::JsonSchema].into_iter().collect::<Needs>();
        config.lacks.insert("model-of-2".into(), lacks);
    })
    .await;
    let report = scene.probe().await.json();
    assert_eq!(report["passed"], true, "{report:#}");
    assert_eq!(with_verdict(&report, "skipped").len(), 3);
}

#[tokio::test]
async fn only_an_operator_may_ask_and_only_for_what_there_is() {
    let scene = Scene::open("", Faults::default(), |_| {}).await;
    let good = json!({"supplier": 2, "instrument": "text-prime"});
    for (body, operator, status) in [
        (&good, None, 404),
        (&good, Some("guess"), 404),
        (&json!({"supplier": 9, "instrument": "text-prime"}), Some(OPERATOR), 404),
        (&json!({"supplier": 2, "instrument": "text-standard"}), Some(OPERATOR), 404),
        (&json!({"supplier": 2, "instrument": "gpt-9"}), Some(OPERATOR), 404),
        (&json!({"supplier": "two"}), Some(OPERATOR), 400),
    ] {
        let answer = scene.ask(body, operator).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    assert_eq!(scene.supplier.stats().requests, 0);
}
