//! The result of the plugins before this one: what it says of the device, and passing it on.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::protocol::{Fault, code};

/// What matters of a result.
#[derive(Debug, Deserialize)]
struct Given {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Debug, Deserialize)]
struct Interface {
    #[serde(default)]
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct Ip {
    address: IpNet,
    interface: Option<usize>,
}

/// Addresses of a device in the container, in the result's order. An address that names no device
/// is the container's.
///
/// # Errors
///
/// The result cannot be read, or gives the device no address.
pub fn addresses(result: &Value, device: &str) -> Result<Vec<IpAddr>, Fault> {
    let read = Given::deserialize(result)
        .map_err(|error| Fault::new(code::DECODE, "prevResult", error.to_string()))?;
    let is_its = |ip: &&Ip| match ip.interface.and_then(|index| read.interfaces.get(index)) {
        Some(interface) => interface.name == device && !interface.sandbox.is_empty(),
        None => ip.interface.is_none(),
    };
    let found: Vec<_> = read
        .ips
        .iter()
        .filter(is_its)
        .map(|ip| ip.address.addr())
        .collect();
    if found.is_empty() {
        return Err(Fault::new(
            code::CONFIG,
            "prevResult",
            format!("it has no address for {device}: a plugin before this one has to give it one"),
        ));
    }
    Ok(found)
}

/// What only version 1.1.0 has, of devices and of routes.
const SINCE_1_1: [(&str, &[&str]); 2] = [
    ("interfaces", &["mtu", "socketPath", "pciID"]),
    ("routes", &["mtu", "advmss", "priority", "table", "scope"]),
];

/// The result in a version of the specification.
pub fn convert(mut result: Value, version: &str) -> Value {
    let Some(fields) = result.as_object_mut() else {
        return result;
    };
    fields.insert("cniVersion".to_owned(), version.into());
    each(fields, "ips", |ip| {
        if version >= "1.0.0" {
            ip.remove("version");
            return;
        }
        let address = ip.get("address").and_then(Value::as_str);
        let family = address.map(|text| if text.contains(':') { "6" } else { "4" });
        if let Some(family) = family {
            ip.entry("version").or_insert_with(|| family.into());
        }
    });
    if version < "1.1.0" {
        for (list, names) in SINCE_1_1 {
            each(fields, list, |item| {
                for name in names {
                    item.remove(*name);
                }
            });
        }
    }
    result
}

fn each(fields: &mut Map<String, Value>, list: &str, change: impl FnMut(&mut Map<String, Value>)) {
    let items = fields.get_mut(list).and_then(Value::as_array_mut);
    let items = items.into_iter().flatten().filter_map(Value::as_object_mut);
    items.for_each(change);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the plugin `bridge` answers by 1.1.0.
    fn bridge() -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "cni0", "mac": "00:11:22:33:44:55", "mtu": 1500},
                {"name": "veth3243", "mac": "55:44:33:22:11:11"},
                {"name": "eth0", "mac": "99:88:77:66:55:44", "sandbox": "/run/netns/blue", "mtu": 1500},
                {"name": "net1", "sandbox": "/run/netns/blue"},
            ],
            "ips": [
                {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2},
                {"address": "fd00::5/64", "interface": 2},
                {"address": "10.1.0.1/16", "interface": 0},
                {"address": "10.9.0.1/16", "interface": 3},
            ],
            "routes": [{"dst": "0.0.0.0/0", "mtu": 1400, "table": 7}],
            "dns": {"nameservers": ["10.1.0.1"]},
            "x.example/more": 1,
        })
    }

    #[test]
    fn a_device_has_the_addresses_that_name_it() {
        let expected: Vec<IpAddr> = ["10.1.0.5", "fd00::5"].map(|ip| ip.parse().unwrap()).into();
        assert_eq!(addresses(&bridge(), "eth0").unwrap(), expected);
        assert_eq!(addresses(&bridge(), "eth1").unwrap_err().code, code::CONFIG);
        let short = json!({"ips": [{"version": "4", "address": "10.1.0.5/32"}]});
        assert_eq!(addresses(&short, "eth0").unwrap(), expected[..1]);
        for garbage in [
            json!({"ips": 1}),
            json!([]),
            json!({"ips": [{"address": "x"}]}),
        ] {
            let error = addresses(&garbage, "eth0").unwrap_err();
            assert!(
                [code::DECODE, code::CONFIG].contains(&error.code),
                "{error}"
            );
        }
    }

    #[test]
    fn a_result_goes_on_as_it_came_in_its_own_version() {
        assert_eq!(convert(bridge(), "1.1.0"), bridge());
    }

    #[test]
    fn a_result_is_put_into_an_older_version() {
        let mut expected = bridge();
        expected["cniVersion"] = "1.0.0".into();
        for device in [0, 2] {
            expected["interfaces"][device]
                .as_object_mut()
                .unwrap()
                .remove("mtu");
        }
        expected["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        assert_eq!(convert(bridge(), "1.0.0"), expected);
        for version in ["0.3.1", "0.4.0"] {
            expected["cniVersion"] = version.into();
            for (index, family) in ["4", "6", "4", "4"].into_iter().enumerate() {
                expected["ips"][index]["version"] = family.into();
            }
            let old = convert(bridge(), version);
            assert_eq!(old, expected);
            let back = convert(old, "1.0.0");
            assert_eq!(back["ips"], bridge()["ips"]);
        }
    }
}
