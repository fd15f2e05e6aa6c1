//! The controller's fault points, read from its sources: each of its calls to Kubernetes, to the ClearML server and to an
//! image registry has one behind it, those that change something and those that ask.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::sources::{root, shipped};

/// Calls that change something on the other side.
const CHANGES: [&str; 23] = [
    ".remove_from_queue(",
    ".move_queued_task(",
    ".move_queued_task_telling(",
    ".move_to_front(",
    ".move_backward(",
    ".dequeue(&",
    ".failed(task",
    ".completed(task",
    ".stopped(task",
    ".set_status_message(",
    ".add_events(",
    ".create_queue(",
    ".create_hidden_queue(",
    ".delete_queue(",
    ".register_worker(",
    ".report_worker(",
    ".unregister_worker(",
    ".patch(&",
    ".patch_status(",
    "api.delete(&",
    ".replace(",
    ".create(&PostParams",
    "recorder.publish(",
];
/// Calls that ask. A request that is put together here asks, or creates or releases a Job.
const ASKS: [&str; 22] = [
    ".get_opt(",
    "api.get(",
    ".list(&",
    ".list_metadata(",
    ".logs(&",
    ".request::<",
    "watcher(api",
    "watch(api",
    ".task_facts(",
    ".task_facts_in(",
    ".task_bodies(",
    ".queue_entries(",
    ".every_queue_entries(",
    ".every_queue_name(",
    ".find_queue(",
    ".queue_length(",
    ".project_names(",
    ".log_tail(",
    ".api_version(",
    ".files_below_api(",
    ".look(&question",
    ".command(&question",
];
/// Methods of the client that pods and commands call, and the controller never does.
const OF_OTHERS: [&str; 11] = [
    "edit_runtime",
    "edit_script",
    "enqueue",
    "log_before",
    "ping",
    "reachable",
    "replace_runtime",
    "set_requirements",
    "started",
    "task",
    "token",
];
/// Calls without a point: the file, what stands in the line, and why.
const EXCEPTIONS: [(&str, &str, &str); 3] = [
    ("loops.rs", "watcher(api", "a watch has no single answer"),
    ("mirror.rs", "watch(api", "a watch has no single answer"),
    ("nodes.rs", "watcher(api", "a watch has no single answer"),
];
/// Files that are not the controller's, and why.
const NOT_THE_CONTROLLER: [(&str, &str); 6] = [
    ("explain.rs", "`trainyard explain`, which changes nothing"),
    ("fault.rs", "the points themselves"),
    (
        "foresee.rs",
        "the looks of `explain`, `render` and `shadow`",
    ),
    ("preview.rs", "`trainyard render`, which changes nothing"),
    ("retire.rs", "a program that the controller outlives"),
    ("shadow.rs", "`trainyard shadow`, which changes nothing"),
];
/// A point stands no further behind its call than this many lines.
const NEAR: usize = 32;
const POINT: &str = "fault::point!(\"";

/// What is shipped of each source of the controller.
fn sources() -> Vec<(PathBuf, String)> {
    let mut paths = shipped("src/controller");
    paths.retain(|path| {
        let is = |(name, _): &(&str, &str)| path.ends_with(Path::new("src/controller").join(name));
        !NOT_THE_CONTROLLER.iter().any(is)
    });
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("source is readable");
        let shipped = text.split("#[cfg(test)]\nmod tests").next();
        let shipped = shipped.unwrap_or_default().to_owned();
        (path, shipped)
    };
    paths.into_iter().map(text).collect()
}

/// Names of all points, and where each stands.
pub fn points() -> BTreeMap<String, String> {
    let mut points = BTreeMap::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let Some((_, rest)) = line.split_once(POINT) else {
                continue;
            };
            let name = rest.split('"').next().unwrap_or_default().to_owned();
            let place = format!("{}:{}", path.display(), number + 1);
            let other = points.insert(name.clone(), place.clone());
            assert_eq!(other, None, "point {name} stands twice, also at {place}");
        }
    }
    points
}

/// Whether one of these calls stands in the line.
fn has(line: &str, calls: &[&str]) -> bool {
    !line.trim_start().starts_with("//") && calls.iter().any(|call| line.contains(call))
}

/// Lines of calls that have no point behind them, by their numbers. Calls that change something may share the one that
/// follows them all: each is one way to do a step. Behind one that asks it stands before the next call.
fn without_point(lines: &[&str]) -> Vec<usize> {
    let is_call = |line: &str| has(line, &CHANGES) || has(line, &ASKS);
    let lacks = |number: &usize| {
        let end = lines.len().min(number + NEAR);
        let mut behind = lines[number + 1..end].iter();
        let next = if has(lines[*number], &CHANGES) {
            behind.find(|line| line.contains(POINT))
        } else {
            behind.find(|line| line.contains(POINT) || is_call(line))
        };
        next.is_none_or(|line| !line.contains(POINT))
    };
    let calls = (0..lines.len()).filter(|number| is_call(lines[*number]));
    calls.filter(lacks).collect()
}

#[test]
fn every_call_has_a_fault_point_behind_it() {
    assert!(points().len() >= 75, "{} points", points().len());
    let (mut without, mut excepted) = (Vec::new(), 0);
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for number in without_point(&lines) {
            let line = lines[number].trim();
            let is =
                |(file, call, _): &(&str, &str, &str)| path.ends_with(file) && line.contains(call);
            if EXCEPTIONS.iter().any(is) {
                excepted += 1;
            } else {
                without.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(
        without.is_empty(),
        "add fault::point! behind these calls:\n{}",
        without.join("\n")
    );
    assert_eq!(excepted, EXCEPTIONS.len(), "each exception is one call");
}

#[test]
fn a_call_without_a_point_is_found() {
    let ask = "let found = client.task_facts(&ids).await?;";
    let change = "client.failed(task, reason, message).await?;";
    let point = "fault::point!(\"step/task-read\");";
    assert!(without_point(&[ask, point, change, point]).is_empty());
    assert!(without_point(&[change, change, point]).is_empty());
    assert_eq!(without_point(&[ask, ask, point]), [0]);
    assert_eq!(without_point(&[ask, change, point]), [0]);
    assert_eq!(without_point(&[point, ask]), [1]);
    let mut far = vec![change];
    far.resize(NEAR, "");
    far.push(point);
    assert_eq!(without_point(&far), [0]);
}

/// A method that is new to the client is found where the controller calls it.
#[test]
fn every_method_of_the_client_is_known() {
    let mut count = 0;
    for path in shipped("src/api") {
        let text = fs::read_to_string(&path).expect("source is readable");
        let methods = text
            .lines()
            .filter_map(|line| line.strip_prefix("    pub async fn "));
        for method in methods {
            let name = method.split(['(', '<']).next().unwrap_or_default();
            let call = format!(".{name}(");
            let is_listed = CHANGES.iter().chain(&ASKS).any(|of| of.starts_with(&call));
            assert!(
                is_listed != OF_OTHERS.contains(&name),
                "{}: list `{name}` among CHANGES, ASKS or OF_OTHERS",
                path.strip_prefix(root()).unwrap_or(&path).display()
            );
            count += 1;
        }
    }
    assert!(count > OF_OTHERS.len(), "{count} methods");
    for (path, text) in sources() {
        let text: String = text.split_whitespace().collect();
        for name in OF_OTHERS {
            assert!(
                !text.contains(&format!("client.{name}(")),
                "{} calls `{name}`: list it among CHANGES or ASKS",
                path.display()
            );
        }
    }
}
