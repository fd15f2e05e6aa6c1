//! Resolve: queue names and ids of a binding to queues of its server, and the pending queue.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::fault;
use super::observe::Identity;
use super::status::Trouble;
use super::together::Seat;
use crate::api::{Client, Error, QueueInfo};
use crate::claim::order::Lane;
use crate::crd::{QueueBindingSpec, QueueSpec, condition};
use crate::render;
use crate::task::QueueId;

/// How often names are looked up again: a queue may have been renamed, or made meanwhile.
const AGAIN: Duration = Duration::from_mins(1);
/// The same while one is missing.
const AGAIN_MISSING: Duration = Duration::from_secs(5);

/// The queues of a binding as the server has them.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    /// Served queues that exist, in the binding's order.
    pub served: Vec<render::Queue>,
    pub lanes: Vec<Lane>,
    /// Their places in the binding.
    places: Vec<usize>,
    /// Names and ids in the binding that name no queue, each with the reason.
    pub missing: Vec<(String, String)>,
    /// Names in the binding whose queue has another name by now.
    pub renamed: Vec<(String, String)>,
    /// What each name of the binding stood for.
    named: HashMap<String, QueueId>,
    pub pending: QueueId,
    generation: i64,
    next: Instant,
}

impl Resolved {
    /// Queues as a test wants them.
    #[cfg(test)]
    pub fn fixed(served: Vec<render::Queue>, pending: QueueId) -> Self {
        let lanes = served
            .iter()
            .map(|queue| Lane {
                queue: queue.id.clone(),
                weight: 1,
            })
            .collect();
        Self {
            places: (0..served.len()).collect(),
            served,
            lanes,
            missing: Vec::new(),
            renamed: Vec::new(),
            named: HashMap::new(),
            pending,
            generation: 1,
            next: Instant::now(),
        }
    }

    /// Looks names up again at the next opportunity.
    pub fn doubt(&mut self) {
        self.next = Instant::now();
    }

    /// Ids of the served queues.
    pub fn ids(&self) -> Vec<QueueId> {
        self.served.iter().map(|queue| queue.id.clone()).collect()
    }

    /// The served queue of this id.
    pub fn queue(&self, id: &QueueId) -> Option<&render::Queue> {
        self.served.iter().find(|queue| queue.id == *id)
    }

    /// Place of this queue in the binding.
    pub fn place(&self, id: &QueueId) -> Option<usize> {
        let at = self.served.iter().position(|queue| queue.id == *id)?;
        self.places.get(at).copied()
    }

    /// What there is to say about the queues: the reason and the words for a condition that holds, or what is missing.
    pub fn verdict(&self) -> Result<(&'static str, String), Trouble> {
        let missing: Vec<String> = self
            .missing
            .iter()
            .map(|(name, why)| format!("queue {name:?}: {why}"))
            .collect();
        if !missing.is_empty() {
            let message = format!("{}; the other queues are served", missing.join("; "));
            return Err(Trouble::new(
                condition::QUEUES_RESOLVED,
                "QueueMissing",
                message,
            ));
        }
        let renamed: Vec<String> = self
            .renamed
            .iter()
            .map(|(name, now)| {
                format!("queue {name:?} is called {now:?} by now and still served; write its new name into the binding")
            })
            .collect();
        Ok(if renamed.is_empty() {
            ("Found", "all queues exist".to_owned())
        } else {
            ("QueueRenamed", renamed.join("; "))
        })
    }
}

/// Whether queues may be made that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Making {
    Allowed,
    /// For those who only look; a pending queue that is not there is one that is empty.
    Forbidden,
}

/// Resolves the queues if that is due.
pub(super) async fn resolve(
    client: &Client,
    seat: &Seat,
    spec: &QueueBindingSpec,
    generation: i64,
    identity: &Identity,
    resolved: &mut Option<Resolved>,
    making: Making,
) -> Result<(), Error> {
    let now = Instant::now();
    if resolved
        .as_ref()
        .is_some_and(|known| known.generation == generation && now < known.next)
    {
        return Ok(());
    }
    let before = resolved
        .as_ref()
        .filter(|known| known.generation == generation);
    let names = seat.names().await?;
    let mut served: Vec<render::Queue> = Vec::new();
    let (mut lanes, mut places, mut named) = (Vec::new(), Vec::new(), HashMap::new());
    let (mut missing, mut renamed) = (Vec::new(), Vec::new());
    for (place, queue) in spec.queues.iter().enumerate() {
        let known = before.and_then(|known| known.named.get(&queue.name));
        let found = match one(client, &names, queue, known, making).await? {
            Ok(found) => found,
            Err(why) => {
                missing.push((queue.name.clone(), why));
                continue;
            }
        };
        named.insert(queue.name.clone(), found.id.clone());
        if found.name != queue.name && found.id.as_str() != queue.name {
            renamed.push((queue.name.clone(), found.name.clone()));
        }
        // Two names of one queue: the first place in the list counts.
        if served.iter().any(|known| known.id == found.id) {
            continue;
        }
        lanes.push(Lane {
            queue: found.id.clone(),
            weight: u32::try_from(queue.weight).unwrap_or(1),
        });
        places.push(place);
        served.push(found);
    }
    let pending = pending(client, &names, &pending_name(identity), making).await?;
    let period = if missing.is_empty() {
        AGAIN
    } else {
        AGAIN_MISSING
    };
    let next = seat.next(period, Duration::ZERO);
    *resolved = Some(Resolved {
        served,
        lanes,
        places,
        missing,
        renamed,
        named,
        pending,
        generation,
        next,
    });
    Ok(())
}

/// One queue, made if that is wanted; or why there is none. A queue that was `known` by this name and is there under
/// another is followed; one of the name itself goes before it.
async fn one(
    client: &Client,
    names: &[QueueInfo],
    queue: &QueueSpec,
    known: Option<&QueueId>,
    making: Making,
) -> Result<Result<render::Queue, String>, Error> {
    let missing = || "the server has no such queue; create it, or set createIfMissing".to_owned();
    let named = |found: QueueInfo| render::Queue {
        id: found.id,
        name: found.name,
    };
    let by_id = |id: &str| names.iter().find(|queue| queue.id.as_str() == id);
    let found = find(names, &queue.name).or_else(|| by_id(known?.as_str()));
    if let Some(found) = found {
        return Ok(Ok(named(found.clone())));
    }
    if !queue.create_if_missing
        || making == Making::Forbidden
        || crate::task::is_object_id(&queue.name)
    {
        return Ok(Err(missing()));
    }
    match client.create_queue(&queue.name).await {
        Ok(id) => {
            fault::point!("resolve/queue-created");
            Ok(Ok(render::Queue {
                id,
                name: queue.name.clone(),
            }))
        }
        // Somebody else has made it meanwhile.
        Err(error) if error.is(400, 801) => {
            let found = made_meanwhile(client, &queue.name).await?;
            Ok(found.map(named).ok_or_else(missing))
        }
        // This name is not accepted: no reason not to serve the others.
        Err(Error::Refused { http: 400, msg, .. }) => {
            Ok(Err(format!("the server refuses to create it: {msg}")))
        }
        Err(error) => Err(error),
    }
}

/// The queue of this name, which was not there at the look and is when it is to be made.
async fn made_meanwhile(client: &Client, name: &str) -> Result<Option<QueueInfo>, Error> {
    let found = client.find_queue(name).await?;
    fault::point!("resolve/queue-found");
    Ok(found)
}

/// Name of a binding's pending queue. A UID is unique beyond the cluster, so no two bindings ever share one.
pub(super) fn pending_name(identity: &Identity) -> String {
    format!("trainyard:{}", identity.uid)
}

/// The queue of this name, or of this id where it is one.
fn find<'a>(names: &'a [QueueInfo], name: &str) -> Option<&'a QueueInfo> {
    if crate::task::is_object_id(name) {
        names.iter().find(|queue| queue.id.as_str() == name)
    } else {
        names.iter().find(|queue| queue.name == name)
    }
}

/// The pending queue, made if it is not there.
async fn pending(
    client: &Client,
    names: &[QueueInfo],
    name: &str,
    making: Making,
) -> Result<QueueId, Error> {
    if let Some(found) = find(names, name) {
        return Ok(found.id.clone());
    }
    if making == Making::Forbidden
        && let Ok(nowhere) = "0".repeat(32).parse()
    {
        return Ok(nowhere);
    }
    let answer = client.create_hidden_queue(name).await;
    fault::point!("resolve/pending-created");
    match answer {
        Err(error) if error.is(400, 801) => match made_meanwhile(client, name).await? {
            Some(found) => Ok(found.id),
            None => Err(error),
        },
        answer => answer,
    }
}
