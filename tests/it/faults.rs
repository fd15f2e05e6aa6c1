//! The controller's fault points, read from its sources: each call that changes something has one behind it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::sources::shipped;

/// Calls that change something on the other side.
const CHANGES: [&str; 23] = [
    ".remove_from_queue(",
    ".move_queued_task(",
    ".move_to_front(",
    "client\n.dequeue(",
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
    ".request(request)",
    "recorder.publish(",
];
/// A point stands no further behind its call than this many lines.
const NEAR: usize = 32;

/// What is shipped of each source.
fn sources() -> Vec<(PathBuf, String)> {
    shipped("src/controller")
        .into_iter()
        // A program of its own, which the controller outlives, and the points themselves.
        .filter(|path| !path.ends_with("retire.rs") && !path.ends_with("fault.rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source is readable");
            let shipped = text.split("#[cfg(test)]\nmod tests").next();
            let shipped = shipped.unwrap_or_default().to_owned();
            (path, shipped)
        })
        .collect()
}

/// Names of all points, and where each stands.
pub fn points() -> BTreeMap<String, String> {
    let mut points = BTreeMap::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let Some((_, rest)) = line.split_once("fault::point!(\"") else {
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

#[test]
fn every_call_that_changes_something_has_a_fault_point_behind_it() {
    assert!(points().len() >= 35, "{} points", points().len());
    let mut without = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            if !CHANGES.iter().any(|call| line.contains(call))
                || line.trim_start().starts_with("//")
            {
                continue;
            }
            let near = &lines[number..lines.len().min(number + NEAR)];
            if !near.iter().any(|line| line.contains("fault::point!(")) {
                without.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(
        without.is_empty(),
        "add fault::point! behind these calls:\n{}",
        without.join("\n")
    );
}
