//! How much the maps hold.

use dataplane_common::abi::capacity;

use crate::tables::MapId;

/// Entries that each map has room for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capacities {
    /// Frontends of one family.
    pub services: u32,
    /// Places in backend blocks.
    pub slots: u32,
    /// Backends of one family.
    pub backends: u32,
    /// Weighted classes.
    pub classes: u32,
    /// Known addresses of one family.
    pub identities: u32,
    /// Prefixes of one family.
    pub cidrs: u32,
    /// Source ranges of one family.
    pub source_ranges: u32,
    /// Places for pods of this node; a power of two.
    pub subjects: u32,
    /// Pods of this node whose place is taken.
    pub subjects_overflow: u32,
    /// Rulesets.
    pub rulesets: u32,
    /// Port boundaries.
    pub port_bounds: u32,
    /// Policy rows.
    pub rows: u32,
    /// Numbers in use.
    pub ids: u32,
}

impl Default for Capacities {
    /// The capacities of the BPF object.
    fn default() -> Self {
        Self {
            services: capacity::SERVICES,
            slots: capacity::SLOTS,
            backends: capacity::BACKENDS,
            classes: capacity::CLASSES,
            identities: capacity::IDENTITIES,
            cidrs: capacity::CIDRS,
            source_ranges: capacity::SOURCE_RANGES,
            subjects: capacity::SUBJECTS,
            subjects_overflow: capacity::SUBJECTS_OVERFLOW,
            rulesets: capacity::RULESETS,
            port_bounds: capacity::PORT_BOUNDS,
            rows: capacity::ROWS,
            ids: capacity::IDS,
        }
    }
}

impl Capacities {
    /// Entries that a map has room for.
    pub fn of(&self, map: MapId) -> u32 {
        match map {
            MapId::Services4 | MapId::Services6 => self.services,
            MapId::Slots => self.slots,
            MapId::Backends4 | MapId::Backends6 => self.backends,
            MapId::Classes => self.classes,
            MapId::Identities4 | MapId::Identities6 => self.identities,
            MapId::Cidrs4 | MapId::Cidrs6 => self.cidrs,
            MapId::SourceRanges4 | MapId::SourceRanges6 => self.source_ranges,
            MapId::Subjects => self.subjects,
            MapId::SubjectsOverflow => self.subjects_overflow,
            MapId::Rulesets => self.rulesets,
            MapId::PortBounds => self.port_bounds,
            MapId::Rows => self.rows,
            MapId::Ids => self.ids,
            MapId::Epoch => 1,
        }
    }
}

/// Something does not fit. Nothing of the change is applied; what was in force stays.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum CapacityError {
    /// A map is too small.
    #[error("map {} needs {need} entries and has room for {capacity}: raise its capacity or remove objects", .map.name())]
    Map {
        /// The map.
        map: MapId,
        /// Entries that are needed, those to be replaced included.
        need: u64,
        /// Entries it has room for.
        capacity: u32,
    },
    /// A Service has more endpoints than a block can count.
    #[error("Service {service} has {need} endpoints in one block; at most 65535 are supported")]
    Block {
        /// The Service.
        service: String,
        /// Its endpoints.
        need: usize,
    },
    /// The rules of one pod and direction distinguish too many groups of ports.
    #[error(
        "the rules of {ruleset} distinguish {need} groups of ports; at most 65535 are supported"
    )]
    PortClasses {
        /// What selects the pod.
        ruleset: String,
        /// Groups of ports.
        need: usize,
    },
}
