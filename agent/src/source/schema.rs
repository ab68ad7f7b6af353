//! How objects are declared as they are written.
//!
//! Every field of an object's schema is named, so that a misspelt one is told from one that is known
//! and not needed ([`Unused`]). `null` is the same as an absent field: the API server writes it for
//! empty lists.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// Declares structs whose fields may all be absent or null.
macro_rules! schema {
    ($(
        $(#[doc = $doc:expr])+
        $name:ident {
            $($(#[doc = $field_doc:expr])+ $(#[serde(rename = $rename:literal)])? $field:ident: $ty:ty,)*
        }
        $(unused { $($(#[serde(rename = $unused_rename:literal)])? $unused:ident),* $(,)? })?
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, PartialEq, Debug, Default, serde::Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub struct $name {
                $(
                    $(#[doc = $field_doc])+
                    #[serde($(rename = $rename,)? deserialize_with = "crate::source::schema::or_default")]
                    pub $field: $ty,
                )*
                $($(
                    /// Not needed.
                    $(#[serde(rename = $unused_rename)])?
                    pub $unused: crate::source::schema::Unused,
                )*)?
            }
        )+
    };
}
pub(crate) use schema;

/// Reads a field whose `null` is the same as its absence.
pub fn or_default<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}

/// A field that is known and not needed, whatever it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unused;

impl<'de> Deserialize<'de> for Unused {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Unused)
    }
}

impl<'de> Visitor<'de> for Unused {
    type Value = Unused;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_none<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Self, D::Error> {
        Unused::deserialize(input)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Unused>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Unused, Unused>()?.is_some() {}
        Ok(self)
    }
}

schema! {
    /// Metadata of any object.
    ObjectMeta {
        /// The name.
        name: Option<String>,
        /// The namespace.
        namespace: Option<String>,
        /// The uid.
        uid: Option<String>,
        /// Changes with each version of the object.
        resource_version: Option<String>,
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// Changes with each version of the `spec`.
        generation: Option<i64>,
        /// When it was created (RFC 3339).
        creation_timestamp: Option<String>,
        /// When its deletion was asked for (RFC 3339).
        deletion_timestamp: Option<String>,
    }
    unused {
        deletion_grace_period_seconds, finalizers, generate_name, managed_fields,
        owner_references, self_link,
    }

    /// A label selector.
    LabelSelector {
        /// Labels and their values.
        match_labels: BTreeMap<String, String>,
        /// Requirements.
        match_expressions: Vec<LabelSelectorRequirement>,
    }

    /// A requirement of a label selector.
    LabelSelectorRequirement {
        /// The label.
        key: String,
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        operator: String,
        /// Values.
        values: Vec<String>,
    }
}

/// A number, or a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name.
    String(String),
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a name")
            }

            fn visit_i64<E>(self, number: i64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(i64::try_from(number).unwrap_or(i64::MAX)))
            }

            fn visit_str<E>(self, name: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(name.to_owned()))
            }
        }
        input.deserialize_any(Either)
    }
}
