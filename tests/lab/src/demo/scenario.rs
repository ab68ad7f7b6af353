//! The stage: a cluster with agents and two clients, and the rows so far.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::kube::{Plane, PodRun};
use crate::netns::Netns;
use crate::report::{Figure, Report, Row};
use crate::topology::{Cluster, Dual};
use crate::wait;
use crate::workload::{Load, LoadSpec, ServerSpec, Tally, client};

/// How long any change may take to show before the demo gives up on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a single request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(3);
/// What the agent has to put a change of a file in force.
pub(super) const IN_FORCE: Duration = Duration::from_millis(50);

/// user-service's addresses in the examples.
pub(super) const USER_SERVICE: Dual = cluster_ips(0x10, 10);
/// The addresses of the UDP service in the examples.
pub(super) const METRICS: Dual = cluster_ips(0x53, 53);
/// The database's addresses in the examples.
pub(super) const DATABASE: Dual = cluster_ips(0x32, 32);

/// The stage.
pub(super) struct Scenario {
    /// The cluster's control plane.
    pub plane: Plane,
    report: Report,
}

impl Scenario {
    /// Starts the agents and a client pod on each node.
    pub fn start(cluster: Cluster) -> Result<Scenario> {
        let mut plane = Plane::new(cluster)?;
        plane.start_agents()?;
        for node in [1, 2] {
            let server = ServerSpec {
                tcp: vec![8080],
                ..ServerSpec::default()
            };
            let name = format!("client-{node}");
            let labels = [("app".to_owned(), "client".to_owned())].into();
            plane.run(PodRun {
                name,
                node: Some(node),
                labels,
                server,
                ..PodRun::default()
            })?;
        }
        Ok(Scenario {
            plane,
            report: Report::default(),
        })
    }

    /// Plays one step; an error in it is a row that does not hold.
    pub fn step(&mut self, name: &str, play: fn(&mut Scenario) -> Result<()>) {
        let begun = Instant::now();
        let result = play(self);
        eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
        if let Err(error) = result {
            let measured = format!("{error:#}")
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned();
            eprintln!("{name}: {error:#}");
            self.row(name, "to get to its end", measured, "", false);
        }
    }

    /// Adds a row.
    pub fn row(
        &mut self,
        name: impl Into<String>,
        expected: impl Into<String>,
        measured: impl Into<Figure>,
        unit: &str,
        ok: bool,
    ) {
        let (name, expected, measured) = (name.into(), expected.into(), measured.into());
        self.report.push(Row {
            name,
            expected,
            measured,
            unit: unit.to_owned(),
            ok,
        });
    }

    /// Adds a row for a load of which nothing may fail, and that must have been one.
    pub fn no_failures(&mut self, name: &str, tally: &Tally, at_least: u64) {
        let (failures, requests) = (tally.failures(), tally.requests());
        let ok = failures == 0 && requests >= at_least;
        let measured = match failures {
            0 => format!(
                "0 of {requests}, slowest {:.0} ms",
                tally.latency(1.0).as_secs_f64() * 1e3
            ),
            _ => format!("{failures} of {requests} ({})", tally.failure_kinds()),
        };
        let expected = format!("0 of at least {at_least}");
        self.row(
            format!("{name}: failed requests"),
            expected,
            measured,
            "",
            ok,
        );
    }

    /// The rows so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The namespace of the client pod on a node.
    pub fn client(&self, node: u8) -> Arc<Netns> {
        self.plane.pod(&format!("client-{node}")).netns().clone()
    }

    /// Where requests come from: a pod on each node, and a process of each node.
    pub fn clients(&self) -> Vec<(String, Arc<Netns>)> {
        let nodes = self.plane.cluster().nodes();
        let pods = nodes.iter().map(|node| {
            let style = node.cni().name();
            (
                format!("a pod on {} ({style})", node.name()),
                self.client(node.index()),
            )
        });
        let hosts = nodes.iter().map(|node| {
            (
                format!("a process of {}", node.name()),
                node.netns().clone(),
            )
        });
        pods.chain(hosts).collect()
    }

    /// Waits until a service is answered in both families, everywhere.
    pub fn await_answers(&self, service: Dual, port: u16) -> Result<()> {
        for (name, netns) in self.clients() {
            for to in targets(service, port) {
                netns.run(|| {
                    wait::until(PATIENCE, &format!("{to} to answer {name}"), || {
                        client::get(to, "/", REQUEST)
                    })
                })?;
            }
        }
        Ok(())
    }

    /// Waits until new connections from a client are answered by these versions only, and by each.
    pub fn await_versions(&self, versions: &[&str]) -> Result<()> {
        let what = format!("user-service to answer as {versions:?}");
        wait::until(PATIENCE, &what, || {
            let tally = self.sample(&self.client(1), 40);
            let seen: Vec<&str> = tally.by_version.keys().map(String::as_str).collect();
            let all = seen.len() == versions.len() && versions.iter().all(|v| seen.contains(v));
            match tally.failures() {
                0 if all => Ok(()),
                0 => Err(format!("it was {seen:?}")),
                _ => Err(format!("it was {seen:?}, {}", tally.failure_kinds())),
            }
        })
    }

    /// A few connections to user-service, to see whether a change is in force.
    pub fn sample(&self, netns: &Arc<Netns>, count: u64) -> Tally {
        let spec = LoadSpec::new(targets(USER_SERVICE, 80));
        Load::run(
            netns,
            LoadSpec {
                limit: Some(count),
                timeout: REQUEST / 10,
                ..spec
            },
        )
    }

    /// Lets the lab stay and says how to look around in it.
    pub fn keep(&self) -> Result<()> {
        self.plane.cluster().run().keep()?;
        let cluster = self.plane.cluster();
        let id = cluster.run().id();
        let dir = cluster.run().dir().display();
        println!("\nThe lab still runs. Its namespaces (`ip netns list`) are called sl-{id}-…:");
        println!(
            "  nsenter --net=/run/netns/sl-{id}-pod-client-1 curl http://{}/",
            USER_SERVICE.v4
        );
        for agent in &self.plane.agents {
            println!("  sluice status --socket {}", agent.socket().display());
        }
        println!(
            "Manifests are in {dir}/manifests, logs in {dir}: a saved file is in force at once."
        );
        println!("  sluice-lab remove {id}    takes all of it away");
        Ok(())
    }
}

/// Both addresses with a port.
pub(super) fn targets(service: Dual, port: u16) -> [SocketAddr; 2] {
    service.both().map(|ip: IpAddr| SocketAddr::new(ip, port))
}

const fn cluster_ips(host6: u16, host4: u8) -> Dual {
    Dual {
        v4: std::net::Ipv4Addr::new(10, 96, 0, host4),
        v6: std::net::Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, host6),
    }
}
