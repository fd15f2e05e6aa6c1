//! Reports: the binding's worker, by which people see on the server that its queues are served.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::api::{Client, Error, StatusReport};
use crate::task::{QueueId, WorkerId};

/// How often the worker reports; a registration lives for [`REGISTERED`].
const PERIOD: Duration = Duration::from_secs(30);
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
        worker: &WorkerId,
        queues: &[QueueId],
    ) -> Result<(), Error> {
        let now = Instant::now();
        let unchanged = self.registered == queues;
        if queues.is_empty() || (unchanged && self.next.is_some_and(|next| now < next)) {
            return Ok(());
        }
        self.next = Some(now + PERIOD);
        if !unchanged {
            client.register_worker(worker, queues, REGISTERED).await?;
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
            .await
    }

    /// Takes the worker off the list, as far as the server can be reached.
    pub async fn unregister(&mut self, client: &Client, worker: &WorkerId) {
        if !self.registered.is_empty() {
            let _ = client.unregister_worker(worker, &self.registered).await;
            self.registered.clear();
        }
    }
}
