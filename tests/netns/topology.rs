//! The lab itself: kernel routing alone joins everything, before any agent runs. A failure here is
//! the lab's, not the dataplane's.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sluice_lab::netns::Netns;
use sluice_lab::run;
use sluice_lab::topology::{Cluster, Cni, Family};

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers every connection with the client's address, until the test ends.
fn serve(netns: &Netns) {
    let listener = netns
        .run(|| TcpListener::bind(("::", PORT)))
        .expect("the port is free");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept works");
            let peer = stream
                .peer_addr()
                .expect("it has a peer")
                .ip()
                .to_canonical();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
}

/// The client address that a server at `to` sees.
fn seen_from(netns: &Netns, to: IpAddr) -> IpAddr {
    let answer = netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    });
    let answer = answer.unwrap_or_else(|error| panic!("{} to {to}: {error}", netns.name()));
    answer.parse().expect("the answer is an address")
}

fn everything_reaches_everything(cni: Cni) {
    let cluster = Cluster::new(2, cni).unwrap();
    let pods =
        [(1, "a"), (1, "b"), (2, "c")].map(|(node, name)| cluster.add_pod(node, name).unwrap());
    let mut ends: Vec<(Arc<Netns>, _)> = pods
        .iter()
        .map(|pod| (pod.netns().clone(), pod.addrs()))
        .collect();
    ends.extend(
        cluster
            .nodes()
            .iter()
            .map(|node| (node.netns().clone(), node.addrs())),
    );
    ends.push((cluster.outside().clone(), cluster.outside_addrs()));
    for (netns, _) in &ends {
        serve(netns);
    }
    for (client, own) in &ends {
        for (server, addrs) in &ends {
            for family in Family::ALL {
                let seen = seen_from(client, addrs.ip(family));
                // A node uses the address of the device towards its pod.
                let is_node = cluster
                    .nodes()
                    .iter()
                    .any(|node| node.netns().name() == client.name());
                if client.name() != server.name() && !is_node {
                    assert_eq!(
                        seen,
                        own.ip(family),
                        "{} to {}",
                        client.name(),
                        server.name()
                    );
                }
            }
        }
    }
}

#[test]
fn routing_joins_ptp_pods() {
    everything_reaches_everything(Cni::Ptp);
}

#[test]
fn routing_joins_bridge_pods() {
    everything_reaches_everything(Cni::Bridge);
}

#[test]
fn a_pod_that_is_dropped_leaves_no_interface_and_no_namespace() {
    for cni in Cni::ALL {
        let cluster = Cluster::new(1, cni).unwrap();
        let pod = cluster.add_pod(1, "gone").unwrap();
        let (path, host_if) = (pod.netns().path(), pod.host_if().to_owned());
        let links = || {
            cluster
                .node(1)
                .netns()
                .command("ip", &["-br", "link"])
                .unwrap()
        };
        assert!(path.exists() && links().contains(&host_if));
        drop(pod);
        assert!(!path.exists() && !links().contains(&host_if));
    }
}

#[test]
fn an_address_is_used_again_only_when_asked_for() {
    let cluster = Cluster::new(1, Cni::Ptp).unwrap();
    let first = cluster.add_pod(1, "first").unwrap().addrs();
    assert_ne!(cluster.add_pod(1, "second").unwrap().addrs(), first);
    let again = cluster
        .add_pod_at(1, "third", first.v4.octets()[3])
        .unwrap();
    assert_eq!(again.addrs(), first);
    assert!(
        cluster
            .add_pod_at(1, "fourth", first.v4.octets()[3])
            .is_err()
    );
}

#[test]
fn a_run_leaves_nothing_even_when_its_owner_panics() {
    let id = std::sync::Mutex::new(String::new());
    let panicked = thread::scope(|scope| {
        let owner = scope.spawn(|| {
            let cluster = Cluster::new(1, Cni::Bridge).unwrap();
            let _pod = cluster.add_pod(1, "a").unwrap();
            id.lock().unwrap().push_str(cluster.run().id());
            panic!("on purpose");
        });
        owner.join().is_err()
    });
    let id = id.into_inner().unwrap();
    assert!(panicked && !id.is_empty());
    assert!(run::list().unwrap().iter().all(|(other, _)| *other != id));
    let names = std::fs::read_dir("/run/netns").unwrap();
    let prefix = format!("sl-{id}-");
    assert!(
        names
            .flatten()
            .all(|name| !name.file_name().to_string_lossy().starts_with(&prefix))
    );
}
