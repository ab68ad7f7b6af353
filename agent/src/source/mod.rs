//! Where objects come from: sources read them and tell what is to be applied or deleted.

pub mod api;
mod closed;
pub mod core;
pub mod manifests;
mod object;
pub mod routes;
pub mod schema;
pub mod tiers;

use std::path::Path;
use std::sync::Arc;

use dataplane_model::snapshot::Kind as ModelKind;
use tokio::time::Instant;

use crate::admin::protocol::SourceStatus;
use crate::config::SourceSettings;
use api::{Api, Census, Conditions, Events, States, Timing, Versions};
use manifests::{Manifests, Skipped};
pub use object::{Kind, Object, ObjectKey, Origin, Problem};

/// The file that keeps where the API servers are.
const API_SERVERS: &str = "api-servers.json";

/// Where objects come from.
#[derive(Debug)]
pub enum Source {
    /// A folder of manifests.
    Folder(Box<Manifests>),
    /// An API server.
    Api(Box<Api>),
}

/// What a source says at once.
#[derive(Debug)]
pub struct Batch {
    /// Changes, in their order.
    pub changes: Vec<Change>,
    /// The model's kinds whose first full list is complete with these changes.
    pub in_sync: Vec<ModelKind>,
    /// When the source learnt of the changes: of a watch, when the bytes arrived.
    pub received: Instant,
}

/// Why a source cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of manifests.
    #[error(transparent)]
    Folder(#[from] manifests::Error),
    /// The API server.
    #[error(transparent)]
    Api(#[from] api::Error),
}

impl Source {
    /// Opens a source. An API server that does not answer is waited for; in the folder `state`, where it
    /// is is kept for the next start.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn open(settings: &SourceSettings, state: Option<&Path>) -> Result<Self, Error> {
        Ok(match settings {
            SourceSettings::Manifests(folder) => Source::Folder(Box::new(Manifests::open(folder)?)),
            SourceSettings::Api(access) => Source::Api(Box::new(
                Api::open(
                    access.clone(),
                    Timing::default(),
                    state.map(|folder| folder.join(API_SERVERS)),
                )
                .await?,
            )),
        })
    }

    /// How many objects there are, where that can be asked for.
    pub async fn census(&self) -> Option<Census> {
        match self {
            Source::Folder(_) => None,
            Source::Api(api) => api.census().await,
        }
    }

    /// The folder, or the server's URL.
    pub fn place(&self) -> String {
        match self {
            Source::Folder(folder) => folder.root().display().to_string(),
            Source::Api(api) => api.link().url(),
        }
    }

    /// Waits for changes. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Batch {
        match self {
            Source::Folder(folder) => {
                let changes = folder.next().await;
                Batch {
                    changes,
                    in_sync: Kind::ALL.map(Kind::in_model).to_vec(),
                    received: Instant::now(),
                }
            }
            Source::Api(api) => api.next().await,
        }
    }

    /// What is known of it, for people.
    pub fn status(&self) -> SourceStatus {
        match self {
            Source::Folder(_) => SourceStatus {
                place: self.place(),
                ..SourceStatus::default()
            },
            Source::Api(api) => api.status(),
        }
    }

    /// The state of each kind that is followed, also while the source is used elsewhere.
    pub fn states(&self) -> States {
        match self {
            Source::Folder(_) => States::default(),
            Source::Api(api) => api.states().clone(),
        }
    }

    /// Where Events on objects go: to the API server, if the objects are its.
    pub fn events(&self, node: &str) -> Events {
        match self {
            Source::Folder(_) => Events::default(),
            Source::Api(api) => Events::start(Arc::clone(api.link()), node),
        }
    }

    /// Where conditions of objects go: to the API server, if the objects are its.
    pub fn conditions(&self, node: &str) -> Conditions {
        match self {
            Source::Folder(_) => Conditions::default(),
            Source::Api(api) => Conditions::start(Arc::clone(api.link()), node),
        }
    }

    /// Where the versions of objects can be asked for.
    pub fn versions(&self) -> Versions {
        match self {
            Source::Folder(_) => Versions::default(),
            Source::Api(api) => Versions::new(Arc::clone(api.link())),
        }
    }

    /// What is wrong with what was read.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Source::Folder(folder) => folder.problems(),
            Source::Api(api) => api.problems(),
        }
    }

    /// The documents that are left out.
    pub fn skipped(&self) -> Vec<Skipped> {
        match self {
            Source::Folder(folder) => folder.skipped(),
            Source::Api(_) => Vec::new(),
        }
    }
}

/// What a source says.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is to be as it is here.
    Apply {
        /// The object.
        object: Arc<Object>,
        /// Where it was read.
        origin: Origin,
    },
    /// The object is gone.
    Delete(ObjectKey),
}

impl Change {
    /// The policy that is applied, if it is one.
    pub fn policy(&self) -> Option<Arc<Object>> {
        match self {
            Self::Apply { object, .. } if object.kind().is_policy() => Some(Arc::clone(object)),
            Self::Apply { .. } | Self::Delete(_) => None,
        }
    }
}
