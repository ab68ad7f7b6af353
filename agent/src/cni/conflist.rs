//! The network configuration list that calls the plugin, derived from the one that a runtime would use.

use serde_json::{Value, json};

use super::PLUGIN;
use super::config::VERSIONS;

/// Names for the derived list. The first that sorts before the primary one's is taken: runtimes take the
/// first of their folder.
const NAMES: [&str; 3] = [
    "00-sluice.conflist",
    "0-sluice.conflist",
    "!sluice.conflist",
];

/// Why no list can be derived.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to derive it from.
    #[error("there is no network configuration yet: another CNI plugin has to come with one")]
    None,
    /// It is not one.
    #[error("{file} is no network configuration: {why}; runtimes cannot use it either")]
    Bad {
        /// Its name.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Its version is too old for chained plugins.
    #[error("{file} has cniVersion {version:?}: plugins can be chained from {} on", VERSIONS[0])]
    Version {
        /// Its name.
        file: String,
        /// What it has.
        version: String,
    },
    /// Nothing sorts before it.
    #[error("{0} sorts before every name for the derived list: rename it, as to 10-{0}")]
    Name(String),
}

/// True for files that may be the derived list.
pub fn is_derived(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The file that runtimes would use without the derived list: the first by name.
pub fn primary<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let extensions = [".conf", ".conflist", ".json"];
    let names = names.into_iter();
    names
        .filter(|name| extensions.iter().any(|extension| name.ends_with(extension)))
        .filter(|name| !is_derived(name))
        .min()
}

/// The derived list: its name and content. `entry` is the plugin's configuration without its type.
///
/// # Errors
///
/// See [`Error`].
pub fn derive(file: &str, text: &str, entry: &Value) -> Result<(&'static str, String), Error> {
    let bad = |why: &str| Error::Bad {
        file: file.to_owned(),
        why: why.to_owned(),
    };
    let name = NAMES.into_iter().find(|name| *name < file);
    let name = name.ok_or_else(|| Error::Name(file.to_owned()))?;
    let conf: Value = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
    let mut list = if conf.get("plugins").is_some() {
        conf
    } else {
        single(conf, bad)?
    };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if !is_text(&list["name"]) {
        return Err(bad("it has no name"));
    }
    let version = list["cniVersion"].as_str().unwrap_or_default();
    if version < VERSIONS[0] {
        return Err(Error::Version {
            file: file.to_owned(),
            version: version.to_owned(),
        });
    }
    let plugins = list["plugins"].as_array_mut();
    let plugins = plugins.filter(|plugins| !plugins.is_empty());
    let plugins = plugins.ok_or_else(|| bad("it lists no plugins"))?;
    // Whoever wrote it may have put the plugin into it.
    plugins.retain(|plugin| plugin["type"] != PLUGIN);
    let mut own = entry.clone();
    own["type"] = PLUGIN.into();
    plugins.push(own);
    let text = serde_json::to_string_pretty(&list).map_err(|error| bad(&error.to_string()))?;
    Ok((name, text + "\n"))
}

/// A configuration of one plugin as a list.
fn single(conf: Value, bad: impl Fn(&str) -> Error) -> Result<Value, Error> {
    if conf["type"].as_str().is_none_or(str::is_empty) {
        return Err(bad("it has neither plugins nor a type"));
    }
    let mut list = json!({ "plugins": [conf] });
    for key in ["name", "cniVersion"] {
        list[key] = list["plugins"][0][key].clone();
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Value {
        json!({ "socket": "/run/sluice/agent.sock" })
    }

    fn derived(file: &str, conf: &Value) -> Result<(&'static str, Value), Error> {
        let (name, text) = derive(file, &conf.to_string(), &entry())?;
        Ok((name, serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn the_first_by_name_that_is_not_derived_is_the_primary() {
        let names = [
            "README",
            "00-sluice.conflist",
            "10-x.conflist",
            "05-y.conf",
            "05-z.json",
        ];
        assert_eq!(primary(names), Some("05-y.conf"));
        assert_eq!(primary(["00-sluice.conflist", ".part"]), None);
    }

    #[test]
    fn a_list_keeps_all_it_has_and_calls_the_plugin_last() {
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let conf = json!({
                "cniVersion": version,
                "cniVersions": ["0.4.0", version],
                "name": "net",
                "disableCheck": true,
                "plugins": [
                    { "type": "bridge", "ipam": { "type": "host-local" }, "x": [1, 2.5] },
                    { "type": "portmap", "capabilities": { "portMappings": true } },
                ],
            });
            let (name, list) = derived("10-net.conflist", &conf).unwrap();
            assert_eq!(name, "00-sluice.conflist");
            let mut expected = conf;
            let own = json!({ "type": "sluice-cni", "socket": "/run/sluice/agent.sock" });
            expected["plugins"].as_array_mut().unwrap().push(own);
            assert_eq!(list, expected);
            // Deriving from what was derived adds nothing.
            assert_eq!(derived("10-net.conflist", &list).unwrap().1, list);
        }
    }

    #[test]
    fn a_single_configuration_becomes_a_list() {
        let conf = json!({ "cniVersion": "0.4.0", "name": "net", "type": "ptp", "ipMasq": true });
        let (_, list) = derived("10-net.conf", &conf).unwrap();
        assert_eq!(
            (&list["name"], &list["cniVersion"]),
            (&json!("net"), &json!("0.4.0"))
        );
        assert_eq!(list["plugins"][0], conf);
        assert_eq!(list["plugins"][1]["type"], "sluice-cni");
    }

    #[test]
    fn the_derived_list_sorts_first() {
        let conf = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": [{ "type": "ptp" }] });
        let name = |file: &str| derived(file, &conf).map(|(name, _)| name);
        assert_eq!(name("00-zebra.conflist").unwrap(), "00-sluice.conflist");
        assert_eq!(name("00-calico.conflist").unwrap(), "0-sluice.conflist");
        assert_eq!(name("-a.conflist").unwrap(), "!sluice.conflist");
        let first = "!a.conf";
        assert_eq!(name(first), Err(Error::Name(first.to_owned())));
    }

    #[test]
    fn what_is_no_configuration_is_told() {
        for text in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#,
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#,
            r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#,
            r#"{"cniVersion":"1.0.0","name":"n"}"#,
        ] {
            let error = derive("10-x.conf", text, &entry()).unwrap_err();
            assert!(matches!(error, Error::Bad { .. }), "{text}: {error}");
            assert!(error.to_string().contains("10-x.conf"));
        }
        for version in ["", "0.1.0", "0.2.0"] {
            let conf = json!({ "cniVersion": version, "name": "n", "type": "ptp" });
            let error = derived("10-x.conf", &conf).unwrap_err();
            assert!(matches!(error, Error::Version { .. }), "{error}");
        }
    }
}
