//! The network namespace that the programs run in: a node with an uplink and the devices of its
//! pods. Frames never leave it: they are given to programs, not sent.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// The uplink's index. Pod `n` has the device `UPLINK + n`.
pub const UPLINK: u32 = 100;
/// The uplink's hardware address.
pub const UPLINK_MAC: [u8; 6] = [0x0a, 0, 0, 0, 8, 1];
/// How many pods have a device.
pub const PODS: u32 = 9;

/// Moves the calling thread into the namespace. It is made once, and goes with the process.
pub fn enter() {
    static NAMESPACE: OnceLock<File> = OnceLock::new();
    let namespace = NAMESPACE.get_or_init(|| thread::spawn(make).join().expect("a new namespace"));
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
}

fn make() -> File {
    unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace: run as root");
    sysctl("net/ipv4/ip_forward", "1");
    sysctl("net/ipv6/conf/all/forwarding", "1");
    let mut commands = String::from(
        "link set lo up
         link add name up0 address 0a:00:00:00:08:01 index 100 type veth peer name up0p
         link set up0p up
         link set up0 up
         addr add 192.0.2.1/24 dev up0
         addr add fd00:f::1/64 dev up0 nodad
         neigh add 192.0.2.2 lladdr 0a:00:00:00:08:02 dev up0
         neigh add fd00:f::2 lladdr 0a:00:00:00:08:02 dev up0
         neigh add 192.0.2.254 lladdr 0a:00:00:00:08:fe dev up0
         neigh add fd00:f::fe lladdr 0a:00:00:00:08:fe dev up0
         route add 10.2.0.200/32 via 192.0.2.3
         route add fd00:2::c8/128 via fd00:f::3
         route add 10.2.0.100/32 via 192.0.2.2 mtu lock 1400
         route add fd00:2::64/128 via fd00:f::2 mtu lock 1400
         route add 198.51.100.100/32 via 192.0.2.254 mtu lock 1400
         route add 2001:db8::64/128 via fd00:f::fe mtu lock 1400
         route add 10.2.0.0/24 via 192.0.2.2
         route add fd00:2::/64 via fd00:f::2
         route add unreachable 198.51.100.201/32
         route add unreachable 2001:db8::c9/128
         route add default via 192.0.2.254
         route add default via fd00:f::fe
",
    );
    for pod in 1..=PODS {
        let index = UPLINK + pod;
        write!(
            commands,
            "link add name pod{pod} index {index} type veth peer name pod{pod}p
             link set pod{pod}p up
             link set pod{pod} up
             route add 10.1.0.{pod}/32 dev pod{pod}
             route add fd00:1::{pod}/128 dev pod{pod}
"
        )
        .expect("a string has room");
    }
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the program ip (package iproute2)");
    let mut input = ip.stdin.take().expect("a pipe");
    input
        .write_all(commands.as_bytes())
        .expect("ip reads its commands");
    drop(input);
    assert!(
        ip.wait().expect("ip ends").success(),
        "ip refused a command of:\n{commands}"
    );
    File::open("/proc/thread-self/ns/net").expect("the namespace's file")
}

fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}
