//! Endpoints of Service ports: from slices, or from the selector where there is none.

use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::rc::Rc;

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
    /// Its pod, if the pod is what it was found by.
    pub(super) pod: Option<&'a Pod>,
}

impl Target<'_> {
    /// True if it may carry connections, new or old.
    pub(super) fn is_usable(&self) -> bool {
        self.ready || self.serving
    }
}

/// Slices of each Service, as pairs of their keys: nearly all Services have one.
#[derive(Clone, Debug, Default)]
pub(super) struct Slices(BTreeSet<(ObjectKey, ObjectKey)>);

impl Slices {
    /// Adds one.
    pub(super) fn insert(&mut self, service: ObjectKey, slice: ObjectKey) {
        self.0.insert((service, slice));
    }

    /// Takes one out.
    pub(super) fn remove(&mut self, service: &ObjectKey, slice: &ObjectKey) {
        self.0.remove(&(service.clone(), slice.clone()));
    }

    /// Those of a Service, by key.
    pub(super) fn of(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let first = (service.clone(), ObjectKey::new("", ""));
        let pairs = self.0.range(first..);
        let service = service.clone();
        let of_service = pairs.take_while(move |(of, _)| *of == service);
        of_service.map(|(_, slice)| slice)
    }

    /// True if a Service has one.
    pub(super) fn has(&self, service: &ObjectKey) -> bool {
        self.of(service).next().is_some()
    }
}

/// Pods of a namespace by label.
type ByLabel<'a> = HashMap<(&'a str, &'a str), Vec<&'a Pod>>;

/// Finds endpoints without a scan of all objects for each Service. What only some Services need is
/// made when the first of them asks.
pub(super) struct Index<'a> {
    snapshot: &'a Snapshot,
    slices: &'a Slices,
    by_label: RefCell<HashMap<&'a str, Rc<ByLabel<'a>>>>,
    by_ip: OnceCell<HashMap<IpAddr, Vec<&'a Pod>>>,
    /// Addresses behind this node's devices.
    local: OnceCell<HashSet<IpAddr>>,
    /// An endpoint was looked for among them.
    asked_devices: Cell<bool>,
}

impl<'a> Index<'a> {
    /// For a snapshot as it is.
    pub(super) fn new(snapshot: &'a Snapshot, slices: &'a Slices) -> Self {
        Self {
            snapshot,
            slices,
            by_label: RefCell::default(),
            by_ip: OnceCell::new(),
            local: OnceCell::new(),
            asked_devices: Cell::new(false),
        }
    }

    /// True if an endpoint was looked for behind this node's devices since the last such question.
    pub(super) fn asked_devices(&self) -> bool {
        self.asked_devices.take()
    }

    /// The pod that serves a Service's endpoint. Pods in their node's network share its address: the
    /// Service's selector tells them apart.
    pub(super) fn pod(&self, service: &Service, target: &Target<'a>) -> Option<&'a Pod> {
        let here = || {
            let here = self.by_ip().get(&target.addr).into_iter().flatten();
            here.copied().find(|pod| match &service.selector {
                Some(selector) => {
                    pod.key.namespace == service.key.namespace && is_selected(pod, selector)
                }
                None => true,
            })
        };
        target.pod.or_else(here)
    }

    fn by_ip(&self) -> &HashMap<IpAddr, Vec<&'a Pod>> {
        self.by_ip.get_or_init(|| {
            let mut by_ip: HashMap<_, Vec<_>> = HashMap::new();
            for pod in self.snapshot.pods.values().filter(|pod| !pod.terminal) {
                for &ip in &pod.ips {
                    by_ip.entry(ip).or_default().push(pod);
                }
            }
            by_ip
        })
    }

    /// Endpoints of a Service's port, of both families, by address and port.
    pub(super) fn targets(&self, service: &'a Service, port: &ServicePort) -> Vec<Target<'a>> {
        let mut targets = Vec::new();
        if self.slices.has(&service.key) {
            let slices = self.slices.of(&service.key);
            slices
                .filter_map(|key| self.snapshot.slices.get(key))
                .for_each(|slice| self.add_slice(slice, port, &mut targets));
        } else if !self.snapshot.node.slices_only {
            self.add_selected(service, port, &mut targets);
        }
        merge(&mut targets);
        targets
    }

    /// An endpoint without a node name is on this node if one of its devices has the address.
    fn is_local(&self, node: Option<&Text>, address: IpAddr) -> bool {
        node.map_or_else(
            || self.devices().contains(&address),
            |node| *node == self.snapshot.node.name,
        )
    }

    fn devices(&self) -> &HashSet<IpAddr> {
        self.asked_devices.set(true);
        self.local.get_or_init(|| {
            let devices = self.snapshot.interfaces.values();
            devices
                .flat_map(|device| &device.addresses)
                .copied()
                .collect()
        })
    }

    fn add_slice(
        &self,
        slice: &'a EndpointSlice,
        port: &ServicePort,
        targets: &mut Vec<Target<'a>>,
    ) {
        let matching = slice
            .ports
            .iter()
            .filter(|own| own.name == port.name && own.protocol == port.protocol);
        for own in matching {
            targets.extend(slice.endpoints.iter().map(|endpoint| Target {
                addr: endpoint.address,
                port: own.port,
                ready: endpoint.ready,
                serving: endpoint.serving,
                terminating: endpoint.terminating,
                local: self.is_local(endpoint.node(), endpoint.address),
                place: endpoint.place.as_deref(),
                pod: None,
            }));
        }
    }

    fn labelled(&self, namespace: &'a str) -> Rc<ByLabel<'a>> {
        let make = || {
            let first = ObjectKey::new(namespace, "");
            let pods = self
                .snapshot
                .pods
                .range((Bound::Included(first), Bound::Unbounded));
            let mut by_label = ByLabel::new();
            for (_, pod) in pods.take_while(|(key, _)| *key.namespace == *namespace) {
                for (key, value) in pod.labels.iter().filter(|_| !pod.terminal) {
                    by_label.entry((key, value)).or_default().push(pod);
                }
            }
            Rc::new(by_label)
        };
        let mut known = self.by_label.borrow_mut();
        Rc::clone(known.entry(namespace).or_insert_with(make))
    }

    fn add_selected(
        &self,
        service: &'a Service,
        port: &ServicePort,
        targets: &mut Vec<Target<'a>>,
    ) {
        let Some(selector) = service
            .selector
            .as_ref()
            .filter(|selector| !selector.is_empty())
        else {
            return;
        };
        let by_label = self.labelled(&service.key.namespace);
        let candidates = selector.iter().map(|(key, value)| {
            let pods = by_label.get(&(&**key, &**value));
            pods.map_or(&[][..], Vec::as_slice)
        });
        let fewest = candidates.min_by_key(|pods| pods.len()).unwrap_or(&[]);
        for pod in fewest.iter().filter(|pod| is_selected(pod, selector)) {
            let Some(number) = target_port(pod, port) else {
                continue;
            };
            targets.extend(pod.ips.iter().map(|&addr| Target {
                addr,
                port: number,
                ready: service.publish_not_ready || (pod.ready && !pod.terminating),
                serving: pod.ready,
                terminating: pod.terminating,
                local: self.is_local(pod.node.as_ref(), addr),
                place: None,
                pod: Some(pod),
            }));
        }
    }
}

fn is_selected(pod: &Pod, selector: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| pod.labels.get(key) == Some(value))
}

/// An address that two slices, or two pods, have is one endpoint: the one that is not about to go.
fn merge(targets: &mut Vec<Target<'_>>) {
    let place = |target: &Target<'_>| (target.addr, target.port);
    let rank = |target: &Target<'_>| (!target.terminating, target.ready, target.serving);
    targets.sort_by_key(|target| (place(target), Reverse(rank(target))));
    targets.dedup_by_key(|target| place(target));
}

fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod.named_ports(name, port.protocol).next(),
    }
}
