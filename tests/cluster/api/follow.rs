//! What a real API server says.

use super::*;

#[tokio::test]
async fn services_that_are_not_ours_are_not_seen_and_come_and_go_with_their_labels() {
    let server = ApiServer::start(&[]);
    server.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: mine}\nspec: {ports: [{port: 80}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: headless}\nspec: {clusterIP: None, ports: [{port: 80}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: other, labels: {service.kubernetes.io/service-proxy-name: x}}\nspec: {ports: [{port: 80}]}\n",
    );
    let mut world = World::synced(server.access(server.address())).await;
    let services: Vec<_> = world
        .objects
        .iter()
        .filter(|object| object.starts_with("Service"))
        .collect();
    assert_eq!(
        services,
        ["Service default/kubernetes", "Service default/mine"]
    );
    server.kubectl(&[
        "label",
        "service",
        "mine",
        "service.kubernetes.io/service-proxy-name=x",
    ]);
    world
        .until("it goes", |world| {
            !world.objects.contains("Service default/mine")
        })
        .await;
    server.kubectl(&[
        "label",
        "service",
        "mine",
        "service.kubernetes.io/service-proxy-name-",
    ]);
    world.has("Service default/mine").await;
}

#[tokio::test]
async fn an_empty_slice_is_read() {
    let server = ApiServer::start(&[]);
    let mut world = World::synced(server.access(server.address())).await;
    server.apply(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: empty}\naddressType: IPv4\nendpoints: []\nports: []\n",
    );
    world.has("EndpointSlice default/empty").await;
    assert_eq!(world.api.problems(), []);
}

#[tokio::test]
async fn a_kind_that_is_installed_later_is_followed() {
    let server = ApiServer::start(&[]);
    let mut world = World::synced(server.access(server.address())).await;
    server.apply(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata: {name: httproutes.gateway.networking.k8s.io, annotations: {api-approved.kubernetes.io: unapproved}}\n\
         spec: {group: gateway.networking.k8s.io, scope: Namespaced, names: {plural: httproutes, singular: httproute, kind: HTTPRoute}, \
         versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}\n",
    );
    server.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/httproutes.gateway.networking.k8s.io",
    ]);
    server.apply("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec: {}\n");
    world.has("HTTPRoute default/r").await;
    server.kubectl(&["delete", "crd", "httproutes.gateway.networking.k8s.io"]);
    world
        .until("it goes", |world| {
            !world.objects.contains("HTTPRoute default/r")
        })
        .await;
}
