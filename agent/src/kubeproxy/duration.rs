//! Durations as Go writes them: `1h30m`, `1.5s`, `200ms`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration that is not negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GoDuration(pub Duration);

impl GoDuration {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// It is not a duration.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration: write one like 30s, 5m or 1h30m");
        if text == "0" {
            return Ok(Self::default());
        }
        let (mut rest, mut nanos) = (text, 0.0_f64);
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
            let (number, unit) = rest.split_at(end.ok_or_else(wrong)?);
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let end = unit.find(|c: char| c.is_ascii_digit() || c == '.');
            let (unit, after) = unit.split_at(end.unwrap_or(unit.len()));
            nanos += number * scale(unit).ok_or_else(wrong)?;
            rest = after;
        }
        if text.is_empty() || nanos > i64::MAX as f64 {
            return Err(wrong());
        }
        Ok(Self(Duration::from_nanos(nanos as u64)))
    }
}

/// Nanoseconds of a unit.
fn scale(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 6e10,
        "h" => 3.6e12,
        _ => return None,
    })
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(&format_args!("{}s", self.0.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("2h22m", 8_520_000),
            ("1.5s", 1_500),
            ("200ms", 200),
        ] {
            let expected = Ok(GoDuration(Duration::from_millis(millis)));
            assert_eq!(GoDuration::parse(text), expected, "{text}");
        }
        for text in ["", "30", "s", "-5s", "5 s", "5d", "1..5s"] {
            let error = GoDuration::parse(text).expect_err(text);
            assert!(error.contains("write one like 30s"), "{error}");
        }
    }
}
