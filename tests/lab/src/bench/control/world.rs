//! A filled API server, and a node for each of the two that are compared.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Size;
use super::objects::{self, Probed};
use super::probe::{self, Backend, Prober};
use super::process::{AGENT_ARGS, Log, Memory};
use crate::agent::Agent;
use crate::bench::kube_proxy::{KubeProxy, Mode};
use crate::bench::server::Server;
use crate::bench::traffic;
use crate::kube::api::Api;
use crate::kube::apiserver::ApiServer;
use crate::topology::{Cluster, Cni, Node, Pod};
use crate::wait;

/// Changes whose way to the maps is timed: so many that come apart, and as many without a pause.
const CHANGES: u32 = 1_000;
/// Times that the probed Service moves: under Sluice, and under kube-proxy.
const MOVES: [u32; 2] = [300, 30];
/// How long a proxy may take to program all.
pub const PROGRAMMED: Duration = Duration::from_secs(600);
/// How long the moves of one may take in all; at least one is waited for, however long it takes.
const ALL_MOVES: Duration = Duration::from_secs(90);

/// Everything alive.
pub struct World {
    size: Size,
    filled_in: Duration,
    sluice: Side,
    kube_proxy: Side,
    api: Api,
    kubeconfig: PathBuf,
    server: ApiServer,
    /// Last, so that all in its namespaces goes first.
    _cluster: Cluster,
}

/// A node, a client on it, and a Service that leads to one of two pods.
struct Side {
    node: Arc<Node>,
    client: Pod,
    backends: [Backend; 2],
    probed: Probed,
}

/// What was measured at a size.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// How long it took to fill the API server.
    pub filled_in: Duration,
    /// Sluice.
    pub sluice: OfProxy,
    /// Entries it wrote at the start.
    pub operations: u64,
    /// From all sources in sync to the maps, in ms.
    pub maps_ms: f64,
    /// From the arrival of a change's bytes to the maps, in ms, of changes that come apart.
    pub changes_ms: Vec<f64>,
    /// The same of changes without a pause, while the API server is at work on the next one.
    pub stream_ms: Vec<f64>,
    /// Memory after these changes.
    pub after_changes: Memory,
    /// kube-proxy; `None` if it did not program everything in [`PROGRAMMED`].
    pub kube_proxy: Option<OfProxy>,
}

/// What is measured of both.
#[derive(Clone, Debug, PartialEq)]
pub struct OfProxy {
    /// From the start of the process until everything is programmed.
    pub start: Duration,
    /// Memory, after that.
    pub memory: Memory,
    /// From the API server's reply to the first connection at the new endpoint, in ms; below zero if
    /// the connection came first.
    pub moves_ms: Vec<f64>,
}

impl World {
    /// Makes the nodes, starts the API server and fills it.
    ///
    /// # Errors
    /// A program is missing, or something does not work.
    pub fn make(size: Size) -> Result<World> {
        let cluster = Cluster::new(2, Cni::Ptp)?;
        eprintln!("{size}");
        let Server {
            server,
            api,
            kubeconfig,
        } = Server::start(&cluster)?;
        let [sluice, kube_proxy] = [1, 2].map(|index| Side::make(&cluster, index));
        let mut world = World {
            size,
            filled_in: Duration::ZERO,
            sluice: sluice?,
            kube_proxy: kube_proxy?,
            api,
            kubeconfig,
            server,
            _cluster: cluster,
        };
        world.fill()?;
        Ok(world)
    }

    fn fill(&mut self) -> Result<()> {
        for side in [&self.sluice, &self.kube_proxy] {
            self.api.write(objects::create_node(&side.node))?;
            for pod in side.pods() {
                self.api.write_each(objects::create_pod(pod))?;
            }
            let endpoint = side.backends[0].pod();
            self.api.write_each(side.probed.create(endpoint))?;
        }
        eprintln!("{}: filling the API server", self.size);
        let begun = Instant::now();
        self.api.write_all(objects::namespaces())?;
        let filled = self.api.write_all(objects::services(self.size));
        filled.with_context(|| {
            format!(
                "cannot fill the server whose logs are in {}",
                self.server.dir().display()
            )
        })?;
        self.filled_in = begun.elapsed();
        eprintln!(
            "{}: filled in {:.0} s",
            self.size,
            self.filled_in.as_secs_f64()
        );
        Ok(())
    }

    /// Measures one after the other.
    ///
    /// # Errors
    /// One of them does not do what it should.
    pub fn measure(&mut self) -> Result<Measured> {
        let mut agent = Agent::on_api(&self.sluice.node, &self.kubeconfig).with_args(&AGENT_ARGS);
        let begun = Instant::now();
        agent.start_only()?;
        let process = agent.id().context("the agent does not run")?;
        let log = wait::until(PROGRAMMED, "the agent to program everything", || {
            let log = Log::of(&agent)?;
            if log.maps_ms.is_none() {
                match agent.ensure_running() {
                    Ok(()) => bail!("its log ends {}", agent.last_words()),
                    // Nothing more will come.
                    Err(ended) => return Ok(Err(ended)),
                }
            }
            Ok(Ok(log))
        })??;
        let start = begun.elapsed();
        self.sluice.await_answer()?;
        let memory = Memory::settled(process)?;
        eprintln!("{}: Sluice has programmed everything", self.size);
        let changes_ms = self.changes(&agent, 0..CHANGES, |number| thread::sleep(apart(number)))?;
        let after_changes = Memory::settled(process)?;
        let stream_ms = self.changes(&agent, CHANGES..2 * CHANGES, |_| ())?;
        let sluice = OfProxy {
            start,
            memory,
            moves_ms: self.sluice.moves(&self.api, MOVES[0])?,
        };
        agent.terminate()?;
        eprintln!("{}: now kube-proxy", self.size);
        Ok(Measured {
            filled_in: self.filled_in,
            sluice,
            operations: log.operations,
            maps_ms: log.maps_ms.unwrap_or_default(),
            changes_ms,
            stream_ms,
            after_changes,
            kube_proxy: self.measure_kube_proxy()?,
        })
    }

    /// Lets one endpoint after the other move, and returns the times of the rounds that followed. On a
    /// busy machine, changes may share a round: its time is that of the first of them.
    fn changes(&self, agent: &Agent, numbers: Range<u32>, pause: impl Fn(u32)) -> Result<Vec<f64>> {
        let before = Log::of(agent)?.rounds.len();
        for number in numbers {
            self.api.write(objects::change(self.size, number))?;
            pause(number);
        }
        // Slices come in their order: once this one is in force, all before it are.
        self.sluice.moves(&self.api, 2)?;
        let log = Log::of(agent)?;
        Ok(log.rounds[before..].to_vec())
    }

    fn measure_kube_proxy(&self) -> Result<Option<OfProxy>> {
        let begun = Instant::now();
        let mut proxy = KubeProxy::start(&self.kube_proxy.node, &self.kubeconfig, Mode::Nftables)?;
        // All that there is at the start comes in one transaction of nftables.
        let programmed = self.kube_proxy.await_answer();
        let process = proxy.id()?;
        if let Err(error) = programmed {
            eprintln!("{}: kube-proxy is left out: {error:#}", self.size);
            return Ok(None);
        }
        let start = begun.elapsed();
        let memory = Memory::settled(process)?;
        eprintln!("{}: kube-proxy has programmed everything", self.size);
        let moves_ms = self.kube_proxy.moves(&self.api, MOVES[1])?;
        Ok(Some(OfProxy {
            start,
            memory,
            moves_ms,
        }))
    }
}

/// The pause after a change, where changes come apart: at no fixed distance.
fn apart(number: u32) -> Duration {
    Duration::from_millis(10 + u64::from(number * 7 % 23))
}

impl Side {
    fn make(cluster: &Cluster, node: u8) -> Result<Side> {
        let pod = |name: &str| cluster.add_pod(node, &format!("{name}-{node}"));
        let client = pod("client")?;
        traffic::leave_room_for_connections(client.netns())?;
        let node = Arc::clone(cluster.node(node));
        Ok(Side {
            probed: Probed::of(&node),
            node,
            client,
            backends: [
                Backend::start(pod("first")?)?,
                Backend::start(pod("second")?)?,
            ],
        })
    }

    fn pods(&self) -> [&Pod; 3] {
        let [first, second] = &self.backends;
        [&self.client, first.pod(), second.pod()]
    }

    fn await_answer(&self) -> Result<()> {
        let what = format!("an answer of {}", self.probed.name);
        wait::until(PROGRAMMED, &what, || {
            probe::answers(&self.client, self.probed.address)
        })
    }

    /// Lets the probed Service lead to one pod and the other in turn, while a client connects all
    /// the time; so often, or as often as there is time for.
    fn moves(&self, api: &Api, count: u32) -> Result<Vec<f64>> {
        let _prober = Prober::start(&self.client, self.probed.address);
        let mut times = Vec::new();
        let begun = Instant::now();
        for number in 0..count {
            if number > 0 && begun.elapsed() > ALL_MOVES {
                break;
            }
            let next = &self.backends[(number as usize + 1) % 2];
            next.forget();
            let replied = api.write(self.probed.lead_to(next.pod()))?;
            let arrived = wait::until(PROGRAMMED, "a connection at the new endpoint", || {
                next.first().context("none came")
            })?;
            let after = arrived.saturating_duration_since(replied);
            let before = replied.saturating_duration_since(arrived);
            times.push((after.as_secs_f64() - before.as_secs_f64()) * 1e3);
            thread::sleep(apart(number));
        }
        Ok(times)
    }
}
