//! Which environments were made by tasks of a binding, and on which nodes: later tasks prefer those.
//!
//! Read from the Jobs that are kept, so that a process that starts anew knows most of it; what Jobs that are gone have
//! told is remembered. None of it decides on more than a preference.

use std::collections::HashMap;

use jiff::Timestamp;

use super::live::Live;
use super::observe::{self, Identity, Objects};
use super::row::JobRow;
use crate::crd::{Cache, QueueBindingSpec};
use crate::pod::annotation;
use crate::render::{EnvironmentKey, Template};
use crate::task::Task;

/// The most environments that are remembered; those that were used longest ago are forgotten first.
const MOST: usize = 1000;
/// The most nodes of one environment, the latest.
const NODES: usize = 8;

/// What is known of a binding's environments.
#[derive(Debug, Default)]
pub(super) struct Environments {
    /// Nodes of environments that are alike, each with when it was last used there.
    nodes: HashMap<String, Vec<(String, Timestamp)>>,
    /// Environments that were made somewhere.
    made: HashMap<String, Timestamp>,
}

impl Environments {
    /// Takes in what the Jobs of a binding tell.
    pub fn learn(&mut self, cache: &Cache, identity: &Identity, live: &Live) {
        if !cache.tells_environments_apart() {
            return;
        }
        for objects in live.objects.values() {
            for job in &objects.jobs {
                if let Some(key) = job.annotation(annotation::ENVIRONMENT)
                    && observe::is_ours(identity, job)
                    && let Some(node) = node_of(job, objects)
                {
                    self.note(key, Some(node), job.created.unwrap_or_default());
                }
            }
        }
    }

    /// The environment of this key was made, on that node if it is known.
    pub fn note(&mut self, key: &str, node: Option<&str>, at: Timestamp) {
        let Some((alike, exact)) = EnvironmentKey::parts(key) else {
            return;
        };
        if let Some(known) = self.made.get_mut(exact) {
            *known = at.max(*known);
        } else {
            make_room(&mut self.made, |at| *at);
            self.made.insert(exact.to_owned(), at);
        }
        let Some(node) = node else {
            return;
        };
        if let Some(nodes) = self.nodes.get_mut(alike) {
            add(nodes, node, at);
        } else {
            make_room(&mut self.nodes, |nodes| nodes[0].1);
            self.nodes
                .insert(alike.to_owned(), vec![(node.to_owned(), at)]);
        }
    }

    /// Whether the environment of this key was made somewhere.
    pub fn has(&self, key: &EnvironmentKey) -> bool {
        self.made.contains_key(&key.exact)
    }

    /// Nodes whose cache holds the environment of a task, those first that used it last.
    pub fn nodes_for(
        &self,
        template: &Template,
        spec: &QueueBindingSpec,
        task: &Task,
    ) -> Vec<String> {
        // A claim is the same on every node.
        if spec.environment.cache.host_path.is_none() {
            return Vec::new();
        }
        let key = EnvironmentKey::of(template, spec, task);
        key.map_or_else(Vec::new, |key| self.nodes_of(&key.alike))
    }

    /// Nodes of environments that are alike, those first that were used last.
    pub fn nodes_of(&self, alike: &str) -> Vec<String> {
        let nodes = self.nodes.get(alike).into_iter().flatten();
        nodes.map(|(node, _)| node.clone()).collect()
    }
}

/// Where the Job's pod is, or was.
fn node_of<'a>(job: &'a JobRow, objects: &'a Objects) -> Option<&'a str> {
    let pod = objects.pods.iter().find(|pod| pod.is_owned_by(&job.uid));
    job.annotation(annotation::NODE)
        .or_else(|| pod.and_then(|pod| pod.node()))
}

/// Notes a node, the latest first.
fn add(nodes: &mut Vec<(String, Timestamp)>, node: &str, at: Timestamp) {
    match nodes.iter_mut().find(|(known, _)| known == node) {
        Some((_, known)) if *known >= at => return,
        Some((_, known)) => *known = at,
        None => nodes.push((node.to_owned(), at)),
    }
    nodes.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
    nodes.truncate(NODES);
}

/// Forgets what was used longest ago, if there are as many as are remembered.
fn make_room<V>(known: &mut HashMap<String, V>, used: impl Fn(&V) -> Timestamp) {
    if known.len() < MOST {
        return;
    }
    let oldest = known.iter().min_by_key(|(_, value)| used(value));
    if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
        known.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::render::Source;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn spec() -> QueueBindingSpec {
        let cache = json!({"cache": {"hostPath": "/cache"}});
        serde_json::from_value(json!({"queues": [{"name": "gpu"}], "environment": cache})).unwrap()
    }

    fn task() -> Task {
        let id = "0123456789abcdef0123456789abcdef";
        let script = json!({"requirements": {"pip": "six\n"}});
        serde_json::from_value(json!({"id": id, "script": script})).unwrap()
    }

    #[test]
    fn nodes_that_used_an_environment_last_come_first_and_the_oldest_are_forgotten() {
        let spec = spec();
        let template = Template::check(Source::BuiltIn, None, &spec, Some("python:3.12")).unwrap();
        let key = EnvironmentKey::of(&template, &spec, &task()).unwrap();
        let mut known = Environments::default();
        assert!(!known.has(&key));
        assert!(known.nodes_for(&template, &spec, &task()).is_empty());
        known.note(&key.to_string(), Some("a"), at(10));
        known.note(&key.to_string(), Some("b"), at(20));
        // Another task with the same list, whose code is another.
        known.note(&format!("{}.other", key.alike), Some("c"), at(15));
        assert!(known.has(&key));
        assert_eq!(
            known.nodes_for(&template, &spec, &task()),
            ["b", "c", "a"],
            "the latest first"
        );
        known.note(&key.to_string(), Some("a"), at(5));
        assert_eq!(
            known.nodes_for(&template, &spec, &task()),
            ["b", "c", "a"],
            "an older Job that is seen again changes nothing"
        );
        for number in 0..20 {
            let node = format!("n{number}");
            known.note(&key.to_string(), Some(&node), at(30 + number));
        }
        let nodes = known.nodes_for(&template, &spec, &task());
        assert_eq!((nodes.len(), nodes[0].as_str()), (NODES, "n19"));
    }

    #[test]
    fn no_more_environments_are_remembered_than_there_is_room_for() {
        let mut known = Environments::default();
        for number in 0..MOST + 10 {
            let second = i64::try_from(number).unwrap();
            known.note(&format!("a{number}.e{number}"), Some("node"), at(second));
        }
        assert_eq!((known.nodes.len(), known.made.len()), (MOST, MOST));
        assert!(!known.nodes.contains_key("a0") && known.nodes.contains_key("a10"));
        known.note("no key", Some("node"), at(0));
        known.note("a.e", None, at(5000));
        assert_eq!((known.nodes.len(), known.made.len()), (MOST, MOST));
        assert!(known.made.contains_key("e") && !known.nodes.contains_key("a"));
    }
}
