//! Tables of every kind, single and in batches, and the model's store on them.

use dataplane_common::abi::{
    Addr4, Addr6, AffinityKey, AffinityVal, CidrKey, CidrVal, IdentityVal, SlotVal, bytes_of, name,
};
use dataplane_model::store::MapStore;
use dataplane_model::tables::MapId;
use sluice::bpf::{Pass, Store};

use super::Node;

fn identity(number: u32) -> (Addr4, IdentityVal) {
    let value = IdentityVal {
        identity: number,
        ..IdentityVal::default()
    };
    (Addr4(number.to_be()), value)
}

#[test]
fn tables_of_every_kind() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    let maps = dataplane.maps();

    let hash = maps
        .table::<Addr4, IdentityVal>(name::IDENTITIES[0])
        .unwrap();
    let entries: Vec<_> = (1..=1_000).map(identity).collect();
    hash.put_all(&entries).unwrap();
    let mut read = hash.entries().unwrap();
    read.sort_by_key(|(key, _)| u32::from_be(key.0));
    assert_eq!(read, entries);
    assert_eq!(hash.get(&entries[7].0).unwrap(), Some(entries[7].1));
    // Keys that are not there, in the middle and at the end of a batch.
    let keys: Vec<_> = (500..=1_500).map(|number| identity(number).0).collect();
    hash.delete_all(&keys).unwrap();
    assert_eq!(hash.entries().unwrap().len(), 499);
    assert!(hash.delete(&entries[0].0).unwrap());
    assert!(!hash.delete(&entries[0].0).unwrap());

    let array = maps.table::<u32, SlotVal>(name::SLOTS).unwrap();
    let slots: Vec<_> = (0..100)
        .map(|index| (index, SlotVal { backend: index + 1 }))
        .collect();
    array.put_all(&slots).unwrap();
    let read = array.entries().unwrap();
    assert_eq!(read.len(), array.capacity() as usize);
    assert_eq!(read[..100], slots);

    let trie = maps
        .table::<CidrKey<Addr6>, CidrVal>(name::CIDRS[1])
        .unwrap();
    let prefixes: Vec<_> = (0..100)
        .map(|number| {
            let key = CidrKey {
                prefix: CidrKey::<Addr6>::LEAD_BITS + 64,
                lead: 0,
                addr: Addr6 {
                    high: (0xfd00u64 << 48 | number).to_be(),
                    low: 0,
                },
            };
            (
                key,
                CidrVal {
                    set: number as u32,
                    flags: 0,
                },
            )
        })
        .collect();
    trie.put_all(&prefixes).unwrap();
    let mut read = trie.entries().unwrap();
    read.sort_by_key(|(_, value)| value.set);
    assert_eq!(read, prefixes);
    trie.delete_all(&prefixes.iter().map(|(key, _)| *key).collect::<Vec<_>>())
        .unwrap();
    assert!(trie.entries().unwrap().is_empty());

    let lru = maps
        .table::<AffinityKey<Addr4>, AffinityVal>(name::AFFINITY[0])
        .unwrap();
    let pinned: Vec<_> = (0..50)
        .map(|number| {
            let key = AffinityKey {
                client: Addr4(number),
                service_port: 1,
                reserved: 0,
            };
            (key, AffinityVal::default())
        })
        .collect();
    lru.put_all(&pinned).unwrap();
    assert_eq!(lru.entries().unwrap().len(), 50);

    let drops = maps.counters(name::DROPS).unwrap().sums().unwrap();
    assert_eq!(drops, [0; 64]);
    assert!(maps.table::<u32, u32>(name::DROPS).is_err());
    assert!(maps.table::<u32, u64>(name::SLOTS).is_err());
}

#[test]
fn a_pass_in_slices_meets_every_entry() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    let table = dataplane
        .maps()
        .table::<Addr4, IdentityVal>(name::IDENTITIES[0])
        .unwrap();
    table
        .put_all(&(1..=1_000).map(identity).collect::<Vec<_>>())
        .unwrap();
    let (mut pass, mut met, mut slices) = (Pass::default(), Vec::new(), 0);
    while let Some(slice) = table.slice(&mut pass, 64).unwrap() {
        met.extend(slice.into_iter().map(|(_, value)| value.identity));
        slices += 1;
    }
    met.sort_unstable();
    assert_eq!(met, Vec::from_iter(1..=1_000));
    assert!(slices > 10, "{slices} slices");
}

#[test]
fn a_full_map_tells_how_far_it_came() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    let mut store = Store::new(dataplane.maps()).unwrap();
    let entries: Vec<_> = (1..=2_000).map(identity).collect();
    let keys: Vec<u8> = entries
        .iter()
        .flat_map(|(key, _)| bytes_of(key).to_vec())
        .collect();
    let values: Vec<u8> = entries
        .iter()
        .flat_map(|(_, value)| bytes_of(value).to_vec())
        .collect();
    let failed = store.put(MapId::Identities4, &keys, &values).unwrap_err();
    assert!(
        failed.error.to_string().contains("identity4"),
        "{}",
        failed.error
    );
    assert_eq!(failed.done, 1_024, "its capacity");
    let mut count = 0;
    store
        .read(MapId::Identities4, &mut |_, _| count += 1)
        .unwrap();
    assert_eq!(count, 1_024);
    store.delete(MapId::Identities4, &keys).unwrap();
    store
        .read(MapId::Identities4, &mut |_, _| panic!("it is empty"))
        .unwrap();
}
