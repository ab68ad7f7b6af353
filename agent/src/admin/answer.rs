//! Answers to requests, from the agent's state and the maps.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane_common::abi::{name, scope};
use dataplane_model::eval;
use dataplane_model::snapshot::{ObjectKey, Protocol};
use dataplane_model::store::read_services;
use dataplane_model::tables::MapId;
use serde::Serialize;
use serde_json::Value;

use super::explain::{self, ServiceDetail};
use super::frontends;
use super::names::Names;
use super::policies::policies;
use super::protocol::{
    Attachments, Conntrack, MapUse, Plans, PodDevice, Request, Response, Status, Tracked,
};
use super::verify::Verification;
use super::wait::{self, PolicyOnNode, PolicyState};
use super::why::{self, Explain, Known, Who};
use crate::bpf::{Dataplane, Jiffies, Maps};
use crate::config::Settings;
use crate::convert::Converter;
use crate::observe::policies::InForce;
use crate::observe::{conntrack, drops};
use crate::run::{Devices, Engine};
use crate::source::{ObjectKey as SourceKey, Source};

/// The agent's state.
pub struct View<'a> {
    /// Settings.
    pub settings: &'a Settings,
    /// Programs and maps.
    pub dataplane: &'a Dataplane,
    /// Devices.
    pub devices: &'a Devices,
    /// Snapshot, desired and written maps.
    pub engine: &'a Engine,
    /// What is wrong with objects.
    pub converter: &'a Converter,
    /// What is wrong with what was read.
    pub source: &'a Source,
    /// Time since the agent's start.
    pub uptime: Duration,
    /// Names of what it knows.
    pub names: Arc<Names>,
    /// Entries of the tables of flows: IPv4, IPv6, as last counted.
    pub tracked: [u64; 2],
    /// Policies in force.
    pub policies: &'a InForce,
    /// Jiffies per second.
    pub hz: u32,
}

/// What comes of a request.
pub enum Answer {
    /// The answer.
    Now(Response<Value>),
    /// What takes long, and has all it needs to be done away from the event loop.
    Later(Box<dyn FnOnce() -> Response<Value> + Send>),
}

/// Answers a request.
pub fn answer(view: &View<'_>, request: &Request) -> Answer {
    match request {
        Request::Status => {
            let status = view.status();
            later(|| status)
        }
        Request::Services => {
            let (store, names) = (view.engine.store().clone(), Arc::clone(&view.names));
            later(move || {
                let tables = read_services(&store).map_err(|error| error.to_string())?;
                Ok(frontends::of_tables(&tables, &names))
            })
        }
        Request::Service { namespace, name } => Answer::Now(pack(view.service(namespace, name))),
        Request::Policies => {
            let policies = policies(view.engine.snapshot());
            later(|| Ok(policies))
        }
        Request::Explain(asked) => {
            let (known, asked) = (view.known(asked), asked.clone());
            later(move || why::explain(known?, &asked))
        }
        Request::Policy { policy } => {
            let (state, policy) = (view.policy(policy), policy.clone());
            let asked = view.source.versions();
            later(move || {
                let generation = asked.of(&policy).map_err(|failure| failure.to_string())?;
                Ok(PolicyState {
                    generation,
                    ..state
                })
            })
        }
        Request::Verify => {
            let verification = view.verification();
            later(move || verification?.run())
        }
        Request::Conntrack { limit } => {
            let (maps, names) = (view.dataplane.maps().clone(), Arc::clone(&view.names));
            let (limit, hz) = (*limit, view.hz);
            later(move || flows(&maps, &names, limit, hz))
        }
        Request::Flows => Answer::Now(Response::Error("flows are streamed, not answered".into())),
        Request::Cni(_) => Answer::Now(Response::Error(
            "the agent's own task answers plugins".into(),
        )),
    }
}

fn later<T: Serialize>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Answer {
    Answer::Later(Box::new(|| pack(work())))
}

fn pack<T: Serialize>(answer: Result<T, String>) -> Response<Value> {
    let value = answer.and_then(|answer| serde_json::to_value(answer).map_err(|e| e.to_string()));
    match value {
        Ok(value) => Response::Ok(value),
        Err(text) => Response::Error(text),
    }
}

impl View<'_> {
    fn status(&self) -> Result<Status, String> {
        let drops = drops::read(self.dataplane.maps()).map_err(|error| error.to_string())?;
        let snapshot = self.engine.snapshot();
        let mut problems = self.source.problems();
        problems.extend(self.converter.problems().cloned());
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.settings.node_name.clone(),
            uptime_secs: self.uptime.as_secs(),
            in_sync: self.engine.history().in_sync,
            awaited: snapshot
                .awaited
                .iter()
                .map(|kind| format!("{kind:?}"))
                .collect(),
            source: self.source.status(),
            modes: self.modes(),
            attachments: self.attachments()?,
            objects: self.objects(),
            maps: self.maps()?,
            drops: drops
                .into_iter()
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect(),
            plans: self.plans(),
            problems,
            notices: self
                .engine
                .notices()
                .iter()
                .map(ToString::to_string)
                .collect(),
            skipped: self.source.skipped(),
        })
    }

    /// A policy as it is in force here.
    fn policy(&self, policy: &SourceKey) -> PolicyState {
        let (others, alone) = match wait::others(self.engine.snapshot(), self.settings) {
            Ok(others) => (others, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let problems = self.converter.problems_of(policy);
        PolicyState {
            here: PolicyOnNode {
                node: self.settings.node_name.clone(),
                generation: self.policies.generation(policy),
            },
            generation: None,
            others,
            alone,
            problems: problems.iter().map(ToString::to_string).collect(),
        }
    }

    /// What is needed to compare the maps with the policies.
    fn verification(&self) -> Result<Verification, String> {
        if !self.settings.policy {
            return Err("the setting policy is off: nothing is enforced".to_owned());
        }
        let state = self.engine.state();
        if !state.is_policy_in_force() {
            let pending = self.engine.history().pending.as_deref();
            let why = pending.unwrap_or("ask again");
            return Err(format!("not all that is known is in force yet: {why}"));
        }
        Ok(Verification {
            snapshot: self.engine.snapshot().of_policy(),
            store: self.engine.store().clone(),
            epoch: state.epoch(),
            names: Arc::clone(&self.names),
        })
    }

    /// What an explanation needs.
    fn known(&self, asked: &Explain) -> Result<Known, String> {
        let protocol = Protocol::ALL
            .into_iter()
            .find(|one| one.name() == asked.protocol);
        let port = asked.port.as_ref().and_then(|port| port.parse().ok());
        if let (Who::Address(ip), Some(port), Some(protocol)) = (&asked.to, port, protocol) {
            let services = self.engine.state().services();
            let serving = eval::serving(services, *ip, port, protocol.number(), scope::INTERNAL);
            if let Some(serving) = serving {
                let name = self.names.frontend(serving.service.frontend);
                let backends = serving.backends.iter();
                let backends = backends.map(|one| SocketAddr::new(one.addr, one.port));
                let target = SocketAddr::new(*ip, port);
                let backends: Vec<_> = backends.collect();
                return Err(why::of_frontend(
                    target,
                    &name.unwrap_or_default(),
                    &backends,
                ));
            }
        }
        let mut notes = Vec::new();
        if !self.settings.policy {
            notes.push("the setting policy is off: nothing is enforced".to_owned());
        }
        if let Some(pending) = &self.engine.history().pending {
            notes.push(format!("changes are not in force yet: {pending}"));
        }
        Ok(Known {
            snapshot: self.engine.snapshot().of_policy(),
            notes,
        })
    }

    fn modes(&self) -> BTreeMap<String, String> {
        let choose = |on: bool, [yes, no]: [&str; 2]| if on { yes } else { no }.to_owned();
        let settings = self.settings;
        [
            ("cni", choose(settings.cni.is_some(), ["install", "off"])),
            ("services", choose(settings.services, ["on", "off"])),
            ("policy", choose(settings.policy, ["enforce", "off"])),
            (
                "forwarding",
                choose(settings.redirect, ["redirect", "stack"]),
            ),
            (
                "socketLB",
                choose(settings.socket_lb && settings.services, ["host", "off"]),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn attachments(&self) -> Result<Attachments, String> {
        let pods = self
            .devices
            .pods()
            .iter()
            .map(|(&ifindex, device)| PodDevice {
                name: device.name.clone(),
                ifindex,
                addresses: device.addresses.clone(),
                pod: self.names.device(ifindex),
            });
        let frames = self.dataplane.maps().counters(name::XDP_FRAMES);
        let frames = frames.and_then(|frames| frames.sums());
        Ok(Attachments {
            mode: format!("{:?}", self.dataplane.attach_mode()).to_lowercase(),
            pods: pods.collect(),
            uplinks: self.devices.uplinks().cloned().collect(),
            xdp: self.devices.early(),
            xdp_frames: frames.map_err(|error| error.to_string())?.iter().sum(),
            failures: self.devices.failures(),
            adopted: self.devices.adopted(),
        })
    }

    fn objects(&self) -> BTreeMap<String, usize> {
        let snapshot = self.engine.snapshot();
        [
            ("namespaces", snapshot.namespaces.len()),
            ("nodes", snapshot.nodes.len()),
            ("pods", snapshot.pods.len()),
            ("services", snapshot.services.len()),
            ("endpointSlices", snapshot.slices.len()),
            ("networkPolicies", snapshot.policies.len()),
            ("clusterPolicies", snapshot.cluster_policies.len()),
            ("routes", snapshot.routes.len()),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into()
    }

    fn maps(&self) -> Result<Vec<MapUse>, String> {
        let state = self.engine.state();
        let mut maps: Vec<MapUse> = MapId::ALL
            .into_iter()
            .filter(|&id| id != MapId::Epoch)
            .map(|id| MapUse {
                name: id.name().to_owned(),
                entries: state.used(id) as u64,
                capacity: self.engine.store().capacity(id).into(),
            })
            .collect();
        for (map, entries) in name::CONNTRACK.into_iter().zip(self.tracked) {
            let raw = self.dataplane.maps().raw(map);
            maps.push(MapUse {
                name: map.to_owned(),
                entries,
                capacity: raw
                    .map_err(|error| error.to_string())?
                    .info()
                    .max_entries
                    .into(),
            });
        }
        Ok(maps)
    }

    fn plans(&self) -> Plans {
        let history = self.engine.history();
        Plans {
            done: history.done,
            failed: history.failed,
            last_secs_ago: history.last.map(|at| at.elapsed().as_secs()),
            last_micros: history.last_took.as_micros() as u64,
            last_operations: history.last_operations,
            pending: history.pending.clone(),
            epoch: self.engine.state().epoch(),
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Result<ServiceDetail, String> {
        let key = ObjectKey::new(namespace, name);
        let (snapshot, services) = (self.engine.snapshot(), self.engine.state().services());
        let frontends = frontends::of_service(services, &self.names, &key);
        let detail = explain::explain(snapshot, services, &self.names, &key, frontends);
        let mut detail = detail.ok_or_else(|| {
            format!("there is no Service {key}: name its namespace with -n, and see `sluice service list`")
        })?;
        let object = format!("Service {key}");
        let notices = self.engine.notices().iter();
        let of_object = notices.filter(|notice| notice.object == object);
        detail.notices = of_object.map(|notice| notice.text.clone()).collect();
        let problems = self.converter.problems();
        let of_object = problems.filter(|problem| {
            let named = problem.object.as_ref();
            named.is_some_and(|named| named.to_string() == object)
        });
        detail.notices.extend(of_object.map(ToString::to_string));
        let history = self.engine.history();
        detail.pending = history.pending.clone();
        detail.written_secs_ago = history.last.map(|at| at.elapsed().as_secs());
        Ok(detail)
    }
}

/// The flows that live, at most `limit` if it is not 0.
fn flows(maps: &Maps, names: &Names, limit: usize, hz: u32) -> Result<Conntrack, String> {
    let clock = Jiffies::new().and_then(|jiffies| jiffies.now_low());
    let now = clock.map_err(|error| error.to_string())?;
    let flows = conntrack::list(maps, now, hz).map_err(|error| error.to_string())?;
    let truncated = limit != 0 && flows.len() > limit;
    let limit = if limit == 0 { flows.len() } else { limit };
    let flows = flows.into_iter().take(limit);
    Ok(Conntrack {
        flows: flows.map(|flow| tracked(flow, names)).collect(),
        truncated,
    })
}

fn tracked(flow: conntrack::Flow, names: &Names) -> Tracked {
    let shown = |address: SocketAddr| {
        if address.port() == 0 {
            address.ip().to_string()
        } else {
            address.to_string()
        }
    };
    let translated = flow.responder != flow.destination;
    let mut flags = Vec::new();
    for (set, name) in [(flow.replied, "replied"), (flow.redirected, "redirect")] {
        if set {
            flags.push(name.to_owned());
        }
    }
    let responder: IpAddr = flow.responder.ip();
    Tracked {
        protocol: flow.protocol,
        source: shown(flow.client),
        destination: shown(flow.destination),
        backend: translated.then(|| shown(flow.responder)),
        translated_source: flow.source.map(shown),
        source_pod: names.owner(flow.client.ip()),
        destination_pod: names.owner(responder),
        service: names.frontend(flow.frontend),
        state: flow.denied.map_or_else(
            || flow.state.name().to_owned(),
            |reason| format!("denied ({reason})"),
        ),
        flags,
        idle_secs: flow.idle_secs.into(),
        egress_rule: names.rule(flow.egress_rule),
        ingress_rule: names.rule(flow.ingress_rule),
    }
}
