//! What to ask the API server for next: listing, following, and what to do when either ends.
//!
//! Pure decisions; the time and the randomness are passed in.

use std::time::Duration;

use tokio::time::Instant;

use super::Failure;

/// How long things may take, and how often they are tried.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Timing {
    /// From a request to the headers of its answer.
    pub headers: Duration,
    /// Between two parts of a list, or of the objects that a stream begins with.
    pub part: Duration,
    /// How long the server is to keep a watch open; up to a fifth is added by chance.
    pub watch: Duration,
    /// A request that was open for so long was a good one: the next failure begins with a short
    /// pause again.
    pub steady: Duration,
    /// First and longest pause after failures.
    pub pause: (Duration, Duration),
    /// A watch that ends after so long without an event or a bookmark is not believed: the version
    /// it began at may be one the server does not have (etcd restored from a backup).
    pub silence: Duration,
    /// Between two questions whether a kind is served.
    pub absent: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(10),
            part: Duration::from_secs(30),
            watch: Duration::from_secs(290),
            steady: Duration::from_secs(5),
            pause: (Duration::from_millis(100), Duration::from_secs(5)),
            silence: Duration::from_secs(240),
            absent: Duration::from_secs(30),
        }
    }
}

/// What to ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Whether the kind is served, and where.
    Discover,
    /// All objects and then their changes, in one stream (KEP-3157).
    Stream,
    /// A page of all objects; the first, or the one after a token.
    Page(Option<String>),
    /// Changes after a version.
    Watch(String),
}

/// How a request ended.
#[derive(Clone, PartialEq, Debug)]
pub enum End {
    /// The server closed it, or it was open for as long as it may be.
    Closed,
    /// The kind is not served.
    Absent,
    /// It failed.
    Failed(Failure),
}

/// The state of following one kind.
#[derive(Debug)]
pub struct Watch {
    timing: Timing,
    /// The kind may be absent.
    optional: bool,
    request: Request,
    /// The server streams objects; if not, they are listed by pages.
    streams: bool,
    /// The server knows the field selector.
    fields: bool,
    opened: Option<Instant>,
    last_sign: Instant,
    /// Failures since the last good request.
    failures: u32,
}

/// HTTP's and Kubernetes' status codes that are told apart.
mod code {
    pub const UNAUTHORIZED: u16 = 401;
    pub const FORBIDDEN: u16 = 403;
    pub const NOT_FOUND: u16 = 404;
    pub const TIMEOUT: u16 = 408;
    pub const GONE: u16 = 410;
    pub const TOO_MANY: u16 = 429;
}

impl Watch {
    /// Begins.
    pub fn new(timing: Timing, optional: bool, now: Instant) -> Self {
        Self {
            timing,
            optional,
            request: if optional {
                Request::Discover
            } else {
                Request::Stream
            },
            streams: true,
            fields: true,
            opened: None,
            last_sign: now,
            failures: 0,
        }
    }

    /// What to ask for now.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Whether to use the field selector.
    pub fn fields(&self) -> bool {
        self.fields
    }

    /// True while all objects are being delivered.
    pub fn is_initial(&self) -> bool {
        !matches!(self.request, Request::Watch(_))
    }

    /// How long to wait for the next part of the answer.
    pub fn patience(&self) -> Duration {
        match self.request {
            Request::Watch(_) => self.timing.watch + self.timing.watch / 4 + self.timing.part,
            _ => self.timing.part,
        }
    }

    /// The kind is served.
    pub fn discovered(&mut self) {
        self.request = self.anew();
    }

    /// An answer begins.
    pub fn opened(&mut self, now: Instant) {
        self.opened = Some(now);
    }

    /// An event or a bookmark came, at this version.
    pub fn sign(&mut self, version: &str, now: Instant) {
        self.last_sign = now;
        if let Request::Watch(at) = &mut self.request
            && !version.is_empty()
        {
            version.clone_into(at);
        }
    }

    /// All objects were delivered, as they were at this version. A stream goes on with changes.
    pub fn complete(&mut self, version: &str, now: Instant) {
        self.last_sign = now;
        self.request = Request::Watch(version.to_owned());
    }

    /// There is another page.
    pub fn page(&mut self, token: String) {
        self.request = Request::Page(Some(token));
    }

    /// A request ended; returns how long to wait before the next. `chance` is from 0 to 1.
    pub fn ended(&mut self, end: &End, now: Instant, chance: f64) -> Duration {
        let opened = self.opened.take();
        let good = opened.is_some_and(|at| now.duration_since(at) >= self.timing.steady);
        let mut immediate = false;
        match end {
            End::Absent => {
                self.request = Request::Discover;
                self.failures = 0;
                return self.timing.absent.mul_f64(0.75 + chance / 2.0);
            }
            End::Closed if !self.is_initial() => {
                if self.is_silent(now) {
                    self.last_sign = now;
                    self.request = self.anew();
                }
            }
            // An answer that ends before it is complete.
            End::Closed => self.request = self.again(),
            End::Failed(failure) => immediate = self.failed(failure, now),
        }
        if good || immediate {
            self.failures = 0;
        }
        let least = match end {
            End::Failed(Failure::Status { retry_after, .. }) => {
                retry_after.unwrap_or_default().min(2 * self.timing.pause.1)
            }
            _ => Duration::ZERO,
        };
        if immediate {
            return least;
        }
        self.pause(chance).max(least)
    }

    /// What follows from a failure; true if the next request is another one and needs no pause.
    fn failed(&mut self, failure: &Failure, now: Instant) -> bool {
        let &Failure::Status { code, .. } = failure else {
            let streaming = self.request == Request::Stream;
            if streaming && *failure == Failure::Stalled {
                // A server that does not know the request treats it as a common watch.
                self.streams = false;
            }
            self.request = match failure {
                // It may be the place in the stream that it cannot tell.
                Failure::Garbage(_) if self.failures >= 3 => self.anew(),
                Failure::Stalled if self.is_silent(now) => self.anew(),
                _ => self.again(),
            };
            return false;
        };
        let refused = (400..500).contains(&code)
            && !matches!(
                code,
                code::UNAUTHORIZED | code::FORBIDDEN | code::TIMEOUT | code::TOO_MANY | code::GONE
            );
        match &self.request {
            _ if code == code::NOT_FOUND && self.optional => self.request = Request::Discover,
            Request::Stream if refused && self.streams => {
                self.streams = false;
                self.request = self.anew();
                return true;
            }
            Request::Page(_) if refused && self.fields => {
                self.fields = false;
                self.streams = true;
                self.request = self.anew();
                return true;
            }
            Request::Discover => {}
            _ if refused || code == code::GONE => self.request = self.anew(),
            _ => self.request = self.again(),
        }
        false
    }

    fn is_silent(&self, now: Instant) -> bool {
        now.duration_since(self.last_sign) >= self.timing.silence
    }

    fn anew(&self) -> Request {
        if self.streams {
            Request::Stream
        } else {
            Request::Page(None)
        }
    }

    /// The same request once more; a stream that is not complete begins anew.
    fn again(&self) -> Request {
        match &self.request {
            Request::Stream => self.anew(),
            other => other.clone(),
        }
    }

    fn pause(&mut self, chance: f64) -> Duration {
        let (first, longest) = self.timing.pause;
        let pause = first
            .saturating_mul(1 << self.failures.min(16))
            .min(longest);
        self.failures += 1;
        pause.mul_f64(0.5 + chance / 2.0)
    }
}
