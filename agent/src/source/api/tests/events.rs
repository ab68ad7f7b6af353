//! Events on objects.

use serde_json::Value;

use super::server::Asked;
use super::*;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/";
const LISTS: &str = "/api/v1/namespaces/shop/services?fieldSelector=metadata.name%3Dweb";

fn told(note: &str) -> Told {
    Told {
        object: ObjectKey::new(Kind::Service, Some("shop"), "web"),
        reason: "AddressConflict",
        note: note.to_owned(),
    }
}

/// A server that answers Events with these codes in turn, and the last for ever.
async fn server(codes: &'static [u16]) -> Server {
    let mut codes = codes.iter();
    let mut last = 201;
    Server::start(move |target| {
        if target.starts_with(LISTS) {
            let list = r#"{"items":[{"metadata":{"uid":"u-1"}}]}"#;
            return Some(Answer::good(list.to_owned()));
        }
        target.starts_with(EVENTS).then(|| {
            last = codes.next().copied().unwrap_or(last);
            match last {
                201 => Answer::Whole(201, "", "{}".to_owned()),
                code => Answer::refused(code),
            }
        })
    })
    .await
}

async fn posted(server: &Server, count: usize) -> Vec<(Asked, Value)> {
    let asked = server.await_asked("POST", EVENTS, count).await;
    let bodies = asked.into_iter().map(|asked| {
        let body = serde_json::from_str(&asked.body).expect("JSON");
        (asked, body)
    });
    bodies.collect()
}

async fn events(server: &Server) -> Events {
    let link = Link::new(server.access()).await.expect("a link");
    Events::start(link, "node-1")
}

#[tokio::test]
async fn what_is_told_is_posted_once_on_its_object() {
    let server = server(&[]).await;
    let events = events(&server).await;
    events.tell(told("first"));
    events.tell(told("first"));
    events.tell(told("second"));
    let posted = posted(&server, 2).await;
    let notes: Vec<_> = posted.iter().map(|(_, body)| &body["note"]).collect();
    assert_eq!(notes, ["first", "second"]);
    let (asked, event) = &posted[0];
    let at = "/apis/events.k8s.io/v1/namespaces/shop/events";
    assert_eq!((&*asked.method, &*asked.target), ("POST", at));
    let regarding = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "web", "uid": "u-1",
    });
    assert_eq!(event["regarding"], regarding);
    assert_eq!(event["reason"], "AddressConflict");
    assert_eq!(event["reportingInstance"], "node-1");
    assert_eq!(event["metadata"]["namespace"], "shop");
    let text = event["eventTime"].as_str().expect("a time");
    assert_eq!(text.len(), "2026-01-31T08:00:00.000000Z".len(), "{text}");
    assert_ne!(event["metadata"]["name"], posted[1].1["metadata"]["name"]);
}

#[tokio::test]
async fn an_event_that_is_there_already_is_told() {
    let server = server(&[409, 201]).await;
    let events = events(&server).await;
    events.tell(told("first"));
    events.tell(told("second"));
    assert_eq!(posted(&server, 2).await.len(), 2);
    events.tell(told("first"));
    events.tell(told("third"));
    let posted = posted(&server, 3).await;
    assert_eq!(
        posted[2].1["note"], "third",
        "the first is not posted again"
    );
}

#[tokio::test]
async fn a_server_that_fails_is_asked_again_and_one_that_refuses_is_not() {
    let server = server(&[503, 201, 403, 201]).await;
    let events = events(&server).await;
    events.tell(told("first"));
    events.tell(told("second"));
    events.tell(told("third"));
    let posted = posted(&server, 4).await;
    let notes: Vec<_> = posted.iter().map(|(_, body)| &body["note"]).collect();
    assert_eq!(notes, ["first", "first", "second", "third"]);
}

#[tokio::test]
async fn whoever_tells_never_waits_and_without_a_server_nothing_happens() {
    let server = Server::start(|_| Some(Answer::Silence)).await;
    let events = events(&server).await;
    for number in 0..2_000 {
        events.tell(told(&number.to_string()));
    }
    Events::default().tell(told("nowhere"));
}
