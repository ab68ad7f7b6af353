//! What the tests of the dataplane share: a cluster with an agent on each of two nodes, one joined
//! to its pods point to point and one by a bridge, and a client of every kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sluice_lab::kube::objects::ServiceManifest;
use sluice_lab::kube::{Plane, PodRun};
use sluice_lab::netns::Netns;
use sluice_lab::topology::{Cluster, Cni, Dual, Family};
use sluice_lab::wait;
use sluice_lab::workload::{Answer, Failure, Load, LoadSpec, ServerSpec, Tally, client, udp};

/// How long a change may take to show, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long a request may take that is to succeed, or to be refused, on a busy machine.
pub const REQUEST: Duration = Duration::from_secs(10);
/// How long a request is waited for that is to be dropped.
pub const DROPPED: Duration = Duration::from_millis(400);
/// The port that every server serves HTTP on.
pub const TCP: u16 = 8080;
/// The port that every server answers datagrams on.
pub const UDP: u16 = 9090;

/// A cluster under test.
pub struct World {
    pub plane: Plane,
}

/// A place that requests come from.
#[derive(Clone)]
pub struct Client {
    pub name: String,
    pub netns: Arc<Netns>,
    /// Its own addresses: what a server is to see.
    pub addrs: Dual,
}

impl World {
    /// Two nodes with agents, and the pods `client-1` and `client-2` on them.
    pub fn new() -> World {
        World::with_args(&[])
    }

    /// [`World::new`] with more arguments for the agents.
    pub fn with_args(args: &[&str]) -> World {
        let mut plane = Plane::new(Cluster::of(&[Cni::Ptp, Cni::Bridge]).unwrap()).unwrap();
        let agents = plane.agents.drain(..);
        plane.agents = agents.map(|agent| agent.with_args(args)).collect();
        plane.start_agents().unwrap();
        let mut world = World { plane };
        for node in [1, 2] {
            world.pod(&format!("client-{node}"), node, &[("role", "client")]);
        }
        world
    }

    /// A pod with a server, ready.
    pub fn pod(&mut self, name: &str, node: u8, labels: &[(&str, &str)]) {
        self.plane.run(pod(name, node, labels)).unwrap();
    }

    /// A pod with the label `app` for each node: `<app>-1` and `<app>-2`.
    pub fn pod_on_each_node(&mut self, app: &str) {
        for node in [1, 2] {
            self.pod(&format!("{app}-{node}"), node, &[("app", app)]);
        }
    }

    /// Writes a dual-stack Service that selects `app: <name>`, with TCP 80 and UDP 53.
    pub fn service(&self, name: &str, vip: Dual) {
        self.apply(
            &ServiceManifest::new(name)
                .cluster_ips(vip.both())
                .port("http", 80, TCP)
                .udp_port("dns", 53, UDP),
        );
    }

    /// Writes a Service.
    pub fn apply(&self, service: &ServiceManifest) {
        let object = service.object();
        let name = object["metadata"]["name"].as_str().unwrap();
        self.plane
            .manifests
            .write(&format!("service-{name}"), std::slice::from_ref(&object))
            .unwrap();
    }

    /// Applies YAML documents.
    pub fn yaml(&mut self, text: &str) {
        self.plane.apply_yaml(text).unwrap();
    }

    /// The pod `client-<node>`.
    pub fn client(&self, node: u8) -> Client {
        self.client_in(&format!("client-{node}"))
    }

    /// A running pod as a client.
    pub fn client_in(&self, name: &str) -> Client {
        let pod = self.plane.pod(name);
        let (netns, addrs) = (pod.netns().clone(), pod.addrs());
        Client {
            name: format!("pod {name}"),
            netns,
            addrs,
        }
    }

    /// A process of a node.
    pub fn host(&self, node: u8) -> Client {
        let of = self.plane.cluster().node(node);
        let netns = of.netns().clone();
        Client {
            name: format!("host {}", of.name()),
            netns,
            addrs: of.addrs(),
        }
    }

    /// The client outside the cluster.
    pub fn outside(&self) -> Client {
        let cluster = self.plane.cluster();
        let (netns, addrs) = (cluster.outside().clone(), cluster.outside_addrs());
        Client {
            name: "outside".to_owned(),
            netns,
            addrs,
        }
    }

    /// A client pod on each node.
    pub fn pods(&self) -> [Client; 2] {
        [1, 2].map(|node| self.client(node))
    }

    /// A client pod and a host process on each node.
    pub fn everywhere(&self) -> Vec<Client> {
        self.pods()
            .into_iter()
            .chain([1, 2].map(|node| self.host(node)))
            .collect()
    }

    /// A node's addresses with a port.
    pub fn node_at(&self, node: u8, port: u16) -> [SocketAddr; 2] {
        at(self.plane.cluster().node(node).addrs(), port)
    }

    /// Sends the outside client's packets for these addresses to a node.
    pub fn route_outside(&self, addrs: Dual, node: u8) {
        let via = self.plane.cluster().node(node).addrs();
        let routes = [
            format!("route replace {}/32 via {}", addrs.v4, via.v4),
            format!("route replace {}/128 via {}", addrs.v6, via.v6),
        ];
        self.plane.cluster().outside().ip(routes).unwrap();
    }

    /// Waits until every client's every address of a Service is answered.
    pub fn await_service(&self, vip: Dual, port: u16) {
        for client in self.everywhere() {
            for to in at(vip, port) {
                client.eventually_gets(to);
            }
        }
    }
}

/// What a failed test is to be explained by.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for agent in &self.plane.agents {
            let name = agent.node().name();
            match agent.status() {
                Ok(status) => eprintln!("{name}: {status}"),
                Err(error) => eprintln!("{name}: {error:#}"),
            }
            eprintln!("{}", agent.last_words());
        }
    }
}

impl Client {
    /// One HTTP request.
    pub fn get(&self, to: SocketAddr) -> Result<Answer, Failure> {
        self.netns.run(|| client::get(to, "/", REQUEST))
    }

    /// One HTTP request that is given up soon.
    pub fn try_get(&self, to: SocketAddr) -> Result<Answer, Failure> {
        self.netns.run(|| client::get(to, "/", DROPPED))
    }

    /// One datagram.
    pub fn ask(&self, to: SocketAddr) -> Result<Answer, Failure> {
        self.netns.run(|| udp::ask(to, DROPPED))
    }

    /// So many HTTP requests to these addresses in turn.
    pub fn load(&self, to: impl IntoIterator<Item = SocketAddr>, count: u64) -> Tally {
        Load::run(
            &self.netns,
            LoadSpec {
                limit: Some(count),
                timeout: REQUEST,
                ..LoadSpec::new(to)
            },
        )
    }

    /// Waits until just these pods answer, and every request is answered.
    pub fn await_names(&self, to: SocketAddr, names: &[&str]) {
        let what = format!("{to} to answer {} as {names:?}", self.name);
        wait::until(PATIENCE, &what, || {
            // A load that nobody answers would take long.
            self.try_get(to).map_err(|failure| failure.to_string())?;
            let tally = self.load([to], 24);
            let seen: Vec<_> = tally.by_name.keys().map(String::as_str).collect();
            if seen == names && tally.failures() == 0 {
                Ok(())
            } else {
                Err(format!("{seen:?}, {}", tally.failure_kinds()))
            }
        })
        .unwrap();
    }

    /// Waits until a request is refused at once.
    pub fn await_refused(&self, to: SocketAddr) {
        let what = format!("{to} to refuse {}", self.name);
        wait::until(PATIENCE, &what, || match self.try_get(to) {
            Err(failure) if failure.is_refused() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }

    /// Waits until datagrams are refused at once.
    pub fn await_datagrams_refused(&self, to: SocketAddr) {
        let what = format!("{to} to refuse datagrams of {}", self.name);
        wait::until(PATIENCE, &what, || {
            let asked = || udp::UdpClient::open(to, true)?.ask(DROPPED);
            match self.netns.run(asked) {
                Err(failure) if !failure.is_timeout() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .unwrap();
    }

    /// Waits until a request finds no Service: nobody has the address.
    pub fn await_unserved(&self, to: SocketAddr) {
        let what = format!("{to} to be nobody's for {}", self.name);
        wait::until(PATIENCE, &what, || match self.try_get(to) {
            Err(failure) if !failure.is_refused() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }

    /// Waits until a request is dropped.
    pub fn await_dropped(&self, to: SocketAddr) {
        let what = format!("{to} to be silent to {}", self.name);
        wait::until(PATIENCE, &what, || match self.try_get(to) {
            Err(failure) if failure.is_timeout() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    }

    /// Waits for an answer.
    pub fn eventually_gets(&self, to: SocketAddr) -> Answer {
        let what = format!("{to} to answer {}", self.name);
        wait::until(PATIENCE, &what, || self.try_get(to)).unwrap()
    }

    /// Waits for a failure, and returns the first.
    pub fn eventually_fails(&self, to: SocketAddr) -> Failure {
        let what = format!("{to} to fail {}", self.name);
        wait::until(PATIENCE, &what, || match self.try_get(to) {
            Ok(answer) => Err(format!("{} answers", answer.name)),
            Err(failure) => Ok(failure),
        })
        .unwrap()
    }
}

/// A pod to run, with a server on [`TCP`] and [`UDP`].
pub fn pod(name: &str, node: u8, labels: &[(&str, &str)]) -> PodRun {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    PodRun {
        name: name.to_owned(),
        node: Some(node),
        labels: labels.collect(),
        port_names: vec!["http".to_owned(), "dns".to_owned()],
        server: ServerSpec {
            tcp: vec![TCP],
            udp: vec![UDP],
            ..ServerSpec::default()
        },
        ..PodRun::default()
    }
}

/// Cluster address number `n`.
pub fn vip(n: u8) -> Dual {
    Dual {
        v4: Ipv4Addr::new(10, 96, 1, n),
        v6: Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 1, n.into()),
    }
}

/// Address number `n` of those that a load balancer or an administrator gives.
pub fn external(n: u8) -> Dual {
    Dual {
        v4: Ipv4Addr::new(198, 51, 100, n),
        v6: Ipv6Addr::new(0xfd51, 0, 0, 0, 0, 0, 0, n.into()),
    }
}

/// Both addresses with a port.
pub fn at(addrs: Dual, port: u16) -> [SocketAddr; 2] {
    addrs.both().map(|ip| SocketAddr::new(ip, port))
}

/// The address of the same family as `ip`.
pub fn same_family(addrs: Dual, ip: IpAddr) -> IpAddr {
    addrs.ip(if ip.is_ipv4() { Family::V4 } else { Family::V6 })
}
