//! Explored further: two clusters beside a user, a plain agent or a full cluster; agents and servers that die half-way;
//! two replicas beside a user who does not leave it at one action.

use super::people::{self, AGENT_DIES};
use super::setup::{ALL, Action, Fault, Setup};
use super::{BARE, clean, clean_alone, controller, run};

/// Two clusters on one queue, with room for one attempt each.
const CLUSTERS: Setup = Setup {
    clusters: 2,
    controllers: 2,
    attempts: 1,
    ..BARE
};

/// Any one user action beside two clusters, each in an exploration of its own: together they hold what one exploration
/// of all would, in a fraction of its memory.
const EACH_ACTION: [(&str, &[Action]); 9] = [
    ("two clusters, one attempt each, an abort", &[Action::Abort]),
    ("two clusters, one attempt each, a reset", &[Action::Reset]),
    (
        "two clusters, one attempt each, a reset and an enqueue",
        &[Action::ResetAndEnqueue],
    ),
    (
        "two clusters, one attempt each, an enqueue",
        &[Action::Enqueue],
    ),
    (
        "two clusters, one attempt each, a dequeue",
        &[Action::Dequeue],
    ),
    (
        "two clusters, one attempt each, a task deleted",
        &[Action::Delete],
    ),
    (
        "two clusters, one attempt each, a Job deleted",
        &[Action::DeleteJob],
    ),
    (
        "two clusters, one attempt each, the pending queues cleared",
        &[Action::ClearPending],
    ),
    (
        "two clusters, one attempt each, the queue deleted",
        &[Action::DeleteQueue],
    ),
];

#[test]
#[ignore = "long form: minutes each"]
fn two_clusters_and_a_user_action_are_clean() {
    let named = EACH_ACTION.iter().flat_map(|(_, actions)| actions.iter());
    assert!(named.eq(ALL), "each action has its exploration");
    for (name, actions) in EACH_ACTION {
        clean_alone(&Setup {
            name,
            actions,
            budget: 1,
            ..CLUSTERS
        });
    }
}

#[test]
fn two_clusters_and_a_plain_agent_are_clean_where_nobody_dies() {
    let found = clean(&Setup {
        name: "two clusters and a plain agent, one attempt each, no crashes or deaths",
        agent: true,
        crashes: false,
        deaths: false,
        ..CLUSTERS
    });
    let runs = "agent's run ends";
    assert!(found.reached.contains(runs), "never happens: {runs}");
}

#[test]
#[ignore = "long form: minutes each"]
fn two_clusters_and_a_plain_agent_are_clean() {
    clean_alone(&Setup {
        name: "two clusters and a plain agent, one attempt each, crashes and deaths",
        agent: true,
        ..CLUSTERS
    });
}

#[test]
fn two_clusters_that_may_be_full_are_clean() {
    clean(&Setup {
        name: "two clusters that may admit no task, one attempt each, deaths",
        crashes: false,
        not_admitted: true,
        ..CLUSTERS
    });
}

#[test]
#[ignore = "long form: minutes each"]
fn two_clusters_that_may_be_full_and_whose_pods_may_stick_are_clean() {
    clean_alone(&Setup {
        name: "two clusters that may admit no task and whose pods may never start, one attempt each",
        stuck: true,
        not_admitted: true,
        patience: true,
        ..CLUSTERS
    });
}

/// One controller beside a plain agent that dies with what it popped.
const MORTAL_AGENT: Setup = Setup {
    agent: true,
    agent_dies: true,
    ..BARE
};

#[test]
fn what_a_dying_plain_agent_popped_is_restored() {
    let found = clean(&Setup {
        name: "one controller and a plain agent that dies before its start, any one user action",
        actions: ALL,
        budget: 1,
        ..MORTAL_AGENT
    });
    assert!(
        found.reached.contains(AGENT_DIES),
        "never happens: {AGENT_DIES}"
    );
}

#[test]
fn what_a_dying_plain_agent_popped_stands_for_good_where_orphans_are_left() {
    let found = run(&Setup {
        name: "the same without a user, orphans left",
        orphans: false,
        ..MORTAL_AGENT
    });
    let (fault, way) = found
        .fault
        .expect("a task that nobody has a record of is restored by nobody");
    assert_eq!(fault, Fault::Stands, "after\n{way}");
    assert!(way.contains(AGENT_DIES), "after\n{way}");
}

#[test]
fn a_server_that_dies_inside_an_enqueue_is_clean_beside_one_controller() {
    let found = clean(&Setup {
        name: "one controller alone, the server dies inside enqueues, two user actions",
        server_dies: true,
        actions: ALL,
        budget: 2,
        ..BARE
    });
    for death in [people::SERVER_DIES, controller::SERVER_DIES] {
        assert!(found.reached.contains(death), "never happens: {death}");
    }
}

#[test]
fn a_server_that_dies_inside_an_enqueue_is_clean_beside_a_plain_agent() {
    let found = clean(&Setup {
        name: "one controller and a plain agent, the server dies inside enqueues, any one user action",
        agent: true,
        server_dies: true,
        actions: ALL,
        budget: 1,
        ..BARE
    });
    let death = people::SERVER_DIES;
    assert!(found.reached.contains(death), "never happens: {death}");
}

#[test]
fn a_server_that_dies_inside_an_enqueue_is_clean_beside_two_replicas() {
    let found = clean(&Setup {
        name: "two replicas and a plain agent, the server dies inside enqueues",
        controllers: 2,
        agent: true,
        server_dies: true,
        ..BARE
    });
    let death = controller::SERVER_DIES;
    assert!(found.reached.contains(death), "never happens: {death}");
}

#[test]
#[ignore = "long form: minutes each"]
fn two_replicas_and_two_user_actions_are_clean() {
    clean_alone(&Setup {
        name: "two replicas, two user actions, deaths, no crashes",
        controllers: 2,
        crashes: false,
        actions: ALL,
        budget: 2,
        ..BARE
    });
}

/// What a user does who wants a task back and then run again.
const TAKEN_BACK_AND_ENQUEUED: [(&str, &[Action]); 2] = [
    (
        "two replicas, aborts and enqueues, two of them",
        &[Action::Abort, Action::Enqueue],
    ),
    (
        "two replicas, dequeues and enqueues, two of them",
        &[Action::Dequeue, Action::Enqueue],
    ),
];

#[test]
#[ignore = "long form: minutes each"]
fn two_replicas_and_a_task_taken_back_and_enqueued_again_are_clean() {
    for (name, actions) in TAKEN_BACK_AND_ENQUEUED {
        clean_alone(&Setup {
            name,
            controllers: 2,
            actions,
            budget: 2,
            ..BARE
        });
    }
}
