//! Answers as tables, for people.

use std::fmt::Write;

use comfy_table::{Table, presets};

use crate::admin::protocol::{Conntrack, Flow, Policy, SourceStatus, Status};

pub(super) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    for row in rows {
        table.add_row(row);
    }
    table.trim_fmt()
}

pub(super) fn or_dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".to_owned())
}

/// The agent's state.
pub fn status(status: &Status) -> String {
    let mut out = String::new();
    let sync = if status.in_sync {
        "in sync".to_owned()
    } else {
        format!("waiting for {}", status.awaited.join(", "))
    };
    let mut line = |name: &str, text: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<12}{text}");
    };
    line(
        "node",
        format!(
            "{} ({sync}, agent {} up {} s)",
            status.node, status.version, status.uptime_secs
        ),
    );
    let pairs = |items: Vec<(String, String)>| {
        let texts: Vec<String> = items.into_iter().map(|(a, b)| format!("{a} {b}")).collect();
        texts.join(", ")
    };
    line("modes", pairs(status.modes.clone().into_iter().collect()));
    let objects = status
        .objects
        .iter()
        .map(|(kind, count)| (count.to_string(), kind.clone()));
    line("objects", pairs(objects.collect()));
    let attached = &status.attachments;
    line(
        "devices",
        format!(
            "{} pods, uplinks {} ({})",
            attached.pods.len(),
            attached.uplinks.join(" "),
            attached.mode
        ),
    );
    for (device, mode) in &attached.xdp {
        line("", format!("{device} XDP {mode}"));
    }
    for pod in &attached.pods {
        line(
            "",
            format!(
                "{} {} {}",
                pod.name,
                or_dash(&pod.pod),
                pod.addresses.join(" ")
            ),
        );
    }
    for (device, text) in &attached.failures {
        line("  failed", format!("{device}: {text}"));
    }
    let plans = &status.plans;
    let last = plans.last_secs_ago.map_or_else(
        || "none yet".to_owned(),
        |secs| {
            format!(
                "{} operations, {} us, {secs} s ago",
                plans.last_operations, plans.last_micros
            )
        },
    );
    line(
        "last plan",
        format!(
            "{last}; {} done, {} failed, epoch {}",
            plans.done, plans.failed, plans.epoch
        ),
    );
    if let Some(pending) = &plans.pending {
        line("  pending", pending.clone());
    }
    for (name, text) in source(&status.source) {
        line(&name, text);
    }
    for problem in &status.problems {
        line("problem", problem.to_string());
    }
    for notice in &status.notices {
        line("notice", notice.clone());
    }
    for skipped in &status.skipped {
        line("skipped", format!("{}: {}", skipped.origin, skipped.kind));
    }
    let drops = status
        .drops
        .iter()
        .map(|(reason, count)| (reason.clone(), count.to_string()));
    line("drops", pairs(drops.collect()));
    let maps = status.maps.iter().map(|map| {
        vec![
            map.name.clone(),
            map.entries.to_string(),
            map.capacity.to_string(),
        ]
    });
    out.push('\n');
    out.push_str(&table(&["MAP", "ENTRIES", "CAPACITY"], maps));
    out
}

/// The place, and each kind that is neither followed nor absent.
fn source(source: &SourceStatus) -> Vec<(String, String)> {
    let connected = source
        .connected
        .as_ref()
        .map(|address| format!(" (connected to {address})"));
    let place = format!("{}{}", source.place, connected.unwrap_or_default());
    let mut lines = vec![("source".to_owned(), place)];
    let usual = ["following", "not served"];
    for kind in source
        .kinds
        .iter()
        .filter(|kind| !usual.contains(&kind.state.as_str()))
    {
        let failure = kind.failure.as_ref().map(|text| format!(": {text}"));
        let text = format!("{}{}", kind.state, failure.unwrap_or_default());
        lines.push((format!("  {}", kind.kind), text));
    }
    lines
}

/// Policies.
pub fn policies(list: &[Policy]) -> String {
    let rules = |count: Option<usize>| match count {
        None => "-".to_owned(),
        Some(0) => "none allowed".to_owned(),
        Some(count) => format!("{count} rules"),
    };
    let rows = list.iter().map(|policy| {
        vec![
            match policy.audit {
                true => format!("{} (audit)", policy.policy),
                false => policy.policy.clone(),
            },
            policy.selector.clone(),
            rules(policy.ingress_rules),
            rules(policy.egress_rules),
            format!("{} of {}", policy.pods.len(), policy.pods_in_cluster),
            policy.pods.join(" "),
        ]
    });
    table(
        &["POLICY", "SELECTOR", "INGRESS", "EGRESS", "HERE", "PODS"],
        rows,
    )
}

/// Tracked flows.
pub fn conntrack(answer: &Conntrack) -> String {
    let rows = answer.flows.iter().map(|flow| {
        vec![
            flow.protocol.clone(),
            flow.source.clone(),
            flow.destination.clone(),
            or_dash(&flow.backend),
            or_dash(&flow.translated_source),
            or_dash(&flow.service),
            flow.state.clone(),
            format!("{}s", flow.idle_secs),
            flow.flags.join(","),
            or_dash(&flow.egress_rule),
            or_dash(&flow.ingress_rule),
        ]
    });
    let columns = [
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "BACKEND",
        "SNAT",
        "SERVICE",
        "STATE",
        "IDLE",
        "FLAGS",
        "EGRESS RULE",
        "INGRESS RULE",
    ];
    let mut out = table(&columns, rows);
    if answer.truncated {
        out.push_str("\n(there are more: see --limit)");
    }
    out
}

/// One verdict.
pub fn flow(flow: &Flow) -> String {
    let side = |address: &str, pod: &Option<String>| match pod {
        Some(pod) => format!("{address} ({pod})"),
        None => address.to_owned(),
    };
    let mut out = format!(
        "{} {} {} {} {} -> {}",
        flow.time,
        flow.verdict,
        flow.hook,
        flow.protocol,
        side(&flow.source, &flow.source_pod),
        side(
            &flow.destination,
            if flow.backend.is_some() {
                &None
            } else {
                &flow.destination_pod
            }
        ),
    );
    let mut add = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(out, " {name} {value}");
        }
    };
    add("service", &flow.service);
    add("backend", &flow.backend);
    if flow.backend.is_some() {
        add("pod", &flow.destination_pod);
    }
    add("reason", &flow.reason);
    add("by", &flow.egress_rule);
    add("by", &flow.ingress_rule);
    add("audit:", &flow.audit);
    add("by", &flow.audit_rule);
    if !flow.isolated_by.is_empty() {
        add("isolated by", &Some(flow.isolated_by.join(", ")));
    }
    if flow.packets > 1 {
        add("packets:", &Some(flow.packets.to_string()));
    }
    if flow.sampled_out_before > 0 {
        add(
            "sampled out before:",
            &Some(flow.sampled_out_before.to_string()),
        );
    }
    if flow.lost_before > 0 {
        add("lost before:", &Some(flow.lost_before.to_string()));
    }
    out
}
