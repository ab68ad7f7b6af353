//! The agent: one task owns the snapshot and the plan; sources, devices and people only send to it.

mod cni;
mod devices;
mod engine;
mod names;
mod naming;
mod publish;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dataplane_common::abi::{Config, config_flags};
use dataplane_model::snapshot::{Event, Interface, Kind, NodeConfig, Object};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::admin::answer::{self, Answer, View};
use crate::admin::protocol::Request;
use crate::admin::server::{self, Question};
use crate::bpf::{self, Dataplane, LoadOptions};
use crate::cni::attachments::Attachments;
use crate::cni::install::Installer;
use crate::config::{Reload, Settings, SourceSettings};
use crate::convert::Converter;
use crate::dns;
use crate::metrics::Metrics;
use crate::netlink::{self, NetEvent};
use crate::observe::conntrack::{Census, Sweeper};
use crate::observe::events::Hub;
use crate::observe::policies::InForce;
use crate::observe::sample::Sampler;
use crate::serve;
use crate::sockets::Ender;
use crate::source::api::{self, Conditions, Events, Told};
use crate::source::{Batch, Source};
use cni::Waiting;
pub use devices::{Devices, Uplink};
pub use engine::Engine;
use names::DomainNames;
use naming::Naming;
use publish::Publisher;

/// Changes that come together are compiled together, but none waits longer than this.
const SETTLE: Duration = Duration::from_millis(2);
/// Operations of a round that leaves much memory behind.
const LARGE: usize = 10_000;

/// Runs the agent until it is told to end, or the settings file asks for other settings. The
/// dataplane stays in the kernel and goes on working.
///
/// # Errors
///
/// What keeps it from starting; each error names its remedy.
pub async fn run(settings: Settings, reload: Reload) -> Result<()> {
    // What may be refused comes before anything in the kernel is touched.
    let source = Source::open(&settings.source, settings.socket.parent()).await?;
    server::check_free(&settings.socket)?;
    let mut lock = lock(&settings.bpffs)?;
    let hz = bpf::kernel_hz()?;
    // Maps that are there keep their sizes.
    let objects = if bpf::is_pinned(&settings.bpffs) {
        None
    } else {
        source.census().await
    };
    let dataplane = Arc::new(load(&settings, objects.as_ref(), hz)?);
    if lock.is_none() {
        lock = self::lock(&settings.bpffs)?;
    }
    report_adoption(&dataplane);
    let engine = Engine::adopt(dataplane.maps(), node(&settings))?;
    if settings.services && settings.socket_lb {
        let root = match &settings.cgroup_root {
            Some(root) => root.clone(),
            None => bpf::find_cgroup_root()?,
        };
        dataplane.attach_cgroup(&root)?;
    } else {
        dataplane.detach_cgroup()?;
    }
    let net = netlink::watch(netlink_settings(&settings, &dataplane)).await?;
    let policies = InForce::default();
    let metrics = Arc::new(Metrics::new(policies.clone()));
    let (publisher, published) = Publisher::new(Arc::clone(&metrics));
    let sweeper = Sweeper::new(dataplane.maps(), hz, Arc::clone(&metrics))?;
    let census = sweeper.census();
    let in_use = sweeper.in_use();
    let maps = dataplane.maps().clone();
    let events = source.events(&settings.node_name);
    let conditions = source.conditions(&settings.node_name);
    let sources = serve::Sources {
        health: published.health,
        checks: published.checks,
        sampler: Sampler::new(maps, published.maps, Arc::clone(&census), source.states()),
        metrics,
        events: events.clone(),
        policies: policies.clone(),
    };
    serve::start(&settings, sources).await?;
    adjust_oom_score(&settings);
    let sweeper = tokio::spawn(sweeper.run());
    let hub = Hub::new(dataplane.maps())?;
    let (naming, names) = Naming::new();
    let questions = server::listen(&settings.socket, hub, names)?;
    if let Some(dirs) = &settings.cni {
        Installer::new(dirs.clone(), &settings.socket)?.start();
    }
    let ender = Ender::start(dataplane.maps())?;
    let kept = settings.socket.with_extension("attachments");
    let attachments = Attachments::load(&kept)
        .with_context(|| format!("reading the attachments in {}", kept.display()))?;
    let kept = settings.socket.with_extension("names");
    let domains = DomainNames::load(&kept, in_use)
        .with_context(|| format!("reading domain names in {}", kept.display()))?;
    let mut agent = Agent {
        attachments,
        domains,
        waiting: Vec::new(),
        without: Vec::new(),
        devices: Devices::new(Arc::clone(&dataplane), settings.xdp),
        dataplane,
        engine,
        converter: Converter::default(),
        source,
        events,
        conditions,
        naming,
        census,
        ender,
        publisher,
        policies,
        started: Instant::now(),
        reload: tokio::spawn(reload.changed()),
        settings,
        hz,
    };
    agent.recall_names();
    info!(node = %agent.settings.node_name, source = %agent.source.place(), "running");
    let result = agent.follow(net, questions).await;
    sweeper.abort();
    drop(lock);
    result
}

/// Keeps other agents from the same pins for as long as the file is open; `None` if the directory is
/// not there yet.
fn lock(bpffs: &Path) -> Result<Option<File>> {
    let Ok(directory) = File::open(bpffs) else {
        return Ok(None);
    };
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => bail!(
            "another agent uses the pins in {}: stop it, or give this one another --bpffs",
            bpffs.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", bpffs.display()))
        }
    }
}

fn load(settings: &Settings, objects: Option<&api::Census>, hz: u32) -> Result<Dataplane> {
    let options = LoadOptions {
        bpffs: settings.bpffs.clone(),
        config: config(settings, hz)?,
        capacities: settings.capacities(objects),
        attach: None,
    };
    Ok(Dataplane::load(bpf::object()?, &options)?)
}

fn config(settings: &Settings, hz: u32) -> Result<Config> {
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let (first, last) = settings.snat_ports;
    Ok(Config {
        netns_cookie: bpf::netns_cookie()?,
        flags: flag(settings.services, config_flags::SERVICES)
            | flag(settings.policy, config_flags::POLICY)
            | flag(settings.redirect, config_flags::REDIRECT)
            | flag(
                settings.police_node_egress,
                config_flags::POLICE_NODE_EGRESS,
            )
            | flag(settings.police_hairpin, config_flags::POLICE_HAIRPIN)
            | flag(settings.keep_flows, config_flags::KEEP_FLOWS)
            | flag(bpf::knows_csum_ipv6()?, config_flags::CSUM_IPV6),
        hz,
        snat_first: first,
        snat_count: last - first + 1,
        half_open_per_pod: settings.half_open.0,
        half_open_total: settings.half_open.1,
        error_rate: settings.icmp_errors,
        event_rate: share(settings.flow_events, bpf::online_cpus()),
        reserved: 0,
    })
}

/// What each CPU gets of a rate of the node: something, if there is anything.
fn share(rate: u32, cpus: usize) -> u32 {
    rate.div_ceil(u32::try_from(cpus).unwrap_or(u32::MAX).max(1))
}

fn report_adoption(dataplane: &Dataplane) {
    let adopted = dataplane.adopted();
    if adopted.fresh {
        info!("nothing was in place: the maps are new");
    } else {
        let (pods, uplinks) = (adopted.pods.len(), adopted.uplinks.len());
        info!(pods, uplinks, "took over what was in place");
    }
    for kept in &adopted.kept_capacities {
        warn!(map = %kept.map, has = kept.has, asked = kept.asked, "a map keeps its capacity; `sluice cleanup` makes room for another");
    }
}

fn node(settings: &Settings) -> NodeConfig {
    NodeConfig {
        name: settings.node_name.as_str().into(),
        nodeport_addresses: settings.node_port_addresses.blocks.clone(),
        nodeport_primary: settings.node_port_addresses.primary,
        nodeport_not_at_loopback: !settings.localhost_node_ports,
        masquerade_all: settings.masquerade_all,
        pod_ranges: settings.cluster_cidrs.clone(),
        police_node_egress: settings.police_node_egress,
        police_hairpin: settings.police_hairpin,
        has_dns_proxy: dns::is_possible(),
        slices_only: matches!(settings.source, SourceSettings::Api(_)),
        ..NodeConfig::default()
    }
}

fn adjust_oom_score(settings: &Settings) {
    let Some(score) = settings.oom_score_adj else {
        return;
    };
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        warn!(score, %error, "setting oomScoreAdj; a lower one than before needs CAP_SYS_RESOURCE");
    }
}

fn netlink_settings(settings: &Settings, dataplane: &Arc<Dataplane>) -> netlink::Settings {
    let owner = Arc::clone(dataplane);
    netlink::Settings {
        uplinks: settings.uplinks.clone(),
        adopted: dataplane.adopted().pods.clone(),
        enter_namespaces: true,
        foreign_egress: Arc::new(move |ifindex| owner.has_foreign_egress(ifindex)),
        own_clsact: dataplane.attach_mode() == bpf::AttachMode::Clsact,
    }
}

/// Waits for a time, not at all if it has come: tokio's timers end with a whole millisecond.
async fn due(at: Instant) {
    if at > Instant::now() {
        sleep_until(at).await;
    }
}

/// The one task that owns the state.
struct Agent {
    settings: Settings,
    dataplane: Arc<Dataplane>,
    devices: Devices,
    engine: Engine,
    converter: Converter,
    source: Source,
    events: Events,
    conditions: Conditions,
    naming: Naming,
    census: Arc<Census>,
    ender: Ender,
    publisher: Publisher,
    attachments: Attachments,
    waiting: Vec<Waiting>,
    policies: InForce,
    domains: DomainNames,
    /// Devices of pods that started without the CNI plugin, until the pods are known.
    without: Vec<u32>,
    started: Instant,
    /// Ends when the settings file asks for other settings.
    reload: JoinHandle<()>,
    hz: u32,
}

impl Agent {
    async fn follow(
        mut self,
        mut net: mpsc::Receiver<NetEvent>,
        mut questions: mpsc::Receiver<Question>,
    ) -> Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        loop {
            self.publisher.health(&self.engine);
            // However much comes from the source, what is due is done.
            if self.engine.is_overdue() || Instant::now() >= self.devices.retry_at() {
                self.work();
                continue;
            }
            let work_at = self.engine.work_at().min(self.devices.retry_at());
            let others = [self.naming.due(), self.waiting_until(), self.domains.due()];
            let work_at = others.into_iter().flatten().fold(work_at, Instant::min);
            tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = &mut self.reload => break,
                event = net.recv() => match event {
                    Some(event) => self.on_net(event),
                    None => anyhow::bail!("the kernel's device events ended; start the agent again"),
                },
                batch = self.source.next() => self.on_batch(batch),
                Some(question) = questions.recv() => self.answer(question),
                Some(answered) = self.domains.next() => self.on_answer(answered),
                () = due(work_at) => self.work(),
            }
        }
        info!("ending; the dataplane goes on working");
        Ok(())
    }

    /// Does what is due: devices whose attachment failed, and the plan.
    fn work(&mut self) {
        if Instant::now() >= self.devices.retry_at() {
            self.devices.retry();
        }
        if Instant::now() >= self.engine.work_at() && self.engine.reconcile() {
            self.ender.end(self.engine.take_gone());
            self.settle_policies();
            self.publisher.reconciled(&self.engine);
            let fresh = self.engine.take_fresh();
            (fresh.iter().filter_map(Told::of_notice)).for_each(|told| self.events.tell(told));
            self.naming.changed();
            self.answer_waiting();
            self.follow_names();
            self.tell_without();
            let history = self.engine.history();
            // The first one comes after the programs are loaded, which needs much for a moment.
            if history.done == 1 || history.last_operations >= LARGE {
                bpf::give_back_memory();
            }
        }
        if self.waiting_until().is_some_and(|at| Instant::now() >= at) {
            self.answer_waiting();
        }
        if self.domains.due().is_some_and(|at| Instant::now() >= at) {
            self.expire_names();
        }
        if self.naming.due().is_some_and(|at| Instant::now() >= at) {
            self.naming.now(&self.engine);
        }
    }

    fn on_batch(&mut self, batch: Batch) {
        for change in batch.changes {
            self.publisher.read(&change);
            self.policies.read(&change);
            let policy = change.policy();
            for event in self.converter.convert(change) {
                let event = self.attachments.complete(event);
                self.publisher.seen(&event, self.engine.snapshot());
                self.engine.fold_from(event, batch.received, SETTLE);
            }
            if let Some(policy) = policy {
                let problems = self.converter.problems_of(&policy.key());
                self.conditions.see(&policy, problems);
            }
        }
        let fresh = self.converter.take_fresh();
        (fresh.iter().filter_map(Told::of_problem)).for_each(|told| self.events.tell(told));
        for kind in batch.in_sync {
            self.engine
                .fold_from(Event::InSync(kind), batch.received, SETTLE);
        }
        // What changes nothing is in force at once.
        self.settle_policies();
    }

    fn settle_policies(&self) {
        if self.settings.policy && self.engine.state().is_policy_in_force() {
            self.policies.settled();
        }
    }

    fn on_net(&mut self, event: NetEvent) {
        let fold = match event {
            NetEvent::Pod(device) => {
                let interface = Interface {
                    ifindex: device.ifindex,
                    addresses: device.addresses.into_iter().collect(),
                    mac: device.mac,
                    host_mac: device.host_mac,
                    redirect_ok: device.redirect_ok,
                    late: device.late,
                    pod: None,
                    closed: self.settings.closes_unknown() && !device.late,
                    is_dns_proxy: false,
                };
                let known = self.engine.snapshot().interfaces.get(&device.ifindex);
                let interface = cni::keep_closed(interface, known);
                let interface = if device.name == dns::DEVICE {
                    DomainNames::device(interface)
                } else {
                    self.attachments.device(interface, self.settings.policy)
                };
                if interface.late
                    && self.settings.cni.is_some()
                    && !self.devices.has(device.ifindex)
                {
                    warn!(device = %device.name, "its pod started without the CNI plugin; it is policed from now on");
                    self.publisher.cni_without();
                    self.without.push(device.ifindex);
                }
                self.devices.pod(&interface, device.name);
                Event::Apply(Object::Interface(interface))
            }
            NetEvent::PodGone { ifindex, name } => {
                self.devices.gone(ifindex, &name);
                let gone = self.attachments.by_device(ifindex);
                let gone: Vec<_> = gone.map(|gone| gone.id.clone()).into_iter().collect();
                self.forget(&gone);
                Event::Delete(dataplane_model::snapshot::Key::Interface(ifindex))
            }
            NetEvent::Uplink {
                ifindex,
                name,
                ethernet,
                mac,
            } => return self.devices.uplink(ifindex, Uplink { name, mac }, ethernet),
            NetEvent::UplinkGone { ifindex, name } => return self.devices.gone(ifindex, &name),
            NetEvent::NodeAddresses(addresses) => self.addresses(addresses),
            NetEvent::InSync => {
                self.forget_former();
                Event::InSync(Kind::Interface)
            }
        };
        self.publisher.seen(&fold, self.engine.snapshot());
        self.engine.fold(fold, SETTLE);
    }

    fn addresses(&self, addresses: BTreeSet<IpAddr>) -> Event {
        Event::Apply(Object::Config(NodeConfig {
            addresses: addresses.into_iter().collect(),
            ..node(&self.settings)
        }))
    }

    fn answer(&mut self, question: Question) {
        if let Request::Cni(ask) = question.request {
            return self.on_cni(ask, question.reply);
        }
        let names = self.naming.now(&self.engine);
        let view = View {
            settings: &self.settings,
            dataplane: &self.dataplane,
            devices: &self.devices,
            engine: &self.engine,
            converter: &self.converter,
            source: &self.source,
            uptime: self.started.elapsed(),
            names,
            tracked: self.census.entries(),
            policies: &self.policies,
            hz: self.hz,
        };
        let reply = question.reply;
        // A client that does not wait for its answer does not need it.
        match answer::answer(&view, &question.request) {
            Answer::Now(response) => {
                let _ = reply.send(response);
            }
            Answer::Later(work) => {
                tokio::task::spawn_blocking(move || reply.send(work()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_rate_is_shared_by_all_cpus() {
        assert_eq!(share(1_000, 1), 1_000);
        assert_eq!(share(1_000, 64), 16);
        assert_eq!((share(1, 64), share(0, 64)), (1, 0));
    }
}
