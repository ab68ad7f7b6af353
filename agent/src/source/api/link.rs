//! The connection to the API server: one for all kinds, by HTTP/2 with pings, made anew from the
//! files it came from when it fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use tokio::sync::Mutex as AsyncMutex;
use tower::{BoxError, ServiceBuilder};
use tracing::{debug, warn};

use super::Failure;
use super::access::{Access, Error, Target, host_port};
use super::dial::Addresses;

/// Between two pings, and from a ping to its answer: a connection that leads nowhere is found after
/// both.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// What the server may send before it is read: the most that waits in memory, of one stream and of
/// all.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// An error message is at most so long.
const MESSAGE: usize = 64 << 10;

/// The connection.
#[derive(Debug)]
pub struct Link {
    access: Access,
    addresses: Addresses,
    current: Mutex<Current>,
    renewing: AsyncMutex<()>,
}

struct Current {
    /// Counts the clients.
    number: u64,
    client: Client,
    url: String,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("number", &self.number)
            .field("url", &self.url)
            .finish()
    }
}

impl Link {
    /// Reads the credentials. It connects at the first request.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn new(access: Access) -> Result<Arc<Self>, Error> {
        let addresses = Addresses::default();
        let target = access.load().await?;
        let current = Current {
            number: 0,
            url: target.config.cluster_url.to_string(),
            client: client(&target, &addresses)?,
        };
        Ok(Arc::new(Self {
            access,
            addresses,
            current: Mutex::new(current),
            renewing: AsyncMutex::new(()),
        }))
    }

    /// A client for the API, as it is now.
    pub fn client(&self) -> Client {
        self.current().1
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.url.clone()
    }

    /// Where it is connected to.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Sends a GET request and waits for the headers of a good answer.
    ///
    /// # Errors
    ///
    /// [`Failure`]; the connection is made anew after one that may be its fault.
    pub async fn get(&self, path: &str, patience: Duration) -> Result<Response<Body>, Failure> {
        let request = Request::get(path).body(Body::empty());
        self.ask(path, request, patience).await
    }

    /// Sends a request with a body and waits for the headers of a good answer.
    ///
    /// # Errors
    ///
    /// As for [`Self::get`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        form: &'static str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Response<Body>, Failure> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(http::header::CONTENT_TYPE, form);
        self.ask(path, request.body(body.into()), patience).await
    }

    async fn ask(
        &self,
        path: &str,
        request: http::Result<Request<Body>>,
        patience: Duration,
    ) -> Result<Response<Body>, Failure> {
        let (number, client) = self.current();
        let mut request = request.map_err(|error| Failure::Broken(format!("{path}: {error}")))?;
        let json = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert(http::header::ACCEPT, json);
        let answer = match tokio::time::timeout(patience, client.send(request)).await {
            Err(_) => Err(Failure::Silent(patience)),
            Ok(Err(error)) => Err(broken(&error)),
            Ok(Ok(response)) if response.status().is_success() => Ok(response),
            Ok(Ok(response)) => Err(refused(response, patience).await),
        };
        if let Err(failure) = &answer {
            self.failed(number, failure).await;
        }
        answer
    }

    /// Notes that a request of the current connection failed after its beginning.
    pub async fn lost(&self, failure: &Failure) {
        let (number, _) = self.current();
        self.failed(number, failure).await;
    }

    async fn failed(&self, number: u64, failure: &Failure) {
        let skip = match failure {
            Failure::Silent(_) => true,
            Failure::Broken(_) | Failure::Status { code: 401, .. } => false,
            _ => return,
        };
        // One that fails for several kinds at once is made anew once.
        let _alone = self.renewing.lock().await;
        if self.current().0 != number {
            return;
        }
        if skip {
            self.addresses.skip();
        } else {
            self.addresses.reset();
        }
        let made = match self.access.load().await {
            Ok(target) => client(&target, &self.addresses).map(|client| (target, client)),
            Err(error) => Err(error),
        };
        match made {
            Ok((target, client)) => {
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                *current = Current {
                    number: number + 1,
                    url: target.config.cluster_url.to_string(),
                    client,
                };
                debug!(%failure, "connecting anew");
            }
            Err(error) => warn!("{error}; going on with those read before"),
        }
    }

    fn current(&self) -> (u64, Client) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.number, current.client.clone())
    }
}

fn client(target: &Target, addresses: &Addresses) -> Result<Client, Error> {
    let config = &target.config;
    if let Some((host, port)) = target
        .dial
        .clone()
        .or_else(|| host_port(&config.cluster_url))
    {
        addresses.configure(&host, port);
    }
    let failed = |error| Error::Credentials {
        url: config.cluster_url.clone(),
        error: Box::new(error),
    };
    if config.cluster_url.scheme_str() == Some("http") {
        let service = legacy::Client::builder(TokioExecutor::new()).build(addresses.clone());
        return wrap(config, service).map_err(failed);
    }
    let mut builder = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config().map_err(failed)?)
        .https_only();
    if let Some(name) = config.tls_server_name.clone() {
        let given = name.clone();
        let name = name.try_into().map_err(|_| Error::Server {
            given,
            message: "the kubeconfig's tls-server-name is not a name".to_owned(),
        })?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connector = builder.enable_http2().wrap_connector(addresses.clone());
    let service = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_only(true)
        .http2_initial_stream_window_size(WINDOWS.0)
        .http2_initial_connection_window_size(WINDOWS.1)
        .http2_keep_alive_interval(PING.0)
        .http2_keep_alive_timeout(PING.1)
        .http2_keep_alive_while_idle(true)
        .build(connector);
    wrap(config, service).map_err(failed)
}

fn wrap<C>(config: &Config, service: legacy::Client<C, Body>) -> Result<Client, kube::Error>
where
    C: legacy::connect::Connect + Clone + Send + Sync + 'static,
{
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(service);
    Ok(Client::new(service, "default"))
}

/// What a failed request or body says, with its causes.
pub fn broken(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut text = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let timed_out = error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_timeout);
        if timed_out {
            return Failure::Silent(PING.0 + PING.1);
        }
        let part = error.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        cause = error.source();
    }
    Failure::Broken(text)
}

/// An answer that is not a good one.
async fn refused(response: Response<Body>, patience: Duration) -> Failure {
    #[derive(serde::Deserialize)]
    struct Status {
        message: String,
    }
    let code = response.status().as_u16();
    let header = response.headers().get(http::header::RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()?.parse().ok());
    let body = http_body_util::Limited::new(response.into_body(), MESSAGE);
    let message = match tokio::time::timeout(patience, body.collect()).await {
        Ok(Ok(body)) => {
            let body = body.to_bytes();
            match serde_json::from_slice::<Status>(&body) {
                Ok(status) => status.message,
                Err(_) => String::from_utf8_lossy(&body)
                    .trim()
                    .chars()
                    .take(200)
                    .collect(),
            }
        }
        _ => String::new(),
    };
    Failure::Status {
        code,
        message,
        retry_after: seconds.map(Duration::from_secs),
    }
}
