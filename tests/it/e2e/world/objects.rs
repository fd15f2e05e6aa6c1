//! Reading objects of the cluster. Scenarios ask many times a second: a `kubectl` for each question would take most of the
//! machine, so the usual ones go to the API server by a connection that is kept.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::World;

/// Group and version of a kind that is often asked for, as they stand in a path, its plural, and whether it lies in
/// namespaces.
fn kind_of(name: &str) -> Option<(&'static str, &'static str, bool)> {
    Some(match name {
        "job" | "jobs" => ("apis/batch/v1", "jobs", true),
        "pod" | "pods" => ("api/v1", "pods", true),
        "event" | "events" => ("api/v1", "events", true),
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

    fn read(&self, path: &str) -> Value {
        self.runtime.block_on(async {
            let client = self.cluster().await;
            let request = http::Request::get(path)
                .body(Vec::new())
                .expect("a request is made");
            match client.request::<Value>(request).await {
                Ok(answer) => told(answer),
                Err(kube::Error::Api(status)) if status.code == 404 => Value::Null,
                Err(error) => panic!("GET {path}: {error}"),
            }
        })
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
