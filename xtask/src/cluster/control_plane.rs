//! etcd, the API server, the controllers and the scheduler.

use std::{process::Command, time::Duration};

use anyhow::Result;

use super::{
    network::{API, CONTROL_PLANE, SERVICES},
    programs::Programs,
    state::State,
    step,
};
use crate::process;

/// Starts etcd and the API server.
pub fn start_storage(state: &State, programs: &Programs) -> Result<()> {
    let mut etcd = Command::new(programs.etcd());
    // Nothing here outlives the machine, so nothing is forced to disk.
    etcd.args([
        "--data-dir=/var/lib/etcd",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ])
    .arg("--listen-client-urls=http://127.0.0.1:2379")
    .arg("--advertise-client-urls=http://127.0.0.1:2379")
    .arg("--listen-peer-urls=http://127.0.0.1:2380");
    spawn(state, "etcd", &etcd)?;
    let pki = |name: &str| state.dir("pki").join(name).display().to_string();
    let mut server = Command::new(programs.kubernetes("kube-apiserver"));
    server
        .args(["--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443"])
        .args([
            "--bind-address=::",
            "--allow-privileged=true",
            "--authorization-mode=RBAC",
        ])
        .arg(format!("--advertise-address={}", API[0]))
        .arg(format!("--tls-cert-file={}", pki("api.crt")))
        .arg(format!("--tls-private-key-file={}", pki("api.key")))
        .arg(format!("--client-ca-file={}", pki("ca.crt")))
        .arg(format!("--token-auth-file={}", pki("tokens.csv")))
        .arg(format!("--service-account-key-file={}", pki("sa.pub")))
        .arg(format!(
            "--service-account-signing-key-file={}",
            pki("sa.key")
        ))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg(format!("--service-cluster-ip-range={}", SERVICES.join(",")))
        .arg("--disable-admission-plugins=StorageObjectInUseProtection")
        .arg("--kubelet-preferred-address-types=InternalIP");
    spawn(state, "kube-apiserver", &server)
}

/// Waits for the API server, then starts the controllers and the scheduler.
pub fn start(state: &State, programs: &Programs) -> Result<()> {
    step::until(
        "the API server is not ready",
        Duration::from_secs(120),
        || {
            state
                .kubectl()
                .and_then(|mut kubectl| process::output(kubectl.args(["get", "--raw", "/readyz"])))
                .map(|_| ())
                .map_err(|error| format!("{error:#}"))
        },
    )?;
    let settings = format!("--kubeconfig={}", state.kubeconfig.display());
    let mut controllers = Command::new(programs.kubernetes("kube-controller-manager"));
    controllers
        .args([
            &settings,
            "--leader-elect=false",
            "--allocate-node-cidrs=false",
        ])
        .args([
            "--use-service-account-credentials=true",
            "--node-monitor-grace-period=40s",
        ])
        .arg(format!(
            "--service-account-private-key-file={}",
            state.dir("pki/sa.key").display()
        ))
        .arg(format!(
            "--root-ca-file={}",
            state.dir("pki/ca.crt").display()
        ));
    spawn(state, "kube-controller-manager", &controllers)?;
    let mut scheduler = Command::new(programs.kubernetes("kube-scheduler"));
    scheduler.args([&settings, "--leader-elect=false"]);
    spawn(state, "kube-scheduler", &scheduler)
}

fn spawn(state: &State, name: &str, command: &Command) -> Result<()> {
    state
        .machine(CONTROL_PLANE)?
        .spawn(name, &state.log(name), command)
}
