//! What rows rest on beside their bindings: objects of the namespace and of the whole cluster, a registry, a repository.
//! Rows speak of them by words in capitals, which are filled in.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::registry;
use super::rows::KUEUE;
use crate::e2e::experiment::{Repository, serve_repository};
use crate::e2e::s34_kueue::{install_kinds, local_queue};
use crate::e2e::world::{World, wait};
use crate::nvml;
use crate::silent;

/// Kinds of the objects that are the whole cluster's; they bear the namespace's name and go with the value.
const OF_THE_CLUSTER: [&str; 3] = [
    "validatingadmissionpolicybinding",
    "validatingadmissionpolicy",
    "runtimeclass",
];

pub(super) struct Props<'w> {
    world: &'w World,
    words: [(&'static str, String); 8],
    _repository: Repository,
    _driver: Arc<TempDir>,
}

impl<'w> Props<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        let repository = serve_repository(world, &[("train.py", "print('committed')\n")]);
        let nodes = world.get(&["nodes", "-l", "type!=kwok"]);
        let node = nodes["items"][0]["metadata"]["name"]
            .as_str()
            .expect("a real node");
        let driver = nvml::double();
        let words = [
            ("DRIVER", driver.path().display().to_string()),
            ("REGISTRY", world.place.registry.clone()),
            ("REFUSING", registry::start()),
            ("SILENT", silent::start(&world.place.gateway)),
            ("REPOSITORY", repository.url.clone()),
            ("COMMIT", repository.commit.clone()),
            ("NODE", node.to_owned()),
            ("WORLD", world.namespace.clone()),
        ];
        let props = Self {
            world,
            words,
            _repository: repository,
            _driver: driver,
        };
        props.make();
        props
    }

    /// The value with what its words in capitals stand for.
    pub(super) fn fill(&self, value: &Value) -> Value {
        let mut text = value.to_string();
        for (word, meaning) in &self.words {
            text = text.replace(word, meaning);
        }
        serde_json::from_str(&text).expect("what words stand for needs no quoting")
    }

    fn make(&self) {
        install_kinds(self.world);
        local_queue(self.world, KUEUE);
        for object in [
            // No room for a dragon, and room for all else.
            json!({
                "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-dragons"},
                "spec": {"hard": {"requests.example.com/dragon": "0"}},
            }),
            // The node knows no such runtime.
            json!({
                "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "WORLD"},
                "handler": "nothing",
            }),
            // Refuses pods of Jobs alone: what the dry run of a bare pod cannot see.
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": "WORLD"},
                "spec": {
                    "matchConstraints": {"resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
                    ]},
                    "validations": [{
                        "expression": "!has(object.metadata.ownerReferences) || !has(object.spec.hostname) \
                            || object.spec.hostname != 'refused'",
                        "message": "no such pods here",
                    }],
                },
            }),
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": "WORLD"},
                "spec": {
                    "policyName": "WORLD", "validationActions": ["Deny"],
                    "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "WORLD"}}},
                },
            }),
        ] {
            self.world.apply(&self.fill(&object));
        }
        // It holds once the API server has compiled it.
        let owned = json!({
            "apiVersion": "v1", "spec": {"hostname": "refused"},
            "metadata": {"ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "0"},
            ]},
        });
        let like = format!("--overrides={owned}");
        let probe = [
            "run",
            "probe",
            "--image=none",
            "--dry-run=server",
            like.as_str(),
        ];
        wait("the policy holds", 60, || {
            let refused = self.world.try_kubectl(&probe).err()?;
            refused.contains("no such pods here").then_some(())
        });
    }
}

impl Drop for Props<'_> {
    fn drop(&mut self) {
        for kind in OF_THE_CLUSTER {
            let name = self.world.namespace.as_str();
            let gone = ["delete", kind, name, "--ignore-not-found", "--wait=false"];
            let _ = self.world.try_kubectl(&gone);
        }
    }
}
