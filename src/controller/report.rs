//! Reports: the binding's worker, by which people see on the server that its queues are served.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::fault;
use super::together::Seat;
use crate::api::{Client, Error, StatusReport};
use crate::task::{QueueId, WorkerId};

/// How often the worker reports; a registration lives for [`REGISTERED`].
const PERIOD: Duration = Duration::from_mins(1);
/// How long the server keeps a worker that says nothing (protocol.md §5.2).
const REGISTERED: Duration = Duration::from_mins(10);

/// The worker of one binding.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    registered: Vec<QueueId>,
    next: Option<Instant>,
}

impl Reporter {
    /// Registers the worker when its queues change, and reports from time to time.
    pub async fn report(
        &mut self,
        client: &Client,
        seat: &Seat,
        worker: &WorkerId,
        queues: &[QueueId],
    ) -> Result<(), Error> {
        let now = Instant::now();
        let unchanged = self.registered == queues;
        if queues.is_empty() || (unchanged && self.next.is_some_and(|next| now < next)) {
            return Ok(());
        }
        // The workers of a server report one after the other.
        if unchanged && !seat.turn() {
            return Ok(());
        }
        self.next = Some(now + PERIOD);
        if !unchanged {
            client.register_worker(worker, queues, REGISTERED).await?;
            fault::point!("report/registered");
            self.registered = queues.to_vec();
        }
        client
            .report_worker(&StatusReport {
                worker: worker.clone(),
                timestamp: Timestamp::now().as_millisecond(),
                queues: queues.to_vec(),
                queue: None,
                task: None,
                machine_stats: None,
            })
            .await?;
        fault::point!("report/reported");
        Ok(())
    }

    /// Takes the worker off the list, as far as the server can be reached. It may have been registered by an earlier
    /// process, so that it does not count what this one has done.
    pub async fn unregister(&mut self, client: &Client, worker: &WorkerId, queues: &[QueueId]) {
        let _ = client.unregister_worker(worker, queues).await;
        fault::point!("report/unregistered");
        self.registered.clear();
    }
}
