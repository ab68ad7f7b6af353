//! A node of a random cluster: the model's plans in the real maps.

use std::{net::IpAddr, sync::MutexGuard};

use dataplane_model::{
    capacity::Capacities,
    ids::IdTable,
    reconcile::Reconciler,
    snapshot::{Interface, Object, Snapshot},
    store::{Failed, MapStore},
    tables::MapId,
};
use sluice_generate::{changes, cluster};

use crate::{
    kernel::{Kernel, Mode, RULESETS},
    netns::UPLINK,
};

/// A node whose maps follow a cluster.
pub struct Node {
    kernel: MutexGuard<'static, Kernel>,
    state: Reconciler,
    objects: Vec<Object>,
}

impl Node {
    /// A node of an empty cluster.
    pub fn new(mode: Mode) -> Node {
        let snapshot = Snapshot::new(cluster::node(), []);
        let ids = IdTable::new(Capacities {
            rulesets: RULESETS,
            ..Capacities::default()
        });
        Node {
            kernel: Kernel::take(mode),
            state: Reconciler::new(snapshot, ids),
            objects: Vec::new(),
        }
    }

    /// Makes the cluster another one: its maps follow as an agent's do.
    pub fn become_like(&mut self, objects: Vec<Object>) {
        let objects: Vec<_> = objects.into_iter().map(at_devices).collect();
        for event in changes(&self.objects, &objects) {
            self.state.fold(event);
        }
        self.objects = objects;
        let outcome = self.state.reconcile(&mut Maps(&self.kernel));
        assert_eq!(outcome.errors, Vec::<String>::new());
        assert_eq!(outcome.refused, None);
    }

    /// The programs and maps.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The cluster.
    pub fn snapshot(&self) -> &Snapshot {
        self.state.snapshot()
    }

    /// The device of the pod that has an address, if it is on this node.
    pub fn device(&self, address: IpAddr) -> Option<&Interface> {
        let mut devices = self.snapshot().interfaces.values();
        devices.find(|device| device.addresses.contains(&address))
    }
}

/// Random devices have random indexes; programs run at devices that exist.
fn at_devices(object: Object) -> Object {
    match object {
        Object::Interface(device) => Object::Interface(Interface {
            ifindex: UPLINK + 1 + u32::from(device.mac[5]),
            ..device
        }),
        other => other,
    }
}

/// The maps of loaded programs, as a store of plans.
struct Maps<'a>(&'a Kernel);

impl MapStore for Maps<'_> {
    type Error = String;

    fn put(&mut self, map: MapId, keys: &[u8], values: &[u8]) -> Result<(), Failed<String>> {
        // Numbers are kept for the next agent: no program reads them.
        if map == MapId::Ids {
            return Ok(());
        }
        let keys = keys.chunks_exact(map.key_size());
        for (key, value) in keys.zip(values.chunks_exact(map.value_size())) {
            self.0.write_bytes(map.name(), key, value);
        }
        Ok(())
    }

    fn delete(&mut self, map: MapId, keys: &[u8]) -> Result<(), Failed<String>> {
        if map == MapId::Ids {
            return Ok(());
        }
        for key in keys.chunks_exact(map.key_size()) {
            self.0.remove(map.name(), key);
        }
        Ok(())
    }

    fn read(&self, map: MapId, _: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), String> {
        Err(format!("{} is written, and never adopted", map.name()))
    }
}
