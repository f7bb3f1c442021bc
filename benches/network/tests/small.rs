//! Every scenario of this crate once, small: what comes back is checked by the scenario itself, and no time is.

use grid_harness::Settings;

#[test]
fn every_network_scenario_checks_every_answer_of_a_small_run() {
    for scenario in grid_network_benches::scenarios() {
        let settings = Settings { seconds: 0.05, ..Settings::small(200) };
        let rows = scenario.run(&settings).unwrap_or_else(|error| panic!("{}: {error}", scenario.name()));
        assert!(!rows.is_empty(), "{}", scenario.name());
        for row in rows {
            assert!(row.ratio().is_some(), "{}: {} has no floor", scenario.name(), row.name);
        }
    }
}
