//! What many new flows cost the agent: it looks after their table, and tells of them those who listen.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::set::{Kind, Set};
use super::side::{By, Side};
use crate::agent::{Agent, program};
use crate::bench::control::process::cpu_time;
use crate::topology::{Cluster, Cni};

/// New flows a second.
pub const RATE: u32 = 10_000;
/// Policies of the two pods.
const POLICIES: u32 = 100;
/// Load before the clock starts: the table of flows becomes as full as it will be.
const WARM_UP: Duration = Duration::from_secs(5);
/// Load while the clock runs: some passes over the table of flows.
const LENGTH: Duration = Duration::from_secs(20);

/// What a load cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Flows a second that there were.
    pub flows: f64,
    /// Of them and of drops, events a second that the listener got.
    pub events: f64,
    /// The agent's time on CPUs, in seconds a second.
    pub agent: f64,
}

/// Measures while nobody listens, and while `sluice flow` does.
///
/// # Errors
/// A program is missing, or something does not work.
pub fn measure(timed: usize) -> Result<[Load; 2]> {
    let cluster = Cluster::new(1, Cni::Ptp)?;
    let set = Set {
        kind: Kind::Mixed,
        count: POLICIES,
    };
    let mut side = Side::make(&cluster, 1, ("sluice-load", By::Sluice, set), timed, None)?;
    side.await_ready()?;
    let quiet = load(&mut side, None)?;
    let listener = Listener::start(side.agent().context("no agent")?)?;
    let heard = load(&mut side, Some(&listener))?;
    Ok([quiet, heard])
}

fn load(side: &mut Side, listener: Option<&Listener>) -> Result<Load> {
    side.connect_at(RATE, WARM_UP)?;
    let process = side.agent().and_then(Agent::id);
    let process = process.context("the agent does not run")?;
    let events = || listener.map_or(0, |listener| listener.lines.load(Ordering::Relaxed));
    let before = (cpu_time(process)?, events(), Instant::now());
    let sample = side.connect_at(RATE, LENGTH)?;
    let took = before.2.elapsed().as_secs_f64();
    let agent = cpu_time(process)? - before.0;
    Ok(Load {
        flows: sample.transactions as f64 / took,
        events: (events() - before.1) as f64 / took,
        agent: agent.as_secs_f64() / took,
    })
}

/// A `sluice flow` whose lines are counted.
struct Listener {
    child: Child,
    lines: Arc<AtomicU64>,
}

impl Listener {
    fn start(agent: &Agent) -> Result<Listener> {
        let mut command = Command::new(program()?);
        command.args(["flow", "-o", "json", "--socket"]);
        command.arg(agent.socket()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot run sluice flow")?;
        let output = child.stdout.take().context("no pipe from sluice flow")?;
        let lines = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&lines);
        thread::spawn(move || {
            for _ in BufReader::new(output).lines().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Listener { child, lines })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
