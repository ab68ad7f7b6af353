//! Pods and uplinks of real clusters, as they come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use nix::net::if_::if_nametoindex;
use sluice::netlink::{Interface, NetEvent, Settings, watch};
use sluice_lab::netns::Netns;
use sluice_lab::topology::{Cluster, Cni, Pod};
use tokio::sync::mpsc::Receiver;

use super::PATIENCE;

/// What the events so far amount to.
#[derive(Default, Debug)]
struct Seen {
    pods: BTreeMap<String, Interface>,
    uplinks: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    in_sync: bool,
    events: usize,
}

impl Seen {
    fn apply(&mut self, event: NetEvent) {
        self.events += 1;
        match event {
            NetEvent::Pod(interface) => {
                self.pods.insert(interface.name.clone(), interface);
            }
            NetEvent::PodGone { name, .. } => drop(self.pods.remove(&name)),
            NetEvent::Uplink { name, ethernet, .. } => {
                assert!(ethernet);
                self.uplinks.insert(name);
            }
            NetEvent::UplinkGone { name, .. } => drop(self.uplinks.remove(&name)),
            NetEvent::NodeAddresses(addresses) => self.addresses = addresses,
            NetEvent::InSync => self.in_sync = true,
        }
    }

    async fn until(
        &mut self,
        events: &mut Receiver<NetEvent>,
        what: &str,
        holds: impl Fn(&Seen) -> bool,
    ) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(self) {
                self.apply(events.recv().await.expect("the watcher lives"));
            }
        });
        if waited.await.is_err() {
            panic!("waited for {what}; seen: {self:#?}");
        }
    }
}

/// Runs asynchronous work on a thread inside a namespace.
fn inside<T: Send>(netns: &Netns, work: impl AsyncFnOnce() -> T + Send) -> T {
    netns.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(work())
    })
}

fn has_addresses(pod: &Pod) -> impl Fn(&Seen) -> bool + use<> {
    let (name, addresses) = (pod.host_if().to_owned(), BTreeSet::from(pod.addrs().both()));
    move |seen| {
        let pod = seen.pods.get(&name);
        pod.is_some_and(|pod| pod.addresses == addresses && pod.mac != [0; 6])
    }
}

fn mac_of(netns: &Netns, device: &str) -> [u8; 6] {
    let text = netns
        .command("ip", &["-json", "link", "show", device])
        .unwrap();
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    let octets = links[0]["address"].as_str().unwrap().split(':');
    let octets: Vec<u8> = octets
        .map(|octet| u8::from_str_radix(octet, 16).unwrap())
        .collect();
    octets.try_into().unwrap()
}

fn pods_come_and_go(cni: Cni, settings: fn() -> Settings) {
    let cluster = Cluster::new(1, cni).unwrap();
    let early = cluster.add_pod(1, "early").unwrap();
    let netns = Arc::clone(cluster.node(1).netns());
    inside(&netns, async || {
        let mut events = watch(settings()).await.unwrap();
        let mut seen = Seen::default();
        seen.until(&mut events, "the start", |seen| seen.in_sync)
            .await;
        assert_eq!(Vec::from_iter(&seen.uplinks), ["eth0"]);
        let node = cluster.node(1);
        let mut own = BTreeSet::from(node.addrs().both());
        own.extend(node.gateway().both());
        assert_eq!(seen.addresses, own);
        assert_eq!(Vec::from_iter(seen.pods.keys()), [early.host_if()]);
        seen.until(
            &mut events,
            "the early pod's addresses",
            has_addresses(&early),
        )
        .await;
        let told = seen.pods[early.host_if()].clone();
        let ifindex = netns.run(|| if_nametoindex(early.host_if()).unwrap());
        assert_eq!(
            (told.ifindex, told.late, told.redirect_ok),
            (ifindex, true, true)
        );
        assert_eq!(told.mac, mac_of(early.netns(), "eth0"));
        assert_eq!(told.host_mac, mac_of(&netns, early.host_if()));

        let later = cluster.add_pod(1, "later").unwrap();
        seen.until(
            &mut events,
            "the later pod's addresses",
            has_addresses(&later),
        )
        .await;
        assert!(!seen.pods[later.host_if()].late);

        let extra: IpAddr = "10.244.1.77".parse().unwrap();
        let routes_rule = cni == Cni::Ptp;
        later
            .netns()
            .ip(["addr add 10.244.1.77/32 dev eth0"])
            .unwrap();
        if !routes_rule {
            seen.until(&mut events, "an address added in the pod", |seen| {
                seen.pods[later.host_if()].addresses.contains(&extra)
            })
            .await;
        }

        netns
            .command(
                "tc",
                &[
                    "qdisc",
                    "add",
                    "dev",
                    later.host_if(),
                    "root",
                    "tbf",
                    "rate",
                    "1gbit",
                    "burst",
                    "1mb",
                    "latency",
                    "50ms",
                ],
            )
            .unwrap();
        seen.until(&mut events, "the queue to forbid redirects", |seen| {
            !seen.pods[later.host_if()].redirect_ok
        })
        .await;
        netns
            .ip([format!("link set {} mtu 9000", later.host_if())])
            .unwrap();
        seen.until(&mut events, "the larger MTU to forbid redirects", |seen| {
            !seen.pods[early.host_if()].redirect_ok
        })
        .await;

        let gone = later.host_if().to_owned();
        drop(later);
        seen.until(&mut events, "the pod to go", |seen| {
            !seen.pods.contains_key(&gone) && seen.pods[early.host_if()].redirect_ok
        })
        .await;
    });
}

#[test]
fn pods_that_are_point_to_point() {
    pods_come_and_go(Cni::Ptp, Settings::default);
}

#[test]
fn pods_on_a_bridge() {
    pods_come_and_go(Cni::Bridge, Settings::default);
}

#[test]
fn addresses_without_entering_namespaces() {
    let without = || Settings {
        enter_namespaces: false,
        ..Settings::default()
    };
    for cni in Cni::ALL {
        let cluster = Cluster::new(1, cni).unwrap();
        let pod = cluster.add_pod(1, "pod").unwrap();
        // The neighbours' tables fill with traffic.
        for (own, gateway) in pod
            .addrs()
            .both()
            .into_iter()
            .zip(cluster.node(1).gateway().both())
        {
            let socket = pod.netns().run(|| UdpSocket::bind((own, 0)).unwrap());
            socket.send_to(b"hello", (gateway, 9)).unwrap();
        }
        let netns = Arc::clone(cluster.node(1).netns());
        inside(&netns, async || {
            let mut events = watch(without()).await.unwrap();
            let mut seen = Seen::default();
            seen.until(&mut events, cni.name(), has_addresses(&pod))
                .await;
        });
    }
}

#[test]
fn many_pods_at_once_are_all_told() {
    let cluster = Cluster::new(1, Cni::Bridge).unwrap();
    let netns = Arc::clone(cluster.node(1).netns());
    inside(&netns, async || {
        let mut events = watch(Settings::default()).await.unwrap();
        let pods: Vec<Pod> = (0..20)
            .map(|number| cluster.add_pod(1, &format!("pod-{number}")).unwrap())
            .collect();
        let mut seen = Seen::default();
        let all: Vec<_> = pods.iter().map(has_addresses).collect();
        seen.until(&mut events, "all pods", |seen| {
            all.iter().all(|has| has(seen))
        })
        .await;
        drop(pods);
        seen.until(&mut events, "all pods to go", |seen| seen.pods.is_empty())
            .await;
    });
}
