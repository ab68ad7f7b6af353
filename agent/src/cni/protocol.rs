//! What the plugin asks of the agent, and its answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a plugin asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Ask {
    /// Take a device over; answered when the policy of its pod is in force.
    Add(Box<Attachment>),
    /// Say whether all is as it was after the `Add`.
    Check {
        /// The attachment.
        id: AttachmentId,
    },
    /// Forget an attachment, if there is one.
    Del {
        /// The attachment.
        id: AttachmentId,
    },
    /// Say whether an `Add` could be served.
    Status,
    /// Forget all attachments but these.
    Gc {
        /// Those that exist.
        valid: Vec<AttachmentId>,
    },
}

impl Ask {
    /// `CNI_COMMAND`.
    pub fn command(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Check { .. } => "CHECK",
            Self::Del { .. } => "DEL",
            Self::Status => "STATUS",
            Self::Gc { .. } => "GC",
        }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// It is not.
    Refused(Fault),
}

/// What an attachment is known by: container and name of the device in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container: String,
    /// `CNI_IFNAME`.
    #[serde(rename = "ifname")]
    pub interface: String,
}

/// A container's device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Its name.
    pub id: AttachmentId,
    /// The pod; `None` for a container that is no pod's.
    pub pod: Option<PodName>,
    /// Index of the host-side device.
    pub ifindex: u32,
    /// Name of the host-side device.
    pub name: String,
    /// Hardware address of the pod's end.
    pub mac: [u8; 6],
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
    /// Addresses that it was given, its first ones first.
    pub addresses: Vec<IpAddr>,
}

/// A pod, as `CNI_ARGS` names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; empty if the runtime does not say.
    pub uid: String,
}

/// An error as the specification has it (section 5, "Error").
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}: {details}")]
pub struct Fault {
    /// [`code`].
    pub code: u32,
    /// In short.
    #[serde(rename = "msg")]
    pub message: String,
    /// In full, with the remedy.
    pub details: String,
}

impl Fault {
    /// From its parts.
    pub fn new(code: u32, message: &str, details: impl Into<String>) -> Self {
        Self {
            code,
            message: message.to_owned(),
            details: details.into(),
        }
    }
}

/// Codes of errors. Those from 100 on are ours.
pub mod code {
    /// The configuration's version is not known, or does not have the command.
    pub const VERSION: u32 = 1;
    /// An environment variable is missing or wrong.
    pub const ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// The configuration cannot be read.
    pub const DECODE: u32 = 6;
    /// The configuration says what it cannot.
    pub const CONFIG: u32 = 7;
    /// It may work later.
    pub const TRY_AGAIN: u32 = 11;
    /// No `ADD` can be served now.
    pub const UNAVAILABLE: u32 = 50;
    /// The device is not there, or is none that can be policed.
    pub const DEVICE: u32 = 100;
    /// The attachment is not as it was made.
    pub const BROKEN: u32 = 101;
}
