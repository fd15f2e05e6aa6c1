//! A pod that took more of its node's disk than it may: no fault of the node's, and the same on any other.
//!
//! The words are the kubelet's (`pkg/kubelet/eviction`), which has no reason of its own for them.

use k8s_openapi::api::core::v1::Pod;

use super::Diagnosis;
use crate::diagnose::facts::node;
use crate::diagnose::{Category, one_line, quoting};
use crate::pod::{CACHE_VOLUME, SPOOL_VOLUME};

/// Which limit it was.
#[derive(Debug, PartialEq, Eq)]
enum Limit<'m> {
    /// That of the `emptyDir` with this name.
    Volume(&'m str),
    Container,
    /// The sum of those that the containers have, for all of the pod.
    Pod,
}

impl<'m> Limit<'m> {
    fn of(message: &'m str) -> Option<Self> {
        if let Some((_, rest)) = message.split_once("Usage of EmptyDir volume \"") {
            let (name, rest) = rest.split_once('"')?;
            return rest
                .contains("exceeds the limit")
                .then_some(Self::Volume(name));
        }
        if message.contains("exceeded its local ephemeral storage limit") {
            return Some(Self::Container);
        }
        message
            .contains("ephemeral local storage usage exceeds the total limit of containers")
            .then_some(Self::Pod)
    }

    /// What happened, and what to do about it.
    fn told(&self) -> (&'static str, &'static str) {
        match self {
            Self::Volume(SPOOL_VOLUME) => (
                "more output of the task waits for the server than its pod may keep",
                "see why the server takes no log lines, or write less to stdout and stderr",
            ),
            Self::Volume(CACHE_VOLUME) => (
                "packages and environment grew beyond the limit of the pod's cache",
                "raise environment.cache.sizeLimit in the binding",
            ),
            Self::Volume(_) => (
                "a volume of the pod grew beyond its limit",
                "raise its sizeLimit in the template, or write less to it",
            ),
            Self::Container => (
                "a container wrote more to the node's disk than its limit",
                "raise resources.limits.ephemeral-storage in the template, or write less",
            ),
            Self::Pod => (
                "the pod took more of the node's disk than the limits of its containers allow together",
                "raise resources.limits.ephemeral-storage in the template: code and environment count, too",
            ),
        }
    }
}

/// The kubelet evicted the pod for a limit of its own.
pub(super) fn over_its_limit(pod: &Pod) -> Option<Diagnosis> {
    let status = pod.status.as_ref()?;
    if status.reason.as_deref() != Some("Evicted") {
        return None;
    }
    let message = one_line(status.message.as_deref()?);
    let (what, remedy) = Limit::of(&message)?.told();
    let on = node(pod)
        .map(|node| format!(" on node {node:?}"))
        .unwrap_or_default();
    let sentence = quoting(format!("{what}{on}"), &message);
    Some(Diagnosis::failed(Category::StorageLimit, sentence).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_words_are_understood() {
        for (message, expected) in [
            (
                "Usage of EmptyDir volume \"trainyard-spool\" exceeds the limit \"16Gi\". ",
                Some(Limit::Volume("trainyard-spool")),
            ),
            (
                "Container task exceeded its local ephemeral storage limit \"5Gi\". ",
                Some(Limit::Container),
            ),
            (
                "Pod ephemeral local storage usage exceeds the total limit of containers 22Gi. ",
                Some(Limit::Pod),
            ),
            ("The node was low on resource: ephemeral-storage. ", None),
            ("The node had condition: [DiskPressure]. ", None),
        ] {
            assert_eq!(Limit::of(message), expected, "{message}");
        }
    }
}
