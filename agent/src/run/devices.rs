//! Keeps the programs attached to the devices they belong on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dataplane_model::snapshot::Interface;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::bpf::{Attached, Dataplane, Early, Error, FirstEntry, XdpSetting};

/// Between two attempts at a device that could not be attached to.
const RETRY: Duration = Duration::from_millis(500);
/// When there is nothing to retry.
const IDLE: Duration = Duration::from_secs(3_600);

/// The devices, and what failed with them.
pub struct Devices {
    dataplane: Arc<Dataplane>,
    pods: BTreeMap<u32, Pod>,
    uplinks: BTreeMap<u32, Uplink>,
    xdp: XdpSetting,
    early: BTreeMap<u32, Early>,
    failures: BTreeMap<u32, Failure>,
    adopted: usize,
    retry_at: Instant,
}

/// A pod's device.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Addresses of the pod's end.
    pub addresses: Vec<String>,
    first: FirstEntry,
}

/// An uplink.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: [u8; 6],
}

struct Failure {
    name: String,
    text: String,
}

impl Devices {
    /// None yet.
    pub fn new(dataplane: Arc<Dataplane>, xdp: XdpSetting) -> Self {
        Self {
            dataplane,
            pods: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            xdp,
            early: BTreeMap::new(),
            failures: BTreeMap::new(),
            adopted: 0,
            retry_at: Instant::now() + IDLE,
        }
    }

    /// A pod's device is new or changed.
    pub fn pod(&mut self, interface: &Interface, name: String) {
        let addresses = interface.addresses.iter();
        let pod = Pod {
            name,
            addresses: addresses.map(ToString::to_string).collect(),
            first: match (interface.closed, interface.late) {
                (true, _) => FirstEntry::Closed,
                (false, true) => FirstEntry::Late,
                (false, false) => FirstEntry::Services,
            },
        };
        self.uplinks.remove(&interface.ifindex);
        let known = self.pods.insert(interface.ifindex, pod);
        if known.is_none() || self.failures.contains_key(&interface.ifindex) {
            self.attach(interface.ifindex);
        }
    }

    /// A device is an uplink, or something about it changed.
    pub fn uplink(&mut self, ifindex: u32, uplink: Uplink, ethernet: bool) {
        if !ethernet {
            debug!(device = %uplink.name, "has no Ethernet headers: left alone");
            return;
        }
        self.pods.remove(&ifindex);
        self.uplinks.insert(ifindex, uplink);
        self.attach(ifindex);
    }

    /// A device is gone, or is nothing to us any more.
    pub fn gone(&mut self, ifindex: u32, name: &str) {
        self.pods.remove(&ifindex);
        self.uplinks.remove(&ifindex);
        self.early.remove(&ifindex);
        self.failures.remove(&ifindex);
        if let Err(error) = self.dataplane.detach(ifindex, name) {
            warn!(device = %name, %error, "letting go of a device");
        }
    }

    /// When a device is to be tried again.
    pub fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// Tries again what failed.
    pub fn retry(&mut self) {
        self.retry_at = Instant::now() + IDLE;
        let failed: Vec<u32> = self.failures.keys().copied().collect();
        for ifindex in failed {
            self.attach(ifindex);
        }
    }

    /// Pods' devices by index.
    pub fn pods(&self) -> &BTreeMap<u32, Pod> {
        &self.pods
    }

    /// True if a device is known as a pod's.
    pub fn has(&self, ifindex: u32) -> bool {
        self.pods.contains_key(&ifindex)
    }

    /// Names of the uplinks.
    pub fn uplinks(&self) -> impl Iterator<Item = &String> {
        self.uplinks.values().map(|uplink| &uplink.name)
    }

    /// Which uplinks run the early program, by name.
    pub fn early(&self) -> BTreeMap<String, String> {
        let named = self.uplinks.iter().filter_map(|(ifindex, uplink)| {
            let early = self.early.get(ifindex)?;
            Some((uplink.name.clone(), early.to_string()))
        });
        named.collect()
    }

    /// What failed, by device.
    pub fn failures(&self) -> BTreeMap<String, String> {
        let failures = self.failures.values();
        failures
            .map(|failure| (failure.name.clone(), failure.text.clone()))
            .collect()
    }

    /// Devices whose programs were in place when they were first seen.
    pub fn adopted(&self) -> usize {
        self.adopted
    }

    fn attach(&mut self, ifindex: u32) {
        let (name, result) = if let Some(pod) = self.pods.get(&ifindex) {
            let result = self
                .dataplane
                .attach_pod_device(ifindex, &pod.name, pod.first);
            (pod.name.clone(), result)
        } else if let Some(uplink) = self.uplinks.get(&ifindex) {
            let uplink = uplink.clone();
            let attached = self
                .dataplane
                .attach_uplink(ifindex, &uplink.name)
                .and_then(|attached| self.attach_early(ifindex, &uplink).map(|()| attached));
            (uplink.name, attached)
        } else {
            self.failures.remove(&ifindex);
            return;
        };
        self.note(ifindex, name, result);
    }

    /// The tc programs are in place: that the early one cannot run is no failure of the device.
    fn attach_early(&mut self, ifindex: u32, uplink: &Uplink) -> Result<(), Error> {
        let Uplink { name, mac } = uplink;
        let early = self.dataplane.attach_early(ifindex, name, *mac, self.xdp)?;
        match &early {
            Early::Off(Some(reason)) if self.xdp != XdpSetting::Auto => {
                warn!(device = %name, %reason, "no XDP here: the tc programs do its work");
            }
            early => debug!(device = %name, %early, "XDP"),
        }
        self.early.insert(ifindex, early);
        Ok(())
    }

    fn note(&mut self, ifindex: u32, name: String, result: Result<Attached, Error>) {
        match result {
            Ok(attached) => {
                self.failures.remove(&ifindex);
                self.adopted += usize::from(attached == Attached::Adopted);
                debug!(device = %name, ?attached, "attached");
            }
            Err(error) => {
                let text = error.to_string();
                let failure = Failure {
                    name: name.clone(),
                    text: text.clone(),
                };
                let before = self.failures.insert(ifindex, failure);
                if before.is_none_or(|before| before.text != text) {
                    warn!(device = %name, error = %text, "attaching; it is tried again");
                }
                self.retry_at = self.retry_at.min(Instant::now() + RETRY);
            }
        }
    }
}
