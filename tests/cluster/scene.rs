//! What a test puts into the cluster: a namespace with Deployments and Services, removed at its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sluice_lab::wait;
use sluice_lab::workload::client::get;
use sluice_lab::workload::{Answer, Failure, udp};

use crate::cluster::{Client, Cluster, NODES, cluster};

/// How long Kubernetes and the proxy may take together.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long one request may take.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// The port of Services.
pub const PORT: u16 = 80;

/// A namespace of its own.
pub struct Scene {
    /// Its name.
    pub namespace: String,
    /// The cluster it is in.
    pub cluster: &'static Cluster,
}

impl Scene {
    /// An empty one.
    pub fn new(name: &str) -> Scene {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{name}-{}-{count}", std::process::id());
        let cluster = cluster();
        cluster
            .kubectl(&["create", "namespace", &namespace])
            .unwrap();
        let scene = Scene { namespace, cluster };
        // Pods are refused until the controllers have made it.
        wait::until(PATIENCE, "the account of pods", || {
            scene.try_kubectl(&["get", "serviceaccount", "default"])
        })
        .unwrap();
        scene
    }

    /// One with the Deployment `web`, a pod on each node, and a client pod on each node.
    pub fn with_web(name: &str) -> Scene {
        let scene = Scene::new(name);
        scene.apply(&deployment("web", 2, "v1", ""));
        for node in NODES {
            scene.apply(&client_pod(node));
        }
        scene.rolled_out("web");
        scene.kubectl(&[
            "wait",
            "--for=condition=Ready",
            "pod",
            "--all",
            "--timeout=60s",
        ]);
        scene
    }

    /// What kubectl writes about this namespace.
    pub fn kubectl(&self, words: &[&str]) -> String {
        self.try_kubectl(words).unwrap()
    }

    /// The same, if it succeeds.
    pub fn try_kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.namespace];
        all.extend(words);
        self.cluster.kubectl(&all)
    }

    /// Applies YAML.
    pub fn apply(&self, yaml: &str) {
        let words = ["-n", &self.namespace, "apply", "-f", "-"];
        self.cluster.kubectl_with(&words, yaml).unwrap();
    }

    /// Waits until a Deployment is as it should be.
    pub fn rolled_out(&self, name: &str) {
        self.kubectl(&[
            "rollout",
            "status",
            &format!("deployment/{name}"),
            "--timeout=90s",
        ]);
    }

    /// A Service `name` for the pods of `web`, of both families, TCP and UDP; more of its spec in `more`.
    pub fn service(&self, name: &str, more: &str) {
        self.apply(&format!(
            r#"{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ipFamilyPolicy: RequireDualStack, selector: {{app: web}},
                ports: [{{name: tcp, port: {PORT}, targetPort: 8080}}, {{name: udp, protocol: UDP, port: {PORT}, targetPort: 8080}}]{more}}}}}"#
        ));
    }

    /// The ClusterIPs of a Service with this port.
    pub fn vips(&self, name: &str) -> Vec<SocketAddr> {
        let said = self.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.clusterIPs}"]);
        let addresses: Vec<IpAddr> = serde_json::from_str(&said).unwrap();
        addresses
            .into_iter()
            .map(|address| (address, PORT).into())
            .collect()
    }

    /// The node port of the Service's port of this name.
    pub fn node_port(&self, name: &str, port: &str) -> u16 {
        let path = format!("jsonpath={{.spec.ports[?(@.name=='{port}')].nodePort}}");
        self.kubectl(&["get", "service", name, "-o", &path])
            .parse()
            .unwrap()
    }

    /// The pods of `web`, in order.
    pub fn web(&self) -> Vec<String> {
        let names = self.kubectl(&[
            "get",
            "pod",
            "-l",
            "app=web",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ]);
        let mut names: Vec<String> = names.split_whitespace().map(Into::into).collect();
        names.sort();
        names
    }

    /// The client pods and the hosts of the nodes.
    pub fn inside(&self) -> Vec<Client> {
        let pods = NODES.map(|node| {
            self.cluster
                .pod(&self.namespace, &format!("client-{node}"))
                .unwrap()
        });
        pods.into_iter()
            .chain(NODES.map(|node| self.cluster.host(node)))
            .collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let words = ["delete", "namespace", &self.namespace, "--wait=false"];
        if let Err(error) = self.cluster.kubectl(&words) {
            eprintln!("{error:#}");
        }
    }
}

/// Waits until an address answers a client over TCP.
pub fn answers(client: &Client, to: SocketAddr) -> Answer {
    wait::until(
        PATIENCE,
        &format!("an answer of {to} to {}", client.name),
        || ask(client, to),
    )
    .unwrap()
}

/// Waits until an address answers a client over UDP.
pub fn answers_udp(client: &Client, to: SocketAddr) -> Answer {
    wait::until(
        PATIENCE,
        &format!("a datagram of {to} to {}", client.name),
        || client.run(|| udp::ask(to, TIMEOUT)),
    )
    .unwrap()
}

/// Waits until a request fails in a way.
pub fn fails(client: &Client, to: SocketAddr, how: &str, is: impl Fn(&Failure) -> bool) {
    wait::until(
        PATIENCE,
        &format!("{to} {how} for {}", client.name),
        || match ask(client, to) {
            Err(failure) if is(&failure) => Ok(()),
            Err(failure) => Err(failure.to_string()),
            Ok(answer) => Err(format!("{} answered", answer.name)),
        },
    )
    .unwrap();
}

/// One request.
pub fn ask(client: &Client, to: SocketAddr) -> Result<Answer, Failure> {
    client.run(|| get(to, "/", TIMEOUT))
}

/// A Deployment of servers that say their pod's name; more of the pod's spec in `more`.
pub fn deployment(name: &str, replicas: u8, version: &str, more: &str) -> String {
    format!(
        r#"{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: {replicas}, selector: {{matchLabels: {{app: {name}}}}},
            template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{
              topologySpreadConstraints: [{{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {{matchLabels: {{app: {name}}}}}}}],
              containers: [{}]{more}}}}}}}}}"#,
        server(version)
    )
}

/// The container of such a server.
pub fn server(version: &str) -> String {
    format!(
        r#"{{name: server, image: "sluice.dev/lab:dev", args: [serve, --name=$(POD), --version={version}, --tcp=8080, --udp=8080, --stay],
            env: [{{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}],
            readinessProbe: {{httpGet: {{path: /ready, port: 8080}}, periodSeconds: 1}},
            lifecycle: {{preStop: {{sleep: {{seconds: 3}}}}}}}}"#
    )
}

/// A pod on a node that traffic comes from.
fn client_pod(node: &str) -> String {
    format!(
        r#"{{apiVersion: v1, kind: Pod, metadata: {{name: client-{node}}}, spec: {{nodeName: {node}, terminationGracePeriodSeconds: 0,
            containers: [{{name: client, image: "registry.k8s.io/e2e-test-images/agnhost:2.53", args: [pause]}}]}}}}"#
    )
}
