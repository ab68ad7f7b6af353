//! The levels of tests.

use clap::ValueEnum;

/// The package whose test targets are the levels that need the kernel.
pub const PACKAGE: &str = "sluice-tests";

/// What the names of property tests contain: they are in modules of this name.
const PROPERTY: &str = "property::";

/// A level of tests, least powerful first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Code of the host crates.
    Unit,
    /// Random inputs against an oracle: modules called `property`.
    Property,
    /// Frames through loaded kernel programs.
    Packet,
    /// Manifests to a dump of the maps.
    Golden,
    /// The agent on namespaces with real traffic.
    Netns,
}

impl Level {
    /// All of them, in the order of running.
    pub const ALL: [Self; 5] = [
        Self::Unit,
        Self::Property,
        Self::Packet,
        Self::Golden,
        Self::Netns,
    ];

    /// Its name on the command line; that of its test target, if it has one of its own.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Property => "property",
            Self::Packet => "packet",
            Self::Golden => "golden",
            Self::Netns => "netns",
        }
    }

    /// Whether it runs as root, with the kernel programs and the agent.
    pub fn needs_kernel(self) -> bool {
        !matches!(self, Self::Unit | Self::Property)
    }

    /// Arguments for the test programs: which tests, and how many at once.
    pub fn selection(self, filter: Option<&str>) -> Vec<String> {
        let mut words: Vec<String> = match (self, filter) {
            (_, Some(filter)) => vec![filter.into()],
            (Self::Unit, None) => vec!["--skip".into(), PROPERTY.into()],
            (Self::Property, None) => vec![PROPERTY.into()],
            _ => vec![],
        };
        if self == Self::Netns {
            // They measure time and share the machine's cgroup hooks.
            words.push("--test-threads=1".into());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_and_property_split_the_host_tests() {
        assert_eq!(Level::Unit.selection(None), ["--skip", "property::"]);
        assert_eq!(Level::Property.selection(None), ["property::"]);
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
