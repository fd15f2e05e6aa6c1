//! One binding's loop: reconcile, then wait for the next time, an event or a change.
//!
//! Nothing sleeps inside a pass, and nothing of one binding's trouble reaches another's loop.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::events::EventType;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admit::Waiting;
use super::dereference::{self, Connection};
use super::memory::Memory;
use super::observe::Identity;
use super::pass::{self, Passed, Scene};
use super::report::Reporter;
use super::resolve::{self, Resolved};
use super::status::{Counters, Trouble, Verdicts, Writer};
use super::validate::{self, Checked};
use super::{Context, finalize, lease};
use crate::api::{self, Backoff};
use crate::crd::{QueueBinding, condition, unsupported};
use crate::render::Template;
use crate::task::WorkerId;
use crate::telemetry::metrics::TaskCounts;

/// Between two looks when nothing is on its way.
const IDLE: Duration = Duration::from_secs(1);
/// Between two looks when something is.
const BUSY: Duration = Duration::from_millis(250);
/// Events may wake a pass early, but not more often than this.
const WAKE: Duration = Duration::from_millis(100);
/// Another replica has the Lease: look again.
const STAND_BY: Duration = Duration::from_secs(2);
/// Longest wait between attempts while something fails.
const LONGEST: Duration = Duration::from_secs(30);

/// Everything that one binding's loop keeps.
pub(super) struct Loop {
    context: Arc<Context>,
    namespace: String,
    name: String,
    identity: Identity,
    api: Api<QueueBinding>,
    lease: lease::Keeper,
    connection: Option<Connection>,
    checked: Option<Checked>,
    resolved: Option<Resolved>,
    memory: Memory,
    writer: Writer,
    reporter: Reporter,
    backoff: Backoff,
    /// What the last pass failed for, so that it is logged once.
    failing: Option<String>,
    /// Generation whose fields that are not honoured were told.
    noted: Option<i64>,
}

impl Loop {
    pub fn new(context: Arc<Context>, binding: &QueueBinding) -> Self {
        let (namespace, name) = (binding.namespace().unwrap_or_default(), binding.name_any());
        let uid = binding.uid().unwrap_or_default();
        let short: String = uid.chars().take(8).collect();
        let identity = Identity {
            worker: WorkerId(format!(
                "{}:{namespace}.{name}:{short}",
                context.settings.worker
            )),
            uid: uid.clone(),
        };
        let api: Api<QueueBinding> = Api::namespaced(context.kube.clone(), &namespace);
        let owner = OwnerReference {
            api_version: QueueBinding::api_version(&()).into_owned(),
            kind: QueueBinding::kind(&()).into_owned(),
            name: name.clone(),
            uid,
            ..OwnerReference::default()
        };
        let leases = Api::namespaced(context.kube.clone(), &namespace);
        let lease = lease::Keeper::new(
            leases,
            format!("trainyard-{name}"),
            context.settings.identity.clone(),
            owner,
        );
        let writer = Writer::new(api.clone(), context.recorder.clone());
        Self {
            namespace,
            name,
            identity,
            api,
            lease,
            connection: None,
            checked: None,
            resolved: None,
            memory: Memory::default(),
            writer,
            reporter: Reporter::default(),
            backoff: Backoff::new(LONGEST),
            failing: None,
            noted: None,
            context,
        }
    }

    /// Reconciles until `shutdown`, then gives the Lease back.
    pub async fn run(
        mut self,
        mut bindings: watch::Receiver<Arc<QueueBinding>>,
        alarm: Arc<Notify>,
        shutdown: CancellationToken,
    ) {
        while !shutdown.is_cancelled() {
            let binding = bindings.borrow_and_update().clone();
            let begun = Instant::now();
            let wait = self.reconcile(&binding).await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                changed = bindings.changed() => if changed.is_err() { break },
                () = sleep_or(begun, wait, &alarm) => {}
            }
        }
        self.lease.release().await;
        let queues: Vec<String> = self
            .resolved
            .iter()
            .flat_map(|resolved| &resolved.served)
            .map(|queue| queue.name.clone())
            .collect();
        self.context.metrics.forget(&self.label(), &queues);
    }

    /// Takes the worker off the server's list: the binding is gone.
    async fn unregister(&mut self) {
        if let Some(connection) = &self.connection {
            self.reporter
                .unregister(&connection.client, &self.identity.worker)
                .await;
        }
    }

    fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// One reconcile; answers when it wants to be called again.
    async fn reconcile(&mut self, binding: &QueueBinding) -> Duration {
        match self.lease.hold().await {
            Ok(true) => {}
            Ok(false) => return STAND_BY,
            Err(error) => {
                tracing::warn!(namespace = self.namespace, binding = self.name, %error, "lease could not be held");
                return self.backoff.next(None);
            }
        }
        let retiring = binding.metadata.deletion_timestamp.is_some();
        if !finalize::is_held(binding) {
            if retiring {
                return LONGEST;
            }
            // The change comes back by the watch, and the pass with it.
            return match finalize::hold(&self.api, binding).await {
                Ok(()) => IDLE,
                Err(error) => self.cluster_fault(&error),
            };
        }
        let begun = Instant::now();
        let mut verdicts = Verdicts::default();
        let connected =
            dereference::connect(&self.context, binding, &self.identity, &mut self.connection)
                .await;
        let server = self
            .connection
            .as_ref()
            .filter(|_| connected.is_ok())
            .map(|connection| connection.server.clone());
        let template = validate::validate(
            &self.context,
            binding,
            &self.identity,
            server.as_ref(),
            &mut self.checked,
        )
        .await;
        match &template {
            Ok(template) => {
                verdicts.holds(condition::TEMPLATE_VALID, "Accepted", template.to_string());
            }
            Err(trouble) if trouble.reason == validate::NOT_JUDGED => {
                verdicts.undecided(trouble.clone());
            }
            Err(trouble) => verdicts.fails(trouble.clone()),
        }
        let served = match connected {
            Ok(()) => {
                self.serve(binding, template.as_ref().ok(), retiring, &mut verdicts)
                    .await
            }
            Err(trouble) => Err(Failure::from(trouble)),
        };
        let outcome = if served.is_ok() { "ok" } else { "error" };
        self.context
            .metrics
            .pass(&self.label(), outcome, begun.elapsed());
        let wait = self
            .conclude(binding, served, retiring, &mut verdicts)
            .await;
        self.tell_unsupported(binding).await;
        wait
    }

    /// The server's side: log in, resolve, pass, report.
    async fn serve(
        &mut self,
        binding: &QueueBinding,
        template: Option<&Arc<Template>>,
        retiring: bool,
        verdicts: &mut Verdicts,
    ) -> Result<Passed, Failure> {
        let Some(connection) = self.connection.as_mut() else {
            return Ok(Passed::default());
        };
        connection.check_version().await?;
        verdicts.holds(
            condition::CREDENTIALS_VALID,
            "LoggedIn",
            "the server accepts the credentials",
        );
        let client = connection.client.clone();
        let generation = binding.metadata.generation.unwrap_or_default();
        resolve::resolve(
            &client,
            &binding.spec,
            generation,
            &self.identity,
            &mut self.resolved,
        )
        .await?;
        let Some(resolved) = &self.resolved else {
            return Ok(Passed::default());
        };
        verdicts.holds(condition::SERVER_REACHABLE, "Answers", "the server answers");
        match resolved.trouble() {
            Some(trouble) => verdicts.fails(trouble),
            None => verdicts.holds(condition::QUEUES_RESOLVED, "Found", "all queues exist"),
        }
        let scene = Scene {
            context: &self.context,
            binding,
            identity: &self.identity,
            client: &client,
            server: &connection.server,
            resolved,
            template,
            retiring,
        };
        let mut passed = pass::pass(&scene, &mut self.memory).await?;
        if let Some(fault) = passed.fault.take() {
            return Err(fault.into());
        }
        if !retiring {
            self.reporter
                .report(&client, &self.identity.worker, &resolved.ids())
                .await?;
        }
        Ok(passed)
    }

    /// Status, Events and metrics of what happened; answers when to go on.
    async fn conclude(
        &mut self,
        binding: &QueueBinding,
        served: Result<Passed, Failure>,
        retiring: bool,
        verdicts: &mut Verdicts,
    ) -> Duration {
        let (wait, counters) = match served {
            Ok(passed) => {
                self.backoff.reset();
                self.failing = None;
                if passed.queues_gone {
                    self.resolved.iter_mut().for_each(Resolved::doubt);
                }
                match &passed.waiting {
                    None => verdicts.holds(
                        condition::CAPACITY_AVAILABLE,
                        "Room",
                        "another task would be taken",
                    ),
                    Some(Waiting { reason, message }) => {
                        verdicts.fails(Trouble::new(
                            condition::CAPACITY_AVAILABLE,
                            reason,
                            message,
                        ));
                    }
                }
                for (task, message) in &passed.refused {
                    let note = format!(
                        "task {task} stays in its queue: the API server refuses its Job: {message}"
                    );
                    self.writer
                        .event(binding, EventType::Warning, "JobRefused", &note)
                        .await;
                }
                if retiring && let Err(error) = self.retire(binding, passed.nothing_claimed).await {
                    return self.cluster_fault(&error);
                }
                self.measure(&passed);
                let wait = if passed.busy || retiring { BUSY } else { IDLE };
                (wait, Some(self.counters(passed)))
            }
            Err(failure) => {
                self.log_failure(&failure.trouble.message);
                if failure.trouble.condition == condition::CREDENTIALS_VALID {
                    self.connection.iter_mut().for_each(Connection::doubt);
                }
                verdicts.fails(failure.trouble);
                if retiring
                    && finalize::own_jobs(&self.context, binding, &self.identity).is_empty()
                    && self.context.jobs.sound()
                {
                    // Nothing of it is in the cluster; the server may be gone for good.
                    if let Err(error) = finalize::let_go(&self.api, binding).await {
                        return self.cluster_fault(&error);
                    }
                }
                (self.backoff.next(failure.retry_after), None)
            }
        };
        let written = self
            .writer
            .write(binding, verdicts, counters.as_ref())
            .await;
        if let Err(error) = written
            && !error.is_not_found()
        {
            return self.cluster_fault(&error);
        }
        wait
    }

    /// The last steps before the binding goes, once nothing is claimed any more.
    async fn retire(
        &mut self,
        binding: &QueueBinding,
        nothing_claimed: bool,
    ) -> Result<(), super::cluster::Error> {
        let (Some(connection), Some(resolved)) = (&self.connection, &self.resolved) else {
            return Ok(());
        };
        let client = connection.client.clone();
        let stopped = finalize::stop_running(&self.context, &client, binding, &self.identity).await;
        if nothing_claimed
            && stopped
            && finalize::clean_up(&self.context, &client, resolved, binding, &self.identity).await?
        {
            self.unregister().await;
            finalize::let_go(&self.api, binding).await?;
        }
        Ok(())
    }

    fn counters(&self, passed: Passed) -> Counters {
        Counters {
            queues: passed.queues,
            last_dispatch: self.memory.last_dispatch,
        }
    }

    fn measure(&self, passed: &Passed) {
        let label = self.label();
        let mut counts = TaskCounts::default();
        for queue in &passed.queues {
            self.context.metrics.queued(
                &label,
                &queue.name,
                u64::try_from(queue.queued).unwrap_or(0),
            );
            counts.claimed += u64::try_from(queue.claimed).unwrap_or(0);
            counts.running += u64::try_from(queue.running).unwrap_or(0);
        }
        self.context.metrics.tasks(&label, counts);
    }

    /// One line for each new reason, not one for each attempt.
    fn log_failure(&mut self, message: &str) {
        if self.failing.as_deref() != Some(message) {
            tracing::warn!(
                namespace = self.namespace,
                binding = self.name,
                error = message,
                "pass failed, trying again"
            );
            self.failing = Some(message.to_owned());
        }
    }

    fn cluster_fault(&mut self, error: &super::cluster::Error) -> Duration {
        self.log_failure(&error.to_string());
        self.backoff.next(None)
    }

    /// Fields that are set and have no effect are told once for each generation.
    async fn tell_unsupported(&mut self, binding: &QueueBinding) {
        if self.noted == binding.metadata.generation {
            return;
        }
        self.noted = binding.metadata.generation;
        for note in unsupported(&binding.spec).iter().take(10) {
            self.writer
                .event(
                    binding,
                    EventType::Warning,
                    "NotSupported",
                    &note.to_string(),
                )
                .await;
        }
    }
}

/// Why the server's side of a reconcile failed.
struct Failure {
    trouble: Trouble,
    retry_after: Option<Duration>,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self {
            trouble,
            retry_after: None,
        }
    }
}

impl From<api::Error> for Failure {
    fn from(error: api::Error) -> Self {
        Self {
            trouble: Trouble::from(&error),
            retry_after: error.retry_after(),
        }
    }
}

/// Waits for `wait`, or for an event, but not less than [`WAKE`] since the last pass began.
async fn sleep_or(begun: Instant, wait: Duration, alarm: &Notify) {
    let asleep = Timestamp::now();
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = alarm.notified() => tokio::time::sleep_until((begun + WAKE).max(Instant::now())).await,
    }
    tracing::trace!(%asleep, "awake");
}
