//! A pod that reaches itself through its Service.

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;

use crate::world::{TCP, World, at, external, vip};

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::new();
    for (node, number) in [(1, 1), (2, 2)] {
        let name = format!("self-{node}");
        world.pod(&name, node, &[("app", &name)]);
        world.service(&name, vip(number));
        world.await_service(vip(number), 80);
        let client = world.client_in(&name);
        for to in at(vip(number), 80) {
            for _ in 0..5 {
                let answer = client
                    .get(to)
                    .unwrap_or_else(|error| panic!("{name} to {to}: {error}"));
                assert_eq!(answer.name, name);
                // A packet from itself would not come back through its interface.
                assert!(
                    client
                        .addrs
                        .both()
                        .iter()
                        .all(|own| *own != answer.peer.ip())
                );
            }
        }
        for to in at(vip(number), 53) {
            let answer = client
                .ask(to)
                .unwrap_or_else(|error| panic!("{name} to {to}: {error}"));
            assert_eq!(answer.name, name);
        }
    }
}

#[test]
fn a_pod_reaches_itself_by_each_of_its_services_addresses() {
    let mut world = World::new();
    for (node, number) in [(1, 1), (2, 2)] {
        let name = format!("self-{node}");
        world.pod(&name, node, &[("app", &name)]);
        let port = 30_080 + u16::from(number);
        let service = ServiceManifest::new(&name)
            .cluster_ips(vip(number).both())
            .node_port("http", 80, TCP, port)
            .load_balancer(external(number).both(), "VIP")
            .with("externalIPs", json!(external(number + 2).both()));
        world.apply(&service);
        let client = world.client_in(&name);
        let addresses = [
            at(external(number), 80),
            at(external(number + 2), 80),
            world.node_at(node, port),
            world.node_at(3 - node, port),
        ];
        for to in addresses.concat() {
            client.await_names(to, &[&name]);
        }
    }
}
