//! The flows as a person reads them.

use std::net::{IpAddr, SocketAddr};

use dataplane_common::{
    abi::{Addr4, Addr6, Address, CtKey, CtVal, Port, ct_flags},
    decide::conntrack::State,
    net::proto,
    verdict::DropReason,
};
use serde::Serialize;

use super::{Family, initiator_tuple, is_front, is_over, lifetime, other_tuple};
use crate::bpf::{Error, Maps};

/// A flow, from its main entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Flow {
    /// Protocol by name, or its number.
    pub protocol: String,
    /// Who began it, as it sends. The port of ICMP is the echo's identifier.
    pub client: SocketAddr,
    /// Whom it dialled: a frontend, or the responder itself.
    pub destination: SocketAddr,
    /// Who answers.
    pub responder: SocketAddr,
    /// The translated source, if it is.
    pub source: Option<SocketAddr>,
    /// Where the flow is in its life.
    pub state: FlowState,
    /// Why policy forbids it, if it does.
    pub denied: Option<&'static str>,
    /// The responder has answered.
    pub replied: bool,
    /// It goes from device to device, past the host's stack.
    pub redirected: bool,
    /// The frontend's number, 0 for a direct flow.
    pub frontend: u32,
    /// The rule that decided the initiator's egress, 0 for none.
    pub egress_rule: u32,
    /// The rule that decided the responder's ingress, 0 for none.
    pub ingress_rule: u32,
    /// Seconds since its last packet.
    pub idle_secs: u32,
    /// Seconds after which it is over, if no packet comes.
    pub expires_secs: u32,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowState {
    /// No answer yet.
    New,
    /// Both ends have sent.
    Established,
    /// One end has closed.
    Closing,
    /// Both ends have closed.
    TimeWait,
    /// Reset.
    Reset,
}

impl FlowState {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            FlowState::New => "new",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::TimeWait => "time-wait",
            FlowState::Reset => "reset",
        }
    }
}

impl From<State> for FlowState {
    fn from(state: State) -> Self {
        match state {
            State::New => FlowState::New,
            State::Established => FlowState::Established,
            State::Closing => FlowState::Closing,
            State::TimeWait => FlowState::TimeWait,
            State::Reset => FlowState::Reset,
        }
    }
}

/// All flows that live at `now` (low 32 bits of jiffies), sorted by client and destination.
///
/// # Errors
///
/// The tables cannot be read.
pub fn list(maps: &Maps, now: u32, hz: u32) -> Result<Vec<Flow>, Error> {
    let mut flows = Vec::new();
    for (key, value) in Addr4::table(maps)?.entries()? {
        flows.extend(decode(&key, &value, now, hz));
    }
    for (key, value) in Addr6::table(maps)?.entries()? {
        flows.extend(decode(&key, &value, now, hz));
    }
    flows.sort_by_cached_key(|flow| {
        (
            flow.protocol.clone(),
            flow.client,
            flow.destination,
            flow.responder,
        )
    });
    Ok(flows)
}

/// A main entry as a flow; `None` for fronts and what is over.
pub(super) fn decode<A: Address>(
    key: &CtKey<A>,
    value: &CtVal<A>,
    now: u32,
    hz: u32,
) -> Option<Flow> {
    if is_front(value) || is_over(key.proto, value, now, hz) {
        return None;
    }
    let inner = initiator_tuple(key, value);
    let outer = other_tuple(value);
    let source = socket(inner.src, inner.src_port);
    // Another CPU's clock may be ahead of ours.
    let age = (now.wrapping_sub(value.last_seen) as i32).max(0) as u32;
    let idle_secs = age / hz.max(1);
    Some(Flow {
        protocol: protocol(key.proto),
        client: socket(outer.src, outer.src_port),
        destination: socket(outer.dst, outer.dst_port),
        responder: socket(inner.dst, inner.dst_port),
        source: (value.flags & ct_flags::SNAT != 0).then_some(source),
        state: State::from_number(value.state).into(),
        denied: DropReason::from_code(value.denied.into()).map(DropReason::name),
        replied: value.flags & ct_flags::REPLIED != 0,
        redirected: value.flags & ct_flags::REDIRECT != 0,
        frontend: value.frontend,
        egress_rule: value.egress_rule,
        ingress_rule: value.ingress_rule,
        idle_secs,
        expires_secs: lifetime(key.proto, value).saturating_sub(idle_secs),
    })
}

fn socket<A: Address>(address: A, port: Port) -> SocketAddr {
    SocketAddr::new(ip(address), port.number())
}

/// An address of either family.
pub(super) fn ip<A: Address>(address: A) -> IpAddr {
    let mapped: Addr6 = address.to_mapped();
    match (A::BITS, mapped.mapped4()) {
        (32, Some(v4)) => IpAddr::V4(v4.into()),
        _ => IpAddr::V6(mapped.into()),
    }
}

fn protocol(number: u8) -> String {
    match number {
        proto::TCP => "TCP".to_owned(),
        proto::UDP => "UDP".to_owned(),
        proto::SCTP => "SCTP".to_owned(),
        proto::ICMP => "ICMP".to_owned(),
        proto::ICMPV6 => "ICMPv6".to_owned(),
        other => other.to_string(),
    }
}
