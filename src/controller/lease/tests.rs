use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::*;
use crate::controller::tests::refusal;

/// An API server that knows Leases alone, by name, and what was asked of it.
#[derive(Default)]
struct Server {
    leases: HashMap<String, Value>,
    reads: usize,
    writes: usize,
}

type Shared = Arc<Mutex<Server>>;

async fn read(State(server): State<Shared>, Path(name): Path<String>) -> Response {
    let mut server = server.lock().unwrap();
    server.reads += 1;
    let found = server.leases.get(&name).cloned();
    found.map_or_else(|| refusal(404), |lease| Json(lease).into_response())
}

async fn write(State(server): State<Shared>, body: String) -> Response {
    let mut lease: Value = serde_json::from_str(&body).unwrap();
    let name = lease["metadata"]["name"].as_str().unwrap().to_owned();
    let mut server = server.lock().unwrap();
    server.writes += 1;
    let version = |lease: &Value| {
        lease["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or("0")
            .parse::<u32>()
            .unwrap()
    };
    let current = server.leases.get(&name).map_or(0, version);
    if version(&lease) != current {
        return refusal(409);
    }
    lease["metadata"]["resourceVersion"] = json!((current + 1).to_string());
    server.leases.insert(name, lease.clone());
    Json(lease).into_response()
}

/// A replica: a keeper for each binding.
type Replica = Vec<Keeper>;

/// Three replicas in front of one API server, and so many bindings.
fn replicas(bindings: usize) -> ([Replica; 3], Shared) {
    let server = Shared::default();
    let all = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
    let router = Router::new()
        .route(all, post(write))
        .route(&format!("{all}/{{name}}"), get(read).put(write))
        .with_state(server.clone());
    let replica = |identity: &str| -> Replica {
        let shares = Shares::new(identity);
        let keeper = |binding: usize| {
            let client = kube::Client::new(router.clone(), "ns");
            let owner = OwnerReference {
                uid: binding.to_string(),
                ..OwnerReference::default()
            };
            let name = format!("trainyard-{binding}");
            Keeper::new(Api::namespaced(client, "ns"), name, shares.clone(), owner)
        };
        (0..bindings).map(keeper).collect()
    };
    (["a", "b", "c"].map(replica), server)
}

/// Whether it holds the Lease, after a read or renewal that is due now.
async fn holds(keeper: &mut Keeper) -> bool {
    keeper.next_call = None;
    keeper.hold().await.unwrap()
}

/// The same for each of a replica's.
async fn hold(replica: &mut [Keeper]) -> Vec<bool> {
    let mut held = Vec::new();
    for keeper in replica {
        held.push(holds(keeper).await);
    }
    held
}

/// As if so much time had passed since the Lease was last seen to change.
fn wait(keeper: &mut Keeper, time: Duration) {
    let seen = keeper.seen.take();
    keeper.seen = seen.map(|(spec, since)| (spec, since - time));
}

fn wish(server: &Shared, lease: &str) -> Value {
    let server = server.lock().unwrap();
    server.leases[lease]["metadata"]["annotations"][WANTED_BY].clone()
}

#[tokio::test]
async fn one_of_two_replicas_holds_the_lease() {
    let ([mut a, mut b, _], _) = replicas(1);
    assert!(holds(&mut a[0]).await);
    assert!(!holds(&mut b[0]).await);
    assert!(holds(&mut a[0]).await);
}

#[tokio::test]
async fn a_replica_alone_renews_and_asks_for_nothing_else() {
    let ([mut a, _, _], server) = replicas(3);
    for _ in 0..4 {
        assert_eq!(hold(&mut a).await, [true; 3]);
    }
    let server = server.lock().unwrap();
    // Each was looked for once, made once, and renewed three times.
    assert_eq!((server.reads, server.writes), (3, 12));
}

#[tokio::test]
async fn a_lease_that_was_given_back_is_taken_at_once() {
    let ([mut a, mut b, _], _) = replicas(1);
    assert!(holds(&mut a[0]).await);
    a[0].release().await;
    assert!(holds(&mut b[0]).await);
}

#[tokio::test]
async fn a_lease_that_nobody_renews_is_taken_over_and_its_holder_notices() {
    let ([mut a, mut b, _], _) = replicas(1);
    assert!(holds(&mut a[0]).await);
    assert!(!holds(&mut b[0]).await);
    wait(&mut b[0], DURATION);
    assert!(holds(&mut b[0]).await);
    assert!(!holds(&mut a[0]).await);
}

#[tokio::test]
async fn who_stands_by_looks_again_just_when_it_may_take_over() {
    let ([mut a, mut b, _], _) = replicas(1);
    assert!(holds(&mut a[0]).await);
    assert!(!holds(&mut b[0]).await);
    assert!(b[0].rest() <= WATCH);
    let left = WATCH * 3 / 4;
    wait(&mut b[0], DURATION.saturating_sub(left));
    assert!(!holds(&mut b[0]).await);
    let rest = b[0].rest();
    assert!(rest <= left, "{rest:?}");
}

#[tokio::test]
async fn who_holds_too_many_hands_one_over_when_it_would_have_renewed_it() {
    let ([mut a, mut b, mut c], server) = replicas(3);
    assert_eq!(hold(&mut a).await, [true; 3]);
    assert_eq!(hold(&mut b).await, [false; 3]);
    assert_eq!(wish(&server, "trainyard-1"), "b", "of two that a holds");
    assert_eq!(wish(&server, "trainyard-2"), Value::Null, "one at a time");
    assert!(!holds(&mut a[1]).await);
    assert!(!holds(&mut a[1]).await, "it is kept free");
    assert!(!holds(&mut c[1]).await, "also by others");
    assert!(holds(&mut b[1]).await);
    assert_eq!(wish(&server, "trainyard-1"), Value::Null, "it is granted");
    // Two and one: nothing moves any more, and nobody writes but who renews.
    for _ in 0..3 {
        assert_eq!(hold(&mut a).await, [true, false, true]);
        assert_eq!(hold(&mut b).await, [false, true, false]);
    }
    let before = server.lock().unwrap().writes;
    assert_eq!(hold(&mut b).await, [false, true, false]);
    assert_eq!(server.lock().unwrap().writes, before + 1);
}

#[tokio::test]
async fn who_holds_no_more_than_its_share_any_longer_declines() {
    let ([mut a, mut b, _], server) = replicas(3);
    assert!(holds(&mut a[0]).await && holds(&mut a[1]).await);
    assert!(!holds(&mut b[0]).await && !holds(&mut b[1]).await);
    assert_eq!(wish(&server, "trainyard-1"), "b");
    assert!(holds(&mut b[2]).await, "it finds another one meanwhile");
    assert!(!holds(&mut a[2]).await);
    assert!(holds(&mut a[1]).await);
    assert_eq!(wish(&server, "trainyard-1"), Value::Null);
}

#[tokio::test]
async fn what_was_given_up_for_a_replica_that_is_gone_goes_to_who_comes() {
    let ([mut a, mut b, _], _) = replicas(2);
    assert_eq!(hold(&mut a).await, [true; 2]);
    assert_eq!(hold(&mut b).await, [false; 2]);
    assert_eq!(hold(&mut a).await, [true, false]);
    drop(b);
    assert_eq!(hold(&mut a).await, [true, false]);
    wait(&mut a[1], DURATION);
    assert_eq!(hold(&mut a).await, [true; 2]);
}

#[tokio::test]
async fn a_wish_on_the_lease_of_a_dead_replica_does_not_put_its_takeover_off() {
    let ([mut a, mut b, mut c], server) = replicas(2);
    assert_eq!(hold(&mut a).await, [true; 2]);
    assert!(!holds(&mut c[1]).await);
    assert_eq!(hold(&mut b).await, [false; 2]);
    assert_eq!(wish(&server, "trainyard-1"), "b");
    wait(&mut c[1], DURATION);
    assert!(holds(&mut c[1]).await);
    assert_eq!(wish(&server, "trainyard-1"), Value::Null);
}

#[tokio::test]
async fn a_binding_that_is_gone_counts_no_more() {
    let ([mut a, mut b, _], server) = replicas(3);
    assert_eq!(hold(&mut a).await, [true; 3]);
    assert!(!holds(&mut b[0]).await);
    // The keeper ends with the loop of its binding.
    drop(b.remove(0));
    assert!(!holds(&mut b[0]).await);
    assert_eq!(wish(&server, "trainyard-1"), Value::Null, "a holds one");
    assert!(!holds(&mut b[1]).await);
    assert_eq!(wish(&server, "trainyard-2"), "b");
}
