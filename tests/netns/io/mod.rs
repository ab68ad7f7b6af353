//! The agent's own side of the kernel: loading, adopting, maps, devices and flows, without an
//! agent around them.

mod adoption;
mod devices;
mod flows;
mod maps;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use dataplane_common::abi::{Config, config_flags, name};
use nix::net::if_::if_nametoindex;
use sluice::bpf::{self, Dataplane, Error, FirstEntry, LoadOptions};
use sluice_lab::netns::Netns;
use sluice_lab::run::Run;

const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace with two devices whose other ends are in another one.
struct Node {
    run: Arc<Run>,
    netns: Netns,
    far: Netns,
}

const POD: &str = "pod0";
const UPLINK: &str = "up0";

impl Node {
    fn new() -> Node {
        let run = Run::start().unwrap();
        let netns = Netns::create(&run, "node").unwrap();
        let far = Netns::create(&run, "far").unwrap();
        let far_name = far.name();
        let lines = [
            format!("link add {POD} type veth peer name eth0 netns {far_name}"),
            format!("link add {UPLINK} type veth peer name eth1 netns {far_name}"),
            format!("link set {POD} up"),
            format!("link set {UPLINK} up"),
        ];
        netns.ip(lines).unwrap();
        far.ip(["link set eth0 up", "link set eth1 up"]).unwrap();
        Node { run, netns, far }
    }

    fn bpffs(&self) -> PathBuf {
        self.run.bpffs().join("sluice")
    }

    fn options(&self) -> LoadOptions {
        let flags = config_flags::SERVICES | config_flags::POLICY | config_flags::REDIRECT;
        LoadOptions {
            bpffs: self.bpffs(),
            config: Config {
                netns_cookie: self.netns.run(|| bpf::netns_cookie().unwrap()),
                flags,
                hz: bpf::kernel_hz().unwrap(),
                snat_first: 61_000,
                snat_count: 1_000,
                half_open_per_pod: 0,
                half_open_total: 0,
                error_rate: 100,
                event_rate: 1_000,
                reserved: 0,
            },
            capacities: capacities(1_024),
            attach: None,
        }
    }

    fn load(&self) -> Result<Dataplane, Error> {
        self.load_with(&self.options())
    }

    fn load_with(&self, options: &LoadOptions) -> Result<Dataplane, Error> {
        self.netns
            .run(|| Dataplane::load(bpf::object().unwrap(), options))
    }

    fn index(&self, device: &str) -> u32 {
        self.netns.run(|| if_nametoindex(device).unwrap())
    }

    fn attach(&self, dataplane: &Dataplane) -> [bpf::Attached; 2] {
        let (pod, uplink) = (self.index(POD), self.index(UPLINK));
        self.netns.run(|| {
            [
                dataplane
                    .attach_pod_device(pod, POD, FirstEntry::Late)
                    .unwrap(),
                dataplane.attach_uplink(uplink, UPLINK).unwrap(),
            ]
        })
    }

    /// Ids and names of the programs at a device's hook, in the order they run.
    fn programs(&self, device: &str, side: TcAttachType) -> Vec<(u32, String)> {
        let info = |program: &ProgramInfo| {
            let name = program.name_as_str().unwrap_or_default().to_owned();
            (program.id(), name)
        };
        let (_, programs) = self
            .netns
            .run(|| SchedClassifier::query_tcx(device, side).unwrap());
        programs.iter().map(info).collect()
    }

    /// Names of the programs at all four hooks.
    fn names(&self) -> [Vec<String>; 4] {
        let hooks = [
            (POD, TcAttachType::Ingress),
            (POD, TcAttachType::Egress),
            (UPLINK, TcAttachType::Ingress),
            (UPLINK, TcAttachType::Egress),
        ];
        hooks.map(|(device, side)| {
            let programs = self.programs(device, side);
            programs.into_iter().map(|(_, name)| name).collect()
        })
    }
}

/// Small maps, so that many tests fit in memory.
fn capacities(entries: u32) -> BTreeMap<String, u32> {
    let pairs = [
        name::SERVICES,
        name::BACKENDS,
        name::AFFINITY,
        name::SOCK_REV,
        name::CONNTRACK,
        name::FRAGMENTS,
        name::IDENTITIES,
        name::CIDRS,
        name::SOURCE_RANGES,
    ];
    let single = [
        name::SLOTS,
        name::CLASSES,
        name::SUBJECTS_OVERFLOW,
        name::RULESETS,
        name::PORT_BOUNDS,
        name::ROWS,
        name::IDS,
    ];
    pairs
        .into_iter()
        .flatten()
        .chain(single)
        .map(|name| (name.to_owned(), entries))
        .collect()
}
