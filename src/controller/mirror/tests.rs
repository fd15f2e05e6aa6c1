use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

fn job(task: &str, name: &str, resource_version: u32) -> Job {
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": resource_version.to_string(),
            "labels": {"trainyard.dev/task": task, "trainyard.dev/binding": "gpu"},
        },
        "spec": {"suspend": true, "template": {"spec": {"containers": [{"name": "task"}]}}},
    }))
    .unwrap()
}

const TASK: &str = "0123456789abcdef0123456789abcdef";

fn mirror() -> Mirror<Job> {
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
    assert_eq!(
        mirror.in_namespace("ns")[0].1.resource_version().unwrap(),
        "5"
    );
    mirror.take(Event::Apply(job(TASK, "a", 6)));
    assert_eq!(
        mirror.in_namespace("ns")[0].1.resource_version().unwrap(),
        "6"
    );
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
    again.metadata.uid = Some("b".into());
    mirror.note(again);
    assert_eq!(mirror.in_namespace("ns").len(), 1);
}

#[test]
fn what_was_being_deleted_and_is_missing_from_a_list_stays_gone() {
    let mirror = mirror();
    let mut deleting = job(TASK, "a", 5);
    deleting.metadata.deletion_timestamp =
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
    let uids: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
    buried.add(Some(&uids[0]), start);
    buried.add(Some(&uids[1]), start + BURIED);
    assert!(buried.holds(Some(&uids[0])));
    buried.add(Some(&uids[2]), start + BURIED * 3 / 2);
    assert!(!buried.holds(Some(&uids[0])) && buried.holds(Some(&uids[1])));
    assert_eq!((buried.uids.len(), buried.order.len()), (2, 2));
}

#[test]
fn specs_are_not_kept() {
    let mirror = mirror();
    mirror.note(job(TASK, "a", 5));
    let kept = mirror.in_namespace("ns")[0].1.clone();
    let spec = kept.spec.as_ref().unwrap();
    assert_eq!(spec.suspend, Some(true));
    assert!(spec.template.spec.is_none());
}

#[test]
fn of_metadata_and_status_only_what_somebody_reads_is_kept() {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "labels": {"trainyard.dev/task": TASK, "team": "vision"}, "finalizers": ["x"],
            "annotations": {"kubectl.kubernetes.io/default-container": "main", "note": "long"},
        },
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "False"},
                {"type": "PodScheduled", "status": "True"}, {"type": "DisruptionTarget", "status": "True"},
            ],
            "containerStatuses": [{"name": "main", "image": "i", "imageID": "sha256:1", "ready": true,
                "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
        },
    }))
    .unwrap();
    pod.strip();
    let kept = serde_json::to_value(&pod).unwrap();
    assert_eq!(
        kept["metadata"]["labels"],
        json!({"trainyard.dev/task": TASK})
    );
    assert_eq!(
        kept["metadata"]["annotations"],
        json!({"kubectl.kubernetes.io/default-container": "main"})
    );
    let types: Vec<&str> = kept["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|known| known["type"].as_str())
        .collect();
    assert_eq!(types, ["Initialized", "PodScheduled", "DisruptionTarget"]);
    let container = &kept["status"]["containerStatuses"][0];
    assert_eq!(container["imageID"], "");
    assert!(container["state"]["running"]["startedAt"].is_string());
}

#[test]
fn images_and_limits_are_kept_unless_the_pod_simply_runs() {
    let runs = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let waits = json!({"waiting": {"reason": "CreateContainerConfigError"}});
    for (state, restarts, deleted, kept) in [
        (&runs, 0, false, false),
        (&runs, 1, false, true),
        (&runs, 0, true, true),
        (&killed, 0, false, true),
        (&waits, 0, false, true),
    ] {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "spec": {"nodeName": "a", "containers": [{
                "name": "task", "image": "i", "command": ["x"], "resources": {"limits": {"memory": "1Gi"}}}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "task", "image": "i", "imageID": "",
                "ready": true, "restartCount": restarts, "state": state}]},
        }))
        .unwrap();
        pod.strip();
        let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        assert_eq!(spec["nodeName"], "a");
        let limit = &spec["containers"][0]["resources"]["limits"]["memory"];
        assert_eq!(limit == "1Gi", kept, "{state} {restarts} {deleted}");
        assert!(spec["containers"][0]["command"].is_null());
    }
}

#[test]
fn the_last_state_of_what_was_deleted_is_handed_out_once() {
    let mirror = mirror();
    mirror.take(Event::Apply(job(TASK, "a", 5)));
    mirror.take(Event::Delete(job(TASK, "a", 6)));
    assert!(mirror.in_namespace("ns").is_empty());
    assert!(mirror.take_gone("ns", "cpu").is_empty());
    let gone = mirror.take_gone("ns", "gpu");
    assert_eq!(gone[0].resource_version().unwrap(), "6");
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
    successor.metadata.uid = Some("b".into());
    mirror.note(successor);
    mirror.take(Event::Delete(job(TASK, "a", 8)));
    assert_eq!(mirror.in_namespace("ns").len(), 1);
}

#[test]
fn a_change_wakes_the_bindings_loop_alone() {
    let wakers = Wakers::default();
    let (mine, other) = (wakers.of("ns", "gpu"), wakers.of("ns", "cpu"));
    Mirror::new(wakers).take(Event::Apply(job(TASK, "a", 1)));
    let woken = |alarm: &Notify| futures::FutureExt::now_or_never(alarm.notified()).is_some();
    assert!(woken(&mine) && !woken(&other));
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
