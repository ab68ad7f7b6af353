//! What a runtime gives to the plugin: environment and configuration.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::protocol::{AttachmentId, Fault, PodName, code};
use crate::config::DEFAULT_SOCKET;

/// Versions of the specification that are spoken.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A command, and the version of the specification that has it first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `ADD`.
    Add,
    /// `DEL`.
    Del,
    /// `CHECK`.
    Check,
    /// `STATUS`.
    Status,
    /// `GC`.
    Gc,
    /// `VERSION`.
    Version,
}

impl Command {
    /// Of `CNI_COMMAND`.
    ///
    /// # Errors
    ///
    /// There is no such command.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Ok(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            "VERSION" => Self::Version,
            _ => {
                return Err(Fault::new(
                    code::ENVIRONMENT,
                    "CNI_COMMAND",
                    format!(
                        "there is no command {text:?}: call it as a CNI plugin, from a network configuration"
                    ),
                ));
            }
        })
    }

    fn since(self) -> &'static str {
        match self {
            Self::Add | Self::Del | Self::Version => VERSIONS[0],
            Self::Check => "0.4.0",
            Self::Status | Self::Gc => "1.1.0",
        }
    }

    fn needs_previous(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }
}

/// The plugin's entry in a network configuration, as a runtime passes it on.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct NetConf {
    /// Version of the specification.
    #[serde(rename = "cniVersion", default)]
    pub version: String,
    /// The agent's socket.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Pods start unpoliced where no agent answers, instead of not at all.
    #[serde(rename = "failOpen", default)]
    pub fail_open: bool,
    /// What the plugins before this one did.
    #[serde(rename = "prevResult", default)]
    pub previous: Option<Value>,
    /// Attachments that exist, for `GC`.
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub valid: Option<Vec<AttachmentId>>,
}

fn default_socket() -> PathBuf {
    DEFAULT_SOCKET.into()
}

impl NetConf {
    /// Reads it, for a command.
    ///
    /// # Errors
    ///
    /// It is not JSON, its version is not spoken or does not have the command, or it lacks what the
    /// command needs.
    pub fn read(text: &[u8], command: Command) -> Result<Self, Fault> {
        let read = serde_json::from_slice::<Map<String, Value>>(text);
        let read = read.and_then(|fields| Self::deserialize(Value::Object(fields)));
        let conf = read.map_err(|error| {
            Fault::new(code::DECODE, "the network configuration", error.to_string())
        })?;
        if !VERSIONS.contains(&conf.version.as_str()) {
            return Err(Fault::new(
                code::VERSION,
                "incompatible CNI version",
                format!(
                    "cniVersion {:?} is none of {}",
                    conf.version,
                    VERSIONS.join(", ")
                ),
            ));
        }
        // Versions of one digit each: their texts are in their order.
        if conf.version.as_str() < command.since() {
            return Err(Fault::new(
                code::VERSION,
                "incompatible CNI version",
                format!(
                    "cniVersion {} has no {command:?}: it came with {}",
                    conf.version,
                    command.since()
                ),
            ));
        }
        let previous = conf.previous.as_ref().filter(|value| !value.is_null());
        if command.needs_previous() && previous.is_none() {
            return Err(Fault::new(
                code::CONFIG,
                "no prevResult",
                "this plugin comes after the one that makes the pod's device: put it at the end of \
                 a network configuration list",
            ));
        }
        Ok(conf)
    }
}

/// A required environment variable.
///
/// # Errors
///
/// It is missing, empty or has characters that it cannot have.
pub fn variable(name: &str, value: Option<String>) -> Result<String, Fault> {
    let fault = |details: String| Fault::new(code::ENVIRONMENT, name, details);
    let value = value.unwrap_or_default();
    if value.is_empty() {
        return Err(fault(format!("{name} is missing")));
    }
    let is_right = match name {
        "CNI_CONTAINERID" => is_container(&value),
        "CNI_IFNAME" => is_interface(&value),
        _ => true,
    };
    if !is_right {
        return Err(fault(format!("{name} cannot be {value:?}")));
    }
    Ok(value)
}

/// True for ids of containers: an alphanumeric character, then such, `_`, `.` and `-`.
pub fn is_container(id: &str) -> bool {
    let more = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    id.len() < 200
        && id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.bytes().all(more)
}

/// True for names that the kernel gives to devices.
pub fn is_interface(name: &str) -> bool {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    (1..16).contains(&name.len()) && ![".", ".."].contains(&name) && !name.contains(forbidden)
}

/// The pod that `CNI_ARGS` names, if it names one.
pub fn pod(args: &str) -> Option<PodName> {
    let value = |wanted: &str| {
        let pairs = args.split(';').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == wanted);
        values
            .next()
            .map(|(_, value)| value.to_owned())
            .filter(|value| !value.is_empty())
    };
    Some(PodName {
        namespace: value("K8S_POD_NAMESPACE")?,
        name: value("K8S_POD_NAME")?,
        uid: value("K8S_POD_UID").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(version: &str) -> String {
        format!(
            r#"{{"cniVersion":"{version}","name":"n","type":"sluice-cni","prevResult":{{"ips":[]}}}}"#
        )
    }

    fn fault(text: &str, command: Command) -> u32 {
        NetConf::read(text.as_bytes(), command).unwrap_err().code
    }

    #[test]
    fn every_version_that_is_spoken_is_read_and_others_are_not() {
        for version in VERSIONS {
            let read = NetConf::read(conf(version).as_bytes(), Command::Add).unwrap();
            assert_eq!(read.socket, PathBuf::from(DEFAULT_SOCKET));
            assert!(!read.fail_open);
        }
        for version in ["", "0.2.0", "0.5.0", "1.2.0", "2.0.0", "x"] {
            assert_eq!(fault(&conf(version), Command::Add), code::VERSION);
        }
    }

    #[test]
    fn a_version_has_only_the_commands_of_its_time() {
        for (version, check, gc) in [
            ("0.3.1", false, false),
            ("0.4.0", true, false),
            ("1.0.0", true, false),
            ("1.1.0", true, true),
        ] {
            let has = |command| NetConf::read(conf(version).as_bytes(), command).is_ok();
            assert_eq!(has(Command::Check), check, "{version}");
            assert_eq!(
                (has(Command::Gc), has(Command::Status)),
                (gc, gc),
                "{version}"
            );
            assert!(has(Command::Del), "{version}");
        }
    }

    #[test]
    fn what_is_missing_or_garbage_is_told() {
        for garbage in ["", "{", "[]", "\u{0}", r#"{"cniVersion":1}"#] {
            assert_eq!(fault(garbage, Command::Del), code::DECODE, "{garbage:?}");
        }
        for without in [
            r#"{"cniVersion":"1.0.0"}"#,
            r#"{"cniVersion":"1.0.0","prevResult":null}"#,
        ] {
            assert_eq!(fault(without, Command::Add), code::CONFIG);
            assert_eq!(fault(without, Command::Check), code::CONFIG);
            assert!(NetConf::read(without.as_bytes(), Command::Del).is_ok());
        }
        for (name, value) in [
            ("CNI_NETNS", None),
            ("CNI_NETNS", Some("")),
            ("CNI_CONTAINERID", Some("../x")),
            ("CNI_CONTAINERID", Some("-x")),
            ("CNI_IFNAME", Some("a/b")),
            ("CNI_IFNAME", Some("0123456789abcdef")),
        ] {
            let error = variable(name, value.map(str::to_owned)).unwrap_err();
            assert_eq!(error.code, code::ENVIRONMENT);
            assert!(error.details.contains(name), "{error}");
        }
        assert_eq!(
            Command::parse("UPDATE").unwrap_err().code,
            code::ENVIRONMENT
        );
    }

    #[test]
    fn the_arguments_name_the_pod() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u;X";
        let expected = PodName {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u".into(),
        };
        assert_eq!(pod(args), Some(expected));
        assert_eq!(pod("IgnoreUnknown=1;K8S_POD_NAME=web-0"), None);
        assert_eq!(pod(""), None);
    }

    #[test]
    fn attachments_that_exist_are_read() {
        let text = r#"{"cniVersion":"1.1.0","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}"#;
        let conf = NetConf::read(text.as_bytes(), Command::Gc).unwrap();
        let id = AttachmentId {
            container: "c".into(),
            interface: "eth0".into(),
        };
        assert_eq!(conf.valid, Some(vec![id]));
    }
}
