//! S8: a script that fails ends its task, pod and Job as failed, with the cause, and leaves no process behind.

use serde_json::{Value, json};

use super::world::{World, wait};
use crate::{clock, times};

/// The stated figure: seconds from the end of the process to the task's final status.
const STATED: f64 = 1.0;
/// What is allowed on a machine that others use too: less than an executor waits in vain for lines that do not get through.
const LATE: f64 = 15.0;

/// The last that a script prints before it fails: a line, and the time.
const LAST: &str = "import time\nprint('before')\nprint('end', time.time())\n";

/// The Job of a task once it has failed and its end is settled.
fn failed_job(world: &World, task: &str) -> Value {
    wait("the Job is Failed and settled", 30, || {
        let job = world.job_of(task);
        let failed = job["status"]["conditions"].as_array().is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Failed" && c["status"] == "True")
        });
        let settled = job["metadata"]["labels"]["trainyard.dev/state"] == "settled";
        (failed && settled).then_some(job)
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

/// How many objects of this kind the task has.
fn count(world: &World, kind: &str, task: &str) -> usize {
    let label = format!("trainyard.dev/task={task}");
    let found = world.get(&[kind, "-l", &label]);
    found["items"].as_array().map_or(0, Vec::len)
}

/// Seconds from what the script printed last to the task's final status.
fn end_to_status(task: &Value, log: &[String]) -> f64 {
    let end: f64 = log
        .iter()
        .find_map(|line| line.strip_prefix("end ")?.parse().ok())
        .unwrap_or_else(|| panic!("the script told when it ended: {log:#?}"));
    clock::told(&task["status_changed"]) - end
}

/// The log begins with what each of these scripts prints, nothing follows but the traceback of one that has one, and all
/// that the container has printed is there.
fn wrote_until_its_end(world: &World, task: &str) {
    world.has_sent_all(task);
    let output = world.output(task);
    let after = output.strip_prefix("before\nend ");
    let rest = after.and_then(|after| Some(after.split_once('\n')?.1));
    assert!(
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("Traceback ")),
        "{output}"
    );
}

#[test]
fn s8_failing_scripts_fail_task_pod_and_job_with_the_cause() {
    let world = World::with_binding("s8");
    let cases = [
        (
            "exit three",
            "raise SystemExit(3)\n",
            "exit code 3",
            3,
            "exit-code",
        ),
        (
            "exception",
            "raise ValueError('the reason')\n",
            "exit code 1",
            1,
            "exit-code",
        ),
        (
            "segfault",
            "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n",
            "SIGSEGV",
            139,
            "signal",
        ),
        // A user's code in our reserved range stays the user's.
        (
            "reserved code",
            "raise SystemExit(211)\n",
            "exit code 211",
            211,
            "exit-code",
        ),
    ];
    let tasks = cases.map(|(name, end, ..)| world.run(name, &format!("{LAST}{end}"), "gpu"));

    for ((name, _, words, code, category), task) in cases.into_iter().zip(&tasks) {
        let ended = world.until_ended(task, 120);
        assert_eq!(ended["status"], "failed", "{name}");
        let message = format!("{} {}", ended["status_reason"], ended["status_message"]);
        assert!(message.contains(words), "{name}: {message}");
        let called = ended["status_reason"].as_str().unwrap_or_default();
        let wanted = format!(", trainyard: {category}");
        assert!(called.ends_with(&wanted), "{name}: {called}");
        assert!(
            message.contains("before"),
            "the last lines are in the message of {name}: {message}"
        );
        let late = end_to_status(&ended, &world.log(task));
        times::told("S8", "end of the process to the final status", late, STATED);
        assert!(late < LATE, "{name}: {late} s");
        wrote_until_its_end(&world, task);

        assert_eq!(exit_code_of_pod(&world, task), code, "{name}");
        let job = failed_job(&world, task);
        let notes = &job["metadata"]["annotations"];
        assert_eq!(notes["trainyard.dev/exit-code"], code.to_string(), "{name}");
        assert_eq!(notes["trainyard.dev/ended"], category, "{name}");
    }
    let output = world.output(&tasks[1]);
    assert!(output.ends_with("\nValueError: the reason\n"), "{output}");

    // No retry: one Job each, of the first attempt, and one pod.
    for task in &tasks {
        assert_eq!(
            (count(&world, "jobs", task), count(&world, "pods", task)),
            (1, 1)
        );
        for object in [world.job_of(task), world.pod_of(task)] {
            let attempt = &object["metadata"]["labels"]["trainyard.dev/attempt"];
            assert_eq!(attempt, "1", "{object:#}");
        }
        assert_eq!(world.status(task), "failed");
    }
}

#[test]
fn s8_background_children_do_not_outlive_the_script() {
    let world = World::with_binding("s8-children");
    let source = "import subprocess\n\
        subprocess.Popen(['sleep', '1000'], start_new_session=True)\n\
        print('leaving a child behind')\n";
    let task = world.run("background child", source, "gpu");
    assert_eq!(world.until_ended(&task, 60)["status"], "completed");
    world.has_written(&task, "leaving a child behind\n");
    wait(
        "the pod has succeeded although a child was left",
        20,
        || (world.pod_of(&task)["status"]["phase"] == "Succeeded").then_some(()),
    );
}

/// How a task failed is one line of its log, and its status message.
fn is_told_once(task: &Value, log: &[String]) {
    let sentence = task["status_message"].as_str().unwrap_or_default();
    assert!(!sentence.is_empty(), "{task:#}");
    let lines = log.iter().filter(|line| line.contains(sentence)).count();
    assert_eq!(lines, 1, "{sentence:?} in {log:#?}");
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
    let sentence = format!(
        "commit 0123456789abcdef0123456789abcdef01234567 is not in {}",
        repository.url
    );
    let message = task["status_message"].as_str().unwrap_or_default();
    assert!(message.contains(&sentence), "{message}");
    is_told_once(&task, &log);
    world.has_written(&missing, "");

    let task = world.until_ended(&unsatisfiable, 120);
    assert_eq!(task["status"], "failed");
    let message = task["status_message"].as_str().unwrap_or_default();
    assert!(message.contains("numpy==99.99.99"), "{message}");
    let log = world.log(&unsatisfiable);
    is_told_once(&task, &log);
    world.has_written(&unsatisfiable, "");
}
