//! What is counted for the status and the metrics: who waits in the queues, for how long, and who runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::api::{self, Client};
use crate::controller::fault;
use crate::controller::live::Live;
use crate::controller::look::Queues;
use crate::controller::memory::Memory;
use crate::controller::row::JobRow;
use crate::controller::scene::Scene;
use crate::crd::QueueStatus;
use crate::pod::label;
use crate::task::QueueId;

/// Lengths of long queues are asked for no more often than this.
const LENGTHS: Duration = Duration::from_secs(10);

/// How long the first entry of each queue has stood there, by the server's clock at its entry and ours now.
pub(super) fn heads(scene: &Scene<'_>, queues: &Queues) -> HashMap<String, Duration> {
    queues
        .served
        .iter()
        .filter_map(|queue| {
            let name = scene.resolved.queue(&queue.id)?.name.clone();
            let added: Timestamp = queue.entries.first()?.added.as_deref()?.parse().ok()?;
            let age = Duration::try_from(queues.read_at.duration_since(added)).ok()?;
            Some((name, age))
        })
        .collect()
}

/// Asks for the lengths of queues that the look has cut off, from time to time: only the status shows them.
pub(super) async fn learn_lengths(
    client: &Client,
    memory: &mut Memory,
    queues: &Queues,
) -> Result<(), api::Error> {
    let cut: Vec<&QueueId> = queues
        .served
        .iter()
        .filter(|queue| queue.cut)
        .map(|queue| &queue.id)
        .collect();
    memory.lengths.retain(|id, _| cut.contains(&id));
    for id in cut {
        let fresh = memory
            .lengths
            .get(id)
            .is_some_and(|(_, asked)| asked.elapsed() < LENGTHS);
        if !fresh {
            let length = client.queue_length(id).await?;
            fault::point!("look/length-read");
            memory.lengths.insert(id.clone(), (length, Instant::now()));
        }
    }
    Ok(())
}

/// Tasks of each served queue by what their Jobs do.
pub(super) fn counters(
    scene: &Scene<'_>,
    queues: &Queues,
    live: &Live,
    memory: &Memory,
) -> Vec<QueueStatus> {
    let one = |queue: &api::QueueEntries| {
        let of_queue = |job: &&Arc<JobRow>| job.label(label::QUEUE) == Some(queue.id.as_str());
        let started = |job: &&Arc<JobRow>| memory.lore.started.contains(&*job.uid);
        let all = live.own_unended.iter().filter(of_queue).count();
        let running = live
            .own_unended
            .iter()
            .filter(of_queue)
            .filter(started)
            .count();
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        QueueStatus {
            name: scene
                .resolved
                .queue(&queue.id)
                .map(|known| known.name.clone())
                .unwrap_or_default(),
            id: Some(queue.id.to_string()),
            queued: memory.lengths.get(&queue.id).map_or_else(
                || signed(queue.entries.len()),
                |(length, _)| i64::try_from(*length).unwrap_or(i64::MAX),
            ),
            claimed: signed(all - running),
            running: signed(running),
        }
    };
    queues.served.iter().map(one).collect()
}
