use serde_json::json;

use super::*;
use crate::controller::row::{JobObject, JobRow};
use crate::controller::tests::TASK;

fn job(task: &str, name: &str, resource_version: u32) -> JobObject {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": resource_version.to_string(),
            "labels": {"trainyard.dev/task": task, "trainyard.dev/binding": "gpu"},
        },
        "spec": {"suspend": true, "template": {"spec": {"containers": [{"name": "task"}]}}},
    }))
    .unwrap()
}

fn mirror() -> Mirror<JobRow> {
    Mirror::new(Wakers::default())
}

#[test]
fn nothing_is_believed_before_the_first_list_is_complete() {
    let mirror = mirror();
    assert!(!mirror.sound());
    mirror.take(Event::Init);
    mirror.take(Event::InitApply(job(TASK, "a", 1)));
    assert!(!mirror.sound() && mirror.in_namespace("ns").is_empty());
    mirror.take(Event::InitDone);
    assert!(mirror.sound());
    assert_eq!(mirror.in_namespace("ns").len(), 1);
    assert!(mirror.in_namespace("n").is_empty() && mirror.in_namespace("nsx").is_empty());
}

#[test]
fn an_own_write_is_not_undone_by_an_older_message() {
    let mirror = mirror();
    mirror.note(job(TASK, "a", 5));
    mirror.take(Event::Apply(job(TASK, "a", 4)));
    assert_eq!(&*mirror.in_namespace("ns")[0].1.resource_version, "5");
    mirror.take(Event::Apply(job(TASK, "a", 6)));
    assert_eq!(&*mirror.in_namespace("ns")[0].1.resource_version, "6");
}

#[test]
fn a_watch_that_ends_by_itself_lets_the_process_be_started_again() {
    let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
    let watched = || Watched {
        part: "jobs",
        readiness: &readiness,
        shutdown: shutdown.clone(),
    };
    drop(watched());
    assert_eq!(readiness.live().unwrap_err(), "jobs: its watch has ended");
    readiness.set("jobs", Health::Ready);
    shutdown.cancel();
    drop(watched());
    assert!(readiness.live().is_ok());
}

#[test]
fn an_answer_that_comes_after_its_objects_end_brings_nothing_back() {
    let mirror = mirror();
    mirror.take(Event::Apply(job(TASK, "a", 5)));
    mirror.take(Event::Delete(job(TASK, "a", 7)));
    mirror.note(job(TASK, "a", 6));
    assert!(mirror.in_namespace("ns").is_empty());
    // Another object of the same name is another object.
    let mut again = job(TASK, "a", 9);
    again.0.metadata.uid = Some("b".into());
    mirror.note(again);
    assert_eq!(mirror.in_namespace("ns").len(), 1);
}

#[test]
fn what_was_being_deleted_and_is_missing_from_a_list_stays_gone() {
    let mirror = mirror();
    let mut deleting = job(TASK, "a", 5);
    deleting.0.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    mirror.take(Event::Apply(deleting.clone()));
    mirror.take(Event::Init);
    mirror.take(Event::InitDone);
    mirror.note(deleting);
    assert!(mirror.in_namespace("ns").is_empty());
}

#[test]
fn the_deleted_are_remembered_for_a_while() {
    let (mut buried, start) = (Buried::default(), Instant::now());
    buried.add("a", start);
    buried.add("b", start + BURIED);
    assert!(buried.holds("a"));
    buried.add("c", start + BURIED * 3 / 2);
    assert!(!buried.holds("a") && buried.holds("b"));
    assert_eq!((buried.uids.len(), buried.order.len()), (2, 2));
}

#[test]
fn the_last_state_of_what_was_deleted_is_handed_out_once() {
    let mirror = mirror();
    mirror.take(Event::Apply(job(TASK, "a", 5)));
    mirror.take(Event::Delete(job(TASK, "a", 6)));
    assert!(mirror.in_namespace("ns").is_empty());
    assert!(mirror.take_gone("ns", "cpu").is_empty());
    let gone = mirror.take_gone("ns", "gpu");
    assert_eq!(&*gone[0].resource_version, "6");
    assert!(mirror.take_gone("ns", "gpu").is_empty());
}

#[test]
fn a_relist_drops_what_is_gone() {
    let mirror = mirror();
    mirror.note(job(TASK, "a", 5));
    for event in [Event::Init, Event::InitDone] {
        mirror.take(event);
    }
    assert!(mirror.in_namespace("ns").is_empty());
}

#[test]
fn a_deleted_object_of_an_earlier_life_does_not_remove_its_successor() {
    let mirror = mirror();
    let mut successor = job(TASK, "a", 9);
    successor.0.metadata.uid = Some("b".into());
    mirror.note(successor);
    mirror.take(Event::Delete(job(TASK, "a", 8)));
    assert_eq!(mirror.in_namespace("ns").len(), 1);
}

#[test]
fn a_change_wakes_the_bindings_loop_alone() {
    let wakers = Wakers::default();
    let (mine, other) = (wakers.of("ns", "gpu"), wakers.of("ns", "cpu"));
    Mirror::<JobRow>::new(wakers).take(Event::Apply(job(TASK, "a", 1)));
    let woken = |alarm: &Notify| futures::FutureExt::now_or_never(alarm.notified()).is_some();
    assert!(woken(&mine) && !woken(&other));
}

#[test]
fn a_list_wakes_every_loop_once_it_is_complete_and_nobody_before() {
    let wakers = Wakers::default();
    let alarms = [wakers.of("ns", "gpu"), wakers.of("ns", "cpu")];
    let mirror = Mirror::<JobRow>::new(wakers);
    let woken = |alarm: &Arc<Notify>| futures::FutureExt::now_or_never(alarm.notified()).is_some();
    mirror.take(Event::Init);
    mirror.take(Event::InitApply(job(TASK, "a", 1)));
    assert!(!alarms.iter().any(woken));
    mirror.take(Event::InitDone);
    assert!(alarms.iter().all(woken));
}

#[test]
fn two_failures_in_a_row_make_the_rows_doubtful_for_a_while() {
    let mut failures = Failures::default();
    let now = Instant::now();
    failures.add(now);
    assert!(!failures.broken(now));
    failures.add(now);
    assert!(failures.broken(now));
    assert!(!failures.broken(now + SILENCE));
}
