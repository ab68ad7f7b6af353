//! The objects of a measured Sluice node: its two pods, Services that all lead to the one server,
//! and policies that all select one of the two.

use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::bench::traffic::PORT;
use crate::kube::Manifests;
use crate::kube::objects::{self, PodManifest, ServiceManifest};
use crate::topology::{Dual, Pod};

/// How many objects there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Services, at least 1.
    pub services: u32,
    /// NetworkPolicies: 0, or at least 2.
    pub policies: u32,
}

/// Writes the objects of a node.
///
/// Half of the policies are for the server's ingress, half for the client's egress. One of each
/// half lets the measured connections pass; every other one names a port and a peer of its own,
/// every tenth of them a block of addresses too, so that both pods have rulesets of many rows,
/// port classes and prefixes.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    manifests: &Manifests,
    [client, server]: [&Pod; 2],
    first: Ipv4Addr,
    port: u16,
    scale: Scale,
) -> Result<()> {
    let node = client.node();
    let mut base = vec![objects::namespace("default", &[]), objects::node(node)];
    for (pod, app) in [(client, "client"), (server, "server")] {
        base.push(pod_object(app, app, &node.name(), pod.addrs()));
    }
    base.extend((0..scale.policies).map(peer));
    manifests.write("cluster", &base)?;
    let services: Vec<Value> = (0..scale.services)
        .map(|index| service(first, port, index))
        .collect();
    manifests.write("services", &services)?;
    let policies: Vec<Value> = (0..scale.policies)
        .map(|index| policy(index, scale.policies))
        .collect();
    manifests.write("policies", &policies)
}

fn service(first: Ipv4Addr, port: u16, index: u32) -> Value {
    let ip = Ipv4Addr::from(u32::from(first) + index);
    let service = ServiceManifest::new(&format!("service-{index}")).select("app", "server");
    service
        .cluster_ips([ip.into()])
        .port("http", port, PORT)
        .object()
}

fn pod_object(name: &str, app: &str, node: &str, addrs: Dual) -> Value {
    let mut pod = PodManifest::new(name, node).label("app", app);
    pod.addrs = Some(addrs);
    pod.ports = vec![("http".to_owned(), PORT, "TCP")];
    pod.ready = true;
    pod.object()
}

/// A pod on another node, the peer of one policy.
fn peer(index: u32) -> Value {
    let [_, _, high, low] = index.to_be_bytes();
    let addrs = Dual {
        v4: Ipv4Addr::new(10, 245, high, low),
        v6: [0xfd44, 0x99, 0, 0, 0, 0, 0, 1 + index as u16].into(),
    };
    pod_object(
        &format!("peer-{index}"),
        &format!("peer-{index}"),
        "elsewhere",
        addrs,
    )
}

fn policy(index: u32, count: u32) -> Value {
    let ingress = index.is_multiple_of(2);
    let (direction, field, subject, partner) = if ingress {
        ("Ingress", "ingress", "server", "client")
    } else {
        ("Egress", "egress", "client", "server")
    };
    // In the middle: neither the first nor the last that is looked at.
    let opens = index / 2 == count / 4;
    let (peer, port) = if opens {
        (partner.to_owned(), PORT)
    } else {
        (format!("peer-{index}"), 10_000 + (index % 50_000) as u16)
    };
    let mut peers = vec![json!({ "podSelector": { "matchLabels": { "app": peer } } })];
    if index % 20 < 2 && !opens {
        let [_, _, high, low] = index.to_be_bytes();
        let cidr = format!("192.{}.{low}.0/24", 100 + u16::from(high));
        let except = [cidr.replace(".0/24", ".128/25")];
        peers.push(json!({ "ipBlock": { "cidr": cidr, "except": except } }));
    }
    let side = if ingress { "from" } else { "to" };
    let rule = json!({ side: peers, "ports": [{ "protocol": "TCP", "port": port }] });
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": format!("policy-{index}"), "namespace": "default" },
        "spec": {
            "podSelector": { "matchLabels": { "app": subject } },
            "policyTypes": [direction],
            field: [rule],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_policy_of_each_direction_opens_the_measured_port() {
        for count in [2, 3, 10, 1_000] {
            let policies: Vec<Value> = (0..count).map(|index| policy(index, count)).collect();
            for (field, side, partner) in
                [("ingress", "from", "client"), ("egress", "to", "server")]
            {
                let open = policies.iter().filter(|policy| {
                    let rule = &policy["spec"][field][0];
                    rule["ports"][0]["port"] == PORT
                        && rule[side][0]["podSelector"]["matchLabels"]["app"] == partner
                });
                assert_eq!(open.count(), 1, "{field} of {count}");
            }
        }
    }

    #[test]
    fn services_have_successive_addresses() {
        let service = service(Ipv4Addr::new(10, 96, 1, 255), 80, 1);
        assert_eq!(service["spec"]["clusterIP"], "10.96.2.0");
        assert_eq!(service["spec"]["ports"][0]["targetPort"], PORT);
        assert_eq!(service["spec"]["selector"]["app"], "server");
    }
}
