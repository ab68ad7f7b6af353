//! What was told, and what of it is to be posted.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Told;

/// What happens again is posted again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// What did not happen again for this long is told anew.
const OVER: Duration = Duration::from_secs(360);
/// Posts at once.
const BURST: u32 = 20;
/// Time that a further post takes.
const EACH: Duration = Duration::from_secs(3);
/// Most that is remembered.
const MOST: usize = 1_024;

/// What is to be posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Post {
    /// A new Event.
    First,
    /// It happened so many times.
    Again(u32),
}

/// Remembers what was told.
#[derive(Debug)]
pub struct Journal {
    known: HashMap<Told, Entry>,
    /// When there was, or will be, no debt of posts.
    paid: Instant,
}

#[derive(Debug)]
struct Entry {
    count: u32,
    last: Instant,
    posted: Instant,
}

impl Journal {
    /// Nothing was told.
    pub fn new(now: Instant) -> Self {
        Self {
            known: HashMap::new(),
            paid: now,
        }
    }

    /// Notes what is told; returns what is to be posted of it now, if something is.
    pub fn note(&mut self, told: &Told, now: Instant) -> Option<Post> {
        if let Some(entry) = self.known.get_mut(told) {
            if now.duration_since(entry.last) < OVER {
                entry.count += 1;
                entry.last = now;
                let count = entry.count;
                let is_due = now.duration_since(entry.posted) >= AGAIN;
                if !is_due || !self.may_post(now) {
                    return None;
                }
                self.known.get_mut(told)?.posted = now;
                return Some(Post::Again(count));
            }
            self.known.remove(told);
        }
        if !self.may_post(now) {
            return None;
        }
        if self.known.len() >= MOST {
            self.known
                .retain(|_, entry| now.duration_since(entry.last) < OVER);
        }
        if self.known.len() < MOST {
            let entry = Entry {
                count: 1,
                last: now,
                posted: now,
            };
            self.known.insert(told.clone(), entry);
        }
        Some(Post::First)
    }

    /// It was not posted: the next time is the first.
    pub fn forget(&mut self, told: &Told) {
        self.known.remove(told);
    }

    fn may_post(&mut self, now: Instant) -> bool {
        let paid = self.paid.max(now) + EACH;
        let may = paid.duration_since(now) <= EACH * BURST;
        if may {
            self.paid = paid;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Kind, ObjectKey};

    fn told(name: &str) -> Told {
        Told {
            object: ObjectKey::new(Kind::Service, Some("n"), name),
            reason: "Test",
            note: "told".to_owned(),
        }
    }

    #[test]
    fn what_happens_again_is_counted_and_posted_each_minute() {
        let start = Instant::now();
        let mut journal = Journal::new(start);
        let mut at = |secs| journal.note(&told("a"), start + Duration::from_secs(secs));
        assert_eq!(at(0), Some(Post::First));
        assert_eq!(at(1), None);
        assert_eq!(at(61), Some(Post::Again(3)));
        assert_eq!(at(62), None);
        assert_eq!(at(62 + 360), Some(Post::First), "it was over");
        journal.forget(&told("a"));
        let later = start + Duration::from_secs(423);
        assert_eq!(journal.note(&told("a"), later), Some(Post::First));
    }

    #[test]
    fn there_are_twenty_posts_at_once_and_one_each_three_seconds() {
        let start = Instant::now();
        let mut journal = Journal::new(start);
        let mut posts = |from: u32, secs| {
            let now = start + Duration::from_secs(secs);
            let names = (from..from + 100).map(|name| told(&name.to_string()));
            names
                .filter(|told| journal.note(told, now).is_some())
                .count()
        };
        assert_eq!(posts(0, 0), 20);
        assert_eq!(posts(100, 2), 0);
        assert_eq!(posts(200, 9), 3);
        assert_eq!(posts(300, 600), 20);
    }
}
