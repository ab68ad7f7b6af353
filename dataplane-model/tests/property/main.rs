//! Random clusters: the compiled tables against the oracle, histories against each other, plans cut
//! short anywhere.
//!
//! `PROPTEST_CASES` sets how many cases each property tries.

mod history;
mod incremental;
mod names;
mod prefix;
mod services;
mod verdicts;
mod world;

use proptest::test_runner::Config;

/// The usual settings, with this many cases unless `PROPTEST_CASES` says otherwise.
fn cases(usual: u32) -> Config {
    let chosen = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    Config {
        cases: chosen.unwrap_or(usual),
        failure_persistence: None,
        ..Config::default()
    }
}
