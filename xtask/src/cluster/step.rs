//! Saying what is done, and how long it took.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Does a step, with its name before and its time after it.
pub fn timed<T>(name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    eprintln!("{name} ...");
    let result = step()?;
    eprintln!("{name}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(result)
}

/// Waits until something holds; what it says when it does not is the error.
pub fn until(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= deadline => {
                bail!("{what} within {} s: {why}", limit.as_secs())
            }
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_is_the_error() {
        let mut asked = 0;
        let error = until("no luck", Duration::from_millis(1), || {
            asked += 1;
            Err(format!("try {asked}"))
        });
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("no luck within 0 s: try")
        );
        until("luck", Duration::ZERO, || Ok(())).unwrap();
    }
}
