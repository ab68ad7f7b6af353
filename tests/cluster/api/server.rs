//! etcd and kube-apiserver on loopback, without anything else of a cluster.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sluice::source::api::Access;
use sluice_lab::wait;

/// How long the server may take to start, on a busy machine.
const READY: Duration = Duration::from_secs(120);

/// The server; it ends with this.
pub struct ApiServer {
    dir: PathBuf,
    port: u16,
    etcd_port: u16,
    etcd: Child,
    server: Option<Child>,
    flags: Vec<String>,
}

impl ApiServer {
    /// Starts it and waits until it is ready.
    pub fn start(flags: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("sluice-apiserver-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        keys(&dir);
        let [port, etcd_port, peer_port] = ports();
        let etcd = Command::new(program("SLUICE_ETCD"))
            .args(["--unsafe-no-fsync", "--log-level=warn", "--data-dir"])
            .arg(dir.join("etcd"))
            .arg(format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"))
            .arg(format!(
                "--advertise-client-urls=http://127.0.0.1:{etcd_port}"
            ))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"))
            .stdout(Stdio::null())
            .stderr(log(&dir, "etcd"))
            .spawn()
            .expect("etcd");
        let mut server = Self {
            port,
            etcd_port,
            etcd,
            server: None,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            dir,
        };
        server.run();
        server
    }

    /// Starts the API server after [`Self::stop`].
    pub fn run(&mut self) {
        let file = |name: &str| self.dir.join(name).display().to_string();
        let server = Command::new(program("SLUICE_KUBE_APISERVER"))
            .arg(format!(
                "--etcd-servers=http://127.0.0.1:{}",
                self.etcd_port
            ))
            .arg(format!("--secure-port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--advertise-address=10.199.0.1"])
            .args([
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
            .arg("--service-cluster-ip-range=10.96.0.0/16,fd96::/112")
            .arg("--disable-admission-plugins=ServiceAccount")
            .args(&self.flags)
            .stdout(Stdio::null())
            .stderr(log(&self.dir, "apiserver"))
            .spawn()
            .expect("kube-apiserver");
        self.server = Some(server);
        wait::until(READY, "the API server to be ready", || {
            // Looking at the port costs less than a program does.
            TcpStream::connect(self.address()).map_err(|error| error.to_string())?;
            let ready = self.kubectl_output(&["get", "--raw", "/readyz"])?;
            if ready != "ok" {
                return Err(ready);
            }
            self.kubectl_output(&["get", "ns", "default"]).map(drop)
        })
        .unwrap_or_else(|error| panic!("{error:#}; see {}", self.dir.display()));
    }

    /// Ends the API server; etcd keeps what it held.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            end(&mut server);
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Access by another address, as a proxy's.
    pub fn access(&self, address: SocketAddr) -> Access {
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
        fs::write(&file, text).expect("a kubeconfig");
        Access {
            kubeconfig: Some(file),
            api_server: None,
        }
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) {
        let file = self.dir.join("manifest.yaml");
        fs::write(&file, manifest).expect("a manifest");
        self.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()]);
    }

    /// Runs kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_output(arguments)
            .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    fn kubectl_output(&self, arguments: &[&str]) -> Result<String, String> {
        let access = self.access(self.address());
        let output = Command::new(program("SLUICE_KUBECTL"))
            .arg("--kubeconfig")
            .args(access.kubeconfig)
            .args(arguments)
            .output()
            .expect("kubectl");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
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
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test --only cluster`"))
        .into()
}

fn log(dir: &Path, name: &str) -> Stdio {
    let file = File::options()
        .create(true)
        .append(true)
        .open(dir.join(format!("{name}.log")));
    file.expect("a log").into()
}

/// Ports that are free now.
fn ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

fn keys(dir: &Path) {
    for words in [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=sluice-test-ca",
        "req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /CN=kube-apiserver",
        "genrsa -out sa.key 2048",
    ] {
        openssl(dir, words);
    }
    fs::write(
        dir.join("api.ext"),
        "subjectAltName=IP:127.0.0.1,IP:10.96.0.1",
    )
    .expect("a file");
    openssl(
        dir,
        "x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out api.crt -days 30 -extfile api.ext",
    );
    let tokens = "good,admin,1,\"system:masters\"\nnobody,nobody,2,\"\"\n";
    fs::write(dir.join("tokens.csv"), tokens).expect("a file");
    fs::write(dir.join("token"), "good").expect("a file");
}

fn openssl(dir: &Path, words: &str) {
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(words.split(' '))
        .output()
        .expect("openssl");
    assert!(
        output.status.success(),
        "openssl {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
