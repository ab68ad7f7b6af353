//! Splits a body into its lines.

/// Longest line that is believed: etcd's objects have at most a few MB.
const LONGEST: usize = 64 << 20;
/// More than this is given back after a long line.
const KEPT: usize = 256 << 10;

/// A line that is longer than any object can be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a line of more than {} MB", LONGEST >> 20)]
pub struct TooLong;

/// The part of a line whose end has not come yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes and hands over each line that they complete, without its end.
    ///
    /// # Errors
    ///
    /// [`TooLong`].
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) -> Result<(), TooLong> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            if self.partial.is_empty() {
                line(&bytes[..end]);
            } else {
                self.partial.extend_from_slice(&bytes[..end]);
                line(&self.partial);
                self.partial.clear();
                self.partial.shrink_to(KEPT);
            }
            bytes = &bytes[end + 1..];
        }
        if self.partial.len() + bytes.len() > LONGEST {
            return Err(TooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_bytes_are_cut() {
        let text = b"one\n\ntwo and a bit\nthree\nrest";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for chunk in text.chunks(size) {
                lines
                    .push(chunk, |line| {
                        seen.push(String::from_utf8_lossy(line).into_owned())
                    })
                    .unwrap();
            }
            assert_eq!(
                seen,
                ["one", "", "two and a bit", "three"],
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 1 << 20];
        let refused = (0..100).find(|_| lines.push(&chunk, |_| ()).is_err());
        assert_eq!(refused, Some(64));
    }
}
