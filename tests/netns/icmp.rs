//! ICMP errors, and echo.

use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::workload::udp::UdpClient;
use sluice_lab::workload::{Cause, Stage};

use crate::world::{DROPPED, World, at, vip};

#[test]
fn a_closed_port_behind_a_service_is_reported_to_the_client() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let service = ServiceManifest::new("web").cluster_ips(vip(1).both());
    world.apply(&service.port("http", 80, 8080).udp_port("closed", 53, 9999));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 53) {
            for _ in 0..6 {
                let socket = client.netns.run(|| UdpClient::open(to, true)).unwrap();
                // The pod's "port unreachable" speaks of the pod; the client knows the Service.
                let failure = socket.ask(DROPPED).unwrap_err();
                assert_eq!(failure.stage, Stage::Receive, "{} to {to}", client.name);
                assert_ne!(
                    failure.cause,
                    Cause::Timeout,
                    "{} to {to}: {failure}",
                    client.name
                );
            }
        }
    }
}

#[test]
fn echo_passes_between_pods_and_nodes() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    for client in world.everywhere() {
        for name in ["web-1", "web-2"] {
            for ip in world.plane.pod(name).addrs().both() {
                let args = ["-c", "1", "-W", "2", &ip.to_string()].map(str::to_owned);
                client.netns.command("ping", &args).unwrap();
            }
        }
    }
}
