//! Scripts that run before the task's own code.

use std::fs;

use serde_json::json;

use super::pod::Pod;
use super::server::Server;

/// The configuration of an agent whose scripts tell their order, and fail.
const CONF: &str = r#"
agent {
  docker_init_bash_script: [
    "for number in {{1..2}}; do echo -n \" init-$number\" >> made; done",
    "export OF_INIT={python_single_digit} LOCAL_PYTHON=/usr/bin/python3",
    "false"
  ]
  docker_preprocess_bash_script: "echo -n ' preprocess' >> made; exit 3"
  extra_docker_shell_script: ["no-such-program", "echo -n \" extra-$OF_INIT\" >> made", "no-such-program-either"]
  init_script: "touch never"
}
"#;

#[test]
fn scripts_of_the_configuration_run_between_the_bindings_and_the_tasks_and_their_failures_are_told()
{
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("clearml.conf");
    fs::write(&conf, CONF).unwrap();
    let source =
        "import os\nprint(open('made').read(), os.environ['OF_INIT'], os.path.exists('never'))\n";
    let task = server.script("scripts", source);
    let container = json!({"setup_shell_script": "echo -n ' task' >> made"});
    server.call("tasks.edit", &json!({"task": task, "container": container}));
    let mut pod = Pod::parked(&server, &task);
    pod.set("CLEARML_CONFIG_FILE", &conf.display().to_string());
    pod.set("TRAINYARD_SETUP_SCRIPT", "echo -n binding > made");
    pod.set("TRAINYARD_TASK_SETUP_SCRIPT", "allow");
    assert_eq!(pod.run(), 0, "{}", server.log(&task));
    let log = server.log(&task);
    let made = "binding preprocess init-1 init-2 extra-python3 task python3 False\n";
    assert!(log.ends_with(made), "{log}");
    for (told, times) in [
        (
            "agent.docker_preprocess_bash_script of clearml.conf ended with exit code 3: the task goes on",
            1,
        ),
        (
            "agent.docker_init_bash_script of clearml.conf ended with exit code 1: the task goes on",
            1,
        ),
        (
            "agent.extra_docker_shell_script of clearml.conf ended with exit code 127: the task goes on",
            1,
        ),
        ("agent.init_script is no known key", 1),
        ("bash_script (", 0),
    ] {
        assert_eq!(log.matches(told).count(), times, "{told}: {log}");
    }
}
