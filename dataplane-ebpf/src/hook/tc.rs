//! tcx programs (clsact where tcx is missing): pods' devices and uplinks.

use aya_ebpf::{macros::classifier, programs::TcContext};
use dataplane_common::{
    abi::{Subject, subject_state},
    net::ethertype,
    verdict::{Action, DropReason, Verdict},
};

use crate::{
    family::{V4, V6},
    observe,
    packet::{Ctx, Tc},
    pipeline,
    stage::{neighbour, subject},
};

/// `TCX_NEXT`: programs after this one still run.
const NEXT: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

/// Ingress of a pod's host-side device: what the pod sends.
#[classifier]
#[inline(always)]
pub fn from_pod(ctx: TcContext) -> i32 {
    let ctx = Tc::new(ctx.skb.skb);
    code(match pod_of(ctx) {
        Err(reason) => Err(reason),
        Ok(pod) => match family(ctx) {
            ethertype::IPV4 => pipeline::from_pod::<V4, Tc>(ctx, pod),
            ethertype::IPV6 => pipeline::from_pod::<V6, Tc>(ctx, pod),
            ethertype::ARP => from_pod_arp(ctx, pod),
            _ => other(pod.egress),
        },
    })
}

/// Egress of a pod's host-side device: what reaches the pod through the host's stack.
#[classifier]
#[inline(always)]
pub fn to_pod(ctx: TcContext) -> i32 {
    let ctx = Tc::new(ctx.skb.skb);
    code(match pod_of(ctx) {
        Err(reason) => Err(reason),
        Ok(pod) => match family(ctx) {
            ethertype::IPV4 => pipeline::to_pod::<V4, Tc>(ctx, pod),
            ethertype::IPV6 => pipeline::to_pod::<V6, Tc>(ctx, pod),
            ethertype::ARP => Ok(Action::Pass),
            _ => other(pod.ingress),
        },
    })
}

/// Ingress of an uplink.
#[classifier]
#[inline(always)]
pub fn from_net(ctx: TcContext) -> i32 {
    let ctx = Tc::new(ctx.skb.skb);
    code(match family(ctx) {
        ethertype::IPV4 => pipeline::from_net::<V4, Tc>(ctx),
        ethertype::IPV6 => pipeline::from_net::<V6, Tc>(ctx),
        _ => Ok(Action::Pass),
    })
}

/// Egress of an uplink.
#[classifier]
#[inline(always)]
pub fn to_net(ctx: TcContext) -> i32 {
    let ctx = Tc::new(ctx.skb.skb);
    code(match family(ctx) {
        ethertype::IPV4 => pipeline::to_net::<V4, Tc>(ctx),
        ethertype::IPV6 => pipeline::to_net::<V6, Tc>(ctx),
        _ => Ok(Action::Pass),
    })
}

/// The EtherType; a tagged frame counts as of another family.
#[inline(always)]
fn family(ctx: Tc) -> u16 {
    if ctx.is_tagged() { 0 } else { ctx.protocol() }
}

/// The pod of a managed device, unless it is closed.
#[inline(always)]
fn pod_of(ctx: Tc) -> Result<&'static Subject, DropReason> {
    match subject::by_device(ctx.ifindex()) {
        Some(pod) if pod.state != subject_state::CLOSED => Ok(pod),
        _ => Err(DropReason::PodClosed),
    }
}

#[inline(always)]
fn from_pod_arp(ctx: Tc, pod: &Subject) -> Verdict {
    if pod.state == subject_state::MANAGED {
        neighbour::check_arp(ctx, pod)?;
    }
    Ok(Action::Pass)
}

/// A frame that is neither IP nor ARP: policy cannot say anything of it, so an isolated pod does not
/// get it through.
#[inline(always)]
fn other(ruleset: u32) -> Verdict {
    if ruleset != 0 {
        return Err(DropReason::UnknownEthertype);
    }
    Ok(Action::Pass)
}

#[inline(always)]
fn code(verdict: Verdict) -> i32 {
    match verdict {
        Ok(Action::Pass) => NEXT,
        Ok(Action::Redirect) => REDIRECT,
        Err(reason) => {
            observe::count_drop(reason);
            SHOT
        }
    }
}
