use super::*;

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn attachment(container: &str, ifindex: u32, uid: &str) -> Attachment {
    Attachment {
        id: AttachmentId {
            container: container.into(),
            interface: "eth0".into(),
        },
        pod: Some(PodName {
            namespace: "shop".into(),
            name: "web".into(),
            uid: uid.into(),
        }),
        ifindex,
        name: format!("veth{ifindex}"),
        mac: [2; 6],
        host_mac: [4; 6],
        addresses: vec![[10, 0, 0, ifindex as u8].into()],
    }
}

fn web(uid: &str, ips: &[IpAddr]) -> Pod {
    Pod {
        uid: uid.into(),
        ips: ips.to_vec(),
        ..Pod::new(ObjectKey::new("shop", "web"))
    }
}

fn applied(pod: Pod) -> Event {
    Event::Apply(Object::Pod(pod))
}

#[test]
fn what_is_taken_in_is_there_after_a_restart_and_gone_when_removed() {
    let folder = folder("attachments");
    let mut attachments = Attachments::load(&folder).unwrap();
    let (one, two) = (attachment("a", 7, "u"), attachment("b", 9, "u"));
    attachments.insert(one.clone()).unwrap();
    attachments.insert(two.clone()).unwrap();
    fs::write(folder.join("bad.json"), "{").unwrap();
    let mut again = Attachments::load(&folder).unwrap();
    assert_eq!(again.ids().collect::<Vec<_>>(), [&one.id, &two.id]);
    assert_eq!(again.by_device(9), Some(&two));
    assert_eq!(
        again.without_device(&BTreeSet::from([9])),
        std::slice::from_ref(&one.id)
    );
    again.remove(&one.id);
    again.remove(&one.id);
    let again = Attachments::load(&folder).unwrap();
    assert_eq!(again.ids().collect::<Vec<_>>(), [&two.id]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn ids_that_would_leave_the_folder_are_refused() {
    let folder = folder("attachments-ids");
    let mut attachments = Attachments::load(&folder).unwrap();
    for (container, ifindex) in [("../../x", 7), ("a/b", 7), ("", 7), ("a", 0)] {
        let refused = attachments.insert(attachment(container, ifindex, ""));
        assert_eq!(refused.unwrap_err().code, code::ENVIRONMENT);
    }
    assert!(!folder.exists());
}

#[test]
fn a_pod_has_the_addresses_of_its_attachments_whatever_comes_first() {
    let folder = folder("attachments-pods");
    let mut attachments = Attachments::load(&folder).unwrap();
    let given: Vec<IpAddr> = vec![[10, 0, 0, 7].into()];
    let old: Vec<IpAddr> = vec![[10, 0, 0, 99].into()];
    // The pod is known first.
    let pod = web("u", &[]);
    assert_eq!(
        attachments.complete(applied(pod.clone())),
        applied(pod.clone())
    );
    attachments.insert(attachment("a", 7, "u")).unwrap();
    assert_eq!(attachments.pod(&pod), applied(web("u", &given)));
    // It comes again, still with a former address; another of that name has nothing of it.
    assert_eq!(
        attachments.complete(applied(web("u", &old))),
        applied(web("u", &given))
    );
    let event = attachments.remove(&attachment("a", 7, "u").id);
    assert_eq!(event, Some(applied(web("u", &old))));
    attachments.insert(attachment("a", 7, "u")).unwrap();
    assert_eq!(
        attachments.complete(applied(web("v", &old))),
        applied(web("v", &old))
    );
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_device_is_what_its_attachment_says() {
    let folder = folder("attachments-devices");
    let mut attachments = Attachments::load(&folder).unwrap();
    attachments.insert(attachment("a", 7, "u")).unwrap();
    let mut host = attachment("b", 8, "");
    host.pod = None;
    attachments.insert(host).unwrap();
    let seen = |ifindex| Interface {
        ifindex,
        addresses: vec![[10, 0, 0, 1].into()],
        host_mac: [6; 6],
        closed: true,
        late: true,
        ..Interface::default()
    };
    let device = attachments.device(seen(7), true);
    assert!(!attachments.device(seen(7), false).closed);
    let expected = Interface {
        ifindex: 7,
        addresses: vec![[10, 0, 0, 7].into()],
        mac: [2; 6],
        host_mac: [6; 6],
        closed: true,
        pod: Some(web("u", &[])).map(|pod| PodRef {
            key: pod.key,
            uid: pod.uid,
        }),
        ..Interface::default()
    };
    assert_eq!(device, expected);
    // Who is no pod has no policy to wait for.
    let container = attachments.device(seen(8), true);
    assert_eq!((container.closed, container.pod), (false, None));
    assert_eq!(attachments.device(seen(9), true), seen(9));
    fs::remove_dir_all(folder).unwrap();
}
