//! Verdicts as they are made, with names.

use std::io;
use std::sync::Arc;

use dataplane_common::abi::{FlowEvent, hook};
use dataplane_common::verdict::DropReason;
use dataplane_model::snapshot::{Direction, PolicyMode};
use jiff::Timestamp;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;

use super::names::{Names, endpoint, ip, is_none, protocol};
use super::protocol::{Flow, Response};
use super::server::send;
use crate::observe::events::{Heard, Hub};

/// Sends verdicts until the listener goes away.
pub(super) async fn stream(
    write: &mut OwnedWriteHalf,
    hub: &Hub,
    names: watch::Receiver<Arc<Names>>,
) -> io::Result<()> {
    let mut listening = match hub.subscribe() {
        Ok(listening) => listening,
        Err(error) => return send(write, &Response::<Flow>::Error(error.to_string())).await,
    };
    let mut lost = 0;
    while let Some(heard) = listening.next().await {
        match heard {
            Heard::Lost(count) => lost += count,
            Heard::Event(event) => {
                let names = Arc::clone(&names.borrow());
                let flow = flow(&event, &names, std::mem::take(&mut lost));
                send(write, &Response::Ok(flow)).await?;
            }
        }
    }
    Ok(())
}

fn flow(event: &FlowEvent, names: &Names, lost_before: u64) -> Flow {
    let reason = DropReason::from_code(event.reason);
    let audit = DropReason::from_code(event.audit);
    let (source, destination) = (ip(event.src), ip(event.dst));
    let backend = (!is_none(event.backend)).then(|| ip(event.backend));
    let responder = backend.unwrap_or(destination);
    let (denial, mode) = match reason {
        Some(_) => (reason, PolicyMode::Enforce),
        None => (audit, PolicyMode::Audit),
    };
    let rule = match (mode, denial) {
        (PolicyMode::Audit, _) => event.audit_rule,
        (_, Some(DropReason::PolicyEgress)) => event.egress_rule,
        _ => event.ingress_rule,
    };
    let isolated_by = match denial {
        // A rule that denies says it all; without one, it is the isolation that does.
        Some(DropReason::PolicyEgress) if rule == 0 => {
            names.isolated_by(source, Direction::Egress, mode)
        }
        Some(DropReason::PolicyIngress) if rule == 0 => {
            names.isolated_by(responder, Direction::Ingress, mode)
        }
        _ => Vec::new(),
    };
    Flow {
        time: Timestamp::now().to_string(),
        verdict: match (reason, audit) {
            (Some(_), _) => "dropped",
            (None, Some(_)) => "audit",
            (None, None) => "allowed",
        }
        .to_owned(),
        reason: reason.map(|reason| reason.name().to_owned()),
        hook: hook::name(event.hook).to_owned(),
        protocol: protocol(event.proto),
        source: endpoint(source, event.src_port),
        source_pod: names.owner(source),
        destination: endpoint(destination, event.dst_port),
        destination_pod: names.owner(responder),
        backend: backend.map(|backend| endpoint(backend, event.backend_port)),
        service: names.frontend(event.frontend),
        egress_rule: names.rule(event.egress_rule),
        ingress_rule: names.rule(event.ingress_rule),
        audit: audit.map(|reason| reason.name().to_owned()),
        audit_rule: names.rule(event.audit_rule),
        isolated_by,
        packets: event.packets.into(),
        sampled_out_before: event.skipped.into(),
        lost_before,
    }
}
