//! Routes as they are written: the Gateway API's HTTPRoute, TCPRoute and UDPRoute, and Istio's
//! VirtualService and DestinationRule.
//!
//! Every field of their schemas is named, so that a misspelt one is told from one that is known and
//! not supported; the values of the latter are kept as they came.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::{ObjectMeta, Unused, schema};

schema! {
    /// An HTTPRoute (Gateway API, GEP-1426 for Services as parents).
    HttpRoute {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: HttpRouteSpec,
        /// Not read.
        status: Unused,
    }

    /// A TCPRoute or UDPRoute.
    L4Route {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: L4RouteSpec,
        /// Not read.
        status: Unused,
    }

    /// The `spec` of an HTTPRoute.
    HttpRouteSpec {
        /// What the route is attached to.
        parent_refs: Vec<ParentRef>,
        /// Host names; without meaning for Services (GEP-1294).
        hostnames: Vec<String>,
        /// The rules.
        rules: Vec<HttpRouteRule>,
        /// Not supported.
        use_default_gateways: Option<Value>,
    }

    /// The `spec` of a TCPRoute or UDPRoute.
    L4RouteSpec {
        /// What the route is attached to.
        parent_refs: Vec<ParentRef>,
        /// The rules; one at most is meaningful.
        rules: Vec<L4RouteRule>,
        /// Not supported.
        use_default_gateways: Option<Value>,
    }

    /// A parent of a route.
    ParentRef {
        /// API group: absent means the Gateway API's.
        group: Option<String>,
        /// Kind: absent means Gateway.
        kind: Option<String>,
        /// Namespace: absent means the route's.
        namespace: Option<String>,
        /// Name.
        name: String,
        /// Name of a section of the parent.
        section_name: Option<String>,
        /// Port: absent means all ports.
        port: Option<i32>,
    }

    /// A rule of an HTTPRoute.
    HttpRouteRule {
        /// Name.
        name: Option<String>,
        /// Conditions, of which one must hold; none means always.
        matches: Vec<HttpRouteMatch>,
        /// Filters.
        filters: Vec<Value>,
        /// Backends with weights.
        backend_refs: Vec<BackendRef>,
        /// Time-outs.
        timeouts: Option<Value>,
        /// Retries.
        retry: Option<Value>,
        /// Session persistence.
        session_persistence: Option<Value>,
    }

    /// A condition of an HTTPRoute's rule.
    HttpRouteMatch {
        /// Path; absent means every path.
        path: Option<PathMatch>,
        /// Headers.
        headers: Vec<Value>,
        /// Query parameters.
        query_params: Vec<Value>,
        /// Method.
        method: Option<String>,
    }

    /// A path condition.
    PathMatch {
        /// `Exact`, `PathPrefix` (the default) or `RegularExpression`.
        r#type: Option<String>,
        /// The value; absent means `/`.
        value: Option<String>,
    }

    /// A rule of a TCPRoute or UDPRoute.
    L4RouteRule {
        /// Name.
        name: Option<String>,
        /// Backends with weights.
        backend_refs: Vec<BackendRef>,
    }

    /// A backend of a route.
    BackendRef {
        /// API group: absent means the core group.
        group: Option<String>,
        /// Kind: absent means Service.
        kind: Option<String>,
        /// Namespace: absent means the route's.
        namespace: Option<String>,
        /// Name.
        name: String,
        /// Port of the Service.
        port: Option<i32>,
        /// Weight: absent means 1.
        weight: Option<i64>,
        /// Filters.
        filters: Vec<Value>,
    }

    /// A VirtualService.
    VirtualService {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: VirtualServiceSpec,
        /// Not read.
        status: Unused,
    }

    /// The `spec` of a VirtualService.
    VirtualServiceSpec {
        /// Hosts: Services by their names, short or full.
        hosts: Vec<String>,
        /// Gateways: absent means `mesh`.
        gateways: Vec<String>,
        /// HTTP rules, of which the first that matches holds.
        http: Vec<HttpRule>,
        /// TLS rules.
        tls: Vec<Value>,
        /// TCP rules, of which the first that matches holds.
        tcp: Vec<TcpRule>,
        /// Namespaces the object is for.
        export_to: Vec<String>,
    }

    /// An HTTP rule of a VirtualService.
    HttpRule {
        /// Name.
        name: Option<String>,
        /// Conditions, of which one must hold; none means always.
        r#match: Vec<BTreeMap<String, Value>>,
        /// Destinations with weights.
        route: Vec<RouteDestination>,
        /// Redirect.
        redirect: Option<Value>,
        /// Direct response.
        direct_response: Option<Value>,
        /// Delegate.
        delegate: Option<Value>,
        /// Rewrite.
        rewrite: Option<Value>,
        /// Time-out.
        timeout: Option<Value>,
        /// Retries.
        retries: Option<Value>,
        /// Fault injection.
        fault: Option<Value>,
        /// Mirror.
        mirror: Option<Value>,
        /// Share that is mirrored, in percent.
        mirror_percent: Option<Value>,
        /// Share that is mirrored.
        mirror_percentage: Option<Value>,
        /// Mirrors.
        mirrors: Vec<Value>,
        /// CORS policy.
        cors_policy: Option<Value>,
        /// Header operations.
        headers: Option<Value>,
    }

    /// A TCP rule of a VirtualService.
    TcpRule {
        /// Conditions, of which one must hold; none means always.
        r#match: Vec<BTreeMap<String, Value>>,
        /// Destinations with weights.
        route: Vec<RouteDestination>,
    }

    /// A destination of a VirtualService's rule.
    RouteDestination {
        /// Where to.
        destination: Destination,
        /// Weight; a single destination without one takes everything.
        weight: Option<i64>,
        /// Header operations.
        headers: Option<Value>,
    }

    /// A Service, or a subset of its pods.
    Destination {
        /// The Service by its name, short or full.
        host: String,
        /// Name of the subset.
        subset: Option<String>,
        /// Port of the Service.
        port: Option<DestinationPort>,
    }

    /// A port of a destination.
    DestinationPort {
        /// The number.
        number: Option<i32>,
    }

    /// A DestinationRule.
    DestinationRule {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: DestinationRuleSpec,
        /// Not read.
        status: Unused,
    }

    /// The `spec` of a DestinationRule.
    DestinationRuleSpec {
        /// The Service by its name, short or full.
        host: String,
        /// Traffic policy; not supported.
        traffic_policy: Option<Value>,
        /// The subsets.
        subsets: Vec<Subset>,
        /// Namespaces the object is for.
        export_to: Vec<String>,
        /// Clients the object is for; not supported.
        workload_selector: Option<Value>,
    }

    /// A subset of a Service's pods.
    Subset {
        /// Name.
        name: String,
        /// Labels the pods have.
        labels: BTreeMap<String, String>,
        /// Traffic policy; not supported.
        traffic_policy: Option<Value>,
    }
}
