//! What happens before the first content: who is asked again, who is waited for, and when a call gives up.

use std::time::Duration;

use crate::support::*;
use grid_inference::{Config, RunningTier};
use serde_json::json;

fn good() -> Script {
    Script::events(steps(&good_stream(&["the market", " price"], 5, 3)))
}

fn with(mut script: Script, name: &'static str, value: &str) -> Script {
    script.headers.push((name, value.to_owned()));
    script
}

/// A tier with suppliers 2, 3 and so on; each answers by its scripts in turn, and by the last one from then on.
async fn scene(
    scripts: Vec<Vec<Script>>,
    change: impl FnOnce(&mut Config),
) -> (std::sync::Arc<Venue>, Vec<Upstream>, RunningTier) {
    let venue = Venue::new();
    let mut upstreams = Vec::new();
    for (id, turns) in (2..).zip(scripts) {
        let script = move |number: usize, _: &Got| turns[number.min(turns.len() - 1)].clone();
        let upstream = Upstream::start(script).await;
        venue.supplier(id, &upstream.url);
        upstreams.push(upstream);
    }
    let tier = tier(&venue, |config| {
        config.routing.retry_wait = Duration::from_millis(1);
        change(config);
    })
    .await;
    (venue, upstreams, tier)
}

fn asked(upstreams: &[Upstream]) -> Vec<usize> {
    upstreams.iter().map(|upstream| upstream.got().len()).collect()
}

#[tokio::test]
async fn where_nobody_else_is_left_whoever_failed_in_a_way_that_passes_is_asked_once_more() {
    let dies = || Script::events(vec![send(&role()), Step::Die]);
    for (what, scripts, status, expected) in [
        ("a lone one recovers", vec![vec![Script::status(500), good()]], 200, vec![2]),
        ("a lone one that broke off recovers", vec![vec![dies(), good()]], 200, vec![2]),
        ("a lone one is asked twice at most", vec![vec![Script::status(500)]], 503, vec![2]),
        (
            "each is asked before any is asked again",
            vec![vec![Script::status(500)], vec![good()]],
            200,
            vec![1, 1],
        ),
        ("the first of two recovers", vec![vec![Script::status(500), good()], vec![dies()]], 200, vec![2, 1]),
        ("what does not know the model never will", vec![vec![Script::status(404), good()]], 503, vec![1]),
        (
            "what is malformed stays so",
            vec![vec![Script::new(200, "text/html", vec![]), good()]],
            503,
            vec![1],
        ),
    ] {
        let (venue, upstreams, tier) = scene(scripts, |_| {}).await;
        let answer = Caller::new(&tier).chat(&ask_stream()).await;
        assert_eq!((answer.status, asked(&upstreams)), (status, expected), "{what}: {}", answer.text);
        assert_eq!(venue.usages().len(), usize::from(status == 200), "{what}");
        venue.assert_each_ended_once();
    }
}

#[tokio::test]
async fn attempts_are_bounded_however_many_suppliers_there_are() {
    let (venue, upstreams, tier) =
        scene(vec![vec![Script::status(500)]; 4], |config| config.routing.attempts = 3).await;
    assert_eq!(Caller::new(&tier).chat(&ask_stream()).await.status, 503);
    assert_eq!(asked(&upstreams), [1, 1, 1, 0]);
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn a_busy_supplier_is_waited_for_where_its_pause_is_short_and_named_to_the_client_where_it_is_long() {
    let busy = |header, value| with(Script::status(429), header, value);
    for (what, script, expected) in [
        ("short", busy("retry-after-ms", "20"), Ok(2)),
        ("short, as an overload", with(Script::status(503), "retry-after-ms", "20"), Ok(2)),
        ("long", busy("retry-after", "40"), Err(40)),
        (
            "long, by its limits",
            {
                let reset = with(Script::status(429), "x-ratelimit-reset-requests", "41s");
                with(reset, "x-ratelimit-remaining-requests", "0")
            },
            Err(41),
        ),
    ] {
        let (venue, upstreams, tier) = scene(vec![vec![script, good()]], |_| {}).await;
        let answer = Caller::new(&tier).chat(&ask_stream()).await;
        match expected {
            Ok(attempts) => assert_eq!((answer.status, asked(&upstreams)), (200, vec![attempts]), "{what}"),
            Err(seconds) => {
                assert_eq!((answer.status, asked(&upstreams)), (503, vec![1]), "{what}");
                let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!(after <= seconds && after > seconds / 2, "{what}: {after}");
                assert_eq!(answer.header("x-should-retry"), Some("true"), "{what}");
            }
        }
        venue.assert_each_ended_once();
    }
}

#[tokio::test]
async fn a_call_gives_up_when_its_client_does() {
    for header in ["x-stainless-read-timeout", "x-stainless-timeout"] {
        let (venue, upstreams, tier) = scene(vec![vec![Script::mute()], vec![good()]], |_| {}).await;
        let caller = Caller::new(&tier);
        let mut request = caller.chat_request("/v1/chat/completions", Some(KEY), &ask_stream().to_string());
        request.headers_mut().insert(header, "0.3".parse().unwrap());
        let answer = Caller::read(caller.open(request).await).await;
        assert_eq!((answer.status, asked(&upstreams)), (503, vec![1, 0]), "{header}");
        venue.assert_each_ended_once();
    }
}

#[tokio::test]
async fn all_attempts_together_end_with_the_search() {
    let (venue, upstreams, tier) = scene(vec![vec![Script::mute()], vec![good()]], |config| {
        config.clocks.search = Duration::from_millis(300);
    })
    .await;
    assert_eq!(Caller::new(&tier).chat(&ask_stream()).await.status, 503);
    assert_eq!(asked(&upstreams), [1, 0]);
    venue.assert_each_ended_once();
}

#[tokio::test]
async fn an_attempt_is_given_up_by_the_instrument_s_promise_and_the_next_supplier_answers() {
    let (venue, upstreams, tier) = scene(vec![vec![Script::mute()], vec![good()]], |config| {
        config.clocks.first_content_min = Duration::from_millis(50);
        config.clocks.first_content = Duration::from_secs(3_600);
        config.clocks.search = Duration::from_secs(3_600);
    })
    .await;
    venue.change(|state| state.instruments[0].spec.quality.ttft_ceiling_ms = 100);
    assert_eq!(Caller::new(&tier).chat(&ask_stream()).await.status, 200);
    assert_eq!(asked(&upstreams), [1, 1]);
    assert_eq!(venue.usages()[0].supplier, grid_engine::AccountId(3));
}

#[tokio::test]
async fn a_limit_of_the_supplier_s_own_is_not_overrun_by_calls_at_once() {
    let answer = || Script::json(&whole("the market", usage(5, 2)));
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let last = with(answer(), "x-ratelimit-remaining-requests", "1");
    let last = with(last, "x-ratelimit-reset-requests", "50s");
    let mut held = answer();
    held.steps.insert(0, Step::Gate(std::sync::Arc::clone(&gate)));
    let (_venue, upstreams, tier) = scene(vec![vec![last, held], vec![answer()]], |_| {}).await;
    let caller = std::sync::Arc::new(Caller::new(&tier));
    assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
    // One more is allowed; while it is under way, others go elsewhere.
    let allowed = tokio::spawn({
        let caller = std::sync::Arc::clone(&caller);
        async move { caller.chat(&ask(json!({}))).await.status }
    });
    upstreams[0].until_requests(2).await;
    assert_eq!(caller.chat(&ask(json!({}))).await.status, 200);
    assert_eq!(asked(&upstreams), [2, 1]);
    gate.add_permits(1);
    assert_eq!(allowed.await.expect("the call ends"), 200);
}
