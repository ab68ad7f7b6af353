//! Values of settings, read from text.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::file::HalfOpen;
use super::{DEFAULT_HALF_OPEN, DEFAULT_HEALTH_TIMEOUT, DEFAULT_SNAT, Error, bad};
use crate::bpf::XdpSetting;

/// The node's addresses that serve NodePorts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodePorts {
    /// Only its primary ones, by its Node object.
    pub primary: bool,
    /// Only those in these blocks; none: all.
    pub blocks: Vec<IpNet>,
}

/// Blocks of addresses, or the word `primary` alone.
///
/// # Errors
///
/// One that is not a block.
pub fn node_ports(texts: &[String]) -> Result<NodePorts, Error> {
    if matches!(texts, [text] if text == "primary") {
        return Ok(NodePorts {
            primary: true,
            blocks: Vec::new(),
        });
    }
    Ok(NodePorts {
        primary: false,
        blocks: prefixes(texts)?,
    })
}

/// Blocks of addresses.
///
/// # Errors
///
/// One that is not a block.
pub fn prefixes(texts: &[String]) -> Result<Vec<IpNet>, Error> {
    let block = |text: &String| {
        text.trim()
            .parse::<IpNet>()
            .map(|block| block.trunc())
            .map_err(|_| {
                bad(
                    "nodePortAddresses",
                    format!("{text:?} is not a block of addresses: write one like 10.0.0.0/8, or `primary` alone"),
                )
            })
    };
    texts.iter().map(block).collect()
}

const XDP: [(&str, XdpSetting); 4] = [
    ("auto", XdpSetting::Auto),
    ("native", XdpSetting::Native),
    ("generic", XdpSetting::Generic),
    ("off", XdpSetting::Off),
];

/// Which uplinks run the early program.
pub fn xdp(text: Option<&str>) -> Result<XdpSetting, Error> {
    let Some(text) = text else {
        return Ok(XdpSetting::default());
    };
    let found = XDP.into_iter().find(|&(name, _)| name == text);
    found.map(|(_, setting)| setting).ok_or_else(|| {
        bad(
            "xdp",
            format!("{text:?} is not known: write auto, native, generic or off"),
        )
    })
}

/// The name of a choice.
pub fn xdp_name(setting: XdpSetting) -> &'static str {
    let found = XDP.into_iter().find(|&(_, other)| other == setting);
    found.map_or("auto", |(name, _)| name)
}

/// Blocks of pods' addresses, with commas between them.
///
/// # Errors
///
/// One that is not a block.
pub fn cluster_cidrs(text: Option<&str>) -> Result<Vec<IpNet>, Error> {
    let texts = text.unwrap_or_default().split(',').map(str::trim);
    let block = |text: &str| {
        text.parse::<IpNet>().map(|block| block.trunc()).map_err(|_| {
            bad(
                "clusterCIDR",
                format!("{text:?} is not a block of addresses: write one like 10.244.0.0/16, or one of each family with a comma between them"),
            )
        })
    };
    texts.filter(|text| !text.is_empty()).map(block).collect()
}

/// Blocks with commas between them; `None` for none.
pub fn joined(blocks: &[IpNet]) -> Option<String> {
    let texts: Vec<_> = blocks.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// True for the first option, which is the default.
pub fn choose(
    name: &'static str,
    value: Option<String>,
    [first, second]: [&str; 2],
) -> Result<bool, Error> {
    match value.as_deref() {
        None => Ok(true),
        Some(value) if value == first => Ok(true),
        Some(value) if value == second => Ok(false),
        Some(value) => Err(bad(
            name,
            format!("{value:?} is not known: write {first} or {second}"),
        )),
    }
}

/// A range of ports.
pub fn snat_ports(text: Option<&str>) -> Result<(u16, u16), Error> {
    let Some(text) = text else {
        return Ok(DEFAULT_SNAT);
    };
    let range = text.split_once('-').and_then(|(first, last)| {
        Some((
            first.trim().parse::<u16>().ok()?,
            last.trim().parse::<u16>().ok()?,
        ))
    });
    match range {
        Some((first, last)) if first >= 1_024 && first <= last => Ok((first, last)),
        _ => Err(bad(
            "snatPorts",
            format!("{text:?} is not a range: write one like 61000-65535, from 1024 on"),
        )),
    }
}

/// Limits of unanswered flows, for a pod and for the node.
pub fn half_open(given: &HalfOpen) -> Result<(u32, u32), Error> {
    let per_pod = given.per_pod.unwrap_or(DEFAULT_HALF_OPEN.0);
    let total = given.total.unwrap_or(DEFAULT_HALF_OPEN.1);
    if per_pod == 0 || per_pod > total {
        return Err(bad(
            "halfOpen",
            format!("perPod {per_pod} and total {total}: give perPod at least 1 and at most total"),
        ));
    }
    Ok((per_pod, total))
}

/// Where to listen; `None` for `off` or nothing. An address without port gets the one of `default`.
pub fn bind(
    name: &'static str,
    text: Option<String>,
    default: SocketAddr,
) -> Result<Option<SocketAddr>, Error> {
    let text = match text.as_deref().map(str::trim) {
        None => return Ok(Some(default)),
        Some("" | "off") => return Ok(None),
        Some(text) => text,
    };
    if let Ok(address) = text.parse() {
        return Ok(Some(address));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(Some(SocketAddr::new(ip, default.port()))),
        Err(_) => Err(bad(
            name,
            format!("{text:?} is not an address: write one like {default}, or off"),
        )),
    }
}

/// How long a change may wait before the agent counts as ill.
pub fn health_timeout(secs: Option<u32>) -> Result<Duration, Error> {
    match secs {
        None => Ok(DEFAULT_HEALTH_TIMEOUT),
        Some(0) => Err(bad(
            "healthTimeoutSecs",
            "0 is too short: write one like 60",
        )),
        Some(secs) => Ok(Duration::from_secs(secs.into())),
    }
}

/// The kernel's inclination to end the process when memory is short.
pub fn oom_score_adj(score: Option<i32>) -> Result<Option<i32>, Error> {
    match score {
        Some(score) if !(-1_000..=1_000).contains(&score) => Err(bad(
            "oomScoreAdj",
            format!("{score}: write a number from -1000 to 1000"),
        )),
        score => Ok(score),
    }
}
