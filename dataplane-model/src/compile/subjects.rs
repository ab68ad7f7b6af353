//! Pods of this node, by their devices.

use std::net::IpAddr;

use dataplane_common::abi::{DNS_PROXY, Subject, subject_flags, subject_state};

use super::Compiler;
use super::policy::PodPolicies;
use crate::snapshot::{Interface, Pod, Snapshot};
use crate::tables::Family;

/// Fills the subject maps. Of devices with the same place, the one with the smallest ifindex has it.
pub(super) fn compile(compiler: &mut Compiler<'_>, policy: &PodPolicies) {
    let mask = compiler.ids.capacities().subjects.saturating_sub(1);
    let tables = &mut compiler.desired.tables;
    let dns_proxy = dns_proxy(compiler.snapshot);
    for interface in compiler.snapshot.interfaces.values() {
        let mut subject = subject(compiler.snapshot, interface, policy);
        if subject.state == subject_state::MANAGED {
            subject.dns_proxy = dns_proxy;
        }
        let place = tables
            .subjects
            .entry(interface.ifindex & mask)
            .or_insert(subject);
        if place.ifindex != interface.ifindex {
            tables.subjects_overflow.insert(interface.ifindex, subject);
        }
    }
}

fn dns_proxy(snapshot: &Snapshot) -> u32 {
    let mut interfaces = snapshot.interfaces.values();
    match interfaces.find(|interface| interface.is_dns_proxy) {
        Some(interface) => interface.ifindex,
        None if snapshot.node.has_dns_proxy => DNS_PROXY,
        None => 0,
    }
}

fn subject<'a>(snapshot: &'a Snapshot, interface: &Interface, policy: &'a PodPolicies) -> Subject {
    let managed = match &interface.pod {
        Some(named) => {
            let pod = snapshot.pods.get(&named.key);
            let pod = pod.filter(|pod| named.is(pod));
            pod.and_then(|pod| Some((pod, policy.of(&pod.key)?)))
        }
        None => {
            let found = interface.addresses.iter().find_map(|&ip| policy.at(ip));
            found.and_then(|(key, numbers)| Some((snapshot.pods.get(key)?, numbers)))
        }
    };
    let flag = |set: bool, bit: u16| if set { bit } else { 0 };
    let base = Subject {
        addr6: first(&interface.addresses),
        addr4: first(&interface.addresses),
        ifindex: interface.ifindex,
        state: if interface.closed {
            subject_state::CLOSED
        } else {
            subject_state::SERVICES
        },
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
        audited_egress: numbers.audited_egress,
        audited_ingress: numbers.audited_ingress,
        flags: base.flags | flag(numbers.has_domains, subject_flags::DNS),
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
