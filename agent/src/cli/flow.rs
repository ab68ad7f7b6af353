//! Verdicts as they are made.

use std::path::Path;

use anyhow::Result;

use super::{client, print, show};
use crate::admin::protocol::{Flow, Request};
use crate::args::{FlowArgs, Output, VerdictFilter};

/// Prints them until it is told to end, or there are enough.
pub(super) fn run(socket: &Path, args: &FlowArgs) -> Result<()> {
    let mut left = args.count.unwrap_or(usize::MAX);
    let flows = client::stream(socket, &Request::Flows)?;
    for flow in flows {
        let flow: Flow = flow?;
        if left == 0 {
            break;
        }
        if !matches(&flow, args) {
            continue;
        }
        match args.output.output {
            Output::Json => print(&serde_json::to_string(&flow)?)?,
            Output::Yaml => print(&format!(
                "---\n{}",
                serde_saphyr::to_string(&flow)?.trim_end()
            ))?,
            Output::Table | Output::Wide => print(&show::flow(&flow))?,
        }
        left -= 1;
        if left == 0 {
            break;
        }
    }
    Ok(())
}

fn matches(flow: &Flow, args: &FlowArgs) -> bool {
    let verdict = match args.verdict {
        None => true,
        Some(VerdictFilter::Allowed) => flow.reason.is_none(),
        Some(VerdictFilter::Dropped) => flow.reason.is_some(),
        Some(VerdictFilter::Audit) => flow.audit.is_some() && flow.reason.is_none(),
    };
    let pods = [&flow.source_pod, &flow.destination_pod];
    let some_pod = |holds: &dyn Fn(&str, &str) -> bool| {
        let mut named = pods
            .iter()
            .filter_map(|pod| pod.as_deref()?.split_once('/'));
        named.any(|(namespace, name)| holds(namespace, name))
    };
    let pod = args.pod.as_deref().is_none_or(|wanted| {
        some_pod(&|namespace, name| match wanted.split_once('/') {
            Some(wanted) => wanted == (namespace, name),
            None => wanted == name,
        })
    });
    let namespace = args.namespace.as_deref();
    let namespace = namespace.is_none_or(|wanted| some_pod(&|namespace, _| wanted == namespace));
    let reason = args.reason.as_deref();
    let reason = reason.is_none_or(|wanted| flow.reason.as_deref() == Some(wanted));
    verdict && pod && namespace && reason
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn matching(more: &[&str]) -> bool {
        let flow = Flow {
            source_pod: Some("shop/web".to_owned()),
            destination_pod: Some("node node-1".to_owned()),
            reason: Some("policy-egress".to_owned()),
            ..Flow::default()
        };
        let line = [&["sluice", "flow"], more].concat();
        match Cli::parse_from(line).command {
            Command::Flow(args) => matches(&flow, &args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_that_is_asked_for_must_hold() {
        for good in [
            &[][..],
            &["--pod", "web", "--verdict", "dropped"],
            &["--pod", "shop/web", "--namespace", "shop"],
            &["--reason", "policy-egress", "-o", "jsonl"],
        ] {
            assert!(matching(good), "{good:?}");
        }
        for bad in [
            &["--pod", "db"][..],
            &["--pod", "other/web"],
            &["--namespace", "other"],
            &["--reason", "policy-ingress"],
            &["--pod", "web", "--verdict", "allowed"],
        ] {
            assert!(!matching(bad), "{bad:?}");
        }
    }
}
