//! etcd and kube-apiserver, without anything else of a cluster.
//!
//! The programs are named by `$SLUICE_ETCD`, `$SLUICE_KUBE_APISERVER` and `$SLUICE_KUBECTL`, which
//! `cargo xtask` sets.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Netns;
use crate::wait;

/// How long the server may take until it is ready, on a busy machine.
const READY: Duration = Duration::from_secs(120);
/// Ranges of cluster IPs.
const SERVICE_RANGES: &str = "10.96.0.0/12,fd96::/112";

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Place {
    /// The namespace; `None`: that of the process.
    pub netns: Option<Arc<Netns>>,
    /// The address.
    pub address: Ipv4Addr,
}

impl Place {
    /// On the host, for the host alone.
    pub fn loopback() -> Place {
        Place {
            netns: None,
            address: Ipv4Addr::LOCALHOST,
        }
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.netns {
            Some(netns) => netns.run(work),
            None => work(),
        }
    }
}

/// The server; it ends with this.
#[derive(Debug)]
pub struct ApiServer {
    dir: PathBuf,
    place: Place,
    port: u16,
    etcd_port: u16,
    etcd: Child,
    server: Option<Child>,
    flags: Vec<String>,
}

impl ApiServer {
    /// Starts it, with more flags for the server, and waits until it is ready.
    ///
    /// # Errors
    /// A program is missing or does not start.
    pub fn start(place: Place, flags: &[&str]) -> Result<ApiServer> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("sluice-apiserver-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        keys(&dir, place.address)?;
        let [port, etcd_port, peer_port] = place.run(|| ports(place.address))?;
        let client_url = format!("http://127.0.0.1:{etcd_port}");
        let mut etcd = Command::new(program("SLUICE_ETCD")?);
        etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--data-dir"])
            .arg(dir.join("etcd"))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"))
            .stdout(Stdio::null())
            .stderr(log(&dir, "etcd")?);
        let etcd = place.run(|| etcd.spawn()).context("cannot run etcd")?;
        let mut server = ApiServer {
            port,
            etcd_port,
            etcd,
            server: None,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            dir,
            place,
        };
        server.run()?;
        Ok(server)
    }

    /// Starts the API server after [`Self::stop`].
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn run(&mut self) -> Result<()> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut server = Command::new(program("SLUICE_KUBE_APISERVER")?);
        server
            .arg(format!(
                "--etcd-servers=http://127.0.0.1:{}",
                self.etcd_port
            ))
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--bind-address={}", self.place.address))
            .args([
                "--advertise-address=10.199.0.1",
                "--authorization-mode=RBAC",
                "--endpoint-reconciler-type=none",
            ])
            .arg(format!("--tls-cert-file={}", file("api.crt")))
            .arg(format!("--tls-private-key-file={}", file("api.key")))
            .arg(format!("--token-auth-file={}", file("tokens.csv")))
            .arg(format!("--service-account-key-file={}", file("sa.key")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file("sa.key")
            ))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg(format!("--service-cluster-ip-range={SERVICE_RANGES}"))
            .arg("--disable-admission-plugins=ServiceAccount")
            .args(&self.flags)
            .stdout(Stdio::null())
            .stderr(log(&self.dir, "apiserver")?);
        let server = self.place.run(|| server.spawn());
        self.server = Some(server.context("cannot run kube-apiserver")?);
        let what = format!(
            "the API server to be ready; its logs are in {}",
            self.dir.display()
        );
        wait::until(READY, &what, || -> Result<()> {
            // Looking at the port costs less than a program does.
            self.place.run(|| TcpStream::connect(self.address()))?;
            let ready = self.kubectl(&["get", "--raw", "/readyz"])?;
            ensure!(ready == "ok", "it says {ready:?}");
            self.kubectl(&["get", "namespace", "default"]).map(drop)
        })
    }

    /// Ends the API server; etcd keeps what it held.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            end(&mut server);
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        (IpAddr::from(self.place.address), self.port).into()
    }

    /// Where it listens.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A kubeconfig of an administrator, for the server at another address, as a proxy's.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn kubeconfig(&self, address: SocketAddr) -> Result<PathBuf> {
        let file = self.dir.join(format!("kubeconfig-{}", address.port()));
        let text = format!(
            r#"apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://{address}", certificate-authority: {}}}}}]
users: [{{name: c, user: {{tokenFile: {}}}}}]
contexts: [{{name: c, context: {{cluster: c, user: c}}}}]
current-context: c
"#,
            self.dir.join("ca.crt").display(),
            self.dir.join("token").display(),
        );
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// Runs kubectl and returns what it prints.
    ///
    /// # Errors
    /// It fails; the error is what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program("SLUICE_KUBECTL")?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig(self.address())?)
            .args(arguments);
        let output = self.place.run(|| command.output());
        let output = output.context("cannot run kubectl")?;
        succeeded(&output).with_context(|| format!("kubectl {arguments:?}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The process ids of etcd and of the server, if that runs.
    pub fn processes(&self) -> Vec<u32> {
        let server = self.server.as_ref().map(Child::id);
        [Some(self.etcd.id()), server]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
        end(&mut self.etcd);
        if !std::thread::panicking() {
            // What is left lies in the system's folder for temporary files.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The program that a variable names.
///
/// # Errors
/// It is not set.
pub fn program(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable);
    let path = path.with_context(|| {
        format!("{variable} is not set: use `cargo xtask`, which builds the program and names it")
    })?;
    Ok(path.into())
}

fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn log(dir: &Path, name: &str) -> Result<Stdio> {
    let file = dir.join(format!("{name}.log"));
    let opened = File::options().create(true).append(true).open(&file);
    let opened = opened.with_context(|| format!("cannot write {}", file.display()))?;
    Ok(opened.into())
}

/// Ports that are free now.
fn ports<const N: usize>(address: Ipv4Addr) -> Result<[u16; N]> {
    let mut taken = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((address, 0)).context("no free port")?;
        *port = listener.local_addr()?.port();
        taken.push(listener);
    }
    Ok(ports)
}

fn keys(dir: &Path, address: Ipv4Addr) -> Result<()> {
    let write = |name: &str, text: &str| -> io::Result<()> { fs::write(dir.join(name), text) };
    for words in [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=sluice-test-ca",
        "req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /CN=kube-apiserver",
        "genrsa -out sa.key 2048",
    ] {
        openssl(dir, words)?;
    }
    let names = format!("subjectAltName=IP:127.0.0.1,IP:10.96.0.1,IP:{address}");
    write("api.ext", &names)?;
    openssl(
        dir,
        "x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out api.crt -days 30 -extfile api.ext",
    )?;
    write(
        "tokens.csv",
        "good,admin,1,\"system:masters\"\nnobody,nobody,2,\"\"\n",
    )?;
    write("token", "good")?;
    Ok(())
}

fn openssl(dir: &Path, words: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    let output = command.current_dir(dir).args(words.split(' ')).output();
    let output = output.context("cannot run openssl (Debian package openssl)")?;
    succeeded(&output).with_context(|| format!("openssl {words}"))
}

fn succeeded(output: &Output) -> Result<()> {
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
