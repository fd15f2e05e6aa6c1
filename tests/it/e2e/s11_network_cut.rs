//! S11: the leader loses its network to the API server, while the ClearML server still answers it. Nothing is closed, as
//! where packets are lost: it only hears no more, and what it has sent arrives when the network is back.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kube::config::Kubeconfig;
use serde_json::Value;

use super::crash::LEASE_PERIOD;
use super::kwok::Kwok;
use super::played::{Part, Player, statuses};
use super::s11_shares::{taken_over, tell_takeover};
use super::s36_scale::enqueue;
use super::world::{World, wait};
use crate::clock;

/// A way to the API server that can be cut.
struct Wire {
    /// Leads over it.
    kubeconfig: String,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    fn start(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the wire binds");
        let address = listener.local_addr().expect("an address");
        let known = Kubeconfig::read_from(&world.place.kubeconfig).expect("kubeconfig");
        let cluster = known.clusters[0].cluster.as_ref().expect("cluster");
        let server = cluster.server.clone().expect("server");
        // The API server's certificate is valid for this machine's loopback address too.
        let text = fs::read_to_string(&world.place.kubeconfig).expect("kubeconfig is readable");
        let text = text.replace(&server, &format!("https://{address}"));
        let kubeconfig = world.dir.path().join("wire.kubeconfig");
        fs::write(&kubeconfig, text).expect("kubeconfig is written");

        let target = server.trim_start_matches("https://").to_owned();
        let is_cut = Arc::new(AtomicBool::new(false));
        let state = Arc::clone(&is_cut);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (target, state) = (target.clone(), Arc::clone(&state));
                thread::spawn(move || join(client, &target, &state));
            }
        });
        Self {
            kubeconfig: kubeconfig.display().to_string(),
            is_cut,
        }
    }

    /// From now on nothing passes, in neither direction.
    fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::Relaxed);
    }
}

/// Carries both ways.
fn join(client: TcpStream, target: &str, is_cut: &Arc<AtomicBool>) -> Option<()> {
    hold(is_cut);
    let server = TcpStream::connect(target).ok()?;
    let (to_client, to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let state = Arc::clone(is_cut);
    thread::spawn(move || carry(client, to_server, &state));
    carry(server, to_client, is_cut);
    Some(())
}

/// Carries what comes, until a side closes.
fn carry(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut buffer = vec![0_u8; 16 << 10];
    while let Ok(count) = from.read(&mut buffer) {
        hold(is_cut);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Waits while the wire is cut.
fn hold(is_cut: &AtomicBool) {
    while is_cut.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
}

fn holder(world: &World) -> Value {
    world.get(&["lease", "trainyard-gpu"])["spec"]["holderIdentity"].clone()
}

/// How often the first replica has read the Lease, which its holder does not.
fn looks(world: &World) -> f64 {
    let words = ["verb=\"get\"", "resource=\"leases\"", "outcome=\"ok\""];
    world.metric("trainyard_kubernetes_requests_total", &words)
}

#[test]
fn s11_a_leader_whose_network_is_cut_is_followed_and_stands_by_when_it_is_back() {
    cut_the_leader_off("s11cut", None);
}

#[test]
#[ignore = "long form: two minutes, one of them without a network"]
fn s11_a_leader_whose_network_is_cut_for_a_minute_changes_nothing_when_it_is_back() {
    cut_the_leader_off("s11minute", Some(Duration::from_secs(60)));
}

/// The cut lasts for so long, or until another replica has taken over and goes on.
fn cut_the_leader_off(name: &str, lasts: Option<Duration>) {
    let mut world = World::new(name);
    let kwok = Kwok::start(&world, 1);
    let wire = Wire::start(&world);
    for (name, value) in [
        ("KUBECONFIG", wire.kubeconfig.as_str()),
        ("TRAINYARD_IDENTITY", "first"),
    ] {
        let variable = (name.to_owned(), value.to_owned());
        world.environment.push(variable);
    }
    world.start_controller();
    world.environment.clear();
    world.queue("gpu");
    world.bind("gpu", &["gpu"], &kwok.binding_patch());
    world.until_ready("gpu");
    assert_eq!(holder(&world), "first");
    let mut second = world.replica("second");
    let player = Player::start(&world, &world.place.kubeconfig, |_, _| {
        Part::Completes(5000)
    });
    let mut tasks = enqueue(&world, 3);
    wait("they run", 60, || {
        (player.runs().len() == tasks.len()).then_some(())
    });

    // These are anywhere between their queue and their pod when it happens.
    tasks.extend(enqueue(&world, 6));
    let (begun, cut) = (Instant::now(), clock::now());
    wire.cut();
    wait("the second replica holds the Lease", 30, || {
        (holder(&world) == "second").then_some(())
    });
    let takeover = taken_over(&world, cut);
    tell_takeover("cut", takeover);
    assert!(takeover < LEASE_PERIOD * 5, "{takeover:?}");
    let meanwhile = enqueue(&world, 3);
    wait("the second replica takes what is enqueued now", 60, || {
        let is_taken = |task: &String| !world.job_of(task).is_null();
        meanwhile.iter().all(is_taken).then_some(())
    });
    tasks.extend(meanwhile);
    if let Some(lasts) = lasts {
        wait("the cut has lasted", lasts.as_secs(), || {
            assert_eq!(holder(&world), "second", "it stays with who follows");
            (begun.elapsed() >= lasts).then_some(())
        });
        // All of it came to its end under the second, while the first knows nothing of that.
        wait("what was taken ends meanwhile", 60, || {
            (statuses(&world, &tasks).get("completed") == Some(&tasks.len())).then_some(())
        });
    }
    assert!(!world.controller().has_ended(), "the first lives on");

    let before = looks(&world);
    println!("cut for {:.1} s", begun.elapsed().as_secs_f64());
    wire.mend();
    let begun = Instant::now();
    wait(
        "the first replica looks whether the Lease is free",
        60,
        || (looks(&world) > before + 1.5).then_some(()),
    );
    println!("it stands by after {:.1} s", begun.elapsed().as_secs_f64());
    let label = format!("binding=\"{}/gpu\"", world.namespace);
    let leads = world.metric("trainyard_leader", &[&label]);
    assert!(leads.abs() < 0.1, "the first does not lead: {leads}");
    assert_eq!(holder(&world), "second");

    // It is as good as before: what the other gives back it takes.
    second.terminate();
    wait("the first replica holds the Lease again", 60, || {
        (holder(&world) == "first").then_some(())
    });
    tasks.extend(enqueue(&world, 2));
    wait("all come to their end", 180, || {
        (statuses(&world, &tasks).get("completed") == Some(&tasks.len())).then_some(())
    });
    assert_eq!(player.runs().len(), tasks.len(), "each ran once");
    assert!(player.doubled().is_empty(), "{:?}", player.doubled());
    wait("the second replica has ended", 60, || {
        second.has_ended().then_some(())
    });
}
