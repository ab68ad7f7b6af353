//! The control plane: from a real API server, filled with Services and their endpoints, to the maps
//! and to the first packet that takes the new way; and the agent's memory at that size. kube-proxy
//! does the same in the same run, one after the other, as neither is to wait for the other's work.

pub mod objects;
mod probe;
pub mod process;
pub mod rows;
mod world;

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::report::Report;
use world::World;

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Services.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.services, self.endpoints)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let numbers = || {
            let (services, endpoints) = text.split_once('x')?;
            let size = Size {
                services: services.parse().ok()?,
                endpoints: endpoints.parse().ok()?,
            };
            (size.services > 0 && size.endpoints > 0).then_some(size)
        };
        numbers().ok_or_else(|| format!("{text:?}: write SERVICESxENDPOINTS, as 10000x10"))
    }
}

/// Always measured.
const USUAL: Size = Size {
    services: 10_000,
    endpoints: 10,
};
/// Measured in a long run too.
const LARGE: [Size; 2] = [
    Size {
        services: 10_000,
        endpoints: 100,
    },
    Size {
        services: 50_000,
        endpoints: 10,
    },
];

/// The sizes to measure, of those asked for.
pub fn sizes(asked: &[Size], long: bool) -> Vec<Size> {
    let mut sizes = asked.to_vec();
    if sizes.is_empty() {
        sizes.push(USUAL);
    }
    if long {
        sizes.extend(LARGE);
    }
    sizes
}

/// Measures each size, and returns the table.
///
/// # Errors
/// A program is missing, or something does not work.
pub fn run(sizes: &[Size], report: &mut Report) -> Result<String> {
    let mut table = rows::HEAD.to_owned();
    for size in sizes {
        let measured = World::make(*size)
            .and_then(|mut world| world.measure())
            .with_context(|| format!("at {size}"))?;
        rows::rows(*size, &measured, report);
        table += &rows::lines(*size, &measured);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_two_numbers() {
        assert_eq!("10000x10".parse(), Ok(USUAL));
        for bad in ["10000", "0x10", "10x", "x", "axb"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_usual_size_is_measured_unless_another_is_asked_for() {
        let small: Size = "10x2".parse().unwrap();
        assert_eq!(sizes(&[], false), [USUAL]);
        assert_eq!(sizes(&[small], false), [small]);
        assert_eq!(sizes(&[], true), [USUAL, LARGE[0], LARGE[1]]);
    }
}
