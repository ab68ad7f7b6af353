//! A real Kubernetes cluster on this machine: its own programs, in namespaces.

mod conformance;
mod control_plane;
mod dns;
mod e2e;
mod images;
mod keys;
mod machine;
mod network;
mod node;
mod programs;
mod proxy;
mod state;
mod step;

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    build::{self, Profile},
    privilege::Privilege,
    process,
    setup::{self, Part},
};
pub use programs::Programs;
use state::State;

/// Options of `cargo xtask cluster`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

/// What to do with a cluster.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Build Kubernetes' programs; minutes once, cached after that outside the checkout.
    Build {
        /// Also the program of Kubernetes' own tests.
        #[arg(long)]
        e2e: bool,
        /// Also the programs of the conformance tests of network-policy-api.
        #[arg(long)]
        conformance: bool,
    },
    /// Start a cluster.
    Up(Up),
    /// Stop a cluster and remove all that it left.
    Down(Which),
    /// Show which clusters there are and what runs in them.
    Status(Which),
    /// Run Kubernetes' own network tests against a cluster.
    E2e(e2e::Args),
    /// Run the conformance tests of network-policy-api against a cluster.
    Conformance(conformance::Args),
}

/// Options of `cargo xtask cluster up`.
#[derive(Debug, Clone, clap::Args)]
pub struct Up {
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// What serves Services.
    #[arg(long, value_enum, default_value_t = Proxy::Sluice)]
    pub proxy: Proxy,
    /// How pods are connected.
    #[arg(long, value_enum, default_value_t = Cni::Ptp)]
    pub cni: Cni,
    /// Which cluster.
    #[command(flatten)]
    pub which: Which,
}

/// Which cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// Name of the cluster: several may stand side by side.
    #[arg(long, default_value = "dev", value_parser = name)]
    pub name: String,
}

/// What serves Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// Sluice, without any kube-proxy.
    Sluice,
    /// kube-proxy in its nftables mode.
    Nftables,
    /// kube-proxy in its iptables mode.
    Iptables,
    /// Nothing.
    None,
}

/// How pods are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cni {
    /// A routed veth for each pod.
    Ptp,
    /// A bridge on each node.
    Bridge,
}

/// `cargo xtask cluster`.
pub fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Build { e2e, conformance } => {
            let programs = prepare(if e2e { Extra::Tests } else { Extra::KubeProxy })?;
            if conformance {
                conformance::build(&programs)?;
            }
            Ok(())
        }
        Action::Up(up) => {
            let extra = up.proxy.extra();
            as_root(|| prepare(extra).map(|_| ()), || start(&up))
        }
        Action::Down(which) => as_root(|| Ok(()), || state::down(&which.name)),
        Action::Status(_) => as_root(|| Ok(()), state::status),
        Action::E2e(args) => {
            let ready = || prepare(Extra::Tests).map(|_| ());
            as_root(ready, || e2e::run(&args))
        }
        Action::Conformance(args) => {
            let ready = || conformance::build(&prepare(Extra::None)?);
            as_root(ready, || conformance::run(&args))
        }
    }
}

/// What not every cluster needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Nothing.
    None,
    /// kube-proxy.
    KubeProxy,
    /// Kubernetes' own tests.
    Tests,
}

impl Proxy {
    fn extra(self) -> Extra {
        match self {
            Self::Nftables | Self::Iptables => Extra::KubeProxy,
            Self::Sluice | Self::None => Extra::None,
        }
    }
}

/// Finds, installs and builds what a cluster consists of.
pub fn prepare(extra: Extra) -> Result<Programs> {
    setup::ensure(&[Part::Kernel, Part::Programs, Part::Cluster])?;
    let programs = Programs::find()?;
    programs.build()?;
    match extra {
        Extra::None => {}
        Extra::KubeProxy => programs.build_kube_proxy()?,
        Extra::Tests => programs.build_e2e()?,
    }
    Ok(programs)
}

/// The programs that tests and benchmarks start by themselves, by the variables that name them.
pub fn variables(programs: &Programs) -> [(&'static str, OsString); 4] {
    [
        ("SLUICE_ETCD", programs.etcd().into()),
        (
            "SLUICE_KUBE_APISERVER",
            programs.kubernetes("kube-apiserver").into(),
        ),
        ("SLUICE_KUBECTL", programs.kubernetes("kubectl").into()),
        (
            "SLUICE_KUBE_PROXY",
            programs.kubernetes("kube-proxy").into(),
        ),
    ]
}

/// Starts a cluster whose programs are built on demand. An older cluster of that name is stopped.
fn start(up: &Up) -> Result<()> {
    let programs = prepare(up.proxy.extra())?;
    setup::ensure(&[Part::Bpf])?;
    let built = build::all(Profile::Dev)?;
    let mut images = images::ensure(&programs)?;
    state::down(&up.which.name)?;
    let mut state = State::create(up, &programs)?;
    images.extend(step::timed("images of this build", || {
        images::of_build(&built, &state.dir("images"))
    })?);
    let started = raise(&mut state, &programs, &images);
    if started.is_err() {
        eprintln!(
            "the cluster did not come up: its logs are in {}",
            state.dir("log").display()
        );
    }
    started?;
    eprintln!(
        "cluster {} is up; kubectl: {}",
        state.name,
        state.kubectl_words()
    );
    Ok(())
}

fn raise(state: &mut State, programs: &Programs, images: &[PathBuf]) -> Result<()> {
    step::timed("network", || network::make(state))?;
    step::timed("keys", || keys::make(state))?;
    step::timed("control plane and container runtimes", || {
        control_plane::start_storage(state, programs)?;
        std::thread::scope(|scope| {
            let shared = &*state;
            let runtimes: Vec<_> = shared
                .nodes()
                .map(|node| {
                    scope.spawn(move || node::start_runtime(shared, programs, node, images))
                })
                .collect();
            control_plane::start(shared, programs)?;
            for runtime in runtimes {
                runtime
                    .join()
                    .map_err(|_| anyhow::anyhow!("a container runtime's start panicked"))??;
            }
            Ok(())
        })
    })?;
    step::timed("nodes", || {
        for node in state.nodes() {
            node::start_kubelet(state, programs, node)?;
        }
        dns::start(state, programs)?;
        node::wait_until_ready(state)?;
        node::tell_ranges(state)
    })?;
    step::timed("proxy", || match state.proxy {
        Proxy::Sluice => proxy::start_sluice(state),
        Proxy::Nftables => proxy::start_kube_proxy(state, programs, "nftables"),
        Proxy::Iptables => proxy::start_kube_proxy(state, programs, "iptables"),
        Proxy::None => Ok(()),
    })?;
    state.save()
}

/// The cluster that tests use: up while this lives.
#[derive(Debug)]
pub struct ForTests {
    name: &'static str,
}

impl ForTests {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let cluster = Self { name: "test" };
        cluster.run("up")?;
        Ok(cluster)
    }

    /// The file that describes it.
    pub fn file(&self) -> PathBuf {
        state::file_of(self.name)
    }

    /// Stops it; what its programs said stays in a folder of the build when tests failed.
    pub fn stop(self, failed: bool) -> Result<()> {
        if failed {
            let kept = crate::workspace::target_dir()?.join("cluster-logs");
            let logs = state::root_of(self.name).join("log");
            process::run(Command::new("cp").args(["-rT"]).arg(logs).arg(&kept))?;
            eprintln!("the logs of the cluster are in {}", kept.display());
        }
        self.run("down")
    }

    fn run(&self, action: &str) -> Result<()> {
        let program = std::env::current_exe().context("where is this program?")?;
        process::run(Command::new(program).args(["cluster", action, "--name", self.name]))
    }
}

/// Does something as root: in this process, or in another one of this program by sudo, after what the user does.
fn as_root(before: impl FnOnce() -> Result<()>, action: impl FnOnce() -> Result<()>) -> Result<()> {
    let privilege = Privilege::find();
    if privilege == Privilege::Root {
        return action();
    }
    // What is built is built as the user, so that the cache stays theirs.
    before()?;
    let cache = Programs::find()?.cache().into();
    let mut variables: Vec<(&str, OsString)> = vec![("SLUICE_CACHE", cache)];
    for name in [
        "PATH",
        "HOME",
        "CARGO",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
    ] {
        variables.extend(std::env::var_os(name).map(|value| (name, value)));
    }
    let program = std::env::current_exe().context("where is this program?")?;
    let mut command: Command = privilege.command(variables, program)?;
    process::run(command.args(std::env::args_os().skip(1)))
}

/// A name that fits into names of namespaces and files.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.is_empty() || text.len() > 12 || !text.chars().all(fits) {
        return Err("a cluster's name is 1 to 12 lower-case letters and digits".into());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_namespaces() {
        assert_eq!(name("dev2").unwrap(), "dev2");
        for bad in ["", "a-b", "A", "a/b", "abcdefghijklm"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
