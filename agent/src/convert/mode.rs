//! The annotation that puts policies in audit.

use dataplane_model::snapshot::PolicyMode;

use super::fields::Note;
use crate::source::schema::ObjectMeta;

/// The annotation of policies, and of namespaces for their NetworkPolicies.
const ANNOTATION: &str = "sluice.dev/policy-mode";

/// What an object's annotation says; `None` without one, or with one that is not known.
pub fn of(metadata: &ObjectMeta, notes: &mut Vec<Note>) -> Option<PolicyMode> {
    match metadata.annotations.get(ANNOTATION)?.as_str() {
        "enforce" => Some(PolicyMode::Enforce),
        "audit" => Some(PolicyMode::Audit),
        other => {
            notes.push(Note::new(
                format!("metadata.annotations[{ANNOTATION}]"),
                format!("{other:?} is unknown: write enforce or audit"),
                "it counts as absent",
            ));
            None
        }
    }
}
