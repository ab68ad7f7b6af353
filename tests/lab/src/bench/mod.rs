//! The benchmark: Sluice beside its alternatives, as ratios of times per transaction.
//!
//! All variants are alive together, each a node with a client and a server pod. Clients, servers
//! and the paths between them stay on one CPU; the agents and this program stay on the others. One
//! variant works at a time, for a short slot; the slots of a round are rotated. What counts is the
//! median of the rounds' ratios: a disturbance lasts longer than a round and cancels out.

mod bytecode;
mod control;
mod kube_proxy;
mod packets;
mod pods;
mod policy;
mod proxies;
mod rounds;
mod rows;
mod server;
mod stats;
mod table;
pub mod traffic;
mod variant;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::report::{Report, splice};
use crate::topology::{Cluster, Cni};
use rounds::{Samples, Slot, To};
use rows::Measured;
use traffic::Test;
use variant::{Path as Way, Scale, Variant};

/// Names of the variants.
mod names {
    pub const KERNEL: &str = "kernel";
    pub const REDIRECT: &str = "redirect";
    pub const NFT: &str = "nft";
    pub const SLUICE: &str = "sluice";
    pub const AGAIN: &str = "sluice-again";
    pub const ONE: &str = "sluice-1-0";
    pub const MANY_SERVICES: &str = "sluice-services";
    pub const MANY_POLICIES: &str = "sluice-policies";
    /// Those that are also measured with a random destination for each connection.
    pub const RANDOM: [&str; 3] = [KERNEL, NFT, SLUICE];
}
use names::{AGAIN, KERNEL, MANY_POLICIES, MANY_SERVICES, NFT, ONE, REDIRECT, SLUICE};

/// `nft` takes minutes and a GB to load more Services. A packet costs it the same.
const MOST_OF_NFT: u32 = 10_000;

/// Options of the benchmark.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// 24 rounds with 0.3 s for each slot: some three minutes.
    #[arg(long)]
    quick: bool,
    /// Instead of traffic, time the kernel programs on single packets.
    #[arg(long)]
    packets: bool,
    /// Instead of traffic, time the way from a real API server to the maps, beside kube-proxy's: some
    /// five minutes.
    #[arg(long, conflicts_with = "packets")]
    control_plane: bool,
    /// Beside the real kube-proxy, in both its modes, with the same objects from one API server; also from
    /// outside to a node port: some five minutes, as --quick.
    #[arg(long, conflicts_with_all = ["packets", "control_plane"])]
    proxies: bool,
    /// What up to 10,000 policies cost a connection, a packet and the agent, beside nftables; and one
    /// changed among them, from a real API server: some six minutes, as --quick.
    #[arg(long, conflicts_with_all = ["packets", "control_plane", "proxies"])]
    policy: bool,
    /// With --policy: also beside this program, kube-router, as the node's policy controller (iptables and
    /// ipset): some seven minutes more.
    #[arg(long, value_name = "PATH", requires = "policy")]
    kube_router: Option<PathBuf>,
    /// What 10,000 new flows a second through policed pods cost the agent, while nobody listens to flow events
    /// and while one does: some minute.
    #[arg(long, conflicts_with_all = ["packets", "control_plane", "proxies", "policy"])]
    flows: bool,
    /// With --control-plane: larger clusters too.
    #[arg(long, requires = "control_plane")]
    long: bool,
    /// With --control-plane: a cluster of this many Services and endpoints of each, as 1000x10,
    /// instead of the usual one.
    #[arg(long, value_name = "NxM", requires = "control_plane")]
    size: Vec<control::Size>,
    /// Also write the rows to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also put the tables into a document, between `<!-- bench -->` and `<!-- end bench -->`
    /// (`<!-- control plane -->` with --control-plane, `<!-- proxies -->` with --proxies, `<!-- policies -->` with --policy).
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Rounds; at least 12 for a result that counts.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 30,
        default_value_ifs([("quick", "true", "24"), ("proxies", "true", "24"), ("policy", "true", "16")])
    )]
    rounds: usize,
    /// Milliseconds of a slot.
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 1_000,
        default_value_ifs([("quick", "true", "300"), ("proxies", "true", "300"), ("policy", "true", "300")])
    )]
    slot: u64,
    /// Services where there are many.
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    services: u32,
    /// NetworkPolicies where there are many.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    policies: u32,
    /// Only these variants; rows that need others are left out. With --policy: only these parts, of changes,
    /// numbers, kinds and kube-router.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// The CPU of the traffic [default: the last one].
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

/// Measures and prints the tables; a failure when a promise does not hold.
///
/// # Errors
/// A variant cannot be made or does not work, or a file cannot be written.
pub fn run(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let object = object()?;
    let mut report = Report::default();
    let mut more = Value::Null;
    let mut slots = String::new();
    if args.packets {
        slots = packets::run(&object, &mut report)?;
    } else if args.control_plane {
        slots = control::run(&control::sizes(&args.size, args.long), &mut report)?;
    } else if args.proxies {
        slots = proxies::run(args, &mut report)?;
    } else if args.policy {
        slots = policy::run(args, &mut report)?;
    } else if args.flows {
        policy::run_flows(args, &mut report)?;
    } else {
        let measured = measure(args)?;
        rows::rows(&measured, &mut report);
        let programs = rows::programs(&object, &mut report)?;
        more = json!({ "slots": table::to_json(&measured.phases), "programs": programs });
        slots += &table::to_markdown(&measured.phases);
        for error in measured.phases.iter().flat_map(Samples::errors) {
            eprintln!("failed: {error}");
        }
    }
    println!("{slots}\n{report}\n{:.0} s", begun.elapsed().as_secs_f64());
    write(args, &report, &slots, more)?;
    Ok(if report.ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn write(args: &Args, report: &Report, table: &str, more: Value) -> Result<()> {
    if let Some(file) = &args.json {
        let mut json = report.to_json();
        if let (Some(json), Value::Object(more)) = (json.as_object_mut(), more) {
            json.extend(more);
        }
        let text = serde_json::to_string_pretty(&json)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.document {
        let tables = format!("{}\n{table}", report.to_markdown());
        let place = match args {
            Args {
                control_plane: true,
                ..
            } => "control plane",
            Args { proxies: true, .. } => "proxies",
            Args { policy: true, .. } => "policies",
            Args { .. } => "bench",
        };
        splice(file, place, &tables)?;
    }
    Ok(())
}

/// Makes the variants, lets them work in both phases, and removes them.
fn measure(args: &Args) -> Result<Measured> {
    ensure!(
        args.rounds > 0 && args.slot > 0,
        "give at least one round and one millisecond"
    );
    ensure!(
        args.services > 0 && args.policies != 1,
        "give at least 1 service and 2 policies"
    );
    let (ours, timed) = split_cpus(args.cpu)?;
    traffic::pin(&ours)?;
    let scale = Scale {
        services: args.services,
        policies: args.policies,
    };
    let plan = plan(scale, &args.only)?;
    eprintln!("nodes to make: {}", plan.len());
    let cluster = Cluster::new(u8::try_from(plan.len())?, Cni::Ptp)?;
    let mut variants = Vec::new();
    // Those that start in the background first.
    for (node, (name, way)) in (1..).zip(plan) {
        eprintln!("{name}: {}", describe(way));
        variants.push(Variant::make(&cluster, node, name, way, timed)?);
    }
    for variant in &mut variants {
        variant.await_ready()?;
        eprintln!("{}: ready", variant.name());
    }
    let length = Duration::from_millis(args.slot);
    let [fixed, random] = slots(&variants);
    let mut work = |slot: Slot| {
        let named = |variant: &&mut Variant| variant.name() == slot.variant;
        let variant = variants.iter_mut().find(named);
        let variant = variant.context("a slot without its variant")?;
        variant.run(slot.test, slot.to, length)
    };
    // Random destinations cost so much or so little that half the rounds will do. They come last: the
    // thousands of tuples that they leave behind slow down what follows.
    let phases = [
        rounds::run(&fixed, args.rounds, &mut work)?,
        rounds::run(&random, args.rounds.div_ceil(2), &mut work)?,
    ];
    let thrown_away = variants.iter().find_map(Variant::thrown_away);
    eprintln!("removing the nodes");
    drop(variants);
    drop(cluster);
    Ok(Measured {
        phases,
        scale,
        thrown_away,
    })
}

/// The slots of both phases: every test of every variant, at one destination; then connections of the
/// variants named in [`names::RANDOM`], at one destination and at random ones.
fn slots(variants: &[Variant]) -> [Vec<Slot>; 2] {
    let slot = |variant, test, to| Slot { variant, test, to };
    let names = || variants.iter().map(Variant::name);
    let fixed =
        names().flat_map(|name| [Test::Rr, Test::Crr].map(|test| slot(name, test, To::Fixed)));
    let random = names()
        .filter(|name| names::RANDOM.contains(name))
        .flat_map(|name| [To::Fixed, To::Random].map(|to| slot(name, Test::Crr, to)));
    [fixed.collect(), random.collect()]
}

/// The variants that are wanted.
fn plan(scale: Scale, only: &[String]) -> Result<Vec<(&'static str, Way)>> {
    let sluice = |services, policies| Way::Sluice(Scale { services, policies });
    let Scale { services, policies } = scale;
    let all = [
        (SLUICE, sluice(services, policies)),
        (AGAIN, sluice(services, policies)),
        (ONE, sluice(1, 0)),
        (MANY_SERVICES, sluice(services, 0)),
        (MANY_POLICIES, sluice(1, policies)),
        (KERNEL, Way::Kernel),
        (REDIRECT, Way::Redirect),
        (NFT, Way::Nft(services.min(MOST_OF_NFT))),
    ];
    for name in only {
        ensure!(
            all.iter().any(|(known, _)| known == name),
            "no variant is called {name:?}: there are {}",
            all.map(|(name, _)| name).join(", ")
        );
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    Ok(all.into_iter().filter(|(name, _)| wanted(name)).collect())
}

fn describe(way: Way) -> String {
    match way {
        Way::Kernel => "routing only".to_owned(),
        Way::Redirect => "redirect_peer both ways, no load balancing".to_owned(),
        Way::Nft(count) => format!("nftables as kube-proxy writes it, {count} services"),
        Way::Sluice(Scale { services, policies }) => {
            format!("Sluice, {services} services, {policies} policies")
        }
    }
}

/// The CPUs of this program and the agents, and the one of the traffic. They are the same where
/// there is only one.
fn split_cpus(wanted: Option<usize>) -> Result<(Vec<usize>, usize)> {
    let allowed = traffic::allowed_cpus()?;
    let timed = match wanted {
        Some(cpu) => cpu,
        None => *allowed.last().context("no CPU may be used")?,
    };
    ensure!(
        allowed.contains(&timed),
        "CPU {timed} may not be used: choose one of {allowed:?}"
    );
    let ours: Vec<usize> = allowed
        .iter()
        .copied()
        .filter(|cpu| *cpu != timed)
        .collect();
    Ok((if ours.is_empty() { allowed } else { ours }, timed))
}

/// `$SLUICE_BPF_OBJECT`.
fn object() -> Result<PathBuf> {
    let path = std::env::var_os("SLUICE_BPF_OBJECT");
    let path = path
        .context("SLUICE_BPF_OBJECT does not name the kernel programs: use `cargo xtask bench`")?;
    ensure!(
        Path::new(&path).is_file(),
        "{}: no such file",
        Path::new(&path).display()
    );
    Ok(path.into())
}
