//! Together: what the bindings of one server ask of it, in one request for all of them.
//!
//! ```text
//! pass of a ──entries(ids)──┐                       ┌──▶ its queues
//! pass of b ──entries(ids)──┼──▶ one queues.get_all ┼──▶ its queues
//! pass of c ── sleeps, is due soon: comes along ────┘    (each read was begun after its pass had asked)
//! ```
//!
//! A question is answered by a read that is begun after it was asked, never by one that is under way: a pass sees what
//! the pass before it has done, and the claim's rules hold as if it had asked alone. So that questions come together,
//! bindings that are due at about the same time wake together. While nothing is on its way one request for each second
//! is the budget of them all: what else is asked meanwhile puts the next look off.

mod desk;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::desk::{Desk, answered};
use super::fault;
use crate::api::{Client, Error, Facts, Found, QueueEntries, QueueInfo};
use crate::task::{QueueId, Status, TaskId};

/// How long a question waits at most for those of others that are on their way.
const GATHER: Duration = Duration::from_millis(250);
/// Who is due within this time comes along with who is due now. More than half of the idle period and a pass, so that no
/// two groups can stay apart.
const ALONG: Duration = Duration::from_millis(750);
/// What one request costs of the budget while nothing is on its way.
const EACH: Duration = Duration::from_secs(1);
/// Requests beside it for which a look is put off at most.
const MOST: u32 = 2;

/// Who is asked, and as whom.
pub(super) struct Whom {
    pub api_url: String,
    pub access_key: String,
    pub secret_key: SecretString,
    pub ca: Option<Vec<u8>>,
    pub proxy: Option<String>,
}

impl PartialEq for Whom {
    fn eq(&self, other: &Self) -> bool {
        self.api_url == other.api_url
            && self.access_key == other.access_key
            && self.secret_key.expose_secret() == other.secret_key.expose_secret()
            && self.ca == other.ca
            && self.proxy == other.proxy
    }
}

/// All servers that bindings are on.
#[derive(Default)]
pub(super) struct Servers {
    known: Mutex<Vec<(Whom, Weak<Shared>)>>,
}

impl Servers {
    /// A seat at this server; `client` is used for all of them if this is the first.
    pub fn seat<E>(
        &self,
        whom: Whom,
        client: impl FnOnce() -> Result<Client, E>,
    ) -> Result<Seat, E> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, shared)| shared.strong_count() > 0);
        let found = known.iter().find(|(of, _)| *of == whom);
        if let Some(shared) = found.and_then(|(_, shared)| shared.upgrade()) {
            return Ok(Seat::at(shared));
        }
        let shared = Arc::new(Shared::new(client()?));
        known.push((whom, Arc::downgrade(&shared)));
        Ok(Seat::at(shared))
    }
}

/// Where a binding's loop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not to be waited for.
    Away,
    Asleep {
        due: Instant,
    },
    /// Awake, and about to ask for entries.
    Coming,
    /// It has its entries and is about to ask for facts.
    Looking,
}

/// One server, seen with one set of credentials.
pub(super) struct Shared {
    client: Client,
    began: Instant,
    seats: Mutex<Seats>,
    /// Told when a seat's place has changed.
    moved: watch::Sender<()>,
    entries: Desk<Wanted, Arc<Entries>>,
    facts: Desk<Vec<TaskId>, Arc<TaskFacts>>,
    names: Desk<(), Arc<Vec<QueueInfo>>>,
    census: Desk<(), Arc<Census>>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    by_number: HashMap<u64, (Place, Arc<Notify>)>,
    /// When the last look was begun, and how many other requests were made since.
    looked: Option<Instant>,
    others: u32,
}

/// What one pass wants to know of queues.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub queues: Vec<QueueId>,
    /// Entries of each.
    pub limit: u32,
    /// Every queue of the server too.
    pub all: bool,
}

/// The entries of queues, as one look found them.
#[derive(Debug)]
pub(super) struct Entries {
    /// When the first request was begun.
    pub read_at: Timestamp,
    /// A queue that is gone is not here.
    pub queues: HashMap<QueueId, QueueEntries>,
    /// Every queue of the server, if anybody has asked for that.
    pub every: Option<Arc<Vec<QueueEntries>>>,
}

/// The facts of tasks; those that are in neither are gone.
#[derive(Debug, Default)]
pub(super) struct TaskFacts {
    pub known: HashMap<TaskId, Arc<Facts>>,
    /// Why a document could not be read.
    pub unreadable: HashMap<TaskId, String>,
}

/// All tasks that run or wait, as the slow sweep reads them.
#[derive(Debug)]
pub(super) struct Census {
    pub running: Found<Facts>,
    pub queued: Found<Facts>,
}

impl Shared {
    fn new(client: Client) -> Self {
        Self {
            client,
            began: Instant::now(),
            seats: Mutex::default(),
            moved: watch::Sender::new(()),
            entries: Desk::default(),
            facts: Desk::default(),
            names: Desk::default(),
            census: Desk::default(),
        }
    }

    fn seats<T>(&self, with: impl FnOnce(&mut Seats) -> T) -> T {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = with(&mut seats);
        drop(seats);
        self.moved.send_replace(());
        answer
    }

    /// Waits until nobody is in this place any more, but not for long.
    async fn gather(&self, place: Place) {
        let mut moved = self.moved.subscribe();
        let all_here = async {
            loop {
                moved.borrow_and_update();
                let anybody = {
                    let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
                    seats.by_number.values().any(|(at, _)| *at == place)
                };
                if !anybody || moved.changed().await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(GATHER, all_here).await;
    }

    async fn read_entries(&self, wanted: Vec<Wanted>) -> Result<Arc<Entries>, Error> {
        self.seats(|seats| {
            seats.looked = Some(Instant::now());
            seats.others = 0;
        });
        let read_at = Timestamp::now();
        let few = wanted.iter().map(|one| one.limit).min().unwrap_or(0);
        let ids: HashSet<&QueueId> = wanted.iter().flat_map(|one| &one.queues).collect();
        let ids: Vec<QueueId> = ids.into_iter().cloned().collect();
        let mut queues = by_id(self.client.queue_entries(&ids, few).await?);
        fault::point!("look/queues-read");
        // Few queues are so long that it matters who wants how much of them.
        let longer: Vec<(&QueueId, u32)> = wanted
            .iter()
            .filter(|one| one.limit > few)
            .flat_map(|one| one.queues.iter().map(|id| (id, one.limit)))
            .filter(|(id, _)| queues.get(*id).is_some_and(|queue| queue.cut))
            .collect();
        if let Some(most) = longer.iter().map(|(_, limit)| *limit).max() {
            let ids: HashSet<QueueId> = longer.into_iter().map(|(id, _)| id.clone()).collect();
            let ids: Vec<QueueId> = ids.into_iter().collect();
            queues.extend(by_id(self.client.queue_entries(&ids, most).await?));
            fault::point!("look/more-read");
        }
        let every = if wanted.iter().any(|one| one.all) {
            let every = self.client.every_queue_entries().await?;
            fault::point!("look/every-queue-read");
            Some(Arc::new(every))
        } else {
            None
        };
        Ok(Arc::new(Entries {
            read_at,
            queues,
            every,
        }))
    }

    async fn read_facts(&self, wanted: Vec<Vec<TaskId>>) -> Result<Arc<TaskFacts>, Error> {
        let ids: HashSet<TaskId> = wanted.into_iter().flatten().collect();
        let ids: Vec<TaskId> = ids.into_iter().collect();
        let found = self.client.task_facts(&ids).await?;
        fault::point!("look/facts-read");
        let known = found.tasks.into_iter();
        let unreadable = found.unreadable.into_iter();
        Ok(Arc::new(TaskFacts {
            known: known
                .map(|facts| (facts.id.clone(), Arc::new(facts)))
                .collect(),
            unreadable: unreadable.map(|one| (one.id, one.why)).collect(),
        }))
    }

    async fn read_census(&self) -> Result<Arc<Census>, Error> {
        /// Pages of 500 tasks that are read of each status.
        const PAGES: usize = 20;
        self.spend(2);
        let running = self.client.task_facts_in(Status::InProgress, PAGES).await?;
        fault::point!("sweep/running-read");
        let queued = self.client.task_facts_in(Status::Queued, PAGES).await?;
        fault::point!("sweep/read");
        Ok(Arc::new(Census { running, queued }))
    }

    async fn read_names(&self) -> Result<Arc<Vec<QueueInfo>>, Error> {
        self.spend(1);
        let names = self.client.every_queue_name().await?;
        fault::point!("resolve/names-read");
        Ok(Arc::new(names))
    }

    fn spend(&self, requests: u32) {
        self.seats(|seats| seats.others = seats.others.saturating_add(requests));
    }
}

fn by_id(queues: Vec<QueueEntries>) -> HashMap<QueueId, QueueEntries> {
    queues
        .into_iter()
        .map(|queue| (queue.id.clone(), queue))
        .collect()
}

/// A binding's place among those of its server. It is given up with its value.
pub(super) struct Seat {
    shared: Arc<Shared>,
    number: u64,
    alarm: Arc<Notify>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared
            .seats(|seats| seats.by_number.remove(&self.number));
    }
}

impl Seat {
    fn at(shared: Arc<Shared>) -> Self {
        let alarm = Arc::new(Notify::new());
        let number = shared.seats(|seats| {
            seats.next += 1;
            seats
                .by_number
                .insert(seats.next, (Place::Away, alarm.clone()));
            seats.next
        });
        Self {
            shared,
            number,
            alarm,
        }
    }

    fn go(&self, place: Place) {
        self.shared.seats(|seats| {
            if let Some((at, _)) = seats.by_number.get_mut(&self.number) {
                *at = place;
            }
        });
    }

    /// Not to be waited for until it sleeps again.
    pub fn leave(&self) {
        self.go(Place::Away);
    }

    /// Sleeps for so long, or until others are about to look. While nothing is on its way (`idle`) the budget of all counts.
    /// Answers with the seat awake and its questions expected; whoever is due soon comes along.
    pub async fn sleep(&self, wait: Duration, idle: bool) {
        let mut due = Instant::now() + wait;
        // Who was called along just when it woke by itself has had its look.
        let _ = self.alarm.notified().now_or_never();
        loop {
            self.go(Place::Asleep { due });
            tokio::select! {
                () = self.alarm.notified() => return,
                () = tokio::time::sleep_until(due) => {}
            }
            let budget = self.shared.seats(|seats| {
                seats
                    .looked
                    .map(|at| at + EACH * (1 + seats.others.min(MOST)))
            });
            match budget.filter(|at| idle && *at > Instant::now()) {
                Some(at) => due = at,
                None => break,
            }
        }
        self.wake();
    }

    /// Awake by another reason: the same, at once.
    pub fn wake(&self) {
        let soon = Instant::now() + ALONG;
        self.shared.seats(|seats| {
            for (number, (place, alarm)) in &mut seats.by_number {
                let along = matches!(place, Place::Asleep { due } if *due <= soon);
                if *number == self.number {
                    *place = Place::Coming;
                } else if along {
                    *place = Place::Coming;
                    alarm.notify_one();
                }
            }
        });
    }

    /// Whether something that can wait may be asked now; only one is asked between two looks.
    pub fn turn(&self) -> bool {
        self.shared.seats(|seats| {
            let free = seats.others == 0;
            seats.others += u32::from(free);
            free
        })
    }

    /// When something that is done from time to time is next due: at the same moment for all.
    pub fn next(&self, period: Duration, offset: Duration) -> Instant {
        let (now, began) = (Instant::now(), self.shared.began + offset);
        let rounds = now.saturating_duration_since(began).as_secs() / period.as_secs().max(1);
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX - 1) + 1;
        began + period * rounds
    }

    /// The entries of queues, by a look that is begun after this call.
    pub async fn entries(&self, wanted: Wanted) -> Result<Arc<Entries>, Error> {
        let (first, answer) = self.shared.entries.lay(wanted);
        self.go(Place::Looking);
        if first {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                shared.gather(Place::Coming).await;
                shared.entries.carry(|all| shared.read_entries(all)).await;
            });
        }
        answered(answer).await
    }

    /// The facts of tasks, by a read that is begun after this call; none are asked for if there are none.
    pub async fn facts(&self, ids: Vec<TaskId>) -> Result<Arc<TaskFacts>, Error> {
        if ids.is_empty() {
            self.leave();
            return Ok(Arc::default());
        }
        let (first, answer) = self.shared.facts.lay(ids);
        self.leave();
        if first {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                shared.gather(Place::Looking).await;
                shared.facts.carry(|all| shared.read_facts(all)).await;
            });
        }
        answered(answer).await
    }

    /// Ids and names of every queue.
    pub async fn names(&self) -> Result<Arc<Vec<QueueInfo>>, Error> {
        let (first, answer) = self.shared.names.lay(());
        if first {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep(BRIEFLY).await;
                shared.names.carry(|_| shared.read_names()).await;
            });
        }
        answered(answer).await
    }

    /// All tasks that run or wait.
    pub async fn census(&self) -> Result<Arc<Census>, Error> {
        let (first, answer) = self.shared.census.lay(());
        if first {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep(BRIEFLY).await;
                shared.census.carry(|_| shared.read_census()).await;
            });
        }
        answered(answer).await
    }
}

/// What is asked seldom waits this long for others.
const BRIEFLY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;
