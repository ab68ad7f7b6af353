//! What the files of a folder hold, and which objects follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::decode::{self, Bad, Content, Decoded};
use crate::source::{Change, Object, ObjectKey, Origin, Problem, closed};

/// The files and the objects in force.
///
/// Of an object that several files hold, the one of the first file in the order of their paths is
/// in force. A document that cannot be used leaves the object as it was.
#[derive(Debug, Default)]
pub struct Folder {
    files: BTreeMap<PathBuf, File>,
    owners: BTreeMap<ObjectKey, BTreeSet<PathBuf>>,
    in_force: BTreeMap<ObjectKey, Arc<Object>>,
    touched: BTreeSet<ObjectKey>,
    skipped_kinds: BTreeSet<String>,
}

/// A document that is left out because the agent has no use for its kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Skipped {
    /// Where it stands.
    pub origin: Origin,
    /// `apiVersion/kind`.
    pub kind: String,
}

/// A file's content, read but not yet in force.
#[derive(Debug)]
pub struct Parsed {
    path: PathBuf,
    decoded: Vec<Decoded>,
}

impl Parsed {
    /// Reads a file's bytes.
    pub fn new(path: &Path, bytes: &[u8]) -> Self {
        let decoded = match std::str::from_utf8(bytes) {
            Ok(text) => decode::decode(text),
            Err(error) => {
                let before = &bytes[..error.valid_up_to()];
                let lines = before.iter().filter(|&&byte| byte == b'\n').count();
                vec![unusable(
                    u32::try_from(lines).map_or(1, |lines| lines + 1),
                    "not UTF-8: save the file as UTF-8 text",
                )]
            }
        };
        Self {
            path: path.to_owned(),
            decoded,
        }
    }

    /// A file that is there and cannot be read.
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self {
            path: path.to_owned(),
            decoded: vec![unusable(1, &format!("cannot be read: {error}"))],
        }
    }
}

fn unusable(line: u32, message: &str) -> Decoded {
    Decoded {
        line,
        content: Content::Bad(Bad {
            key: None,
            field: String::new(),
            message: message.to_owned(),
            closed: None,
        }),
    }
}

#[derive(Debug, Default)]
struct File {
    objects: BTreeMap<ObjectKey, Held>,
    problems: BTreeSet<Problem>,
    skipped: Vec<Skipped>,
}

#[derive(Clone, Debug)]
struct Held {
    object: Arc<Object>,
    line: u32,
    /// A stand-in for a policy that cannot be read.
    closed: bool,
}

impl Folder {
    /// True if taking this content would delete objects: a sign of a file that is still being
    /// written.
    pub fn would_delete(&self, parsed: &Parsed) -> bool {
        let Some(file) = self.files.get(&parsed.path) else {
            return false;
        };
        let (next, _) = read_file(file, parsed);
        file.objects
            .keys()
            .any(|key| !next.objects.contains_key(key))
    }

    /// Takes a file's content.
    pub fn take(&mut self, parsed: &Parsed) {
        let old = self.files.remove(&parsed.path).unwrap_or_default();
        let (file, kinds) = read_file(&old, parsed);
        for problem in file.problems.difference(&old.problems) {
            warn!("{problem}");
        }
        for (kind, origin) in kinds {
            if self.skipped_kinds.insert(kind.clone()) {
                info!(
                    "{origin}: {kind} is skipped, here and elsewhere: the agent has no use for this kind"
                );
            }
        }
        for key in file.objects.keys() {
            self.owners
                .entry(key.clone())
                .or_default()
                .insert(parsed.path.clone());
            self.touched.insert(key.clone());
        }
        for key in old
            .objects
            .keys()
            .filter(|key| !file.objects.contains_key(key))
        {
            self.disown(key, &parsed.path);
        }
        self.files.insert(parsed.path.clone(), file);
    }

    /// Forgets a file that is gone, or all files of a folder that is gone.
    pub fn forget(&mut self, path: &Path) {
        let gone: Vec<PathBuf> = self
            .files
            .range(path.to_owned()..)
            .map(|(file, _)| file)
            .take_while(|file| file.starts_with(path))
            .cloned()
            .collect();
        for path in gone {
            let file = self.files.remove(&path).unwrap_or_default();
            for key in file.objects.keys() {
                self.disown(key, &path);
            }
        }
    }

    /// The files that are known.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }

    /// What has changed since the last call.
    pub fn drain(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let Some((path, held)) = self.holder(&key) else {
                if self.in_force.remove(&key).is_some() {
                    changes.push(Change::Delete(key));
                }
                continue;
            };
            let origin = origin(path, held.line);
            if let Some(duplicate) = self.duplicate(&key) {
                warn!("{duplicate}");
            }
            let object = Arc::clone(&held.object);
            if self.in_force.get(&key) != Some(&object) {
                self.in_force.insert(key, Arc::clone(&object));
                changes.push(Change::Apply { object, origin });
            }
        }
        changes
    }

    /// All that is wrong with the files.
    pub fn problems(&self) -> Vec<Problem> {
        let documents = self
            .files
            .values()
            .flat_map(|file| file.problems.iter().cloned());
        let duplicates = self.owners.keys().filter_map(|key| self.duplicate(key));
        documents.chain(duplicates).collect()
    }

    /// The documents that are left out.
    pub fn skipped(&self) -> Vec<Skipped> {
        let skipped = self.files.values().flat_map(|file| file.skipped.iter());
        skipped.cloned().collect()
    }

    fn disown(&mut self, key: &ObjectKey, path: &Path) {
        if let Some(owners) = self.owners.get_mut(key) {
            owners.remove(path);
            if owners.is_empty() {
                self.owners.remove(key);
            }
        }
        self.touched.insert(key.clone());
    }

    fn held(&self, path: &Path, key: &ObjectKey) -> Option<&Held> {
        self.files.get(path)?.objects.get(key)
    }

    /// The first file that holds a readable version, else the first that holds a stand-in.
    fn holder(&self, key: &ObjectKey) -> Option<(&Path, &Held)> {
        let owners = self.owners.get(key)?;
        let all = || {
            let held = |path: &'_ PathBuf| self.held(path, key);
            owners
                .iter()
                .filter_map(move |path| Some((path.as_path(), held(path)?)))
        };
        all()
            .find(|(_, held)| !held.closed)
            .or_else(|| all().next())
    }

    fn duplicate(&self, key: &ObjectKey) -> Option<Problem> {
        let owners = self.owners.get(key).filter(|owners| owners.len() > 1)?;
        let (winner, held) = self.holder(key)?;
        let other = owners.iter().find(|path| path.as_path() != winner)?;
        Some(Problem {
            origin: origin(other, self.held(other, key)?.line),
            object: Some(key.clone()),
            field: String::new(),
            message: format!(
                "defined in {} too: delete one of the two",
                origin(winner, held.line)
            ),
            effect: format!("the one in {} is in force", winner.display()),
        })
    }
}

/// The state of a file with new content, after its old one; and the kinds that are skipped.
fn read_file(old: &File, parsed: &Parsed) -> (File, Vec<(String, Origin)>) {
    let mut file = File::default();
    let mut kinds = Vec::new();
    let mut bad = Vec::new();
    for document in &parsed.decoded {
        let origin = origin(&parsed.path, document.line);
        match &document.content {
            Content::Object(object, unknown) => file.add(object, unknown, origin, old),
            Content::Skipped(kind) => {
                kinds.push((kind.clone(), origin.clone()));
                file.skipped.push(Skipped {
                    origin,
                    kind: kind.clone(),
                });
            }
            Content::Bad(what) => bad.push((what, origin)),
        }
    }
    let mut unknown_object = false;
    for (what, origin) in bad {
        unknown_object |= what.key.is_none();
        file.add_bad(what, origin, old);
    }
    if unknown_object {
        for (key, held) in &old.objects {
            file.objects
                .entry(key.clone())
                .or_insert_with(|| held.clone());
        }
    }
    (file, kinds)
}

impl File {
    fn add(&mut self, object: &Object, unknown: &[String], origin: Origin, old: &File) {
        let key = object.key();
        for field in unknown {
            self.problems.insert(Problem {
                origin: origin.clone(),
                object: Some(key.clone()),
                field: field.clone(),
                message: "unknown field: correct its name or delete it".to_owned(),
                effect: "it has no effect".to_owned(),
            });
        }
        if let Some(first) = self.objects.get(&key) {
            self.problems.insert(Problem {
                message: format!("defined in line {} too: delete one of the two", first.line),
                effect: "the first one is in force".to_owned(),
                origin,
                object: Some(key),
                field: String::new(),
            });
            return;
        }
        let object = match old.objects.get(&key) {
            Some(held) if *held.object == *object => Arc::clone(&held.object),
            _ => Arc::new(object.clone()),
        };
        let line = origin.line;
        let closed = false;
        self.objects.insert(
            key,
            Held {
                object,
                line,
                closed,
            },
        );
    }

    fn add_bad(&mut self, bad: &Bad, origin: Origin, old: &File) {
        let line = origin.line;
        let effect = match &bad.key {
            None if old.objects.is_empty() => "the document has no effect",
            None => "objects this file held before stay in force",
            Some(key) if self.objects.contains_key(key) => {
                "the other version in this file is in force"
            }
            Some(key) => match (&bad.closed, old.objects.get(key)) {
                (Some(policy), _) => {
                    let held = Held {
                        object: Arc::new(policy.clone()),
                        line,
                        closed: true,
                    };
                    self.objects.insert(key.clone(), held);
                    closed::effect(policy)
                }
                (None, Some(held)) => {
                    self.objects.insert(key.clone(), held.clone());
                    "the version read before stays in force"
                }
                (None, None) => "the document has no effect",
            },
        };
        self.problems.insert(Problem {
            origin,
            object: bad.key.clone(),
            field: bad.field.clone(),
            message: bad.message.clone(),
            effect: effect.to_owned(),
        });
    }
}

fn origin(path: &Path, line: u32) -> Origin {
    Origin {
        file: path.display().to_string().into(),
        line,
    }
}

#[cfg(test)]
mod tests;
