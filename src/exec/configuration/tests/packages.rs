//! What of the configuration comes to the making of environments, to the run itself, and to its user.

use super::*;
use crate::task::Task;

/// Variables and their values.
type Set = &'static [(&'static str, &'static str)];
/// Text of a configuration, variables beside it, and the value with its source.
type Case = (&'static str, Set, Option<(&'static str, &'static str)>);

/// Whether what came of a text is as expected.
type Holds = fn(&Options) -> bool;

/// Options of a file whose section `agent.package_manager` has this text.
fn options_of(text: &str) -> Options {
    let agent = configured(&format!("agent.package_manager {{ {text} }}"), &[]);
    options_with(&agent, &variables(&[]), false, None)
}

#[test]
fn each_key_of_packages_reaches_its_option() {
    let cases: [(&str, Holds); 29] = [
        ("", |options| {
            let default = Options {
                torch_index: Some(PUBLIC.to_owned()),
                ..Options::default()
            };
            *options == default
        }),
        ("system_site_packages: false", |options| {
            !options.system_site_packages
        }),
        ("force_upgrade: true", |options| options.force_upgrade),
        ("extra_index_url: [\"http://a\", \"http://b\"]", |options| {
            options.extra_index_url == ["http://a", "http://b"]
        }),
        ("extra_index_url: \"http://a\"", |options| {
            options.extra_index_url == ["http://a"]
        }),
        (
            "extra_pip_install_flags: [\"--no-binary\", \"x\"]",
            |options| options.extra_flags == ["--no-binary", "x"],
        ),
        ("extra_pip_install_flags: \"--no-binary x\"", |options| {
            options.extra_flags == ["--no-binary", "x"]
        }),
        ("pip_version: \"<22.3\"", |options| {
            options.pip_version == ["<22.3"]
        }),
        ("pip_version: [\"<22.3\", \">=23\"]", |options| {
            options.pip_version == ["<22.3", ">=23"]
        }),
        ("pip_legacy_resolver: [\"<21\"]", |options| {
            options.legacy_resolver == ["<21"]
        }),
        ("pip_legacy_resolver: []", |options| {
            options.legacy_resolver.is_empty()
        }),
        ("conda_full_env_update: true", |options| {
            options.record_conda
        }),
        ("conda_channels: [mine]", |options| {
            options.conda_channels == ["mine"]
        }),
        ("conda_channels: []", |options| {
            options.conda_channels == Options::default().conda_channels
        }),
        ("priority_packages: [x]", |options| {
            options.priority_packages == ["x"]
        }),
        ("priority_packages: []", |options| {
            options.priority_packages.is_empty()
        }),
        ("priority_optional_packages: [x]", |options| {
            options.priority_optional_packages == ["x"]
        }),
        ("post_packages: [x]", |options| {
            options.post_packages == ["x"]
        }),
        ("post_optional_packages: [x]", |options| {
            options.post_optional_packages == ["x"]
        }),
        (
            "poetry_install_extra_args: [\"--with\", \"x\"]",
            |options| options.poetry_arguments == ["--with", "x"],
        ),
        ("uv_sync_extra_args: [\"--extra\", \"x\"]", |options| {
            options.uv_sync_arguments == ["--extra", "x"]
        }),
        ("uv_run_extra_args: [\"--extra\", \"x\"]", |options| {
            options.uv_run_arguments == ["--extra", "x"] && options.uv_sync_arguments.is_empty()
        }),
        ("uv_sync_locked_if_lock_file: true", |options| {
            options.uv_locked
        }),
        ("uv_sync_locked_if_lock_file: false", |options| {
            !options.uv_locked
        }),
        ("torch_page: \"http://whl/cu{}/torch.html\"", |options| {
            let page = Some("http://whl/{}/torch.html");
            options.torch_page && options.torch_index.as_deref() == page
        }),
        ("uv_unsafe_best_match: true", |options| {
            // No flag: pip itself, and a lock, are given none.
            options.best_match && options.extra_flags.is_empty()
        }),
        ("torch_nightly: true", |options| {
            let nightly = Some("https://download.pytorch.org/whl/nightly/{}");
            options.torch_index.as_deref() == nightly
        }),
        ("pytorch_resolve: none", |options| {
            options.torch_index.is_none()
        }),
        ("pytorch_resolve: direct", |options| {
            options.torch_index.as_deref() == Some(PUBLIC)
        }),
    ];
    for (text, holds) in cases {
        let found = options_of(text);
        assert!(holds(&found), "{text}: {found:?}");
    }
}

#[test]
fn the_cuda_version_that_the_settings_give_comes_with_its_source() {
    for (text, set, expected) in [
        ("", None, None),
        (
            "agent.cuda_version: 124",
            None,
            Some(("124", "agent.cuda_version")),
        ),
        (
            "agent.cuda_version: \"12.4\"",
            None,
            Some(("12.4", "agent.cuda_version")),
        ),
        (
            "agent.cuda_version: 124",
            Some("CLEARML_CUDA_VERSION"),
            Some(("11.8", "CLEARML_CUDA_VERSION")),
        ),
        (
            "",
            Some("TRAINS_CUDA_VERSION"),
            Some(("11.8", "TRAINS_CUDA_VERSION")),
        ),
        // What the image's own libraries are made for.
        ("", Some("CUDA_VERSION"), None),
        (
            "agent { cpu_only: true, cuda_version: 124 }",
            None,
            Some(("0", "agent.cpu_only")),
        ),
    ] {
        let set: Vec<(&str, &str)> = set.into_iter().map(|name| (name, "11.8")).collect();
        let agent = configured(text, &set);
        let found = options_with(&agent, &variables(&set), false, None).cuda;
        let expected = expected.map(|(version, source)| (version.to_owned(), source.to_owned()));
        assert_eq!(found, expected, "{text} {set:?}");
    }
}

#[test]
fn the_version_of_cudnn_that_is_set_comes_with_its_source_and_variables_go_first() {
    let of_file = "agent.cudnn_version: 7.6";
    let cases: [Case; 8] = [
        ("", &[], None),
        (of_file, &[], Some(("7.6", "agent.cudnn_version"))),
        (
            of_file,
            &[("CUDNN_VERSION", "9.5.1.17")],
            Some(("9.5.1.17", "CUDNN_VERSION")),
        ),
        (
            of_file,
            &[("CUDNN_VERSION", " ")],
            Some(("7.6", "agent.cudnn_version")),
        ),
        (
            of_file,
            &[("CLEARML_CUDNN_VERSION", "89"), ("CUDNN_VERSION", "9.5.1")],
            Some(("89", "CLEARML_CUDNN_VERSION")),
        ),
        (
            "",
            &[
                ("TRAINS_CUDNN_VERSION", "8.9.7"),
                ("CUDNN_VERSION", "9.5.1"),
            ],
            Some(("8.9.7", "TRAINS_CUDNN_VERSION")),
        ),
        (
            "",
            &[
                ("CLEARML_AGENT__AGENT__CUDNN_VERSION", "8.9.7"),
                ("CUDNN_VERSION", "9.5.1"),
            ],
            Some(("8.9.7", "CLEARML_AGENT__AGENT__CUDNN_VERSION")),
        ),
        (
            "agent.cudnn_version: null",
            &[("CUDNN_VERSION", "9.10")],
            Some(("9.10", "CUDNN_VERSION")),
        ),
    ];
    for (text, set, expected) in cases {
        let agent = configured(text, set);
        let found = options_with(&agent, &variables(set), false, None).cudnn;
        let expected = expected.map(|(version, source)| (version.to_owned(), source.to_owned()));
        assert_eq!(found, expected, "{text} {set:?}");
    }
}

#[test]
fn the_requirements_that_the_configuration_prefers_are_taken() {
    let forced = |key: &str| format!("agent.package_manager.{key}: true");
    let (of_repository, original) = (
        forced("force_repo_requirements_txt"),
        forced("force_original_requirements"),
    );
    let both = format!("{of_repository}\n{original}");
    let all = json!({"pip": "installed", "conda": "c", "org_pip": "written"});
    for (text, repository, before, expected) in [
        (String::new(), "/r", all.clone(), all.clone()),
        (
            of_repository.clone(),
            "/r",
            all.clone(),
            json!({"org_pip": "written"}),
        ),
        // There is no file to be read.
        (of_repository, "", all.clone(), all.clone()),
        (
            original.clone(),
            "/r",
            all.clone(),
            json!({"pip": "written", "conda": "c", "org_pip": "written"}),
        ),
        (
            original,
            "/r",
            json!({"pip": "first"}),
            json!({"pip": "first"}),
        ),
        (both, "/r", all, json!({"org_pip": "written"})),
    ] {
        let script = json!({"repository": repository, "requirements": before});
        let task = json!({"id": "0123456789abcdef0123456789abcdef", "script": script});
        let mut task: Task = serde_json::from_value(task).unwrap();
        choose_requirements(&mut task, &configured(&text, &[]));
        let found = Value::Object(task.script.requirements);
        assert_eq!(found, expected, "{text} {repository:?}");
    }
}

#[test]
fn the_python_that_the_configuration_prefers_is_looked_for() {
    let chosen = |binary: &str, text: &str| {
        let mut plan = recorded_with(binary);
        choose_python(&mut plan, &configured(text, &[]));
        plan.python
    };
    for (binary, text, expected) in [
        ("python3.9", "", Some("3.9")),
        ("python3", "", None),
        ("python3.9", "agent.default_python: \"3.12\"", Some("3.9")),
        ("python3", "agent.default_python: \"3.12\"", Some("3.12")),
        // A major version alone says nothing.
        ("python3", "agent.default_python: 3", None),
        (
            "python3.9",
            "agent.ignore_requested_python_version: true",
            None,
        ),
        (
            "python3.9",
            "agent { ignore_requested_python_version: true, default_python: \"3.12\" }",
            Some("3.12"),
        ),
    ] {
        assert_eq!(chosen(binary, text).as_deref(), expected, "{binary} {text}");
    }
}

#[test]
fn the_root_of_a_checkout_is_where_modules_are_looked_for_on_request() {
    let root = |repository: &str, text: &str| {
        let script = json!({"repository": repository, "entry_point": "x.py", "diff": ""});
        let task = json!({"id": "0123456789abcdef0123456789abcdef", "script": script});
        let settings = PlanSettings {
            manager: Manager::Auto,
            code_root: "/trainyard/code".into(),
        };
        let mut plan = plan(&serde_json::from_value(task).unwrap(), &settings).unwrap();
        choose_python(&mut plan, &configured(text, &[]));
        plan.python_root
    };
    let forced = "agent.force_git_root_python_path: true";
    assert_eq!(root("/r", ""), None);
    assert_eq!(root("/r", forced), Some("/trainyard/code".into()));
    assert_eq!(root("", forced), None, "there is no checkout");
}

#[test]
fn an_environment_that_the_image_has_activated_counts_unless_it_may_not() {
    let plan = recorded_with("python3");
    let set = [
        ("PATH", "/opt/venv/bin:/usr/bin:/opt/venv/bin"),
        ("VIRTUAL_ENV", "/opt/venv/"),
    ];
    let found = surroundings(&plan, &configured("", &[]), &variables(&set));
    assert_eq!(found, variables(&set));
    let off = configured("agent.docker_use_activated_venv: false", &[]);
    let found = surroundings(&plan, &off, &variables(&set));
    assert_eq!(found, variables(&[("PATH", "/usr/bin")]));
    // Nothing is activated.
    let set = [("PATH", "/opt/venv/bin:/usr/bin")];
    let found = surroundings(&plan, &off, &variables(&set));
    assert_eq!(found, variables(&set));
}

#[test]
fn the_interpreter_of_the_configuration_is_used_where_the_task_names_none() {
    let local = |binary: &str, set: &[(&str, &str)]| {
        let agent = configured("agent.python_binary: /opt/python3", &[]);
        let found = surroundings(&recorded_with(binary), &agent, &variables(set));
        found.get("LOCAL_PYTHON").cloned()
    };
    assert_eq!(local("python3", &[]).as_deref(), Some("/opt/python3"));
    assert_eq!(local("python3.9", &[]), None);
    let own = [("LOCAL_PYTHON", "/usr/bin/python3")];
    assert_eq!(local("python3", &own).as_deref(), Some("/usr/bin/python3"));
}

/// A pod of which nothing is said but what it cannot do without.
fn settings(manager: &str) -> Settings {
    let id = "0123456789abcdef0123456789abcdef";
    let told = [
        (pod::env::TASK_ID, id),
        (pod::env::ATTEMPT, "1"),
        (pod::env::PENDING_QUEUE, id),
        (pod::env::WORKER, "c:ns/b:0:1"),
        (pod::env::API_HOST, "http://api"),
        (pod::env::ACCESS_KEY, "access"),
        (pod::env::SECRET_KEY, "secret"),
        (pod::env::MANAGER, manager),
        ("HOME", "/"),
    ];
    Settings::from_variables(variables(&told)).unwrap()
}

#[test]
fn the_run_itself_is_adjusted() {
    let adjusted = |text: &str| {
        let mut settings = settings("auto");
        adjust(&mut settings, &configured(text, &[]));
        (settings.callback_most.as_secs_f64(), settings.disk)
    };
    let most = adjusted("").0;
    for (seconds, expected) in [
        ("2.5", 2.5),
        ("0", 0.0),
        ("1e9", most),
        ("-1", most),
        ("x", most),
    ] {
        let text = format!("agent.abort_callback_max_timeout: {seconds}");
        let (found, _) = adjusted(&text);
        assert!((found - expected).abs() < f64::EPSILON, "{text}: {found}");
    }
    let key = "agent.resource_monitoring.disk_use_path";
    assert_eq!(adjusted("").1, None, "nobody has chosen one");
    assert_eq!(adjusted(&format!("{key}: /proc")).1, Some("/proc".into()));
    assert_eq!(
        adjusted(&format!("{key}: \"~/proc\"")).1,
        Some("//proc".into())
    );
    assert_eq!(adjusted(&format!("{key}: /nowhere/at/all")).1, None);
}

#[test]
fn what_speaks_to_another_installer_is_told() {
    let told = |manager: &str, text: &str| {
        let mut told = Vec::new();
        warn(
            &settings(manager),
            &configured(text, &[]),
            &mut |line: &str| told.push(line.to_owned()),
        );
        told
    };
    let resolver = "agent.package_manager.pip_legacy_resolver: [\"<21\"]";
    let best = "agent.package_manager.uv_unsafe_best_match: true";
    let expected = "agent.package_manager.pip_legacy_resolver (/clearml.conf, line 1) has no effect: \
                    uv installs, and has one resolver";
    for manager in ["auto", "uv", "poetry"] {
        assert_eq!(told(manager, resolver), [expected]);
        assert!(told(manager, best).is_empty());
    }
    assert!(told("pip", resolver).is_empty());
    let expected = "agent.package_manager.uv_unsafe_best_match (/clearml.conf, line 1) has no effect: \
                    pip itself installs";
    assert_eq!(told("pip", best), [expected]);
    // As every generated file has it.
    let generated = "agent.package_manager.pip_legacy_resolver: [\">=20.3,<24.3\"]";
    assert!(told("auto", generated).is_empty());
    for manager in ["conda", "none"] {
        assert!(told(manager, resolver).is_empty() && told(manager, best).is_empty());
    }
}

#[test]
fn a_command_for_an_abort_is_told_not_to_be_run() {
    let told = |value: &str| {
        let mut settings = settings("auto");
        let name = "CLEARML_AGENT_ABORT_CALLBACK_CMD".to_owned();
        settings.inherited.insert(name, value.to_owned());
        let mut told = String::new();
        warn(&settings, &configured("", &[]), &mut |line: &str| {
            told.push_str(line);
        });
        told
    };
    assert_eq!(told(" "), "");
    let told = told("sh /opt/save.sh");
    assert!(
        told.starts_with("environment variable CLEARML_AGENT_ABORT_CALLBACK_CMD has no effect: ")
            && told.contains("environment.postScript"),
        "{told}"
    );
}

#[test]
fn in_a_pod_the_images_packages_are_seen_unless_a_variable_says_no() {
    let says = "agent.package_manager { system_site_packages: false }";
    assert!(is_of_a_file(&configured(says, &[]), SITE_PACKAGES));
    let name = "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__SYSTEM_SITE_PACKAGES";
    for agent in [configured("", &[]), configured(says, &[(name, "false")])] {
        assert!(!is_of_a_file(&agent, SITE_PACKAGES));
    }
}
