//! The server killed by SIGKILL at any instant of any write, again and again on one folder: what was acknowledged is
//! there, the writes that were under way are there whole or not at all.
//!
//! Each kind of write is a line of a story, told by a client with objects of its own:
//!
//! ```text
//! all stories to their end ──▶ kill ──▶ all of it is read back
//! some stories, each up to a line of its own ──▶ all these lines at once ──▶ kill soon after ──▶ it is read back
//! ```
//!
//! The second is repeated until every line had its turn.

mod facts;
mod lane;
mod many;
mod models;
mod others;
mod queues;
mod tasks;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::long;
use crate::server_admin::{keys_of, trainyard};
use crate::server_world::{Client, Program};
use facts::Facts;
use lane::Lane;

/// Who writes.
const ADMINISTRATOR: &str = "root of all";
/// Writes that are under way at once.
const LANES: usize = 7;
/// The kill falls so soon after they have begun, in µs.
const WINDOW: u64 = 15_000;
/// Within which clients get as far as they are to.
const GETS_ON: Duration = Duration::from_secs(120);

type Story = for<'a> fn(&'a mut Lane) -> BoxFuture<'a, Option<()>>;

const STORIES: [Story; 15] = [
    |lane| Box::pin(tasks::draft(lane)),
    |lane| Box::pin(tasks::attached(lane)),
    |lane| Box::pin(tasks::run(lane)),
    |lane| Box::pin(tasks::ends(lane)),
    |lane| Box::pin(tasks::events(lane)),
    |lane| Box::pin(many::many(lane)),
    |lane| Box::pin(models::draft(lane)),
    |lane| Box::pin(models::published(lane)),
    |lane| Box::pin(models::project(lane)),
    |lane| Box::pin(queues::queue(lane)),
    |lane| Box::pin(queues::pipeline(lane)),
    |lane| Box::pin(queues::worker(lane)),
    |lane| Box::pin(others::keys(lane)),
    |lane| Box::pin(others::users(lane)),
    |lane| Box::pin(others::files(lane)),
];

/// Calls that the server takes for writes, and that store nothing.
const EMPTY: [&str; 1] = ["events.clear_scroll"];

/// Calls that write, as the server's own table has them.
fn calls_that_write() -> BTreeSet<&'static str> {
    let table = include_str!("../../src/server/routes.rs");
    table
        .lines()
        .filter(|line| line.contains(", W, "))
        .filter_map(|line| line.strip_prefix("    (\"")?.split('"').next())
        .filter(|call| !EMPTY.contains(call))
        .collect()
}

/// Of uploads that were cut off nothing is left.
fn nothing_is_on_the_way(data: &Path) {
    let left = std::fs::read_dir(data.join("uploads")).unwrap().count();
    assert_eq!(left, 0, "half-written files");
}

struct World {
    server: Program,
    runtime: Runtime,
    keys: (String, String),
    /// What all lanes so far were told is stored.
    facts: Facts,
    acknowledged: BTreeSet<&'static str>,
    /// Writes that were under way when the server was killed.
    cut_off: usize,
    data: TempDir,
}

impl World {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        drop(Program::start(data.path()));
        let added = ["user", "add", ADMINISTRATOR, "--role", "admin"];
        let keys = keys_of(&trainyard(&added, data.path()));
        Self {
            server: Program::start(data.path()),
            runtime: Runtime::new().unwrap(),
            keys,
            facts: Facts::default(),
            acknowledged: BTreeSet::new(),
            cut_off: 0,
            data,
        }
    }

    fn client(&self) -> Client {
        Client::by_keys(&self.server.url, self.keys.clone())
    }

    /// Begins a story, which waits at the gate before it writes its target.
    fn begin(&self, story: usize, mut lane: Lane) -> JoinHandle<Lane> {
        self.runtime.spawn(async move {
            let told = STORIES[story](&mut lane).await;
            assert!(told.is_some() || lane.at_risk, "story {story} broke off");
            lane
        })
    }

    fn ended(&self, lanes: Vec<JoinHandle<Lane>>) -> Vec<Lane> {
        let all = async { timeout(GETS_ON, join_all(lanes)).await };
        let ended = self.runtime.block_on(all);
        let ended = ended.expect("all stories come to their ends");
        ended.into_iter().map(Result::unwrap).collect()
    }

    /// Tells all stories; returns how many writes each has.
    fn tell_all(&mut self) -> Vec<usize> {
        let (client, gate) = (self.client(), Arc::new(Barrier::new(1)));
        let lanes = (0..STORIES.len())
            .map(|story| {
                let suffix = format!("all-{story}-");
                let lane = Lane::new(client.clone(), suffix, None, Arc::clone(&gate));
                self.begin(story, lane)
            })
            .collect();
        let lanes = self.ended(lanes);
        self.server.kill();
        let writes = lanes.iter().map(|lane| lane.writes).collect();
        self.come_back(lanes);
        writes
    }

    /// Lets these writes, each by story and place in it, begin at once, and kills the server so soon after.
    fn kill_amid(&mut self, round: usize, targets: &[(usize, usize)], after: Duration) {
        let client = self.client();
        let gate = Arc::new(Barrier::new(targets.len() + 1));
        let lanes: Vec<JoinHandle<Lane>> = targets
            .iter()
            .map(|&(story, write)| {
                let suffix = format!("{round}-{story}-{write}-");
                let lane = Lane::new(client.clone(), suffix, Some(write), Arc::clone(&gate));
                self.begin(story, lane)
            })
            .collect();
        let all = async { timeout(GETS_ON, gate.wait()).await };
        assert!(
            self.runtime.block_on(all).is_ok(),
            "not all came to their write: {targets:?}"
        );
        std::thread::sleep(after);
        self.server.kill();
        let lanes = self.ended(lanes);
        let under_way = lanes.iter().filter_map(|lane| lane.under_way.as_ref());
        let kinds: Vec<&str> = under_way.map(|write| write.kind).collect();
        println!("kill {round}, after {after:?}, in {kinds:?}");
        self.cut_off += kinds.len();
        self.come_back(lanes);
    }

    /// The server on the same folder again: it has what the lanes were told, and no part of what they were not.
    fn come_back(&mut self, lanes: Vec<Lane>) {
        self.server = Program::start(self.data.path());
        let client = self.client();
        for mut lane in lanes {
            if let Some(write) = lane.under_way.take() {
                let settled = self.runtime.block_on(write.settle(&client));
                for fact in settled {
                    lane.facts.hold(fact);
                }
            }
            let unmet = self.runtime.block_on(lane.facts.unmet(&client));
            assert!(unmet.is_empty(), "lost: {unmet:#?}");
            self.acknowledged.extend(lane.acknowledged);
            self.facts.join(lane.facts);
        }
        nothing_is_on_the_way(self.data.path());
    }
}

#[test]
fn each_write_is_whole_or_absent_wherever_the_server_is_killed() {
    let seed = long::size(
        "TRAINYARD_KILLS_SEED",
        rand::rng().random_range(0..1_000_000),
    );
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    let writes = world.tell_all();
    let missing: Vec<&str> = calls_that_write()
        .difference(&world.acknowledged)
        .copied()
        .collect();
    assert!(missing.is_empty(), "in no story: {missing:?}");

    let mut targets: Vec<(usize, usize)> = writes
        .iter()
        .enumerate()
        .flat_map(|(story, writes)| (0..*writes).map(move |write| (story, write)))
        .collect();
    targets.shuffle(&mut random);
    for (round, targets) in targets.chunks(LANES).enumerate() {
        let after = Duration::from_micros(random.random_range(0..WINDOW));
        world.kill_amid(round, targets, after);
    }
    let kills = targets.len().div_ceil(LANES);
    assert!(
        world.cut_off >= kills,
        "only {} writes were under way at {kills} kills",
        world.cut_off
    );
    // None of the later kills harmed what was written long before.
    let client = world.client();
    let unmet = world.runtime.block_on(world.facts.unmet(&client));
    assert!(unmet.is_empty(), "lost later: {unmet:#?}");
}
