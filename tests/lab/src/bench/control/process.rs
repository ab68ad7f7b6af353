//! What the agent logs, and what memory a process has.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use serde_json::Value;

use crate::agent::Agent;

/// Memory that changes less than this within [`LOOK`] has settled, in KiB.
const STEADY: u64 = 128;
/// Between two looks at memory.
const LOOK: Duration = Duration::from_secs(1);
/// Looks at memory.
const LOOKS: usize = 20;

/// Resident memory, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// What of it is the process's own: not pages of its program's file.
    pub own: u64,
    /// The most there ever was.
    pub peak: u64,
}

impl Memory {
    /// A process's memory.
    ///
    /// # Errors
    /// It has ended.
    pub fn of(process: u32) -> Result<Memory> {
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let memory = || {
            Some(Memory {
                now: field("VmRSS:")?,
                own: field("RssAnon:")?,
                peak: field("VmHWM:")?,
            })
        };
        memory().with_context(|| format!("{path} does not tell the memory"))
    }

    /// A process's memory, once it does not change any more.
    ///
    /// # Errors
    /// It has ended.
    pub fn settled(process: u32) -> Result<Memory> {
        let mut last = Memory::of(process)?;
        for _ in 0..LOOKS {
            thread::sleep(LOOK);
            let memory = Memory::of(process)?;
            if memory.now.abs_diff(last.now) < STEADY {
                return Ok(memory);
            }
            last = memory;
        }
        Ok(last)
    }
}

/// What all threads of a process have had of CPUs.
///
/// # Errors
/// It has ended.
pub fn cpu_time(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name in parentheses may hold anything. User and system time are the 14th and 15th field.
    let fields = stat
        .rsplit_once(')')
        .map(|(_, fields)| fields.split_whitespace());
    let ticks = |field: &str| field.parse::<u64>().ok();
    let both = fields.and_then(|mut fields| {
        let user = fields.nth(11).and_then(ticks)?;
        Some(user + fields.next().and_then(ticks)?)
    });
    let both = both.with_context(|| format!("{path} does not tell the time"))?;
    let hz = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(both as f64 / hz as f64))
}

/// Arguments that let the agent log each round, as JSON.
pub const AGENT_ARGS: [&str; 4] = [
    "--logging-format",
    "json",
    "--log",
    "info,sluice::run::engine=debug",
];

/// What the agent logged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// From all sources in sync to the maps, in ms; `None` before.
    pub maps_ms: Option<f64>,
    /// Entries that were written at the start.
    pub operations: u64,
    /// Of each round, from the arrival of the first byte to the end of writing, in ms.
    pub rounds: Vec<f64>,
}

impl Log {
    /// Reads the log of an agent with [`AGENT_ARGS`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(agent: &Agent) -> Result<Log> {
        let path = agent.log();
        let text = fs::read_to_string(&path);
        Ok(Log::parse(&text.with_context(|| {
            format!("cannot read {}", path.display())
        })?))
    }

    fn parse(text: &str) -> Log {
        let mut log = Log::default();
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let fields = &line["fields"];
            let millis = |name: &str| fields[name].as_f64().map(|micros| micros / 1e3);
            match fields["message"].as_str() {
                Some("in sync") => {
                    log.maps_ms = millis("maps_us");
                    log.operations = fields["operations"].as_u64().unwrap_or(0);
                }
                Some("round written") => log.rounds.extend(millis("took_us")),
                _ => {}
            }
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_when_and_how_long() {
        let text = "not json\n\
            {\"level\":\"INFO\",\"fields\":{\"message\":\"in sync\",\"operations\":7,\"maps_us\":1500}}\n\
            {\"level\":\"DEBUG\",\"fields\":{\"message\":\"round written\",\"operations\":7,\"took_us\":2000}}\n\
            {\"level\":\"DEBUG\",\"fields\":{\"message\":\"round written\",\"operations\":1,\"took_us\":250}}\n";
        let expected = Log {
            maps_ms: Some(1.5),
            operations: 7,
            rounds: vec![2.0, 0.25],
        };
        assert_eq!(Log::parse(text), expected);
    }

    #[test]
    fn a_process_knows_its_memory() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.own > 0 && memory.now > memory.own && memory.peak >= memory.now);
    }
}
