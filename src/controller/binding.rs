//! One binding's loop: reconcile, then wait for the next time, an event or a change.
//!
//! Nothing sleeps inside a pass, and nothing of one binding's trouble reaches another's loop.

mod conclude;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cluster::{self, Once};
use super::dereference::{self, Connection};
use super::memory::Memory;
use super::observe::Identity;
use super::pass::{self, Passed};
use super::report::Reporter;
use super::resolve::{self, Making, Resolved};
use super::scene::Scene;
use super::status::{Trouble, Verdicts, Writer};
use super::validate::{self, Checked, Templates};
use super::{Context, finalize, lease};
use crate::api::{self, Backoff};
use crate::crd::{QueueBinding, condition};
use crate::diagnose::Category;
use crate::render::LabelValue;
use crate::task::WorkerId;
use pace::IDLE;

/// A wait that is no shorter is one that no look of another binding ends.
const LONG: Duration = Duration::from_secs(2);
/// Longest wait between attempts while something fails.
const LONGEST: Duration = Duration::from_secs(30);

/// Everything that one binding's loop keeps.
pub(super) struct Loop {
    pub(super) context: Arc<Context>,
    namespace: String,
    name: String,
    pub(super) identity: Identity,
    api: Api<QueueBinding>,
    lease: lease::Keeper,
    /// Whether we held the Lease when it was last looked at.
    leads: bool,
    pub(super) connection: Option<Connection>,
    pub(super) checked: Option<Checked>,
    pub(super) resolved: Option<Resolved>,
    pub(super) memory: Memory,
    writer: Writer,
    reporter: Reporter,
    backoff: Backoff,
    /// What the last pass failed for, so that it is logged once.
    failing: Once,
    /// Generation whose fields that are not honoured were told.
    noted: Option<i64>,
}

impl Loop {
    pub fn new(context: Arc<Context>, binding: &QueueBinding) -> Self {
        let (namespace, name) = (binding.namespace().unwrap_or_default(), binding.name_any());
        let identity = identity(&context.settings.worker, binding);
        let uid = identity.uid.clone();
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
            context.shares.clone(),
            owner,
        );
        let writer = Writer::new(api.clone(), context.recorder.clone());
        Self {
            namespace,
            name,
            identity,
            api,
            lease,
            leads: false,
            connection: None,
            checked: None,
            resolved: None,
            memory: Memory::default(),
            writer,
            reporter: Reporter::default(),
            backoff: Backoff::new(LONGEST),
            failing: Once::default(),
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
                () = self.rest(begun, wait, &alarm) => {}
            }
        }
        self.lease.release().await;
        self.context.metrics.forget(&self.label());
    }

    /// Waits for `wait`, for an event, or for the look of another binding of the same server that this one comes along
    /// with; for an event not before [`pace::woken_at`].
    async fn rest(&self, begun: Instant, wait: Duration, alarm: &Notify) {
        let at = pace::woken_at(begun, Instant::now());
        let passes = self.leads && wait < LONG;
        let Some(connection) = self.connection.as_ref().filter(|_| passes) else {
            self.away();
            return sleep_or(at, wait, alarm).await;
        };
        let idle = wait == IDLE;
        let wait = pace::left_of(wait, begun, Instant::now());
        tokio::select! {
            () = connection.seat.sleep(wait, idle) => {}
            () = woken(at, alarm) => connection.seat.wake(),
        }
    }

    /// Nobody waits for a pass of this binding.
    fn away(&self) {
        if let Some(connection) = &self.connection {
            connection.seat.leave();
        }
    }

    fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// One reconcile; answers when it wants to be called again.
    async fn reconcile(&mut self, binding: &QueueBinding) -> Duration {
        let held = self.lease.hold().await;
        let leads = matches!(held, Ok(true));
        self.context.metrics.leads(&self.label(), leads);
        match held {
            Ok(true) => self.lead(),
            Ok(false) => {
                self.stand_by();
                // Another replica has the Lease.
                return self.lease.rest();
            }
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
        let templates = validate::validate(
            &self.context,
            binding,
            &self.identity,
            server.as_ref(),
            &mut self.checked,
        )
        .await;
        match templates.verdict(&binding.spec.queues) {
            Ok(hashes) => verdicts.holds(condition::TEMPLATE_VALID, "Accepted", hashes),
            Err(trouble) if trouble.reason == validate::NOT_JUDGED => verdicts.undecided(trouble),
            Err(trouble) => verdicts.fails(trouble),
        }
        let served = match connected {
            Ok(()) => {
                self.serve(binding, &templates, retiring, &mut verdicts)
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

    /// The binding is ours, as it may have been before.
    fn lead(&mut self) {
        if !std::mem::replace(&mut self.leads, true) {
            let categories = Category::INTERRUPTING.map(Category::as_str);
            self.context.metrics.may_end(&self.label(), &categories);
        }
    }

    /// Another replica works on the binding, and changes what this one remembers of it and tells.
    fn stand_by(&mut self) {
        if std::mem::take(&mut self.leads) {
            self.memory = Memory::default();
            self.writer = Writer::new(self.api.clone(), self.context.recorder.clone());
            self.reporter = Reporter::default();
            self.context.metrics.stand_by(&self.label());
        }
    }

    /// The server's side: log in, resolve, pass, report.
    async fn serve(
        &mut self,
        binding: &QueueBinding,
        templates: &Templates,
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
            &connection.seat,
            &binding.spec,
            generation,
            &self.identity,
            &mut self.resolved,
            Making::Allowed,
        )
        .await?;
        let Some(resolved) = &self.resolved else {
            return Ok(Passed::default());
        };
        verdicts.holds(condition::SERVER_REACHABLE, "Answers", "the server answers");
        match resolved.verdict() {
            Ok((reason, words)) => verdicts.holds(condition::QUEUES_RESOLVED, reason, words),
            Err(trouble) => verdicts.fails(trouble),
        }
        let scene = Scene {
            context: &self.context,
            binding,
            identity: &self.identity,
            client: &client,
            seat: &connection.seat,
            server: &connection.server,
            resolved,
            templates,
            retiring,
            dry: None,
        };
        let mut passed = pass::pass(&scene, &mut self.memory).await?;
        if let Some(fault) = passed.fault.take() {
            return Err(fault.into());
        }
        if !retiring {
            let label = LabelValue::of(&self.name);
            self.memory
                .adoption
                .settle(
                    &self.context,
                    &client,
                    &self.identity,
                    &self.namespace,
                    label.as_str(),
                )
                .await?;
            self.reporter
                .report(
                    &client,
                    &connection.seat,
                    &self.identity.worker,
                    &resolved.ids(),
                )
                .await?;
        }
        Ok(passed)
    }

    /// One line for each new reason, not one for each attempt.
    fn log_failure(&mut self, message: &str) {
        if self.failing.is_new(message) {
            tracing::warn!(
                namespace = self.namespace,
                binding = self.name,
                error = message,
                "pass failed, trying again"
            );
        }
    }

    fn cluster_fault(&mut self, error: &cluster::Error) -> Duration {
        self.log_failure(&error.to_string());
        self.backoff.next(None)
    }
}

/// Who a binding's loop is in labels and worker ids.
pub(super) fn identity(worker: &str, binding: &QueueBinding) -> Identity {
    let (namespace, name) = (binding.namespace().unwrap_or_default(), binding.name_any());
    let uid = binding.uid().unwrap_or_default();
    let short: String = uid.chars().take(8).collect();
    Identity {
        worker: WorkerId(format!("{worker}:{namespace}.{name}:{short}")),
        uid,
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

/// Waits for `wait`, or for an event, but for that not less than until `at`.
async fn sleep_or(at: Instant, wait: Duration, alarm: &Notify) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = woken(at, alarm) => {}
    }
}

async fn woken(at: Instant, alarm: &Notify) {
    alarm.notified().await;
    tokio::time::sleep_until(at).await;
}
