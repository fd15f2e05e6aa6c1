//! The claim, explored: the real `claim::decide` against an in-memory server and cluster, in all interleavings.
//!
//! A look and its effect are transitions of their own, and so is each call of a step; a crash may follow each. Quiet
//! time is modelled as "nobody is in a step whose first read is older than the facts"; of a run whose Job has ended, as
//! "older than the task's own facts, and no call of a dead pod is on its way". Asserted: no two runs at once, no run after
//! the user took the task back, no run ended that is somebody else's, and from every state an end can be reached without
//! anybody's help. `docs/claim.md` has the results; the long forms, which are ignored, explore further.

#[path = "claim_model/changes.rs"]
mod changes;
#[path = "claim_model/controller.rs"]
mod controller;
#[path = "claim_model/explore.rs"]
mod explore;
#[path = "claim_model/index.rs"]
mod index;
#[path = "claim_model/neighbours.rs"]
mod neighbours;
#[path = "claim_model/people.rs"]
mod people;
#[path = "claim_model/pods.rs"]
mod pods;
#[path = "claim_model/quiet_time.rs"]
mod quiet_time;
#[path = "claim_model/server.rs"]
mod server;
#[path = "claim_model/setup.rs"]
mod setup;
#[path = "claim_model/steps.rs"]
mod steps;
#[path = "claim_model/view.rs"]
mod view;
#[path = "claim_model/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use explore::{Found, SECOND_RUN, explore};
use setup::{ALL, Action, BUT_DELETE_JOB, Fault, Setup, Variant};
use world::S;

#[expect(clippy::print_stdout, reason = "how much was explored is a result")]
fn run(setup: &Setup) -> Found {
    let found = explore(setup);
    println!(
        "claim model: {}: {} states, {} transitions, {} ends, {} observations",
        setup.name, found.states, found.transitions, found.ends, found.observations
    );
    found
}

/// Nothing is found in all that can happen.
fn clean(setup: &Setup) -> Found {
    let found = run(setup);
    let fault = found
        .fault
        .as_ref()
        .map(|(fault, way)| format!("{fault:?} after\n{way}"));
    assert!(
        fault.is_none(),
        "{}: {}",
        setup.name,
        fault.unwrap_or_default()
    );
    found
}

/// The same for an exploration that takes gigabytes: one at a time.
fn clean_alone(setup: &Setup) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    clean(setup);
}

/// A faulty variant: the exploration has to run into the fault, and to be clean where all is as it is written.
fn finds(fault: Fault, setup: &Setup) {
    let found = run(setup);
    let way = found.fault.as_ref().map_or("", |(_, way)| way);
    let which = found.fault.as_ref().map(|(which, _)| *which);
    assert_eq!(which, Some(fault), "{} after\n{way}", setup.name);
    clean_once(&Setup {
        name: "the same without its fault",
        variant: Variant::AsWritten,
        ..setup.clone()
    });
}

/// Nothing is found; explored once where variants differ in their fault alone.
fn clean_once(setup: &Setup) {
    static KNOWN: Mutex<BTreeMap<String, Arc<OnceLock<()>>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let once = Arc::clone(known.entry(format!("{setup:?}")).or_default());
    drop(known);
    once.get_or_init(|| {
        clean(setup);
    });
}

/// No user, no pod that never starts, every intent admitted, patience without end: what is left is the claim itself.
const BARE: Setup = Setup {
    actions: &[],
    budget: 0,
    stuck: false,
    not_admitted: false,
    patience: false,
    ends: &[S::Failed],
    ..Setup::ONE
};

#[test]
fn one_controller_alone_is_clean() {
    let found = clean(&Setup {
        name: "one controller alone, calls of dead pods arrive late",
        late: true,
        ..Setup::ONE
    });
    for call in [
        SECOND_RUN,
        "controller drops its step",
        "pod is created and never starts",
        "a dead pod's call arrives",
        "run ends on an abort",
        "withdraw: remove the pending entry",
        "return: enqueue, others removed",
        "pull back: delete the Job",
        "give up: delete or patch the Job",
        "settle: patch the Job",
        "dequeue once more",
        "take the leftover entry out",
    ] {
        assert!(found.reached.contains(call), "never happens: {call}");
    }
}

#[test]
fn trying_failed_tasks_again_is_clean() {
    let found = clean(&Setup {
        name: "one controller alone, failed tasks are tried again, any one user action",
        retries: true,
        ends: &[S::Completed],
        ..Setup::ONE
    });
    let left = "run fails and leaves its end to the controller";
    assert!(found.reached.contains(left), "never happens: {left}");
    clean(&Setup {
        name: "the same beside a plain agent, calls of dead pods arrive late, every intent admitted",
        retries: true,
        agent: true,
        late: true,
        actions: ALL,
        budget: 1,
        ..BARE
    });
}

#[test]
fn one_controller_alone_is_clean_even_without_quiet_time() {
    clean(&Setup {
        name: "one controller alone, G = 0",
        variant: Variant::NoQuietTime,
        unseen_start: false,
        ends: &[S::Failed],
        ..Setup::ONE
    });
}

#[test]
fn without_restoring_orphans_all_is_clean_that_does_not_delete_a_job_by_hand() {
    clean(&Setup {
        name: "one controller alone, orphans left",
        orphans: false,
        actions: BUT_DELETE_JOB,
        ends: &[S::Failed],
        stuck: false,
        ..Setup::ONE
    });
}

#[test]
fn two_pods_to_a_job_are_clean() {
    clean(&Setup {
        name: "two pods to a Job",
        two_pods: true,
        actions: ALL,
        budget: 1,
        ..BARE
    });
}

#[test]
fn a_plain_agent_beside_one_controller_is_clean() {
    clean(&Setup {
        name: "one controller and a plain agent",
        agent: true,
        stuck: false,
        ends: &[S::Failed],
        ..Setup::ONE
    });
}

#[test]
fn a_plain_agent_and_late_calls_beside_one_controller_are_clean() {
    clean(&Setup {
        name: "one controller and a plain agent, calls of dead pods arrive late",
        agent: true,
        late: true,
        actions: ALL,
        budget: 1,
        ..BARE
    });
}

#[test]
fn two_replicas_without_a_lease_are_clean() {
    clean(&Setup {
        name: "two replicas",
        controllers: 2,
        stuck: true,
        not_admitted: true,
        patience: true,
        ..BARE
    });
}

#[test]
fn two_replicas_and_a_plain_agent_are_clean() {
    let found = clean(&Setup {
        name: "two replicas and a plain agent",
        controllers: 2,
        agent: true,
        late: true,
        late_ends: true,
        ..BARE
    });
    let late = "a dead pod's report of its end arrives";
    assert!(found.reached.contains(late), "never happens: {late}");
}

#[test]
fn two_clusters_on_one_queue_are_clean() {
    clean(&Setup {
        name: "two clusters, one attempt each, crashes and deaths",
        clusters: 2,
        controllers: 2,
        attempts: 1,
        ..BARE
    });
}

#[test]
#[ignore = "long form: minutes each"]
fn two_clusters_with_two_attempts_each_are_clean() {
    clean_alone(&Setup {
        name: "two clusters, two attempts each, deaths",
        clusters: 2,
        controllers: 2,
        crashes: false,
        ..BARE
    });
}

#[test]
fn one_controller_alone_and_two_user_actions_are_clean() {
    clean(&Setup {
        name: "one controller alone, two user actions",
        actions: ALL,
        budget: 2,
        ..BARE
    });
}

#[test]
#[ignore = "long form: minutes each"]
fn one_controller_alone_and_two_user_actions_are_clean_whatever_happens() {
    clean_alone(&Setup {
        name: "one controller alone, two user actions, all that can happen",
        budget: 2,
        ends: &[S::Failed],
        ..Setup::ONE
    });
}

#[test]
#[ignore = "long form: minutes each"]
fn a_plain_agent_and_two_user_actions_beside_one_controller_are_clean() {
    clean_alone(&Setup {
        name: "one controller and a plain agent, two user actions",
        agent: true,
        actions: ALL,
        budget: 2,
        ..BARE
    });
}

#[test]
#[ignore = "long form: minutes each"]
fn two_replicas_and_a_user_action_are_clean() {
    clean_alone(&Setup {
        name: "two replicas, one user action",
        controllers: 2,
        actions: ALL,
        budget: 1,
        ..BARE
    });
}

#[test]
fn no_intent_first_loses_the_task_in_a_crash() {
    finds(
        Fault::Stands,
        &Setup {
            name: "variant: no intent first",
            variant: Variant::NoIntent,
            actions: &[],
            budget: 0,
            orphans: false,
            ..Setup::ONE
        },
    );
}

#[test]
fn parking_by_a_plain_enqueue_runs_an_aborted_task() {
    finds(
        Fault::RanTakenBack,
        &Setup {
            name: "variant: park by plain enqueue",
            variant: Variant::PlainPark,
            actions: &[Action::Abort],
            ..Setup::ONE
        },
    );
}

#[test]
fn starting_without_the_read_before_it_runs_an_aborted_task() {
    finds(
        Fault::RanTakenBack,
        &Setup {
            name: "variant: tasks.started without the read before it",
            variant: Variant::NoReadInFence,
            actions: &[Action::Abort, Action::Reset, Action::Dequeue],
            ..Setup::ONE
        },
    );
}

#[test]
fn ours_by_the_mark_alone_ends_a_plain_agents_run() {
    finds(
        Fault::EndedForeignRun,
        &Setup {
            name: "variant: ours by the mark alone",
            variant: Variant::MarkAlone,
            agent: true,
            actions: &[Action::Enqueue],
            stuck: false,
            patience: false,
            not_admitted: false,
            ends: &[S::Failed],
            ..Setup::ONE
        },
    );
}

#[test]
fn a_fence_without_status_report_leaves_a_dead_run_in_progress() {
    finds(
        Fault::Stands,
        &Setup {
            name: "variant: fence without workers.status_report",
            variant: Variant::NoStatusReport,
            agent: true,
            actions: &[Action::Enqueue],
            stuck: false,
            patience: false,
            not_admitted: false,
            ends: &[S::Failed],
            ..Setup::ONE
        },
    );
}

#[test]
fn a_second_attempt_released_by_the_end_of_the_first_is_ended_by_a_late_settle() {
    finds(
        Fault::EndedForeignRun,
        &Setup {
            name: "variant: attempt 2 released G after the end of attempt 1",
            variant: Variant::ReleaseAfterEnd,
            controllers: 2,
            actions: &[],
            budget: 0,
            stuck: false,
            patience: false,
            not_admitted: false,
            ends: &[S::Failed],
            ..Setup::ONE
        },
    );
}

/// Beside a plain agent, which takes up what went back to its queue; dead pods may have told their end.
const BESIDE_AN_AGENT: Setup = Setup {
    agent: true,
    late_ends: true,
    ..BARE
};

#[test]
fn an_ended_run_requeued_at_once_ends_a_plain_agents_run() {
    finds(
        Fault::EndedForeignRun,
        &Setup {
            name: "variant: an ended run is requeued at once",
            variant: Variant::EndAtOnce,
            ..BESIDE_AN_AGENT
        },
    );
}

#[test]
fn an_ended_run_requeued_before_its_pods_last_call_has_come_ends_a_plain_agents_run() {
    finds(
        Fault::EndedForeignRun,
        &Setup {
            name: "variant: an ended run is requeued while a call of its pod is on its way",
            variant: Variant::EndBeforeLateCalls,
            ..BESIDE_AN_AGENT
        },
    );
}

#[test]
fn an_ended_run_requeued_whatever_its_task_has_just_become_ends_a_plain_agents_run() {
    finds(
        Fault::EndedForeignRun,
        &Setup {
            name: "variant: an ended run is requeued without G on its task's facts",
            variant: Variant::EndOfYoungTask,
            ..BESIDE_AN_AGENT
        },
    );
}

#[test]
fn lost_only_without_any_job_stands_for_good() {
    finds(
        Fault::Stands,
        &Setup {
            name: "variant: Lost only when no Job at all is left",
            variant: Variant::LostOnlyWithoutJobs,
            actions: &[Action::DeleteJob],
            stuck: false,
            ends: &[S::Failed],
            ..Setup::ONE
        },
    );
}

#[test]
fn starting_without_a_way_out_stands_for_good() {
    finds(
        Fault::Stands,
        &Setup {
            name: "variant: Starting without a way out",
            variant: Variant::StartingNoWayOut,
            actions: &[Action::ClearPending],
            ends: &[S::Failed],
            ..Setup::ONE
        },
    );
}

#[test]
fn returning_without_give_up_stands_for_good() {
    finds(
        Fault::Stands,
        &Setup {
            name: "variant: Requeue and Restore without GiveUp",
            variant: Variant::NoGiveUp,
            actions: &[Action::DeleteQueue],
            ends: &[S::Failed],
            ..Setup::ONE
        },
    );
}

#[test]
fn withdraws_remove_task_on_a_queued_task_stands_for_good() {
    finds(
        Fault::Stands,
        &Setup {
            name: "variant: Withdraw removes the entry of a queued task",
            variant: Variant::WithdrawTakesQueued,
            controllers: 2,
            orphans: false,
            crashes: false,
            deaths: false,
            // A pod that begins while a stale look ends its Job takes the task along, in the rules as they are too.
            pods_wait: true,
            ..BARE
        },
    );
}

#[test]
fn two_clusters_without_quiet_time_run_twice() {
    finds(
        Fault::DoubleRun,
        &Setup {
            name: "variant: two clusters, G = 0",
            variant: Variant::NoQuietTime,
            clusters: 2,
            controllers: 2,
            actions: &[],
            budget: 0,
            crashes: false,
            deaths: false,
            stuck: false,
            patience: false,
            not_admitted: false,
            ends: &[S::Failed],
            ..Setup::ONE
        },
    );
}
