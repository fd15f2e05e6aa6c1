mod packages;
mod repositories;
mod torch;

use serde_json::json;

use super::*;
use crate::exec::plan::{PlanSettings, plan};

/// PyTorch's own index.
const PUBLIC: &str = "https://download.pytorch.org/whl/{}";
const REPLACED_VARIABLE: &str = "CLEARML_AGENT__AGENT__PACKAGE_MANAGER__UV_REPLACE_PIP";

fn agent(keys: &[(&str, Value)]) -> Agent {
    let keys = keys
        .iter()
        .map(|(path, value)| ((*path).to_owned(), value.clone()));
    Agent::of_values(keys.collect())
}

/// What this file and these variables say.
fn configured(text: &str, set: &[(&str, &str)]) -> Agent {
    let document = Document::read(text, &|_| None).unwrap();
    let files = [("/clearml.conf".to_owned(), document)];
    Agent::resolve(&files, &Environment::of(variables(set)))
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A stand-alone script that was recorded with this program.
fn recorded_with(binary: &str) -> Plan {
    let script = json!({"binary": binary, "entry_point": "x.py", "diff": "1"});
    let task = json!({"id": "0123456789abcdef0123456789abcdef", "script": script});
    let task = serde_json::from_value(task).unwrap();
    let settings = PlanSettings {
        manager: Manager::Auto,
        code_root: "/trainyard/code".into(),
    };
    plan(&task, &settings).unwrap()
}

#[test]
fn an_included_file_that_is_there_and_cannot_be_read_is_told_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let long = "\n".repeat(usize::try_from(MOST).unwrap() + 1);
    std::fs::write(at("good.conf"), "agent.default_python: 3.9").unwrap();
    std::fs::write(at("long.conf"), &long).unwrap();
    std::fs::write(at("odd.conf"), [0xff, 0xfe]).unwrap();
    let conf = at("clearml.conf");
    let set = variables(&[("CLEARML_CONFIG_FILE", conf.to_str().unwrap())]);
    let told = |text: &str| {
        std::fs::write(&conf, text).unwrap();
        read(&set).map(|agent| agent.text("agent.default_python"))
    };
    let sentence = |text: &str| told(text).unwrap_err().sentence;
    let good = told("include \"gone.conf\"\ninclude \"good.conf\"\ninclude \"good.conf/x\"");
    assert_eq!(good.unwrap().as_deref(), Some("3.9"));
    for (name, why) in [
        ("long.conf", "it is longer than 1048576 bytes"),
        ("odd.conf", "it is not UTF-8"),
    ] {
        let failure = sentence(&format!("include \"{name}\""));
        let expected = format!("line 1: the included file \"{name}\" cannot be read: {why}");
        assert!(failure.ends_with(&expected), "{failure}");
    }
    let failure = sentence("include required(\"gone.conf\")");
    assert!(failure.contains("required"), "{failure}");
    let failure = sentence(&long);
    assert!(failure.ends_with("bytes"), "{failure}");
}

#[test]
fn pip_is_uv_unless_its_user_wants_pip_itself() {
    for (keys, expected) in [
        (vec![], Manager::Auto),
        (vec![(TYPE, json!("pip"))], Manager::Auto),
        (
            vec![(TYPE, json!("pip")), (REPLACED, json!(true))],
            Manager::Auto,
        ),
        (
            vec![(TYPE, json!("pip")), (REPLACED, json!(false))],
            Manager::Pip,
        ),
        (vec![(REPLACED, json!(false))], Manager::Pip),
        (vec![(REPLACED, json!(true))], Manager::Auto),
        (vec![(REPLACED, json!(null))], Manager::Auto),
        (vec![(REPLACED, json!(""))], Manager::Auto),
        (
            vec![(TYPE, json!("uv")), (REPLACED, json!(false))],
            Manager::Uv,
        ),
        (
            vec![(TYPE, json!("conda")), (REPLACED, json!(false))],
            Manager::Conda,
        ),
        (vec![(TYPE, json!("poetry"))], Manager::Poetry),
        (vec![(TYPE, json!("conda"))], Manager::Conda),
    ] {
        let found = manager_with("auto", &variables(&[]), &agent(&keys)).unwrap();
        assert_eq!(found, expected, "{keys:?}");
    }
}

#[test]
fn pip_itself_is_wanted_by_file_or_by_variable() {
    for (text, set, expected) in [
        ("", vec![], Manager::Auto),
        (
            "agent.package_manager.uv_replace_pip: false",
            vec![],
            Manager::Pip,
        ),
        ("", vec![(REPLACED_VARIABLE, "false")], Manager::Pip),
        ("", vec![(REPLACED_VARIABLE, "0")], Manager::Pip),
        ("", vec![(REPLACED_VARIABLE, "")], Manager::Auto),
        (
            "agent.package_manager.uv_replace_pip: false",
            vec![(REPLACED_VARIABLE, "true")],
            Manager::Auto,
        ),
        (
            "agent.package_manager { type: pip, uv_replace_pip: false }",
            vec![("CLEARML_AGENT_FORCE_UV", "1")],
            Manager::Uv,
        ),
    ] {
        let agent = configured(text, &set);
        let found = manager_with("auto", &variables(&[]), &agent).unwrap();
        assert_eq!(found, expected, "{text} {set:?}");
    }
}

#[test]
fn pip_that_another_manager_sets_aside_is_told() {
    let text = "agent.package_manager {\n  type: uv\n  uv_replace_pip: false\n}";
    let of_uv = configured(text, &[]);
    let told = "agent.package_manager.uv_replace_pip (/clearml.conf, line 3) has no effect: \
                agent.package_manager.type (/clearml.conf, line 2) is uv";
    assert_eq!(pip_set_aside("auto", &of_uv).as_deref(), Some(told));
    // There the binding's word counts, whatever the configuration says.
    assert_eq!(pip_set_aside("pip", &of_uv), None);
    for keys in [
        vec![(REPLACED, json!(false))],
        vec![(TYPE, json!("pip")), (REPLACED, json!(false))],
        vec![(TYPE, json!("uv")), (REPLACED, json!(true))],
        vec![(TYPE, json!("uv"))],
    ] {
        assert_eq!(pip_set_aside("auto", &agent(&keys)), None, "{keys:?}");
    }
}

#[test]
fn the_bindings_word_counts_before_the_configurations() {
    let of_pip = agent(&[(TYPE, json!("pip")), (REPLACED, json!(false))]);
    let found = manager_with("poetry", &variables(&[]), &of_pip).unwrap();
    assert_eq!(found, Manager::Poetry);
    let unknown = agent(&[(TYPE, json!("npm"))]);
    let failure = manager_with("auto", &variables(&[]), &unknown).unwrap_err();
    assert!(failure.sentence.starts_with(TYPE), "{failure}");
}

#[test]
fn what_skips_the_making_leaves_the_image_as_it_is() {
    for (name, value, expected) in [
        ("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "1", Manager::None),
        ("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL", "True", Manager::None),
        (
            "CLEARML_AGENT_SKIP_PIP_VENV_INSTALL",
            "/opt/venv/bin/python",
            Manager::None,
        ),
        ("TRAINS_AGENT_SKIP_PYTHON_ENV_INSTALL", "1", Manager::None),
        ("JARVIS_AGENT_SKIP_PIP_VENV_INSTALL", "yes", Manager::None),
        ("CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL", "0", Manager::Uv),
        ("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL", "False", Manager::Uv),
        ("CLEARML_AGENT_SKIP_PIP_VENV_INSTALL", "", Manager::Uv),
    ] {
        let found = manager_with("uv", &variables(&[(name, value)]), &agent(&[])).unwrap();
        assert_eq!(found, expected, "{name}={value}");
    }
}

#[test]
fn the_interpreter_that_is_named_where_the_making_is_skipped_runs_the_task() {
    let plan = recorded_with("python3.9");
    let local = |set: &[(&str, &str)]| {
        let mut variables = surroundings(&plan, &agent(&[]), &variables(set));
        variables.remove("LOCAL_PYTHON")
    };
    let other = ("LOCAL_PYTHON", "python3.8");
    assert_eq!(
        local(&[(SKIP_VENV, "/opt/venv/bin/python"), other]).as_deref(),
        Some("/opt/venv/bin/python")
    );
    assert_eq!(
        local(&[("TRAINS_AGENT_SKIP_PIP_VENV_INSTALL", "python3.12")]).as_deref(),
        Some("python3.12")
    );
    for says_yes_or_no in ["1", "true", "0", ""] {
        let found = local(&[(SKIP_VENV, says_yes_or_no), other]);
        assert_eq!(found.as_deref(), Some("python3.8"), "{says_yes_or_no:?}");
        assert_eq!(local(&[(SKIP_VENV, says_yes_or_no)]), None);
    }
}

#[test]
fn locks_are_looked_for_in_the_working_directory_alone_on_request() {
    let chosen = |repository: &str, text: &str| {
        let script = json!({
            "repository": repository, "entry_point": "x.py", "working_dir": "sub", "diff": "",
            "requirements": {"pip": "six"},
        });
        let task = json!({"id": "0123456789abcdef0123456789abcdef", "script": script});
        let settings = PlanSettings {
            manager: Manager::Auto,
            code_root: "/trainyard/code".into(),
        };
        let mut plan = plan(&serde_json::from_value(task).unwrap(), &settings).unwrap();
        choose_folders(&mut plan, &configured(text, &[]));
        let environment = plan.environment.unwrap();
        (environment.uv_folder, environment.poetry_folder)
    };
    let of_uv = "agent.package_manager.uv_files_from_repo_working_dir: true";
    let of_poetry = "agent.package_manager.poetry_files_from_repo_working_dir: true";
    let sub = || Some(PathBuf::from("/trainyard/code/sub"));
    assert_eq!(chosen("/r", ""), (None, None));
    assert_eq!(chosen("/r", of_uv), (sub(), None));
    assert_eq!(chosen("/r", of_poetry), (None, sub()));
    assert_eq!(
        chosen("/r", &format!("{of_uv}\n{of_poetry}")),
        (sub(), sub())
    );
    assert_eq!(chosen("", of_uv), (None, None), "there is no checkout");
}
