//! kube-proxy's configuration file and flags, for those who come from it.
//!
//! What has a meaning here becomes settings; each field or flag that asks for something that Sluice
//! does not do is named in one warning.

mod duration;
mod effect;
mod flags;
mod meaning;
mod types;

use crate::config::File;
pub use duration::GoDuration;
pub use flags::Flags;
pub use types::Configuration;

/// `apiVersion` of the configuration file.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// Its `kind`.
pub const KIND: &str = "KubeProxyConfiguration";

/// What does nothing, by its name, with the reason.
pub type Ignored = Vec<(String, &'static str)>;

/// What somebody asked for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Given {
    /// Settings of the file.
    pub file: File,
    /// Settings of kube-proxy's flags: they go before all others.
    pub above: File,
    /// What was asked for and does nothing, by its name, with the reason.
    pub ignored: Ignored,
}

impl Given {
    /// One text about all that does nothing; `None` if there is nothing to say.
    pub fn warning(&self) -> Option<String> {
        if self.ignored.is_empty() {
            return None;
        }
        let each = self.ignored.iter();
        let each: Vec<String> = each.map(|(name, why)| format!("{name} ({why})")).collect();
        Some(format!("without effect: {}", each.join(", ")))
    }
}

#[cfg(test)]
mod tests;
