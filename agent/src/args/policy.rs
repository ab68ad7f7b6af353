//! Commands about policies.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::OutputArgs;
use crate::admin::why::Who;
use crate::kubeproxy::GoDuration;
use crate::source::Kind;

/// Commands about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the policies in force and the pods of this node that they select.
    List(OutputArgs),
    /// Explain what policies say of a connection, and which rule decides.
    Explain(ExplainArgs),
    /// Compare what the kernel's maps say with what the policies say, for the pods of this node.
    Verify(OutputArgs),
    /// Wait until a version of a policy is in force on all nodes that answer.
    Wait(WaitArgs),
}

/// What to wait for.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Its name.
    pub name: String,
    /// Its namespace, if it is a NetworkPolicy.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Its kind, or kubectl's short name of it.
    #[arg(long, value_name = "KIND", default_value = "NetworkPolicy", value_parser = policy_kind)]
    pub kind: Kind,
    /// The least metadata.generation [default: the API server's].
    #[arg(long, value_name = "N")]
    pub generation: Option<i64>,
    /// Wait until it is gone.
    #[arg(long, conflicts_with = "generation")]
    pub gone: bool,
    /// Only on this node.
    #[arg(long)]
    pub local: bool,
    /// How long to wait, as in 30s or 5m.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = GoDuration::parse)]
    pub timeout: GoDuration,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

fn policy_kind(text: &str) -> Result<Kind, String> {
    Kind::policy(text).ok_or_else(|| {
        let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_policy());
        let names: Vec<_> = kinds.map(Kind::name).collect();
        format!("not a kind of policies: write one of {}", names.join(", "))
    })
}

/// Which connection to explain.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who sends: a pod, as NAME or NAMESPACE/NAME, or an address.
    #[arg(value_name = "FROM")]
    pub from: Party,
    /// Who receives, and where: POD:PORT or ADDRESS:PORT, with /UDP or /SCTP for another protocol than
    /// TCP; PORT may be the name of a container port. POD/ICMP is a ping.
    #[arg(value_name = "TO")]
    pub to: Party,
    /// Namespace of pods that are given without one.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Manifests that are taken as if they were in force too; may be repeated.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// One end of a connection, as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Party {
    /// Who.
    pub who: Who,
    /// Number or name of a port.
    pub port: Option<String>,
    /// `TCP`, `UDP`, `SCTP` or `ICMP`.
    pub protocol: Option<String>,
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, last)) if is_protocol(last) => (rest, Some(last.to_ascii_uppercase())),
            _ => (text, None),
        };
        let (who, port) = match rest.rsplit_once(':') {
            // All of it is one address of IPv6.
            _ if rest.parse::<IpAddr>().is_ok() => (rest, None),
            Some((who, port)) => (who, Some(port.to_owned())),
            None => (rest, None),
        };
        let bare = who.strip_prefix('[').and_then(|who| who.strip_suffix(']'));
        let who = bare.unwrap_or(who);
        if who.is_empty() || port.as_deref() == Some("") {
            return Err(
                "write POD, NAMESPACE/POD or an address, and for who receives :PORT".to_owned(),
            );
        }
        let who = match (who.parse(), who.split_once('/')) {
            (Ok(address), _) => Who::Address(address),
            (Err(_), Some((namespace, name))) => Who::Pod {
                namespace: Some(namespace.to_owned()),
                name: name.to_owned(),
            },
            (Err(_), None) => Who::Pod {
                namespace: None,
                name: who.to_owned(),
            },
        };
        Ok(Self {
            who,
            port,
            protocol,
        })
    }
}

fn is_protocol(text: &str) -> bool {
    ["TCP", "UDP", "SCTP", "ICMP"]
        .iter()
        .any(|known| text.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: Option<&str>, name: &str) -> Who {
        Who::Pod {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    #[test]
    fn ends_of_every_form() {
        let v4 = Who::Address([10, 0, 0, 1].into());
        let v6 = || Who::Address("fd00::1".parse().unwrap());
        for (text, who, port, protocol) in [
            ("web", pod(None, "web"), None, None),
            ("shop/web:80", pod(Some("shop"), "web"), Some("80"), None),
            ("web:dns/udp", pod(None, "web"), Some("dns"), Some("UDP")),
            (
                "shop/web/ICMP",
                pod(Some("shop"), "web"),
                None,
                Some("ICMP"),
            ),
            ("10.0.0.1:53/UDP", v4, Some("53"), Some("UDP")),
            ("fd00::1", v6(), None, None),
            ("[fd00::1]:80", v6(), Some("80"), None),
            ("fd00::1/ICMP", v6(), None, Some("ICMP")),
        ] {
            let party: Party = text.parse().unwrap();
            let given = (party.port.as_deref(), party.protocol.as_deref());
            assert_eq!((party.who, given), (who, (port, protocol)), "{text}");
        }
        for text in ["", ":80", "web:", "[]:80"] {
            assert!(text.parse::<Party>().is_err(), "{text}");
        }
    }
}
