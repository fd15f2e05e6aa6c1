//! The loops of all bindings: one is started for each binding that comes, and stopped when it goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Context, binding, cluster};
use crate::crd::QueueBinding;
use crate::render;
use crate::telemetry::admin::{Health, Readiness};

/// How long loops may take to end their pass at shutdown.
const FAREWELL: Duration = Duration::from_secs(9);

/// The loops that run, by namespace and name of their binding.
pub(super) struct Loops {
    context: Arc<Context>,
    running: HashMap<(String, String), Running>,
    tasks: JoinSet<()>,
    /// Bindings that the relist in progress has named so far.
    listed: Vec<(String, String)>,
}

struct Running {
    uid: Option<String>,
    bindings: watch::Sender<Arc<QueueBinding>>,
    stop: CancellationToken,
}

impl Loops {
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            listed: Vec::new(),
        }
    }

    /// Starts and stops loops as bindings come and go, until `shutdown`; then waits for them.
    pub async fn follow(
        mut self,
        api: Api<QueueBinding>,
        readiness: &Readiness,
        shutdown: &CancellationToken,
    ) {
        const PART: &str = "queuebindings";
        readiness.set(PART, Health::Waiting("not listed yet".into()));
        let mut events = watcher(api, watcher::Config::default())
            .default_backoff()
            .boxed();
        let (mut failing, mut listed) = (cluster::Once::default(), false);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        failing.over();
                        if matches!(event, Event::InitDone) {
                            listed = true;
                            readiness.set(PART, Health::Ready);
                        }
                        self.take(event);
                    }
                    Some(Err(error)) => {
                        let error = cluster::watch_failure(&error);
                        if failing.is_new(&error) {
                            tracing::warn!(watch = PART, error, "watch failed, trying again");
                        }
                        if !listed {
                            readiness.set(PART, Health::Waiting(error));
                        }
                    }
                    None => break,
                },
                Some(ended) = self.tasks.join_next() => self.restart_after_panic(&ended),
            }
        }
        for running in self.running.values() {
            running.stop.cancel();
        }
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, all_ended).await.is_err() {
            tracing::warn!("a pass did not end in time");
        }
    }

    fn take(&mut self, event: Event<QueueBinding>) {
        match event {
            Event::Apply(binding) => self.apply(binding),
            Event::Delete(binding) => self.stop(&key(&binding)),
            Event::Init => self.listed.clear(),
            Event::InitApply(binding) => {
                self.listed.push(key(&binding));
                self.apply(binding);
            }
            Event::InitDone => {
                let gone: Vec<_> = self
                    .running
                    .keys()
                    .filter(|key| !self.listed.contains(key))
                    .cloned()
                    .collect();
                for key in gone {
                    self.stop(&key);
                }
            }
        }
    }

    fn apply(&mut self, mut binding: QueueBinding) {
        binding.metadata.managed_fields = None;
        let key = key(&binding);
        // A binding of the same name that was made anew is another one.
        if self
            .running
            .get(&key)
            .is_some_and(|running| running.uid != binding.uid())
        {
            self.stop(&key);
        }
        match self.running.get(&key) {
            Some(running) => {
                let binding = Arc::new(binding);
                // Our own writes of the status come back too; they are no reason to look again.
                running.bindings.send_if_modified(|known| {
                    let worth_it = known.metadata.generation != binding.metadata.generation
                        || known.metadata.deletion_timestamp != binding.metadata.deletion_timestamp
                        || known.metadata.finalizers != binding.metadata.finalizers;
                    *known = binding;
                    worth_it
                });
            }
            None => self.start(key, binding),
        }
    }

    fn start(&mut self, key: (String, String), binding: QueueBinding) {
        tracing::info!(namespace = key.0, binding = key.1, "binding is served");
        let alarm = self
            .context
            .wakers
            .of(&key.0, render::LabelValue::of(&key.1).as_str());
        let stop = CancellationToken::new();
        let serve = binding::Loop::new(self.context.clone(), &binding);
        let uid = binding.uid();
        let (sender, receiver) = watch::channel(Arc::new(binding));
        self.tasks.spawn(serve.run(receiver, alarm, stop.clone()));
        self.running.insert(
            key,
            Running {
                uid,
                bindings: sender,
                stop,
            },
        );
    }

    fn stop(&mut self, key: &(String, String)) {
        if let Some(running) = self.running.remove(key) {
            tracing::info!(
                namespace = key.0,
                binding = key.1,
                "binding is no longer served"
            );
            running.stop.cancel();
            self.context
                .wakers
                .forget(&key.0, render::LabelValue::of(&key.1).as_str());
        }
    }

    /// A loop that panicked is a fault of ours; it starts anew, the others never noticed.
    fn restart_after_panic(&mut self, ended: &Result<(), tokio::task::JoinError>) {
        let Err(error) = ended else { return };
        tracing::error!(%error, "the loop of a binding panicked, it is started again");
        let dead: Vec<_> = self
            .running
            .iter()
            .filter(|(_, running)| running.bindings.is_closed())
            .map(|(key, _)| key.clone())
            .collect();
        for key in dead {
            if let Some(running) = self.running.remove(&key) {
                let binding = running.bindings.borrow().as_ref().clone();
                self.start(key, binding);
            }
        }
    }
}

fn key(binding: &QueueBinding) -> (String, String) {
    (binding.namespace().unwrap_or_default(), binding.name_any())
}
