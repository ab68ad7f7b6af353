//! The maps that the model fills, as typed, sorted tables.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::IpAddr;

use crate::compile::Sided;
use dataplane_common::abi::{
    Abi, Addr4, Addr6, Address, BackendVal, CidrKey, CidrVal, ClassVal, IdKey, IdVal, IdentityVal,
    PortBound, RowKey, RowVal, RulesetVal, ServiceKey, ServiceVal, SlotVal, SourceRangeKey,
    Subject, name,
};

/// A map that the model writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MapId {
    /// Frontends, IPv4.
    Services4,
    /// Frontends, IPv6.
    Services6,
    /// Blocks of backends.
    Slots,
    /// Backends, IPv4.
    Backends4,
    /// Backends, IPv6.
    Backends6,
    /// Weighted classes.
    Classes,
    /// Identities of addresses, IPv4.
    Identities4,
    /// Identities of addresses, IPv6.
    Identities6,
    /// Prefixes of policies, IPv4.
    Cidrs4,
    /// Prefixes of policies, IPv6.
    Cidrs6,
    /// Source ranges of frontends, IPv4.
    SourceRanges4,
    /// Source ranges of frontends, IPv6.
    SourceRanges6,
    /// Pods of this node, by place.
    Subjects,
    /// Pods of this node whose place is taken, by ifindex.
    SubjectsOverflow,
    /// Rulesets.
    Rulesets,
    /// Port boundaries.
    PortBounds,
    /// Policy rows.
    Rows,
    /// Numbers in use.
    Ids,
    /// The policy epoch.
    Epoch,
}

impl MapId {
    /// All maps.
    pub const ALL: [Self; 19] = [
        Self::Services4,
        Self::Services6,
        Self::Slots,
        Self::Backends4,
        Self::Backends6,
        Self::Classes,
        Self::Identities4,
        Self::Identities6,
        Self::Cidrs4,
        Self::Cidrs6,
        Self::SourceRanges4,
        Self::SourceRanges6,
        Self::Subjects,
        Self::SubjectsOverflow,
        Self::Rulesets,
        Self::PortBounds,
        Self::Rows,
        Self::Ids,
        Self::Epoch,
    ];

    /// The map's name in the BPF object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services4 => name::SERVICES[0],
            Self::Services6 => name::SERVICES[1],
            Self::Slots => name::SLOTS,
            Self::Backends4 => name::BACKENDS[0],
            Self::Backends6 => name::BACKENDS[1],
            Self::Classes => name::CLASSES,
            Self::Identities4 => name::IDENTITIES[0],
            Self::Identities6 => name::IDENTITIES[1],
            Self::Cidrs4 => name::CIDRS[0],
            Self::Cidrs6 => name::CIDRS[1],
            Self::SourceRanges4 => name::SOURCE_RANGES[0],
            Self::SourceRanges6 => name::SOURCE_RANGES[1],
            Self::Subjects => name::SUBJECTS,
            Self::SubjectsOverflow => name::SUBJECTS_OVERFLOW,
            Self::Rulesets => name::RULESETS,
            Self::PortBounds => name::PORT_BOUNDS,
            Self::Rows => name::ROWS,
            Self::Ids => name::IDS,
            Self::Epoch => name::EPOCH,
        }
    }

    /// Bytes of a key.
    pub const fn key_size(self) -> usize {
        self.sizes().0
    }

    /// Bytes of a value.
    pub const fn value_size(self) -> usize {
        self.sizes().1
    }

    /// True for an ARRAY: its places always exist, a value of zeros is an empty one.
    pub const fn is_array(self) -> bool {
        match self {
            Self::Slots
            | Self::Backends4
            | Self::Backends6
            | Self::Classes
            | Self::Subjects
            | Self::Rulesets
            | Self::PortBounds
            | Self::Epoch => true,
            Self::Services4
            | Self::Services6
            | Self::Identities4
            | Self::Identities6
            | Self::Cidrs4
            | Self::Cidrs6
            | Self::SourceRanges4
            | Self::SourceRanges6
            | Self::SubjectsOverflow
            | Self::Rows
            | Self::Ids => false,
        }
    }

    /// True for a map that [`Services`](crate::compile::Services) fills.
    pub const fn is_service(self) -> bool {
        matches!(
            self,
            Self::Services4
                | Self::Services6
                | Self::Slots
                | Self::Backends4
                | Self::Backends6
                | Self::Classes
                | Self::SourceRanges4
                | Self::SourceRanges6
        )
    }

    const fn sizes(self) -> (usize, usize) {
        const fn of<K, V>() -> (usize, usize) {
            (size_of::<K>(), size_of::<V>())
        }
        match self {
            Self::Services4 => of::<ServiceKey<Addr4>, ServiceVal>(),
            Self::Services6 => of::<ServiceKey<Addr6>, ServiceVal>(),
            Self::Slots => of::<u32, SlotVal>(),
            Self::Backends4 => of::<u32, BackendVal<Addr4>>(),
            Self::Backends6 => of::<u32, BackendVal<Addr6>>(),
            Self::Classes => of::<u32, ClassVal>(),
            Self::Identities4 => of::<Addr4, IdentityVal>(),
            Self::Identities6 => of::<Addr6, IdentityVal>(),
            Self::Cidrs4 => of::<CidrKey<Addr4>, CidrVal>(),
            Self::Cidrs6 => of::<CidrKey<Addr6>, CidrVal>(),
            Self::SourceRanges4 => of::<SourceRangeKey<Addr4>, u32>(),
            Self::SourceRanges6 => of::<SourceRangeKey<Addr6>, u32>(),
            Self::Subjects | Self::SubjectsOverflow => of::<u32, Subject>(),
            Self::Rulesets => of::<u32, RulesetVal>(),
            Self::PortBounds => of::<u32, PortBound>(),
            Self::Rows => of::<RowKey, RowVal>(),
            Self::Ids => of::<IdKey, IdVal>(),
            Self::Epoch => of::<u32, u32>(),
        }
    }
}

/// Contents of the maps, but for the epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// Maps of IPv4.
    pub v4: FamilyTables<Addr4>,
    /// Maps of IPv6.
    pub v6: FamilyTables<Addr6>,
    /// Blocks of backends, of both families.
    pub slots: BTreeMap<u32, SlotVal>,
    /// Blocks of weighted classes, of both families.
    pub classes: BTreeMap<u32, ClassVal>,
    /// Pods of this node, by `ifindex & (capacity - 1)`.
    pub subjects: BTreeMap<u32, Subject>,
    /// Pods of this node whose place is taken, by ifindex.
    pub subjects_overflow: BTreeMap<u32, Subject>,
    /// Rulesets.
    pub rulesets: BTreeMap<u32, RulesetVal>,
    /// Port boundaries.
    pub port_bounds: BTreeMap<u32, PortBound>,
    /// Policy rows.
    pub rows: BTreeMap<RowKey, RowVal>,
    /// Numbers in use.
    pub ids: BTreeMap<IdKey, IdVal>,
}

/// Contents of the maps that each family has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FamilyTables<A: Ord> {
    /// Frontends.
    pub services: BTreeMap<ServiceKey<A>, ServiceVal>,
    /// Backends by index.
    pub backends: BTreeMap<u32, BackendVal<A>>,
    /// What addresses are.
    pub identities: BTreeMap<A, IdentityVal>,
    /// Prefixes of policies.
    pub cidrs: BTreeMap<CidrKey<A>, CidrVal>,
    /// Whom source sets allow: every value is 1.
    pub source_ranges: BTreeMap<SourceRangeKey<A>, u32>,
}

/// An address family and its tables.
pub trait Family: Address + Hash + Debug + Default + Sided {
    /// 0 for IPv4, 1 for IPv6: the index into the names of map pairs.
    const INDEX: usize;
    /// The map of frontends.
    const SERVICES: MapId;
    /// The map of backends.
    const BACKENDS: MapId;
    /// The map of identities.
    const IDENTITIES: MapId;
    /// The map of prefixes.
    const CIDRS: MapId;
    /// The map of source ranges.
    const SOURCE_RANGES: MapId;

    /// The address, if it is of this family.
    fn from_ip(ip: IpAddr) -> Option<Self>;
    /// The address as the standard library has it.
    fn to_ip(self) -> IpAddr;
    /// The address with all bits past the first `prefix` cleared.
    fn masked(self, prefix: u32) -> Self;
    /// The family's tables.
    fn tables(tables: &Tables) -> &FamilyTables<Self>;
    /// The family's tables, to fill.
    fn tables_mut(tables: &mut Tables) -> &mut FamilyTables<Self>;
}

impl Family for Addr4 {
    const INDEX: usize = 0;
    const SERVICES: MapId = MapId::Services4;
    const BACKENDS: MapId = MapId::Backends4;
    const IDENTITIES: MapId = MapId::Identities4;
    const CIDRS: MapId = MapId::Cidrs4;
    const SOURCE_RANGES: MapId = MapId::SourceRanges4;

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(ip.into()),
            IpAddr::V6(_) => None,
        }
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }

    fn masked(self, prefix: u32) -> Self {
        let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
        Self(self.0 & mask.to_be())
    }

    fn tables(tables: &Tables) -> &FamilyTables<Self> {
        &tables.v4
    }

    fn tables_mut(tables: &mut Tables) -> &mut FamilyTables<Self> {
        &mut tables.v4
    }
}

impl Family for Addr6 {
    const INDEX: usize = 1;
    const SERVICES: MapId = MapId::Services6;
    const BACKENDS: MapId = MapId::Backends6;
    const IDENTITIES: MapId = MapId::Identities6;
    const CIDRS: MapId = MapId::Cidrs6;
    const SOURCE_RANGES: MapId = MapId::SourceRanges6;

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip.into()),
        }
    }

    fn to_ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }

    fn masked(self, prefix: u32) -> Self {
        let mask = |bits: u32| u64::MAX.checked_shl(64 - bits.min(64)).unwrap_or(0).to_be();
        Self {
            high: self.high & mask(prefix),
            low: self.low & mask(prefix.saturating_sub(64)),
        }
    }

    fn tables(tables: &Tables) -> &FamilyTables<Self> {
        &tables.v6
    }

    fn tables_mut(tables: &mut Tables) -> &mut FamilyTables<Self> {
        &mut tables.v6
    }
}

/// A key or value of a table.
pub trait Cell: Abi + PartialEq {}

impl<T: Abi + PartialEq> Cell for T {}

/// Looks at one map's table on two sides.
pub trait TableVisitor {
    /// Called with the map and its table on both sides.
    fn visit<K: Cell + Ord, V: Cell>(
        &mut self,
        map: MapId,
        left: &BTreeMap<K, V>,
        right: &BTreeMap<K, V>,
    );
}

/// Changes one map's table.
pub trait TableEditor {
    /// Called with the table.
    fn edit<K: Cell + Ord, V: Cell>(&mut self, table: &mut BTreeMap<K, V>);
}

/// Expands `$call!(field)` for the field that holds a map's table.
macro_rules! with_table {
    ($map:expr, $call:ident) => {
        match $map {
            MapId::Services4 => $call!(v4.services),
            MapId::Services6 => $call!(v6.services),
            MapId::Slots => $call!(slots),
            MapId::Backends4 => $call!(v4.backends),
            MapId::Backends6 => $call!(v6.backends),
            MapId::Classes => $call!(classes),
            MapId::Identities4 => $call!(v4.identities),
            MapId::Identities6 => $call!(v6.identities),
            MapId::Cidrs4 => $call!(v4.cidrs),
            MapId::SourceRanges4 => $call!(v4.source_ranges),
            MapId::Cidrs6 => $call!(v6.cidrs),
            MapId::SourceRanges6 => $call!(v6.source_ranges),
            MapId::Subjects => $call!(subjects),
            MapId::SubjectsOverflow => $call!(subjects_overflow),
            MapId::Rulesets => $call!(rulesets),
            MapId::PortBounds => $call!(port_bounds),
            MapId::Rows => $call!(rows),
            MapId::Ids => $call!(ids),
            MapId::Epoch => {}
        }
    };
}

impl Tables {
    /// Calls the visitor with one map's table here and in `other`. The epoch has no table.
    pub fn visit(&self, map: MapId, other: &Tables, visitor: &mut impl TableVisitor) {
        macro_rules! pair {
            ($($field:ident).+) => { visitor.visit(map, &self.$($field).+, &other.$($field).+) };
        }
        with_table!(map, pair);
    }

    /// Calls the editor with one map's table. The epoch has no table.
    pub fn edit(&mut self, map: MapId, editor: &mut impl TableEditor) {
        macro_rules! one {
            ($($field:ident).+) => { editor.edit(&mut self.$($field).+) };
        }
        with_table!(map, one);
    }

    /// Entries of one map; 1 for the epoch.
    pub fn len(&self, map: MapId) -> usize {
        macro_rules! length {
            ($($field:ident).+) => { return self.$($field).+.len() };
        }
        with_table!(map, length);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_clear_the_bits_past_the_prefix() {
        let masked4 = |prefix| {
            Addr4::from_ip("10.1.255.3".parse().unwrap())
                .unwrap()
                .masked(prefix)
                .to_ip()
                .to_string()
        };
        assert_eq!(masked4(0), "0.0.0.0");
        assert_eq!(masked4(8), "10.0.0.0");
        assert_eq!(masked4(20), "10.1.240.0");
        assert_eq!(masked4(32), "10.1.255.3");
        let masked6 = |prefix| {
            Addr6::from_ip("fd00:1:ffff:ffff:ffff::1".parse().unwrap())
                .unwrap()
                .masked(prefix)
                .to_ip()
                .to_string()
        };
        assert_eq!(masked6(0), "::");
        assert_eq!(masked6(32), "fd00:1::");
        assert_eq!(masked6(64), "fd00:1:ffff:ffff::");
        assert_eq!(masked6(68), "fd00:1:ffff:ffff:f000::");
        assert_eq!(masked6(128), "fd00:1:ffff:ffff:ffff::1");
    }
}
