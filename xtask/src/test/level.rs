//! The levels of tests.

use clap::ValueEnum;

/// The package whose test targets are the levels that need the kernel.
pub const PACKAGE: &str = "sluice-tests";

/// A level of tests, least powerful first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Code of the host crates.
    Unit,
    /// Random inputs against an oracle: test targets called `property`.
    Property,
    /// Frames through loaded kernel programs.
    Packet,
    /// Manifests to a dump of the maps.
    Golden,
    /// The agent on namespaces with real traffic.
    Netns,
    /// Pods that start and stop under policies that forbid all they do.
    Leak,
    /// Some of the level before it in a guest with an older kernel, and SCTP sockets.
    Guest,
    /// The agent on a Kubernetes cluster.
    Cluster,
}

impl Level {
    /// All of them, in the order of running.
    pub const ALL: [Self; 8] = [
        Self::Unit,
        Self::Property,
        Self::Packet,
        Self::Golden,
        Self::Netns,
        Self::Leak,
        Self::Guest,
        Self::Cluster,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Property => "property",
            Self::Packet => "packet",
            Self::Golden => "golden",
            Self::Netns => "netns",
            Self::Leak => "leak",
            Self::Guest => "guest",
            Self::Cluster => "cluster",
        }
    }

    /// The name of its test target, if it has one.
    pub fn target(self) -> &'static str {
        match self {
            Self::Guest => Self::Netns.name(),
            level => level.name(),
        }
    }

    /// Whether it runs as root, with the kernel programs and the agent.
    pub fn needs_kernel(self) -> bool {
        !matches!(self, Self::Unit | Self::Property)
    }

    /// Arguments for the test programs: which tests, and how many at once.
    pub fn selection(self, filter: Option<&str>) -> Vec<String> {
        let mut words: Vec<String> = filter.map(String::from).into_iter().collect();
        if self == Self::Guest && filter.is_none() {
            words.extend(IN_GUEST.map(String::from));
        }
        if matches!(self, Self::Netns | Self::Leak | Self::Guest | Self::Cluster) {
            // They measure time and share the machine's cgroup hooks, or one cluster.
            words.push("--test-threads=1".into());
        }
        if self == Self::Netns {
            words.extend(["--skip".into(), SCTP.into()]);
        }
        words
    }
}

/// Tests that need SCTP sockets, which the machine's own kernel may lack.
const SCTP: &str = "sctp::";
/// Tests that run in the guest: they are slow there.
const IN_GUEST: [&str; 3] = [
    SCTP,
    "services::every_client_reaches_every_pod_and_is_seen_with_its_own_address",
    "policy::selectors_namespaces_and_ports_say_who_may_come",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_comes_before_the_number_of_threads() {
        assert!(Level::Unit.selection(None).is_empty());
        assert_eq!(Level::Unit.selection(Some("x")), ["x"]);
        assert_eq!(Level::Leak.selection(Some("x")), ["x", "--test-threads=1"]);
        assert_eq!(Level::Guest.selection(Some("x")), ["x", "--test-threads=1"]);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for level in Level::ALL {
            assert_eq!(Level::from_str(level.name(), false), Ok(level));
        }
    }
}
