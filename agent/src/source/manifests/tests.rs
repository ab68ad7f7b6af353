use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tokio::time::timeout;

use super::*;

/// A folder of its own for each test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("sluice-manifests-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a scratch folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("written");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n")
}

/// Waits until changes come.
async fn changes(source: &mut Manifests) -> Vec<String> {
    let wait = async {
        loop {
            let changes = source.next().await;
            if !changes.is_empty() {
                return changes;
            }
        }
    };
    let changes = timeout(Duration::from_secs(10), wait)
        .await
        .expect("a change in time");
    let name = |change: Change| match change {
        Change::Apply { object, .. } => format!("+{}", object.key().name),
        Change::Delete(key) => format!("-{}", key.name),
    };
    changes.into_iter().map(name).collect()
}

/// True if nothing changes while the folder is looked at twice.
async fn is_quiet(source: &mut Manifests) -> bool {
    let wait = async { while source.next().await.is_empty() {} };
    timeout(Duration::from_millis(100), wait).await.is_err()
}

#[tokio::test]
async fn files_come_change_and_go() {
    let scratch = Scratch::new("come-and-go");
    scratch.write("a.yaml", &service("a"));
    scratch.write("ignored.txt", &service("x"));
    scratch.write(".hidden.yaml", &service("x"));
    let mut source = Manifests::open(&scratch.0).expect("open");
    assert_eq!(changes(&mut source).await, ["+a"]);

    let before = std::time::Instant::now();
    scratch.write("b.yml", &service("b"));
    assert_eq!(changes(&mut source).await, ["+b"]);
    assert!(
        before.elapsed() < Duration::from_millis(500),
        "{:?}",
        before.elapsed()
    );

    fs::remove_file(scratch.0.join("a.yaml")).expect("removed");
    assert_eq!(changes(&mut source).await, ["-a"]);
}

#[tokio::test]
async fn a_file_that_is_moved_into_place_is_read() {
    let scratch = Scratch::new("move");
    let mut source = Manifests::open(&scratch.0).expect("open");
    scratch.write("a.yaml.tmp", &service("a"));
    fs::rename(scratch.0.join("a.yaml.tmp"), scratch.0.join("a.yaml")).expect("renamed");
    assert_eq!(changes(&mut source).await, ["+a"]);
    fs::rename(scratch.0.join("a.yaml"), scratch.0.join("b.yaml")).expect("renamed");
    assert!(
        is_quiet(&mut source).await,
        "the same object from another file"
    );
}

#[tokio::test]
async fn a_file_is_not_read_while_it_is_written() {
    let scratch = Scratch::new("half");
    scratch.write("a.yaml", &format!("{}---\n{}", service("a"), service("b")));
    let mut source = Manifests::open(&scratch.0).expect("open");
    assert_eq!(changes(&mut source).await, ["+a", "+b"]);

    let mut file = fs::File::create(scratch.0.join("a.yaml")).expect("truncated");
    file.write_all(service("a").as_bytes()).expect("written");
    file.flush().expect("flushed");
    assert!(is_quiet(&mut source).await, "half a file");
    file.write_all(format!("---\n{}---\n{}", service("b"), service("c")).as_bytes())
        .expect("written");
    drop(file);
    assert_eq!(changes(&mut source).await, ["+c"]);
}

#[tokio::test]
async fn the_first_answer_waits_for_files_that_are_being_written() {
    let scratch = Scratch::new("first");
    scratch.write("a.yaml", &service("a"));
    scratch.write("b.yaml", &service("b"));
    let mut source = Manifests::open(&scratch.0).expect("open");
    source.note(Signal::Writing(scratch.0.join("b.yaml")));
    assert!(is_quiet(&mut source).await, "b.yaml is not read yet");
    source.note(Signal::Written(scratch.0.join("b.yaml")));
    source.due = Some(Instant::now());
    assert_eq!(changes(&mut source).await, ["+a", "+b"]);
}

#[tokio::test]
async fn new_folders_are_watched() {
    let scratch = Scratch::new("folders");
    let mut source = Manifests::open(&scratch.0).expect("open");
    fs::create_dir(scratch.0.join("sub")).expect("created");
    scratch.write("sub/a.yaml", &service("a"));
    assert_eq!(changes(&mut source).await, ["+a"]);
    scratch.write("sub/b.yaml", &service("b"));
    assert_eq!(changes(&mut source).await, ["+b"]);
    fs::rename(
        scratch.0.join("sub"),
        std::env::temp_dir().join(format!("{}-away", scratch.0.display())),
    )
    .expect("moved away");
    assert_eq!(changes(&mut source).await, ["-a", "-b"]);
    let _ = fs::remove_dir_all(format!("{}-away", scratch.0.display()));
}

#[tokio::test]
async fn config_map_volumes_are_followed() {
    let scratch = Scratch::new("configmap");
    fs::create_dir(scratch.0.join("..1")).expect("created");
    scratch.write("..1/a.yaml", &service("a"));
    symlink("..1", scratch.0.join("..data")).expect("linked");
    symlink("..data/a.yaml", scratch.0.join("a.yaml")).expect("linked");
    let mut source = Manifests::open(&scratch.0).expect("open");
    assert_eq!(changes(&mut source).await, ["+a"]);

    fs::create_dir(scratch.0.join("..2")).expect("created");
    scratch.write("..2/a.yaml", &service("b"));
    symlink("..2", scratch.0.join("..data_tmp")).expect("linked");
    fs::rename(scratch.0.join("..data_tmp"), scratch.0.join("..data")).expect("renamed");
    assert_eq!(changes(&mut source).await, ["-a", "+b"]);
}

#[tokio::test]
async fn a_folder_that_vanishes_loses_nothing_by_itself() {
    let scratch = Scratch::new("vanish");
    scratch.write("a.yaml", &service("a"));
    let mut source = Manifests::open(&scratch.0).expect("open");
    assert_eq!(changes(&mut source).await, ["+a"]);
    source.root = scratch.0.join("not-there");
    source.look();
    source.read_dirty();
    assert!(source.folder.drain().is_empty());
    assert_eq!(source.problems().len(), 1);
}

#[test]
fn a_folder_that_does_not_exist_is_an_error_with_its_remedy() {
    let error = read_once(Path::new("/nonexistent/manifests")).expect_err("an error");
    assert!(
        error
            .to_string()
            .contains("give one that exists with --manifests"),
        "{error}"
    );
}
