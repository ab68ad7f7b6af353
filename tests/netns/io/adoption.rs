//! What a starting agent finds is taken over as it runs; what is not its own is left alone.

use std::fs;
use std::path::Path;

use aya::EbpfLoader;
use aya::maps::{HashMap, MapData};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use dataplane_common::abi::{ABI_VERSION, Subject, name, subject_flags, subject_state};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sluice::bpf::{
    AttachMode, Attached, CleanupReport, KeptCapacity, SOCKET_HOOKS, cleanup, object,
};
use sluice_lab::wait::until_true;

use super::{Node, PATIENCE, POD, UPLINK, capacities};

const OURS: [&[&str]; 4] = [&["from_pod"], &["to_pod"], &["from_net"], &["to_net"]];

const NONE: [&[&str]; 4] = [&[]; 4];

/// A program of somebody else on the pod's ingress. It has another namespace in its settings, and
/// maps of its own.
fn attach_foreign(node: &Node, order: LinkOrder) -> aya::Ebpf {
    let small = capacities(16);
    let mut loader = EbpfLoader::new();
    for (name, &entries) in &small {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader.load(object().unwrap()).unwrap();
    let program: &mut SchedClassifier = ebpf.program_mut("from_net").unwrap().try_into().unwrap();
    program.load().unwrap();
    node.netns.run(|| {
        let options = TcAttachOptions::TcxOrder(order);
        program
            .attach_with_options(POD, TcAttachType::Ingress, options)
            .unwrap()
    });
    ebpf
}

#[test]
fn a_restart_replaces_each_program_in_its_place() {
    let node = Node::new();
    let first = node.load().unwrap();
    assert!(first.adopted().fresh);
    assert_eq!(node.attach(&first), [Attached::New, Attached::New]);
    assert_eq!(node.names(), OURS);
    let before = node.programs(POD, TcAttachType::Ingress);
    // As a kill would: nothing is detached.
    drop(first);
    assert_eq!(node.programs(POD, TcAttachType::Ingress), before);

    let second = node.load().unwrap();
    let adopted = second.adopted();
    assert!(!adopted.fresh);
    assert_eq!(Vec::from_iter(adopted.pods.clone()), [node.index(POD)]);
    assert_eq!(
        Vec::from_iter(adopted.uplinks.clone()),
        [node.index(UPLINK)]
    );
    assert_eq!(
        (adopted.dropped_links, adopted.kept_capacities.len()),
        (0, 0)
    );
    assert_eq!(node.names(), OURS);
    let after = node.programs(POD, TcAttachType::Ingress);
    assert_ne!(before, after, "the new agent's program runs");
    assert_eq!(node.attach(&second), [Attached::Adopted, Attached::Adopted]);
    assert_eq!(node.programs(POD, TcAttachType::Ingress), after);
}

#[test]
fn a_pods_device_has_its_entry_before_its_programs_and_keeps_it() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    let ifindex = node.index(POD);
    node.attach(&dataplane);
    let subjects = dataplane
        .maps()
        .table::<u32, Subject>(name::SUBJECTS)
        .unwrap();
    let opened = Subject {
        ifindex,
        state: subject_state::SERVICES,
        flags: subject_flags::LATE,
        ..Subject::default()
    };
    assert_eq!(subjects.get(&ifindex).unwrap(), Some(opened));
    let managed = Subject {
        state: subject_state::MANAGED,
        ingress: 5,
        ..opened
    };
    subjects.put(&ifindex, &managed).unwrap();
    node.attach(&dataplane);
    assert_eq!(subjects.get(&ifindex).unwrap(), Some(managed));

    // Where another pod has the place, the entry stands in the overflow.
    let other = Subject {
        ifindex: ifindex + 65_536,
        ..opened
    };
    subjects.put(&ifindex, &other).unwrap();
    node.attach(&dataplane);
    let over = dataplane
        .maps()
        .table::<u32, Subject>(name::SUBJECTS_OVERFLOW)
        .unwrap();
    assert_eq!(over.get(&ifindex).unwrap(), Some(opened));

    dataplane.detach(ifindex, POD).unwrap();
    assert_eq!(over.get(&ifindex).unwrap(), None);
    assert_eq!(subjects.get(&ifindex).unwrap(), Some(other));
    assert_eq!(node.names(), [NONE[0], NONE[1], OURS[2], OURS[3]]);
}

#[test]
fn a_device_that_becomes_an_uplink_has_no_pods_programs() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    node.attach(&dataplane);
    let ifindex = node.index(POD);
    node.netns
        .run(|| dataplane.attach_uplink(ifindex, POD).unwrap());
    assert_eq!(node.names(), [OURS[2], OURS[3], OURS[2], OURS[3]]);
}

#[test]
fn links_that_lost_their_pins_are_taken_over_not_doubled() {
    let node = Node::new();
    let first = node.load().unwrap();
    node.attach(&first);
    for pin in fs::read_dir(node.bpffs().join(version()).join("links")).unwrap() {
        fs::remove_file(pin.unwrap().path()).unwrap();
    }
    let second = node.load().unwrap();
    assert_eq!(node.attach(&second), [Attached::Adopted, Attached::Adopted]);
    assert_eq!(node.names(), OURS);
    drop(first);
    drop(second);
    assert_eq!(node.names(), OURS, "they are pinned again");
}

#[test]
fn an_unmounted_bpffs_leaves_one_program_per_hook() {
    let node = Node::new();
    let first = node.load().unwrap();
    node.attach(&first);
    let bpffs = node.run.bpffs();
    umount2(&bpffs, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(node.names(), OURS, "the agent holds them");
    mount(
        Some("bpf"),
        &bpffs,
        Some("bpf"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let second = node.load().unwrap();
    assert!(second.adopted().fresh);
    node.attach(&second);
    assert_eq!(node.names(), OURS);
}

#[test]
fn links_whose_device_is_gone_are_dropped() {
    let node = Node::new();
    let first = node.load().unwrap();
    node.attach(&first);
    drop(first);
    node.netns.ip([format!("link del {POD}")]).unwrap();
    let second = node.load().unwrap();
    assert_eq!(second.adopted().dropped_links, 2);
    assert!(second.adopted().pods.is_empty());
    let left = fs::read_dir(node.bpffs().join(version()).join("links"))
        .unwrap()
        .count();
    assert_eq!(left, 2, "the uplink's");
}

#[test]
fn programs_of_others_keep_their_place_and_ours_run_first() {
    let node = Node::new();
    let foreign = attach_foreign(&node, LinkOrder::first());
    let theirs = node.programs(POD, TcAttachType::Ingress);
    let dataplane = node.load().unwrap();
    node.attach(&dataplane);
    let [mut from_pod, ..] = node.names();
    assert_eq!(from_pod, ["from_pod", "from_net"]);
    drop(dataplane);
    let dataplane = node.load().unwrap();
    node.attach(&dataplane);
    [from_pod, ..] = node.names();
    assert_eq!(from_pod, ["from_pod", "from_net"]);
    cleanup(&node.bpffs()).unwrap();
    assert_eq!(node.programs(POD, TcAttachType::Ingress), theirs);
    assert_eq!(node.names()[1..], NONE[1..]);
    drop(foreign);
}

#[test]
fn a_map_of_another_layout_is_refused_and_what_runs_goes_on() {
    let node = Node::new();
    let first = node.load().unwrap();
    node.attach(&first);
    drop(first);
    let pin = node.bpffs().join(version()).join("maps/rows");
    let before = node.programs(POD, TcAttachType::Ingress);
    fs::remove_file(&pin).unwrap();
    let other = HashMap::<MapData, u64, u64>::create(1_024, 0).unwrap();
    other.pin(&pin).unwrap();
    let error = node.load().unwrap_err().to_string();
    let told = format!("{}/maps/rows has another layout", version());
    assert!(error.contains(&told), "{error}");
    assert!(error.contains("sluice cleanup"), "{error}");
    assert_eq!(node.programs(POD, TcAttachType::Ingress), before);
}

#[test]
fn a_capacity_that_changed_is_kept_and_told() {
    let node = Node::new();
    drop(node.load().unwrap());
    let mut options = node.options();
    options.capacities.insert("ct4".into(), 2_048);
    let second = node.load_with(&options).unwrap();
    let kept = KeptCapacity {
        map: "ct4".into(),
        has: 1_024,
        asked: 2_048,
    };
    assert_eq!(second.adopted().kept_capacities, [kept]);
    options.capacities.insert("subjects".into(), 8);
    let error = node.load_with(&options).unwrap_err().to_string();
    assert!(error.contains("map subjects cannot be set"), "{error}");
}

#[test]
fn cleanup_leaves_nothing_of_any_version() {
    let node = Node::new();
    let dataplane = node.load().unwrap();
    node.attach(&dataplane);
    let old = node.bpffs().join("v0/maps");
    fs::create_dir_all(&old).unwrap();
    let map = HashMap::<MapData, u32, u32>::create(8, 0).unwrap();
    map.pin(old.join("services4")).unwrap();
    let own = node.bpffs().join(version());
    let pins = |folder| fs::read_dir(own.join(folder)).unwrap().count();
    let expected = CleanupReport {
        links: 4,
        programs: pins("progs"),
        maps: pins("maps") + 1,
    };
    // Even while an agent runs.
    let report = cleanup(&node.bpffs()).unwrap();
    assert_eq!(report, expected);
    assert!(!node.bpffs().exists());
    assert_eq!(node.names(), NONE);
    assert_eq!(cleanup(&node.bpffs()).unwrap(), CleanupReport::default());
}

/// The folder of pins of this version's layouts.
fn version() -> String {
    format!("v{ABI_VERSION}")
}

/// Links that run a program, by the program's pin.
fn links_of(bpffs: &Path, program: &str) -> usize {
    let pin = bpffs.join(version()).join("progs").join(program);
    let id = aya::programs::ProgramInfo::from_pin(pin).unwrap().id();
    aya::programs::loaded_links()
        .filter(|link| link.as_ref().is_ok_and(|link| link.program_id() == id))
        .count()
}

#[test]
fn socket_programs_are_attached_once_and_replaced() {
    let node = Node::new();
    let root = sluice::bpf::find_cgroup_root().unwrap();
    let cgroup = root.join(format!("sluice-test-{}", node.run.id()));
    fs::create_dir(&cgroup).unwrap();
    let dataplane = node.load().unwrap();
    dataplane.attach_cgroup(&cgroup).unwrap();
    dataplane.attach_cgroup(&cgroup).unwrap();
    drop(dataplane);
    let dataplane = node.load().unwrap();
    dataplane.attach_cgroup(&cgroup).unwrap();
    for (program, _) in SOCKET_HOOKS {
        assert_eq!(links_of(&node.bpffs(), program), 1, "{program}");
    }
    dataplane.detach_cgroup().unwrap();
    // The kernel frees a link some time after it is detached.
    for (program, _) in SOCKET_HOOKS {
        let gone = || links_of(&node.bpffs(), program) == 0;
        until_true(PATIENCE, program, gone).unwrap();
    }
    dataplane.attach_cgroup(&cgroup).unwrap();
    cleanup(&node.bpffs()).unwrap();
    fs::remove_dir(&cgroup).unwrap();
}

/// Filters of the agent on the pod's device, as `tc` lists them.
fn filters(node: &Node, side: &str) -> Vec<String> {
    let listed = node
        .netns
        .command("tc", &["filter", "show", "dev", POD, side])
        .unwrap();
    let lines = listed.lines().filter(|line| line.contains("handle"));
    lines.map(str::to_owned).collect()
}

#[test]
fn without_tcx_filters_are_replaced_in_place() {
    let node = Node::new();
    let mut options = node.options();
    options.attach = Some(AttachMode::Clsact);
    let first = node.load_with(&options).unwrap();
    assert_eq!(node.attach(&first), [Attached::New, Attached::New]);
    assert_eq!(node.names(), NONE);
    let before = filters(&node, "ingress");
    assert_eq!(before.len(), 1);
    assert!(before[0].contains("from_pod"), "{before:?}");
    drop(first);
    assert_eq!(filters(&node, "ingress"), before);

    let second = node.load_with(&options).unwrap();
    assert_eq!(node.attach(&second), [Attached::Adopted, Attached::Adopted]);
    let after = filters(&node, "ingress");
    assert_eq!((after.len(), filters(&node, "egress").len()), (1, 1));
    assert_ne!(before, after, "the new agent's program runs");
    drop(second);
    node.netns.run(|| cleanup(&node.bpffs()).unwrap());
    assert!(filters(&node, "ingress").is_empty() && filters(&node, "egress").is_empty());
}
