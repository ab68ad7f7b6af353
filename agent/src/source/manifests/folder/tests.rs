use super::*;

const A: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
const A2: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: {v: two}}\n";
const A_BAD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 3}\n";
const B: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: b}\n";

/// Takes a file and returns what changes: `+name` or `-name`.
fn take(folder: &mut Folder, path: &str, text: &str) -> Vec<String> {
    folder.take(&Parsed::new(Path::new(path), text.as_bytes()));
    drain(folder)
}

fn drain(folder: &mut Folder) -> Vec<String> {
    let name = |change: Change| match change {
        Change::Apply { object, .. } => format!("+{}", object.key().name),
        Change::Delete(key) => format!("-{}", key.name),
    };
    folder.drain().into_iter().map(name).collect()
}

fn join(documents: &[&str]) -> String {
    documents.join("---\n")
}

#[test]
fn only_what_differs_is_a_change() {
    let mut folder = Folder::default();
    assert_eq!(take(&mut folder, "x.yaml", &join(&[A, B])), ["+a", "+b"]);
    assert_eq!(take(&mut folder, "x.yaml", &join(&[A2, B])), ["+a"]);
    assert_eq!(take(&mut folder, "x.yaml", &join(&[A2, B])), [""; 0]);
    assert_eq!(take(&mut folder, "x.yaml", B), ["-a"]);
    folder.forget(Path::new("x.yaml"));
    assert_eq!(drain(&mut folder), ["-b"]);
}

#[test]
fn a_bad_document_leaves_its_object_and_the_others() {
    let mut folder = Folder::default();
    take(&mut folder, "x.yaml", &join(&[A, B]));
    let b2 = B.replace("name: b", "name: b, labels: {v: two}");
    assert_eq!(take(&mut folder, "x.yaml", &join(&[A_BAD, &b2])), ["+b"]);
    let [problem] = &folder.problems()[..] else {
        panic!("one problem");
    };
    assert_eq!(
        (problem.origin.line, problem.field.as_str()),
        (4, "spec.ports")
    );
    assert_eq!(problem.effect, "the version read before stays in force");
    assert_eq!(take(&mut folder, "x.yaml", &join(&[A2, &b2])), ["+a"]);
    assert_eq!(folder.problems(), []);
}

#[test]
fn a_broken_document_deletes_nothing() {
    let mut folder = Folder::default();
    take(&mut folder, "x.yaml", &join(&[A, B]));
    assert_eq!(
        take(&mut folder, "x.yaml", &join(&[A, "metadata: [broken\n"])),
        [""; 0]
    );
    assert_eq!(take(&mut folder, "x.yaml", A), ["-b"]);
}

#[test]
fn a_file_cut_short_is_noticed() {
    let mut folder = Folder::default();
    take(&mut folder, "x.yaml", &join(&[A, B]));
    let parsed = |text: &str| Parsed::new(Path::new("x.yaml"), text.as_bytes());
    assert!(folder.would_delete(&parsed("")));
    assert!(folder.would_delete(&parsed(A)));
    assert!(!folder.would_delete(&parsed(&join(&[A2, B]))));
    assert!(!folder.would_delete(&parsed("x: [")));
}

#[test]
fn of_duplicates_the_first_file_holds() {
    let mut folder = Folder::default();
    assert_eq!(take(&mut folder, "b.yaml", A), ["+a"]);
    assert_eq!(take(&mut folder, "a.yaml", A2), ["+a"]);
    let [problem] = &folder.problems()[..] else {
        panic!("one problem");
    };
    assert_eq!(
        problem.to_string(),
        "b.yaml:1: Service default/a: defined in a.yaml:1 too: delete one of the two (the one in a.yaml is in force)"
    );
    folder.forget(Path::new("a.yaml"));
    assert_eq!(drain(&mut folder), ["+a"]);
    assert_eq!(folder.problems(), []);
}

#[test]
fn moving_a_document_between_files_changes_nothing() {
    let mut folder = Folder::default();
    take(&mut folder, "a.yaml", A);
    folder.take(&Parsed::new(Path::new("z.yaml"), A.as_bytes()));
    folder.forget(Path::new("a.yaml"));
    assert_eq!(drain(&mut folder), [""; 0]);
}

#[test]
fn forgetting_a_folder_forgets_its_files() {
    let mut folder = Folder::default();
    take(&mut folder, "d/x.yaml", A);
    take(&mut folder, "d-e.yaml", B);
    folder.forget(Path::new("d"));
    assert_eq!(drain(&mut folder), ["-a"]);
}

#[test]
fn an_unreadable_policy_is_closed_whatever_was_read_before() {
    const GOOD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}}\n";
    const BAD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, ingress: 3}\n";
    let mut folder = Folder::default();
    assert_eq!(take(&mut folder, "p.yaml", BAD), ["+p"]);
    assert_eq!(
        folder.problems()[0].effect,
        "until it can be read, it allows its pods nothing"
    );
    assert_eq!(take(&mut folder, "p.yaml", GOOD), ["+p"]);
    assert_eq!(folder.problems(), []);
    assert_eq!(take(&mut folder, "p.yaml", BAD), ["+p"]);
    assert_eq!(
        folder.problems()[0].effect,
        "until it can be read, it allows its pods nothing"
    );
}

#[test]
fn unknown_fields_and_skipped_kinds_are_reported() {
    let mut folder = Folder::default();
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {portz: 1}\n---\napiVersion: apps/v1\nkind: Deployment\n";
    take(&mut folder, "x.yaml", text);
    assert_eq!(folder.problems()[0].field, "spec.portz");
    let skipped = folder.skipped();
    assert_eq!(
        (skipped[0].kind.as_str(), skipped[0].origin.line),
        ("apps/v1/Deployment", 6)
    );
}

#[test]
fn text_that_is_not_utf8_keeps_what_was_there() {
    let mut folder = Folder::default();
    take(&mut folder, "x.yaml", A);
    folder.take(&Parsed::new(Path::new("x.yaml"), b"a: 1\n\xff\n"));
    assert_eq!(drain(&mut folder), [""; 0]);
    assert_eq!(folder.problems()[0].origin.line, 2);
}
