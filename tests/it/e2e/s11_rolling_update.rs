//! S11: the Deployment of the chart replaces both of its replicas, one after the other, while tasks keep coming. Their
//! pods stand on simulated nodes and are played, so that the machine is the controllers' own.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::kwok::Kwok;
use super::played::{Part, Player, statuses};
use super::s1_first_task::{controllers, install_with, uninstall};
use super::s11_shares::holders;
use super::world::{PATIENCE, Proc, World, wait};

const BINDINGS: [&str; 3] = ["one", "two", "three"];
/// How long a replica may take to end: less than Kubernetes waits before it kills it.
pub(super) const FAREWELL: Duration = Duration::from_secs(25);

/// Names of the controller's pods that are ready.
fn ready(pods: &[Value]) -> BTreeSet<String> {
    let is_ready = |pod: &&Value| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        pod["metadata"]["deletionTimestamp"].is_null()
            && conditions.any(|known| known["type"] == "Ready" && known["status"] == "True")
    };
    pods.iter().filter(is_ready).map(name).collect()
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"]
        .as_str()
        .expect("a pod has a name")
        .to_owned()
}

/// Waits until two ready replicas hold all Leases, and each at least one; gives their names.
fn until_spread(world: &World) -> BTreeSet<String> {
    wait("two replicas share the bindings", 90, || {
        let ready = ready(&controllers(world));
        let leases = holders(world);
        let holding: BTreeSet<String> = leases.into_values().collect();
        (ready.len() == 2 && holding == ready).then_some(ready)
    })
}

/// Whether the Deployment has replaced all of its pods.
fn is_replaced(world: &World) -> bool {
    let deployment = world.get(&["deployment", "trainyard"]);
    let status = &deployment["status"];
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["replicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|count| status[count] == 2)
}

/// When replicas were first seen to be told to end, and how long they took. One that ends between two looks is not seen.
#[derive(Default)]
struct Farewells {
    told: BTreeMap<String, Instant>,
    took: BTreeMap<String, Duration>,
}

impl Farewells {
    fn look(&mut self, pods: &[Value]) {
        for pod in pods {
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                self.told.entry(name(pod)).or_insert_with(Instant::now);
            }
        }
        for (told, since) in &self.told {
            let is_there = pods.iter().any(|pod| name(pod) == *told);
            if !is_there {
                let took = self.took.entry(told.clone());
                took.or_insert_with(|| since.elapsed());
            }
        }
    }
}

/// Notes each state of the controller's pods until the value goes.
fn watch(world: &World) -> Proc {
    let label = "app.kubernetes.io/name=trainyard,app.kubernetes.io/component=controller";
    let mut command = Command::new(world.place.bin.join("kubectl"));
    command
        .env("KUBECONFIG", &world.place.kubeconfig)
        .args(["-n", &world.namespace, "get", "pods", "-l", label])
        .args(["--watch", "-o", "json"]);
    Proc::start(&mut command, &world.dir.path().join("replicas.json"))
}

/// The codes with which pods were seen to end, by their names.
fn codes(watched: &Proc) -> BTreeMap<String, i64> {
    let log = watched.log();
    let states = serde_json::Deserializer::from_str(&log).into_iter::<Value>();
    let code = |pod: Value| {
        let state = &pod["status"]["containerStatuses"][0]["state"];
        let code = state["terminated"]["exitCode"].as_i64()?;
        Some((name(&pod), code))
    };
    states.map_while(Result::ok).filter_map(code).collect()
}

#[test]
fn s11_a_rolling_update_of_the_deployment_loses_and_doubles_nothing() {
    let world = World::new("s11roll");
    let kwok = Kwok::start(&world, 1);
    for name in BINDINGS {
        world.queue(name);
    }
    let patch = kwok.binding_patch();
    install_with(&world, &BINDINGS, &patch, &json!({"replicaCount": 2}));
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| {
        Part::Completes(1500)
    });
    let before = until_spread(&world);

    let mut tasks = Vec::new();
    let enqueue = |tasks: &mut Vec<String>| {
        let queue = BINDINGS[tasks.len() % BINDINGS.len()];
        let name = format!("under load {}", tasks.len());
        tasks.push(world.run(&name, "print('never')\n", queue));
    };
    for _ in 0..9 {
        enqueue(&mut tasks);
    }
    let watched = watch(&world);
    wait("the replicas are watched", 30, || {
        (!watched.log().is_empty()).then_some(())
    });
    world.kubectl(&["rollout", "restart", "deployment/trainyard"]);
    let begun = Instant::now();
    let (mut farewells, mut least) = (Farewells::default(), usize::MAX);
    loop {
        let pods = controllers(&world);
        least = least.min(ready(&pods).len());
        farewells.look(&pods);
        let is_old = |pod: &Value| before.contains(&name(pod));
        if !pods.iter().any(is_old) && is_replaced(&world) {
            break;
        }
        let waited = begun.elapsed();
        assert!(
            waited < Duration::from_secs(120) * PATIENCE,
            "both replicas are not replaced after {waited:?}"
        );
        // What is on its way at each moment of the update.
        if tasks.len() < 60 {
            enqueue(&mut tasks);
        }
        thread::sleep(Duration::from_millis(300));
    }
    println!(
        "both replicas are replaced after {:.1} s under {} tasks, at least {least} were ready, they ended after {:?}",
        begun.elapsed().as_secs_f64(),
        tasks.len(),
        farewells.took.values().collect::<Vec<_>>()
    );
    assert!(least >= 1, "somebody is ready at each moment");
    for replica in farewells.took.keys() {
        assert!(before.contains(replica), "{replica} is an old one");
    }
    // A busy kubelet takes a pod away later than its process ends: whether it had to be killed is in the code.
    let codes = wait("both are known to have ended", 30, || {
        let codes = codes(&watched);
        before
            .iter()
            .all(|old| codes.contains_key(old))
            .then_some(codes)
    });
    for replica in &before {
        assert_eq!(codes[replica], 0, "{replica} ended by itself: {codes:?}");
    }

    let after = until_spread(&world);
    assert!(after.is_disjoint(&before), "{after:?} follow {before:?}");
    enqueue(&mut tasks);
    wait("all come to their end", 180, || {
        (statuses(&world, &tasks).get("completed") == Some(&tasks.len())).then_some(())
    });
    assert_eq!(player.runs().len(), tasks.len(), "each ran once");
    assert!(player.doubled().is_empty(), "{:?}", player.doubled());
    uninstall(&world);
}
