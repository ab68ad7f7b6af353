//! Settings that change while the agent runs.

use std::fs;

use sluice_lab::wait;

use crate::world::{PATIENCE, World, at, vip};

#[test]
fn another_setting_ends_the_agent_and_is_in_force_when_it_is_started_again() {
    let mut world = World::new();
    world.pod_on_each_node("web");
    world.service("web", vip(1));
    world.await_service(vip(1), 80);
    let mut agent = world.plane.agents.remove(0);
    agent.terminate().unwrap();
    let file = agent.log().with_extension("yaml");
    fs::write(&file, "log: info\n").unwrap();
    let mut agent = agent.with_args(&["--config", &file.display().to_string()]);
    agent.start().unwrap();
    // What cannot be used is told, and changes nothing.
    fs::write(&file, "services: perhaps\n").unwrap();
    wait::until_true(PATIENCE, "a warning", || {
        agent.last_words().contains("the settings in force stay")
    })
    .unwrap();
    assert_eq!(agent.status().unwrap()["modes"]["services"], "on");
    fs::write(&file, "policy: off\n").unwrap();
    let ended = agent.wait_end().unwrap();
    assert!(ended.success(), "{ended}: {}", agent.last_words());
    let words = agent.last_words();
    assert!(
        words.contains("asks for other settings") && words.contains("policy"),
        "{words}"
    );
    for client in world.everywhere() {
        for to in at(vip(1), 80) {
            client.get(to).unwrap();
        }
    }
    agent.start().unwrap();
    assert_eq!(agent.status().unwrap()["modes"]["policy"], "off");
}
