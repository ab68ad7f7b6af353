//! Endpoints as slices have them.

use serde_json::{Value, json};
use sluice_lab::kube::PodRun;
use sluice_lab::kube::objects::{ServiceManifest, SliceManifest};
use sluice_lab::topology::Family;
use sluice_lab::workload::ServerSpec;

use crate::world::{TCP, World, at, pod, vip};

const BOTH: [&str; 2] = ["web-1", "web-2"];

fn service() -> ServiceManifest {
    ServiceManifest::new("web")
        .cluster_ips(vip(1).both())
        .port("http", 80, TCP)
}

fn slice(family: Family) -> SliceManifest {
    SliceManifest::new("web", family).port("http", TCP)
}

fn leaving() -> Value {
    json!({ "conditions": { "ready": false, "serving": true, "terminating": true } })
}

fn everywhere_gets(world: &World, names: &[&str]) {
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.await_names(to, names);
        }
    }
}

#[test]
fn an_address_in_two_slices_is_one_endpoint_and_not_the_one_about_to_go() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service());
    for family in Family::ALL {
        let [one, two] = BOTH.map(|name| world.plane.pod(name));
        let first = slice(family).pod(one, &leaving()).pod(two, &leaving());
        world.plane.apply(&first.object()).unwrap();
    }
    everywhere_gets(&world, &BOTH);
    for family in Family::ALL {
        let second = slice(family).suffix("second");
        let second = second.pod(world.plane.pod("web-1"), &json!({}));
        world.plane.apply(&second.object()).unwrap();
    }
    everywhere_gets(&world, &["web-1"]);
}

#[test]
fn a_named_port_has_the_number_that_its_slice_says() {
    let mut world = World::new();
    for (name, node, port) in [("web-1", 1, 8081), ("web-2", 2, 8082)] {
        let server = ServerSpec {
            tcp: vec![port],
            ..ServerSpec::default()
        };
        let run = pod(name, node, &[]);
        world.plane.run(PodRun { server, ..run }).unwrap();
    }
    let named = json!({ "name": "http", "port": 80, "targetPort": "http" });
    let service = ServiceManifest::new("web").cluster_ips(vip(1).both());
    world.apply(&service.port_object(named));
    for family in Family::ALL {
        for (name, port) in [("web-1", 8081), ("web-2", 8082)] {
            let slice = SliceManifest::new("web", family).suffix(name);
            let slice = slice.port("http", port);
            let slice = slice.pod(world.plane.pod(name), &json!({}));
            world.plane.apply(&slice.object()).unwrap();
        }
    }
    everywhere_gets(&world, &BOTH);
}

#[test]
fn slices_of_headless_services_and_ports_of_other_names_are_nobodys() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.pod("web-3", 1, &[("app", "web")]);
    world.apply(&service());
    for family in Family::ALL {
        let ours = slice(family).pod(world.plane.pod("web-1"), &json!({}));
        let headless = slice(family).suffix("headless");
        let headless = headless.label("service.kubernetes.io/headless", "");
        let headless = headless.pod(world.plane.pod("web-2"), &json!({}));
        let other = SliceManifest::new("web", family).suffix("other");
        let other = other.port("metrics", TCP);
        let other = other.pod(world.plane.pod("web-3"), &json!({}));
        for slice in [headless, other, ours] {
            world.plane.apply(&slice.object()).unwrap();
        }
    }
    everywhere_gets(&world, &["web-1"]);
}

#[test]
fn each_family_has_its_own_endpoints() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.apply(&service());
    for (family, name) in Family::ALL.into_iter().zip(BOTH) {
        let slice = slice(family).pod(world.plane.pod(name), &json!({}));
        world.plane.apply(&slice.object()).unwrap();
    }
    let [v4, v6] = at(vip(1), 80);
    for client in world.everywhere() {
        client.await_names(v4, &["web-1"]);
        client.await_names(v6, &["web-2"]);
    }
    world
        .plane
        .delete_object("EndpointSlice", "web-ipv6")
        .unwrap();
    for client in world.everywhere() {
        client.await_refused(v6);
        client.await_names(v4, &["web-1"]);
    }
    let only = ServiceManifest::new("web").cluster_ips([vip(1).both()[0]]);
    world.apply(&only.port("http", 80, TCP));
    for client in world.everywhere() {
        client.await_unserved(v6);
        client.await_names(v4, &["web-1"]);
    }
}
