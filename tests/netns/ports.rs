//! Ports of a Service: those it shares between protocols, and those it has not.

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::wait;
use sluice_lab::workload::udp::UdpClient;

use crate::icmp::echo;
use crate::world::{DROPPED, PATIENCE, REQUEST, World, at, vip};

#[test]
fn a_port_leads_elsewhere_for_each_protocol() {
    let mut world = World::new();
    // Both listen on both ports; their names tell which is meant.
    for (name, node, names) in [("tcp", 1, ["dns", "other"]), ("udp", 2, ["other", "dns"])] {
        let mut run = crate::world::pod(name, node, &[("app", "dns")]);
        run.port_names = names.map(str::to_owned).to_vec();
        world.plane.run(run).unwrap();
    }
    let port = |name: &str, protocol: &str| json!({ "name": name, "port": 53, "targetPort": "dns", "protocol": protocol });
    let service = ServiceManifest::new("dns").cluster_ips(vip(1).both());
    world.apply(
        &service
            .port_object(port("dns-tcp", "TCP"))
            .port_object(port("dns", "UDP")),
    );
    for client in world.everywhere() {
        for to in at(vip(1), 53) {
            client.await_names(to, &["tcp"]);
            let what = format!("{to} to answer datagrams of {}", client.name);
            let answer = wait::until(PATIENCE, &what, || client.ask(to)).unwrap();
            assert_eq!(answer.name, "udp", "{} to {to}", client.name);
        }
    }
}

#[test]
fn ports_that_a_service_has_not_are_refused_and_echo_is_dropped() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    for client in world.everywhere() {
        for to in at(vip(1), 81) {
            client.await_refused(to);
            let asked = client.netns.run(|| UdpClient::open(to, true)?.ask(REQUEST));
            let failure = asked.unwrap_err();
            assert!(!failure.is_timeout(), "{} to {to}: {failure}", client.name);
        }
        // TCP's port 53 is not UDP's.
        for to in at(vip(1), 53) {
            client.await_refused(to);
        }
        for ip in vip(1).both() {
            let error = client.netns.run(|| echo(ip, DROPPED)).unwrap_err();
            let is_refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
            assert!(!is_refused, "{} to {ip}: {error}", client.name);
        }
    }
}
