//! Waits until a policy is in force on all nodes that answer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::show::table;
use super::{client, print_as};
use crate::admin::protocol::Request;
use crate::admin::wait::{self, Other, PolicyOnNode, PolicyState};
use crate::args::WaitArgs;
use crate::source::ObjectKey;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(50);
/// How long another node has for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions to one node without an answer after which it is not reached.
const ATTEMPTS: u32 = 3;
/// Nodes that one thread asks.
const NODES_EACH: usize = 32;
/// An answer is at most so long.
const LONGEST: u64 = 64 << 10;

/// What came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Waited {
    policy: String,
    /// The version that was waited for; `None`: any, or none at all.
    generation: Option<i64>,
    nodes: Vec<Node>,
    /// What is to be known about the policy or the nodes.
    notes: Vec<String>,
}

/// A node.
#[derive(Debug, Serialize)]
struct Node {
    node: String,
    /// The version in force there.
    generation: Option<i64>,
    /// `in force`, `waiting` or `not reached`; `gone` for `in force` if that is waited for.
    state: &'static str,
}

/// Waits.
pub(super) fn run(socket: &Path, args: &WaitArgs) -> Result<()> {
    let policy = ObjectKey::new(args.kind, Some(&args.namespace), &args.name);
    let deadline = Instant::now() + args.timeout.0;
    let mut others = Others::default();
    loop {
        let request = Request::Policy {
            policy: policy.clone(),
        };
        let state: PolicyState = client::ask(socket, &request)?;
        let asked = if args.local { &[] } else { &state.others[..] };
        others.ask(asked, &wait::path(&policy));
        let waited = waited(args, &policy, &state, &others);
        let is_done = waited.nodes.iter().all(|node| node.state != "waiting");
        if is_done || Instant::now() >= deadline {
            print_as(&waited, args.output.output, show)?;
            if !is_done {
                bail!(
                    "{policy} is not in force everywhere after {:?}",
                    args.timeout.0
                );
            }
            return Ok(());
        }
        thread::sleep(PAUSE);
    }
}

fn waited(args: &WaitArgs, policy: &ObjectKey, state: &PolicyState, others: &Others) -> Waited {
    let generation = args.generation.or(state.generation).filter(|_| !args.gone);
    let judge = |on_node: &PolicyOnNode| Node {
        node: on_node.node.clone(),
        generation: on_node.generation,
        state: match (args.gone, on_node.generation) {
            (true, None) => "gone",
            (false, Some(has)) if generation.is_none_or(|wanted| has >= wanted) => "in force",
            _ => "waiting",
        },
    };
    let mut nodes = vec![judge(&state.here)];
    nodes.extend(others.nodes.iter().map(|(name, answers)| match answers {
        Answers {
            last: Some(last), ..
        } => judge(last),
        Answers { failures, .. } => Node {
            node: name.clone(),
            generation: None,
            state: if *failures < ATTEMPTS {
                "waiting"
            } else {
                "not reached"
            },
        },
    }));
    let mut notes = state.problems.clone();
    notes.extend(state.alone.clone().filter(|_| !args.local));
    Waited {
        policy: policy.to_string(),
        generation,
        nodes,
        notes,
    }
}

/// What other nodes have said.
#[derive(Default)]
struct Others {
    nodes: BTreeMap<String, Answers>,
}

#[derive(Default)]
struct Answers {
    /// The last answer, unless questions have failed too often since.
    last: Option<PolicyOnNode>,
    failures: u32,
}

impl Others {
    /// Asks these nodes, and forgets others.
    fn ask(&mut self, nodes: &[Other], path: &str) {
        self.nodes
            .retain(|name, _| nodes.iter().any(|node| node.node == *name));
        let answers: Vec<_> = thread::scope(|scope| {
            let parts = nodes.chunks(NODES_EACH).map(|part| {
                scope.spawn(move || {
                    let asked = part
                        .iter()
                        .map(|node| (&node.node, get(node.address, path)));
                    asked.collect::<Vec<_>>()
                })
            });
            let parts: Vec<_> = parts.collect();
            // A thread that panics has asked nobody.
            parts
                .into_iter()
                .filter_map(|part| part.join().ok())
                .flatten()
                .collect()
        });
        for (name, answer) in answers {
            let known = self.nodes.entry(name.clone()).or_default();
            match answer {
                Ok(answer) => {
                    *known = Answers {
                        last: Some(answer),
                        failures: 0,
                    }
                }
                Err(_) => {
                    known.failures += 1;
                    if known.failures >= ATTEMPTS {
                        known.last = None;
                    }
                }
            }
        }
    }
}

/// One question over HTTP.
fn get(address: SocketAddr, path: &str) -> Result<PolicyOnNode> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    Read::take(&mut stream, LONGEST).read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("not an answer over HTTP")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("{address}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(serde_json::from_str(body)?)
}

fn show(waited: &Waited) -> String {
    let wanted = match waited.generation {
        Some(generation) => format!("{}, generation {generation}", waited.policy),
        None => waited.policy.clone(),
    };
    let rows = waited.nodes.iter().map(|node| {
        let generation = node.generation.map(|generation| generation.to_string());
        vec![
            node.node.clone(),
            generation.unwrap_or_else(|| "-".to_owned()),
            node.state.to_owned(),
        ]
    });
    let nodes = table(&["NODE", "GENERATION", "STATE"], rows);
    let notes = waited.notes.iter().map(|note| format!("\nnote: {note}"));
    format!("{wanted}\n\n{nodes}{}", notes.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command, PolicyCommand};

    fn args(more: &[&str]) -> WaitArgs {
        let line = [&["sluice", "policy", "wait", "p"], more].concat();
        match Cli::parse_from(line).command {
            Command::Policy(PolicyCommand::Wait(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn on_node(node: &str, generation: Option<i64>) -> PolicyOnNode {
        PolicyOnNode {
            node: node.to_owned(),
            generation,
        }
    }

    fn states(args: &WaitArgs, here: Option<i64>, there: Option<i64>) -> Vec<&'static str> {
        let policy = ObjectKey::new(args.kind, Some(&args.namespace), &args.name);
        let state = PolicyState {
            here: on_node("a", here),
            generation: Some(4),
            ..PolicyState::default()
        };
        let of = |last, failures| Answers { last, failures };
        let others = Others {
            nodes: BTreeMap::from([
                ("b".to_owned(), of(Some(on_node("b", there)), 1)),
                ("c".to_owned(), of(None, ATTEMPTS)),
                ("d".to_owned(), of(None, 1)),
            ]),
        };
        let waited = waited(args, &policy, &state, &others);
        waited.nodes.iter().map(|node| node.state).collect()
    }

    #[test]
    fn a_version_is_waited_for_on_all_nodes_that_answer() {
        let any = args(&[]);
        assert_eq!(
            states(&any, Some(4), Some(3)),
            ["in force", "waiting", "not reached", "waiting"]
        );
        assert_eq!(states(&any, None, Some(5))[..2], ["waiting", "in force"]);
        let older = args(&["--generation", "3", "--kind", "cnp"]);
        assert_eq!(states(&older, Some(4), Some(3))[..2], ["in force"; 2]);
        let gone = args(&["--gone"]);
        assert_eq!(states(&gone, None, Some(3))[..2], ["gone", "waiting"]);
    }

    #[test]
    fn a_node_that_does_not_answer_is_not_reached_after_some_attempts() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let node = Other {
            node: "b".to_owned(),
            address: closed,
        };
        let mut others = Others::default();
        for attempt in 1..=ATTEMPTS {
            others.ask(std::slice::from_ref(&node), "/policy/NetworkPolicy/n/p");
            assert_eq!(others.nodes["b"].failures, attempt);
        }
        others.ask(&[], "/");
        assert!(others.nodes.is_empty(), "it is no node any more");
    }
}
