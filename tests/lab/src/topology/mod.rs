//! A cluster in namespaces: nodes, pods, a switch between the nodes and a client outside.
//!
//! | what | where |
//! |---|---|
//! | switch | a bridge, 172.30.0.1 and fd30::1, the nodes' default gateway |
//! | node i | `eth0` 172.30.0.1i / fd30::1i, pods 10.244.i.0/24 and fd44:i::/64 |
//! | outside | `eth0` 172.30.0.200 / fd30::200 |
//!
//! A node's uplink is a veth, as it is for nodes in containers: only its address and routes tell
//! it from a pod's.

mod addr;
mod node;
mod pod;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

pub use addr::{Dual, Family};
pub use node::Node;
pub use pod::Pod;

use crate::netns::Netns;
use crate::run::Run;

/// How a node joins its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cni {
    /// Point to point, as CNI `ptp`: a route to each pod's veth, which carries the gateway address.
    Ptp,
    /// One bridge `cni0` with the gateway address, as CNI `bridge`; hairpin is off on its ports.
    Bridge,
}

impl Cni {
    /// Both styles.
    pub const ALL: [Cni; 2] = [Cni::Ptp, Cni::Bridge];

    /// The name of the CNI plugin.
    pub fn name(self) -> &'static str {
        match self {
            Cni::Ptp => "ptp",
            Cni::Bridge => "bridge",
        }
    }
}

/// A cluster. Dropping it (after its pods) removes everything.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Arc<Node>>,
    outside: Arc<Netns>,
    underlay: Netns,
    run: Arc<Run>,
}

impl Cluster {
    /// Makes `nodes` nodes (1 to 9) with routes to each other's pods, and a client outside.
    ///
    /// # Errors
    /// Not root, or the kernel refuses something.
    pub fn new(nodes: u8, cni: Cni) -> Result<Cluster> {
        Cluster::of(&vec![cni; nodes.into()])
    }

    /// [`Cluster::new`] with a node for each style given.
    ///
    /// # Errors
    /// Not root, or the kernel refuses something.
    pub fn of(nodes: &[Cni]) -> Result<Cluster> {
        ensure!(
            (1..=9).contains(&nodes.len()),
            "a cluster has 1 to 9 nodes, not {}",
            nodes.len()
        );
        let run = Run::start()?;
        let underlay = make_underlay(&run)?;
        let outside = Arc::new(Netns::create(&run, "outside")?);
        node::plug(&underlay, &outside, "outside", addr::OUTSIDE)?;
        let nodes = (1..)
            .zip(nodes)
            .map(|(index, cni)| Ok(Arc::new(Node::create(&run, &underlay, index, *cni)?)))
            .collect::<Result<Vec<_>>>()?;
        let cluster = Cluster {
            nodes,
            outside,
            underlay,
            run,
        };
        cluster
            .route_pods()
            .context("cannot route between the nodes")?;
        Ok(cluster)
    }

    /// The run that everything belongs to.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Node number `index`, from 1.
    ///
    /// # Panics
    /// There is no such node.
    pub fn node(&self, index: u8) -> &Arc<Node> {
        &self.nodes[usize::from(index) - 1]
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The namespace of the client outside the cluster.
    pub fn outside(&self) -> &Arc<Netns> {
        &self.outside
    }

    /// The outside client's addresses.
    pub fn outside_addrs(&self) -> Dual {
        addr::OUTSIDE
    }

    /// The namespace of the switch between the nodes.
    pub fn underlay(&self) -> &Netns {
        &self.underlay
    }

    /// The switch's addresses: the nodes' default gateway.
    pub fn switch_addrs(&self) -> Dual {
        addr::SWITCH
    }

    /// Adds a pod to a node, at the node's next free address.
    ///
    /// # Errors
    /// The name is taken, or the node's addresses are used up.
    pub fn add_pod(&self, node: u8, name: &str) -> Result<Pod> {
        Pod::create(self.node(node), name, None)
    }

    /// Adds a pod at a given address of its node's range (`host` is the last part of the address),
    /// for tests in which an address is used again.
    ///
    /// # Errors
    /// The name or the address is taken.
    pub fn add_pod_at(&self, node: u8, name: &str, host: u8) -> Result<Pod> {
        Pod::create(self.node(node), name, Some(host))
    }

    /// Every node, the switch and the outside client reach a pod through its node.
    fn route_pods(&self) -> Result<()> {
        let routes = |skip: Option<u8>| -> Vec<String> {
            let others = self.nodes.iter().filter(|node| Some(node.index()) != skip);
            others.flat_map(|node| node.routes_to_its_pods()).collect()
        };
        self.underlay.ip(routes(None))?;
        self.outside.ip(routes(None))?;
        for node in &self.nodes {
            node.netns().ip(routes(Some(node.index())))?;
        }
        Ok(())
    }
}

fn make_underlay(run: &Arc<Run>) -> Result<Netns> {
    let underlay = Netns::create(run, "underlay")?;
    node::forward(&underlay)?;
    underlay.ip([
        "link add br0 address 0a:58:ac:1e:00:01 type bridge".to_owned(),
        format!("addr add {}/24 dev br0", addr::SWITCH.v4),
        format!("addr add {}/64 dev br0 nodad", addr::SWITCH.v6),
        "link set br0 up".to_owned(),
    ])?;
    Ok(underlay)
}
