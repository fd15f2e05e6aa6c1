//! Who is looked ahead for, and what Jobs tell.

use serde_json::{Value, json};

use super::*;
use crate::api::QueueEntries;

fn id(number: u8) -> String {
    format!("{number:032x}")
}

fn queue(number: u8, entries: &[(u8, Option<&str>)]) -> QueueEntries {
    let entry = |(task, added): &(u8, Option<&str>)| Entry {
        task: id(*task).parse().unwrap(),
        added: added.map(str::to_owned),
    };
    QueueEntries {
        id: id(number).parse().unwrap(),
        entries: entries.iter().map(entry).collect(),
        cut: false,
    }
}

fn queues(served: Vec<QueueEntries>) -> Queues {
    Queues {
        read_at: "2026-01-01T00:01:00Z".parse().unwrap(),
        served,
        pending: queue(99, &[]),
        gone: Vec::new(),
        every: None,
    }
}

const LONG: Option<&str> = Some("2026-01-01T00:00:50Z");
const SHORT: Option<&str> = Some("2026-01-01T00:00:51Z");

fn names(waiting: &Waiting<'_>) -> Vec<String> {
    waiting
        .iter()
        .map(|(_, entry)| entry.task.to_string())
        .collect()
}

#[test]
fn only_the_first_are_looked_at_and_of_them_those_that_have_waited() {
    let first = queue(90, &[(1, LONG), (2, SHORT), (3, LONG)]);
    let queues = queues(vec![first, queue(91, &[(4, LONG), (5, None)])]);
    let of = |most| names(&waiting(&queues, most, |_| true, |_| false));
    assert_eq!(of(1), [id(1)]);
    assert_eq!(of(2), [id(1)]);
    assert_eq!(of(10), [id(1), id(3), id(4)]);
    let other = id(91);
    let of_other = waiting(&queues, 1, |queue| queue.as_str() == other, |_| false);
    assert_eq!(names(&of_other), [id(4)]);
    let first = id(1);
    let behind = waiting(&queues, 2, |_| true, |task| task.as_str() == first);
    assert_eq!(names(&behind), [id(3)]);
}

#[test]
fn what_is_known_of_a_task_goes_with_its_entry() {
    let mut done: HashMap<TaskId, Option<String>> =
        [1, 2].map(|task| (id(task).parse().unwrap(), None)).into();
    forget(&mut done, &queues(vec![queue(90, &[(2, LONG)])]));
    let left: Vec<String> = done.keys().map(TaskId::to_string).collect();
    assert_eq!(left, [id(2)]);
}

fn job(status: &Value, created: &str) -> JobRow {
    JobRow::of(
        serde_json::from_value(json!({
            "metadata": {
                "name": "j", "uid": "u", "creationTimestamp": created,
                "annotations": {annotation::ENVIRONMENT: "alike.exact"},
            },
            "status": status,
        }))
        .unwrap(),
    )
}

#[test]
fn a_job_is_under_way_until_it_ends_but_not_for_ever() {
    let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
    let ended = json!({"conditions": [{"type": "Failed", "status": "True"}]});
    assert!(!is_under_way(&job(&ended, "2026-01-01T00:59:00Z"), now));
    assert!(is_under_way(&job(&json!({}), "2026-01-01T00:59:00Z"), now));
    assert!(!is_under_way(&job(&json!({}), "2026-01-01T00:00:00Z"), now));
}

#[test]
fn where_a_job_ran_is_remembered() {
    let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    let job = job(&complete, "2026-01-01T00:00:00Z");
    let pod = |owner: &str, node: &str| -> Pod {
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner});
        let spec = json!({"nodeName": node, "containers": []});
        serde_json::from_value(json!({"metadata": {"ownerReferences": [owner]}, "spec": spec}))
            .unwrap()
    };
    let mut known = Environments::default();
    remember(&mut known, &job, &[pod("other", "a"), pod("u", "b")]);
    let key = EnvironmentKey {
        alike: "alike".into(),
        exact: "exact".into(),
    };
    assert!(job.is_complete() && known.has(&key));
    assert_eq!(known.nodes_of("alike"), ["b"]);
}
