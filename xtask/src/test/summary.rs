//! Counting tests.

use std::{fmt, ops::AddAssign};

/// How many tests ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
    /// Not run although chosen.
    pub ignored: u64,
}

impl Summary {
    /// From the line with which a test program ends; none for other lines.
    pub fn of_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut summary = Self::default();
        for part in counts.split(';') {
            let (number, what) = part.trim().split_once(' ')?;
            match what {
                "passed" => summary.passed = number.parse().ok()?,
                "failed" => summary.failed = number.parse().ok()?,
                "ignored" => summary.ignored = number.parse().ok()?,
                _ => {}
            }
        }
        Some(summary)
    }

    /// How many ran.
    pub fn ran(&self) -> u64 {
        self.passed + self.failed
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} skipped", self.ignored)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted_and_others_are_not() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.05s";
        assert_eq!(
            Summary::of_line(ok),
            Some(Summary {
                passed: 12,
                failed: 0,
                ignored: 1
            })
        );
        let bad = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert_eq!(
            Summary::of_line(bad),
            Some(Summary {
                passed: 1,
                failed: 2,
                ignored: 0
            })
        );
        assert_eq!(Summary::of_line("test summary::tests::x ... ok"), None);
        assert_eq!(Summary::of_line("test result: gibberish"), None);
    }

    #[test]
    fn sums_add_up() {
        let mut sum = Summary::default();
        for line in [
            "test result: ok. 2 passed; 0 failed; 0 ignored",
            "test result: FAILED. 3 passed; 4 failed; 5 ignored",
        ] {
            sum += Summary::of_line(line).unwrap();
        }
        assert_eq!(
            sum,
            Summary {
                passed: 5,
                failed: 4,
                ignored: 5
            }
        );
        assert_eq!(
            (sum.ran(), sum.to_string().as_str()),
            (9, "5 passed, 4 failed, 5 skipped")
        );
    }
}
