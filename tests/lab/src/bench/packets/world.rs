//! The maps of a node with two pods, a Service and a policy for each pod, without an agent.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use dataplane_common::abi::{
    Abi, Addr4, BackendVal, Claim, Config, IdentityVal, Port, PortBound, PortSpan, RowKey, RowVal,
    RulesetVal, ServiceKey, ServiceVal, SlotVal, Subject, action, backend_flags, bytes_of,
    capacity, config_flags, identity_flags, name, ruleset_flags, scope, subject_flags,
    subject_state,
};

use super::frame::End;

const TCP: u8 = 6;
/// The maps of one family are named for IPv4 first.
const V4: usize = 0;

/// A pod of the node.
#[derive(Clone, Copy, Debug)]
pub struct PodEnd {
    /// The index of its host-side device.
    pub ifindex: u32,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// Loads `from_pod`, with policy on or off and without limits that a measurement would meet.
///
/// # Errors
/// The object cannot be read, or the kernel refuses it.
pub fn load(object: &Path, policy: bool) -> Result<Ebpf> {
    use config_flags::{CSUM_IPV6, POLICY, REDIRECT, SERVICES};
    let policy = if policy { POLICY } else { 0 };
    let config = Config {
        netns_cookie: 1,
        flags: SERVICES | policy | REDIRECT | CSUM_IPV6,
        hz: 250,
        snat_first: 61_000,
        snat_count: 4_000,
        half_open_per_pod: u32::MAX / 2,
        half_open_total: u32::MAX / 2,
        error_rate: 100,
        event_rate: 1_000,
        reserved: 0,
    };
    let file =
        std::fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let mut ebpf = EbpfLoader::new()
        .override_global("CONFIG", bytes_of(&config), true)
        .load(&file)?;
    from_pod(&mut ebpf)?.load()?;
    Ok(ebpf)
}

/// The program that is timed.
///
/// # Errors
/// The object has none of that name.
pub fn from_pod(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = ebpf
        .program_mut("from_pod")
        .context("the object has no from_pod")?;
    Ok(program.try_into()?)
}

/// Fills the maps: the Service leads to the server, and each pod's ruleset lets exactly the
/// server's port pass between the two.
///
/// # Errors
/// A map is missing or has another layout.
pub fn fill(ebpf: &mut Ebpf, [client, server]: [PodEnd; 2], service: End, port: u16) -> Result<()> {
    for (number, pod) in [(1, client), (2, server)] {
        add_pod(ebpf, pod, number)?;
        add_ruleset(ebpf, number, 3 - number, port)?;
    }
    let key = ServiceKey::<Addr4> {
        addr: service.ip.into(),
        port: Port::new(service.port),
        proto: TCP,
        scope: scope::INTERNAL,
        reserved: 0,
    };
    let value = ServiceVal {
        frontend: 1,
        service_port: 1,
        count: 1,
        ..ServiceVal::default()
    };
    put::<12, 32>(ebpf, name::SERVICES[V4], &key, &value)?;
    let backend = BackendVal::<Addr4> {
        addr: server.ip.into(),
        service_port: 1,
        generation: 1,
        port: Port::new(port),
        flags: backend_flags::LOCAL,
        reserved: 0,
    };
    set::<20>(ebpf, name::BACKENDS[V4], 1, &backend)?;
    set::<4>(ebpf, name::SLOTS, 0, &SlotVal { backend: 1 })?;
    set::<4>(ebpf, name::EPOCH, 0, &2u32)
}

/// A pod whose identity and ruleset, in both directions, have one number.
fn add_pod(ebpf: &mut Ebpf, pod: PodEnd, number: u32) -> Result<()> {
    let subject = Subject {
        addr4: pod.ip.into(),
        ifindex: pod.ifindex,
        state: subject_state::MANAGED,
        flags: subject_flags::REDIRECT,
        identity: number,
        egress: number,
        ingress: number,
        mac: [2, 0, 0, 0, 1, number as u8],
        host_mac: [2, 0, 0, 0, 2, number as u8],
        ..Subject::default()
    };
    set::<64>(
        ebpf,
        name::SUBJECTS,
        pod.ifindex & (capacity::SUBJECTS - 1),
        &subject,
    )?;
    let identity = IdentityVal {
        identity: number,
        ifindex: pod.ifindex,
        flags: identity_flags::POD | identity_flags::NO_CIDR,
    };
    put::<4, 12>(ebpf, name::IDENTITIES[V4], &Addr4::from(pod.ip), &identity)
}

/// A ruleset of three classes of ports; the middle one is the port, open to one peer.
fn add_ruleset(ebpf: &mut Ebpf, number: u32, peer: u32, port: u16) -> Result<()> {
    let base = number * 4;
    let starts = [(0, 0), (port, 1), (port + 1, 0)];
    for (index, (start, class)) in (base..).zip(starts) {
        set::<4>(ebpf, name::PORT_BOUNDS, index, &PortBound { start, class })?;
    }
    let one = PortSpan { base, count: 1 };
    let ruleset = RulesetVal {
        tcp: PortSpan { base, count: 3 },
        udp: one,
        sctp: one,
        other_class: 0,
        flags: ruleset_flags::IDENTITIES | ruleset_flags::ISOLATES,
    };
    set::<28>(ebpf, name::RULESETS, number, &ruleset)?;
    let key = RowKey {
        ruleset: number,
        peer,
        class: 1,
        reserved: 0,
    };
    let value = RowVal {
        below: Claim::new(1, action::ACCEPT, number),
        ..RowVal::EMPTY
    };
    put::<12, 16>(ebpf, name::ROWS, &key, &value)
}

fn put<const K: usize, const V: usize>(
    ebpf: &mut Ebpf,
    name: &str,
    key: &impl Abi,
    value: &impl Abi,
) -> Result<()> {
    let map = ebpf
        .map_mut(name)
        .with_context(|| format!("no map {name}"))?;
    let mut map: HashMap<_, [u8; K], [u8; V]> = HashMap::try_from(map)?;
    let (key, value): ([u8; K], [u8; V]) = (bytes_of(key).try_into()?, bytes_of(value).try_into()?);
    map.insert(key, value, 0)
        .with_context(|| format!("map {name}"))
}

fn set<const V: usize>(ebpf: &mut Ebpf, name: &str, index: u32, value: &impl Abi) -> Result<()> {
    let map = ebpf
        .map_mut(name)
        .with_context(|| format!("no map {name}"))?;
    let mut map: Array<_, [u8; V]> = Array::try_from(map)?;
    let value: [u8; V] = bytes_of(value).try_into()?;
    map.set(index, value, 0)
        .with_context(|| format!("map {name}"))
}
