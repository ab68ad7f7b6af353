//! Services as tables, for people.

use std::fmt::Write;

use super::show::{or_dash, table};
use crate::admin::explain::{EndpointDetail, ServiceDetail};
use crate::admin::protocol::Frontend;

/// Frontends and who serves them.
pub fn list(list: &[Frontend], wide: bool) -> String {
    let rows = list.iter().flat_map(|frontend| rows(frontend, wide));
    let mut columns = vec!["SERVICE", "FRONTEND", "CLIENTS", "SHARE", "BACKEND", "POD"];
    if wide {
        columns.extend(["LOCAL", "AFFINITY", "FLAGS"]);
    }
    table(&columns, rows)
}

/// A row for each backend; the frontend itself stands in the first.
fn rows(frontend: &Frontend, wide: bool) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for class in &frontend.classes {
        let share = format!("{}%", class.percent);
        if class.backends.is_empty() {
            let fate = if class.dropped { "dropped" } else { "refused" };
            rows.push(vec![share, fate.to_owned(), "-".to_owned(), "-".to_owned()]);
            continue;
        }
        for backend in &class.backends {
            let local = if backend.local { "yes" } else { "no" };
            rows.push(vec![
                share.clone(),
                backend.address.clone(),
                or_dash(&backend.pod),
                local.to_owned(),
            ]);
        }
    }
    for (index, row) in rows.iter_mut().enumerate() {
        let (mut head, mut tail) = (vec![String::new(); 3], vec![String::new(); 2]);
        if index == 0 {
            head = vec![
                frontend.service.clone(),
                frontend.frontend.clone(),
                frontend.scope.clone(),
            ];
            tail = vec![
                format!("{}s", frontend.affinity_secs),
                frontend.flags.join(","),
            ];
        }
        row.splice(0..0, head);
        if wide {
            row.extend(tail);
        } else {
            row.truncate(6);
        }
    }
    rows
}

/// One Service, with a reason for each endpoint that does not serve.
pub fn show(detail: &ServiceDetail) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<12}{text}");
    };
    line("service", &format!("{} ({})", detail.service, detail.kind));
    let zone = detail.zone.as_deref().unwrap_or("none");
    line("node", &format!("{}, zone {zone}", detail.node));
    line(
        "policies",
        &format!(
            "internal {}, external {}",
            detail.internal_policy, detail.external_policy
        ),
    );
    if let Some(secs) = detail.written_secs_ago {
        line("written", &format!("{secs} s ago"));
    }
    if let Some(pending) = &detail.pending {
        line("pending", pending);
    }
    if let Some(why) = &detail.unserved {
        line("not served", why);
    }
    for notice in &detail.notices {
        line("notice", notice);
    }
    if !detail.frontends.is_empty() {
        let _ = write!(out, "\n{}\n", list(&detail.frontends, false));
    }
    for port in &detail.ports {
        let _ = writeln!(out, "\nport {}", port.port);
        if let Some(why) = &port.empty {
            let _ = writeln!(out, "  nothing serves it here: {why}");
        }
        if !port.endpoints.is_empty() {
            let columns = ["ENDPOINT", "NODE", "POD", "INSIDE", "OUTSIDE", "WHY NOT"];
            let rows = port.endpoints.iter().map(endpoint);
            let _ = writeln!(out, "{}", table(&columns, rows));
        }
    }
    out
}

fn endpoint(one: &EndpointDetail) -> Vec<String> {
    let mark = |serves: bool| if serves { "serves" } else { "-" }.to_owned();
    vec![
        one.address.clone(),
        or_dash(&one.node),
        or_dash(&one.pod),
        mark(one.inside),
        mark(one.outside),
        or_dash(&one.reason),
    ]
}
