//! Objects of the cluster: read, applied, deleted. Scenarios ask many times a second, and each makes a dozen objects: a
//! `kubectl` for each would take most of the machine, so the usual ones go to the API server by a connection that is kept.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::{World, wait};

/// Group and version of a kind that is often asked for, as they stand in a path, its plural, and whether it lies in
/// namespaces.
fn kind_of(name: &str) -> Option<(&'static str, &'static str, bool)> {
    Some(match name {
        "job" | "jobs" => ("apis/batch/v1", "jobs", true),
        "pod" | "pods" => ("api/v1", "pods", true),
        "event" | "events" => ("api/v1", "events", true),
        "events.events.k8s.io" => ("apis/events.k8s.io/v1", "events", true),
        "secret" => ("api/v1", "secrets", true),
        "configmap" => ("api/v1", "configmaps", true),
        "serviceaccount" => ("api/v1", "serviceaccounts", true),
        "resourcequota" => ("api/v1", "resourcequotas", true),
        "lease" | "leases" => ("apis/coordination.k8s.io/v1", "leases", true),
        "queuebinding" => ("apis/trainyard.dev/v1alpha1", "queuebindings", true),
        "node" | "nodes" => ("api/v1", "nodes", false),
        _ => return None,
    })
}

/// The path that `kubectl get` with these arguments asks for, if it is one of the usual ones.
fn path(namespace: &str, args: &[&str]) -> Option<String> {
    let (group, plural, namespaced) = kind_of(args.first()?)?;
    let place = if namespaced {
        format!("/{group}/namespaces/{namespace}/{plural}")
    } else {
        format!("/{group}/{plural}")
    };
    match args[1..] {
        [] => Some(place),
        [name] if !name.starts_with('-') => Some(format!("{place}/{name}")),
        ["-l", label] => {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("labelSelector", label)
                .finish();
            Some(format!("{place}?{query}"))
        }
        _ => None,
    }
}

/// The paths of several kinds at once, as in `kubectl get jobs,pods`.
fn paths(namespace: &str, args: &[&str]) -> Option<Vec<String>> {
    let (kinds, rest) = args.split_first()?;
    let of_kind = |kind| path(namespace, &[&[kind], rest].concat());
    kinds.split(',').map(of_kind).collect()
}

/// A list as kubectl prints it: each item says what it is.
fn told(mut answer: Value) -> Value {
    let kind = answer["kind"]
        .as_str()
        .and_then(|kind| kind.strip_suffix("List"));
    let Some(kind) = kind.map(str::to_owned) else {
        return answer;
    };
    let version = answer["apiVersion"].clone();
    for item in answer["items"].as_array_mut().into_iter().flatten() {
        item["kind"] = json!(kind);
        item["apiVersion"] = version.clone();
    }
    answer
}

impl World {
    /// What `kubectl get -o json` gives; `Null` where there is no such object.
    pub fn get(&self, args: &[&str]) -> Value {
        if let Some(path) = path(&self.namespace, args) {
            return self.read(&path);
        }
        if let Some(all) = self.list(args) {
            return all;
        }
        let mut all = vec!["get", "-o", "json", "--ignore-not-found"];
        all.extend(args);
        serde_json::from_str(&self.kubectl(&all)).unwrap_or(Value::Null)
    }

    /// Objects of several kinds in one list, if all are usual ones.
    fn list(&self, args: &[&str]) -> Option<Value> {
        let paths = paths(&self.namespace, args)?;
        let mut items = Vec::new();
        for path in paths {
            if let Value::Array(more) = self.read(&path)["items"].take() {
                items.extend(more);
            }
        }
        Some(json!({"kind": "List", "items": items}))
    }

    /// How many objects of this kind there are; of the objects themselves little is sent.
    pub fn count(&self, kind: &str, fields: &str) -> usize {
        let path = path(&self.namespace, &[kind]).expect("a usual kind");
        let request = Request::get(format!("{path}?fieldSelector={fields}"))
            .header(
                "accept",
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            )
            .body(Vec::new())
            .expect("a request is made");
        let answer: Value = self
            .runtime
            .block_on(async { self.cluster().await.request(request).await })
            .unwrap_or_else(|error| panic!("GET {path}: {error}"));
        answer["items"].as_array().map_or(0, Vec::len)
    }

    fn read(&self, path: &str) -> Value {
        match self.send(Method::GET, path, "", &Value::Null) {
            Ok(answer) => told(answer),
            Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// One request to the API server.
    fn send(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: &Value,
    ) -> Result<Value, kube::Error> {
        let mut request = Request::builder().method(method).uri(path);
        let mut bytes = Vec::new();
        if !body.is_null() {
            request = request.header("content-type", content);
            bytes = body.to_string().into_bytes();
        }
        let request = request.body(bytes).expect("a request is made");
        self.runtime
            .block_on(async { self.cluster().await.request(request).await })
    }

    /// What `kubectl apply` does; fields that are not known are refused as it refuses them.
    pub fn apply(&self, object: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let own = object["metadata"]["namespace"].is_null();
        let place = kind_of(&kind.to_lowercase()).filter(|(.., namespaced)| *namespaced && own);
        let Some((group, plural, _)) = place else {
            let mut applied = self.try_apply(object);
            // Another scenario may make the same object of the cluster between kubectl's look and its own attempt.
            if matches!(&applied, Err(error) if error.contains("AlreadyExists")) {
                applied = self.try_apply(object);
            }
            applied.unwrap_or_else(|error| panic!("kubectl apply: {error}"));
            return;
        };
        let path = format!(
            "/{group}/namespaces/{}/{plural}/{name}?fieldManager=scenario&force=true&fieldValidation=Strict",
            self.namespace
        );
        self.send(Method::PATCH, &path, "application/apply-patch+yaml", object)
            .unwrap_or_else(|error| panic!("{kind} {name} is not applied: {error}"));
    }

    /// POSTs an object to a path of the API server.
    pub fn post(&self, path: &str, object: &Value) -> Value {
        self.send(Method::POST, path, "application/json", object)
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Deletes an object of this namespace, and does not wait until it is gone.
    pub fn delete(&self, kind: &str, name: &str) {
        let path = path(&self.namespace, &[kind, name]).expect("a usual kind");
        self.send(Method::DELETE, &path, "", &Value::Null)
            .unwrap_or_else(|error| panic!("DELETE {path}: {error}"));
    }

    /// The definition of bindings, the namespace, a Secret and a service account, as helm leaves them.
    pub(super) fn settle_in(&self) {
        self.define();
        self.post(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}),
        );
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "clearml-credentials"},
            "stringData": {"access_key": self.key, "secret_key": self.secret},
        }));
        self.apply(&json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainyard-task"},
            "automountServiceAccountToken": false,
        }));
    }

    /// The definition is there before the first binding; a fresh cluster has none. Once for each cluster is enough.
    fn define(&self) {
        static DEFINED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
        let mut defined = DEFINED.lock().unwrap_or_else(PoisonError::into_inner);
        let defined = defined.get_or_insert_default();
        if defined.contains(&self.place.kubeconfig) {
            return;
        }
        let definition = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/queuebindings.yaml");
        self.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            definition,
        ]);
        // A fresh one has no conditions at first, which `kubectl wait` takes for an error.
        wait("the definition is established", 60, || {
            let definition = self.get(&["crd", "queuebindings.trainyard.dev"]);
            let conditions = definition["status"]["conditions"].as_array()?;
            let established = |one: &Value| one["type"] == "Established" && one["status"] == "True";
            conditions.iter().any(established).then_some(())
        });
        defined.insert(self.place.kubeconfig.clone());
    }

    /// Ends all of this namespace by force: nobody is there any more to carry out finalizers. It may be the way out of a
    /// scenario that failed, so what does not succeed is left.
    pub(super) fn clear(&self) {
        let bindings = path(&self.namespace, &["queuebinding"]).expect("a usual kind");
        let ask = |method, path: &str, body: &Value| {
            let content = "application/merge-patch+json";
            self.send(method, path, content, body)
        };
        let left = ask(Method::GET, &bindings, &Value::Null).unwrap_or_default();
        for binding in left["items"].as_array().into_iter().flatten() {
            let name = binding["metadata"]["name"].as_str().unwrap_or_default();
            let freed = json!({"metadata": {"finalizers": null}});
            let _ = ask(Method::PATCH, &format!("{bindings}/{name}"), &freed);
        }
        let _ = ask(Method::DELETE, &bindings, &Value::Null);
        for kind in ["jobs", "pods"] {
            let path = path(&self.namespace, &[kind]).expect("a usual kind");
            let at_once = format!("{path}?gracePeriodSeconds=0&propagationPolicy=Background");
            let _ = ask(Method::DELETE, &at_once, &Value::Null);
        }
        let namespace = format!("/api/v1/namespaces/{}", self.namespace);
        let _ = ask(Method::DELETE, &namespace, &Value::Null);
    }

    async fn cluster(&self) -> Client {
        let made = self.cluster.get_or_init(|| async {
            let kubeconfig = Kubeconfig::read_from(&self.place.kubeconfig).expect("kubeconfig");
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            Client::try_from(config.expect("configuration")).expect("client")
        });
        made.await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_questions_have_their_path_and_others_are_left_to_kubectl() {
        let path = |args: &[&str]| path("ns", args);
        let jobs = "/apis/batch/v1/namespaces/ns/jobs";
        assert_eq!(path(&["jobs"]).as_deref(), Some(jobs));
        assert_eq!(path(&["job", "j"]), Some(format!("{jobs}/j")));
        assert_eq!(
            path(&["jobs", "-l", "a=b,c!=d"]),
            Some(format!("{jobs}?labelSelector=a%3Db%2Cc%21%3Dd"))
        );
        assert_eq!(path(&["nodes"]).as_deref(), Some("/api/v1/nodes"));
        for other in [&["jobs,pods"][..], &["pods", "-A"], &["crd", "x"]] {
            assert_eq!(path(other), None, "{other:?}");
        }
        let pods = "/api/v1/namespaces/ns/pods".to_owned();
        let both = paths("ns", &["jobs,pods"]);
        assert_eq!(both, Some(vec![jobs.to_owned(), pods]));
        assert_eq!(paths("ns", &["jobs,crd"]), None);
    }

    #[test]
    fn each_item_of_a_list_says_what_it_is() {
        let list =
            told(json!({"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {}}]}));
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}});
        assert_eq!(list["items"][0], pod);
    }
}
