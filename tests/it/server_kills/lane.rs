//! A client that tells a story: one write after another, each with what has to be read back once it is acknowledged.

use std::sync::Arc;

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::facts::{Ask, Fact, Facts, Want, Who, answered, brief, data, found, is};
use crate::server_world::Client;

/// A write whose answer has not come.
pub struct Write {
    pub kind: &'static str,
    facts: Vec<Fact>,
    /// What stood at their places before.
    before: Vec<Value>,
    /// Each fact for itself: the request is several writes.
    apart: bool,
}

impl Write {
    fn of(kind: &'static str, facts: Vec<Fact>) -> Self {
        Self {
            kind,
            facts,
            before: Vec::new(),
            apart: false,
        }
    }

    /// Whether it was carried out decides what holds from now on: all of its facts, or what was there before.
    pub async fn settle(self, client: &Client) -> Vec<Fact> {
        let Self {
            kind,
            facts,
            before,
            apart,
        } = self;
        let now = found(client, facts.iter().collect()).await;
        let now = now.expect("the server answers");
        let done: Vec<bool> = facts
            .iter()
            .zip(&now)
            .map(|(fact, now)| fact.want.holds(now))
            .collect();
        let whole = done.iter().all(|done| *done);
        let each = (0..facts.len()).all(|i| done[i] || now[i] == before[i]);
        assert!(
            whole || now == before || (apart && each),
            "{kind} was carried out in part: {}, before {}, wanted {}",
            brief(&now),
            brief(&before),
            brief(&facts.iter().map(|fact| &fact.want).collect::<Vec<_>>())
        );
        let settled = facts.into_iter().zip(now).zip(done);
        settled
            .map(|((fact, now), done)| {
                if whole || (apart && done) {
                    fact
                } else {
                    Fact {
                        want: Want::Is(now),
                        ..fact
                    }
                }
            })
            .collect()
    }
}

pub struct Lane {
    pub client: Client,
    /// What its names end with, so that they are nobody else's.
    suffix: String,
    names: usize,
    /// At this write it waits for the others, so that all are under way when the server is killed. Without one it tells
    /// its story to the end and looks after each write whether all that it holds is there.
    target: Option<usize>,
    gate: Arc<Barrier>,
    /// It has passed the gate: the server may be gone.
    pub at_risk: bool,
    /// Writes that were begun.
    pub writes: usize,
    pub facts: Facts,
    pub under_way: Option<Write>,
    pub acknowledged: Vec<&'static str>,
}

impl Lane {
    pub fn new(client: Client, suffix: String, target: Option<usize>, gate: Arc<Barrier>) -> Self {
        Self {
            client,
            suffix,
            names: 0,
            target,
            gate,
            at_risk: false,
            writes: 0,
            facts: Facts::default(),
            under_way: None,
            acknowledged: Vec::new(),
        }
    }

    /// A name that nothing else has.
    pub fn name(&mut self, kind: &str) -> String {
        self.names += 1;
        format!("{kind}-{}{}", self.suffix, self.names)
    }

    /// The next write of the story: `data` of its answer, nothing once the server is gone.
    pub async fn write(
        &mut self,
        call: &'static str,
        body: Value,
        facts: Vec<Fact>,
    ) -> Option<Value> {
        self.write_as(&Who::Administrator, call, body, facts).await
    }

    pub async fn write_as(
        &mut self,
        who: &Who,
        call: &'static str,
        body: Value,
        facts: Vec<Fact>,
    ) -> Option<Value> {
        let request = who.asks(&self.client, call).json(&body);
        self.send(call, request, facts).await
    }

    /// The same by any request.
    pub async fn send(
        &mut self,
        kind: &'static str,
        request: RequestBuilder,
        facts: Vec<Fact>,
    ) -> Option<Value> {
        self.turn(request, Write::of(kind, facts)).await
    }

    /// The same of a request that is several writes: each of the facts holds for itself.
    pub async fn send_several(
        &mut self,
        kind: &'static str,
        request: RequestBuilder,
        facts: Vec<Fact>,
    ) -> Option<Value> {
        let write = Write {
            apart: true,
            ..Write::of(kind, facts)
        };
        self.turn(request, write).await
    }

    /// What the story needs beside its own writes.
    pub async fn also(
        &mut self,
        call: &'static str,
        body: Value,
        facts: Vec<Fact>,
    ) -> Option<Value> {
        self.also_as(&Who::Administrator, call, body, facts).await
    }

    pub async fn also_as(
        &mut self,
        who: &Who,
        call: &'static str,
        body: Value,
        facts: Vec<Fact>,
    ) -> Option<Value> {
        let request = who.asks(&self.client, call).json(&body);
        self.also_send(call, request, facts).await
    }

    pub async fn also_send(
        &mut self,
        kind: &'static str,
        request: RequestBuilder,
        facts: Vec<Fact>,
    ) -> Option<Value> {
        self.carry_out(request, Write::of(kind, facts), false).await
    }

    /// The id of something that the story needs.
    pub async fn made(&mut self, call: &'static str, body: Value) -> Option<String> {
        self.also(call, body, Vec::new())
            .await
            .map(|made| id(&made))
    }

    pub async fn task(&mut self) -> Option<String> {
        let name = self.name("task");
        let new = json!({"name": name, "type": "training"});
        self.made("tasks.create", new).await
    }

    pub async fn queue(&mut self) -> Option<String> {
        let name = self.name("queue");
        self.made("queues.create", json!({"name": name})).await
    }

    pub async fn model(&mut self) -> Option<String> {
        let name = self.name("model");
        let new = json!({"name": name, "uri": "s3://bucket/model"});
        self.made("models.create", new).await
    }

    /// What stands at a place now.
    pub async fn read(&self, ask: &Ask, place: &str) -> Option<Value> {
        let fact = is(ask, place, Value::Null);
        let read = found(&self.client, vec![&fact]).await;
        self.or_killed(place, read)?.pop()
    }

    async fn turn(&mut self, request: RequestBuilder, write: Write) -> Option<Value> {
        let is_target = self.target == Some(self.writes);
        self.writes += 1;
        self.carry_out(request, write, is_target).await
    }

    /// Once a write is acknowledged its facts hold.
    async fn carry_out(
        &mut self,
        request: RequestBuilder,
        mut write: Write,
        is_target: bool,
    ) -> Option<Value> {
        let kind = write.kind;
        if is_target || self.at_risk || self.target.is_none() {
            let read = found(&self.client, write.facts.iter().collect()).await;
            write.before = self.or_killed(kind, read)?;
        }
        if is_target {
            self.gate.wait().await;
            self.at_risk = true;
        }
        self.under_way = Some(write);
        let answer = answered(request).await;
        let (status, body) = self.or_killed(kind, answer)?;
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{kind}: {text}");
        let data = data(&body);
        let failed = data["failed"].as_array();
        assert!(failed.is_none_or(Vec::is_empty), "{kind}: {text}");
        let write = self.under_way.take()?;
        self.acknowledged.push(kind);
        if self.target.is_none() && !write.facts.is_empty() {
            let mut facts = write.facts.iter().zip(&write.before);
            assert!(
                facts.any(|(fact, before)| !fact.want.holds(before)),
                "nothing shows whether {kind} was carried out"
            );
        }
        for fact in write.facts {
            self.facts.hold(fact);
        }
        if self.target.is_none() {
            let unmet = self.facts.unmet(&self.client).await;
            assert!(unmet.is_empty(), "after {kind}: {unmet:#?}");
        }
        Some(data)
    }

    /// No answer is none of a server that is killed.
    fn or_killed<T>(&self, what: &str, answer: Option<T>) -> Option<T> {
        assert!(answer.is_some() || self.at_risk, "no answer to {what}");
        answer
    }
}

/// The id that an answer gives.
pub fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}
