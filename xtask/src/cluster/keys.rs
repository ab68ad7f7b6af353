//! Keys, certificates, tokens and the settings of clients.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use super::{network, state::State};
use crate::process;

/// Who comes with a token: token, user, uid, groups.
const USERS: [(&str, &str); 2] = [
    ("admin", "admin,1,\"system:masters\""),
    ("kubelet", "kubelet,2,\"system:masters\""),
];

/// Makes them all.
pub fn make(state: &State) -> Result<()> {
    let first = network::SERVICES[0].replace("0.0/16", "0.1");
    let names = format!(
        "subjectAltName=IP:{},IP:{},IP:127.0.0.1,IP:{first},IP:fd96::1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local",
        network::API[0],
        network::API[1]
    );
    openssl(state, "genrsa -out sa.key 2048")?;
    openssl(state, "rsa -in sa.key -pubout -out sa.pub")?;
    openssl(
        state,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj /CN=sluice-cluster-ca",
    )?;
    openssl(
        state,
        "req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /CN=kube-apiserver",
    )?;
    fs::write(state.dir("pki/api.ext"), names)?;
    openssl(
        state,
        "x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out api.crt -days 30 -extfile api.ext",
    )?;
    let mut tokens = String::new();
    for (user, identity) in USERS {
        tokens.push_str(&format!("{user}-token,{identity}\n"));
        let file = state.dir(&format!("{user}.conf"));
        fs::write(&file, settings(state, user))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    fs::write(state.dir("pki/tokens.csv"), tokens)?;
    Ok(())
}

fn settings(state: &State, user: &str) -> String {
    format!(
        r#"apiVersion: v1
kind: Config
clusters: [{{name: kc, cluster: {{server: "https://{}:6443", certificate-authority: {}}}}}]
users: [{{name: {user}, user: {{token: {user}-token}}}}]
contexts: [{{name: kc, context: {{cluster: kc, user: {user}}}}}]
current-context: kc
"#,
        network::API[0],
        state.dir("pki/ca.crt").display()
    )
}

fn openssl(state: &State, words: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(state.dir("pki")).args(words.split(' '));
    process::output(&mut command).map(|_| ())
}
