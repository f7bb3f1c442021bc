//! Clients that leave at any moment, suppliers that fail at any moment, a venue that loses answers: each reservation
//! still ends exactly once, and nothing is left open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::*;
use http_body_util::BodyExt;
use serde_json::json;

/// SplitMix64: the same seed, the same numbers.
fn draw(state: &AtomicU64) -> u64 {
    let mut z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn fickle(random: u64) -> Script {
    let good = good_stream(&["the market", " price", " is", " open"], 5, 5);
    let mut script = steps(&good);
    let at = (random >> 8) as usize % script.len();
    match random % 10 {
        0 => return Script::status(500),
        1 => {
            let soon = ("retry-after-ms", "1".to_owned());
            let mut busy = Script::status(429);
            busy.headers.push(soon);
            return busy;
        }
        2 => return Script::status(400),
        3 => script.insert(at, Step::Die),
        4 => script.insert(at, Step::Silence),
        5 => script.insert(at, send("data: {\"error\":{}}\n\n")),
        _ => {}
    }
    Script::events(script)
}

#[tokio::test]
async fn every_reservation_ends_exactly_once_whatever_happens() {
    let seed = std::env::var("GRID_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_121);
    println!("GRID_SEED={seed}");
    let random = Arc::new(AtomicU64::new(seed));
    let venue = Venue::new();
    let mut upstreams = Vec::new();
    for id in 2..=4 {
        let dice = Arc::clone(&random);
        let upstream = Upstream::start(move |_, _| fickle(draw(&dice))).await;
        venue.supplier(id, &upstream.url);
        upstreams.push(upstream);
    }
    let tier = tier(&venue, |config| {
        config.clocks.first_content = Duration::from_millis(60);
        config.clocks.idle = Duration::from_millis(60);
        config.clocks.reserve = Duration::from_secs(20);
        config.routing.breaker_failures = u32::MAX;
    })
    .await;
    let mut calls = tokio::task::JoinSet::new();
    // Until so many calls had a reservation: while suppliers send too many away, most calls end before that.
    for number in 0..20_000 {
        if number >= 400 && number % 40 == 0 && tier.stats().reserved > 200 {
            break;
        }
        let caller = Caller::new(&tier);
        let random = Arc::clone(&random);
        let venue = Arc::clone(&venue);
        calls.spawn(async move {
            match draw(&random) % 16 {
                0 => venue.ways(|ways| ways.lose_answers += 1),
                1 => venue.ways(|ways| ways.lose_commands += 1),
                _ => {}
            }
            let body = ask(json!({"stream": true, "user": format!("client {number}")})).to_string();
            let request = caller.chat_request("/v1/chat/completions", Some(KEY), &body);
            let patience = Duration::from_micros(draw(&random) % 30_000);
            let leaves = draw(&random).is_multiple_of(2);
            let call = async {
                let mut body = caller.open(request).await.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            };
            if leaves {
                let _ = tokio::time::timeout(patience, call).await;
            } else {
                call.await;
            }
        });
        if number % 40 == 39 {
            while calls.join_next().await.is_some() {}
        }
    }
    while calls.join_next().await.is_some() {}
    venue.until_settled().await;
    let stats = tier.stats();
    tier.shutdown().await;
    venue.assert_each_ended_once();
    assert!(stats.reserved > 200 && stats.failovers > 0 && stats.cancelled > 0, "{stats:?}");
    assert_eq!(stats.refused, 0, "{stats:?}");
}
