//! Frontends against the oracle's load-balancing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane_common::abi::scope;
use dataplane_model::compile::compile;
use dataplane_model::eval;
use dataplane_model::ids::IdTable;
use dataplane_model::oracle::{self, Outcome};
use dataplane_model::snapshot::Protocol;
use dataplane_model::tables::Tables;
use proptest::prelude::*;
use sluice_generate::{
    cluster::{objects as cluster, snapshot},
    services::frontends,
};

use crate::cases;

fn actual(
    tables: &Tables,
    (ip, port, protocol, scope): (IpAddr, u16, Protocol, u8),
) -> Option<Outcome> {
    let serving = eval::serving(tables, ip, port, protocol.number(), scope)?;
    let mut endpoints: BTreeMap<_, f64> = BTreeMap::new();
    for share in serving.backends {
        *endpoints.entry((share.addr, share.port)).or_default() += share.share;
    }
    Some(Outcome {
        endpoints,
        refused: serving.refused,
        dropped: serving.dropped,
    })
}

fn close(a: &Outcome, b: &Outcome) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
    let same_keys = a.endpoints.keys().eq(b.endpoints.keys());
    let shares = || {
        a.endpoints
            .values()
            .zip(b.endpoints.values())
            .all(|(&a, &b)| near(a, b))
    };
    same_keys && shares() && near(a.refused, b.refused) && near(a.dropped, b.dropped)
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn compiled_frontends_are_the_oracles(objects in cluster()) {
        let snapshot = snapshot(&objects);
        let desired = compile(&snapshot, &mut IdTable::default()).expect("it fits");
        for frontend in frontends() {
            let (ip, port, protocol, scope) = frontend;
            let expected = oracle::serve(&snapshot, ip, port, protocol, scope == scope::EXTERNAL);
            let actual = actual(&desired.tables, frontend);
            let same = match (&actual, &expected) {
                (Some(actual), Some(expected)) => close(actual, expected),
                (None, None) => true,
                _ => false,
            };
            prop_assert!(same, "{:?}: is {:?}, should be {:?}", frontend, actual, expected);
        }
    }

    #[test]
    fn ports_that_a_cluster_ip_does_not_have_are_refused(objects in cluster()) {
        let snapshot = snapshot(&objects);
        let desired = compile(&snapshot, &mut IdTable::default()).expect("it fits");
        for (ip, _, _, scope) in frontends() {
            let serving = eval::serving(&desired.tables, ip, 0, 0, scope);
            let refused = serving.map(|serving| (serving.refused, serving.backends.len()));
            let expected = oracle::refuses_other_ports(&snapshot, ip).then_some((1.0, 0));
            prop_assert_eq!(refused, expected, "{}", ip);
        }
    }

    #[test]
    fn affinity_is_shared_by_a_ports_frontends(objects in cluster()) {
        let snapshot = snapshot(&objects);
        let desired = compile(&snapshot, &mut IdTable::default()).expect("it fits");
        let services = desired.tables.v4.services.values().chain(desired.tables.v6.services.values());
        let mut seconds = BTreeMap::new();
        for service in services {
            prop_assert!(service.service_port != 0 && service.frontend != 0);
            prop_assert_eq!(*seconds.entry(service.service_port).or_insert(service.affinity_secs), service.affinity_secs);
        }
    }
}
