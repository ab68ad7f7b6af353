//! Follows one kind for ever: sends what [`Watch`] asks for, and passes on what comes.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use kube::client::Body;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::Failure;
use super::decode::{self, Event};
use super::discover::discover;
use super::intake::Intake;
use super::kinds;
use super::lines::Lines;
use super::link::{Link, broken};
use super::state::{Phase, States};
use super::watch::{End, Request, Timing, Watch};
use crate::source::{Change, Kind};

/// Objects of a page: at some 35 kB of a slice with 100 endpoints, a page has some MB.
const PAGE: usize = 200;
/// A page of a list is at most so long.
const LONGEST_PAGE: usize = 256 << 20;

/// What one kind has to say.
#[derive(Debug)]
pub struct Message {
    /// The kind.
    pub kind: Kind,
    /// Changes in their order.
    pub changes: Vec<Change>,
    /// A full list is complete with these.
    pub complete: bool,
    /// When the bytes arrived.
    pub received: Instant,
}

/// The following of one kind.
pub struct Follower {
    kind: Kind,
    link: Arc<Link>,
    out: mpsc::Sender<Message>,
    states: States,
    timing: Timing,
    watch: Watch,
    path: String,
    intake: Intake,
}

/// Nobody wants to know any more.
struct Finished;

impl Follower {
    /// Begins.
    pub fn new(
        kind: Kind,
        link: Arc<Link>,
        out: mpsc::Sender<Message>,
        states: States,
        timing: Timing,
        memory: Option<PathBuf>,
    ) -> Self {
        let intake = Intake::new(kind, states.clone(), link.addresses().clone(), memory);
        Self {
            kind,
            link,
            out,
            states,
            timing,
            watch: Watch::new(timing, kinds::is_optional(kind), Instant::now()),
            path: kinds::path(kind),
            intake,
        }
    }

    /// Runs until nobody receives what it says.
    pub async fn run(mut self) {
        loop {
            let end = match self.request().await {
                Ok(None) => continue,
                Ok(Some(end)) => end,
                Err(Finished) => return,
            };
            self.note(&end);
            let pause = self.watch.ended(&end, Instant::now(), chance());
            debug!(kind = %self.kind, ?end, ?pause, next = ?self.watch.request(), "a request ended");
            sleep(pause).await;
        }
    }

    /// One request; `None` if the next may follow at once.
    async fn request(&mut self) -> Result<Option<End>, Finished> {
        match self.watch.request().clone() {
            Request::Discover => self.discover().await,
            Request::Stream => {
                self.begin();
                self.stream(
                    "&watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                     &allowWatchBookmarks=true",
                )
                .await
                .map(Some)
            }
            Request::Watch(version) => {
                let query = format!(
                    "&watch=1&allowWatchBookmarks=true&resourceVersion={}",
                    escape(&version)
                );
                self.stream(&query).await.map(Some)
            }
            Request::Page(token) => {
                if token.is_none() {
                    self.begin();
                }
                self.page(token).await
            }
        }
    }

    async fn discover(&mut self) -> Result<Option<End>, Finished> {
        match discover(&self.link, self.kind, self.timing.headers).await {
            Ok(Some(path)) => {
                self.path = path;
                self.watch.discovered();
                Ok(None)
            }
            Ok(None) => {
                self.intake.begin();
                self.complete(Vec::new(), Instant::now()).await?;
                Ok(Some(End::Absent))
            }
            Err(failure) => Ok(Some(End::Failed(failure))),
        }
    }

    fn begin(&mut self) {
        self.intake.begin();
        self.states.update(self.kind, |state| {
            state.phase = Phase::Listing;
            state.lists += 1;
        });
    }

    fn url(&self, query: &str) -> String {
        let scope = kinds::scope(self.kind);
        let mut url = format!("{}?labelSelector={}", self.path, escape(scope.labels));
        if self.watch.fields() && !scope.fields.is_empty() {
            url.push_str("&fieldSelector=");
            url.push_str(&escape(scope.fields));
        }
        url.push_str(query);
        url
    }

    async fn page(&mut self, token: Option<String>) -> Result<Option<End>, Finished> {
        let token = token.map(|token| format!("&continue={}", escape(&token)));
        let url = self.url(&format!("&limit={PAGE}{}", token.unwrap_or_default()));
        let body = match self.link.get(&url, self.timing.part).await {
            Ok(response) => self.whole(response.into_body()).await,
            Err(failure) => Err(failure),
        };
        let received = Instant::now();
        let page = body.and_then(|body| {
            decode::page(self.kind, &body).map_err(|error| {
                Failure::Garbage(format!("a page of {}: {error}", kinds::plural(self.kind)))
            })
        });
        let page = match page {
            Ok(page) => page,
            Err(failure) => return Ok(Some(End::Failed(failure))),
        };
        self.watch.opened(received);
        let mut changes = Vec::new();
        for item in page.items {
            self.intake.apply(item, true, &mut changes);
        }
        match page.next {
            Some(token) => {
                self.watch.page(token);
                self.send(changes, false, received).await?;
            }
            None => {
                self.complete(changes, received).await?;
                self.watch.complete(&page.version, Instant::now());
            }
        }
        Ok(None)
    }

    async fn whole(&self, mut body: Body) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        loop {
            match self.part(&mut body).await? {
                Some(part) if bytes.len() + part.len() <= LONGEST_PAGE => {
                    bytes.extend_from_slice(&part);
                }
                Some(_) => return Err(Failure::Garbage("a page without end".to_owned())),
                None => return Ok(bytes),
            }
        }
    }

    /// The next bytes of a body; `None` at its end.
    async fn part(&self, body: &mut Body) -> Result<Option<Bytes>, Failure> {
        loop {
            let Ok(frame) = timeout(self.watch.patience(), body.frame()).await else {
                return Err(Failure::Stalled);
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let failure = broken(&error);
                    self.link.lost(&failure).await;
                    return Err(failure);
                }
            }
        }
    }

    async fn stream(&mut self, query: &str) -> Result<End, Finished> {
        let seconds = self.timing.watch.as_secs_f64() * (1.0 + chance() / 5.0);
        let url = self.url(&format!("{query}&timeoutSeconds={}", seconds.ceil()));
        let response = match self.link.get(&url, self.timing.headers).await {
            Ok(response) => response,
            Err(failure) => return Ok(End::Failed(failure)),
        };
        self.watch.opened(Instant::now());
        self.states.update(self.kind, |state| {
            state.failure = None;
            if !self.watch.is_initial() {
                state.phase = Phase::Following;
            }
        });
        let mut body = response.into_body();
        let mut lines = Lines::default();
        loop {
            let bytes = match self.part(&mut body).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(End::Closed),
                Err(failure) => return Ok(End::Failed(failure)),
            };
            let received = Instant::now();
            let mut events = Vec::new();
            let kind = self.kind;
            let pushed = lines.push(&bytes, |line| {
                if !line.is_empty() {
                    events.push(decode::line(kind, line));
                }
            });
            let mut end = self.events(events, received).await?;
            if let Err(error) = pushed {
                end = end.or(Some(End::Failed(Failure::Garbage(error.to_string()))));
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Passes events on; returns how the stream ends, if it does.
    async fn events(
        &mut self,
        events: Vec<Result<Event, String>>,
        received: Instant,
    ) -> Result<Option<End>, Finished> {
        let mut changes = Vec::new();
        let mut end = None;
        for event in events {
            let initial = self.watch.is_initial();
            match event {
                Ok(Event::Apply(item)) => {
                    let version = item.identity().version.clone();
                    self.intake.apply(item, initial, &mut changes);
                    self.watch.sign(&version, received);
                }
                Ok(Event::Delete(identity)) => {
                    self.intake.delete(&identity, &mut changes);
                    self.watch.sign(&identity.version, received);
                }
                Ok(Event::Bookmark {
                    version,
                    initial_end,
                }) => {
                    if initial_end && initial {
                        self.complete(std::mem::take(&mut changes), received)
                            .await?;
                        self.watch.complete(&version, received);
                    } else {
                        self.watch.sign(&version, received);
                    }
                }
                Ok(Event::Error { code, message }) => {
                    end = Some(Failure::Status {
                        code,
                        message,
                        retry_after: None,
                    });
                }
                Err(text) => end = Some(Failure::Garbage(text)),
            }
            self.states.update(self.kind, |state| {
                state.events += 1;
                state.last_sign = Some(received);
            });
            if end.is_some() {
                break;
            }
        }
        self.send(changes, false, received).await?;
        Ok(end.map(End::Failed))
    }

    /// A full list is complete: what it did not have is gone.
    async fn complete(
        &mut self,
        mut changes: Vec<Change>,
        received: Instant,
    ) -> Result<(), Finished> {
        self.intake.sweep(&mut changes);
        let objects = self.intake.len();
        let first = self.states.update(self.kind, |state| {
            state.phase = Phase::Following;
            state.failure = None;
            state.objects = objects;
            !std::mem::replace(&mut state.synced, true)
        });
        if first {
            debug!(kind = %self.kind, objects, "first list complete");
        }
        self.send(changes, true, received).await
    }

    async fn send(
        &mut self,
        changes: Vec<Change>,
        complete: bool,
        received: Instant,
    ) -> Result<(), Finished> {
        if changes.is_empty() && !complete {
            return Ok(());
        }
        let objects = self.intake.len();
        self.states
            .update(self.kind, |state| state.objects = objects);
        let message = Message {
            kind: self.kind,
            changes,
            complete,
            received,
        };
        self.out.send(message).await.map_err(|_| Finished)
    }

    /// Keeps and tells how a request ended.
    fn note(&self, end: &End) {
        let failure = match end {
            End::Closed => return,
            End::Absent => {
                self.states
                    .update(self.kind, |state| state.phase = Phase::NotServed);
                return;
            }
            // The ordinary end of a version's life.
            End::Failed(Failure::Status { code: 410, .. }) => return,
            End::Failed(failure) => failure,
        };
        let text = self.advice(failure);
        self.states.update(self.kind, |state| {
            state.phase = Phase::Retrying;
            state.failures += 1;
            if state.failure.as_ref() != Some(&text) {
                warn!(
                    "{} from {}: {text}",
                    kinds::plural(self.kind),
                    self.link.url()
                );
            }
            state.failure = Some(text);
        });
    }

    fn advice(&self, failure: &Failure) -> String {
        let remedy = match failure {
            Failure::Status { code: 401, .. } => {
                "; the token or certificate is not accepted: renew it".to_owned()
            }
            Failure::Status { code: 403, .. } => {
                let plural = kinds::plural(self.kind);
                format!("; allow the agent's account to get, list and watch {plural} (ClusterRole)")
            }
            _ => String::new(),
        };
        format!("{failure}{remedy}; tried again")
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

/// Percent-encodes a query's value (RFC 3986 section 2.3).
fn escape(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
