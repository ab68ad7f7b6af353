//! The same policies in nftables, as well as netfilter can have them: a look into conntrack, then for
//! each direction of a pod a lookup or two in each tier, whose cost does not depend on their number.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::set::{Action, Peer, Policy, Set, Tier, peer_address};
use crate::netns::Netns;

/// Loads the ruleset of a set in a node's namespace.
///
/// # Errors
/// `nft` is missing (Debian package nftables), or refuses the rules.
pub fn install(netns: &Netns, set: Set, client: Ipv4Addr, server: Ipv4Addr) -> Result<()> {
    let file = netns.run_of().dir().join(format!("{}.nft", netns.name()));
    std::fs::write(&file, ruleset(set, client, server))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let loaded = netns.command("nft", &["-f", &file.display().to_string()]);
    loaded.context("cannot load the ruleset (Debian package nftables)")?;
    Ok(())
}

fn ruleset(set: Set, client: Ipv4Addr, server: Ipv4Addr) -> String {
    let ingress = side(set, true, client);
    let egress = side(set, false, server);
    format!(
        "table ip policies {{\n{ingress}{egress}\
         chain forward {{\n\
         type filter hook forward priority filter; policy accept;\n\
         ct state established,related accept\n\
         ip saddr {client} jump egress\n\
         ip daddr {server} jump ingress\n}}\n}}\n"
    )
}

/// The maps and the chain of a direction.
fn side(set: Set, ingress: bool, partner: Ipv4Addr) -> String {
    let (name, address) = if ingress {
        ("ingress", "saddr")
    } else {
        ("egress", "daddr")
    };
    // Elements that are one address and port find a hash table, others a set of intervals.
    let mut maps: BTreeMap<(usize, bool), String> = BTreeMap::new();
    let mut isolated = false;
    for policy in set.policies().filter(|policy| policy.ingress == ingress) {
        isolated |= policy.tier.is_none();
        let (tier, verdict) = place(&policy);
        let (ports, peers) = (ports(&policy), peers(&policy, partner));
        let exact = policy.ports.0 == policy.ports.1 && !matches!(policy.peer, Peer::Block(..));
        let elements = maps.entry((tier, exact)).or_default();
        for peer in peers {
            // Writing to a String cannot fail.
            let _ = writeln!(elements, "{peer} . {ports} : {verdict},");
        }
    }
    let (mut declared, mut rules) = (String::new(), String::new());
    for ((tier, exact), elements) in &maps {
        if *tier == BASELINE && isolated {
            continue;
        }
        let map = format!(
            "{name}-{tier}-{}",
            if *exact { "exact" } else { "intervals" }
        );
        let flags = if *exact { "" } else { "flags interval; " };
        let _ = writeln!(
            declared,
            "map {map} {{ type ipv4_addr . inet_service : verdict; {flags}elements = {{ {elements} }} }}"
        );
        let _ = writeln!(rules, "ip {address} . tcp dport vmap @{map}");
    }
    if isolated {
        rules += "drop\n";
    }
    format!("{declared}chain {name} {{\n{rules}}}\n")
}

/// The last tier, which is not asked where NetworkPolicies isolate.
const BASELINE: usize = 2;

/// The tier's place, and what it says; `return` goes on with the other direction.
fn place(policy: &Policy) -> (usize, &'static str) {
    let (tier, action) = match policy.tier {
        None => (1, Action::Accept),
        Some((Tier::Admin, action)) => (0, action),
        Some((Tier::Baseline, action)) => (BASELINE, action),
    };
    let verdict = match action {
        Action::Accept => "return",
        Action::Deny => "drop",
        Action::Pass => "continue",
    };
    (tier, verdict)
}

fn ports(policy: &Policy) -> String {
    match policy.ports {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn peers(policy: &Policy, partner: Ipv4Addr) -> Vec<String> {
    match policy.peer {
        Peer::Partner => vec![partner.to_string()],
        Peer::Pod(number) => vec![peer_address(number).to_string()],
        Peer::Block(cidr, None) => vec![cidr.to_string()],
        // What is left is its first half.
        Peer::Block(cidr, Some(_)) => vec![format!("{}/{}", cidr.network(), cidr.prefix_len() + 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::super::set::Kind;
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 3);

    #[test]
    fn each_policy_is_an_element_and_what_none_opens_is_dropped() {
        let set = Set {
            kind: Kind::Selectors,
            count: 40,
        };
        let text = ruleset(set, CLIENT, SERVER);
        assert_eq!(text.matches(" : return,").count(), 40);
        assert!(text.contains("10.244.1.2 . 8080 : return,"));
        assert!(text.contains("10.244.1.3 . 8080 : return,"));
        assert_eq!(text.matches("\ndrop\n").count(), 2);
        assert!(!text.contains("interval"));
    }

    #[test]
    fn no_policy_drops_nothing() {
        let set = Set {
            kind: Kind::Mixed,
            count: 0,
        };
        let text = ruleset(set, CLIENT, SERVER);
        assert!(text.contains("ct state established,related accept"));
        assert!(!text.contains("drop") && !text.contains("vmap"));
    }

    #[test]
    fn tiers_come_in_their_order() {
        let set = Set {
            kind: Kind::Tiers,
            count: 100,
        };
        let text = ruleset(set, CLIENT, SERVER);
        let at = |map: &str| text.find(&format!("vmap @{map}\n")).unwrap();
        assert!(at("ingress-0-exact") < at("ingress-2-exact"));
        assert!(text.contains(" : drop,") && text.contains(" : continue,"));
        assert!(!text.contains("\ndrop\n"));
    }
}
