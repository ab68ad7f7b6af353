//! A pod: a namespace joined to its node by a veth pair.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::addr::{self, Dual};
use super::{Cni, Family, Node};
use crate::netns::Netns;

/// Numbers the host sides of the veth pairs of this process.
static NEXT_VETH: AtomicU32 = AtomicU32::new(1);

/// A pod. Dropping it removes its interface and its namespace, with the processes in it.
#[derive(Debug)]
pub struct Pod {
    name: String,
    netns: Arc<Netns>,
    host: u8,
    host_if: String,
    node: Arc<Node>,
}

impl Pod {
    pub(super) fn create(node: &Arc<Node>, name: &str, wanted: Option<u8>) -> Result<Pod> {
        let netns = Arc::new(Netns::create(
            node.netns().run_of(),
            &format!("pod-{name}"),
        )?);
        let host = node.take_host(wanted)?;
        let host_if = format!("veth{:08x}", NEXT_VETH.fetch_add(1, Ordering::Relaxed));
        let pod = Pod {
            name: name.to_owned(),
            netns,
            host,
            host_if,
            node: node.clone(),
        };
        pod.join()
            .with_context(|| format!("cannot join the pod {name} to {}", node.name()))?;
        Ok(pod)
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &Arc<Netns> {
        &self.netns
    }

    /// Its node.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its addresses.
    pub fn addrs(&self) -> Dual {
        addr::pod(self.node.index(), self.host)
    }

    /// The name of the host side of its veth pair, in its node's namespace.
    pub fn host_if(&self) -> &str {
        &self.host_if
    }

    /// Makes the pair and both ends' addresses and routes.
    fn join(&self) -> Result<()> {
        let (host_if, name) = (&self.host_if, self.netns.name());
        let mut on_node = vec![format!(
            "link add {host_if} type veth peer name eth0 netns {name}"
        )];
        match self.node.cni() {
            Cni::Ptp => on_node.extend(self.ptp_host_side()),
            Cni::Bridge => on_node.push(format!("link set {host_if} master cni0 up")),
        }
        // The host side first, so that the pod's first packet meets a complete path.
        self.node.netns().ip(on_node)?;
        self.netns.ip(match self.node.cni() {
            Cni::Ptp => self.ptp_pod_side(),
            Cni::Bridge => self.bridge_pod_side(),
        })
    }

    /// The gateway's address on every pod's veth, and a route to the one pod behind it.
    fn ptp_host_side(&self) -> Vec<String> {
        let (host_if, pod, gateway) = (&self.host_if, self.addrs(), self.node.gateway());
        vec![
            format!("link set {host_if} up"),
            format!("addr add {}/32 dev {host_if}", gateway.v4),
            format!("addr add {}/128 dev {host_if} nodad", gateway.v6),
            format!("route add {}/32 dev {host_if} scope link", pod.v4),
            format!("route add {}/128 dev {host_if}", pod.v6),
        ]
    }

    /// The pod's subnet goes through the gateway too: nothing but the gateway is on the link.
    fn ptp_pod_side(&self) -> Vec<String> {
        let (pod, gateway) = (self.addrs(), self.node.gateway());
        let [cidr4, cidr6] = self.node.pod_cidrs();
        vec![
            format!("addr add {}/24 dev eth0 noprefixroute", pod.v4),
            format!("addr add {}/64 dev eth0 nodad noprefixroute", pod.v6),
            "link set eth0 up".to_owned(),
            format!(
                "route add {}/32 dev eth0 scope link src {}",
                gateway.v4, pod.v4
            ),
            format!("route add {cidr4} via {} src {}", gateway.v4, pod.v4),
            format!("route add default via {}", gateway.v4),
            format!("route add {}/128 dev eth0", gateway.v6),
            format!("route add {cidr6} via {}", gateway.v6),
            format!("route add default via {}", gateway.v6),
        ]
    }

    fn bridge_pod_side(&self) -> Vec<String> {
        let (pod, gateway) = (self.addrs(), self.node.gateway());
        let mut lines = vec![
            format!("addr add {}/24 dev eth0", pod.v4),
            format!("addr add {}/64 dev eth0 nodad", pod.v6),
            "link set eth0 up".to_owned(),
        ];
        lines.extend(
            Family::ALL.map(|family| format!("route add default via {}", gateway.ip(family))),
        );
        lines
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.node.netns().run_of().is_kept() {
            return;
        }
        // As a CNI plugin's DEL: the pair goes at once, not when the kernel ends the namespace. The
        // neighbours are forgotten, as the next pod at the address would announce itself.
        let [v4, v6] = self.addrs().both();
        let gone = self.node.netns().ip([
            format!("link del {}", self.host_if),
            format!("neigh flush to {v4}"),
            format!("neigh flush to {v6}"),
        ]);
        if let Err(error) = gone {
            eprintln!("sluice-lab: pod {}: {error:#}", self.name);
        }
        self.node.free_host(self.host);
    }
}
