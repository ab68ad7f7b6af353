//! A ruleset shaped as kube-proxy's in its nftables mode: a verdict map of Service addresses, a
//! chain for each Service port, a chain for each endpoint.

use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// What the ruleset is for.
#[derive(Clone, Copy, Debug)]
pub struct Services {
    /// Address of the first Service; the others follow.
    pub first: Ipv4Addr,
    /// How many Services.
    pub count: u32,
    /// Their port.
    pub port: u16,
    /// The one endpoint of each.
    pub endpoint: (Ipv4Addr, u16),
    /// An address of the node that NodePorts would be on.
    pub node: Ipv4Addr,
}

/// Loads the ruleset in a namespace by `nft -f`.
///
/// # Errors
/// `nft` is missing (Debian package nftables), or refuses the rules.
pub fn install(netns: &Netns, services: &Services) -> Result<()> {
    let file = netns.run_of().dir().join("kube-proxy.nft");
    std::fs::write(&file, ruleset(services))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let loaded = netns.command("nft", &["-f", &file.display().to_string()]);
    loaded.context("cannot load the ruleset (Debian package nftables)")?;
    Ok(())
}

/// Entries that conntrack of the calling thread's namespace dropped, early or at once, for want of
/// room.
pub fn thrown_away() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").ok()?;
    sum_of(&text, &["drop", "early_drop"])
}

/// The sum of columns of a table of hexadecimal numbers with a line for each CPU.
fn sum_of(table: &str, columns: &[&str]) -> Option<u64> {
    let mut lines = table.lines();
    let heads: Vec<&str> = lines.next()?.split_whitespace().collect();
    let mut sum = 0;
    for line in lines {
        let cells: Vec<&str> = line.split_whitespace().collect();
        for column in columns {
            let place = heads.iter().position(|head| head == column)?;
            sum += u64::from_str_radix(cells.get(place)?, 16).ok()?;
        }
    }
    Some(sum)
}

fn ruleset(services: &Services) -> String {
    let Services {
        first,
        count,
        port,
        endpoint,
        node,
    } = *services;
    let (mut ips, mut addresses, mut chains) = (String::new(), String::new(), String::new());
    for index in 0..count {
        let ip = Ipv4Addr::from(u32::from(first) + index);
        let service = format!("service-{index:08X}-bench/svc-{index}/tcp/http");
        let target = format!(
            "endpoint-{index:08X}-bench/svc-{index}/tcp/http__{}/{}",
            endpoint.0, endpoint.1
        );
        // Writing to a String cannot fail.
        let _ = writeln!(ips, "{ip} . tcp . {port} : goto {service},");
        let _ = writeln!(addresses, "{ip},");
        let _ = write!(
            chains,
            "chain {service} {{\n\
             ip daddr {ip} tcp dport {port} ip saddr != 10.244.0.0/16 jump mark-for-masquerade\n\
             numgen random mod 1 vmap {{ 0 : goto {target} }}\n}}\n\
             chain {target} {{\n\
             ip saddr {} jump mark-for-masquerade\n\
             meta l4proto tcp dnat to {}:{}\n}}\n",
            endpoint.0, endpoint.0, endpoint.1
        );
    }
    format!(
        "table ip kube-proxy {{\n\
         set cluster-ips {{ type ipv4_addr; elements = {{ {addresses} }} }}\n\
         set nodeport-ips {{ type ipv4_addr; elements = {{ {node} }} }}\n\
         map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map service-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         {FIXED_CHAINS}\
         {chains}\
         map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {ips} }} }}\n\
         chain services {{\n\
         ip daddr . meta l4proto . th dport vmap @service-ips\n\
         ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}\n\
         }}\n"
    )
}

/// What does not depend on the Services.
const FIXED_CHAINS: &str = "\
chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
chain masquerading {
  meta mark and 0x4000 == 0 return
  meta mark set meta mark xor 0x4000
  masquerade fully-random
}
chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr 10.96.0.0/12 drop; }
chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
chain nodeport-endpoints-check {
  ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
}
chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
chain filter-prerouting {
  type filter hook prerouting priority -110; policy accept;
  ct state new jump firewall-check
}
chain filter-input {
  type filter hook input priority -110; policy accept;
  ct state new jump nodeport-endpoints-check
  ct state new jump service-endpoints-check
}
chain filter-forward {
  type filter hook forward priority -110; policy accept;
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
}
chain filter-output {
  type filter hook output priority -110; policy accept;
  ct state new jump service-endpoints-check
  ct state new jump firewall-check
}
chain filter-output-post-dnat {
  type filter hook output priority -90; policy accept;
  ct state new jump cluster-ips-check
}
chain nat-prerouting { type nat hook prerouting priority -100; policy accept; jump services; }
chain nat-output { type nat hook output priority -100; policy accept; jump services; }
chain nat-postrouting { type nat hook postrouting priority 100; policy accept; jump masquerading; }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_summed_over_the_cpus() {
        let table = "entries drop early_drop new\n0a 01 10 00\n0a 00 02 00\n";
        assert_eq!(sum_of(table, &["drop", "early_drop"]), Some(0x13));
        assert_eq!(sum_of(table, &["missing"]), None);
    }

    #[test]
    fn every_service_has_its_chains_and_its_place_in_the_map() {
        let text = ruleset(&Services {
            first: Ipv4Addr::new(10, 96, 0, 254),
            count: 3,
            port: 80,
            endpoint: (Ipv4Addr::new(10, 244, 1, 3), 8080),
            node: Ipv4Addr::new(172, 30, 0, 11),
        });
        for (index, ip) in ["10.96.0.254", "10.96.0.255", "10.96.1.0"]
            .iter()
            .enumerate()
        {
            let name = format!("{index:08X}-bench/svc-{index}/tcp/http");
            assert!(text.contains(&format!("{ip} . tcp . 80 : goto service-{name},")));
            assert!(text.contains(&format!("chain service-{name} {{")));
            assert!(text.contains(&format!("chain endpoint-{name}__10.244.1.3/8080 {{")));
        }
        assert_eq!(text.matches("dnat to 10.244.1.3:8080").count(), 3);
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
