//! Clients outside the cluster.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::scenario::{PATIENCE, REQUEST, Scenario};
use crate::topology::Family;
use crate::wait;
use crate::workload::{Load, LoadSpec, client};

const EXAMPLE: &str = include_str!("../../../../examples/nodeport.yaml");

/// Requests through each node.
const SAMPLE: u64 = 400;

/// Port 30080 of either node, in both families.
pub(super) fn node_port(scenario: &mut Scenario) -> Result<()> {
    scenario.plane.apply_yaml(EXAMPLE)?;
    let outside = scenario.plane.cluster().outside().clone();
    for node in scenario.plane.cluster().nodes().to_vec() {
        let to = node.addrs().both().map(|ip| SocketAddr::new(ip, 30080));
        for to in to {
            outside.run(|| {
                wait::until(PATIENCE, &format!("{to} to answer"), || {
                    client::get(to, "/", REQUEST)
                })
            })?;
        }
        let tally = Load::run(
            &outside,
            LoadSpec {
                limit: Some(SAMPLE),
                ..LoadSpec::new(to)
            },
        );
        let style = node.cni().name();
        let name = format!(
            "NodePort 30080 from outside through {} ({style})",
            node.name()
        );
        scenario.no_failures(&name, &tally, SAMPLE);
    }
    source_rows(scenario)
}

/// Whose address pods see: the client's on the node that was asked, that node's on another.
fn source_rows(scenario: &mut Scenario) -> Result<()> {
    let cluster = scenario.plane.cluster();
    let (mut local, mut remote, mut wrong) = (0_u64, 0_u64, 0_u64);
    for node in cluster.nodes() {
        for family in Family::ALL {
            let to = SocketAddr::new(node.addrs().ip(family), 30080);
            for _ in 0..24 {
                let answer = cluster.outside().run(|| client::get(to, "/", REQUEST));
                let answer = answer.context("a request from outside")?;
                let here = scenario.plane.pod(&answer.name).node().index() == node.index();
                let seen = answer.peer.ip();
                let own = if here {
                    cluster.outside_addrs()
                } else {
                    node.addrs()
                };
                wrong += u64::from(seen != own.ip(family));
                *(if here { &mut local } else { &mut remote }) += 1;
            }
        }
    }
    let measured = format!("{wrong} of {local} here, {remote} elsewhere");
    let ok = wrong == 0 && local > 0 && remote > 0;
    let name = "… wrong sources (client's if the pod is here, node's if elsewhere)";
    scenario.row(name, "0, both kinds seen", measured, "", ok);
    Ok(())
}
