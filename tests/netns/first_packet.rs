//! Pods before their object tells their address.

use sluice_lab::kube::objects::PodManifest;
use sluice_lab::workload::udp::UdpClient;

use crate::world::{Client, REQUEST, World, at, same_family, vip};

#[test]
fn services_answer_a_pod_whose_object_is_not_there_or_has_no_address() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.service("empty", vip(2));
    world.await_service(vip(1), 80);
    for node in [1, 2] {
        for has_object in [false, true] {
            let name = format!("early-{node}-{has_object}");
            if has_object {
                let object = PodManifest::new(&name, &format!("node-{node}")).object();
                world.plane.apply(&object).unwrap();
            }
            let pod = world.plane.cluster().add_pod(node, &name).unwrap();
            let client = Client {
                name,
                netns: pod.netns().clone(),
                addrs: pod.addrs(),
            };
            // Its very first packets: TCP sends the first one again if it is lost, UDP does not.
            for to in at(vip(1), 80) {
                let answer = client.get(to);
                let answer = answer.unwrap_or_else(|e| panic!("{} to {to}: {e}", client.name));
                assert_eq!(answer.peer.ip(), same_family(client.addrs, to.ip()));
            }
            for to in at(vip(1), 53) {
                let ask = || UdpClient::open(to, true)?.ask(REQUEST);
                let answer = client.netns.run(ask);
                answer.unwrap_or_else(|e| panic!("{} to {to}: {e}", client.name));
            }
            for to in at(vip(2), 80) {
                client.await_refused(to);
            }
        }
    }
}
