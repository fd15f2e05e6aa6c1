//! A task's log at the server: read, and compared as a whole with what was written.

use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use trainyard::exec::spool::NOTE;

use super::{PATIENCE, World, wait};
use crate::whole::assert_same;

/// How long lines may be on their way: those of a task that was stopped arrive after its status.
const ON_THE_WAY: Duration = Duration::from_secs(10);

impl World {
    /// The task's console log, line by line, oldest first.
    pub fn log(&self, task: &str) -> Vec<String> {
        let answer = self.call(
            "events.get_task_log",
            &json!({"task": task, "batch_size": 10000, "navigate_earlier": false, "order": "asc"}),
        );
        let mut lines = Vec::new();
        for event in answer["events"].as_array().expect("log has events") {
            lines.extend(
                event["msg"]
                    .as_str()
                    .unwrap_or_default()
                    .lines()
                    .map(str::to_owned),
            );
        }
        lines
    }

    /// All that the task's pods have sent, as it is; without what the controller and clients elsewhere told.
    pub fn text(&self, task: &str) -> String {
        let answer = self.call(
            "events.get_task_log",
            &json!({"task": task, "batch_size": 10000, "navigate_earlier": false, "order": "asc"}),
        );
        let events = answer["events"].as_array().expect("log has events");
        let of_pods = events.iter().filter(|event| {
            let worker = event["worker"].as_str().unwrap_or_default();
            worker.contains(task)
        });
        of_pods.filter_map(|event| event["msg"].as_str()).collect()
    }

    /// The same without the executor's own remarks: what the task itself has written.
    pub fn output(&self, task: &str) -> String {
        self.text(task)
            .split_inclusive('\n')
            .filter(|line| !line.starts_with(NOTE))
            .collect()
    }

    /// The same once it is right, or as it is when it has had the time for that.
    pub fn output_once(&self, task: &str, is_right: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let found = self.output(task);
            if is_right(&found) || begun.elapsed() > ON_THE_WAY * PATIENCE {
                return found;
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The task itself has written this and nothing else, byte for byte.
    pub fn has_written(&self, task: &str, wanted: &str) {
        let found = self.output_once(task, |found| found == wanted);
        assert_same(&found, wanted);
    }

    /// The server has all that the container of the task's only pod has printed, byte for byte and no byte more; the pod
    /// has to be there still. Gives it.
    pub fn has_sent_all(&self, task: &str) -> String {
        // What the container has printed is all there once the kubelet tells of its end.
        let pod = wait("the kubelet tells of the container's end", 60, || {
            let pod = self.pod_of(task);
            let all = pod["status"]["containerStatuses"].as_array()?.clone();
            let ended = |status: &Value| {
                status["name"] == "task" && !status["state"]["terminated"].is_null()
            };
            all.iter().any(ended).then_some(pod)
        });
        let name = pod["metadata"]["name"].as_str().expect("pod name");
        let printed = self.kubectl(&["logs", name, "-c", "task"]);
        // What the executor says of itself begins with the time, and is for the pod's log alone.
        let of_executor = |line: &&str| {
            let first = line.split(' ').next();
            first.is_some_and(|word| word.parse::<Timestamp>().is_ok())
        };
        let printed: String = printed
            .split_inclusive('\n')
            .filter(|line| !of_executor(line))
            .collect();
        let stored = self.text(task);
        assert_same(&stored, &printed);
        stored
    }
}
