//! Pods of this node, by their devices.

use std::net::IpAddr;

use dataplane_common::abi::{Subject, subject_flags, subject_state};

use super::Compiler;
use super::policy::PodPolicies;
use crate::snapshot::{Interface, Pod};
use crate::tables::Family;

/// Fills the subject maps. Of devices with the same place, the one with the smallest ifindex has it.
pub(super) fn compile(compiler: &mut Compiler<'_>, policy: &PodPolicies<'_>) {
    let mask = compiler.ids.capacities().subjects.saturating_sub(1);
    let tables = &mut compiler.desired.tables;
    for interface in compiler.snapshot.interfaces.values() {
        let subject = subject(interface, policy);
        let place = tables
            .subjects
            .entry(interface.ifindex & mask)
            .or_insert(subject);
        if place.ifindex != interface.ifindex {
            tables.subjects_overflow.insert(interface.ifindex, subject);
        }
    }
}

fn subject(interface: &Interface, policy: &PodPolicies<'_>) -> Subject {
    let pods = interface
        .addresses
        .iter()
        .filter_map(|ip| policy.by_ip.get(ip));
    let managed = pods
        .filter_map(|&pod| Some((pod, policy.pods.get(&pod.key)?)))
        .next();
    let flag = |set: bool, bit: u16| if set { bit } else { 0 };
    let base = Subject {
        addr6: first(&interface.addresses),
        addr4: first(&interface.addresses),
        ifindex: interface.ifindex,
        state: subject_state::SERVICES,
        flags: flag(interface.redirect_ok, subject_flags::REDIRECT)
            | flag(interface.late, subject_flags::LATE),
        mac: interface.mac,
        host_mac: interface.host_mac,
        ..Subject::default()
    };
    let Some((pod, numbers)) = managed else {
        return base;
    };
    Subject {
        addr6: address(pod, base.addr6),
        addr4: address(pod, base.addr4),
        state: subject_state::MANAGED,
        identity: numbers.identity,
        egress: numbers.egress,
        ingress: numbers.ingress,
        ..base
    }
}

/// The pod's address of a family; the device's, if the pod's object does not name it yet.
fn address<A: Family>(pod: &Pod, of_device: A) -> A {
    let own: A = first(&pod.ips);
    if own == A::UNSPECIFIED {
        of_device
    } else {
        own
    }
}

fn first<A: Family>(ips: &[IpAddr]) -> A {
    ips.iter()
        .find_map(|&ip| A::from_ip(ip))
        .unwrap_or(A::UNSPECIFIED)
}
