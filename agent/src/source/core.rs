//! Kubernetes' own objects as they are written.

use super::schema::{IntOrString, LabelSelector, ObjectMeta, schema};

impl Endpoint {
    /// True if it takes connections.
    pub fn is_ready(&self) -> bool {
        self.conditions.ready != Some(false)
    }
}

/// Label of an EndpointSlice that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

schema! {
    /// `v1` Namespace.
    Namespace {
        /// `metadata`.
        metadata: ObjectMeta,
    }
    unused { api_version, kind, spec, status }

    /// `v1` Node.
    Node {
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: NodeSpec,
        /// `status`.
        status: NodeStatus,
    }
    unused { api_version, kind }

    /// The `spec` of a Node.
    NodeSpec {
        /// Taints.
        taints: Vec<Taint>,
        /// Prefixes of its pods' addresses.
        #[serde(rename = "podCIDRs")]
        pod_cidrs: Vec<String>,
        /// The first of them.
        #[serde(rename = "podCIDR")]
        pod_cidr: Option<String>,
    }
    unused {
        config_source, #[serde(rename = "externalID")] external_id,
        #[serde(rename = "providerID")] provider_id, unschedulable,
    }

    /// A taint of a Node.
    Taint {
        /// Its name.
        key: String,
    }
    unused { effect, time_added, value }

    /// The `status` of a Node.
    NodeStatus {
        /// Addresses.
        addresses: Vec<NodeAddress>,
    }
    unused {
        allocatable, capacity, conditions, config, daemon_endpoints, declared_features, features,
        images, node_info, phase, runtime_handlers, volumes_attached, volumes_in_use,
    }

    /// An address of a Node.
    NodeAddress {
        /// The address.
        address: String,
        /// `InternalIP`, `ExternalIP`, `Hostname` and others.
        r#type: String,
    }

    /// `v1` Pod.
    Pod {
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: PodSpec,
        /// `status`.
        status: PodStatus,
    }
    unused { api_version, kind }

    /// The `spec` of a Pod.
    PodSpec {
        /// Its node's name.
        node_name: Option<String>,
        /// It uses its node's network namespace.
        host_network: bool,
        /// Containers.
        containers: Vec<Container>,
        /// Init containers.
        init_containers: Vec<Container>,
    }
    unused {
        active_deadline_seconds, affinity, automount_service_account_token, dns_config, dns_policy,
        enable_service_links, ephemeral_containers, host_aliases, #[serde(rename = "hostIPC")] host_ipc,
        #[serde(rename = "hostPID")] host_pid, host_users, hostname, hostname_override,
        image_pull_secrets, node_selector, os, overhead, preemption_policy, priority,
        priority_class_name, readiness_gates, resource_claims, resources, restart_policy,
        runtime_class_name, scheduler_name, scheduling_gates, scheduling_group, security_context,
        service_account, service_account_name, #[serde(rename = "setHostnameAsFQDN")] set_hostname_as_fqdn,
        share_process_namespace, subdomain, termination_grace_period_seconds, tolerations,
        topology_spread_constraints, volumes, workload_ref,
    }

    /// A container.
    Container {
        /// Its name.
        name: String,
        /// `Always` makes an init container run beside the others.
        restart_policy: Option<String>,
        /// Ports.
        ports: Vec<ContainerPort>,
    }
    unused {
        args, command, env, env_from, image, image_pull_policy, lifecycle, liveness_probe,
        readiness_probe, resize_policy, resources, restart_policy_rules, security_context,
        startup_probe, stdin, stdin_once, termination_message_path, termination_message_policy, tty,
        volume_devices, volume_mounts, working_dir,
    }

    /// A port of a container.
    ContainerPort {
        /// The number.
        container_port: i64,
        /// The name.
        name: Option<String>,
        /// The protocol.
        protocol: Option<String>,
    }
    unused { #[serde(rename = "hostIP")] host_ip, host_port }

    /// The `status` of a Pod.
    PodStatus {
        /// The phase.
        phase: Option<String>,
        /// Its address.
        #[serde(rename = "podIP")]
        pod_ip: Option<String>,
        /// Its addresses, one of each family.
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        /// Conditions.
        conditions: Vec<Condition>,
    }
    unused {
        allocated_resources, container_statuses, ephemeral_container_statuses,
        extended_resource_claim_status, #[serde(rename = "hostIP")] host_ip,
        #[serde(rename = "hostIPs")] host_ips, init_container_statuses, message, nominated_node_name,
        observed_generation, qos_class, reason, resize, resource_claim_statuses, resources, start_time,
    }

    /// An address of a Pod.
    PodIp {
        /// The address.
        ip: String,
    }

    /// A condition.
    Condition {
        /// The condition's name.
        r#type: String,
        /// `True`, `False` or `Unknown`.
        status: String,
    }
    unused { last_probe_time, last_transition_time, message, observed_generation, reason }

    /// `v1` Service.
    Service {
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: ServiceSpec,
        /// `status`.
        status: ServiceStatus,
    }
    unused { api_version, kind }

    /// The `status` of a Service.
    ServiceStatus {
        /// What its load balancer is.
        load_balancer: LoadBalancerStatus,
    }
    unused { conditions }

    /// The load balancer of a Service.
    LoadBalancerStatus {
        /// Where it takes connections.
        ingress: Vec<LoadBalancerIngress>,
    }

    /// An address of a load balancer.
    LoadBalancerIngress {
        /// The address.
        ip: Option<String>,
        /// `VIP`, the default, or `Proxy`.
        ip_mode: Option<String>,
    }
    unused { hostname, ports }

    /// The `spec` of a Service.
    ServiceSpec {
        /// The type.
        r#type: Option<String>,
        /// Labels of its pods.
        selector: std::collections::BTreeMap<String, String>,
        /// Its address, or `None`.
        #[serde(rename = "clusterIP")]
        cluster_ip: Option<String>,
        /// Its addresses, one of each family.
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        /// Ports.
        ports: Vec<ServicePort>,
        /// For clients in the cluster.
        internal_traffic_policy: Option<String>,
        /// For clients outside.
        external_traffic_policy: Option<String>,
        /// `None` or `ClientIP`.
        session_affinity: Option<String>,
        /// Its settings.
        session_affinity_config: SessionAffinityConfig,
        /// Endpoints count as ready whatever their pods say.
        publish_not_ready_addresses: bool,
        /// Addresses outside.
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        /// Who may use the load balancer.
        load_balancer_source_ranges: Vec<String>,
        /// Port of the health check.
        health_check_node_port: i64,
    }
    unused {
        allocate_load_balancer_node_ports, external_name, ip_families, ip_family_policy,
        load_balancer_class, #[serde(rename = "loadBalancerIP")] load_balancer_ip,
        traffic_distribution,
    }

    /// Settings of affinity.
    SessionAffinityConfig {
        /// Of ClientIP.
        #[serde(rename = "clientIP")]
        client_ip: ClientIpConfig,
    }

    /// Settings of ClientIP affinity.
    ClientIpConfig {
        /// How long it lasts.
        timeout_seconds: Option<i64>,
    }

    /// A port of a Service.
    ServicePort {
        /// The name.
        name: Option<String>,
        /// The protocol.
        protocol: Option<String>,
        /// The number.
        port: i64,
        /// The endpoints' port.
        target_port: Option<IntOrString>,
        /// The nodes' port.
        node_port: Option<i64>,
    }
    unused { app_protocol }

    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice {
        /// `metadata`.
        metadata: ObjectMeta,
        /// `IPv4`, `IPv6` or `FQDN`.
        address_type: String,
        /// Endpoints.
        endpoints: Vec<Endpoint>,
        /// Ports that each endpoint has.
        ports: Vec<EndpointPort>,
    }
    unused { api_version, kind }

    /// An endpoint.
    Endpoint {
        /// Its addresses, of which the first counts.
        addresses: Vec<String>,
        /// Conditions.
        conditions: EndpointConditions,
        /// Its node.
        node_name: Option<String>,
        /// For whom it is.
        hints: EndpointHints,
    }
    unused { deprecated_topology, hostname, target_ref, zone }

    /// Clients that an endpoint is for.
    EndpointHints {
        /// Those in these zones.
        for_zones: Vec<Hint>,
        /// Those on these nodes.
        for_nodes: Vec<Hint>,
    }

    /// A zone or node of a hint.
    Hint {
        /// Its name.
        name: String,
    }

    /// Conditions of an endpoint.
    EndpointConditions {
        /// It is to be used.
        ready: Option<bool>,
        /// It answers.
        serving: Option<bool>,
        /// It goes.
        terminating: Option<bool>,
    }

    /// A port of a slice.
    EndpointPort {
        /// The Service port's name.
        name: Option<String>,
        /// The protocol.
        protocol: Option<String>,
        /// The number.
        port: Option<i64>,
    }
    unused { app_protocol }

    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy {
        /// `metadata`.
        metadata: ObjectMeta,
        /// `spec`.
        spec: NetworkPolicySpec,
    }
    unused { api_version, kind, status }

    /// The `spec` of a NetworkPolicy.
    NetworkPolicySpec {
        /// The pods it isolates.
        pod_selector: LabelSelector,
        /// Directions.
        policy_types: Vec<String>,
        /// What its pods may receive.
        ingress: Vec<IngressRule>,
        /// What its pods may send.
        egress: Vec<EgressRule>,
    }

    /// A rule for what pods receive.
    IngressRule {
        /// Peers.
        from: Vec<PolicyPeer>,
        /// Ports.
        ports: Vec<PolicyPort>,
    }

    /// A rule for what pods send.
    EgressRule {
        /// Peers.
        to: Vec<PolicyPeer>,
        /// Ports.
        ports: Vec<PolicyPort>,
    }

    /// A peer of a rule.
    PolicyPeer {
        /// Pods.
        pod_selector: Option<LabelSelector>,
        /// Their namespaces.
        namespace_selector: Option<LabelSelector>,
        /// Addresses.
        ip_block: Option<IpBlock>,
    }

    /// A block of addresses.
    IpBlock {
        /// The block.
        cidr: String,
        /// Parts of it that are left out.
        except: Vec<String>,
    }

    /// A port of a rule.
    PolicyPort {
        /// The protocol.
        protocol: Option<String>,
        /// The port, or the name of a container port.
        port: Option<IntOrString>,
        /// The last port of a range.
        end_port: Option<i64>,
    }
}
