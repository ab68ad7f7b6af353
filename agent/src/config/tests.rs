use super::*;

fn file(text: &str) -> File {
    match file::read(text).expect("a file") {
        file::Text::Own(file) => *file,
        file::Text::KubeProxy(_) => panic!("{text} is kube-proxy's"),
    }
}

fn args() -> AgentArgs {
    AgentArgs {
        manifests: Some("/m".into()),
        ..AgentArgs::default()
    }
}

fn settings(args: AgentArgs, file: File) -> Result<Settings, Error> {
    let file = file.under(File::from_args(args, None)?);
    let surroundings = Surroundings {
        host_name: Some("host".to_owned()),
        ..Surroundings::default()
    };
    Settings::new(file, surroundings)
}

#[test]
fn defaults() {
    let settings = settings(args(), File::default()).expect("settings");
    assert_eq!(settings.node_name, "host");
    assert_eq!(settings.bpffs, std::path::Path::new(DEFAULT_BPFFS));
    assert_eq!(settings.socket, std::path::Path::new(DEFAULT_SOCKET));
    assert!(settings.services && settings.policy && settings.redirect && settings.socket_lb);
    assert_eq!(settings.snat_ports, (61_000, 65_535));
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let file =
        || file("nodeName: from-file\nbpffs: /file\nservices: off\npolicy: off\nuplinks: [eth0]\n");
    let given = AgentArgs {
        node_name: Some("from-flag".into()),
        services: Some("on".into()),
        ..args()
    };
    let settings = settings(given, file()).expect("settings");
    assert_eq!(settings.node_name, "from-flag");
    assert_eq!(settings.bpffs, std::path::Path::new("/file"));
    assert!(settings.services && !settings.policy);
    assert_eq!(settings.uplinks, ["eth0"]);
}

#[test]
fn the_environment_goes_before_the_file() {
    // A test cannot set variables without harm to others; clap puts them between the two.
    let command = <crate::args::Cli as clap::CommandFactory>::command();
    let agent = command.find_subcommand("agent").expect("the command");
    let variable = |id: &str| {
        agent
            .get_arguments()
            .find(|arg| arg.get_id() == id)
            .and_then(|arg| arg.get_env())
    };
    assert_eq!(variable("node_name"), Some("NODE_NAME".as_ref()));
    assert_eq!(variable("manifests"), Some("SLUICE_MANIFESTS".as_ref()));
}

#[test]
fn unknown_settings_are_errors() {
    let error = file::read("nodeNam: x\n").expect_err("an unknown field");
    let text = error.to_string();
    assert!(
        text.contains("nodeNam") && text.contains("line 1"),
        "{text}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let args = AgentArgs {
        config: Some("/nonexistent.yaml".into()),
        ..args()
    };
    let error = Settings::load(&args, None)
        .expect_err("no file")
        .to_string();
    assert!(
        error.contains("/nonexistent.yaml") && error.contains("--config"),
        "{error}"
    );
}

#[test]
fn bad_values_name_the_setting_and_the_remedy() {
    for (text, expected) in [
        (
            "services: maybe",
            "services: \"maybe\" is not known: write on or off",
        ),
        (
            "policy: audit",
            "policy: \"audit\" is not known: write enforce or off",
        ),
        ("snatPorts: 60000", "write one like 61000-65535"),
        ("snatPorts: 70-80", "from 1024 on"),
        (
            "nodePortAddresses: [10.0.0.1]",
            "\"10.0.0.1\" is not a block of addresses",
        ),
        (
            "mapCapacities: {flows: 3}",
            "\"flows\" is not known: write one of services",
        ),
        (
            "mapCapacities: {events: 3}",
            "events: 3 is not a power of two",
        ),
        ("halfOpen: {perPod: 0}", "give perPod at least 1"),
        (
            "liveFlows: cut",
            "liveFlows: \"cut\" is not known: write recheck or keep",
        ),
    ] {
        let error = settings(args(), file(text)).expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_missing_source_is_an_error_with_its_remedies() {
    let error = settings(AgentArgs::default(), File::default()).expect_err("no source");
    let text = error.to_string();
    assert!(
        text.contains("--manifests DIR") && text.contains("--kubeconfig FILE"),
        "{text}"
    );
}

#[test]
fn the_source_is_the_folder_else_the_kubeconfig_else_what_a_pod_is_given() {
    let of = |manifests: Option<&str>, flag: Option<&str>, variable: Option<&str>, in_pod| {
        let file = File {
            manifests: manifests.map(Into::into),
            kubeconfig: flag.map(Into::into),
            ..File::default()
        };
        let surroundings = Surroundings {
            host_name: Some("host".to_owned()),
            kubeconfig: variable.map(Into::into),
            in_pod,
        };
        Settings::new(file, surroundings).expect("settings").source
    };
    let api = |kubeconfig: Option<&str>| {
        SourceSettings::Api(Access {
            kubeconfig: kubeconfig.map(Into::into),
            api_server: None,
        })
    };
    let folder = SourceSettings::Manifests("/m".into());
    assert_eq!(of(Some("/m"), Some("/k"), Some("/e"), true), folder);
    assert_eq!(of(None, Some("/k"), Some("/e"), true), api(Some("/k")));
    assert_eq!(of(None, None, Some("/e"), true), api(Some("/e")));
    assert_eq!(of(None, None, None, true), api(None));
}

#[test]
fn capacities_of_flags_go_before_those_of_the_file() {
    let given = AgentArgs {
        map_capacity: Some(vec!["conntrack=1024".into()]),
        ..args()
    };
    let settings =
        settings(given, file("mapCapacities: {conntrack: 5, rows: 7}")).expect("settings");
    let expected = [("ct4", 1024), ("ct6", 1024), ("rows", 7)];
    let expected = expected.map(|(name, entries)| (name.to_owned(), entries));
    assert_eq!(settings.capacities(None), BTreeMap::from(expected));
}

#[test]
fn the_maps_of_pods_have_the_place_that_the_programs_know() {
    let error = settings(args(), file("mapCapacities: {subjects: 1024}")).expect_err("a constant");
    assert!(error.to_string().contains("\"subjects\" is not known"));
}

#[test]
fn bind_addresses_may_lack_a_port_or_be_off() {
    for (text, expected) in [
        ("1.2.3.4:5", Some("1.2.3.4:5")),
        ("1.2.3.4", Some("1.2.3.4:10256")),
        ("\"[::1]:5\"", Some("[::1]:5")),
        ("\"[::1]\"", Some("[::1]:10256")),
        ("\"::\"", Some("[::]:10256")),
        ("off", None),
        ("\"\"", None),
    ] {
        let settings = settings(args(), file(&format!("healthzBindAddress: {text}")));
        let address = settings
            .expect(text)
            .healthz
            .map(|address| address.to_string());
        assert_eq!(address.as_deref(), expected, "{text}");
    }
    let error = settings(args(), file("metricsBindAddress: here")).expect_err("no address");
    assert!(
        error
            .to_string()
            .contains("metricsBindAddress: \"here\" is not an address")
    );
}

#[test]
fn the_effective_settings_are_a_file_that_asks_for_them() {
    let asked = "nodePortAddresses: [primary]\nmasqueradeAll: true\nhealthzBindAddress: off\n\
        snatPorts: 50000-50100\nmapCapacities: {conntrack: 5}\nhalfOpen: {perPod: 3}\n\
        logFormat: json\noomScoreAdj: -999\nservices: off\n";
    for text in ["", asked] {
        let before = settings(args(), file(text)).expect("settings");
        let printed = serde_saphyr::to_string(&File::from(&before)).expect("YAML");
        let after =
            Settings::new(file(&printed), Surroundings::default()).expect("the same settings");
        assert_eq!(before, after, "{printed}");
    }
}

#[test]
fn xdp_is_one_of_four() {
    let set = |text: &str| settings(args(), file(&format!("xdp: {text}\n")));
    assert_eq!(set("generic").expect("settings").xdp, XdpSetting::Generic);
    assert_eq!(set("\"off\"").expect("settings").xdp, XdpSetting::Off);
    let error = set("fast").expect_err("no such mode").to_string();
    assert!(error.starts_with("xdp: \"fast\" is not known"), "{error}");
}
