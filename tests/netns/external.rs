//! Addresses that clients outside use: of load balancers, and external IPs.

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::workload::udp::UdpClient;
use sluice_lab::workload::{Server, ServerSpec};

use crate::world::{Client, REQUEST, TCP, UDP, World, at, external, same_family, vip};

fn service(name: &str) -> ServiceManifest {
    ServiceManifest::new(name)
        .cluster_ips(vip(1).both())
        .port("http", 80, TCP)
        .udp_port("dns", 53, UDP)
}

/// Each client, those outside by either node, is served by both pods; pods see clients of their
/// cluster's pod network, and outside clients without a second node on the way, as they are.
fn serves_everybody(world: &World) {
    for client in world.everywhere() {
        serves(&client);
    }
    for client in world.pods() {
        for to in at(external(1), 80) {
            let seen = client.get(to).unwrap().peer.ip();
            assert_eq!(seen, same_family(client.addrs, to.ip()), "{to}");
        }
    }
    let outside = world.outside();
    for node in [1, 2] {
        world.route_outside(external(1), node);
        serves(&outside);
        for to in at(external(1), 80) {
            for _ in 0..12 {
                let answer = outside.get(to).unwrap();
                let expected = if answer.name == format!("web-{node}") {
                    outside.addrs
                } else {
                    world.host(node).addrs
                };
                let seen = answer.peer.ip();
                let name = answer.name;
                assert_eq!(seen, same_family(expected, to.ip()), "{name} by {to}");
            }
        }
    }
}

fn serves(client: &Client) {
    for to in at(external(1), 80) {
        client.await_names(to, &["web-1", "web-2"]);
    }
    for to in at(external(1), 53) {
        for _ in 0..4 {
            let asked = client
                .netns
                .run(|| UdpClient::open(to, false)?.ask(REQUEST));
            asked.unwrap_or_else(|error| panic!("{} to {to}: {error}", client.name));
        }
    }
}

#[test]
fn a_load_balancers_address_is_served_inside_and_outside() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service("web").load_balancer(external(1).both(), "VIP"));
    serves_everybody(&world);
}

#[test]
fn an_external_ip_is_served_inside_and_outside() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service("web").with("externalIPs", json!(external(1).both())));
    serves_everybody(&world);
}

#[test]
fn an_address_of_mode_proxy_is_left_to_the_load_balancer() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    let cluster = world.plane.cluster();
    let (addrs, via) = (external(2), cluster.outside_addrs());
    let here = [
        format!("addr add {}/32 dev lo", addrs.v4),
        format!("addr add {}/128 dev lo", addrs.v6),
    ];
    cluster.outside().ip(here).unwrap();
    let routes = [
        format!("route add {}/32 via {}", addrs.v4, via.v4),
        format!("route add {}/128 via {}", addrs.v6, via.v6),
    ];
    cluster.underlay().ip(routes).unwrap();
    let proxy = ServerSpec {
        name: "proxy".to_owned(),
        tcp: vec![80],
        ..ServerSpec::default()
    };
    let _proxy = cluster.outside().run(|| Server::start(proxy)).unwrap();
    let both = service("web")
        .load_balancer(external(1).both(), "VIP")
        .load_balancer(external(2).both(), "Proxy");
    world.apply(&both);
    for client in world.everywhere() {
        for to in at(external(1), 80) {
            client.await_names(to, &["web-1", "web-2"]);
        }
        for to in at(external(2), 80) {
            client.await_names(to, &["proxy"]);
        }
    }
}

#[test]
fn source_ranges_hold_for_each_family_by_itself() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.route_outside(external(1), 1);
    let [pod, other] = world.pods();
    let [host, other_host] = [1, 2].map(|node| world.host(node));
    let outside = world.outside();
    let all = [&pod, &other, &host, &other_host, &outside];
    let served = |clients: &[&Client], family: usize| {
        for client in clients {
            client.await_names(at(external(1), 80)[family], &["web-1", "web-2"]);
        }
    };
    let dropped = |clients: &[&Client], family: usize| {
        for client in clients {
            client.await_dropped(at(external(1), 80)[family]);
        }
    };
    let apply = |ranges: &[String]| {
        let service = service("web").load_balancer(external(1).both(), "VIP");
        world.apply(&service.with("loadBalancerSourceRanges", json!(ranges)));
    };
    let v4 = [&pod, &host].map(|client| format!(" {}/32 ", client.addrs.v4));
    apply(&v4);
    dropped(&[&other, &other_host, &outside], 0);
    served(&[&pod, &host], 0);
    served(&all, 1);
    let v6 = [&outside, &other].map(|client| format!("{}/128", client.addrs.v6));
    apply(&v6);
    dropped(&[&pod, &host, &other_host], 1);
    served(&[&outside, &other], 1);
    served(&all, 0);
    apply(&[&v4[..], &["::/0".to_owned()]].concat());
    served(&all, 1);
    dropped(&[&other, &other_host, &outside], 0);
    // They are for the load balancer's address alone.
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_names(to, &["web-1", "web-2"]);
        }
    }
}
