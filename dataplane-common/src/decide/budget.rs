//! Limits of how often something is done: token buckets (RFC 1812 section 4.3.2.8, RFC 4443 section
//! 2.4 f).

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// Takes a token at a time in nanoseconds, of a bucket that gets `rate` tokens a second and holds up
/// to `burst`. Returns what is to be kept of the bucket, and whether there was a token.
///
/// Of a bucket one word is kept: the time at which it will be full. 0 is a full bucket.
#[inline(always)]
pub fn take(full_at: u64, now: u64, rate: u32, burst: u32) -> (u64, bool) {
    if rate == 0 {
        return (full_at, false);
    }
    let each = SECOND / rate as u64;
    let from = if full_at > now { full_at } else { now };
    if from - now > each * (burst as u64).saturating_sub(1) {
        return (full_at, false);
    }
    (from + each, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens out of so many asked for at one time.
    fn taken(full_at: &mut u64, now: u64, asked: u32) -> u32 {
        let mut count = 0;
        for _ in 0..asked {
            let (kept, token) = take(*full_at, now, 100, 10);
            *full_at = kept;
            count += token as u32;
        }
        count
    }

    #[test]
    fn a_burst_empties_the_bucket_and_time_fills_it() {
        let (mut bucket, start) = (0, 77 * SECOND);
        assert_eq!(taken(&mut bucket, start, 50), 10);
        assert_eq!(taken(&mut bucket, start + SECOND / 100 - 1, 50), 0);
        assert_eq!(taken(&mut bucket, start + SECOND / 100, 50), 1);
        assert_eq!(taken(&mut bucket, start + 6 * SECOND / 100, 50), 5);
        assert_eq!(taken(&mut bucket, start + 60 * SECOND, 50), 10);
    }

    #[test]
    fn a_rate_of_none_gives_none() {
        assert_eq!(take(0, SECOND, 0, 10), (0, false));
    }
}
