//! The Gateway API's routes, reduced to what holds per connection.

use dataplane_model::snapshot::{
    self as model, Route, RouteClass, RouteKind, RouteParent, RouteRule, RouteTarget,
};

use super::fields::{self, Fault, Note};
use super::{L7_PROXY, model_key};
use crate::source::ObjectKey;
use crate::source::routes::{
    BackendRef, HttpRoute, HttpRouteMatch, HttpRouteRule, L4Route, ParentRef,
};

/// Greatest weight (Gateway API).
const MAX_WEIGHT: i64 = 1_000_000;

/// An HTTPRoute: its rule without conditions divides the connections.
pub fn http_route(
    key: &ObjectKey,
    route: &HttpRoute,
    notes: &mut Vec<Note>,
) -> Result<Option<Route>, Fault> {
    let parents = parents(key, &route.spec.parent_refs, notes)?;
    if parents.is_empty() {
        return Ok(None);
    }
    if route.spec.use_default_gateways.is_some() {
        notes.push(Note::unsupported("spec.useDefaultGateways"));
    }
    let mut rules = Vec::new();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let field = format!("spec.rules[{index}]");
        if !note_l7(&field, rule, notes) {
            continue;
        }
        if !rules.is_empty() {
            notes.push(Note::new(
                field,
                "an earlier rule takes every request",
                "this one has no effect",
            ));
        } else if rule.backend_refs.is_empty() {
            notes.push(Note::new(
                format!("{field}.backendRefs"),
                "empty",
                "the rule has no effect",
            ));
        } else {
            rules.push(self::rule(
                key,
                &field,
                &parents,
                &rule.backend_refs,
                notes,
            )?);
        }
    }
    if rules.is_empty() {
        notes.push(Note::new(
            "spec.rules",
            format!("no rule without conditions: {L7_PROXY}"),
            "connections are divided evenly among the Service's own endpoints",
        ));
        return Ok(None);
    }
    let kind = RouteKind::Http;
    let created = fields::created(&route.metadata)?;
    Ok(Some(Route {
        kind,
        key: model_key(key),
        created,
        rules,
    }))
}

/// A TCPRoute or UDPRoute.
pub fn l4_route(
    key: &ObjectKey,
    kind: RouteKind,
    route: &L4Route,
    notes: &mut Vec<Note>,
) -> Result<Option<Route>, Fault> {
    let parents = parents(key, &route.spec.parent_refs, notes)?;
    if parents.is_empty() {
        return Ok(None);
    }
    if route.spec.use_default_gateways.is_some() {
        notes.push(Note::unsupported("spec.useDefaultGateways"));
    }
    let Some((first, others)) = route.spec.rules.split_first() else {
        return Err(Fault::new(
            "spec.rules",
            "missing: a route needs a rule with backendRefs",
        ));
    };
    if !others.is_empty() {
        notes.push(Note::new(
            "spec.rules[1]",
            "the first rule takes every connection",
            "the others have no effect",
        ));
    }
    if first.backend_refs.is_empty() {
        return Err(Fault::new(
            "spec.rules[0].backendRefs",
            "missing: name the Services that share the connections",
        ));
    }
    let rule = rule(key, "spec.rules[0]", &parents, &first.backend_refs, notes)?;
    let created = fields::created(&route.metadata)?;
    Ok(Some(Route {
        kind,
        key: model_key(key),
        created,
        rules: vec![rule],
    }))
}

/// The Services of the same namespace that the route is for.
fn parents(
    key: &ObjectKey,
    refs: &[ParentRef],
    notes: &mut Vec<Note>,
) -> Result<Vec<RouteParent>, Fault> {
    let mut parents = Vec::new();
    for (index, parent) in refs.iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        // Upstream's own page on meshes writes `core` for the core group.
        let core = matches!(parent.group.as_deref(), Some("" | "core"));
        if !core || parent.kind.as_deref() != Some("Service") {
            notes.push(Note::new(
                field,
                "not a Service: write `group: \"\"` and `kind: Service` for one",
                "this parent is left to others",
            ));
            continue;
        }
        if parent.name.is_empty() {
            return Err(Fault::new(
                format!("{field}.name"),
                "missing: name the Service",
            ));
        }
        let namespace = parent.namespace.as_deref().unwrap_or(&key.namespace);
        if namespace != key.namespace {
            notes.push(Note::new(
                format!("{field}.namespace"),
                format!("the Service is in {namespace}: routes for the clients of one namespace are not supported yet"),
                "this parent has no effect",
            ));
            continue;
        }
        if parent.section_name.is_some() {
            notes.push(Note::unsupported(format!("{field}.sectionName")));
        }
        let port = parent
            .port
            .map(|port| fields::port(&format!("{field}.port"), port))
            .transpose()?;
        let service = model::ObjectKey::new(namespace, parent.name.as_str());
        parents.push(RouteParent { service, port });
    }
    Ok(parents)
}

/// Says which parts of a rule need the L7 proxy; true if the rule takes every request.
fn note_l7(field: &str, rule: &HttpRouteRule, notes: &mut Vec<Note>) -> bool {
    let unconditional = rule.matches.is_empty() || rule.matches.iter().any(is_unconditional);
    if !unconditional {
        let named = rule
            .matches
            .iter()
            .flat_map(conditions)
            .collect::<Vec<_>>()
            .join(", ");
        notes.push(Note::new(
            format!("{field}.matches"),
            format!("conditions on {named}: {L7_PROXY}"),
            "the rule has no effect; the rule without conditions holds for every connection",
        ));
        return false;
    }
    let others = [
        ("filters", !rule.filters.is_empty()),
        ("timeouts", rule.timeouts.is_some()),
        ("retry", rule.retry.is_some()),
        ("sessionPersistence", rule.session_persistence.is_some()),
    ];
    for (name, _) in others.into_iter().filter(|(_, used)| *used) {
        notes.push(Note::new(
            format!("{field}.{name}"),
            L7_PROXY,
            "it has no effect; the weights hold",
        ));
    }
    true
}

/// Absent and `PathPrefix /` both take every path.
fn is_unconditional(condition: &HttpRouteMatch) -> bool {
    conditions(condition).is_empty()
}

fn conditions(condition: &HttpRouteMatch) -> Vec<&'static str> {
    let path = condition.path.as_ref().is_some_and(|path| {
        let kind = path.r#type.as_deref().unwrap_or("PathPrefix");
        let value = path.value.as_deref().unwrap_or("/");
        kind != "PathPrefix" || !matches!(value, "/" | "")
    });
    let named = [
        ("path", path),
        ("headers", !condition.headers.is_empty()),
        ("queryParams", !condition.query_params.is_empty()),
        ("method", condition.method.is_some()),
    ];
    named
        .into_iter()
        .filter(|(_, used)| *used)
        .map(|(name, _)| name)
        .collect()
}

fn rule(
    key: &ObjectKey,
    field: &str,
    parents: &[RouteParent],
    refs: &[BackendRef],
    notes: &mut Vec<Note>,
) -> Result<RouteRule, Fault> {
    let mut classes = Vec::new();
    for (index, backend) in refs.iter().enumerate() {
        let field = format!("{field}.backendRefs[{index}]");
        let weight = backend.weight.unwrap_or(1);
        if !(0..=MAX_WEIGHT).contains(&weight) {
            return Err(Fault::new(
                format!("{field}.weight"),
                format!("{weight} is out of range: give 0 to {MAX_WEIGHT}"),
            ));
        }
        if !backend.filters.is_empty() {
            notes.push(Note::new(
                format!("{field}.filters"),
                L7_PROXY,
                "they have no effect; the weight holds",
            ));
        }
        classes.push(RouteClass {
            weight: u32::try_from(weight).unwrap_or(u32::MAX),
            target: target(key, &field, backend, notes)?,
        });
    }
    RouteRule::new(parents.to_vec(), classes)
        .map_err(|error| Fault::new(format!("{field}.backendRefs"), error.to_string()))
}

fn target(
    key: &ObjectKey,
    field: &str,
    backend: &BackendRef,
    notes: &mut Vec<Note>,
) -> Result<RouteTarget, Fault> {
    let core = matches!(backend.group.as_deref(), None | Some("" | "core"));
    if !core
        || backend
            .kind
            .as_deref()
            .is_some_and(|kind| kind != "Service")
    {
        notes.push(Note::new(
            field,
            "not a Service: only Services can be backends",
            "its share is refused",
        ));
        return Ok(RouteTarget::Invalid);
    }
    if backend.name.is_empty() {
        return Err(Fault::new(
            format!("{field}.name"),
            "missing: name the Service",
        ));
    }
    let namespace = backend.namespace.as_deref().unwrap_or(&key.namespace);
    let port = backend
        .port
        .map(|port| fields::port(&format!("{field}.port"), port))
        .transpose()?;
    let service = model::ObjectKey::new(namespace, backend.name.as_str());
    Ok(RouteTarget::Service { service, port })
}
