//! S8: a script that fails ends its task, pod and Job as failed, with the cause, and leaves no process behind.

use serde_json::{Value, json};

use super::world::{World, wait};

fn job_failed(world: &World, task: &str) -> Value {
    wait("the Job is Failed", 30, || {
        let job = world.job_of(task);
        let failed = job["status"]["conditions"].as_array().is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Failed" && c["status"] == "True")
        });
        failed.then_some(job)
    })
}

/// The task's status is written before the process ends, so the pod may be a moment behind.
fn exit_code_of_pod(world: &World, task: &str) -> Value {
    wait("the task container has ended", 30, || {
        let pod = world.pod_of(task);
        let statuses = pod["status"]["containerStatuses"].as_array()?;
        let status = statuses.iter().find(|status| status["name"] == "task")?;
        let code = &status["state"]["terminated"]["exitCode"];
        (!code.is_null()).then(|| code.clone())
    })
}

#[test]
fn s8_failing_scripts_fail_task_pod_and_job_with_the_cause() {
    let world = World::with_binding("s8");
    let exit = world.run(
        "exit three",
        "print('before')\nraise SystemExit(3)\n",
        "gpu",
    );
    let raise = world.run(
        "exception",
        "print('before')\nraise ValueError('the reason')\n",
        "gpu",
    );
    let crash = world.run(
        "segfault",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
        "gpu",
    );
    let reserved = world.run("reserved code", "raise SystemExit(211)\n", "gpu");

    let task = world.until_ended(&exit, 120);
    assert_eq!(task["status"], "failed");
    let message = format!("{} {}", task["status_reason"], task["status_message"]);
    assert!(message.contains("exit code 3"), "{message}");
    assert!(
        message.contains("before"),
        "the last lines are in the message: {message}"
    );
    assert_eq!(exit_code_of_pod(&world, &exit), 3);
    job_failed(&world, &exit);

    let task = world.until_ended(&raise, 60);
    assert_eq!(task["status"], "failed");
    assert!(
        world
            .log(&raise)
            .iter()
            .any(|line| line.contains("ValueError: the reason"))
    );

    let task = world.until_ended(&crash, 60);
    assert_eq!(task["status"], "failed");
    let message = format!("{} {}", task["status_reason"], task["status_message"]);
    assert!(message.contains("SIGSEGV"), "{message}");
    assert_eq!(exit_code_of_pod(&world, &crash), 139);

    // A user's code in our reserved range stays the user's.
    let task = world.until_ended(&reserved, 60);
    assert_eq!(task["status"], "failed");
    let message = format!("{} {}", task["status_reason"], task["status_message"]);
    assert!(message.contains("exit code 211"), "{message}");
    assert_eq!(exit_code_of_pod(&world, &reserved), 211);

    // No retry: one Job each.
    assert_eq!(
        world.get(&["jobs", "-l", &format!("trainyard.dev/task={exit}")])["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn s8_background_children_do_not_outlive_the_script() {
    let world = World::with_binding("s8-children");
    let source = "import subprocess\n\
        subprocess.Popen(['sleep', '1000'], start_new_session=True)\n\
        print('leaving a child behind')\n";
    let task = world.run("background child", source, "gpu");
    assert_eq!(world.until_ended(&task, 60)["status"], "completed");
    wait(
        "the pod has succeeded although a child was left",
        20,
        || (world.pod_of(&task)["status"]["phase"] == "Succeeded").then_some(()),
    );
}

#[test]
fn a_missing_commit_and_an_unsatisfiable_requirement_fail_with_one_clear_line() {
    let world = World::with_binding("unprepared");
    let repository =
        super::experiment::serve_repository(&world, &[("train.py", "print('never')\n")]);
    let missing = world.create(
        "missing commit",
        "",
        &json!({"script": {"repository": repository.url, "entry_point": "train.py",
                "version_num": "0123456789abcdef0123456789abcdef01234567", "diff": ""}}),
    );
    world.enqueue(&missing, "gpu");
    let unsatisfiable = world.create(
        "unsatisfiable",
        "print('never')\n",
        &json!({"script": {"requirements": {"pip": "numpy==99.99.99\n"}}}),
    );
    world.enqueue(&unsatisfiable, "gpu");

    let task = world.until_ended(&missing, 120);
    assert_eq!(task["status"], "failed");
    let log = world.log(&missing);
    assert!(
        log.iter().any(
            |line| line.contains("0123456789abcdef0123456789abcdef01234567")
                && line.contains("commit")
        ),
        "{log:#?}"
    );
    let task_text = task.to_string();
    assert!(task_text.contains("0123456789abcdef0123456789abcdef01234567"));
    assert!(!log.iter().any(|line| line.contains("never")));

    let task = world.until_ended(&unsatisfiable, 120);
    assert_eq!(task["status"], "failed");
    let log = world.log(&unsatisfiable);
    assert!(
        log.iter().any(|line| line.contains("numpy==99.99.99")),
        "{log:#?}"
    );
    assert!(
        task["status_message"]
            .as_str()
            .unwrap()
            .contains("numpy==99.99.99"),
        "{}",
        task["status_message"]
    );
}
