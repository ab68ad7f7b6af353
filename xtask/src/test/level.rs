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
    /// The agent on a Kubernetes cluster.
    Cluster,
}

impl Level {
    /// All of them, in the order of running.
    pub const ALL: [Self; 7] = [
        Self::Unit,
        Self::Property,
        Self::Packet,
        Self::Golden,
        Self::Netns,
        Self::Leak,
        Self::Cluster,
    ];

    /// Its name on the command line; that of its test target, if it has one of its own.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Property => "property",
            Self::Packet => "packet",
            Self::Golden => "golden",
            Self::Netns => "netns",
            Self::Leak => "leak",
            Self::Cluster => "cluster",
        }
    }

    /// Whether it runs as root, with the kernel programs and the agent.
    pub fn needs_kernel(self) -> bool {
        !matches!(self, Self::Unit | Self::Property)
    }

    /// Arguments for the test programs: which tests, and how many at once.
    pub fn selection(self, filter: Option<&str>) -> Vec<String> {
        let mut words: Vec<String> = filter.map(String::from).into_iter().collect();
        if matches!(self, Self::Netns | Self::Leak | Self::Cluster) {
            // They measure time and share the machine's cgroup hooks, or one cluster.
            words.push("--test-threads=1".into());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_comes_before_the_number_of_threads() {
        assert!(Level::Unit.selection(None).is_empty());
        assert_eq!(Level::Unit.selection(Some("x")), ["x"]);
        assert_eq!(Level::Netns.selection(Some("x")), ["x", "--test-threads=1"]);
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for level in Level::ALL {
            assert_eq!(Level::from_str(level.name(), false), Ok(level));
        }
    }
}
