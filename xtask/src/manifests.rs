//! `deploy/manifests`: what the Helm chart renders with its defaults.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

const HELM: &str = "3.19.0";
/// The chart asks for a version of Kubernetes; a cluster's is not asked here.
const KUBERNETES: &str = "1.36.0";

/// `cargo xtask manifests`: renders the chart into `deploy/manifests`.
pub fn write() -> Result<()> {
    for (name, text) in render()? {
        fs::write(folder().join(&name), text).with_context(|| format!("writing {name}"))?;
        eprintln!("wrote deploy/manifests/{name}");
    }
    Ok(())
}

/// Fails where `deploy/manifests` is not what the chart renders.
pub fn check() -> Result<()> {
    let rendered = render()?;
    let stale: Vec<&str> = rendered
        .iter()
        .filter(|(name, text)| fs::read_to_string(folder().join(name)).ok().as_ref() != Some(text))
        .map(|(name, _)| name.as_str())
        .collect();
    if !stale.is_empty() {
        bail!(
            "deploy/manifests/{{{}}} is not what the chart renders: run `cargo xtask manifests`",
            stale.join(",")
        );
    }
    let kustomization = fs::read_to_string(folder().join("kustomization.yaml"))?;
    for (name, _) in &rendered {
        if !kustomization.contains(name.as_str()) {
            bail!("deploy/manifests/kustomization.yaml does not name {name}: add it");
        }
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace::root().join("deploy/manifests")
}

/// File names and texts.
fn render() -> Result<Vec<(String, String)>> {
    let helm = helm()?;
    let chart = workspace::root().join("deploy/helm/sluice");
    let mut command = Command::new(&helm);
    command.arg("lint").arg("--strict").arg(&chart);
    command.args(["--kube-version", KUBERNETES]);
    process::output(&mut command)?;
    let out = workspace::target_dir()?.join("manifests");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    let mut command = Command::new(&helm);
    command.args(["template", "sluice"]).arg(&chart).args([
        "--namespace",
        "kube-system",
        "--kube-version",
        KUBERNETES,
    ]);
    command.arg("--output-dir").arg(&out);
    process::output(&mut command)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(out.join("sluice/templates"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push((name.into_owned(), fs::read_to_string(&path)?));
    }
    files.sort();
    Ok(files)
}

/// Helm: built once from its Go module.
fn helm() -> Result<PathBuf> {
    let cache = match (env::var_os("SLUICE_CACHE"), env::var_os("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache/sluice"),
        (None, None) => bail!("neither SLUICE_CACHE nor HOME says where programs are kept"),
    };
    let dir = cache.join(format!("helm-{HELM}"));
    let program = dir.join("helm");
    if program.is_file() {
        return Ok(program);
    }
    let go = process::find("go").or_else(|| {
        let path = PathBuf::from("/usr/local/go/bin/go");
        path.is_file().then_some(path)
    });
    let go = go.context("helm is built with Go, and there is no `go`: install Go 1.24 or later")?;
    eprintln!("building helm {HELM} from its Go module, once: some minutes");
    let part = cache.join(format!("helm-{HELM}.{}", std::process::id()));
    fs::create_dir_all(&part)?;
    let mut command = Command::new(go);
    command
        .arg("install")
        .arg(format!("helm.sh/helm/v3/cmd/helm@v{HELM}"))
        .env("GOBIN", &part)
        .env("CGO_ENABLED", "0");
    process::run(&mut command)?;
    if fs::rename(&part, &dir).is_err() && !program.is_file() {
        bail!("cannot put helm into {}", dir.display());
    }
    Ok(program)
}
