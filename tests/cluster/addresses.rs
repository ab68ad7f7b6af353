//! Every kind of address of a Service, from everywhere.

use std::net::{IpAddr, SocketAddr};

use crate::cluster::{NODES, OUTSIDE};
use crate::scene::{PORT, Scene, answers, answers_udp};

/// Addresses of the nodes, both families.
const HOSTS: [&str; 4] = ["172.30.0.11", "172.30.0.12", "fd30::11", "fd30::12"];

fn parse(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn cluster_ips_answer_pods_and_hosts() {
    let scene = Scene::with_web("vip");
    scene.service("web", "");
    for client in scene.inside() {
        for to in scene.vips("web") {
            answers(&client, to);
            answers_udp(&client, to);
        }
    }
}

#[test]
fn node_ports_answer_pods_hosts_and_outside() {
    let scene = Scene::with_web("nodeport");
    scene.service("web", ", type: NodePort");
    let (tcp, udp) = (scene.node_port("web", "tcp"), scene.node_port("web", "udp"));
    let outside = scene.cluster.host(OUTSIDE);
    for client in scene.inside().into_iter().chain([outside]) {
        for host in HOSTS {
            answers(&client, SocketAddr::new(parse(host), tcp));
            answers_udp(&client, SocketAddr::new(parse(host), udp));
        }
    }
}

#[test]
fn load_balancer_and_external_ips_answer_pods_hosts_and_outside() {
    const EXTERNAL: [&str; 2] = ["198.51.100.7", "2001:db8:7::7"];
    const BALANCER: [&str; 2] = ["198.51.100.8", "2001:db8:7::8"];
    let scene = Scene::with_web("external");
    scene.service(
        "web",
        &format!(", type: LoadBalancer, externalIPs: {EXTERNAL:?}"),
    );
    let status = format!(
        r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{}"}},{{"ip":"{}"}}]}}}}}}"#,
        BALANCER[0], BALANCER[1]
    );
    scene.kubectl(&[
        "patch",
        "service",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ]);
    let all = || EXTERNAL.into_iter().chain(BALANCER);
    let outside = Routed::to(
        &scene,
        all()
            .zip([HOSTS[0], HOSTS[2], HOSTS[1], HOSTS[3]])
            .collect(),
    );
    let client = outside.scene.cluster.host(OUTSIDE);
    for client in scene.inside().into_iter().chain([client]) {
        for address in all() {
            answers(&client, SocketAddr::new(parse(address), PORT));
            answers_udp(&client, SocketAddr::new(parse(address), PORT));
        }
    }
}

/// Routes of the outside machine, removed at the end.
struct Routed<'a> {
    scene: &'a Scene,
    routes: Vec<(&'a str, &'a str)>,
}

impl<'a> Routed<'a> {
    fn to(scene: &'a Scene, routes: Vec<(&'a str, &'a str)>) -> Self {
        for (address, gateway) in &routes {
            scene
                .cluster
                .run(OUTSIDE, &["ip", "route", "add", address, "via", gateway])
                .unwrap();
        }
        Self { scene, routes }
    }
}

impl Drop for Routed<'_> {
    fn drop(&mut self) {
        for (address, _) in &self.routes {
            // It may not have been added.
            let _ = self
                .scene
                .cluster
                .run(OUTSIDE, &["ip", "route", "del", address]);
        }
    }
}

#[test]
fn local_traffic_policy_keeps_the_clients_address() {
    let scene = Scene::with_web("local");
    scene.service("web", ", type: NodePort, externalTrafficPolicy: Local");
    let port = scene.node_port("web", "tcp");
    let outside = scene.cluster.host(OUTSIDE);
    let nodes = scene.kubectl(&[
        "get",
        "pod",
        "-l",
        "app=web",
        "-o",
        "jsonpath={range .items[*]}{.spec.nodeName}={.metadata.name} {end}",
    ]);
    for (index, host) in HOSTS.into_iter().enumerate() {
        let answer = answers(&outside, SocketAddr::new(parse(host), port));
        let own = if host.contains(':') {
            "fd30::200"
        } else {
            "172.30.0.200"
        };
        assert_eq!(answer.peer.ip(), parse(own), "{host}");
        let expected = format!("{}={}", NODES[index % 2], answer.name);
        assert!(
            nodes.split(' ').any(|word| word == expected),
            "{host} answered by {}: {nodes}",
            answer.name
        );
    }
}
