//! Names: CoreDNS beside the API server, reached by the usual Service.

use std::{fs, process::Command};

use anyhow::Result;

use super::{
    network::{API, CONTROL_PLANE, DNS},
    programs::Programs,
    state::State,
};

/// Starts the server and makes its Service. Its backend is no pod, so its slices name no target.
pub fn start(state: &State, programs: &Programs) -> Result<()> {
    let corefile = state.dir("Corefile");
    fs::write(
        &corefile,
        format!(
            r"cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {}
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
  }}
  cache 5
}}
",
            state.kubeconfig.display()
        ),
    )?;
    let mut server = Command::new(programs.coredns());
    server.arg("-conf").arg(&corefile);
    state
        .machine(CONTROL_PLANE)?
        .spawn("coredns", &state.log("coredns"), &server)?;
    state.apply("dns", &service())
}

fn service() -> String {
    let slices: String = ["IPv4", "IPv6"]
        .iter()
        .zip(API)
        .map(|(family, address)| {
            format!(
                r#"---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns-{}
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns, endpointslice.kubernetes.io/managed-by: sluice-cluster}}
addressType: {family}
endpoints: [{{addresses: ["{address}"], conditions: {{ready: true}}}}]
ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
"#,
                family.to_lowercase()
            )
        })
        .collect();
    format!(
        r#"apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: {v4}
  clusterIPs: ["{v4}", "{v6}"]
  ipFamilyPolicy: PreferDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
{slices}"#,
        v4 = DNS[0],
        v6 = DNS[1]
    )
}
