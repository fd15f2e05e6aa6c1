//! Every status against every call, as observed on a real server (`protocol.md` §3.4).

use super::*;

const NOW: &str = "2026-11-04T14:46:17.000000+00:00";
const STATUSES: [&str; 7] = [
    "created",
    "queued",
    "in_progress",
    "stopped",
    "failed",
    "completed",
    "published",
];

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn task(status: &str) -> Doc {
    let mut task = Doc::new();
    task.insert("id".into(), "t".into());
    task.insert("status".into(), status.into());
    if status == "queued" {
        doc::set(&mut task, "execution.queue", "q".into());
        doc::set(&mut task, "enqueue_status", "created".into());
    }
    task
}

fn live(mut task: Doc) -> Doc {
    task.insert("last_worker".into(), "w".into());
    task.insert("last_update".into(), NOW.into());
    task
}

/// The cell of the table: the status afterwards, or the subcode of the refusal.
fn cell(result: Result<StatusChange, Refusal>) -> String {
    match result {
        Ok(change) => change.status.as_str().to_owned(),
        Err(refusal) => refusal.subcode.to_string(),
    }
}

fn row(call: impl Fn(&Doc, &Ask) -> Result<StatusChange, Refusal>, force: bool) -> Vec<String> {
    let ask = Ask {
        force,
        ..Ask::default()
    };
    STATUSES
        .iter()
        .map(|status| cell(call(&task(status), &ask)))
        .collect()
}

fn assert_row(
    call: impl Fn(&Doc, &Ask) -> Result<StatusChange, Refusal>,
    wanted: [&str; 7],
    forced: &str,
) {
    assert_eq!(row(&call, false), wanted);
    assert_eq!(row(&call, true), [forced; 7]);
}

#[test]
fn enqueue() {
    // A queued task gets as far as its queue, where its own entry refuses it with 706.
    let call = |task: &Doc, ask: &Ask| super::enqueue(task, Some("q"), ask);
    assert_row(
        call,
        ["queued", "queued", "110", "queued", "queued", "110", "110"],
        "queued",
    );
}

#[test]
fn started() {
    let call = |task: &Doc, ask: &Ask| super::started(task, ask, NOW);
    let wanted = [
        "in_progress",
        "in_progress",
        "in_progress",
        "in_progress",
        "110",
        "in_progress",
        "110",
    ];
    assert_row(call, wanted, "in_progress");
}

#[test]
fn stop() {
    let call = |task: &Doc, ask: &Ask| super::stop(task, ask, "someone", now());
    assert_row(
        call,
        [
            "110", "stopped", "stopped", "stopped", "stopped", "110", "110",
        ],
        "stopped",
    );
}

#[test]
fn stopped_completed_failed() {
    let call = |to: Status| move |task: &Doc, ask: &Ask| ended(task, to, ask, NOW);
    let stopped = [
        "110", "stopped", "stopped", "stopped", "stopped", "110", "110",
    ];
    assert_row(call(Status::Stopped), stopped, "stopped");
    let completed = [
        "110",
        "110",
        "completed",
        "completed",
        "110",
        "completed",
        "110",
    ];
    assert_row(call(Status::Completed), completed, "completed");
    let failed = ["110", "110", "failed", "failed", "failed", "110", "110"];
    assert_row(call(Status::Failed), failed, "failed");
}

#[test]
fn reset_and_publish() {
    let created = [
        "created", "created", "created", "created", "created", "created", "110",
    ];
    assert_row(super::reset, created, "created");
    let call = |task: &Doc, ask: &Ask| super::publish(task, ask, NOW);
    assert_row(
        call,
        [
            "110",
            "110",
            "110",
            "published",
            "published",
            "published",
            "110",
        ],
        "published",
    );
}

#[test]
fn delete_and_edit() {
    for status in STATUSES {
        let free = status == "created";
        assert_eq!(
            super::delete(&task(status), false).is_ok(),
            free,
            "delete {status}"
        );
        let mut archived = task(status);
        archived.insert("system_tags".into(), json!(["archived"]));
        assert!(
            super::delete(&archived, false).is_ok(),
            "delete archived {status}"
        );
        assert_eq!(
            super::editable(&task(status), &[], false).is_ok(),
            free,
            "edit {status}"
        );
        assert!(super::delete(&task(status), true).is_ok());
        assert!(super::editable(&task(status), &[], true).is_ok());
    }
}

#[test]
fn dequeue() {
    let after = |status: &str, to| {
        super::dequeue(&task(status), to, &Ask::default()).map(|change| change.status)
    };
    for status in STATUSES {
        let acts = status == "queued" || status == "in_progress";
        assert_eq!(
            after(status, None),
            acts.then_some(Status::Created),
            "{status}"
        );
        assert_eq!(
            after(status, Some(Status::Failed)),
            acts.then_some(Status::Failed),
            "{status}"
        );
    }
}

#[test]
fn archive() {
    let after: Vec<&str> = STATUSES
        .iter()
        .map(|status| {
            super::archive(&task(status), &Ask::default())
                .status
                .as_str()
        })
        .collect();
    assert_eq!(
        after,
        [
            "created",
            "created",
            "stopped",
            "stopped",
            "failed",
            "completed",
            "published"
        ]
    );
}

#[test]
fn a_running_task_keeps_its_start_through_further_calls_of_started() {
    let mut running = task("in_progress");
    running.insert("started".into(), "earlier".into());
    running.insert("completed".into(), "earlier".into());
    super::started(&running.clone(), &Ask::default(), NOW)
        .unwrap()
        .apply(&mut running, NOW, "u");
    assert_eq!(doc::text(&running, "started"), "earlier");
    assert_eq!(doc::text(&running, "completed"), "earlier");

    let mut queued = running;
    queued.insert("status".into(), "queued".into());
    super::started(&queued.clone(), &Ask::default(), NOW)
        .unwrap()
        .apply(&mut queued, NOW, "u");
    assert_eq!(doc::text(&queued, "started"), NOW);
    assert!(!queued.contains_key("completed"));
}

#[test]
fn a_live_worker_is_only_told_to_stop() {
    let told = super::stop(
        &live(task("in_progress")),
        &Ask::default(),
        "someone",
        now(),
    )
    .unwrap();
    assert_eq!(
        (told.status, told.message.as_str()),
        (Status::InProgress, STOPPING)
    );

    let queued = super::stop(&live(task("queued")), &Ask::default(), "someone", now()).unwrap();
    assert_eq!(
        (queued.status, queued.take_out),
        (Status::Stopped, TakeOut::OwnQueue)
    );

    let mut local = live(task("in_progress"));
    local.insert("system_tags".into(), json!(["development"]));
    let local = super::stop(&local, &Ask::default(), "someone", now()).unwrap();
    assert_eq!(
        (local.status, local.message.as_str()),
        (Status::Stopped, "Stopped by someone")
    );

    let later = now() + jiff::SignedDuration::from_secs(WORKER_ALIVE_SECONDS);
    let dead = super::stop(
        &live(task("in_progress")),
        &Ask::default(),
        "someone",
        later,
    )
    .unwrap();
    assert_eq!(dead.status, Status::Stopped);
}

#[test]
fn an_enqueue_remembers_the_status_before_the_first_one() {
    let remembered = |task: &Doc| {
        let mut task = task.clone();
        super::enqueue(&task.clone(), Some("q"), &Ask::default())
            .unwrap()
            .apply(&mut task, NOW, "u");
        doc::text(&task, "enqueue_status").to_owned()
    };
    assert_eq!(remembered(&task("stopped")), "stopped");
    let mut queued = task("queued");
    assert_eq!(remembered(&queued), "created");
    queued.remove("enqueue_status");
    assert_eq!(remembered(&queued), "queued");
}

#[test]
fn an_enqueue_that_keeps_the_execution_queue_needs_a_queued_task_that_has_one() {
    let refused = |task: &Doc, force| {
        super::enqueue(
            task,
            None,
            &Ask {
                force,
                ..Ask::default()
            },
        )
        .unwrap_err()
        .subcode
    };
    for status in STATUSES.into_iter().filter(|status| *status != "queued") {
        assert_eq!(refused(&task(status), true), 12, "{status}");
    }
    let mut queued = task("queued");
    assert!(super::enqueue(&queued, None, &Ask::default()).is_ok());
    doc::unset(&mut queued, "execution.queue");
    assert_eq!(refused(&queued, false), 12);
}

#[test]
fn moving_to_queued_drops_the_development_tag() {
    let mut local = task("created");
    local.insert("system_tags".into(), json!(["development", "x"]));
    super::enqueue(&local.clone(), Some("q"), &Ask::default())
        .unwrap()
        .apply(&mut local, NOW, "u");
    assert_eq!(doc::strings(&local, "system_tags"), ["x"]);
}

const SILENCE: Duration = Duration::from_secs(7200);

#[test]
fn the_watchdog_stops_only_running_tasks_that_were_silent_for_two_hours() {
    let later = |seconds| now() + jiff::SignedDuration::from_secs(seconds);
    assert!(watchdog(&live(task("in_progress")), later(7200), SILENCE).is_none());
    assert!(watchdog(&live(task("queued")), later(7201), SILENCE).is_none());
    let stop = watchdog(&live(task("in_progress")), later(7201), SILENCE).unwrap();
    assert_eq!(
        (stop.status, stop.reason.as_str()),
        (Status::Stopped, "Forced stop (non-responsive)")
    );
}

#[test]
fn an_unknown_status_is_an_internal_error_without_force() {
    let odd = task("odd");
    assert_eq!(
        super::started(&odd, &Ask::default(), NOW).unwrap_err().code,
        500
    );
    assert!(
        super::started(
            &odd,
            &Ask {
                force: true,
                ..Ask::default()
            },
            NOW
        )
        .is_ok()
    );
}
