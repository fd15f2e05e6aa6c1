//! The controller's fault points, read from its sources: each call that changes something has one behind it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Calls that change something on the other side.
const CHANGES: [&str; 24] = [
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
    "jobs().delete(&",
    "api.delete(&",
    ".replace(",
    ".create(&PostParams",
    ".request(request)",
    "recorder.publish(",
];
/// A point stands no further behind its call than this many lines.
const NEAR: usize = 32;

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("folder is readable") {
            let path = entry.expect("entry is readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.ends_with("tests.rs")
                && !path.ends_with("fault.rs")
                // A program of its own, which the controller outlives.
                && !path.ends_with("retire.rs")
            {
                let text = fs::read_to_string(&path).expect("source is readable");
                let shipped = text.split("#[cfg(test)]\nmod tests").next();
                found.push((path, shipped.unwrap_or_default().to_owned()));
            }
        }
    }
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controller"),
        &mut found,
    );
    found
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
