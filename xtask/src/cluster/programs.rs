//! Kubernetes' programs: built from their Go modules, once, and cached outside the checkout.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::step;
use crate::{process, toolchain};

const KUBERNETES: &str = "1.36.3";
const ETCD: &str = "3.6.12";
const CONTAINERD: &str = "2.2.9";
const COREDNS: &str = "1.12.4";

/// Where Debian puts network plugins.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";
/// Where plugins are that only one node has.
pub const NODE_PLUGINS: &str = "/var/lib/cni/bin";

/// Packages of Kubernetes with what its programs say of their version.
const VERSIONED: [&str; 2] = [
    "k8s.io/component-base/version",
    "k8s.io/client-go/pkg/version",
];

/// A module with a `main` package of its own.
struct Module {
    name: &'static str,
    version: &'static str,
    /// Packages below the module, with the program's name.
    packages: &'static [(&'static str, &'static str)],
}

const MODULES: [Module; 3] = [
    Module {
        name: "go.etcd.io/etcd/server/v3",
        version: ETCD,
        packages: &[("", "etcd")],
    },
    Module {
        name: "github.com/containerd/containerd/v2",
        version: CONTAINERD,
        packages: &[
            ("/cmd/containerd", "containerd"),
            ("/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("/cmd/ctr", "ctr"),
        ],
    },
    Module {
        name: "github.com/coredns/coredns",
        version: COREDNS,
        packages: &[("", "coredns")],
    },
];

/// Packages of Kubernetes' own module.
const KUBERNETES_PACKAGES: [&str; 5] = [
    "cmd/kube-apiserver",
    "cmd/kubelet",
    "cmd/kube-controller-manager",
    "cmd/kube-scheduler",
    "cmd/kubectl",
];

const AGNHOST: &str = "test/images/agnhost";

/// The module by which agnhost uses the kernel's SCTP sockets, and what takes its place where there are none.
const SCTP: &str = "github.com/ishidawataru/sctp";
const RAW_SCTP: &str = include_str!("sctp.go");
const AGNHOST_RAW_SCTP: &str = "agnhost-raw-sctp";

/// Files beside agnhost in its image: it serves TLS with them.
pub const AGNHOST_FILES: [&str; 2] = ["localhost.crt", "localhost.key"];

const REGRESSION: &str = "test/images/regression-issue-74839";

/// The programs.
#[derive(Debug)]
pub struct Programs {
    cache: PathBuf,
}

impl Programs {
    /// Where they are or will be: below `SLUICE_CACHE`, else below the user's cache folder.
    pub fn find() -> Result<Self> {
        let cache = match env::var_os("SLUICE_CACHE") {
            Some(dir) => PathBuf::from(dir),
            None => env::var_os("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .or_else(|| env::home_dir().map(|home| home.join(".cache")))
                .context("there is no home folder for a cache: set SLUICE_CACHE to a folder")?
                .join("sluice"),
        };
        Ok(Self { cache })
    }

    /// The folder of all that is cached.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Builds what is not there yet.
    pub fn build(&self) -> Result<()> {
        for module in &MODULES {
            for (package, program) in module.packages {
                let package = format!("{}{package}", module.name);
                self.one(&self.module_dir(module), program, |out| {
                    let work = self.work_dir(module.name)?;
                    let text = format!(
                        "module build\ngo 1.26\nrequire {} v{}\n",
                        module.name, module.version
                    );
                    fs::write(work.join("go.mod"), text)?;
                    go(&work, &["build"], out, &package)
                })?;
            }
        }
        for package in KUBERNETES_PACKAGES {
            self.kubernetes_package(package)?;
        }
        self.build_agnhost()?;
        for name in AGNHOST_FILES {
            self.one(&self.kubernetes_dir(), name, |out| {
                let file = kubernetes_source()?
                    .join("test/images/agnhost/porter")
                    .join(name);
                // Not a copy of permissions: files of modules cannot be written.
                fs::write(out, fs::read(&file)?)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    fn build_agnhost(&self) -> Result<()> {
        if kernel_has_sctp() {
            return self.kubernetes_package(AGNHOST);
        }
        self.one(&self.kubernetes_dir(), AGNHOST_RAW_SCTP, |out| {
            let kubernetes = self.kubernetes_work()?;
            let work = self.work_dir(AGNHOST_RAW_SCTP)?;
            let sctp = work.join("sctp");
            fs::create_dir_all(&sctp)?;
            fs::write(sctp.join("go.mod"), format!("module {SCTP}\ngo 1.26\n"))?;
            fs::write(sctp.join("sctp.go"), RAW_SCTP)?;
            let requirements = fs::read_to_string(kubernetes.join("go.mod"))?;
            let text = format!("{requirements}\nreplace {SCTP} => ./sctp\n");
            fs::write(work.join("go.mod"), text)?;
            fs::write(work.join("go.sum"), fs::read(kubernetes.join("go.sum"))?)?;
            go(
                &work,
                &["build"],
                out,
                &format!("k8s.io/kubernetes/{AGNHOST}"),
            )
        })
    }

    /// Builds kube-proxy.
    pub fn build_kube_proxy(&self) -> Result<()> {
        self.kubernetes_package("cmd/kube-proxy")
    }

    /// Builds Kubernetes' own tests and what runs them.
    pub fn build_e2e(&self) -> Result<()> {
        let dir = self.kubernetes_dir();
        self.kubernetes_package(REGRESSION)?;
        self.one(&dir, "ginkgo", |out| {
            go(
                &self.kubernetes_work()?,
                &["build"],
                out,
                "github.com/onsi/ginkgo/v2/ginkgo",
            )
        })?;
        self.one(&dir, "e2e.test", |out| {
            go(
                &self.kubernetes_work()?,
                &["test", "-c"],
                out,
                "k8s.io/kubernetes/test/e2e",
            )
        })
    }

    /// The servers and clients of upstream tests: with SCTP by raw sockets, if this kernel has none of its own.
    pub fn agnhost(&self) -> PathBuf {
        let kernel = kernel_has_sctp();
        self.kubernetes(if kernel { "agnhost" } else { AGNHOST_RAW_SCTP })
    }

    /// A program of Kubernetes.
    pub fn kubernetes(&self, name: &str) -> PathBuf {
        self.kubernetes_dir().join(name)
    }

    /// Kubernetes' programs.
    pub fn kubernetes_dir(&self) -> PathBuf {
        self.cluster_dir().join(format!("kubernetes-v{KUBERNETES}"))
    }

    /// A program of containerd.
    pub fn containerd(&self, name: &str) -> PathBuf {
        self.containerd_dir().join(name)
    }

    /// containerd's programs.
    pub fn containerd_dir(&self) -> PathBuf {
        self.module_dir(&MODULES[1])
    }

    /// etcd.
    pub fn etcd(&self) -> PathBuf {
        self.module_dir(&MODULES[0]).join("etcd")
    }

    /// CoreDNS.
    pub fn coredns(&self) -> PathBuf {
        self.module_dir(&MODULES[2]).join("coredns")
    }

    /// A program that one of Kubernetes' tests runs in a pod.
    pub fn regression(&self) -> PathBuf {
        self.kubernetes("regression-issue-74839")
    }

    fn kubernetes_package(&self, package: &str) -> Result<()> {
        let program = package.rsplit('/').next().unwrap_or(package);
        self.one(&self.kubernetes_dir(), program, |out| {
            let package = format!("k8s.io/kubernetes/{package}");
            go(&self.kubernetes_work()?, &["build"], out, &package)
        })
    }

    /// Builds one program beside its place, so that what is there is whole.
    pub fn one(
        &self,
        dir: &Path,
        program: &str,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let place = dir.join(program);
        if place.is_file() {
            return Ok(());
        }
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let new = dir.join(format!(".{program}.{}", std::process::id()));
        step::timed(&format!("building {program}"), || build(&new))?;
        fs::rename(&new, &place).with_context(|| format!("cannot write {}", place.display()))
    }

    /// The folder of what clusters consist of.
    pub fn cluster_dir(&self) -> PathBuf {
        self.cache.join("cluster")
    }

    fn module_dir(&self, module: &Module) -> PathBuf {
        let folder = module.packages[0].1;
        self.cluster_dir()
            .join(format!("{folder}-{}", module.version))
    }

    /// A folder for the `go.mod` with which a module is built.
    pub fn work_dir(&self, module: &str) -> Result<PathBuf> {
        let dir = self
            .cluster_dir()
            .join("work")
            .join(module.replace('/', "-"));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(dir)
    }

    /// The same for Kubernetes: its own requirements, and its staging folders as the modules they are published as.
    fn kubernetes_work(&self) -> Result<PathBuf> {
        let dir = self.work_dir("k8s.io-kubernetes")?;
        if dir.join("go.mod").is_file() {
            return Ok(dir);
        }
        let source = kubernetes_source()?;
        let requirements = fs::read_to_string(source.join("go.mod"))?;
        fs::write(dir.join("go.sum"), fs::read(source.join("go.sum"))?)?;
        fs::write(dir.join("go.mod"), published(&requirements, KUBERNETES))?;
        Ok(dir)
    }
}

fn kubernetes_source() -> Result<PathBuf> {
    source("k8s.io/kubernetes", KUBERNETES)
}

/// Where the Go client keeps a module's sources.
pub fn source(module: &str, version: &str) -> Result<PathBuf> {
    let mut download = toolchain::go()?;
    download.args(["mod", "download", "-json"]);
    download.arg(format!("{module}@v{version}"));
    let said: Value = serde_json::from_str(&process::output(&mut download)?)
        .context("go mod download wrote something that is not JSON")?;
    let dir = said["Dir"].as_str();
    dir.map(PathBuf::from)
        .context("go mod download names no folder")
}

/// Whether there are SCTP sockets. Beside them, SCTP by raw sockets would not work: the kernel answers what it has no socket for.
fn kernel_has_sctp() -> bool {
    let protocols = fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    protocols.lines().any(|line| line.starts_with("SCTP"))
}

/// Kubernetes' `go.mod` as that of a module that requires it.
fn published(requirements: &str, version: &str) -> String {
    let staging = version.strip_prefix("1.").unwrap_or(version);
    let mut lines: Vec<String> = Vec::new();
    for line in requirements.lines() {
        if line.starts_with("module ") {
            lines.push("module build".into());
            lines.push(format!("\nrequire k8s.io/kubernetes v{version}"));
        } else if let Some((before, name)) = line.split_once("=> ./staging/src/k8s.io/") {
            lines.push(format!("{before}=> k8s.io/{name} v0.{staging}"));
        } else {
            lines.push(line.into());
        }
    }
    lines.join("\n") + "\n"
}

/// Builds a package without libraries of the machine.
pub fn go(work: &Path, verb: &[&str], out: &Path, package: &str) -> Result<()> {
    let mut command = toolchain::go()?;
    command
        .current_dir(work)
        .args(verb)
        .arg("-trimpath")
        .arg(linking())
        .arg("-o")
        .arg(out)
        .arg(package)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod");
    process::output(&mut command).map(|_| ())
}

/// Smaller programs that know their version: Kubernetes' own releases get it the same way.
fn linking() -> String {
    let mut words = "-ldflags=-s -w".to_owned();
    let mut parts = KUBERNETES.split('.');
    let values = [
        ("gitVersion", format!("v{KUBERNETES}")),
        ("gitMajor", parts.next().unwrap_or_default().into()),
        ("gitMinor", parts.next().unwrap_or_default().into()),
        ("gitTreeState", "clean".into()),
    ];
    for package in VERSIONED {
        for (name, value) in &values {
            words.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_their_version() {
        let words = linking();
        let of_clients = "-X k8s.io/client-go/pkg/version.gitMinor=36 ";
        assert!(words.starts_with("-ldflags=-s -w -X "), "{words}");
        assert!(words.contains(of_clients), "{words}");
    }

    #[test]
    fn staging_folders_become_published_modules() {
        let text = "module k8s.io/kubernetes\n\ngo 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n)\n";
        let made = published(text, "1.36.3");
        assert!(
            made.starts_with("module build\n\nrequire k8s.io/kubernetes v1.36.3\n"),
            "{made}"
        );
        assert!(
            made.contains("\tk8s.io/api => k8s.io/api v0.36.3\n"),
            "{made}"
        );
    }
}
