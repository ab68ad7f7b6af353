//! What the kernel makes of the tables: the same look-ups and decisions, for one packet.
//!
//! Serves explanations to people, and the tests that compare the compiled tables with the
//! [`oracle`](crate::oracle).

use std::net::IpAddr;

use dataplane_common::abi::{
    Addr4, Addr6, BackendVal, CidrKey, CidrVal, ClassVal, IdentityVal, Port, PortSpan, RowKey,
    RowVal, RulesetVal, ServiceKey, ServiceVal, SlotVal, Subject, cidr_flags, identity_flags, peer,
    ruleset_flags, service_flags, subject_state,
};
use dataplane_common::decide::policy::{Decision, Terms};
use dataplane_common::net::proto;

use crate::snapshot::{Direction, NodeConfig, PolicyMode};
use crate::tables::{Family, Tables};

/// A first packet, as it is after translation of its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source.
    pub src: IpAddr,
    /// Destination: for a flow through a frontend, the backend.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port; ignored for protocols without ports.
    pub port: u16,
}

/// Judgement of a packet at both of its ends. `None`: no policy concerns a pod of this node there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// By what the sender may send.
    pub egress: Option<Decision>,
    /// By what the receiver may receive.
    pub ingress: Option<Decision>,
}

impl Judgement {
    /// True if neither end forbids the packet.
    pub fn is_allowed(&self) -> bool {
        let allows =
            |decision: Option<Decision>| decision.is_none_or(|decision| decision.allowed != 0);
        allows(self.egress) && allows(self.ingress)
    }
}

/// What NetworkPolicies do not police, as the programs' configuration has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exempt {
    /// What a pod sends to its own node.
    pub to_node: bool,
    /// What a pod sends to itself.
    pub to_itself: bool,
}

impl Default for Exempt {
    fn default() -> Self {
        Self {
            to_node: true,
            to_itself: true,
        }
    }
}

impl From<&NodeConfig> for Exempt {
    fn from(node: &NodeConfig) -> Self {
        Self {
            to_node: !node.police_node_egress,
            to_itself: !node.police_hairpin,
        }
    }
}

/// Judges a packet by the tables, with the exemptions that are usual. One whose ends are of different
/// families is no packet at all: `None`.
pub fn judge(tables: &Tables, packet: &Packet) -> Option<Judgement> {
    judge_with(tables, packet, Exempt::default(), PolicyMode::Enforce)
}

/// Judges a packet by the tables, as [`judge`]; in audit, as if all policies were in force.
pub fn judge_with(
    tables: &Tables,
    packet: &Packet,
    exempt: Exempt,
    mode: PolicyMode,
) -> Option<Judgement> {
    match (packet.src, packet.dst) {
        (IpAddr::V4(_), IpAddr::V4(_)) => judge_family::<Addr4>(tables, packet, exempt, mode),
        (IpAddr::V6(_), IpAddr::V6(_)) => judge_family::<Addr6>(tables, packet, exempt, mode),
        _ => None,
    }
}

fn judge_family<A: Family>(
    tables: &Tables,
    packet: &Packet,
    exempt: Exempt,
    mode: PolicyMode,
) -> Option<Judgement> {
    let (src, dst) = (A::from_ip(packet.src)?, A::from_ip(packet.dst)?);
    let (source, target) = (identity(tables, &src), identity(tables, &dst));
    let is_own_node = |end: &IdentityVal| end.flags & identity_flags::NODE != 0;
    // What comes from a pod's own node is never policed.
    let egress = ruleset_of(tables, &source, Direction::Egress, mode);
    let ingress = ruleset_of(tables, &target, Direction::Ingress, mode);
    let ingress = ingress.filter(|_| !is_own_node(&source));
    let hairpin = src == dst && exempt.to_itself;
    let to_node = is_own_node(&target) && exempt.to_node;
    let of = |ruleset, peer: &IdentityVal, addr: &A, exempt| {
        evaluate(tables, ruleset, peer, addr, packet, exempt)
    };
    Some(Judgement {
        egress: egress.map(|ruleset| of(ruleset, &target, &dst, hairpin || to_node)),
        ingress: ingress.map(|ruleset| of(ruleset, &source, &src, hairpin)),
    })
}

/// The subject behind a device.
pub fn subject(tables: &Tables, ifindex: u32) -> Option<&Subject> {
    let at_place = tables
        .subjects
        .values()
        .find(|subject| subject.ifindex == ifindex);
    at_place.or_else(|| tables.subjects_overflow.get(&ifindex))
}

fn identity<A: Family>(tables: &Tables, addr: &A) -> IdentityVal {
    A::tables(tables)
        .identities
        .get(addr)
        .copied()
        .unwrap_or_default()
}

/// The ruleset of a pod of this node in a direction; `None` if no policy concerns it.
fn ruleset_of(
    tables: &Tables,
    pod: &IdentityVal,
    direction: Direction,
    mode: PolicyMode,
) -> Option<u32> {
    let subject = subject(tables, pod.ifindex).filter(|_| pod.ifindex != 0)?;
    let (enforced, audited) = rulesets(subject, direction);
    let ruleset = match mode {
        PolicyMode::Audit if audited != 0 => audited,
        _ => enforced,
    };
    (subject.state == subject_state::MANAGED && ruleset != 0).then_some(ruleset)
}

/// The numbers of a subject's rulesets in a direction: that in force, and that which were without audit.
pub fn rulesets(subject: &Subject, direction: Direction) -> (u32, u32) {
    match direction {
        Direction::Ingress => (subject.ingress, subject.audited_ingress),
        Direction::Egress => (subject.egress, subject.audited_egress),
    }
}

fn evaluate<A: Family>(
    tables: &Tables,
    number: u32,
    peer: &IdentityVal,
    addr: &A,
    packet: &Packet,
    exempt: bool,
) -> Decision {
    let ruleset = tables.rulesets.get(&number);
    let Some((ruleset, class)) = ruleset.and_then(|r| Some((r, class_of(tables, r, packet)?)))
    else {
        return Decision::DEFAULT_DENY;
    };
    let mut found = RowVal::EMPTY;
    let mut add = |peer: u32| {
        let key = RowKey {
            ruleset: number,
            peer,
            class,
            reserved: 0,
        };
        if let Some(row) = tables.rows.get(&key) {
            found.join(row);
        }
    };
    if ruleset.flags & ruleset_flags::ANY != 0 {
        add(peer::ANY);
    }
    let cidr = if peer.flags & identity_flags::NO_CIDR != 0 {
        CidrVal::default()
    } else {
        longest_prefix(tables, addr).unwrap_or_default()
    };
    if ruleset.flags & ruleset_flags::CIDRS != 0 && cidr.set != 0 {
        add(peer::CIDR | cidr.set);
    }
    let unknown_pod = peer.flags == 0
        && ruleset.flags & ruleset_flags::UNKNOWN_PODS != 0
        && cidr.flags & cidr_flags::PODS != 0;
    if unknown_pod {
        add(peer::UNKNOWN_POD);
    } else if ruleset.flags & ruleset_flags::IDENTITIES != 0 && peer.identity != 0 {
        add(peer.identity);
    }
    found.decide(Terms {
        isolates: ruleset.flags & ruleset_flags::ISOLATES != 0,
        exempt,
    })
}

fn class_of(tables: &Tables, ruleset: &RulesetVal, packet: &Packet) -> Option<u16> {
    let span = match packet.proto {
        proto::TCP => ruleset.tcp,
        proto::UDP => ruleset.udp,
        proto::SCTP => ruleset.sctp,
        _ => return Some(ruleset.other_class),
    };
    let PortSpan { base, count } = span;
    let bounds = (base..base + count)
        .map(|place| tables.port_bounds.get(&place).copied().unwrap_or_default());
    bounds
        .take_while(|bound| bound.start <= packet.port)
        .last()
        .map(|bound| bound.class)
}

fn longest_prefix<A: Family>(tables: &Tables, addr: &A) -> Option<CidrVal> {
    let cidrs = &A::tables(tables).cidrs;
    let key = |length| CidrKey {
        prefix: CidrKey::<A>::LEAD_BITS + length,
        lead: 0,
        addr: addr.masked(length),
    };
    (0..=A::BITS)
        .rev()
        .find_map(|length| cidrs.get(&key(length)))
        .copied()
}

/// What becomes of new connections to a frontend.
#[derive(Clone, PartialEq, Debug)]
pub struct Serving {
    /// The frontend's value.
    pub service: ServiceVal,
    /// Backends, with the share of connections each gets; a backend of several classes has several.
    pub backends: Vec<Share>,
    /// The share that is refused.
    pub refused: f64,
    /// The share that is dropped without an answer.
    pub dropped: f64,
}

/// A backend's share of the connections.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Share {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// From 0 to 1.
    pub share: f64,
}

/// The Service maps, wherever they are.
pub trait ServiceMaps {
    /// A frontend's value.
    fn service<A: Family>(&self, key: &ServiceKey<A>) -> Option<ServiceVal>;
    /// A class.
    fn class(&self, place: u32) -> ClassVal;
    /// A place in a block.
    fn slot(&self, place: u32) -> SlotVal;
    /// A backend; `None` if its place is empty.
    fn backend<A: Family>(&self, index: u32) -> Option<BackendVal<A>>;
}

impl ServiceMaps for Tables {
    fn service<A: Family>(&self, key: &ServiceKey<A>) -> Option<ServiceVal> {
        A::tables(self).services.get(key).copied()
    }

    fn class(&self, place: u32) -> ClassVal {
        self.classes.get(&place).copied().unwrap_or_default()
    }

    fn slot(&self, place: u32) -> SlotVal {
        self.slots.get(&place).copied().unwrap_or_default()
    }

    fn backend<A: Family>(&self, index: u32) -> Option<BackendVal<A>> {
        A::tables(self).backends.get(&index).copied()
    }
}

/// Who serves an address and port for clients in a [`scope`](dataplane_common::abi::scope); `None` if it
/// is no frontend.
pub fn serving<M: ServiceMaps>(
    maps: &M,
    addr: IpAddr,
    port: u16,
    proto: u8,
    scope: u8,
) -> Option<Serving> {
    match addr {
        IpAddr::V4(_) => serving_family::<Addr4, M>(maps, addr, port, proto, scope),
        IpAddr::V6(_) => serving_family::<Addr6, M>(maps, addr, port, proto, scope),
    }
}

fn serving_family<A: Family, M: ServiceMaps>(
    maps: &M,
    addr: IpAddr,
    port: u16,
    proto: u8,
    scope: u8,
) -> Option<Serving> {
    let key = ServiceKey {
        addr: A::from_ip(addr)?,
        port: Port::new(port),
        proto,
        scope,
        reserved: 0,
    };
    let service = maps.service(&key)?;
    let mut serving = Serving {
        service,
        backends: Vec::new(),
        refused: 0.0,
        dropped: 0.0,
    };
    if service.classes == 0 {
        serving.add_block::<A, M>(maps, service.base, service.count, 1.0);
    }
    let mut taken = 0.0;
    for place in service.class_base..service.class_base + u32::from(service.classes) {
        let class = maps.class(place);
        let top = if class.threshold == u32::MAX {
            1.0
        } else {
            f64::from(class.threshold) / 2f64.powi(32)
        };
        serving.add_block::<A, M>(maps, class.base, class.count, top - taken);
        taken = top;
    }
    Some(serving)
}

impl Serving {
    fn add_block<A: Family, M: ServiceMaps>(
        &mut self,
        maps: &M,
        base: u32,
        count: u16,
        share: f64,
    ) {
        for place in base..base + u32::from(count) {
            let share = share / f64::from(count);
            match maps.backend::<A>(maps.slot(place).backend) {
                Some(backend) => {
                    self.backends.push(Share {
                        addr: backend.addr.to_ip(),
                        port: backend.port.number(),
                        share,
                    });
                }
                None => self.refused += share,
            }
        }
        if count == 0 && self.service.flags & service_flags::DROP_IF_EMPTY != 0 {
            self.dropped += share;
        } else if count == 0 {
            self.refused += share;
        }
    }
}
