//! Compiled verdicts against the oracle's.

use std::net::IpAddr;

use dataplane_common::decide::policy::Decision;
use dataplane_common::net::proto;
use dataplane_model::compile::compile;
use dataplane_model::eval::{self, Exempt, Packet};
use dataplane_model::explain::explain;
use dataplane_model::ids::{IdKind, IdTable};
use dataplane_model::oracle::{self, Flow, Side};
use dataplane_model::snapshot::{Direction, PolicyMode, Protocol, Snapshot};
use dataplane_model::tables::Tables;
use dataplane_model::verify::verify;
use proptest::prelude::*;
use sluice_generate::{
    cluster::{objects, snapshot},
    probes::{is_here, pairs, services},
};

use crate::cases;

pub fn packet((src, dst): (IpAddr, IpAddr), protocol: Option<Protocol>, port: u16) -> Packet {
    Packet {
        src,
        dst,
        proto: protocol.map_or(proto::ICMP, Protocol::number),
        port,
    }
}

/// A flow of which all policies are asked.
fn audited(
    snapshot: &Snapshot,
    (src, dst): (IpAddr, IpAddr),
    protocol: Option<Protocol>,
    port: u16,
) -> Flow<'_> {
    Flow {
        snapshot,
        src,
        dst,
        protocol,
        port,
        mode: PolicyMode::Audit,
    }
}

fn check(snapshot: &Snapshot, tables: &Tables, ids: &IdTable) -> Result<(), TestCaseError> {
    for pair in pairs(snapshot) {
        for (protocol, port) in services() {
            let expected = oracle::judge(snapshot, pair.0, pair.1, protocol, port);
            let packet = packet(pair, protocol, port);
            let actual = eval::judge(tables, &packet).expect("one family");
            let what = format!("{} -> {} {protocol:?} {port}", pair.0, pair.1);
            let audited = audited(snapshot, pair, protocol, port).verdict();
            let by_audit = eval::judge_with(tables, &packet, Exempt::default(), PolicyMode::Audit);
            let by_audit = by_audit.expect("one family");
            for (place, expected, actual) in [
                (pair.0, &audited.egress, by_audit.egress),
                (pair.1, &audited.ingress, by_audit.ingress),
            ] {
                let expected = !is_here(snapshot, place) || expected.is_allowed();
                let actual = actual.is_none_or(|decision| decision.allowed != 0);
                prop_assert_eq!(actual, expected, "{} with what is in audit", what);
            }
            side(
                &format!("{what} egress"),
                Direction::Egress,
                is_here(snapshot, pair.0).then_some(&expected.egress),
                actual.egress,
                ids,
            )?;
            side(
                &format!("{what} ingress"),
                Direction::Ingress,
                is_here(snapshot, pair.1).then_some(&expected.ingress),
                actual.ingress,
                ids,
            )?;
        }
    }
    Ok(())
}

fn side(
    what: &str,
    direction: Direction,
    expected: Option<&Side>,
    actual: Option<Decision>,
    ids: &IdTable,
) -> Result<(), TestCaseError> {
    let Some(expected) = expected.filter(|side| side.concerned) else {
        prop_assert_eq!(actual, None, "{}", what);
        return Ok(());
    };
    let allowed = actual.map(|decision| decision.allowed != 0);
    prop_assert_eq!(
        allowed,
        Some(expected.is_allowed()),
        "{}: {:?}",
        what,
        expected
    );
    let rule = actual
        .filter(|decision| decision.rule != 0)
        .map(|decision| ids.name(IdKind::Rule, decision.rule));
    let rule = rule.map(|name| name.map_or_else(String::new, |name| name.to_string()));
    let place = |key: &dyn std::fmt::Display, place: usize| {
        format!("{key} {} rule {}", direction.name(), place + 1)
    };
    if let Some(ruling) = &expected.ruling {
        let decided = place(&ruling.policy, ruling.place);
        let named = rule.as_deref().and_then(|rule| rule.strip_prefix(&decided));
        let named = named.is_some_and(|rest| rest.starts_with([' ']));
        prop_assert!(named, "{}: {:?} is not {}", what, rule, decided);
        return Ok(());
    }
    let names: Vec<_> = expected
        .allowed_by
        .iter()
        .map(|(key, index)| place(key, *index))
        .collect();
    let named = rule.as_ref().is_none_or(|rule| names.contains(rule));
    prop_assert!(named, "{}: {:?} is none of {:?}", what, rule, names);
    prop_assert_eq!(
        rule.is_some(),
        !expected.exempt && !names.is_empty(),
        "{}: an allowing rule has a name",
        what
    );
    Ok(())
}

/// What is explained of pods of this node is the verdict.
fn check_explained(snapshot: &Snapshot) -> Result<(), TestCaseError> {
    for pair in pairs(snapshot) {
        if !is_here(snapshot, pair.0) || !is_here(snapshot, pair.1) {
            continue;
        }
        for (protocol, port) in services() {
            let expected = oracle::judge(snapshot, pair.0, pair.1, protocol, port);
            let explained = explain(snapshot, &packet(pair, protocol, port)).expect("it fits");
            let ends = [&explained.egress, &explained.ingress];
            let ends: Vec<_> = ends.into_iter().flatten().collect();
            let agrees = ends.iter().all(|end| end.agrees);
            let in_audit = ends.iter().map(|end| end.audit.as_deref().unwrap_or(end));
            let would_be = in_audit.clone().all(|end| end.allowed);
            let agrees = agrees && in_audit.clone().all(|end| end.agrees);
            prop_assert!(
                agrees,
                "{:?} {:?} {}: {:#?}",
                pair,
                protocol,
                port,
                explained
            );
            prop_assert_eq!(explained.is_allowed(), expected.is_allowed());
            let expected = audited(snapshot, pair, protocol, port).verdict();
            prop_assert_eq!(would_be, expected.is_allowed(), "{:#?}", explained);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn explanations_tell_the_verdict(objects in objects()) {
        check_explained(&snapshot(&objects))?;
    }
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn compiled_verdicts_are_the_oracles(objects in objects()) {
        let snapshot = snapshot(&objects);
        let mut ids = IdTable::default();
        let desired = compile(&snapshot, &mut ids).expect("it fits");
        check(&snapshot, &desired.tables, &ids)?;
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn compiled_tables_are_verified(objects in objects()) {
        let snapshot = snapshot(&objects);
        let desired = compile(&snapshot, &mut IdTable::default()).expect("it fits");
        let report = verify(&snapshot, &desired.tables);
        prop_assert_eq!((report.differences, report.more), (Vec::new(), 0));
    }
}
