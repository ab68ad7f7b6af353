//! Policy beside another implementation of Services, here netfilter's rules in the nodes: with `services: off` nothing is
//! translated by this dataplane, and policy is asked of the backends that the other one chose.

use std::fmt::Write;
use std::net::SocketAddr;

use sluice_lab::topology::Dual;
use sluice_lab::wait;

use crate::world::{Client, PATIENCE, TCP, UDP, World, at, vip};

/// Clients and the pods they ask, by node. Not both on the second: answers between pods of one bridge pass
/// netfilter only where a module of the kernel sends them there.
const PAIRS: [(u8, u8); 3] = [(1, 1), (1, 2), (2, 1)];

/// The frontend that the pod `web-<node>` serves.
fn frontend(node: u8) -> Dual {
    vip(node)
}

/// Two nodes, each with a client and a pod that serves a frontend, and with rules for all frontends.
fn world() -> World {
    let mut world = World::with_args(&["--services=off"]);
    for node in [1, 2] {
        let name = format!("web-{node}");
        world.pod(&name, node, &[("app", &name)]);
        world.service(&name, frontend(node));
    }
    for node in [1, 2] {
        translate(&world, node);
    }
    for (node, web) in PAIRS {
        for to in at(frontend(web), 80) {
            assert_eq!(
                world.client(node).eventually_gets(to).name,
                format!("web-{web}")
            );
        }
    }
    world
}

/// Translates the frontends in a node, as kube-proxy does: on the way in, before routing.
fn translate(world: &World, node: u8) {
    let mut rules = String::new();
    for web in [1, 2] {
        let pod = world.plane.pod(&format!("web-{web}")).addrs();
        for (vip, pod) in frontend(web).both().into_iter().zip(pod.both()) {
            let family = if vip.is_ipv4() { "ip" } else { "ip6" };
            for (proto, port, target) in [("tcp", 80, TCP), ("udp", 53, UDP)] {
                let to = SocketAddr::new(pod, target);
                writeln!(
                    rules,
                    "{family} daddr {vip} {proto} dport {port} dnat {family} to {to}"
                )
                .expect("a string takes all");
            }
        }
    }
    let netns = world.plane.cluster().node(node).netns();
    let table = format!(
        "table inet services {{ chain prerouting {{ type nat hook prerouting priority dstnat;\n{rules}}}\n}}\n"
    );
    let file = netns.run_of().dir().join(format!("services-{node}.nft"));
    std::fs::write(&file, table).unwrap();
    netns
        .command("nft", &["-f", &file.display().to_string()])
        .unwrap();
}

/// Waits until a client gets answers from the frontend, by TCP and UDP, or from neither.
fn await_reached(client: &Client, web: u8, reached: bool) {
    for (to, datagrams) in at(frontend(web), 80).into_iter().zip(at(frontend(web), 53)) {
        let what = format!("{to} to be reached by {}: {reached}", client.name);
        wait::until(PATIENCE, &what, || {
            let answers = (client.try_get(to), client.ask(datagrams));
            let as_wanted = match &answers {
                (Ok(_), Ok(_)) => reached,
                (Err(one), Err(other)) => !reached && one.is_timeout() && other.is_timeout(),
                _ => false,
            };
            if as_wanted {
                Ok(())
            } else {
                Err(format!("{answers:?}"))
            }
        })
        .unwrap();
    }
}

#[test]
fn a_sender_is_judged_by_the_backend_that_another_chose() {
    let mut world = world();
    world.yaml(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web-1}
spec:
  podSelector: {matchLabels: {role: client}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: web-1}}}]}]
",
    );
    for client in world.pods() {
        await_reached(&client, 2, false);
        await_reached(&client, 1, true);
    }
    world
        .plane
        .delete_object("NetworkPolicy", "only-web-1")
        .unwrap();
    await_reached(&world.client(1), 2, true);
}

#[test]
fn a_backend_is_closed_to_whom_it_does_not_name() {
    let mut world = world();
    for web in [1, 2] {
        world.yaml(&format!(
            "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web-{web}}}
spec:
  podSelector: {{matchLabels: {{app: web-{web}}}}}
  ingress: [{{from: [{{podSelector: {{matchLabels: {{friend: 'yes'}}}}}}]}}]
"
        ));
    }
    for node in [1, 2] {
        world.pod(&format!("friend-{node}"), node, &[("friend", "yes")]);
    }
    for (node, web) in PAIRS {
        await_reached(&world.client(node), web, false);
        await_reached(&world.client_in(&format!("friend-{node}")), web, true);
    }
}
