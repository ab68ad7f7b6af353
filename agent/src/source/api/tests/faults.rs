//! Faults of the server and of what stands between.

use super::*;

/// A namespace `a`, and then what `then` says.
fn after_first(
    then: impl Fn(&str, usize) -> Answer + Send + 'static,
) -> impl FnMut(&str) -> Option<Answer> + Send + 'static {
    let mut count = 0;
    move |target| {
        if !is_namespaces(target) {
            return None;
        }
        count += 1;
        Some(match count {
            1 => Answer::Ended(vec![event("ADDED", "a", 1) + &bookmark(3, true)]),
            _ => then(target, count),
        })
    }
}

#[tokio::test]
async fn a_server_that_ends_each_watch_at_once_is_asked_less_and_less_often() {
    let mut world = World::new(after_first(|_, _| Answer::Ended(Vec::new()))).await;
    world.until("in sync", World::is_in_sync).await;
    let started = tokio::time::Instant::now();
    world
        .until("a second", |_| started.elapsed() > Duration::from_secs(1))
        .await;
    let requests = world.server.times("/api/v1/namespaces");
    let last = requests.iter().filter(|(at, _)| *at > started).count();
    // Each pause is 40 to 80 ms by then.
    assert!((5..=26).contains(&last), "{last} requests in a second");
}

#[tokio::test]
async fn headers_that_never_come_are_asked_for_again() {
    let mut world = World::new(after_first(|_, count| match count {
        2 => Answer::Silence,
        _ => Answer::Open(vec![event("ADDED", "b", 4)]),
    }))
    .await;
    world
        .until("the change", |w| w.namespaces() == ["a@1", "b@4"])
        .await;
    assert_eq!(world.state(Kind::Namespace).failures, 1);
}

#[tokio::test]
async fn a_reset_resumes_after_the_last_event() {
    let mut world = World::new(after_first(|target, count| match count {
        2 => Answer::Broken(vec![event("ADDED", "b", 7)]),
        3 => Answer::Reset,
        _ if resumed_at(target) == Some("7") => Answer::Open(vec![event("ADDED", "c", 8)]),
        _ => Answer::Open(Vec::new()),
    }))
    .await;
    world
        .until("the change", |w| w.namespaces() == ["a@1", "b@7", "c@8"])
        .await;
    let lists = world.server.requests("/api/v1/namespaces");
    assert_eq!(lists.iter().filter(|target| is_stream(target)).count(), 1);
}

#[tokio::test]
async fn versions_that_are_gone_lead_to_a_full_list_in_both_forms() {
    for as_event in [true, false] {
        let mut world = World::new(after_first(move |target, _| match target {
            _ if is_stream(target) => {
                Answer::Open(vec![event("ADDED", "b", 9) + &bookmark(10, true)])
            }
            _ if as_event => Answer::Ended(vec![error_event(410)]),
            _ => Answer::refused(410),
        }))
        .await;
        world
            .until("the new list", |w| w.namespaces() == ["b@9"])
            .await;
        assert!(world.state(Kind::Namespace).failure.is_none());
    }
}

#[tokio::test]
async fn bookmarks_alone_move_the_place_where_a_watch_is_resumed() {
    let mut world = World::new(after_first(|target, count| match count {
        2 => Answer::Ended(vec![bookmark(40, false), bookmark(50, false)]),
        _ if resumed_at(target) == Some("50") => Answer::Open(vec![event("ADDED", "b", 51)]),
        _ => Answer::Open(Vec::new()),
    }))
    .await;
    world
        .until("the change", |w| w.namespaces() == ["a@1", "b@51"])
        .await;
}

#[tokio::test]
async fn a_silent_watch_is_not_believed_for_ever() {
    // As after etcd was restored: the version is one of the future, and nothing ever comes.
    let mut world = World::new(after_first(|target, _| {
        if is_stream(target) {
            Answer::Open(vec![event("ADDED", "b", 1) + &bookmark(2, true)])
        } else {
            Answer::Open(Vec::new())
        }
    }))
    .await;
    world
        .until("the new list", |w| w.namespaces() == ["b@1"])
        .await;
}

#[tokio::test]
async fn events_that_come_again_or_out_of_order_do_not_bring_the_past_back() {
    let mut world = World::new(after_first(|_, _| {
        Answer::Open(vec![
            event("ADDED", "b", 5) + &event("MODIFIED", "b", 7),
            event("MODIFIED", "b", 6) + &event("MODIFIED", "b", 7) + &event("DELETED", "b", 4),
            event("ADDED", "z", 8),
        ])
    }))
    .await;
    world
        .until("the last change", |w| w.objects.contains_key("Namespace z"))
        .await;
    assert_eq!(world.namespaces(), ["a@1", "b@7", "z@8"]);
    let of_b = world
        .changes
        .iter()
        .filter(|change| change.contains("Namespace b"))
        .count();
    assert_eq!(of_b, 2);
}

#[tokio::test]
async fn garbage_ends_a_watch_and_is_read_again_from_before_it() {
    let mut world = World::new(after_first(|target, count| match count {
        2 => Answer::Open(vec![
            event("ADDED", "b", 4),
            "{\"type\":\"ADD\0\n".to_owned(),
        ]),
        3 => Answer::Open(vec!["<html>hello</html>\n".to_owned()]),
        _ if resumed_at(target) == Some("4") => Answer::Open(vec![event("ADDED", "c", 6)]),
        _ => Answer::Open(Vec::new()),
    }))
    .await;
    world
        .until("the change", |w| w.namespaces() == ["a@1", "b@4", "c@6"])
        .await;
    assert_eq!(world.state(Kind::Namespace).failures, 2);
}

#[tokio::test]
async fn garbage_that_stays_is_passed_by_with_a_full_list() {
    let mut world = World::new(after_first(|target, _| {
        if is_stream(target) {
            Answer::Open(vec![event("ADDED", "b", 9) + &bookmark(10, true)])
        } else {
            Answer::Open(vec!["garbage\n".to_owned()])
        }
    }))
    .await;
    world
        .until("the new list", |w| w.namespaces() == ["b@9"])
        .await;
}

#[tokio::test]
async fn what_is_forbidden_is_named_with_its_remedy_and_holds_only_itself_up() {
    let (allow, is_allowed) = tokio::sync::watch::channel(false);
    let mut world = World::new(move |target| {
        (is_namespaces(target) && !*is_allowed.borrow()).then(|| Answer::refused(403))
    })
    .await;
    world.until("the others", |w| w.in_sync.len() == 6).await;
    world
        .until("the failure", |w| {
            w.state(Kind::Namespace).failure.is_some()
        })
        .await;
    let state = world.state(Kind::Namespace);
    let failure = state.failure.expect("a failure");
    assert!(
        failure.contains("403") && failure.contains("get, list and watch namespaces"),
        "{failure}"
    );
    assert_eq!(state.phase, Phase::Retrying);
    assert!(!world.is_in_sync());
    allow.send_replace(true);
    world.until("in sync", World::is_in_sync).await;
    assert!(world.state(Kind::Namespace).failure.is_none());
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is() {
    let mut count = 0;
    let mut world = World::new(move |target| {
        if !is_namespaces(target) {
            return None;
        }
        count += 1;
        (count == 1).then(|| Answer::Whole(429, "retry-after: 1\r\n", String::new()))
    })
    .await;
    world.until("in sync", World::is_in_sync).await;
    let times = world.server.times("/api/v1/namespaces");
    // At most twice the longest pause: 160 ms.
    let waited = times[1].0 - times[0].0;
    assert!(waited >= Duration::from_millis(155), "{waited:?}");
}
