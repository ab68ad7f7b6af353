//! Endpoints of Service ports: from slices, or from the selector where there is none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use crate::snapshot::{
    EndpointSlice, Labels, ObjectKey, Place, Pod, Service, ServicePort, Snapshot, TargetPort, Text,
};

/// An endpoint of one Service port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Address.
    pub(super) addr: IpAddr,
    /// Port.
    pub(super) port: u16,
    /// It takes new connections.
    pub(super) ready: bool,
    /// It works, though it may be about to go.
    pub(super) serving: bool,
    /// It is about to go.
    pub(super) terminating: bool,
    /// It is on this node.
    pub(super) local: bool,
    /// What its slice says of where it is and for whom.
    pub(super) place: Option<&'a Place>,
    /// Its pod, if that is known.
    pub(super) pod: Option<&'a Pod>,
}

impl Target<'_> {
    /// True if it may carry connections, new or old.
    pub(super) fn is_usable(&self) -> bool {
        self.ready || self.serving
    }
}

/// Finds endpoints without a scan of all objects for each Service.
pub(super) struct Index<'a> {
    snapshot: &'a Snapshot,
    slices: HashMap<&'a ObjectKey, Vec<&'a EndpointSlice>>,
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Pod>>,
    by_ip: HashMap<IpAddr, Vec<&'a Pod>>,
    /// Addresses behind this node's devices.
    local: HashSet<IpAddr>,
}

impl<'a> Index<'a> {
    /// Indexes a snapshot.
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let devices = snapshot.interfaces.values();
        let mut index = Self {
            snapshot,
            slices: HashMap::new(),
            by_label: HashMap::new(),
            by_ip: HashMap::new(),
            local: devices
                .flat_map(|device| &device.addresses)
                .copied()
                .collect(),
        };
        for slice in snapshot.slices.values() {
            index.slices.entry(&slice.service).or_default().push(slice);
        }
        for pod in snapshot.pods.values().filter(|pod| !pod.terminal) {
            for (key, value) in &pod.labels {
                index
                    .by_label
                    .entry((&pod.key.namespace, key, value))
                    .or_default()
                    .push(pod);
            }
            for &ip in &pod.ips {
                index.by_ip.entry(ip).or_default().push(pod);
            }
        }
        index
    }

    /// The Service with this name.
    pub(super) fn service(&self, key: &ObjectKey) -> Option<&'a Service> {
        self.snapshot.services.get(key)
    }

    /// Endpoints of a Service's port, of both families, by address and port.
    pub(super) fn targets(&self, service: &Service, port: &ServicePort) -> Vec<Target<'a>> {
        let mut merged = BTreeMap::new();
        match self.slices.get(&service.key) {
            Some(slices) => slices
                .iter()
                .for_each(|slice| self.add_slice(service, slice, port, &mut merged)),
            None if self.snapshot.node.slices_only => {}
            None => self.add_selected(service, port, &mut merged),
        }
        merged.into_values().collect()
    }

    /// An endpoint without a node name is on this node if one of its devices has the address.
    fn is_local(&self, node: Option<&Text>, address: IpAddr) -> bool {
        node.map_or_else(
            || self.local.contains(&address),
            |node| *node == self.snapshot.node.name,
        )
    }

    /// The pod that serves a Service at an address. Pods in their node's network share its address: the
    /// Service's selector tells them apart.
    fn pod_at(&self, service: &Service, address: IpAddr) -> Option<&'a Pod> {
        let here = self.by_ip.get(&address).into_iter().flatten();
        here.copied().find(|pod| match &service.selector {
            Some(selector) => {
                pod.key.namespace == service.key.namespace && is_selected(pod, selector)
            }
            None => true,
        })
    }

    fn add_slice(
        &self,
        service: &Service,
        slice: &'a EndpointSlice,
        port: &ServicePort,
        merged: &mut Merged<'a>,
    ) {
        let matching = slice
            .ports
            .iter()
            .filter(|own| own.name == port.name && own.protocol == port.protocol);
        for own in matching {
            for endpoint in &slice.endpoints {
                let target = Target {
                    addr: endpoint.address,
                    port: own.port,
                    ready: endpoint.ready,
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                    local: self.is_local(endpoint.node(), endpoint.address),
                    place: endpoint.place.as_deref(),
                    pod: self.pod_at(service, endpoint.address),
                };
                merge(merged, target);
            }
        }
    }

    fn labelled<'b>(&'b self, namespace: &'b str, key: &'b str, value: &'b str) -> &'b [&'a Pod] {
        self.by_label
            .get(&(namespace, key, value))
            .map_or(&[], Vec::as_slice)
    }

    fn add_selected(&self, service: &Service, port: &ServicePort, merged: &mut Merged<'a>) {
        let Some(selector) = service
            .selector
            .as_ref()
            .filter(|selector| !selector.is_empty())
        else {
            return;
        };
        let candidates = selector
            .iter()
            .map(|(key, value)| self.labelled(&service.key.namespace, key, value));
        let fewest = candidates.min_by_key(|pods| pods.len()).unwrap_or(&[]);
        for pod in fewest.iter().filter(|pod| is_selected(pod, selector)) {
            let Some(number) = target_port(pod, port) else {
                continue;
            };
            for &addr in &pod.ips {
                let target = Target {
                    addr,
                    port: number,
                    ready: service.publish_not_ready || (pod.ready && !pod.terminating),
                    serving: pod.ready,
                    terminating: pod.terminating,
                    local: self.is_local(pod.node.as_ref(), addr),
                    place: None,
                    pod: Some(pod),
                };
                merge(merged, target);
            }
        }
    }
}

fn is_selected(pod: &Pod, selector: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| pod.labels.get(key) == Some(value))
}

type Merged<'a> = BTreeMap<(IpAddr, u16), Target<'a>>;

/// An address that two slices, or two pods, have is one endpoint: the one that is not about to go.
fn merge<'a>(merged: &mut Merged<'a>, target: Target<'a>) {
    let rank = |target: &Target<'_>| (!target.terminating, target.ready, target.serving);
    let slot = merged.entry((target.addr, target.port)).or_insert(target);
    if rank(slot) < rank(&target) {
        *slot = target;
    }
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod.named_ports(name, port.protocol).next(),
    }
}
