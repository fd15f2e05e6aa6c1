//! Resolve: queue names and ids of a binding to queues of its server, and the pending queue.

use std::time::Duration;

use tokio::time::Instant;

use super::observe::Identity;
use super::status::Trouble;
use crate::api::{Client, Error};
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
    /// Names and ids in the binding that name no queue, each with the reason.
    pub missing: Vec<(String, String)>,
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
            served,
            lanes,
            missing: Vec::new(),
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

    /// What there is to say about queues that are missing.
    pub fn trouble(&self) -> Option<Trouble> {
        let sentences: Vec<String> = self
            .missing
            .iter()
            .map(|(name, why)| format!("queue {name:?}: {why}"))
            .collect();
        (!self.missing.is_empty()).then(|| {
            let message = format!("{}; the other queues are served", sentences.join("; "));
            Trouble::new(condition::QUEUES_RESOLVED, "QueueMissing", message)
        })
    }
}

/// Resolves the queues if that is due.
pub(super) async fn resolve(
    client: &Client,
    spec: &QueueBindingSpec,
    generation: i64,
    identity: &Identity,
    resolved: &mut Option<Resolved>,
) -> Result<(), Error> {
    let now = Instant::now();
    if resolved
        .as_ref()
        .is_some_and(|known| known.generation == generation && now < known.next)
    {
        return Ok(());
    }
    let mut served: Vec<render::Queue> = Vec::new();
    let mut lanes = Vec::new();
    let mut missing = Vec::new();
    for queue in &spec.queues {
        match one(client, queue).await? {
            Ok(found) if served.iter().any(|known| known.id == found.id) => {}
            Ok(found) => {
                lanes.push(Lane {
                    queue: found.id.clone(),
                    weight: u32::try_from(queue.weight).unwrap_or(1),
                });
                served.push(found);
            }
            Err(why) => missing.push((queue.name.clone(), why)),
        }
    }
    let pending = pending(client, &pending_name(identity)).await?;
    let next = now
        + if missing.is_empty() {
            AGAIN
        } else {
            AGAIN_MISSING
        };
    *resolved = Some(Resolved {
        served,
        lanes,
        missing,
        pending,
        generation,
        next,
    });
    Ok(())
}

/// One queue, made if that is wanted; or why there is none.
async fn one(client: &Client, queue: &QueueSpec) -> Result<Result<render::Queue, String>, Error> {
    let missing = || "the server has no such queue; create it, or set createIfMissing".to_owned();
    let named = |found: crate::api::QueueInfo| render::Queue {
        id: found.id,
        name: found.name,
    };
    if let Some(found) = client.find_queue(&queue.name).await? {
        return Ok(Ok(named(found)));
    }
    if !queue.create_if_missing || crate::task::is_object_id(&queue.name) {
        return Ok(Err(missing()));
    }
    match client.create_queue(&queue.name).await {
        Ok(id) => Ok(Ok(render::Queue {
            id,
            name: queue.name.clone(),
        })),
        // Somebody else has made it meanwhile.
        Err(error) if error.is(400, 801) => Ok(client
            .find_queue(&queue.name)
            .await?
            .map(named)
            .ok_or_else(missing)),
        // This name is not accepted: no reason not to serve the others.
        Err(Error::Refused { http: 400, msg, .. }) => {
            Ok(Err(format!("the server refuses to create it: {msg}")))
        }
        Err(error) => Err(error),
    }
}

/// Name of a binding's pending queue. A UID is unique beyond the cluster, so no two bindings ever share one.
pub(super) fn pending_name(identity: &Identity) -> String {
    format!("trainyard:{}", identity.uid)
}

/// The pending queue, made if it is not there.
async fn pending(client: &Client, name: &str) -> Result<QueueId, Error> {
    if let Some(found) = client.find_queue(name).await? {
        return Ok(found.id);
    }
    match client.create_hidden_queue(name).await {
        Err(error) if error.is(400, 801) => match client.find_queue(name).await? {
            Some(found) => Ok(found.id),
            None => Err(error),
        },
        answer => answer,
    }
}
