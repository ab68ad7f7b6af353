//! `sluice dump`: manifests compiled to tables, without a kernel. Each pod of the node gets a device
//! of its own, numbered in the order of the pods' names.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Result, bail};
use dataplane_common::abi::{
    CidrKey, Claim, PortSpan, RulesetVal, Subject, action, cidr_flags, peer, scope, subject_state,
};
use dataplane_model::compile::{ServiceNames, compile};
use dataplane_model::ids::{IdKind, IdTable};
use dataplane_model::snapshot::{Event, Interface, NodeConfig, Object, Snapshot};
use dataplane_model::tables::{Family, FamilyTables, Tables};

use super::print;
use crate::admin::names::protocol;
use crate::args::{DumpArgs, Output};
use crate::config;
use crate::convert::Converter;
use crate::source::manifests;

/// Compiles a folder and prints its tables, sorted.
pub(super) fn dump(args: &DumpArgs) -> Result<()> {
    let lines = compile_folder(&args.manifests, &args.node_name, &args.node_port_addresses)?;
    match args.output.output {
        Output::Json => print(&serde_json::to_string_pretty(&lines)?),
        Output::Yaml => print(serde_saphyr::to_string(&lines)?.trim_end()),
        Output::Table | Output::Wide => print(&lines.join("\n")),
    }
}

/// The tables that a folder of manifests makes on a node: a line for each entry, sorted by map and
/// key; then what numbers stand for, what is wrong with the manifests, and what is skipped.
///
/// # Errors
///
/// The folder cannot be read, a block of addresses is none, or the tables do not fit in the maps.
pub fn compile_folder(
    folder: &Path,
    node_name: &str,
    node_port_addresses: &[String],
) -> Result<Vec<String>> {
    let contents = manifests::read_once(folder)?;
    let mut converter = Converter::default();
    let node_ports = config::node_ports(node_port_addresses)?;
    let mut snapshot = Snapshot::new(
        NodeConfig {
            name: node_name.into(),
            nodeport_addresses: node_ports.blocks,
            nodeport_primary: node_ports.primary,
            ..NodeConfig::default()
        },
        [],
    );
    for change in contents.changes {
        for event in converter.convert(change) {
            snapshot.apply(event);
        }
    }
    add_devices(&mut snapshot);
    let mut ids = IdTable::default();
    let desired = match compile(&snapshot, &mut ids) {
        Ok(desired) => desired,
        Err(errors) => {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            bail!("{}", texts.join("; "));
        }
    };
    let mut services = ServiceNames::new(&snapshot, &ids);
    services.add(entries(&desired.tables.v4.services));
    services.add(entries(&desired.tables.v6.services));
    let mut lines = lines(&desired.tables, &ids, &services);
    let problems = contents.problems.iter().chain(converter.problems());
    lines.extend(problems.map(|problem| format!("problem {problem}")));
    lines.extend(
        desired
            .notices
            .iter()
            .map(|notice| format!("notice {notice}")),
    );
    let skipped = contents.skipped.iter();
    lines.extend(skipped.map(|skipped| format!("skipped {}: {}", skipped.origin, skipped.kind)));
    Ok(lines)
}

/// The node's addresses as its Node object has them, and a device for each of its pods.
fn add_devices(snapshot: &mut Snapshot) {
    if let Some(node) = snapshot.nodes.get(&snapshot.node.name) {
        snapshot.node.addresses = node.addresses.clone();
    }
    let mine = snapshot
        .pods
        .values()
        .filter(|pod| pod.is_policy_pod() && pod.node.as_ref() == Some(&snapshot.node.name));
    let devices: Vec<Interface> = mine
        .zip(1..)
        .map(|(pod, ifindex)| Interface {
            ifindex,
            addresses: pod.ips.clone(),
            redirect_ok: true,
            ..Interface::default()
        })
        .collect();
    for device in devices {
        snapshot.apply(Event::Apply(Object::Interface(device)));
    }
}

fn entries<K: Copy, V: Copy>(table: &BTreeMap<K, V>) -> impl Iterator<Item = (K, V)> {
    table.iter().map(|(key, value)| (*key, *value))
}

fn lines(tables: &Tables, ids: &IdTable, services: &ServiceNames<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    family(&tables.v4, &mut lines);
    family(&tables.v6, &mut lines);
    for (place, slot) in &tables.slots {
        lines.push(format!("slot {place} backend {}", slot.backend));
    }
    for (place, class) in &tables.classes {
        lines.push(format!(
            "class {place} threshold {:#010x} base {} count {}",
            class.threshold, class.base, class.count
        ));
    }
    for (place, subject) in tables.subjects.iter().chain(&tables.subjects_overflow) {
        lines.push(format!("subject {place} {}", self::subject(subject)));
    }
    for (number, ruleset) in &tables.rulesets {
        lines.push(format!(
            "ruleset {number} {}",
            self::ruleset(tables, ruleset)
        ));
    }
    for (key, row) in &tables.rows {
        let peer = match key.peer {
            peer::ANY => "any".to_owned(),
            number if number & peer::CIDR != 0 => format!("cidr-set {}", number & !peer::CIDR),
            peer::UNKNOWN_POD => "unknown-pod".to_owned(),
            peer::UNKNOWN_NODE => "unknown-node".to_owned(),
            number => format!("identity {number}"),
        };
        lines.push(format!(
            "row ruleset {} class {} {peer}{}{}",
            key.ruleset,
            key.class,
            claim("admin", row.admin),
            claim("below", row.below)
        ));
    }
    for kind in IdKind::ALL {
        let names = if kind.is_held() {
            services.of(kind)
        } else {
            ids.names(kind)
        };
        let named = names.iter();
        lines.extend(named.map(|(number, name)| format!("name {kind:?} {number} {name}")));
    }
    lines
}

fn claim(tier: &str, claim: Claim) -> String {
    let action = match claim.action() {
        action::ACCEPT => "accept",
        action::DENY => "deny",
        action::PASS => "pass",
        _ => return String::new(),
    };
    let place = claim.order >> action::BITS;
    format!(" {tier} {place} {action} rule {}", claim.rule)
}

fn family<A: Family>(tables: &FamilyTables<A>, lines: &mut Vec<String>) {
    for (key, value) in by_address(&tables.services, |key| {
        (key.addr.to_ip(), key.port.number())
    }) {
        let frontend = SocketAddr::new(key.addr.to_ip(), key.port.number());
        let clients = scope::name(key.scope);
        lines.push(format!(
            "service {frontend}/{} {clients} frontend {} service-port {} base {} count {} \
             class-base {} classes {} affinity {} source-set {} flags {:#x}",
            protocol(key.proto),
            value.frontend,
            value.service_port,
            value.base,
            value.count,
            value.class_base,
            value.classes,
            value.affinity_secs,
            value.source_set,
            value.flags
        ));
    }
    for (place, backend) in &tables.backends {
        let address = SocketAddr::new(backend.addr.to_ip(), backend.port.number());
        lines.push(format!(
            "backend {place} {address} service-port {} generation {} flags {:#x}",
            backend.service_port, backend.generation, backend.flags
        ));
    }
    for (addr, value) in by_address(&tables.identities, |addr| addr.to_ip()) {
        lines.push(format!(
            "address {} identity {} device {} flags {:#x}",
            addr.to_ip(),
            value.identity,
            value.ifindex,
            value.flags
        ));
    }
    for (key, _) in by_address(&tables.source_ranges, |key| {
        (u32::from_be(key.lead), key.addr.to_ip(), key.prefix)
    }) {
        lines.push(format!(
            "source-range set {} {}/{}",
            u32::from_be(key.lead),
            key.addr.to_ip(),
            key.prefix - CidrKey::<A>::LEAD_BITS
        ));
    }
    for (key, value) in by_address(&tables.cidrs, |key| (key.addr.to_ip(), key.prefix)) {
        let length = key.prefix - CidrKey::<A>::LEAD_BITS;
        let pods = if value.flags & cidr_flags::PODS != 0 {
            " pods"
        } else {
            ""
        };
        lines.push(format!(
            "cidr {}/{length} set {}{pods}",
            key.addr.to_ip(),
            value.set
        ));
    }
}

/// Entries in the order of their addresses; the maps' own order is that of their bytes.
fn by_address<K: Ord, V, S: Ord>(
    table: &BTreeMap<K, V>,
    address: impl Fn(&K) -> S,
) -> Vec<(&K, &V)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| address(key));
    entries
}

fn subject(subject: &Subject) -> String {
    let state = match subject.state {
        subject_state::MANAGED => "managed",
        subject_state::SERVICES => "services",
        _ => "closed",
    };
    let (v4, v6): (IpAddr, IpAddr) = (subject.addr4.to_ip(), subject.addr6.to_ip());
    format!(
        "device {} {state} {v4} {v6} identity {} egress {} ingress {} audited {} {} flags {:#x}",
        subject.ifindex,
        subject.identity,
        subject.egress,
        subject.ingress,
        subject.audited_egress,
        subject.audited_ingress,
        subject.flags
    )
}

fn ruleset(tables: &Tables, ruleset: &RulesetVal) -> String {
    let classes = |span: PortSpan| {
        let bounds =
            (span.base..span.base + span.count).filter_map(|place| tables.port_bounds.get(&place));
        let texts: Vec<String> = bounds
            .map(|bound| format!("{}:{}", bound.start, bound.class))
            .collect();
        texts.join(",")
    };
    format!(
        "tcp {} udp {} sctp {} other {} flags {:#x}",
        classes(ruleset.tcp),
        classes(ruleset.udp),
        classes(ruleset.sctp),
        ruleset.other_class,
        ruleset.flags
    )
}
