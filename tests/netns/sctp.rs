//! SCTP sockets through Services and policies, on a kernel that has them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::netns::Netns;
use sluice_lab::wait;
use socket2::{Domain, Protocol, Socket, Type};

use crate::world::{Client, PATIENCE, REQUEST, World, at, vip};

/// The port that the pods listen on.
const TARGET: u16 = 9899;
/// The Service's port.
const PORT: u16 = 2905;
/// The Service's port on the nodes.
const NODE_PORT: u16 = 32_905;
/// How long an association is waited for that is not to come about.
const REFUSED: Duration = Duration::from_secs(2);

fn socket(to: SocketAddr) -> io::Result<Socket> {
    Socket::new(
        Domain::for_address(to),
        Type::STREAM,
        Some(Protocol::from(libc::IPPROTO_SCTP)),
    )
}

/// Answers each association with the pod's name.
fn serve(netns: &Arc<Netns>, ip: IpAddr, name: &str) {
    let at = SocketAddr::new(ip, TARGET);
    let listener = netns.run(|| {
        let listener = socket(at)?;
        listener.bind(&at.into())?;
        listener.listen(64)?;
        io::Result::Ok(listener)
    });
    let listener = listener.unwrap_or_else(|error| panic!("SCTP at {at}: {error}"));
    let name = name.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut peer, _)) = listener.accept() {
            // A client that left early is no concern of the next one.
            let _ = peer.write_all(name.as_bytes());
        }
    });
}

/// The name that is answered at an address.
fn ask(client: &Client, to: SocketAddr, within: Duration) -> io::Result<String> {
    client.netns.run(|| {
        let mut socket = socket(to)?;
        socket.connect_timeout(&to.into(), within)?;
        socket.set_read_timeout(Some(within))?;
        let mut name = [0; 64];
        let length = socket.read(&mut name)?;
        Ok(String::from_utf8_lossy(&name[..length]).into_owned())
    })
}

fn world() -> World {
    let mut world = World::new();
    world.pod_on_each_node("web");
    for name in ["web-1", "web-2"] {
        let pod = world.plane.pod(name);
        for ip in pod.addrs().both() {
            serve(pod.netns(), ip, name);
        }
    }
    let port = json!({
        "name": "m3ua", "protocol": "SCTP", "port": PORT, "targetPort": TARGET, "nodePort": NODE_PORT,
    });
    let service = ServiceManifest::new("web")
        .select("app", "web")
        .cluster_ips(vip(1).both());
    world.apply(&service.with("type", json!("NodePort")).port_object(port));
    world
}

/// Waits until the client gets an answer from both pods.
fn await_both(client: &Client, to: SocketAddr) {
    for name in ["web-1", "web-2"] {
        let what = format!("{} to be answered by {name} at {to}", client.name);
        wait::until(PATIENCE, &what, || match ask(client, to, REQUEST) {
            Ok(answer) if answer == name => Ok(()),
            Ok(answer) => Err(format!("{answer} answers")),
            Err(error) => Err(error.to_string()),
        })
        .unwrap();
    }
}

#[test]
fn associations_reach_every_pod_of_a_service_from_everywhere() {
    let world = world();
    for client in world.everywhere() {
        for to in at(vip(1), PORT) {
            await_both(&client, to);
        }
    }
    for node in [1, 2] {
        for to in world.node_at(node, NODE_PORT) {
            await_both(&world.outside(), to);
        }
    }
}

#[test]
fn policies_hold_for_associations() {
    let mut world = world();
    world.yaml(&format!(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: one}}
spec:
  podSelector: {{matchLabels: {{app: web}}}}
  ingress:
  - from: [{{podSelector: {{matchLabels: {{kind: friend}}}}}}]
    ports: [{{protocol: SCTP, port: {TARGET}}}]
"
    ));
    for node in [1, 2] {
        world.pod(&format!("friend-{node}"), node, &[("kind", "friend")]);
    }
    for client in world.pods() {
        for name in ["web-1", "web-2"] {
            for to in at(world.plane.pod(name).addrs(), TARGET) {
                let what = format!("{} to get nothing at {to}", client.name);
                wait::until(PATIENCE, &what, || match ask(&client, to, REFUSED) {
                    Err(_) => Ok(()),
                    Ok(answer) => Err(format!("{answer} answers")),
                })
                .unwrap();
            }
        }
    }
    for friend in ["friend-1", "friend-2"].map(|name| world.client_in(name)) {
        for to in at(vip(1), PORT) {
            await_both(&friend, to);
        }
    }
}
