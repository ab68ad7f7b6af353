//! What a load counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::client::{Answer, Failure};

/// A failed request, with its time.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// When the request began.
    pub started: Instant,
    /// When it failed.
    pub ended: Instant,
    /// Where and why.
    pub failure: Failure,
}

/// The answers of one server, or of one version.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// How many.
    pub count: u64,
    /// When the first came.
    pub first: Instant,
    /// When the last came.
    pub last: Instant,
    /// When the last of these requests began.
    pub last_begun: Instant,
}

/// The counts of a load.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answers by server name.
    pub by_name: BTreeMap<String, Seen>,
    /// Answers by version.
    pub by_version: BTreeMap<String, Seen>,
    /// All failures.
    pub failed: Vec<Failed>,
    /// Microseconds of every answered request, connecting included where it connected.
    latencies: Vec<u32>,
}

impl Tally {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.answered() + self.failures()
    }

    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// Requests that failed.
    pub fn failures(&self) -> u64 {
        self.failed.len() as u64
    }

    /// The part of the answers that a version gave, 0 to 1.
    pub fn share(&self, version: &str) -> f64 {
        let count = self.by_version.get(version).map_or(0, |seen| seen.count);
        count as f64 / self.answered().max(1) as f64
    }

    /// Failures by kind, for people: `3 connect: ECONNREFUSED, 1 receive: closed`.
    pub fn failure_kinds(&self) -> String {
        let mut kinds = BTreeMap::<Failure, u64>::new();
        for failed in &self.failed {
            *kinds.entry(failed.failure).or_default() += 1;
        }
        let kinds: Vec<_> = kinds
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        kinds.join(", ")
    }

    /// The time that a part (0 to 1) of the answered requests took at most; zero without any.
    pub fn latency(&self, part: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (part * sorted.len().saturating_sub(1) as f64).round() as usize;
        Duration::from_micros(sorted.get(at).copied().unwrap_or_default().into())
    }

    /// Counts one request.
    pub fn add(&mut self, started: Instant, micros: u32, outcome: Result<Answer, Failure>) {
        let ended = Instant::now();
        match outcome {
            Ok(answer) => {
                note(&mut self.by_name, answer.name, started, ended);
                note(&mut self.by_version, answer.version, started, ended);
                self.latencies.push(micros);
            }
            Err(failure) => self.failed.push(Failed {
                started,
                ended,
                failure,
            }),
        }
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Tally) {
        merge_seen(&mut self.by_name, &other.by_name);
        merge_seen(&mut self.by_version, &other.by_version);
        self.failed.extend_from_slice(&other.failed);
        self.latencies.extend_from_slice(&other.latencies);
    }
}

fn note(seen: &mut BTreeMap<String, Seen>, who: String, begun: Instant, ended: Instant) {
    let new = Seen {
        count: 0,
        first: ended,
        last: ended,
        last_begun: begun,
    };
    let entry = seen.entry(who).or_insert(new);
    entry.count += 1;
    entry.last = ended;
    entry.last_begun = begun;
}

fn merge_seen(into: &mut BTreeMap<String, Seen>, from: &BTreeMap<String, Seen>) {
    for (who, more) in from {
        let entry = into
            .entry(who.clone())
            .or_insert(Seen { count: 0, ..*more });
        entry.count += more.count;
        entry.first = entry.first.min(more.first);
        entry.last = entry.last.max(more.last);
        entry.last_begun = entry.last_begun.max(more.last_begun);
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{Cause, Stage};
    use super::*;

    fn answer(version: &str) -> Result<Answer, Failure> {
        let peer = ([127, 0, 0, 1], 1).into();
        Ok(Answer {
            status: 200,
            name: "n".into(),
            version: version.into(),
            peer,
        })
    }

    #[test]
    fn merged_tallies_count_everything_once() {
        let now = Instant::now();
        let (mut one, mut two) = (Tally::default(), Tally::default());
        for micros in 1..=9 {
            one.add(now, micros, answer("v1"));
        }
        two.add(now, 100, answer("v2"));
        two.add(
            now,
            0,
            Err(Failure {
                stage: Stage::Connect,
                cause: Cause::Timeout,
            }),
        );
        one.merge(&two);
        assert_eq!(
            (one.requests(), one.answered(), one.failures()),
            (11, 10, 1)
        );
        assert!((one.share("v1") - 0.9).abs() < 1e-9);
        assert_eq!(one.latency(1.0), Duration::from_micros(100));
        assert_eq!(one.latency(0.0), Duration::from_micros(1));
        assert_eq!(one.failure_kinds(), "1 connect: time-out");
        assert_eq!(one.by_name["n"].count, 10);
    }
}
