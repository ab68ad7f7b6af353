use super::*;
use crate::compile::compile;
use crate::ids::IdTable;
use crate::snapshot::{
    Event, Interface, NamespaceScope, NetworkPolicy, NodeConfig, Object, ObjectKey, PortMatch,
    Selector,
};

fn app(name: &str) -> Labels {
    Labels::from([("app".into(), name.into())])
}

fn only(peer: Peer, first: u16, last: u16) -> Rule {
    Rule {
        peers: Peers::Only(vec![peer]),
        ports: Ports::Only(vec![PortMatch {
            protocol: Protocol::Tcp,
            range: PortRange::Numbers(first, last),
        }]),
    }
}

/// Two databases on this node, and ten web servers elsewhere; web servers and a block may come.
fn world() -> (Snapshot, Tables) {
    let mut snapshot = Snapshot::new(
        NodeConfig {
            name: "here".into(),
            addresses: vec![[192, 0, 2, 1].into()],
            ..NodeConfig::default()
        },
        [],
    );
    let pod = |name: &str, node: &str, last: u8| {
        Object::Pod(Pod {
            labels: app(name),
            ips: vec![[10, 0, 0, last].into()],
            node: Some(node.into()),
            ..Pod::new(ObjectKey::new("shop", format!("{name}-{last}")))
        })
    };
    let device = |last: u8| {
        Object::Interface(Interface {
            ifindex: last.into(),
            addresses: vec![[10, 0, 0, last].into()],
            ..Interface::default()
        })
    };
    let web = Peer::Pods {
        namespaces: NamespaceScope::Own,
        pods: Selector::from(&app("web")),
    };
    let block = Peer::Block {
        cidr: "198.51.100.0/24".parse().unwrap(),
        except: vec!["198.51.100.64/28".parse().unwrap()],
    };
    let policy = Object::Policy(NetworkPolicy {
        key: ObjectKey::new("shop", "db"),
        pods: Selector::from(&app("db")),
        mode: None,
        ingress: Some(vec![only(web, 80, 89), only(block, 443, 443)]),
        egress: None,
    });
    let mut objects = vec![pod("db", "here", 1), pod("db", "here", 2), policy];
    objects.extend([device(1), device(2)]);
    objects.extend((11..=20).map(|last| pod("web", "there", last)));
    for object in objects {
        snapshot.apply(Event::Apply(object));
    }
    let tables = compile(&snapshot, &mut IdTable::default())
        .expect("it fits")
        .tables;
    (snapshot, tables)
}

fn ends(report: &Report) -> BTreeSet<(String, String)> {
    let differences = report.differences.iter();
    let ends = differences.map(|one| (one.packet.src.to_string(), one.packet.dst.to_string()));
    ends.collect()
}

#[test]
fn tables_that_were_compiled_say_what_policies_say() {
    let (snapshot, tables) = world();
    let report = verify(&snapshot, &tables);
    assert_eq!((report.differences, report.more), (vec![], 0));
    // Of a database: both directions, against a database, a web server, the node, the world and the
    // edges of blocks, on the edges of ports.
    assert!(report.compared > 100, "{}", report.compared);
}

#[test]
fn a_row_that_is_damaged_shows_in_all_that_it_decides() {
    let (snapshot, mut tables) = world();
    let rows: Vec<_> = tables.rows.keys().copied().collect();
    for row in rows {
        let good = tables.rows.remove(&row);
        let report = verify(&snapshot, &tables);
        assert!(!report.differences.is_empty(), "{row:?} is not missed");
        let first = &report.differences[0];
        assert!(first.expected.is_allowed() && first.direction == Direction::Ingress);
        tables.rows.extend(good.map(|good| (row, good)));
    }
}

#[test]
fn an_entry_that_is_damaged_is_named_though_it_is_one_of_many() {
    let (snapshot, good) = world();
    let web = |last: u8| Addr4::from_ip([10, 0, 0, last].into()).unwrap();
    let mut tables = good.clone();
    tables.v4.identities.remove(&web(17));
    let to_one = |src: &str| BTreeSet::from([(src.to_owned(), "10.0.0.1".to_owned())]);
    assert_eq!(ends(&verify(&snapshot, &tables)), to_one("10.0.0.17"));
    // A pod of this node that nothing polices any more.
    let mut tables = good;
    for subject in tables.subjects.values_mut().filter(|one| one.ifindex == 2) {
        subject.ingress = 0;
    }
    let found = ends(&verify(&snapshot, &tables));
    assert!(
        !found.is_empty() && found.iter().all(|(_, dst)| dst == "10.0.0.2"),
        "{found:?}"
    );
}

#[test]
fn what_is_in_audit_is_verified_too() {
    let (mut snapshot, _) = world();
    let mut policy = NetworkPolicy::clone(snapshot.policies.values().next().unwrap());
    policy.mode = Some(PolicyMode::Audit);
    snapshot.apply(Event::Apply(Object::Policy(policy)));
    let mut tables = compile(&snapshot, &mut IdTable::default())
        .expect("it fits")
        .tables;
    assert_eq!(verify(&snapshot, &tables).differences, vec![]);
    for subject in tables.subjects.values_mut().filter(|one| one.ifindex == 2) {
        assert_eq!(subject.ingress, 0);
        subject.audited_ingress = 0;
    }
    let report = verify(&snapshot, &tables);
    assert!(!report.differences.is_empty());
    let of_audit = |one: &Difference| one.mode == PolicyMode::Audit && !one.expected.is_allowed();
    assert!(report.differences.iter().all(of_audit), "{report:?}");
}

#[test]
fn blocks_and_ports_are_tried_on_both_sides_of_their_edges() {
    let texts = |block: &str| -> BTreeSet<String> {
        let block = block.parse().unwrap();
        around(&block).iter().map(ToString::to_string).collect()
    };
    let set = |list: &[&str]| {
        list.iter()
            .map(|text| (*text).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        texts("10.1.0.0/24"),
        set(&["10.0.255.255", "10.1.0.0", "10.1.0.255", "10.1.1.0"])
    );
    assert_eq!(texts("0.0.0.0/0"), set(&["0.0.0.0", "255.255.255.255"]));
    assert_eq!(texts("fd00::1/128"), set(&["fd00::", "fd00::1", "fd00::2"]));
}
