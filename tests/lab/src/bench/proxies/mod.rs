//! Sluice beside the real kube-proxy: one API server, the same objects for all, two nodes for each,
//! and one path at a time, as the other benchmarks of traffic have it.

mod rows;
mod system;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::control::Size;
use super::control::objects;
use super::kube_proxy::Mode;
use super::names::{AGAIN, SLUICE};
use super::rounds::{self, Samples, Slot, To};
use super::server::Server;
use super::traffic::{self, Test};
use super::{Args, MOST_OF_NFT, split_cpus};
use crate::report::Report;
use crate::topology::{Cluster, Cni};
use system::{Proxy, System};

/// kube-proxy's modes as systems.
const KUBE_PROXIES: [(&str, Mode); 2] = [
    ("kube-proxy-nftables", Mode::Nftables),
    ("kube-proxy-iptables", Mode::Iptables),
];

/// What is timed of each system.
const TIMED: [(Test, To); 3] = [
    (Test::Rr, To::Fixed),
    (Test::Crr, To::Fixed),
    (Test::Crr, To::NodePort),
];

/// What a run measured.
struct Measured {
    samples: Samples,
    services: u32,
    /// Entries that netfilter's conntrack threw away on kube-proxy's nodes: there should be room.
    thrown_away: u64,
}

/// Measures, and returns the table of all slots.
///
/// # Errors
/// A program is missing, or something does not work.
pub fn run(args: &Args, report: &mut Report) -> Result<String> {
    let measured = measure(args)?;
    rows::rows(&measured, report);
    for error in measured.samples.errors() {
        eprintln!("failed: {error}");
    }
    Ok(rows::table(&measured.samples))
}

fn measure(args: &Args) -> Result<Measured> {
    ensure!(
        args.rounds > 0 && args.slot > 0 && args.services > 0,
        "give at least one round, one millisecond and one service"
    );
    let services = args.services.min(MOST_OF_NFT);
    let (ours, timed) = split_cpus(args.cpu)?;
    let plan = plan(&args.only)?;
    let cluster = Cluster::new(u8::try_from(2 * plan.len())?, Cni::Ptp)?;
    let Server {
        server,
        api,
        kubeconfig,
    } = Server::start(&cluster)?;
    traffic::leave_room_for_connections(cluster.outside())?;
    eprintln!("filling it with {services} services");
    api.write_all(objects::namespaces())?;
    let size = Size {
        services,
        endpoints: 1,
    };
    api.write_all(objects::services(size))?;
    let mut systems = Vec::new();
    for (first, (name, proxy)) in (1..).step_by(2).zip(plan) {
        let begun = Instant::now();
        let mut system = System::make(&cluster, first, name, timed, &api)?;
        system.start(proxy, &kubeconfig)?;
        let took = begun.elapsed().as_secs_f64();
        eprintln!("{name}: programmed on both nodes after {took:.1} s");
        systems.push(system);
    }
    // What has nothing to do with the paths stays off their CPU from now on.
    traffic::pin(&ours)?;
    let mut others = server.processes();
    for system in &mut systems {
        others.extend(system.processes()?);
    }
    for process in others {
        traffic::pin_process(process, &ours)?;
    }
    let length = Duration::from_millis(args.slot);
    let slots = slots(&systems);
    let samples = rounds::run(&slots, args.rounds, |slot| {
        let named = |system: &&mut System| system.name() == slot.variant;
        let system = systems.iter_mut().find(named);
        let system = system.context("a slot without its system")?;
        system.run(slot.test, slot.to, length)
    })?;
    Ok(Measured {
        samples,
        services,
        thrown_away: systems.iter().map(System::thrown_away).sum(),
    })
}

/// The systems that are wanted. Those that take longest to start come first.
fn plan(only: &[String]) -> Result<Vec<(&'static str, Proxy)>> {
    let kube_proxies = KUBE_PROXIES.map(|(name, mode)| (name, Proxy::KubeProxy(mode)));
    let ours = [SLUICE, AGAIN].map(|name| (name, Proxy::Sluice));
    let all = [kube_proxies, ours].concat();
    for name in only {
        let known: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no system is called {name:?}: there are {}",
            known.join(", ")
        );
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    Ok(all.into_iter().filter(|(name, _)| wanted(name)).collect())
}

fn slots(systems: &[System]) -> Vec<Slot> {
    let of = |system: &System| {
        let variant = system.name();
        TIMED.map(|(test, to)| Slot { variant, test, to })
    };
    systems.iter().flat_map(of).collect()
}
