use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;

#[derive(Deserialize, Debug, PartialEq, Default)]
#[serde(default)]
struct Thing {
    name: Option<String>,
    count: i64,
    on: bool,
    labels: BTreeMap<String, String>,
    parts: Vec<Thing>,
}

fn read(text: &str) -> Read<Thing> {
    Node::parse(text)
        .and_then(|node| node.read())
        .expect("a thing")
}

fn fault(text: &str) -> String {
    let fault = Node::parse(text)
        .and_then(|node| node.read::<Thing>())
        .map(|read| read.value);
    fault.expect_err(text).to_string()
}

#[test]
fn values_keep_their_types_and_text() {
    let thing = read("name: x\ncount: 3\non: true\nlabels: {a: yes, b: 010, c: 'true', d: 1.0}\nparts:\n- name: y\n").value;
    assert_eq!(
        (thing.name.as_deref(), thing.count, thing.on),
        (Some("x"), 3, true)
    );
    let labels: Vec<&str> = thing.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["yes", "010", "true", "1.0"]);
    assert_eq!(thing.parts[0].name.as_deref(), Some("y"));
}

#[test]
fn null_is_absent_for_options() {
    assert_eq!(read("name:\n").value.name, None);
    assert_eq!(read("name: ~\n").value.name, None);
    assert_eq!(read("name: ''\n").value.name.as_deref(), Some(""));
}

#[test]
fn unknown_fields_have_paths() {
    let read = read("nam: x\nparts:\n- count: 1\n- conut: {deep: [1]}\n");
    assert_eq!(read.unknown, ["nam", "parts[1].conut"]);
}

#[test]
fn faults_have_line_and_path() {
    for (text, expected) in [
        (
            "name: x\ncount: eighty\n",
            "line 2: count: invalid type: string \"eighty\", expected a whole number",
        ),
        (
            "parts:\n- name: x\n- on: maybe\n",
            "line 3: parts[1].on: invalid type: string \"maybe\", expected a boolean",
        ),
        (
            "parts: 3\n",
            "line 1: parts: invalid type: integer `3`, expected a sequence",
        ),
        (
            "name: [a]\n",
            "line 1: name: invalid type: sequence, expected a string",
        ),
        (
            "count: '3'\n",
            "line 1: count: invalid type: string \"3\", expected a whole number",
        ),
    ] {
        assert_eq!(fault(text), expected);
    }
}

#[test]
fn broken_text_has_a_line() {
    assert!(
        fault("name: x\ncount: [1\n").starts_with("line "),
        "{}",
        fault("name: x\ncount: [1\n")
    );
    assert_eq!(
        fault("name: x\nname: y\n"),
        "line 2: the key \"name\" is given twice"
    );
    assert_eq!(fault("# nothing\n"), "line 1: empty");
    assert!(fault("name: x\n---\nname: y\n").contains("a second document"));
}

#[test]
fn json_is_yaml() {
    let thing = read("{\"name\": \"x\",\n\t\"count\": 3, \"labels\": {\"a\": \"\\u00e9\"}}").value;
    assert_eq!((thing.name.as_deref(), thing.count), (Some("x"), 3));
    assert_eq!(thing.labels["a"], "\u{e9}");
}

#[test]
fn anchors_aliases_and_merges() {
    let thing = read("labels: &l {a: b}\nparts:\n- labels: *l\n- labels: {<<: *l, c: d}\n").value;
    assert_eq!(thing.parts[0].labels, thing.labels);
    assert_eq!(thing.parts[1].labels.len(), 2);
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!(
            "a{level}: &a{level} [{}]\n",
            [before.as_str(); 10].join(", ")
        ));
    }
    assert!(fault(&text).contains("the aliases stand for too much"));
}
