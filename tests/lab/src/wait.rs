//! Waiting for a condition, with a deadline.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(2);

/// How many times slower than others this machine is: `SLUICE_SLOWNESS`, as in an emulated guest.
fn slowness() -> u32 {
    let given = std::env::var("SLUICE_SLOWNESS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Looks until `look` gives a value, or the deadline passes; it is later on a machine that is said to
/// be slow.
///
/// # Errors
/// The deadline passes; the error says what was waited for and the reason of the last look.
pub fn until<T, E: Display>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T> {
    let within = within * slowness();
    let deadline = Instant::now() + within;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(why) if Instant::now() >= deadline => {
                bail!("waited {within:?} for {what}: {why:#}")
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// [`until`] for a plain condition.
///
/// # Errors
/// The deadline passes.
pub fn until_true(within: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    until(within, what, || {
        if holds() {
            Ok(())
        } else {
            Err("it does not hold")
        }
    })
}
