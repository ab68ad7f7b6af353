//! The guide's NetworkPolicy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::scenario::{DATABASE, PATIENCE, REQUEST, Scenario, USER_SERVICE};
use crate::netns::Netns;
use crate::topology::{Dual, Family};
use crate::wait;
use crate::workload::client;

const POLICY: &str = include_str!("../../../../examples/network-policy.yaml");
const DATABASE_EXAMPLE: &str = include_str!("../../../../examples/database.yaml");
const GATEWAY_EXAMPLE: &str = include_str!("../../../../examples/api-gateway.yaml");

/// How long a connection that is to be dropped is waited for: a hundred times what one that is
/// allowed takes, and less than a second, after which TCP tries again.
const DROPPED: Duration = Duration::from_millis(400);

/// One line of the policy's table.
struct Case {
    name: &'static str,
    from: Vec<Arc<Netns>>,
    to: Vec<(Dual, u16)>,
    allowed: bool,
}

/// Everything the policy allows, and the rest.
pub(super) fn guide(scenario: &mut Scenario) -> Result<()> {
    scenario.plane.apply_yaml(DATABASE_EXAMPLE)?;
    scenario.plane.apply_yaml(GATEWAY_EXAMPLE)?;
    let cases = cases(scenario)?;
    for case in &cases {
        let (passed, tries) = try_all(case, true);
        ensure!(
            passed == tries,
            "before the policy, {}: {passed} of {tries}",
            case.name
        );
    }
    scenario.plane.apply_yaml(POLICY)?;
    let forbidden = cases
        .iter()
        .find(|case| !case.allowed)
        .context("a policy forbids something")?;
    wait::until(PATIENCE, "the policy to be in force", || {
        match try_all(forbidden, false) {
            (0, _) => Ok(()),
            (passed, tries) => Err(format!("{passed} of {tries} still pass")),
        }
    })?;
    for case in &cases {
        let (passed, tries) = try_all(case, case.allowed);
        let wanted = if case.allowed { tries } else { 0 };
        let (expected, measured) = (
            format!("{wanted} of {tries}"),
            format!("{passed} of {tries}"),
        );
        scenario.row(
            format!("policy: {}", case.name),
            expected,
            measured,
            "",
            tries > 0 && passed == wanted,
        );
    }
    Ok(())
}

fn cases(scenario: &Scenario) -> Result<Vec<Case>> {
    let plane = &scenario.plane;
    let of = |deployment: &str| {
        let pods = plane.pods_of(deployment);
        pods.iter().map(|name| plane.pod(name)).collect::<Vec<_>>()
    };
    let users = [of("user-service-stable"), of("user-service-canary")].concat();
    let gateways = of("api-gateway");
    let databases = of("database");
    ensure!(users.len() >= 2, "user-service has {} pods", users.len());
    let inside = |pods: &[&crate::topology::Pod]| {
        pods.iter()
            .map(|pod| pod.netns().clone())
            .collect::<Vec<_>>()
    };
    let at = |pods: &[&crate::topology::Pod], port: u16| {
        pods.iter()
            .map(|pod| (pod.addrs(), port))
            .collect::<Vec<_>>()
    };
    let gateway = gateways.first().context("no api-gateway")?;
    // Each node probes its own pods, as its kubelet does.
    let probes = plane.cluster().nodes().iter().map(|node| {
        let own: Vec<_> = users
            .iter()
            .copied()
            .filter(|pod| pod.node().index() == node.index())
            .collect();
        Case {
            name: if node.index() == 1 {
                "probes from node-1"
            } else {
                "probes from node-2"
            },
            from: vec![node.netns().clone()],
            to: at(&own, 8080),
            allowed: true,
        }
    });
    let mut cases = vec![
        Case {
            name: "api-gateway to user-service:8080, pods and Service",
            from: vec![gateway.netns().clone()],
            to: [at(&users, 8080), vec![(USER_SERVICE, 80)]].concat(),
            allowed: true,
        },
        Case {
            name: "other pods to user-service:8080, pods and Service",
            from: [1, 2].map(|node| scenario.client(node)).to_vec(),
            to: [at(&users, 8080), vec![(USER_SERVICE, 80)]].concat(),
            allowed: false,
        },
        Case {
            name: "user-service to database:5432, pod and Service",
            from: inside(&users),
            to: [at(&databases, 5432), vec![(DATABASE, 5432)]].concat(),
            allowed: true,
        },
        Case {
            name: "user-service to other pods",
            from: inside(&users),
            to: at(
                &[gateway, plane.pod("client-1"), plane.pod("client-2")],
                8080,
            ),
            allowed: false,
        },
    ];
    cases.extend(probes);
    Ok(cases)
}

/// Tries every pair in both families at once; how many of how many were answered.
fn try_all(case: &Case, allowed: bool) -> (usize, usize) {
    let timeout = if allowed { REQUEST } else { DROPPED };
    let mut tries = Vec::new();
    for from in &case.from {
        for (dual, port) in &case.to {
            let to = Family::ALL.map(|family| SocketAddr::new(dual.ip(family), *port));
            tries.extend(to.map(|to| (from, to)));
        }
    }
    let passed = thread::scope(|scope| {
        let started: Vec<_> = tries
            .iter()
            .map(|(from, to)| scope.spawn(|| from.run(|| client::get(*to, "/", timeout).is_ok())))
            .collect();
        started
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .filter(|ok| *ok)
            .count()
    });
    (passed, tries.len())
}
