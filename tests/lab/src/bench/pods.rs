//! A client's and a server's pod on one node, and what both comparisons of paths between them look at.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};

use super::traffic::{self, FORBIDDEN_PORT, Target, Test};
use super::worker::Pair;
use crate::agent::Agent;
use crate::topology::{Cluster, Pod};
use crate::wait;

/// How long an agent may take to read its objects and program them.
const IN_SYNC: Duration = Duration::from_secs(120);
/// How long the first transaction may take.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How long a connection is waited for that policy forbids.
const CLOSED: Duration = Duration::from_millis(200);
/// How long one is waited for that nothing forbids.
const OPEN: Duration = Duration::from_secs(5);

/// Makes both pods on a node: the client's and the server's.
///
/// # Errors
/// The kernel refuses something.
pub fn make(cluster: &Cluster, node: u8) -> Result<[Pod; 2]> {
    let client = cluster.add_pod(node, &format!("client-{node}"))?;
    let server = cluster.add_pod(node, &format!("server-{node}"))?;
    traffic::leave_room_for_connections(client.netns())?;
    Ok([client, server])
}

/// Waits until the agent, if there is one, is in sync, and until transactions with all targets succeed.
///
/// # Errors
/// One does not in time; or the client is stuck.
pub fn await_ready(
    name: &str,
    agent: Option<&mut Agent>,
    pair: &mut Pair,
    targets: impl IntoIterator<Item = Target>,
) -> Result<()> {
    if let Some(agent) = agent {
        agent.wait_in_sync(IN_SYNC)?;
    }
    for target in targets {
        let what = format!("the first transactions of {name}");
        wait::until(FIRST_ANSWER, &what, || {
            let sample = pair.run(Test::Crr, target, Duration::from_millis(5))?;
            match sample.error {
                Some(error) => bail!("{error}"),
                None => Ok(()),
            }
        })?;
    }
    Ok(())
}

/// Makes sure that the port that no policy opens is closed exactly where there are policies: a fast path that
/// forgets to judge is not what is to be measured.
///
/// # Errors
/// It is not so.
pub fn check_policy(name: &str, [client, server]: &[Pod; 2], policed: bool) -> Result<()> {
    let to = (IpAddr::from(server.addrs().v4), FORBIDDEN_PORT).into();
    let patience = if policed { CLOSED } else { OPEN };
    let connected = client
        .netns()
        .run(|| TcpStream::connect_timeout(&to, patience));
    match (policed, connected) {
        (true, Ok(_)) => bail!("{name}: a port is open that no policy allows"),
        (false, Err(error)) => bail!("{name}: the server's second port: {error}"),
        _ => Ok(()),
    }
}
