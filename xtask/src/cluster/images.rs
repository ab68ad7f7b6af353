//! Container images, made of programs of this machine: no registry is asked.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    programs::{AGNHOST_FILES, Programs},
    step,
};
use crate::{build::Built, process};

/// The image of a pod's sandbox.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// The image of the agent that was built here.
pub const AGENT: &str = "sluice.dev/sluice:dev";
/// The image of the lab's servers.
pub const LAB: &str = "sluice.dev/lab:dev";

/// Changes with what the images consist of.
const VERSION: &str = "images-4";

/// Programs that upstream tests call in pods, beside agnhost.
const TOOLS: [&str; 12] = [
    "bash", "curl", "dash", "dig", "getent", "ip", "iperf3", "nc", "ss", "tcpdump", "timeout",
    "wget",
];

/// Libraries that programs load by name when they run.
const RESOLVERS: [&str; 3] = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];

/// Under which names tests ask for agnhost; the first is that of Kubernetes' own tests of this version.
const AGNHOST: [&str; 9] = [
    "agnhost:2.63.0",
    "agnhost:2.55",
    "agnhost:2.53",
    "agnhost:2.52",
    "agnhost:2.45",
    "agnhost:2.43",
    "agnhost:2.21",
    "glibc-dns-testing:2.0.0",
    "nginx:1.27-0",
];

/// An image.
struct Image<'a> {
    name: String,
    tags: Vec<String>,
    entry: &'a [&'a str],
    arguments: &'a [&'a str],
    /// Whether it has the tools, and a shell that calls those rather than its own.
    tools: bool,
    /// Whether it has a shell and other small programs.
    shell: bool,
    /// Programs and other files, with their place in the image.
    programs: Vec<(PathBuf, &'a str)>,
}

/// Makes the images that every node gets, if the cache lacks them.
pub fn ensure(programs: &Programs) -> Result<Vec<PathBuf>> {
    let images = [
        agnhost(programs, "", AGNHOST.map(test_image).to_vec()),
        Image {
            name: "busybox".into(),
            tags: ["busybox:1.36.1-1", "busybox:1.37.0-1"]
                .map(test_image)
                .to_vec(),
            entry: &[],
            arguments: &["sh"],
            tools: false,
            shell: true,
            programs: vec![],
        },
        Image {
            name: "pause".into(),
            tags: vec![
                PAUSE.into(),
                "registry.k8s.io/pause:3.10.1".into(),
                "registry.k8s.io/pause:3.10".into(),
            ],
            entry: &["/agnhost", "pause"],
            arguments: &[],
            tools: false,
            shell: true,
            programs: vec![(programs.agnhost(), "/agnhost")],
        },
    ];
    cached(programs, &images)
}

/// Makes what Kubernetes' own tests need beside those: much larger.
pub fn of_e2e(programs: &Programs) -> Result<Vec<PathBuf>> {
    let mut servers = agnhost(programs, "-coredns", vec![test_image(AGNHOST[0])]);
    servers.programs.push((programs.coredns(), "/coredns"));
    let regression = Image {
        name: "regression".into(),
        tags: vec![test_image("regression-issue-74839:1.4")],
        entry: &["/regression-issue-74839"],
        arguments: &[],
        tools: false,
        shell: true,
        programs: vec![(programs.regression(), "/regression-issue-74839")],
    };
    cached(programs, &[servers, regression])
}

fn agnhost(programs: &Programs, suffix: &str, tags: Vec<String>) -> Image<'static> {
    let program = programs.agnhost();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    Image {
        name: format!("{name}{suffix}"),
        tags,
        entry: &["/agnhost"],
        arguments: &["pause"],
        tools: true,
        shell: true,
        programs: vec![
            (programs.kubernetes(AGNHOST_FILES[0]), "/localhost.crt"),
            (programs.kubernetes(AGNHOST_FILES[1]), "/localhost.key"),
            (program, "/agnhost"),
        ],
    }
}

fn cached(programs: &Programs, images: &[Image]) -> Result<Vec<PathBuf>> {
    let dir = programs.kubernetes_dir().join(VERSION);
    let mut archives = Vec::new();
    for image in images {
        let archive = dir.join(format!("{}.tar", image.name));
        if !archive.is_file() {
            step::timed(&format!("image {}", image.name), || image.write(&archive))?;
        }
        archives.push(archive);
    }
    Ok(archives)
}

/// Makes images of what was built here, in a folder of the cluster.
pub fn of_build(built: &Built, dir: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let image = |name: &str, tag: &str, entry, program: &Path, place| Image {
        name: name.into(),
        tags: vec![tag.into()],
        entry,
        arguments: &[],
        tools: false,
        shell: false,
        programs: vec![(program.into(), place)],
    };
    let images = [
        image(
            "sluice",
            AGENT,
            &["/usr/bin/sluice"],
            &built.sluice,
            "/usr/bin/sluice",
        ),
        image("lab", LAB, &["/sluice-lab"], &built.lab, "/sluice-lab"),
    ];
    images
        .iter()
        .map(|image| {
            let archive = dir.join(format!("{}.tar", image.name));
            image.write(&archive)?;
            Ok(archive)
        })
        .collect()
}

fn test_image(name: &str) -> String {
    format!("registry.k8s.io/e2e-test-images/{name}")
}

impl Image<'_> {
    /// Writes a docker-archive: a layer, settings and a manifest, all in one tar.
    fn write(&self, archive: &Path) -> Result<()> {
        let work = archive.with_extension(format!("work-{}", std::process::id()));
        let root = work.join("root");
        let made = self.fill(&root).and_then(|()| self.pack(&work, &root));
        let moved = made.and_then(|packed| {
            fs::rename(&packed, archive)
                .with_context(|| format!("cannot write {}", archive.display()))
        });
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
        moved
    }

    fn fill(&self, root: &Path) -> Result<()> {
        for dir in [
            "bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin",
            "usr/sbin", "var",
        ] {
            fs::create_dir_all(root.join(dir))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        self.programs
            .iter()
            .try_for_each(|(program, place)| put(root, program, place))?;
        if self.shell {
            self.fill_shell(root)?;
        }
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
        fs::write(root.join("etc/passwd"), users)?;
        fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
        Ok(())
    }

    fn fill_shell(&self, root: &Path) -> Result<()> {
        let busybox = program("busybox")?;
        put(root, &busybox, "/bin/busybox")?;
        let mut taken: BTreeSet<&str> = BTreeSet::from(["busybox"]);
        if self.tools {
            taken.extend(TOOLS);
            // Busybox's shell would run its own applets rather than the programs on PATH.
            taken.insert("sh");
            symlink("/usr/bin/dash", root.join("bin/sh"))?;
            symlink("/usr/bin/bash", root.join("bin/bash"))?;
            for tool in TOOLS {
                put(root, &program(tool)?, &format!("/usr/bin/{tool}"))?;
            }
            for library in RESOLVERS {
                let path = Path::new("/lib")
                    .join(format!("{}-linux-gnu", std::env::consts::ARCH))
                    .join(library);
                if path.exists() {
                    put(root, &path, &path.to_string_lossy())?;
                }
            }
        }
        for applet in process::output(Command::new(&busybox).arg("--list"))?.lines() {
            if !taken.contains(applet) {
                symlink("busybox", root.join("bin").join(applet))?;
            }
        }
        Ok(())
    }

    fn pack(&self, work: &Path, root: &Path) -> Result<PathBuf> {
        let layer = work.join("layer.tar");
        tar(&layer, root, &["."])?;
        let digest = digest(&layer)?;
        let settings = self.settings(&digest).to_string();
        fs::write(work.join("config.json"), settings)?;
        let manifest =
            json!([{"Config": "config.json", "RepoTags": self.tags, "Layers": ["layer.tar"]}]);
        fs::write(work.join("manifest.json"), manifest.to_string())?;
        let packed = work.join("image.tar");
        tar(
            &packed,
            work,
            &["config.json", "layer.tar", "manifest.json"],
        )?;
        Ok(packed)
    }

    fn settings(&self, digest: &str) -> Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entry,
                "Cmd": self.arguments,
                "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
            "history": [{"created_by": "cargo xtask cluster"}],
        })
    }
}

fn program(name: &str) -> Result<PathBuf> {
    process::find(name).with_context(|| format!("{name} is not installed"))
}

/// Copies a program and the libraries it is linked with.
fn put(root: &Path, from: &Path, place: &str) -> Result<()> {
    copy(root, from, place)?;
    // Programs without libraries make ldd fail.
    let libraries = process::output(Command::new("ldd").arg(from)).unwrap_or_default();
    for library in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        copy(root, Path::new(library), library)?;
    }
    Ok(())
}

fn copy(root: &Path, from: &Path, place: &str) -> Result<()> {
    let to = root.join(place.trim_start_matches('/'));
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, &to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn tar(archive: &Path, dir: &Path, members: &[&str]) -> Result<()> {
    let mut command = Command::new("tar");
    command
        .args([
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ])
        .args(["--create", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(dir)
        .args(members);
    process::output(&mut command).map(|_| ())
}

fn digest(file: &Path) -> Result<String> {
    let said = process::output(Command::new("sha256sum").arg(file))?;
    let word = said.split_whitespace().next();
    word.map(str::to_owned).context("sha256sum said nothing")
}
