//! The watched folder: objects in, one file each or several together.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::Run;

/// A folder of manifests that agents watch.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// The files appear in it complete, by a rename.
    dir: PathBuf,
    /// Where files are written first, on the same file system.
    draft: PathBuf,
    _run: Arc<Run>,
}

impl Manifests {
    /// Makes the run's folder of that name.
    ///
    /// # Errors
    /// It exists, or cannot be made.
    pub fn create(run: &Arc<Run>, name: &str) -> Result<Manifests> {
        let (dir, draft) = (
            run.dir().join(name),
            run.dir().join(format!("{name}.draft")),
        );
        for path in [&dir, &draft] {
            fs::create_dir(path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(Manifests {
            dir,
            draft,
            _run: run.clone(),
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes objects as the documents of one file (`<name>.yaml`), in the place of what it had.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, objects: &[Value]) -> Result<()> {
        self.write_text(name, &to_yaml(objects)?)
    }

    /// [`Manifests::write`] of text as it is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_text(&self, name: &str, text: &str) -> Result<()> {
        let (draft, file) = (self.draft.join(name), self.dir.join(format!("{name}.yaml")));
        fs::write(&draft, text).with_context(|| format!("cannot write {}", draft.display()))?;
        fs::rename(&draft, &file).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// There is none.
    pub fn remove(&self, name: &str) -> Result<()> {
        let file = self.dir.join(format!("{name}.yaml"));
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }
}

/// Reads the documents of a YAML text.
///
/// # Errors
/// It is not YAML.
pub fn from_yaml(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// Writes objects as YAML documents.
///
/// # Errors
/// The values cannot be written as YAML.
pub fn to_yaml(objects: &[Value]) -> Result<String> {
    Ok(serde_saphyr::to_string_multiple(objects)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::Deployment;
    use crate::kube::objects::{PodManifest, ServiceManifest};

    #[test]
    fn what_is_written_reads_the_same() {
        let pod = PodManifest::new("a", "node-1")
            .label("version", "1.0")
            .label("on", "yes")
            .object();
        let service = ServiceManifest::new("s").port("http", 80, 8080).object();
        let objects = vec![pod, service];
        let text = to_yaml(&objects).unwrap();
        assert_eq!(from_yaml(&text).unwrap(), objects, "{text}");
        assert!(
            text.contains("\nmetadata:\n"),
            "block style, to be read: {text}"
        );
    }

    #[test]
    fn every_example_is_complete() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let index = fs::read_to_string(dir.join("README.md")).unwrap();
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            if !name.ends_with(".yaml") {
                continue;
            }
            assert!(
                index.contains(&format!("({name})")),
                "README.md does not name {name}"
            );
            let objects = from_yaml(&fs::read_to_string(entry.path()).unwrap()).unwrap();
            assert!(!objects.is_empty(), "{name} is empty");
            for object in &objects {
                if object["kind"] == "Deployment" {
                    let deployment = Deployment::parse(object).unwrap();
                    let selector = &object["spec"]["selector"]["matchLabels"];
                    assert_eq!(*selector, serde_json::json!(deployment.labels), "{name}");
                } else if object["kind"] == "Service" {
                    let spec = &object["spec"];
                    assert_eq!(spec["clusterIP"], spec["clusterIPs"][0], "{name}");
                }
            }
            names.push(name);
        }
        assert!(names.len() >= 10, "{names:?}");
    }
}
