//! How the API server is reached: a kubeconfig file, or what a pod is given.

use std::path::PathBuf;

use http::Uri;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// How to reach the API server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// The kubeconfig file, or several as `KUBECONFIG` lists them; `None`: what a pod is given.
    pub kubeconfig: Option<PathBuf>,
    /// Where to connect, whatever the kubeconfig or the environment of a pod names; its
    /// certificate is verified for the name or address that they do name.
    pub api_server: Option<String>,
}

/// Why the API server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig file cannot be used.
    #[error("the kubeconfig {}: {error}; name another with --kubeconfig", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Box<kube::config::KubeconfigError>,
    },
    /// There is none, and what a pod is given is not there.
    #[error(
        "no access to the API server: {0}; in a pod this needs a ServiceAccount with its token \
         mounted, elsewhere --kubeconfig FILE (or --manifests DIR to do without an API server)"
    )]
    NotInPod(Box<kube::config::InClusterError>),
    /// `--api-server` is not an address.
    #[error("--api-server {given:?}: {message}; write one like https://10.0.0.1:6443")]
    Server {
        /// What was given.
        given: String,
        /// What is wrong.
        message: String,
    },
    /// Certificates, keys or tokens cannot be used.
    #[error(
        "the credentials for {url}: {error}; correct them in the kubeconfig or the ServiceAccount"
    )]
    Credentials {
        /// The server.
        url: Uri,
        /// Why.
        error: Box<kube::Error>,
    },
}

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server and credentials.
    pub config: Config,
    /// Host and port to connect to, where they are not the URL's.
    pub dial: Option<(String, u16)>,
}

impl Access {
    /// Reads files and environment; they may have changed since the last time.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn load(&self) -> Result<Target, Error> {
        let server = self.api_server.as_deref().map(server).transpose()?;
        let mut config = match &self.kubeconfig {
            Some(path) => kubeconfig(path).await?,
            None => in_pod(server.as_ref())?,
        };
        let Some(server) = server else {
            return Ok(Target { config, dial: None });
        };
        if server.scheme() != config.cluster_url.scheme() {
            config.cluster_url = server;
            return Ok(Target { config, dial: None });
        }
        let dial = host_port(&server);
        Ok(Target { config, dial })
    }
}

fn server(given: &str) -> Result<Uri, Error> {
    let bad = |message: &str| Error::Server {
        given: given.to_owned(),
        message: message.to_owned(),
    };
    let uri: Uri = given
        .parse()
        .map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
    match uri.scheme_str() {
        Some("https" | "http") if host_port(&uri).is_some() => Ok(uri),
        _ => Err(bad("not a URL of http or https")),
    }
}

async fn kubeconfig(path: &PathBuf) -> Result<Config, Error> {
    let failed = |error| Error::Kubeconfig {
        path: path.clone(),
        error: Box::new(error),
    };
    let mut merged: Option<Kubeconfig> = None;
    for file in std::env::split_paths(path) {
        let next = Kubeconfig::read_from(file).map_err(failed)?;
        merged = Some(match merged {
            Some(first) => first.merge(next).map_err(failed)?,
            None => next,
        });
    }
    let merged = merged.unwrap_or_default();
    Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}

/// A pod without the environment of the `kubernetes` Service is given its server by hand.
fn in_pod(server: Option<&Uri>) -> Result<Config, Error> {
    let config = Config::incluster_env();
    match (config, server) {
        (Err(kube::config::InClusterError::ReadEnvironmentVariable(_)), Some(server)) => {
            let mut config = Config::incluster_dns().map_err(not_in_pod)?;
            config.cluster_url = server.clone();
            Ok(config)
        }
        (config, _) => config.map_err(not_in_pod),
    }
}

fn not_in_pod(error: kube::config::InClusterError) -> Error {
    Error::NotInPod(Box::new(error))
}

/// Host and port of a URL.
pub fn host_port(uri: &Uri) -> Option<(String, u16)> {
    let host = uri.host()?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let default = if uri.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    Some((host.to_owned(), uri.port_u16().unwrap_or(default)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_of_urls() {
        let of = |text: &str| host_port(&text.parse().unwrap()).unwrap();
        assert_eq!(of("https://10.0.0.1:6443"), ("10.0.0.1".to_owned(), 6443));
        assert_eq!(of("https://[fd00::1]:6443/"), ("fd00::1".to_owned(), 6443));
        assert_eq!(of("https://api.example"), ("api.example".to_owned(), 443));
        assert_eq!(of("http://127.0.0.1"), ("127.0.0.1".to_owned(), 80));
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named_with_its_remedy() {
        let missing = Access {
            kubeconfig: Some("/nonexistent/kubeconfig".into()),
            api_server: None,
        };
        let text = missing.load().await.unwrap_err().to_string();
        assert!(text.contains("/nonexistent/kubeconfig"), "{text}");
        assert!(text.contains("--kubeconfig"), "{text}");
        let wrong = Access {
            kubeconfig: None,
            api_server: Some("10.0.0.1:6443".to_owned()),
        };
        let text = wrong.load().await.unwrap_err().to_string();
        assert!(
            text.contains("write one like https://10.0.0.1:6443"),
            "{text}"
        );
    }
}
