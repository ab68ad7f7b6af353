//! What domain names resolve to, for as long as that holds.
//!
//! It is kept in a file, a line for each answer: an agent that starts again goes on admitting what pods have
//! resolved before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dataplane_model::snapshot::{Domain, Event, Key, Object};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::message::Resolved;

/// Pods that cache an answer use it a little longer than its TTL says.
const SHORTEST: Duration = Duration::from_secs(30);
/// No answer holds longer.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Addresses of one name, at most.
const ADDRESSES: usize = 256;
/// Addresses of all names, at most: they share the map of prefixes with the blocks of policies.
const ALL_ADDRESSES: usize = 4_096;

/// The names and their addresses.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    file: Option<File>,
    /// Lines in the file.
    lines: usize,
    /// Until when each address of a name holds.
    known: BTreeMap<String, BTreeMap<IpAddr, SystemTime>>,
    count: usize,
    /// Addresses that there was no room for.
    refused: u64,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    name: String,
    address: IpAddr,
    /// Seconds since 1970.
    until: u64,
}

impl Names {
    /// Those of a file, which is made with the first answer. A line that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn load(path: &Path, now: SystemTime) -> io::Result<Self> {
        let mut names = Self {
            path: path.to_owned(),
            file: None,
            lines: 0,
            known: BTreeMap::new(),
            count: 0,
            refused: 0,
        };
        let kept = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            kept => kept?,
        };
        for line in kept.split(|&byte| byte == b'\n') {
            let Ok(line) = serde_json::from_slice::<Line>(line) else {
                continue;
            };
            let until = UNIX_EPOCH + Duration::from_secs(line.until);
            if until > now {
                names.put(&line.name, line.address, until.min(now + LONGEST));
            }
        }
        names.rewrite();
        Ok(names)
    }

    /// Takes answers in. Returns what is to be folded in: the names with addresses that are new.
    pub fn learn(&mut self, answers: &[Resolved], now: SystemTime) -> Vec<Event> {
        let mut changed = BTreeSet::new();
        for answer in answers {
            let until = now + answer.ttl.clamp(SHORTEST, LONGEST);
            match self.put(&answer.name, answer.address, until) {
                Put::Known => {}
                Put::Longer => self.append(&answer.name, answer.address, until),
                Put::New => {
                    self.append(&answer.name, answer.address, until);
                    changed.insert(&answer.name);
                }
            }
        }
        changed.into_iter().map(|name| self.event(name)).collect()
    }

    /// Lets go of what holds no longer and is not in use. Returns what is to be folded in.
    pub fn expire(&mut self, now: SystemTime, in_use: impl Fn(IpAddr) -> bool) -> Vec<Event> {
        let mut changed = Vec::new();
        for (name, addresses) in &mut self.known {
            let before = addresses.len();
            addresses.retain(|&address, until| *until > now || in_use(address));
            if addresses.len() < before {
                self.count -= before - addresses.len();
                changed.push(name.clone());
            }
        }
        let events = changed.iter().map(|name| self.event(name)).collect();
        self.known.retain(|_, addresses| !addresses.is_empty());
        if !changed.is_empty() {
            self.rewrite();
        }
        events
    }

    /// Addresses that hold no longer.
    pub fn expired(&self, now: SystemTime) -> BTreeSet<IpAddr> {
        let all = self.known.values().flatten();
        all.filter(|(_, until)| **until <= now)
            .map(|(&address, _)| address)
            .collect()
    }

    /// All, as events.
    pub fn events(&self) -> Vec<Event> {
        self.known.keys().map(|name| self.event(name)).collect()
    }

    /// When the first of them holds no longer.
    pub fn first_end(&self) -> Option<SystemTime> {
        self.known
            .values()
            .flat_map(BTreeMap::values)
            .min()
            .copied()
    }

    /// Addresses, each counted with each of its names.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Addresses that were left out for want of room.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn event(&self, name: &str) -> Event {
        match self.known.get(name).filter(|known| !known.is_empty()) {
            Some(known) => Event::Apply(Object::Domain(Domain {
                name: name.into(),
                addresses: known.keys().copied().collect(),
            })),
            None => Event::Delete(Key::Domain(name.into())),
        }
    }

    fn put(&mut self, name: &str, address: IpAddr, until: SystemTime) -> Put {
        let is_full = self.count >= ALL_ADDRESSES;
        if let Some(known) = self.known.get_mut(name) {
            if let Some(end) = known.get_mut(&address) {
                // A second more is not worth a line.
                if until <= *end + Duration::from_secs(1) {
                    return Put::Known;
                }
                *end = until;
                return Put::Longer;
            }
            if known.len() >= ADDRESSES || is_full {
                self.refuse(name);
                return Put::Known;
            }
            known.insert(address, until);
        } else if is_full {
            self.refuse(name);
            return Put::Known;
        } else {
            self.known
                .insert(name.to_owned(), [(address, until)].into());
        }
        self.count += 1;
        Put::New
    }

    fn refuse(&mut self, name: &str) {
        self.refused += 1;
        if self.refused.is_power_of_two() {
            warn!(
                name,
                refused = self.refused,
                "no room for more addresses of domain names: what they are needed for is denied"
            );
        }
    }

    /// Writes what was learnt; old lines go when there are too many.
    fn append(&mut self, name: &str, address: IpAddr, until: SystemTime) {
        if self.lines > 2 * self.count + 1_024 {
            return self.rewrite();
        }
        let written = self.try_append(name, address, until);
        self.note(written);
    }

    fn try_append(&mut self, name: &str, address: IpAddr, until: SystemTime) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&self.path)?;
                self.file.insert(file)
            }
        };
        file.write_all(&line(name, address, until)?)?;
        self.lines += 1;
        Ok(())
    }

    /// Writes the file anew, with what is known.
    fn rewrite(&mut self) {
        let written = self.try_rewrite();
        self.note(written);
    }

    fn try_rewrite(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        for (name, addresses) in &self.known {
            for (&address, &until) in addresses {
                text.extend(line(name, address, until)?);
            }
        }
        let part = self.path.with_extension("part");
        fs::write(&part, text)?;
        fs::rename(part, &self.path)?;
        self.file = None;
        self.lines = self.count;
        Ok(())
    }

    fn note(&self, written: io::Result<()>) {
        if let Err(error) = written {
            warn!(file = %self.path.display(), %error, "domain names are not kept: an agent that starts again does not know them");
        }
    }
}

/// What became of an address.
enum Put {
    /// It was there, or there is no room.
    Known,
    /// It holds longer now.
    Longer,
    /// It is new.
    New,
}

fn line(name: &str, address: IpAddr, until: SystemTime) -> io::Result<Vec<u8>> {
    let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = name.to_owned();
    let until = until.as_secs();
    let mut line = serde_json::to_vec(&Line {
        name,
        address,
        until,
    })?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    fn answer(name: &str, last: u8, ttl: u64) -> Resolved {
        Resolved {
            name: name.to_owned(),
            address: [192, 0, 2, last].into(),
            ttl: Duration::from_secs(ttl),
        }
    }

    fn holds(name: &str, lasts: &[u8]) -> Event {
        Event::Apply(Object::Domain(Domain {
            name: name.into(),
            addresses: lasts.iter().map(|&last| [192, 0, 2, last].into()).collect(),
        }))
    }

    #[test]
    fn addresses_hold_for_their_ttl_and_while_they_are_in_use() {
        let path = path("names");
        let mut names = Names::load(&path, at(0)).unwrap();
        let learnt = names.learn(&[answer("a.b", 1, 100), answer("a.b", 2, 0)], at(0));
        assert_eq!(learnt, [holds("a.b", &[1, 2])]);
        assert_eq!(
            names.learn(&[answer("a.b", 1, 200)], at(0)),
            [],
            "nothing is new"
        );
        assert_eq!(names.first_end(), Some(at(30)), "no TTL is that short");
        assert_eq!(names.expire(at(29), |_| false), []);
        let two: IpAddr = [192, 0, 2, 2].into();
        assert_eq!(names.expired(at(30)), BTreeSet::from([two]));
        assert_eq!(names.expire(at(30), |address| address == two), []);
        assert_eq!(names.expire(at(30), |_| false), [holds("a.b", &[1])]);
        assert_eq!(names.expire(at(199), |_| false), []);
        assert_eq!(
            names.expire(at(200), |_| false),
            [Event::Delete(Key::Domain("a.b".into()))]
        );
        assert_eq!(names.events(), []);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_holds_is_known_after_a_restart() {
        let path = path("names-kept");
        let mut names = Names::load(&path, at(0)).unwrap();
        names.learn(&[answer("a.b", 1, 100), answer("c.d", 2, 1_000)], at(0));
        names.learn(&[answer("a.b", 1, 500)], at(60));
        let mut text = fs::read(&path).unwrap();
        text.extend(b"{\n\xff\n");
        fs::write(&path, text).unwrap();
        let again = Names::load(&path, at(400)).unwrap();
        assert_eq!(again.events(), [holds("a.b", &[1]), holds("c.d", &[2])]);
        let again = Names::load(&path, at(600)).unwrap();
        assert_eq!(again.events(), [holds("c.d", &[2])]);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let path = path("names-many");
        let mut names = Names::load(&path, at(0)).unwrap();
        let all: Vec<_> = (0..5_000u32)
            .map(|index| Resolved {
                name: format!("n{}.b", index / 100),
                address: IpAddr::from(index.to_be_bytes()),
                ttl: Duration::from_secs(600),
            })
            .collect();
        assert_eq!(names.learn(&all, at(0)).len(), 41);
        assert_eq!(names.refused(), 5_000 - ALL_ADDRESSES as u64);
        for _ in 0..200 {
            names.learn(&[answer("n0.b", 1, 600)], at(0));
        }
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 2 * ALL_ADDRESSES + 1_025, "{lines}");
        fs::remove_file(path).unwrap();
    }
}
