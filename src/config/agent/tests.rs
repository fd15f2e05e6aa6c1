use super::*;

fn document(text: &str) -> Document {
    Document::read(text, &|_| None).unwrap()
}

fn resolve(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Agent {
    let files: Vec<(String, Document)> = files
        .iter()
        .map(|(path, text)| ((*path).to_owned(), document(text)))
        .collect();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Agent::resolve(&files, &Environment::of(variables))
}

#[test]
fn the_later_file_wins_and_variables_win_over_files() {
    let files = [
        (
            "/trains.conf",
            "agent { git_user: a, git_pass: pa, cuda_version: 112 }",
        ),
        (
            "/clearml.conf",
            "agent.git_user = b\nagent {\n  cpu_only: true }",
        ),
    ];
    let agent = resolve(&files, &[("CLEARML_CUDA_VERSION", "12.4")]);
    assert_eq!(agent.text("agent.git_user").as_deref(), Some("b"));
    assert_eq!(
        agent.origin("agent.git_user").to_string(),
        "/clearml.conf, line 1"
    );
    assert_eq!(agent.text("agent.git_pass").as_deref(), Some("pa"));
    assert!(agent.flag("agent.cpu_only"));
    assert_eq!(agent.text("agent.cuda_version").as_deref(), Some("12.4"));
    assert_eq!(
        agent.origin("agent.cuda_version"),
        &From::Variable("CLEARML_CUDA_VERSION".into())
    );
    assert!(!agent.is_set("agent.force_git_ssh_user"));
    assert_eq!(
        agent.text("agent.force_git_ssh_user").as_deref(),
        Some("git")
    );
}

#[test]
fn any_key_has_a_variable_and_old_prefixes_count() {
    let agent = resolve(
        &[("/clearml.conf", "agent.package_manager.extra_index_url: []")],
        &[
            (
                "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__EXTRA_INDEX_URL",
                "[\"http://a\", \"http://b\"]",
            ),
            ("CLEARML_AGENT__AGENT__NO_SUCH", "1"),
            ("TRAINS_AGENT_GIT_USER", "old"),
            ("JARVIS_AGENT_GIT_HOST", "older"),
            ("CLEARML_AGENT_GIT_PASS", "a\\\\b\\t#c //d\"e"),
            ("CLEARML_AGENT_FORCE_UV", "1"),
            ("CLEARML_AGENT_FORCE_POETRY", "0"),
        ],
    );
    assert_eq!(
        agent.list("agent.package_manager.extra_index_url"),
        ["http://a", "http://b"]
    );
    assert_eq!(agent.text("agent.git_user").as_deref(), Some("old"));
    assert_eq!(agent.text("agent.git_host").as_deref(), Some("older"));
    assert_eq!(
        agent.text("agent.git_pass").as_deref(),
        Some("a\\\\b\\t#c //d\"e"),
        "a password stands as it is"
    );
    assert_eq!(
        agent.text("agent.package_manager.type").as_deref(),
        Some("uv")
    );
    assert_eq!(agent.unknown.len(), 1);
    assert_eq!(agent.unknown[0].0, "agent.no_such");
}

#[test]
fn a_variable_that_looks_like_a_number_keeps_its_digits() {
    for text in [
        "7.50",
        "1e5",
        "+7",
        "12345678901234567890123",
        "0118",
        "118",
    ] {
        let agent = resolve(&[], &[("CLEARML_AGENT_GIT_PASS", text)]);
        assert_eq!(agent.text("agent.git_pass").as_deref(), Some(text));
    }
}

#[test]
fn unknown_keys_of_the_agent_are_named_and_free_ones_are_not() {
    let text = "agent {\n  git_usr: x\n  git.extra_credentials: [{user: a, pass: b, host: c}]\n  default_docker.match_rules: []\n}\nsdk { anything: 1 }";
    let agent = resolve(&[("/clearml.conf", text)], &[]);
    let unknown: Vec<String> = agent
        .unknown
        .iter()
        .map(|(key, from)| format!("{key} ({from})"))
        .collect();
    assert_eq!(unknown, ["agent.git_usr (/clearml.conf, line 2)"]);
}

#[test]
fn s53_what_is_shown_has_origins_and_no_secret() {
    let text = "api.credentials { access_key: canary-1, secret_key: canary-2 }\nagent {\n git_pass: canary-3\n\
        package_manager.extra_index_url: [\"https://u:canary-4@index/simple\"]\n git.extra_credentials: [{user: a, pass: canary-5}]\n\
        debug: true\n}";
    let agent = resolve(&[("/clearml.conf", text)], &[]);
    let shown = agent.show(true);
    assert!(!shown.contains("canary"), "{shown}");
    assert!(
        shown.contains("agent.git_pass = \"****\"  # /clearml.conf, line 3\n"),
        "{shown}"
    );
    assert!(shown.contains("[\"https://****@index/simple\"]"), "{shown}");
    assert!(
        shown.contains(
            "agent.debug = true  # /clearml.conf, line 6; without effect: see TRAINYARD_LOG\n"
        ),
        "{shown}"
    );
    assert!(shown.contains("agent.translate_ssh = true  # default\n"));
    assert!(!agent.show(false).contains('#'));
    assert!(!format!("{agent:?}").contains("canary"));
}

#[test]
fn every_key_is_named_once_and_has_a_default_that_can_be_read() {
    let mut paths: Vec<&str> = keys::ALL.iter().map(|key| key.path).collect();
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), count);
    for key in keys::ALL {
        assert!(
            serde_json::from_str::<Value>(key.default).is_ok(),
            "{}",
            key.path
        );
    }
}

/// What is said to have an effect is read by somebody, and what is said to have none is not.
#[test]
fn keys_without_effect_are_those_that_nobody_reads() {
    let sources = [
        include_str!("../../exec/configuration.rs"),
        include_str!("../../exec/configuration/of_git.rs"),
        include_str!("../../exec/configuration/of_torch.rs"),
        include_str!("../../exec/sections.rs"),
        include_str!("../../exec/post.rs"),
        include_str!("../../exec/setup.rs"),
        include_str!("../resolve.rs"),
        include_str!("../settings.rs"),
    ]
    .concat();
    for key in keys::ALL {
        // The executor names those of the package manager by their last part.
        let short = key.path.strip_prefix("agent.package_manager.");
        let read = [Some(key.path), short]
            .into_iter()
            .flatten()
            .any(|name| sources.contains(&format!("\"{name}\"")));
        assert_eq!(key.effect() == Use::Effect, read, "{}", key.path);
    }
}

#[test]
fn what_was_set_to_no_effect_is_named() {
    let agent = resolve(
        &[("/clearml.conf", "agent { worker_id: a, cpu_only: true }")],
        &[],
    );
    let named: Vec<&str> = agent.idle().map(|(path, ..)| path).collect();
    assert_eq!(named, ["agent.worker_id"]);
}
