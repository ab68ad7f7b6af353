//! The lab's own servers, loads and pods: what other tests measure with must be right first.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::DirEntryExt;
use std::thread;
use std::time::Duration;

use serde_json::json;
use sluice_lab::kube::manifests::from_yaml;
use sluice_lab::kube::{Plane, PodRun};
use sluice_lab::run::Run;
use sluice_lab::topology::{Cluster, Cni, Dual, Family, Pod};
use sluice_lab::wait;
use sluice_lab::workload::client::{self, Connection};
use sluice_lab::workload::{Connections, Load, LoadSpec, Process, Server, ServerSpec, udp};

const PATIENCE: Duration = Duration::from_secs(30);

fn spec(name: &str) -> ServerSpec {
    let (tcp, udp) = (vec![8080], vec![9090]);
    ServerSpec {
        name: name.into(),
        version: "1.0".into(),
        tcp,
        udp,
        not_ready: false,
        udp_at: vec![],
    }
}

fn both(addrs: Dual, port: u16) -> [SocketAddr; 2] {
    addrs.both().map(|ip| SocketAddr::new(ip, port))
}

/// Two pods on two nodes: the first one's clients, the second one's server.
fn pair(cni: Cni) -> (Cluster, Pod, Pod) {
    let cluster = Cluster::new(2, cni).unwrap();
    let (client, server) = (cluster.add_pod(1, "client"), cluster.add_pod(2, "server"));
    (cluster, client.unwrap(), server.unwrap())
}

#[test]
fn a_server_says_who_it_is_and_who_asks() {
    let (_cluster, client, server) = pair(Cni::Ptp);
    let _running = server.netns().run(|| Server::start(spec("s"))).unwrap();
    for family in Family::ALL {
        let to = |port| SocketAddr::new(server.addrs().ip(family), port);
        let tcp = client
            .netns()
            .run(|| client::get(to(8080), "/", PATIENCE))
            .unwrap();
        let udp = client.netns().run(|| udp::ask(to(9090), PATIENCE)).unwrap();
        for answer in [tcp, udp] {
            assert_eq!(
                (answer.name.as_str(), answer.version.as_str()),
                ("s", "1.0")
            );
            assert_eq!(answer.peer.ip(), client.addrs().ip(family));
        }
    }
}

#[test]
fn a_load_counts_every_request_and_every_failure() {
    let (_cluster, client, server) = pair(Cni::Bridge);
    let running = server.netns().run(|| Server::start(spec("s"))).unwrap();
    for connections in [
        Connections::PerRequest,
        Connections::KeepAlive,
        Connections::Udp,
    ] {
        let port = if connections == Connections::Udp {
            9090
        } else {
            8080
        };
        let to = both(server.addrs(), port);
        let load = LoadSpec {
            limit: Some(100),
            connections,
            ..LoadSpec::new(to)
        };
        let tally = Load::run(client.netns(), load);
        assert_eq!(
            (tally.answered(), tally.failures()),
            (100, 0),
            "{}",
            tally.failure_kinds()
        );
        assert_eq!(tally.by_name["s"].count, 100);
    }
    drop(running);
    let load = LoadSpec {
        limit: Some(10),
        ..LoadSpec::new(both(server.addrs(), 8080))
    };
    let tally = Load::run(client.netns(), load);
    assert_eq!(tally.failure_kinds(), "10 connect: ECONNREFUSED");
}

#[test]
fn a_server_that_drains_cuts_nobody_off() {
    let (_cluster, client, server) = pair(Cni::Ptp);
    let running = server.netns().run(|| Server::start(spec("s"))).unwrap();
    let to = both(server.addrs(), 8080)[0];
    let mut open = client
        .netns()
        .run(|| Connection::open(None, to, PATIENCE))
        .unwrap();
    open.get("/", false).unwrap();
    assert!(open.is_open());
    let drain = thread::spawn(move || running.drain());
    wait::until_true(PATIENCE, "new connections to be refused", || {
        client
            .netns()
            .run(|| client::get(to, "/", PATIENCE))
            .is_err_and(|e| e.is_refused())
    })
    .unwrap();
    open.get("/", false)
        .expect("the open connection gets its answer");
    assert!(!open.is_open(), "and is told that it was the last one");
    drain.join().unwrap();
}

#[test]
fn killing_a_server_process_resets_its_connections() {
    let (_cluster, client, server) = pair(Cni::Bridge);
    let process = Process::start(server.netns(), &spec("s")).unwrap();
    let to = both(server.addrs(), 8080)[1];
    let mut open = client
        .netns()
        .run(|| Connection::open(None, to, PATIENCE))
        .unwrap();
    open.get("/", false).unwrap();
    process.kill().unwrap();
    assert!(open.get("/", false).is_err());
    let refused = client
        .netns()
        .run(|| client::get(to, "/", PATIENCE))
        .unwrap_err();
    assert!(refused.is_refused(), "{refused}");
}

#[test]
fn a_rolling_update_keeps_enough_pods_ready() {
    let text = include_str!("../../examples/rolling-update.yaml");
    let mut deployment = from_yaml(text).unwrap().remove(0);
    let mut plane = Plane::new(Cluster::new(2, Cni::Ptp).unwrap()).unwrap();
    let container = "/spec/template/spec/containers/0";
    *deployment
        .pointer_mut(&format!("{container}/image"))
        .unwrap() = json!("user-service:1.0.0");
    plane.apply(&deployment).unwrap();
    let old = plane.pods_of("user-service");
    assert_eq!(old.len(), 5);

    let dir = plane.manifests.dir().to_owned();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let watcher = thread::spawn(move || {
        let (mut least, mut most) = (usize::MAX, 0);
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            let before = inodes(&dir);
            let (ready, alive) = census(&dir);
            // A census reads the files one after the other: it counts if none changed meanwhile.
            if inodes(&dir) == before {
                (least, most) = (least.min(ready), most.max(alive));
            }
        }
        (least, most)
    });
    *deployment
        .pointer_mut(&format!("{container}/image"))
        .unwrap() = json!("user-service:2.0.0");
    plane.apply(&deployment).unwrap();
    drop(stop);
    let (least, most) = watcher.join().unwrap();
    assert!(
        least >= 4 && most <= 7,
        "{least} ready at least, {most} alive at most"
    );
    let new = plane.pods_of("user-service");
    assert_eq!((new.len(), census(plane.manifests.dir())), (5, (5, 5)));
    assert!(new.iter().all(|name| !old.contains(name)));
}

/// The files of a folder as they are now: each change makes a new one.
fn inodes(dir: &std::path::Path) -> BTreeMap<OsString, u64> {
    let files = std::fs::read_dir(dir).unwrap().flatten();
    files.map(|file| (file.file_name(), file.ino())).collect()
}

/// The pods in a folder that are ready, and those that are not terminating.
fn census(dir: &std::path::Path) -> (usize, usize) {
    let files = std::fs::read_dir(dir).unwrap().flatten();
    let pods = files.filter(|file| file.file_name().to_string_lossy().starts_with("pod-"));
    let texts = pods.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let pods: Vec<_> = texts.flat_map(|text| from_yaml(&text).unwrap()).collect();
    let alive = pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let alive: Vec<_> = alive.collect();
    let ready = alive
        .iter()
        .filter(|pod| pod["status"]["conditions"][0]["status"] == "True");
    (ready.count(), alive.len())
}

#[test]
fn a_pod_whose_probe_fails_is_not_marked_ready() {
    let mut plane = Plane::new(Cluster::new(1, Cni::Bridge).unwrap()).unwrap();
    let server = ServerSpec {
        not_ready: true,
        ..spec("")
    };
    plane
        .run(PodRun {
            name: "slow".into(),
            server,
            ..PodRun::default()
        })
        .unwrap();
    assert_eq!(census(plane.manifests.dir()), (0, 1));
    let to = both(plane.pod("slow").addrs(), 8080)[0];
    let node = plane.cluster().node(1).netns();
    let status = |path| node.run(|| client::get(to, path, PATIENCE)).unwrap().status;
    assert_eq!((status("/ready"), status("/health")), (503, 200));
}

#[test]
fn what_a_dead_run_left_is_removed_by_the_next() {
    // As a process leaves it that was killed: a folder whose lock is free, and a namespace.
    let id = format!("dead.{}", std::process::id());
    let (dir, name) = (format!("/run/sluice-lab/{id}"), format!("sl-{id}-node-1"));
    let _first = Run::start().unwrap();
    let ip = std::process::Command::new("ip")
        .args(["netns", "add", &name])
        .status();
    assert!(ip.unwrap().success());
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(format!("{dir}/lock"), "").unwrap();
    let _second = Run::start().unwrap();
    assert!(!std::path::Path::new(&dir).exists());
    assert!(!std::path::Path::new("/run/netns").join(&name).exists());
}
