//! Istio's VirtualService with its DestinationRules, reduced to what holds per connection.

use std::collections::BTreeMap;

use dataplane_model::snapshot::{
    self as model, Labels, Route, RouteClass, RouteKind, RouteParent, RouteRule, RouteTarget,
    Selector,
};
use serde_json::Value;

use super::fields::{self, Fault, Note};
use super::{L7_PROXY, model_key};
use crate::source::ObjectKey;
use crate::source::routes::{
    Destination, DestinationRule, HttpRule, RouteDestination, Subset, VirtualService,
};

/// Labels whose value is a subset's name where no DestinationRule defines the subset.
const SUBSET_LABELS: [&str; 2] = ["version", "track"];

/// A VirtualService: its first rules without conditions divide the connections.
pub fn virtual_service(
    key: &ObjectKey,
    service: &VirtualService,
    rules: &[(&ObjectKey, &DestinationRule)],
    notes: &mut Vec<Note>,
) -> Result<Option<Route>, Fault> {
    let spec = &service.spec;
    let for_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == "mesh");
    if !for_mesh {
        notes.push(Note::new(
            "spec.gateways",
            "does not list mesh: the object is for gateways only",
            "it has no effect here",
        ));
        return Ok(None);
    }
    if !spec.tls.is_empty() {
        notes.push(Note::unsupported("spec.tls"));
    }
    if spec.export_to.iter().any(|name| name != "*") {
        notes.push(Note::new(
            "spec.exportTo",
            "not supported yet",
            "the object is for the clients of every namespace",
        ));
    }
    let hosts = hosts(key, &spec.hosts)?;
    let mut reader = Reader {
        key,
        rules,
        hosts: &hosts,
        notes,
        found: Vec::new(),
    };
    for (index, rule) in spec.http.iter().enumerate() {
        reader.http(&format!("spec.http[{index}]"), rule)?;
    }
    for (index, rule) in spec.tcp.iter().enumerate() {
        let field = format!("spec.tcp[{index}]");
        if let Some(ports) = reader.ports(&field, &rule.r#match)? {
            reader.add(&field, ports, &rule.route)?;
        }
    }
    let found = std::mem::take(&mut reader.found);
    if found.is_empty() {
        notes.push(Note::new(
            "spec",
            format!("no rule without conditions: {L7_PROXY}"),
            "connections are divided evenly among the Service's own endpoints",
        ));
        return Ok(None);
    }
    let created = fields::created(&service.metadata)?;
    let kind = RouteKind::VirtualService;
    Ok(Some(Route {
        kind,
        key: model_key(key),
        created,
        rules: found,
    }))
}

/// The Services of these hosts.
fn hosts(key: &ObjectKey, hosts: &[String]) -> Result<Vec<model::ObjectKey>, Fault> {
    if hosts.is_empty() {
        return Err(Fault::new(
            "spec.hosts",
            "missing: name the Services that the rules are for",
        ));
    }
    let named = hosts.iter().enumerate();
    named
        .map(|(index, host)| host_service(&format!("spec.hosts[{index}]"), key, host))
        .collect()
}

/// The Service of a host: `name` in the object's namespace, `name.namespace`, or a full name.
fn host_service(field: &str, key: &ObjectKey, host: &str) -> Result<model::ObjectKey, Fault> {
    let mut parts = host.split('.');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next();
    let rest: Vec<_> = parts.collect();
    let is_service = matches!(rest[..], [] | ["svc"] | ["svc", _, ..]);
    let clean = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !is_service || !clean(name) || !namespace.is_none_or(clean) {
        return Err(Fault::new(
            field,
            format!(
                "{host:?} is not the name of a Service: write name, name.namespace or name.namespace.svc.cluster.local"
            ),
        ));
    }
    Ok(model::ObjectKey::new(
        namespace.unwrap_or(&key.namespace),
        name,
    ))
}

struct Reader<'a, 'n> {
    key: &'a ObjectKey,
    rules: &'a [(&'a ObjectKey, &'a DestinationRule)],
    hosts: &'a [model::ObjectKey],
    notes: &'n mut Vec<Note>,
    found: Vec<RouteRule>,
}

impl Reader<'_, '_> {
    fn http(&mut self, field: &str, rule: &HttpRule) -> Result<(), Fault> {
        let Some(ports) = self.ports(field, &rule.r#match)? else {
            return Ok(());
        };
        let others = [
            ("redirect", rule.redirect.is_some()),
            ("directResponse", rule.direct_response.is_some()),
            ("delegate", rule.delegate.is_some()),
            ("rewrite", rule.rewrite.is_some()),
            ("timeout", rule.timeout.is_some()),
            ("retries", rule.retries.is_some()),
            ("fault", rule.fault.is_some()),
            ("mirror", rule.mirror.is_some()),
            ("mirrorPercent", rule.mirror_percent.is_some()),
            ("mirrorPercentage", rule.mirror_percentage.is_some()),
            ("mirrors", !rule.mirrors.is_empty()),
            ("corsPolicy", rule.cors_policy.is_some()),
            ("headers", rule.headers.is_some()),
        ];
        for (name, _) in others.into_iter().filter(|(_, used)| *used) {
            self.notes.push(Note::new(
                format!("{field}.{name}"),
                L7_PROXY,
                "it has no effect; the weights hold",
            ));
        }
        if rule.route.is_empty() {
            self.notes.push(Note::new(
                format!("{field}.route"),
                "missing",
                "the rule has no effect",
            ));
            return Ok(());
        }
        self.add(field, ports, &rule.route)
    }

    /// The ports that a rule takes every connection of (`None`: all of them); or nothing, if each
    /// of its conditions needs more than that.
    fn ports(
        &mut self,
        field: &str,
        conditions: &[BTreeMap<String, Value>],
    ) -> Result<Option<Vec<Option<u16>>>, Fault> {
        if conditions.is_empty() {
            return Ok(Some(vec![None]));
        }
        let mut ports = Vec::new();
        let mut others: Vec<String> = Vec::new();
        for (index, condition) in conditions.iter().enumerate() {
            let named = condition
                .keys()
                .filter(|name| !matches!(name.as_str(), "port" | "name"));
            let named: Vec<_> = named.map(String::as_str).collect();
            if !named.is_empty() {
                others.push(describe(condition));
                continue;
            }
            ports.push(match condition.get("port") {
                None => None,
                Some(value) => {
                    let field = format!("{field}.match[{index}].port");
                    let number = value.as_i64().unwrap_or(0);
                    Some(fields::port(&field, number)?)
                }
            });
        }
        if !others.is_empty() {
            self.notes.push(Note::new(
                format!("{field}.match"),
                format!("conditions on {}: {L7_PROXY}", others.join("; ")),
                "they have no effect; the rule without conditions holds for every connection",
            ));
        }
        Ok((!ports.is_empty()).then_some(ports))
    }

    fn add(
        &mut self,
        field: &str,
        ports: Vec<Option<u16>>,
        routes: &[RouteDestination],
    ) -> Result<(), Fault> {
        let covered = |port: Option<u16>| {
            let parents = self.found.iter().flat_map(|rule| &rule.parents);
            parents
                .into_iter()
                .any(|parent| parent.port.is_none() || parent.port == port)
        };
        let ports: Vec<_> = ports.into_iter().filter(|&port| !covered(port)).collect();
        if ports.is_empty() {
            self.notes.push(Note::new(
                field,
                "an earlier rule takes every connection",
                "this one has no effect",
            ));
            return Ok(());
        }
        let mut classes = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let field = format!("{field}.route[{index}]");
            if route.headers.is_some() {
                self.notes.push(Note::new(
                    format!("{field}.headers"),
                    L7_PROXY,
                    "it has no effect; the weight holds",
                ));
            }
            let weight = match route.weight {
                Some(weight) => weight,
                None if routes.len() == 1 => 1,
                None => 0,
            };
            let weight = u32::try_from(weight).map_err(|_| {
                Fault::new(
                    format!("{field}.weight"),
                    format!("{weight} is out of range: give 0 or more"),
                )
            })?;
            let target = self.target(&field, &route.destination)?;
            classes.push(RouteClass { weight, target });
        }
        if classes.iter().all(|class| class.weight == 0) {
            return Err(Fault::new(
                format!("{field}.route"),
                "all weights are 0 or missing: give at least one destination a weight",
            ));
        }
        let parents = self.hosts.iter().flat_map(|service| {
            ports.iter().map(move |&port| RouteParent {
                service: service.clone(),
                port,
            })
        });
        let rule = RouteRule::new(parents.collect(), classes)
            .map_err(|error| Fault::new(format!("{field}.route"), error.to_string()))?;
        self.found.push(rule);
        Ok(())
    }

    fn target(&mut self, field: &str, destination: &Destination) -> Result<RouteTarget, Fault> {
        let service = host_service(
            &format!("{field}.destination.host"),
            self.key,
            &destination.host,
        )?;
        let number = destination.port.as_ref().and_then(|port| port.number);
        let port = number
            .map(|number| fields::port(&format!("{field}.destination.port.number"), number))
            .transpose()?;
        let Some(name) = &destination.subset else {
            return Ok(RouteTarget::Service { service, port });
        };
        if let Some(subset) = self.subset(&service, name) {
            let any_of = vec![Selector::from(&fields::labels(&subset.labels))];
            return Ok(RouteTarget::Subset {
                service,
                port,
                any_of,
            });
        }
        let defines_others = self
            .rules_of(&service)
            .any(|rule| !rule.spec.subsets.is_empty());
        if defines_others {
            self.notes.push(Note::new(
                format!("{field}.destination.subset"),
                format!("no DestinationRule of {service} has a subset {name:?}: add it there"),
                "its share is refused",
            ));
            return Ok(RouteTarget::Invalid);
        }
        self.notes.push(Note::new(
            format!("{field}.destination.subset"),
            format!("no DestinationRule defines the subset {name:?} of {service}"),
            format!("it is the pods whose label `version` or `track` is {name:?}"),
        ));
        let labelled =
            |label: &str| Selector::from(&Labels::from([(label.into(), name.as_str().into())]));
        let any_of = SUBSET_LABELS.into_iter().map(labelled).collect();
        Ok(RouteTarget::Subset {
            service,
            port,
            any_of,
        })
    }

    fn rules_of(&self, service: &model::ObjectKey) -> impl Iterator<Item = &DestinationRule> {
        let rules = self.rules.iter().filter(move |(key, rule)| {
            host_service("spec.host", key, &rule.spec.host).is_ok_and(|host| host == *service)
        });
        rules.map(|(_, rule)| *rule)
    }

    fn subset(&self, service: &model::ObjectKey, name: &str) -> Option<&Subset> {
        let mut subsets = self.rules_of(service).flat_map(|rule| &rule.spec.subsets);
        subsets.find(|subset| subset.name == name)
    }
}

/// A condition in a few words: `headers (canary)`.
fn describe(condition: &BTreeMap<String, Value>) -> String {
    let part = |(name, value): (&String, &Value)| match value.as_object() {
        Some(fields) if matches!(name.as_str(), "headers" | "queryParams" | "withoutHeaders") => {
            let names = fields.keys().map(String::as_str).collect::<Vec<_>>();
            format!("{name} ({})", names.join(", "))
        }
        _ => name.clone(),
    };
    condition.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// What of a DestinationRule is read and not supported.
pub fn destination_rule(
    key: &ObjectKey,
    rule: &DestinationRule,
    notes: &mut Vec<Note>,
) -> Result<(), Fault> {
    host_service("spec.host", key, &rule.spec.host)?;
    if rule.spec.traffic_policy.is_some() {
        notes.push(Note::unsupported("spec.trafficPolicy"));
    }
    if rule.spec.workload_selector.is_some() {
        notes.push(Note::unsupported("spec.workloadSelector"));
    }
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        if subset.traffic_policy.is_some() {
            notes.push(Note::unsupported(format!(
                "spec.subsets[{index}].trafficPolicy"
            )));
        }
        if subset.name.is_empty() {
            return Err(Fault::new(
                format!("spec.subsets[{index}].name"),
                "missing: name the subset",
            ));
        }
    }
    Ok(())
}
