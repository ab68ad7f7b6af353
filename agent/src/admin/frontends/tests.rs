use super::*;

#[test]
fn what_nobody_serves_is_told_with_what_becomes_of_it() {
    let serving = |refused, dropped| eval::Serving {
        service: Default::default(),
        backends: Vec::new(),
        refused,
        dropped,
    };
    let told = |serving: &eval::Serving| {
        let classes = classes(serving, &Names::default()).into_iter();
        classes
            .map(|class| (class.percent, class.backends.len(), class.dropped))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&serving(1.0, 0.0)), [(100.0, 0, false)]);
    assert_eq!(told(&serving(0.0, 1.0)), [(100.0, 0, true)]);
    assert_eq!(
        told(&serving(0.25, 0.75)),
        [(25.0, 0, false), (75.0, 0, true)]
    );
}
