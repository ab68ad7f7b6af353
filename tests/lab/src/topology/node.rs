//! A node: a namespace that forwards, with an uplink to the switch.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use super::addr::{self, Dual};
use super::{Cni, Family};
use crate::netns::Netns;
use crate::run::Run;

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    index: u8,
    cni: Cni,
    netns: Arc<Netns>,
    pool: Mutex<Pool>,
}

/// The pod addresses of a node, by their last part.
#[derive(Debug)]
struct Pool {
    next: u8,
    used: BTreeSet<u8>,
}

impl Node {
    pub(super) fn create(run: &Arc<Run>, underlay: &Netns, index: u8, cni: Cni) -> Result<Node> {
        let netns = Arc::new(Netns::create(run, &format!("node-{index}"))?);
        forward(&netns)?;
        plug(
            underlay,
            &netns,
            &format!("node-{index}"),
            addr::node(index),
        )?;
        let pool = Mutex::new(Pool {
            next: 2,
            used: BTreeSet::from([0, 1, 255]),
        });
        let node = Node {
            index,
            cni,
            netns,
            pool,
        };
        if cni == Cni::Bridge {
            let gateway = node.gateway();
            node.netns.ip([
                // An address of its own, as the CNI plugin sets it: else a bridge takes the lowest of
                // its ports', and pods go on sending to the old one when that changes.
                format!("link add cni0 address 0a:58:0a:f4:{index:02x}:01 type bridge"),
                format!("addr add {}/24 dev cni0", gateway.v4),
                format!("addr add {}/64 dev cni0 nodad", gateway.v6),
                "link set cni0 up".to_owned(),
            ])?;
        }
        Ok(node)
    }

    /// Its number, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Its Kubernetes name.
    pub fn name(&self) -> String {
        format!("node-{}", self.index)
    }

    /// How it joins its pods.
    pub fn cni(&self) -> Cni {
        self.cni
    }

    /// Its namespace.
    pub fn netns(&self) -> &Arc<Netns> {
        &self.netns
    }

    /// Its own addresses, on its uplink.
    pub fn addrs(&self) -> Dual {
        addr::node(self.index)
    }

    /// Its pods' gateway, an address of the node too.
    pub fn gateway(&self) -> Dual {
        addr::pod(self.index, 1)
    }

    /// The ranges its pods take their addresses from, IPv4 first.
    pub fn pod_cidrs(&self) -> [String; 2] {
        let first = addr::pod(self.index, 0);
        [format!("{}/24", first.v4), format!("{}/64", first.v6)]
    }

    /// `ip` commands for a host on the underlay to reach this node's pods.
    pub(super) fn routes_to_its_pods(&self) -> Vec<String> {
        let [v4, v6] = self.pod_cidrs();
        let via = self.addrs();
        vec![
            format!("route add {v4} via {}", via.v4),
            format!("route add {v6} via {}", via.v6),
        ]
    }

    /// Takes an address: the one asked for, or the next free one. Like CNI's host-local, a freed
    /// address is used again only after all others were.
    pub(super) fn take_host(&self, wanted: Option<u8>) -> Result<u8> {
        let mut pool = self.pool();
        if let Some(host) = wanted {
            ensure!(
                pool.used.insert(host),
                "{}: address .{host} is in use",
                self.name()
            );
            return Ok(host);
        }
        for _ in 0..=u8::MAX {
            let host = pool.next;
            pool.next = pool.next.wrapping_add(1);
            if pool.used.insert(host) {
                return Ok(host);
            }
        }
        bail!("{}: all pod addresses are in use", self.name())
    }

    pub(super) fn free_host(&self, host: u8) {
        self.pool().used.remove(&host);
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a namespace forward as a node does: reverse-path filter loose, as systemd sets it.
pub(super) fn forward(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/default/forwarding", "1"),
        ("net/ipv4/conf/all/rp_filter", "2"),
        ("net/ipv4/conf/default/rp_filter", "2"),
    ])
}

/// Plugs `eth0` of a namespace into the switch, with an address and the default route.
pub(super) fn plug(underlay: &Netns, netns: &Netns, port: &str, dual: Dual) -> Result<()> {
    underlay
        .ip([
            format!(
                "link add {port} type veth peer name eth0 netns {}",
                netns.name()
            ),
            format!("link set {port} master br0 up"),
        ])
        .with_context(|| format!("cannot plug {} into the switch", netns.name()))?;
    let mut lines = vec![
        format!("addr add {}/24 dev eth0", dual.v4),
        format!("addr add {}/64 dev eth0 nodad", dual.v6),
        "link set eth0 up".to_owned(),
    ];
    lines.extend(
        Family::ALL.map(|family| format!("route add default via {}", addr::SWITCH.ip(family))),
    );
    netns.ip(lines)
}
