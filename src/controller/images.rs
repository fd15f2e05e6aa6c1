//! The image check of a binding: which registry is asked with which credentials, and what its answer means for a task.
//! What an image runs by itself is asked in the same way (`command`).
//!
//! A lookup runs in the background. For half a second the queue waits for it, so that nobody overtakes; after that
//! others go, and a lookup that takes longer than its own limit ends as "not known", which holds up nobody. The images
//! of the next few are looked up meanwhile: several slow registries hold the queue up no longer than one.

mod command;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Secret, ServiceAccount};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cluster::{call, find};
use super::fault;
use super::scene::Scene;
use crate::config::RegistrySettings;
use crate::crd::ImageCheck;
use crate::image::{
    Answer, Answers, Command, Finding, Keyring, PATIENCE, Platform, Reference, Registry,
};
use crate::render::{LabelValue, Rendered};

pub(super) use command::{Asked, own_command, runs, without_command};

/// What nodes there are is asked no more often.
const NODES: Duration = Duration::from_mins(1);
/// Pull secrets that are read for one pod, and nodes that are read.
const MOST_SECRETS: usize = 8;
const MOST_NODES: u32 = 500;

/// What the image of a task means for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It may go; with something to tell in its log.
    Go(Option<String>),
    Refused(String),
    /// Not known yet: its queue waits a moment.
    NotYet,
    /// Not known for longer than that: the others go.
    Late,
}

/// Why a task is failed before a pod is made for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub why: String,
    /// The field of the binding by which that is a reason.
    pub by: &'static str,
}

/// What registries have said. Cheap to clone.
#[derive(Clone)]
pub(super) struct Images {
    answers: Answers,
    /// What images run by themselves.
    commands: Answers<Command>,
    asker: Arc<Asker>,
}

/// All that a lookup needs.
struct Asker {
    kube: Client,
    ca: Option<String>,
    plain: Vec<String>,
    registry: OnceLock<Result<Registry, String>>,
    platforms: Mutex<Option<(Instant, Option<Vec<Platform>>)>>,
}

impl Images {
    pub fn new(kube: Client, settings: &RegistrySettings) -> Self {
        let RegistrySettings { ca, plain_http } = settings;
        Self::of(
            kube,
            ca.as_ref().map(|ca| ca.value.clone()),
            plain_http.value.clone(),
        )
    }

    #[cfg(test)]
    pub fn with_defaults(kube: Client) -> Self {
        Self::of(kube, None, Vec::new())
    }

    fn of(kube: Client, ca: Option<String>, plain: Vec<String>) -> Self {
        Self {
            answers: Answers::default(),
            commands: Answers::default(),
            asker: Arc::new(Asker {
                kube,
                ca,
                plain,
                registry: OnceLock::new(),
                platforms: Mutex::new(None),
            }),
        }
    }

    /// What is known of the image of this pod; `told` is notified when more is.
    fn answer(&self, namespace: &str, pod: &Value, image: &str, told: &Arc<Notify>) -> Answer {
        let puller = Puller::of(namespace, pod, image);
        self.answers.ask(&puller.question(), told, || {
            let asker = self.asker.clone();
            async move { asker.look(puller).await }
        })
    }
}

/// As whom an image is pulled.
struct Puller {
    namespace: String,
    account: String,
    secrets: Vec<String>,
    image: String,
}

impl Puller {
    fn of(namespace: &str, pod: &Value, image: &str) -> Self {
        let account = pod["serviceAccountName"].as_str().unwrap_or_default();
        Self {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            secrets: names(&pod["imagePullSecrets"]),
            image: image.to_owned(),
        }
    }

    /// Equal for those who get the same answer.
    fn question(&self) -> String {
        let Self {
            namespace,
            account,
            secrets,
            image,
        } = self;
        format!("{namespace}\n{account}\n{}\n{image}", secrets.join(","))
    }
}

/// All that a registry is asked with.
struct Question {
    registry: Registry,
    reference: Reference,
    keys: Keyring,
    platforms: Option<Vec<Platform>>,
}

/// What the image check says of a task with this Job.
pub(super) fn judge(scene: &Scene<'_>, job: &Rendered) -> Judged {
    let check = scene.binding.spec.image_check.unwrap_or(ImageCheck::Off);
    if check == ImageCheck::Off {
        return Judged::Go(None);
    }
    if let (ImageCheck::Enforce, Some(refusal)) = (check, &job.image_refused) {
        return Judged::Refused(refusal.clone());
    }
    let pod = &job.job["spec"]["template"]["spec"];
    let never = pod["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|container| {
            container["image"] == *job.image && container["imagePullPolicy"] == "Never"
        });
    if never {
        // It has to be on the node already; no registry knows about that.
        return Judged::Go(None);
    }
    let (namespace, told) = waker(scene);
    means(
        check,
        scene
            .context
            .images
            .answer(&namespace, pod, &job.image, &told),
    )
}

/// Begins the lookup of the image of a task whose turn has not come, if its image is to be checked and only a few are
/// looked up.
pub(super) fn look_ahead(scene: &Scene<'_>, job: &Rendered) {
    if scene.context.images.answers.has_room_ahead() {
        let _asked: Judged = judge(scene, job);
    }
}

/// The binding's namespace, and who is told when more is known.
fn waker(scene: &Scene<'_>) -> (String, Arc<Notify>) {
    let namespace = scene.binding.namespace().unwrap_or_default();
    let name = scene.binding.name_any();
    let wakers = &scene.context.wakers;
    let told = wakers.of(&namespace, LabelValue::of(&name).as_str());
    (namespace, told)
}

fn means(check: ImageCheck, answer: Answer) -> Judged {
    match answer {
        Answer::Known(Finding::There(())) => Judged::Go(None),
        Answer::Known(Finding::Refused(why)) if check == ImageCheck::Enforce => {
            Judged::Refused(why)
        }
        Answer::Known(Finding::Refused(why)) => {
            Judged::Go(Some(format!("{why} (imageCheck: Warn)")))
        }
        Answer::Known(Finding::Unknown(why)) => {
            Judged::Go(Some(format!("the image was not checked beforehand: {why}")))
        }
        Answer::Pending(asked) if asked < PATIENCE => Judged::NotYet,
        Answer::Pending(_) => Judged::Late,
    }
}

/// The names of a list of references.
fn names(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item["name"].as_str().map(str::to_owned))
        .collect()
}

impl Asker {
    async fn look(&self, puller: Puller) -> Finding {
        match self.question(puller).await {
            Ok(question) => {
                let platforms = question.platforms.as_deref();
                let registry = &question.registry;
                let found = registry
                    .look(&question.reference, &question.keys, platforms)
                    .await;
                fault::point!("image/looked");
                found
            }
            Err(finding) => finding,
        }
    }

    /// What a registry is asked with; else why none can be.
    async fn question<T>(&self, puller: Puller) -> Result<Question, Finding<T>> {
        let Puller {
            namespace,
            account,
            mut secrets,
            image,
        } = puller;
        let reference =
            Reference::parse(&image).map_err(|error| Finding::Refused(error.to_string()))?;
        let registry = self.registry().map_err(Finding::Unknown)?;
        if secrets.is_empty() {
            // As the admission of pods does: the account's secrets are for pods that name none.
            secrets = self.secrets_of(&namespace, &account).await;
        }
        Ok(Question {
            registry,
            reference,
            keys: self.keyring(&namespace, &secrets).await,
            platforms: self.platforms().await,
        })
    }

    fn registry(&self) -> Result<Registry, String> {
        let made = self.registry.get_or_init(|| {
            let ca = match &self.ca {
                None => None,
                Some(path) => Some(std::fs::read(path).map_err(|error| {
                    format!("the CA bundle for registries {path:?} could not be read: {error}")
                })?),
            };
            Registry::new(ca.as_deref(), self.plain.clone()).map_err(|error| error.to_string())
        });
        made.clone()
    }

    async fn secrets_of(&self, namespace: &str, account: &str) -> Vec<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.kube.clone(), namespace);
        let found = find(api.get_opt(account)).await;
        fault::point!("image/account-read");
        match found {
            Ok(found) => found
                .and_then(|account| account.image_pull_secrets)
                .unwrap_or_default()
                .into_iter()
                .map(|reference| reference.name)
                .collect(),
            Err(error) => {
                tracing::debug!(namespace, account, %error, "pull secrets of the service account were not read");
                Vec::new()
            }
        }
    }

    async fn keyring(&self, namespace: &str, secrets: &[String]) -> Keyring {
        let api: Api<Secret> = Api::namespaced(self.kube.clone(), namespace);
        let mut ring = Keyring::default();
        for name in secrets.iter().take(MOST_SECRETS) {
            // The kubelet too goes on without a secret that is not there.
            let found = find(api.get_opt(name)).await;
            fault::point!("image/secret-read");
            let data = match found {
                Ok(found) => found.and_then(|secret| secret.data).unwrap_or_default(),
                Err(error) => {
                    tracing::debug!(namespace, secret = name, %error, "pull secret was not read");
                    continue;
                }
            };
            if let Some(config) = data.get(".dockerconfigjson") {
                ring.add_config(&config.0);
            }
            if let Some(config) = data.get(".dockercfg") {
                ring.add_old_config(&config.0);
            }
        }
        ring
    }

    /// What the nodes run; nothing if they may not be listed, and then any platform will do.
    async fn platforms(&self) -> Option<Vec<Platform>> {
        let known = || {
            self.platforms
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if let Some((asked, platforms)) = known().as_ref()
            && asked.elapsed() < NODES
        {
            return platforms.clone();
        }
        let api: Api<Node> = Api::all(self.kube.clone());
        let nodes = call(api.list(&ListParams::default().limit(MOST_NODES))).await;
        fault::point!("image/nodes-listed");
        let platforms = match nodes {
            Ok(nodes) => {
                let mut platforms: Vec<Platform> = nodes
                    .items
                    .into_iter()
                    .filter_map(|node| node.status?.node_info)
                    .map(|info| Platform {
                        os: info.operating_system,
                        architecture: info.architecture,
                    })
                    .filter(|platform| !platform.architecture.is_empty())
                    .collect();
                platforms.sort();
                platforms.dedup();
                Some(platforms).filter(|platforms| !platforms.is_empty())
            }
            Err(error) => {
                tracing::debug!(%error, "nodes were not listed, images are not compared with their platforms");
                None
            }
        };
        *known() = Some((Instant::now(), platforms.clone()));
        platforms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enforce_refuses_and_no_answer_holds_nobody_up_for_long() {
        let gone = || Answer::Known(Finding::Refused("image x does not exist".into()));
        assert_eq!(
            means(ImageCheck::Enforce, gone()),
            Judged::Refused("image x does not exist".into())
        );
        assert_eq!(
            means(ImageCheck::Warn, gone()),
            Judged::Go(Some("image x does not exist (imageCheck: Warn)".into()))
        );
        let down = || Answer::Known(Finding::Unknown("it is down".into()));
        for check in [ImageCheck::Warn, ImageCheck::Enforce] {
            assert_eq!(
                means(check, down()),
                Judged::Go(Some(
                    "the image was not checked beforehand: it is down".into()
                ))
            );
            assert_eq!(
                means(check, Answer::Pending(Duration::ZERO)),
                Judged::NotYet
            );
            assert_eq!(means(check, Answer::Pending(PATIENCE)), Judged::Late);
        }
    }
}
