//! The timed processes as this process has them: started, told what to do, ended.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::traffic::{LISTENING, Order, Target, Test};
use crate::netns::Netns;
use crate::workload::process::lab_program;

/// How much longer than its slot a client may take: one lost segment costs a second.
const PATIENCE: Duration = Duration::from_secs(15);

/// A pair of processes. Dropping it ends both.
#[derive(Debug)]
pub struct Pair {
    client: Worker,
    _server: Worker,
}

/// What a client measured in one slot; times in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Transactions that were timed.
    pub transactions: u64,
    /// Time per transaction that a tenth of them stays below.
    pub p10: f64,
    /// Time per transaction that half of them stay below.
    pub p50: f64,
    /// Time per transaction that all but a hundredth stay below.
    pub p99: f64,
    /// Transactions that failed.
    pub failed: u64,
    /// Why the first of them failed.
    pub error: Option<String>,
    /// TCP segments that were sent again.
    pub retransmitted: u64,
}

impl Pair {
    /// Starts client and server in their namespaces, both on one CPU.
    ///
    /// # Errors
    /// The program is not found, or the server's ports are taken.
    pub fn start(client: &Netns, server: &Netns, cpu: usize) -> Result<Pair> {
        let server = Worker::start(server, "bench-server", cpu)?;
        let said = server.line(PATIENCE)?;
        if said != LISTENING {
            bail!("the server said {said:?}");
        }
        let client = Worker::start(client, "bench-client", cpu)?;
        Ok(Pair {
            client,
            _server: server,
        })
    }

    /// Lets the client work for a slot.
    ///
    /// # Errors
    /// The client is stuck or has ended.
    pub fn run(&mut self, test: Test, target: Target, slot: Duration) -> Result<Sample> {
        self.obey(Order {
            test,
            target,
            slot,
            rate: None,
        })
    }

    /// Lets the client do as it is told.
    ///
    /// # Errors
    /// The client is stuck or has ended.
    pub fn obey(&mut self, order: Order) -> Result<Sample> {
        self.client.say(&order.line())?;
        let line = self.client.line(order.slot + PATIENCE)?;
        sample(&serde_json::from_str(&line)?).with_context(|| format!("a client answered {line:?}"))
    }
}

fn sample(answer: &Value) -> Option<Sample> {
    Some(Sample {
        transactions: answer["transactions"].as_u64()?,
        p10: answer["p10"].as_f64()?,
        p50: answer["p50"].as_f64()?,
        p99: answer["p99"].as_f64()?,
        failed: answer["failed"].as_u64()?,
        error: answer["error"].as_str().map(str::to_owned),
        retransmitted: answer["retransmitted"].as_u64()?,
    })
}

/// A process that reads lines and writes lines. It ends when its input does.
#[derive(Debug)]
struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Worker {
    fn start(netns: &Netns, role: &str, cpu: usize) -> Result<Worker> {
        let program = lab_program()?;
        // Ahead of what else the machine does: a slot is short, and its CPU may not be free.
        let mut command = Command::new("nice");
        command.args(["-n", "-10"]).arg(&program);
        command.arg(role).arg(format!("--cpu={cpu}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = netns
            .spawn_process(&mut command)
            .with_context(|| format!("cannot run {}", program.display()))?;
        let input = child.stdin.take().context("no pipe to the process")?;
        let output = child.stdout.take().context("no pipe from the process")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Worker {
            child,
            input,
            lines,
        })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("a timed process has ended")
    }

    fn line(&self, within: Duration) -> Result<String> {
        let line = self.lines.recv_timeout(within);
        line.with_context(|| format!("a timed process said nothing for {within:?}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
