//! Whether the agent is well, and whether the Services answer from this node.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::super::client;
use super::Finding;
use crate::admin::protocol::{Frontend, MapUse, Request, Status};

/// How long an address may take to take a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Addresses that are tried at once.
const AT_ONCE: usize = 64;
/// Percent of a map from which on it is told.
const NEARLY_FULL: u64 = 90;

/// The checks of a running agent.
pub(super) fn check(socket: &Path) -> Result<Vec<Finding>> {
    let status: Status = client::ask(socket, &Request::Status)?;
    let frontends: Vec<Frontend> = client::ask(socket, &Request::Services)?;
    let mut findings = agent(&status);
    findings.extend(status.maps.iter().filter_map(nearly_full));
    let dialled = dialled(&frontends);
    let tried = dialled.iter().filter(|(one, _)| is_tcp(one)).count();
    let mut answering = 0;
    for some in dialled.chunks(AT_ONCE) {
        let found: Vec<Option<Finding>> = std::thread::scope(|scope| {
            let tries: Vec<_> = some
                .iter()
                .map(|(frontend, address)| scope.spawn(|| answers(frontend, *address)))
                .collect();
            tries
                .into_iter()
                .filter_map(|one| one.join().ok())
                .collect()
        });
        let answers = |(dialled, finding): &(&(&Frontend, _), &Option<_>)| {
            is_tcp(dialled.0) && finding.is_none()
        };
        answering += some.iter().zip(&found).filter(answers).count();
        findings.extend(found.into_iter().flatten());
    }
    findings.push(Finding::ok(
        "services",
        format!("{answering} of {tried} TCP addresses answer"),
    ));
    Ok(findings)
}

fn agent(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(if status.in_sync {
        Finding::ok("agent", format!("in sync, up {} s", status.uptime_secs))
    } else {
        let awaited = status.awaited.join(", ");
        let text = format!("waits for {awaited}: see its log for the API server's answers");
        Finding::failed("agent", text)
    });
    if let Some(pending) = &status.plans.pending {
        findings.push(Finding::failed("maps", pending.clone()));
    }
    for (device, text) in &status.attachments.failures {
        findings.push(Finding::failed(format!("device {device}"), text.clone()));
    }
    let (pods, uplinks) = (&status.attachments.pods, &status.attachments.uplinks);
    if uplinks.is_empty() {
        findings.push(Finding::note(
            "devices",
            "no uplink: clients outside are not served; name one with --uplinks",
        ));
    } else {
        let text = format!("{} of pods, uplinks {}", pods.len(), uplinks.join(" "));
        findings.push(Finding::ok("devices", text));
    }
    findings
}

fn nearly_full(map: &MapUse) -> Option<Finding> {
    let full = map.entries * 100 >= map.capacity * NEARLY_FULL && map.capacity > 1;
    full.then(|| {
        Finding::note(
            format!("map {}", map.name),
            format!(
                "{} of {} entries in use: raise it with mapCapacities",
                map.entries, map.capacity
            ),
        )
    })
}

/// The frontends for clients on this node, with their addresses; not what stands for the other ports of
/// an address.
fn dialled(frontends: &[Frontend]) -> Vec<(&Frontend, SocketAddr)> {
    let inside = frontends.iter().filter(|one| one.scope == "internal");
    let dialled = inside.filter_map(|one| {
        let (address, _) = one.frontend.rsplit_once('/')?;
        let address: SocketAddr = address.parse().ok()?;
        (address.port() != 0).then_some((one, address))
    });
    dialled.collect()
}

/// True for what can be tried: whoever answers by another protocol does so when asked rightly.
fn is_tcp(frontend: &Frontend) -> bool {
    frontend.frontend.ends_with("/TCP")
}

/// What is wrong with an address, if it does not answer.
fn answers(frontend: &Frontend, address: SocketAddr) -> Option<Finding> {
    let check = format!("{} {}", frontend.service, frontend.frontend);
    let mut backends = frontend.classes.iter().flat_map(|class| &class.backends);
    if backends.next().is_none() {
        return Some(Finding::note(
            check,
            "no endpoint serves it: `sluice service show` says why",
        ));
    }
    if !is_tcp(frontend) {
        return None;
    }
    match TcpStream::connect_timeout(&address, CONNECT) {
        Ok(_) => None,
        Err(error) => Some(Finding::failed(
            check,
            format!(
                "{error}: look at its endpoints (`sluice service show`) and at `sluice flow --verdict dropped`"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::admin::protocol::{Backend, Class};

    fn frontend(to: &str, backends: usize) -> Frontend {
        Frontend {
            service: "default/web:80".to_owned(),
            frontend: to.to_owned(),
            classes: vec![Class {
                percent: 100.0,
                backends: vec![Backend::default(); backends],
                dropped: false,
            }],
            ..Frontend::default()
        }
    }

    #[test]
    fn an_address_answers_by_taking_a_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to = format!("{address}/TCP");
        let asked = |backends| answers(&frontend(&to, backends), address);
        assert_eq!(asked(1), None);
        drop(listener);
        assert_eq!(asked(1).unwrap().outcome, Outcome::Failed);
        assert_eq!(asked(0).unwrap().outcome, Outcome::Note);
    }

    #[test]
    fn the_other_ports_of_an_address_and_outside_clients_are_not_tried() {
        let inside = |to| Frontend {
            scope: "internal".to_owned(),
            ..frontend(to, 1)
        };
        let frontends = [
            inside("10.96.0.1:80/TCP"),
            inside("10.96.0.1:53/UDP"),
            inside("10.96.0.1:0/protocol 0"),
            frontend("10.96.0.2:80/TCP", 1),
        ];
        let dialled = dialled(&frontends);
        let addresses: Vec<_> = (dialled.iter())
            .map(|(one, to)| (is_tcp(one), to.to_string()))
            .collect();
        let expected = [(true, "10.96.0.1:80"), (false, "10.96.0.1:53")];
        assert_eq!(addresses, expected.map(|(tcp, to)| (tcp, to.to_owned())));
    }

    #[test]
    fn an_agent_that_waits_or_fails_is_told() {
        let mut status = Status {
            awaited: vec!["Pod".to_owned()],
            ..Status::default()
        };
        status.plans.pending = Some("no room".to_owned());
        let findings = agent(&status);
        let failed = |found: &&Finding| found.outcome == Outcome::Failed;
        assert_eq!(findings.iter().filter(failed).count(), 2);
        let map = |entries| MapUse {
            name: "services4".to_owned(),
            entries,
            capacity: 100,
        };
        assert!(nearly_full(&map(89)).is_none());
        assert!(nearly_full(&map(90)).is_some());
    }
}
