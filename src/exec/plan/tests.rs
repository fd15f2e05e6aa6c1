use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::task::WorkerId;

const ROOT: &str = "/trainyard/code";

fn task(script: serde_json::Value) -> Task {
    let mut task = json!({"id": "0123456789abcdef0123456789abcdef"});
    task["script"] = script;
    serde_json::from_value(task).unwrap()
}

fn settings(manager: Manager) -> PlanSettings {
    PlanSettings {
        manager,
        code_root: ROOT.into(),
    }
}

fn planned(script: serde_json::Value) -> Result<Plan, PlanError> {
    plan(&task(script), &settings(Manager::Auto))
}

fn launched(plan: &Plan, files: &[&str]) -> Result<Vec<String>, String> {
    let machine = Machine {
        interpreter: Path::new("/env/bin/python"),
        is_file: &|path| files.iter().any(|file| Path::new(file) == path),
        program: &|name| (name == "sh").then(|| PathBuf::from("/bin/sh")),
        variable: &|name| (name == "RUN").then(|| "7".to_owned()),
    };
    plan.command
        .launch(&plan.working_dir, &machine)
        .map(|launch| launch.argv)
        .map_err(|failure| failure.to_string())
}

#[test]
fn a_recorded_experiment_becomes_checkout_patch_environment_and_command() {
    let plan = planned(json!({
        "binary": "python3.11", "repository": "https://git.example/a.git", "branch": "main",
        "version_num": "0123456789012345678901234567890123456789", "entry_point": "train.py", "working_dir": "src",
        "diff": "diff --git a/src/train.py b/src/train.py\n", "requirements": {"pip": "# Python\n\nattrs\n"},
    }))
    .unwrap();
    assert!(matches!(
        plan.checkout.as_ref().unwrap().revision,
        Revision::Commit(_)
    ));
    assert!(matches!(plan.source, Source::Patch(_)));
    assert_eq!(plan.working_dir, Path::new("/trainyard/code/src"));
    assert_eq!(plan.python.as_deref(), Some("3.11"));
    let environment = plan.environment.as_ref().unwrap();
    assert_eq!(
        environment.requirements,
        Requirements::Listed("# Python\n\nattrs\n".into())
    );
    let argv = launched(&plan, &["/trainyard/code/src/train.py"]).unwrap();
    assert_eq!(argv, ["/env/bin/python", "-u", "train.py"]);
}

#[test]
fn a_stand_alone_script_is_written_and_needs_no_environment() {
    let plan =
        planned(json!({"entry_point": "train.py", "diff": "print(1)\n", "working_dir": "."}))
            .unwrap();
    assert!(plan.checkout.is_none());
    assert_eq!(
        plan.source,
        Source::Script {
            path: "/trainyard/code/train.py".into(),
            text: "print(1)\n".into()
        }
    );
    assert_eq!(plan.environment, None);
    let unnamed = planned(json!({"diff": "print(1)"})).unwrap();
    assert!(matches!(unnamed.source, Source::Script { path, .. } if path.ends_with("untitled.py")));
    let shell = planned(json!({"binary": "/bin/bash", "diff": "echo 1"})).unwrap();
    assert!(matches!(shell.source, Source::Script { path, .. } if path.ends_with("untitled.sh")));
}

#[test]
fn a_script_with_arguments_is_written_under_its_own_name() {
    let plan = planned(json!({"entry_point": "train.py --lr 1", "diff": "print(1)\n"})).unwrap();
    assert!(matches!(&plan.source, Source::Script { path, .. } if path.ends_with("train.py")));
    assert_eq!(
        launched(&plan, &["/trainyard/code/train.py"]).unwrap()[2..],
        ["train.py", "--lr", "1"]
    );
}

#[test]
fn a_diff_is_a_patch_by_its_first_word() {
    let source = |diff: &str| {
        planned(json!({"repository": "/r", "entry_point": "t.py", "diff": diff}))
            .unwrap()
            .source
    };
    assert!(matches!(source("diff --git a/x b/x\n"), Source::Patch(_)));
    assert!(matches!(
        source("Submodule lib 1..2:\ndiff --git a/lib/x b/lib/x\n"),
        Source::Patch(_)
    ));
    assert!(matches!(
        source("# comment\nprint()"),
        Source::Script { .. }
    ));
    assert_eq!(source(" \n"), Source::None);
    assert_eq!(source(NOT_RECORDED), Source::None);
    let error =
        planned(json!({"entry_point": "t.py", "diff": "diff --git a/x b/x\n"})).unwrap_err();
    assert_eq!(error, PlanError::PatchWithoutRepository);
}

#[test]
fn the_folder_may_stand_before_the_script() {
    let plan =
        planned(json!({"repository": "/r", "entry_point": "src/a:train.py --x a:b"})).unwrap();
    assert_eq!(plan.working_dir, Path::new("/trainyard/code/src/a"));
    assert_eq!(
        launched(&plan, &["/trainyard/code/src/a/train.py"]).unwrap()[2..],
        ["train.py", "--x", "a:b"]
    );
}

#[test]
fn no_path_leaves_the_code() {
    for (entry_point, working_dir) in [
        ("../x.py", ""),
        ("x.py", "../y"),
        ("/etc/x.py", "."),
        ("x.py", "/etc"),
        ("a/../../x.py", "."),
    ] {
        let script =
            json!({"repository": "/r", "entry_point": entry_point, "working_dir": working_dir});
        assert!(
            matches!(planned(script), Err(PlanError::Outside { .. })),
            "{entry_point} {working_dir}"
        );
        let script =
            json!({"diff": "print(1)", "entry_point": entry_point, "working_dir": working_dir});
        assert!(
            matches!(planned(script), Err(PlanError::Outside { .. })),
            "{entry_point} {working_dir}"
        );
    }
    let inside =
        planned(json!({"repository": "/r", "entry_point": "../x.py", "working_dir": "a/b"}))
            .unwrap();
    assert_eq!(inside.command.file().as_deref(), Some("../x.py"));
}

#[test]
fn code_of_the_image_may_lie_anywhere() {
    let plan = planned(json!({"entry_point": "/app/train.py", "working_dir": "/app"})).unwrap();
    assert_eq!(plan.working_dir, Path::new("/app"));
    assert_eq!(
        launched(&plan, &["/app/train.py"]).unwrap()[2..],
        ["/app/train.py"]
    );
}

#[test]
fn modules_and_code_keep_their_words() {
    let module =
        planned(json!({"repository": "/r", "entry_point": "-m pkg.train --run $RUN 'a b'"}))
            .unwrap();
    assert_eq!(
        launched(&module, &[]).unwrap()[1..],
        ["-u", "-m", "pkg.train", "--run", "7", "a b"]
    );
    let code = planned(json!({"binary": "bash", "entry_point": "-c \"echo $RUN\""})).unwrap();
    assert_eq!(
        launched(&code, &[]).unwrap(),
        ["/bin/sh", "-c", "echo $RUN"]
    );
    assert!(planned(json!({"entry_point": "-m"})).is_err());
    assert!(planned(json!({"entry_point": "-m 'open"})).is_err());
    assert!(planned(json!({"entry_point": "-x file"})).is_err());
}

#[test]
fn an_existing_file_with_blanks_wins_over_its_first_word() {
    let plan = planned(json!({"repository": "/r", "entry_point": "my script.py"})).unwrap();
    assert_eq!(
        launched(&plan, &["/trainyard/code/my script.py"]).unwrap()[2..],
        ["my script.py"]
    );
    let error = launched(&plan, &[]).unwrap_err();
    assert!(
        error.starts_with("the entry point my is not in /trainyard/code"),
        "{error}"
    );
}

#[test]
fn the_images_own_command_runs_as_it_is_and_nothing_is_made_for_it() {
    let words = ["sh", "-c", "echo $$1 $(RUN)", "$(OTHER)"].map(str::to_owned);
    let plan = Plan::of_image(words.to_vec(), "/app".into(), ROOT.into());
    assert!(plan.checkout.is_none() && plan.environment.is_none());
    assert_eq!((&plan.source, plan.command.file()), (&Source::None, None));
    assert_eq!(
        launched(&plan, &[]).unwrap(),
        ["/bin/sh", "-c", "echo $1 7", "$(OTHER)"]
    );
    let other = Plan::of_image(vec!["/gone".to_owned()], "/app".into(), ROOT.into());
    let error = launched(&other, &[]).unwrap_err();
    assert!(
        error.starts_with("the image's command /gone is not in the image"),
        "{error}"
    );
    let none = Plan::of_image(Vec::new(), "/app".into(), ROOT.into());
    let error = launched(&none, &[]).unwrap_err();
    assert!(error.starts_with("there is no command to run"), "{error}");
}

#[test]
fn what_cannot_run_is_refused_in_a_sentence() {
    assert_eq!(planned(json!({})).unwrap_err(), PlanError::NoEntryPoint);
    assert!(matches!(
        planned(json!({"entry_point": "a.py", "binary": "node"})),
        Err(PlanError::Unusable { .. })
    ));
    assert!(matches!(
        "npm".parse::<Manager>(),
        Err(PlanError::Manager(_))
    ));
    let huge = "x".repeat(MAX_SOURCE + 1);
    assert!(matches!(
        planned(json!({"diff": huge})),
        Err(PlanError::TooLarge { field: "diff", .. })
    ));
}

#[test]
fn an_environment_is_made_only_where_something_is_asked_for() {
    let script = json!({"repository": "/r", "entry_point": "a/b/train.py", "requirements": {"pip": "attrs"}});
    assert_eq!(
        plan(&task(script.clone()), &settings(Manager::None))
            .unwrap()
            .environment,
        None
    );
    let of_pip = plan(&task(script), &settings(Manager::Pip)).unwrap();
    assert_eq!(of_pip.environment.unwrap().manager, Manager::Pip);
    let searched =
        planned(json!({"repository": "/r", "entry_point": "train.py", "working_dir": "a/b"}))
            .unwrap();
    let folders = [
        ROOT.into(),
        Path::new(ROOT).join("a"),
        Path::new(ROOT).join("a/b"),
    ];
    assert_eq!(
        searched.environment.unwrap().requirements,
        Requirements::Repository(folders.to_vec())
    );
}

#[test]
fn the_sdk_finds_the_variables_that_it_relies_on() {
    let plan = planned(json!({"repository": "/r", "entry_point": "sub/train.py"})).unwrap();
    let inherited: BTreeMap<String, String> = [
        ("PATH", "/usr/bin"),
        ("PYTHONPATH", "/opt"),
        ("CLEARML_API_HOST", "http://server"),
        ("UV_CACHE_DIR", "/x"),
        ("GIT_CONFIG_COUNT", "2"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let task = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let worker = WorkerId("w".into());
    let variables = plan.variables(Surroundings {
        inherited: &inherited,
        task: &task,
        worker: &worker,
        conf: None,
        environment: Some(Path::new("/env")),
        proxy: Some("http://proxy:3128"),
        hosts: &["http://Api.clear.example:8008/", "https://files.example"],
    });
    let set = &variables.set;
    assert_eq!(
        set["PYTHONPATH"],
        "/trainyard/code:/trainyard/code/sub:/opt"
    );
    assert_eq!(set["PATH"], "/env/bin:/usr/bin");
    assert_eq!(set["TRAINS_API_HOST"], "http://server");
    assert_eq!(set["TRAINS_TASK_ID"], set["CLEARML_TASK_ID"]);
    assert_eq!(set["PYTHONIOENCODING"], "utf-8");
    for way in [
        "http://api.clear.example_proxy",
        "https://files.example_proxy",
    ] {
        assert_eq!(set[way], "http://proxy:3128");
    }
    assert_eq!(
        (
            set["GIT_CONFIG_COUNT"].as_str(),
            set["GIT_CONFIG_KEY_2"].as_str()
        ),
        ("3", "safe.directory")
    );
    assert!(variables.remove.contains(&"UV_CACHE_DIR".to_owned()));
    assert!(!format!("{variables:?}").contains("http://server"));
}

#[test]
fn folders_for_python_are_added_under_each_name_of_their_variable() {
    let plan = planned(json!({"repository": "/r", "entry_point": "train.py"})).unwrap();
    let task = "0123456789abcdef0123456789abcdef".parse().unwrap();
    let worker = WorkerId("w".into());
    for name in [
        "CLEARML_AGENT_EXTRA_PYTHON_PATH",
        "TRAINS_AGENT_EXTRA_PYTHON_PATH",
        "JARVIS_AGENT_EXTRA_PYTHON_PATH",
    ] {
        let inherited: BTreeMap<String, String> = [(name, "/more"), ("PYTHONPATH", "/opt")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let variables = plan.variables(Surroundings {
            inherited: &inherited,
            task: &task,
            worker: &worker,
            conf: None,
            environment: None,
            proxy: None,
            hosts: &[],
        });
        assert_eq!(
            variables.set["PYTHONPATH"], "/trainyard/code:/more:/opt",
            "{name}"
        );
    }
}
