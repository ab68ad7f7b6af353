//! Judges a flow: the initiator's egress and the responder's ingress, at whichever ends are pods of
//! this node.

use core::mem::swap;

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    macros::btf_map,
};
use dataplane_common::{
    abi::{
        Address, CidrKey, CidrVal, CtVal, DNS_PROXY, IdentityVal, PORT_SEARCH_STEPS, Port,
        PortBound, PortSpan, RowKey, RowVal, RulesetVal, Subject, capacity, cidr_flags,
        config_flags, ct_flags, identity_flags, peer, ruleset_flags, subject_state,
    },
    decide::policy::{Decision, Terms},
    net::proto,
    verdict::DropReason,
};

use crate::{
    family::{Family, V4, V6},
    maps::{self, Table, element, longest_prefix},
    stage::{
        audit,
        conntrack::{Lookup, Question, Scratch, Tuple},
        parse::Packet,
        subject,
    },
};

#[btf_map(name = "rulesets")]
static RULESETS: Array<RulesetVal, { capacity::RULESETS as usize }> = Array::new();

#[btf_map(name = "port_bounds")]
static PORT_BOUNDS: Array<PortBound, { capacity::PORT_BOUNDS as usize }> = Array::new();

#[btf_map(name = "rows")]
static ROWS: HashMap<RowKey, RowVal, { capacity::ROWS as usize }> = HashMap::new();

#[btf_map(name = "epoch")]
static EPOCH: Array<u32, 1> = Array::new();

/// The policy epoch: read before judging, so that a change meanwhile is seen as one.
#[inline(always)]
pub fn epoch() -> u32 {
    match element(&EPOCH, 0) {
        Some(epoch) => *epoch,
        None => 0,
    }
}

/// Judges the flow in the scratch room's question: sets the entry's rules and denial, and returns the
/// denial: 0 or a `DropReason` as a number. Who asks has read the [`epoch`] before.
#[inline(always)]
pub fn judge<F: Family>() -> u32 {
    if F::IS_V4 { judge4() } else { judge6() }
}

/// [`judge`] for IPv4. A global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge4() -> u32 {
    judge_question::<V4>()
}

/// [`judge`] for IPv6. A global function: the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn judge6() -> u32 {
    judge_question::<V6>()
}

#[inline(always)]
fn judge_question<F: Family>() -> u32 {
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    scratch.val.egress_rule = 0;
    scratch.val.ingress_rule = 0;
    scratch.val.denied = 0;
    scratch.val.flags &= !(ct_flags::UNPOLICED | ct_flags::AUDIT);
    scratch.val.audit_rule = 0;
    scratch.question.audited = 0;
    if !maps::enabled(config_flags::POLICY) {
        return 0;
    }
    if scratch.question.unresolved == 0 {
        let denied = judge_end::<F, EGRESS>(scratch);
        if denied != 0 {
            return denied;
        }
    }
    judge_end::<F, INGRESS>(scratch)
}

/// The directions, as a parameter: what a pod sends.
pub const EGRESS: bool = true;
/// What a pod receives.
pub const INGRESS: bool = false;

/// Judges one end: the initiator's egress, or the responder's ingress.
#[inline(always)]
fn judge_end<F: Family, const DIRECTION: bool>(scratch: &mut Scratch<F::Addr>) -> u32 {
    let Scratch {
        question,
        lookup,
        val,
        ..
    } = scratch;
    let Rulesets { enforced, audited } = rulesets_at::<F::Addr, DIRECTION>(question);
    question.audited |= audited;
    if enforced == 0 {
        return 0;
    }
    if enforced == UNPOLICED {
        val.flags |= ct_flags::UNPOLICED;
        return 0;
    }
    if enforced == CLOSED {
        val.denied = DropReason::PodClosed as u8;
        return DropReason::PodClosed as u32;
    }
    let decision = ask::<F, DIRECTION>(enforced, question, lookup);
    let reason = if DIRECTION == EGRESS {
        val.egress_rule = decision.rule;
        DropReason::PolicyEgress
    } else {
        val.ingress_rule = decision.rule;
        DropReason::PolicyIngress
    };
    if decision.allowed != 0 {
        return 0;
    }
    val.denied = reason as u8;
    reason as u32
}

/// What a ruleset of an end says of the flow.
#[inline(always)]
pub fn ask<F: Family, const DIRECTION: bool>(
    ruleset: u32,
    question: &mut Question<F::Addr>,
    lookup: &mut Lookup<F::Addr>,
) -> Decision {
    let hairpin =
        question.initiator == question.responder && !maps::enabled(config_flags::POLICE_HAIRPIN);
    let (proto, port) = (question.proto, question.port);
    let (peer, is) = if DIRECTION == EGRESS {
        (&question.responder, &mut question.responder_is)
    } else {
        (&question.initiator, &mut question.initiator_is)
    };
    let is = subject::asked::<F>(is, peer);
    let exempt = hairpin || (DIRECTION == EGRESS && is_own_node(is));
    evaluate::<F>(ruleset, is, exempt, peer, (proto, port), lookup)
}

/// As [`judge`], for a flow whose beginning was not seen: either way round will do.
#[inline(always)]
pub fn judge_either_way<F: Family>() -> u32 {
    if judge::<F>() == 0 {
        return 0;
    }
    let Some(scratch) = F::scratch() else {
        return DropReason::Internal as u32;
    };
    let question = &mut scratch.question;
    swap(&mut question.initiator, &mut question.responder);
    swap(
        &mut question.initiator_ifindex,
        &mut question.responder_ifindex,
    );
    swap(&mut question.initiator_is, &mut question.responder_is);
    judge::<F>()
}

/// Judges a live flow in the present epoch, in its own orientation, for the pods that are at its
/// ends now. By a setting, one that was allowed between the same pods stays so.
///
/// Returns 1 if policies in audit would deny it now, and would not before.
#[inline(always)]
pub fn judge_again<F: Family>(packet: &Packet<F::Addr>, entry: &mut CtVal<F::Addr>) -> u32 {
    let ends = (entry.initiator_ifindex, entry.responder_ifindex);
    if ask_again::<F>(packet, entry) == 0 {
        return 0;
    }
    let keeps = maps::enabled(config_flags::KEEP_FLOWS)
        && entry.denied == 0
        && entry.flags & ct_flags::UNPOLICED == 0
        && ends == (entry.initiator_ifindex, entry.responder_ifindex);
    if keeps {
        if let Some(scratch) = F::scratch() {
            entry.epoch = scratch.val.epoch;
        }
        return 0;
    }
    if entry.flags & ct_flags::MIDSTREAM != 0 {
        let _ = judge_either_way::<F>();
    } else {
        let _ = judge::<F>();
    }
    let audited = entry.flags & ct_flags::AUDIT != 0;
    audit::judge::<F>(if audited { audit::KNOWN } else { audit::LIVE });
    let Some(scratch) = F::scratch() else {
        return 0;
    };
    entry.epoch = scratch.val.epoch;
    entry.egress_rule = scratch.val.egress_rule;
    entry.ingress_rule = scratch.val.ingress_rule;
    entry.denied = scratch.val.denied;
    entry.audit_rule = scratch.val.audit_rule;
    const OF_POLICY: u16 = ct_flags::UNPOLICED | ct_flags::AUDIT;
    entry.flags = (entry.flags & !OF_POLICY) | (scratch.val.flags & OF_POLICY);
    (!audited && entry.flags & ct_flags::AUDIT != 0) as u32
}

/// Puts a live flow's question into the scratch room; 0 if that fails.
#[inline(never)]
fn ask_again<F: Family>(packet: &Packet<F::Addr>, entry: &mut CtVal<F::Addr>) -> u32 {
    let Some(scratch) = F::scratch() else {
        return 0;
    };
    let (key, source_is_b) = Tuple::of(packet).key(packet.proto);
    let Some(found) = F::conntrack().find(&key) else {
        return 0;
    };
    scratch.val.epoch = epoch();
    let forward = source_is_b == (found.flags & ct_flags::INITIATOR_IS_B != 0);
    let (responder, port) = if found.flags & ct_flags::FRONT != 0 {
        (found.nat_dst, found.nat_dst_port)
    } else if forward {
        (packet.dst, packet.dst_port)
    } else {
        (packet.src, packet.src_port)
    };
    let was_outside = entry.flags & ct_flags::OUTSIDE != 0;
    let known = if was_outside {
        0
    } else {
        entry.initiator_ifindex
    };
    let device = device_now::<F>(known, &entry.nat_src);
    // Who was outside may be a pod of this node now.
    let outside = was_outside && device == 0;
    if !outside {
        entry.initiator_ifindex = device;
        entry.flags &= !ct_flags::OUTSIDE;
    }
    let device = device_now::<F>(entry.responder_ifindex, &responder);
    if entry.responder_ifindex != DNS_PROXY {
        entry.responder_ifindex = device;
    }
    scratch.question = Question {
        initiator: entry.nat_src,
        responder,
        initiator_ifindex: if outside { 0 } else { entry.initiator_ifindex },
        responder_ifindex: device,
        port,
        proto: packet.proto,
        host: (entry.flags & ct_flags::HOST != 0) as u8,
        unresolved: (entry.frontend != 0 && entry.flags & ct_flags::DNAT == 0) as u32,
        audited: 0,
        initiator_is: subject::UNASKED,
        responder_is: subject::UNASKED,
    };
    1
}

/// The device of the pod that has an address now; while nobody is known to have it, a device whose
/// pod is not known yet stays.
#[inline(always)]
fn device_now<F: Family>(ifindex: u32, addr: &F::Addr) -> u32 {
    let known = subject::identity::<F>(addr).ifindex;
    if ifindex != 0
        && let Some(pod) = subject::by_device(ifindex)
        && (F::address_of(pod) == *addr || (known == 0 && pod.state != subject_state::MANAGED))
    {
        return ifindex;
    }
    known
}

/// Not 0 if a pod may send to a multicast or broadcast address: there is no flow, only egress.
#[inline(never)]
pub fn may_multicast<F: Family>(pod: &Subject, packet: &Packet<F::Addr>) -> u32 {
    if !maps::enabled(config_flags::POLICY)
        || pod.state != subject_state::MANAGED
        || pod.egress == 0
    {
        return 1;
    }
    let world = IdentityVal {
        identity: 0,
        ifindex: 0,
        flags: 0,
    };
    let Some(scratch) = F::scratch() else {
        return 0;
    };
    let lookup = &mut scratch.lookup;
    let what = (packet.proto, packet.dst_port);
    evaluate::<F>(pod.egress, &world, false, &packet.dst, what, lookup).allowed
}

/// A number that no ruleset has: the device is closed. Its hook may have let the packet in a moment before.
const CLOSED: u32 = u32::MAX;
/// Another: the pod is not known yet.
const UNPOLICED: u32 = u32::MAX - 1;

/// The rulesets of an end in its direction.
pub struct Rulesets {
    /// That in force; 0 if none is; or [`CLOSED`] or [`UNPOLICED`].
    enforced: u32,
    /// That which were in force without audit; 0 if that is no other.
    pub audited: u32,
}

/// The rulesets of the end that a direction is about.
#[inline(always)]
pub fn rulesets_at<A, const DIRECTION: bool>(question: &Question<A>) -> Rulesets {
    let ifindex = if DIRECTION == EGRESS {
        question.initiator_ifindex
    } else if question.host != 0 {
        0
    } else {
        question.responder_ifindex
    };
    let only = |enforced| Rulesets {
        enforced,
        audited: 0,
    };
    if ifindex == 0 {
        return only(0);
    }
    let Some(pod) = subject::by_device(ifindex) else {
        return only(CLOSED);
    };
    let (enforced, audited) = if DIRECTION == EGRESS {
        (pod.egress, pod.audited_egress)
    } else {
        (pod.ingress, pod.audited_ingress)
    };
    match pod.state {
        subject_state::MANAGED => Rulesets { enforced, audited },
        subject_state::CLOSED => only(CLOSED),
        _ => only(UNPOLICED),
    }
}

/// NetworkPolicies do not police a pod's own node unless the settings ask for it.
#[inline(always)]
fn is_own_node(peer: &IdentityVal) -> bool {
    peer.flags & identity_flags::NODE != 0 && !maps::enabled(config_flags::POLICE_NODE_EGRESS)
}

/// The ruleset's decision: by what it says of any peer, of the peer's identity, and of the CIDRs that
/// hold the peer's address.
#[inline(always)]
fn evaluate<F: Family>(
    ruleset: u32,
    identity: &IdentityVal,
    exempt: bool,
    addr: &F::Addr,
    (proto, port): (u8, Port),
    lookup: &mut Lookup<F::Addr>,
) -> Decision {
    let Some(rules) = element(&RULESETS, ruleset) else {
        return Decision::DEFAULT_DENY;
    };
    let class = class_of(rules, proto, port);
    if class == NO_CLASS {
        return Decision::DEFAULT_DENY;
    }
    lookup.row = RowKey {
        ruleset,
        peer: peer::ANY,
        class: class as u16,
        reserved: 0,
    };
    lookup.found = RowVal::EMPTY;
    if rules.flags & ruleset_flags::ANY != 0 {
        add_row(lookup);
    }
    let cidr = cidr_of::<F>(rules.flags, identity, addr, lookup);
    if cidr.set != 0 {
        lookup.row.peer = peer::CIDR | cidr.set;
        add_row(lookup);
    }
    lookup.row.peer = identity.identity;
    if identity.flags == 0 && cidr.flags & cidr_flags::PODS != 0 {
        lookup.row.peer = peer::UNKNOWN_POD;
    }
    if rules.flags & ruleset_flags::IDENTITIES != 0 && lookup.row.peer != 0 {
        add_row(lookup);
    }
    lookup.found.decide(Terms {
        isolates: rules.flags & ruleset_flags::ISOLATES != 0,
        exempt,
    })
}

/// What the prefixes say of an address, as far as the ruleset asks for it: the CIDRs that hold it, and
/// whether an unknown address may be a pod's.
#[inline(always)]
fn cidr_of<F: Family>(
    flags: u16,
    identity: &IdentityVal,
    addr: &F::Addr,
    lookup: &mut Lookup<F::Addr>,
) -> CidrVal {
    let asks_for = if identity.flags == 0 {
        ruleset_flags::CIDRS | ruleset_flags::UNKNOWN_PODS
    } else if identity.flags & identity_flags::NO_CIDR == 0 {
        ruleset_flags::CIDRS
    } else {
        0
    };
    let none = CidrVal { set: 0, flags: 0 };
    if flags & asks_for == 0 {
        return none;
    }
    lookup.prefix = CidrKey {
        prefix: CidrKey::<F::Addr>::LEAD_BITS + F::Addr::BITS,
        lead: 0,
        addr: *addr,
    };
    match longest_prefix(F::cidrs(), &lookup.prefix) {
        Some(cidr) => *cidr,
        None => none,
    }
}

#[inline(always)]
fn add_row<A>(lookup: &mut Lookup<A>) {
    if let Some(row) = ROWS.find(&lookup.row) {
        lookup.found.join(row);
    }
}

/// No class: a number that no class has.
const NO_CLASS: u32 = u32::MAX;

/// The class of a port, or [`NO_CLASS`]. A number instead of an `Option`, whose undefined half the
/// verifier would refuse.
#[inline(always)]
fn class_of(rules: &RulesetVal, protocol: u8, port: Port) -> u32 {
    let span = match protocol {
        proto::TCP => &rules.tcp,
        proto::UDP => &rules.udp,
        proto::SCTP => &rules.sctp,
        _ => return rules.other_class as u32,
    };
    search(span, port.number())
}

/// The class of the last bound that does not exceed a port.
#[inline(always)]
fn search(span: &PortSpan, port: u16) -> u32 {
    let (base, mut low, mut high) = (span.base, 0u32, span.count);
    let mut class = NO_CLASS;
    for _ in 0..PORT_SEARCH_STEPS {
        if low >= high {
            break;
        }
        let middle = (low + high) / 2;
        let Some(bound) = element(&PORT_BOUNDS, base.wrapping_add(middle)) else {
            return NO_CLASS;
        };
        if bound.start <= port {
            class = bound.class as u32;
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    class
}
