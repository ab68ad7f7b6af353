//! Pods.

use std::net::IpAddr;

use super::{Labels, ObjectKey, Protocol, Text};

/// A pod, reduced to what routing and policy depend on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`, empty if the source has none.
    pub uid: Text,
    /// Labels.
    pub labels: Labels,
    /// `status.podIPs`; empty until it is known.
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`; `None` until it is scheduled.
    pub node: Option<Text>,
    /// The phase is Succeeded or Failed: the address may already belong to another pod.
    pub terminal: bool,
    /// The condition Ready is true.
    pub ready: bool,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// It uses its node's network namespace: neither subject nor peer of policies.
    pub host_network: bool,
    /// Ports of its containers, restartable init containers included.
    pub ports: Vec<ContainerPort>,
}

/// A port of a container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContainerPort {
    /// Its name; empty for none.
    pub name: Text,
    /// Protocol.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

impl Pod {
    /// A running, ready pod without labels, addresses or ports.
    pub fn new(key: ObjectKey) -> Self {
        Self {
            key,
            uid: Text::from(""),
            labels: Labels::new(),
            ips: Vec::new(),
            node: None,
            terminal: false,
            ready: true,
            terminating: false,
            host_network: false,
            ports: Vec::new(),
        }
    }

    /// True if policies see the pod: it lives and has a network namespace of its own.
    pub fn is_policy_pod(&self) -> bool {
        !self.terminal && !self.host_network
    }

    /// Numbers of the container ports with this name and protocol.
    pub fn named_ports(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        let wanted = move |port: &&ContainerPort| {
            port.protocol == protocol && &*port.name == name && !name.is_empty()
        };
        self.ports.iter().filter(wanted).map(|port| port.port)
    }
}
