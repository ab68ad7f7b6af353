//! What policies cost: a packet, a connection, the agent; and how long one takes to come into force.
//! Beside it the same policies in nftables, at their best, and by kube-router where it is given.

mod change;
mod kube_router;
mod load;
mod nft;
mod objects;
mod probe;
mod rows;
mod set;
mod side;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::rounds::{self, Samples, Slot, To};
use super::traffic::{self, Test};
use super::{Args, split_cpus};
use crate::report::Report;
use crate::topology::{Cluster, Cni};
use kube_router::Program;
use set::{Kind, Set};
use side::{By, Side};

/// The most policies.
const MANY: u32 = 10_000;
/// Sluice without policies: what the others are compared with.
const NONE: &str = "sluice-0";
/// The same once more.
const AGAIN: &str = "sluice-0-again";

/// The parts of a run, by their names for `--only`.
const PARTS: [&str; 4] = [CHANGES, NUMBERS, KINDS, KUBE_ROUTER];
const CHANGES: &str = "changes";
const NUMBERS: &str = "numbers";
const KINDS: &str = "kinds";
const KUBE_ROUTER: &str = "kube-router";

/// One of those that are compared: its name, who enforces, and what.
type Member = (&'static str, By, Set);

/// Those that are alive together.
struct Pass {
    members: Vec<Member>,
    /// kube-router's program, where it is a member.
    kube_router: Option<Program>,
}

impl Pass {
    /// Numbers of policies of all kinds.
    fn numbers() -> Pass {
        let of = |name, by, count| -> Member {
            let kind = Kind::Mixed;
            (name, by, Set { kind, count })
        };
        Pass {
            members: vec![
                of(NONE, By::Sluice, 0),
                of(AGAIN, By::Sluice, 0),
                of("sluice-1", By::Sluice, 1),
                of("sluice-10", By::Sluice, 10),
                of("sluice-100", By::Sluice, 100),
                of("sluice-1000", By::Sluice, 1_000),
                of("sluice-10000", By::Sluice, MANY),
                of("nft-0", By::Nft, 0),
                of("nft-10000", By::Nft, MANY),
            ],
            kube_router: None,
        }
    }

    /// Each kind alone.
    fn kinds() -> Pass {
        let many = |name, by, kind| -> Member { (name, by, Set { kind, count: MANY }) };
        let (kind, count) = (Kind::Mixed, 0);
        Pass {
            members: vec![
                (NONE, By::Sluice, Set { kind, count }),
                many("sluice-selectors", By::Sluice, Kind::Selectors),
                many("sluice-cidrs", By::Sluice, Kind::Blocks),
                many("sluice-ranges", By::Sluice, Kind::Ranges),
                many("sluice-tiers", By::Sluice, Kind::Tiers),
                many("nft-selectors", By::Nft, Kind::Selectors),
                many("nft-cidrs", By::Nft, Kind::Blocks),
                many("nft-ranges", By::Nft, Kind::Ranges),
                many("nft-tiers", By::Nft, Kind::Tiers),
            ],
            kube_router: None,
        }
    }

    /// Those that kube-router knows, by it too. What takes long comes first.
    fn beside_kube_router(program: Program) -> Pass {
        let of = |name, by, count| -> Member {
            let kind = Kind::Standard;
            (name, by, Set { kind, count })
        };
        Pass {
            members: vec![
                of("kube-router-10000", By::KubeRouter, MANY),
                of("kube-router-0", By::KubeRouter, 0),
                of(NONE, By::Sluice, 0),
                of("sluice-10000", By::Sluice, MANY),
            ],
            kube_router: Some(program),
        }
    }

    /// Those with the same policies: Sluice, then the other.
    fn pairs(&self) -> impl Iterator<Item = (&Member, &Member)> {
        let ours = self.members.iter().filter(|member| member.1 == By::Sluice);
        ours.filter(|member| member.0 != AGAIN).filter_map(|ours| {
            let mut theirs = self.members.iter();
            let theirs = theirs.find(|member| member.1 != By::Sluice && member.2 == ours.2)?;
            Some((ours, theirs))
        })
    }

    fn measure(&self, args: &Args, timed: usize) -> Result<Samples> {
        let cluster = Cluster::new(u8::try_from(self.members.len())?, Cni::Ptp)?;
        let mut sides = Vec::new();
        for (node, member) in (1..).zip(&self.members) {
            eprintln!("{}", member.0);
            let side = Side::make(&cluster, node, *member, timed, self.kube_router.as_ref());
            sides.push(side.with_context(|| format!("cannot make {}", member.0))?);
        }
        for side in &mut sides {
            side.await_ready()?;
            eprintln!("{}: ready", side.name());
        }
        let slot = |name, test| Slot {
            variant: name,
            test,
            to: To::Fixed,
        };
        let names = sides.iter().map(Side::name);
        let slots: Vec<Slot> = names
            .flat_map(|name| [Test::Rr, Test::Crr].map(|test| slot(name, test)))
            .collect();
        let length = Duration::from_millis(args.slot);
        rounds::run(&slots, args.rounds, |slot| {
            let side = sides.iter_mut().find(|side| side.name() == slot.variant);
            side.context("a slot without its node")?.run(slot, length)
        })
    }
}

/// Measures what many new flows cost the agent.
///
/// # Errors
/// A program is missing, or something does not work.
pub fn run_flows(args: &Args, report: &mut Report) -> Result<()> {
    let (ours, timed) = split_cpus(args.cpu)?;
    traffic::pin(&ours)?;
    rows::loads(&load::measure(timed)?, report);
    Ok(())
}

/// Measures, and returns the table of all slots.
///
/// # Errors
/// A program is missing, or something does not work.
pub fn run(args: &Args, report: &mut Report) -> Result<String> {
    ensure!(
        args.rounds > 0 && args.slot > 0,
        "give at least one round and one millisecond"
    );
    let kube_router = args.kube_router.as_deref().map(Program::at).transpose()?;
    let wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|only| only == part);
    for name in &args.only {
        ensure!(
            PARTS.contains(&name.as_str()),
            "no part is called {name:?}: there are {}",
            PARTS.join(", ")
        );
    }
    ensure!(
        kube_router.is_some() || !args.only.iter().any(|only| only == KUBE_ROUTER),
        "give kube-router's program too: --kube-router PATH"
    );
    if wanted(CHANGES) {
        let (kind, count) = (Kind::Mixed, MANY);
        for spread in [true, false] {
            let changed = change::measure(Set { kind, count }, spread)?;
            rows::changes(&changed, spread, report);
        }
    }
    if let Some(program) = kube_router.as_ref().filter(|_| wanted(KUBE_ROUTER)) {
        let (kind, count) = (Kind::Standard, MANY);
        let times = change::under_kube_router(program, Set { kind, count }, true)?;
        rows::changes_of_kube_router(&times, report);
    }
    let (ours, timed) = split_cpus(args.cpu)?;
    traffic::pin(&ours)?;
    let passes = [
        (NUMBERS, Some(Pass::numbers())),
        (KINDS, Some(Pass::kinds())),
        (KUBE_ROUTER, kube_router.map(Pass::beside_kube_router)),
    ];
    let mut table = rows::HEAD.to_owned();
    for (part, pass) in passes {
        let Some(pass) = pass.filter(|_| wanted(part)) else {
            continue;
        };
        let samples = pass.measure(args, timed)?;
        for error in samples.errors() {
            eprintln!("failed: {error}");
        }
        rows::traffic(&pass, &samples, report);
        table += &rows::lines(&pass, &samples);
    }
    Ok(table)
}
