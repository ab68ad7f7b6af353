//! Policies: what is in force, and why.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::show::table;
use super::{ask, client, print_as, show, wait};
use crate::admin::protocol::{Policy, Request};
use crate::admin::verify::Verified;
use crate::admin::why::{EndWhy, Explain, Why};
use crate::args::{ExplainArgs, Output, PolicyCommand};

/// Runs a command about policies.
pub(super) fn run(socket: &Path, command: &PolicyCommand) -> Result<()> {
    match command {
        PolicyCommand::List(args) => {
            ask::<Vec<Policy>>(socket, &Request::Policies, args.output, |list| {
                show::policies(list)
            })
        }
        PolicyCommand::Explain(args) => explain(socket, args),
        PolicyCommand::Verify(args) => verify(socket, args.output),
        PolicyCommand::Wait(args) => wait::run(socket, args),
    }
}

fn explain(socket: &Path, args: &ExplainArgs) -> Result<()> {
    let manifests = args.files.iter().map(|file| {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()));
        Ok((file.display().to_string(), text?))
    });
    let request = Request::Explain(Box::new(Explain {
        from: args.from.who.clone(),
        to: args.to.who.clone(),
        port: args.to.port.clone(),
        protocol: args.to.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        namespace: args.namespace.clone(),
        manifests: manifests.collect::<Result<_>>()?,
    }));
    ask::<Vec<Why>>(socket, &request, args.output.output, |all| {
        let texts: Vec<String> = all.iter().map(why).collect();
        texts.join("\n")
    })
}

fn verify(socket: &Path, output: Output) -> Result<()> {
    let verified: Verified = client::ask(socket, &Request::Verify)?;
    print_as(&verified, output, differences)?;
    match verified.differences.len() as u64 + verified.more {
        0 => Ok(()),
        count => bail!(
            "{count} verdicts of {} are not those of the policies: the agent writes its maps anew when it is restarted after `sluice cleanup`; report what is found here",
            verified.node
        ),
    }
}

fn differences(verified: &Verified) -> String {
    let summary = format!("{}: {} verdicts compared", verified.node, verified.compared);
    if verified.differences.is_empty() {
        return format!("{summary}, all as the policies say");
    }
    let rows = verified.differences.iter().map(|one| {
        vec![
            side(&one.source, &one.source_pod),
            side(&one.destination, &one.destination_pod),
            one.protocol.clone(),
            match one.audit {
                true => format!("{} (audit)", one.direction),
                false => one.direction.clone(),
            },
            one.policies.clone(),
            one.maps.clone(),
        ]
    });
    let columns = ["FROM", "TO", "PROTOCOL", "AT", "POLICIES", "MAPS"];
    let mut out = format!("{summary}\n\n{}", table(&columns, rows));
    if verified.more > 0 {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n(and {} more)", verified.more);
    }
    out
}

/// An address with its pod.
fn side(address: &str, pod: &Option<String>) -> String {
    match pod {
        Some(pod) => format!("{address} ({pod})"),
        None => address.to_owned(),
    }
}

fn why(why: &Why) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{} -> {} {}: {}",
        side(&why.source, &why.source_pod),
        side(&why.destination, &why.destination_pod),
        why.protocol,
        why.verdict
    );
    for (direction, end) in [("egress", &why.egress), ("ingress", &why.ingress)] {
        match end {
            Some(end) => out.push_str(&self::end(direction, end)),
            None => {
                let _ = writeln!(out, "  {direction:<8}no pod: policies are not asked");
            }
        }
    }
    for note in &why.notes {
        let _ = writeln!(out, "  note    {note}");
    }
    out
}

fn end(direction: &str, end: &EndWhy) -> String {
    let mut out = format!(
        "  {direction:<8}of {}: {}, {}\n{}",
        end.pod,
        end.verdict,
        end.reason,
        asked(end)
    );
    if let Some(audit) = &end.audit {
        let (verdict, reason) = (&audit.verdict, &audit.reason);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "  audit   would be {verdict}, {reason}\n{}",
            asked(audit)
        );
    }
    out
}

fn asked(end: &EndWhy) -> String {
    let mut out = String::new();
    for nearest in &end.nearest {
        let _ = writeln!(out, "  nearest {nearest}");
    }
    if end.asked.is_empty() {
        return out;
    }
    let rows = end.asked.iter().map(|step| {
        let name = match step.name.as_str() {
            "" => String::new(),
            name => format!(" {name}"),
        };
        vec![
            step.tier.clone(),
            step.policy.clone(),
            format!("{}{name}", step.rule),
            step.action.clone(),
            step.peers.clone(),
            step.ports.clone(),
            step.outcome.clone(),
        ]
    });
    let columns = [
        "TIER", "POLICY", "RULE", "ACTION", "PEERS", "PORTS", "OUTCOME",
    ];
    for line in table(&columns, rows).lines() {
        let _ = writeln!(out, "    {line}");
    }
    out
}
