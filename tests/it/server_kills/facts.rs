//! What has to be read back after a write: what stands at a place in an answer of the server.

use std::collections::BTreeMap;
use std::fmt::Debug;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::server_world::Client;

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Who {
    Administrator,
    Keys(String, String),
    Token(String),
}

impl Who {
    pub fn asks(&self, client: &Client, call: &str) -> RequestBuilder {
        let request = client.http.post(format!("{}/{call}", client.url));
        match self {
            Self::Administrator => client.request(Method::POST, call),
            Self::Keys(key, secret) => request.basic_auth(key, Some(secret)),
            Self::Token(token) => request.bearer_auth(token),
        }
    }
}

/// A question to the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    Call(Who, &'static str, Value),
    /// The contents of a file.
    File(String),
}

impl Ask {
    pub fn call(call: &'static str, body: Value) -> Self {
        Self::Call(Who::Administrator, call, body)
    }

    /// Whom the server takes somebody for.
    pub fn user(who: Who) -> Self {
        Self::Call(who, "users.get_current_user", json!({}))
    }

    pub fn task(id: &str) -> Self {
        Self::call("tasks.get_by_id", json!({"task": id}))
    }

    pub fn model(id: &str) -> Self {
        Self::call("models.get_by_id", json!({"model": id}))
    }

    pub fn queue(id: &str) -> Self {
        Self::call("queues.get_by_id", json!({"queue": id}))
    }

    pub fn project(id: &str) -> Self {
        Self::call("projects.get_by_id", json!({"project": id}))
    }

    /// The list of what has this name.
    pub fn named(list: &'static str, name: &str) -> Self {
        Self::call(list, json!({"name": format!("^{name}$")}))
    }

    /// The log of a task, oldest line first.
    pub fn log(task: &str) -> Self {
        let ask = json!({"task": task, "navigate_earlier": false});
        Self::call("events.get_task_log", ask)
    }

    /// `data` of the answer, or the file; null where it is refused, nothing if the server is gone.
    async fn answer(&self, client: &Client) -> Option<Value> {
        let request = match self {
            Self::Call(who, call, body) => who.asks(client, call).json(body),
            Self::File(path) => client.request(Method::GET, &format!("files/{path}")),
        };
        let (status, body) = answered(request).await?;
        let text = String::from_utf8_lossy(&body);
        Some(match (status, self) {
            (200, Self::File(_)) => text.into(),
            (200, Self::Call(..)) => data(&body),
            (400 | 401 | 404, _) => Value::Null,
            _ => panic!("{self:?}: {status}, {text}"),
        })
    }
}

/// Status and body of an answer; nothing if none came whole.
pub async fn answered(request: RequestBuilder) -> Option<(u16, Vec<u8>)> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.bytes().await.ok()?.to_vec()))
}

/// `data` of a call's answer.
pub fn data(body: &[u8]) -> Value {
    let mut answer: Value = serde_json::from_slice(body).unwrap_or_default();
    answer.get_mut("data").map(Value::take).unwrap_or_default()
}

/// What stands at a place in an answer: members by their names, `name=value` the first of a list whose member that is,
/// `*name` that member of each. Without a place it is all of the answer.
fn at(answer: &Value, place: &str) -> Value {
    let parts = place.split('/').filter(|part| !part.is_empty());
    parts.fold(answer.clone(), |here, part| {
        if let Some(name) = part.strip_prefix('*') {
            return here.as_array().map_or(Value::Null, |items| {
                items.iter().map(|item| item[name].clone()).collect()
            });
        }
        let found = match part.split_once('=') {
            Some((name, value)) => here
                .as_array()
                .and_then(|items| items.iter().find(|item| item[name] == value)),
            None => here.get(part),
        };
        found.cloned().unwrap_or_default()
    })
}

/// What has to stand at a place.
#[derive(Debug, Clone)]
pub enum Want {
    Is(Value),
    Not(Value),
}

impl Want {
    pub fn holds(&self, found: &Value) -> bool {
        match self {
            Self::Is(value) => value == found,
            Self::Not(value) => value != found,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Fact {
    pub ask: Ask,
    pub place: String,
    pub want: Want,
}

pub fn is(ask: &Ask, place: &str, value: impl Into<Value>) -> Fact {
    Fact {
        ask: ask.clone(),
        place: place.to_owned(),
        want: Want::Is(value.into()),
    }
}

pub fn is_not(ask: &Ask, place: &str, value: impl Into<Value>) -> Fact {
    Fact {
        want: Want::Not(value.into()),
        ..is(ask, place, Value::Null)
    }
}

/// There is no such thing, or no more.
pub fn is_gone(ask: &Ask) -> Fact {
    is(ask, "", Value::Null)
}

/// What stands at the places of the facts now; nothing if the server is gone.
pub async fn found(client: &Client, facts: Vec<&Fact>) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    let mut last: Option<(&Ask, Value)> = None;
    for fact in facts {
        let known = last.take().filter(|(ask, _)| **ask == fact.ask);
        let answer = match known {
            Some((_, answer)) => answer,
            None => fact.ask.answer(client).await?,
        };
        values.push(at(&answer, &fact.place));
        last = Some((&fact.ask, answer));
    }
    Some(values)
}

/// The beginning of what may be long.
pub fn brief(value: &impl Debug) -> String {
    format!("{value:?}").chars().take(300).collect()
}

/// What the server has to hold: the newest fact of each place, those of one question together.
#[derive(Default)]
pub struct Facts(BTreeMap<(String, String), Fact>);

impl Facts {
    pub fn hold(&mut self, fact: Fact) {
        let ask = format!("{:?}", fact.ask);
        if fact.place.is_empty() {
            self.0.retain(|(known, _), _| *known != ask);
        }
        self.0.insert((ask, fact.place.clone()), fact);
    }

    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Those that do not hold, with what stands there instead.
    pub async fn unmet(&self, client: &Client) -> Vec<String> {
        let found = found(client, self.0.values().collect()).await;
        let found = found.expect("the server answers");
        let facts = self.0.values().zip(&found);
        facts
            .filter(|(fact, value)| !fact.want.holds(value))
            .map(|(fact, value)| {
                let (ask, want) = (brief(&fact.ask), brief(&fact.want));
                format!("{ask} {}: {}, not {want}", fact.place, brief(value))
            })
            .collect()
    }
}
