//! Where objects come from: sources read them and tell what is to be applied or deleted.

pub mod core;
pub mod manifests;
mod object;
pub mod routes;
pub mod schema;

pub use object::{Kind, Object, ObjectKey, Origin, Problem};

/// What a source says.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is to be as it is here.
    Apply {
        /// The object.
        object: std::sync::Arc<Object>,
        /// Where it was read.
        origin: Origin,
    },
    /// The object is gone.
    Delete(ObjectKey),
}
