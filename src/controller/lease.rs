//! One Lease per binding: of several replicas one works on it. It saves work; safety does not rest on it.
//!
//! Expiry is judged as client-go does: by the time that has passed on our own clock since the Lease was last seen to
//! change, never by comparing clocks. Every write carries the resourceVersion that was read.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use super::cluster::{self, Error, call};
use super::fault;

/// A Lease that has not changed for this long may be taken over.
const DURATION: Duration = Duration::from_secs(10);
/// The holder renews this often.
const RENEW: Duration = Duration::from_secs(3);
/// Others look this often whether it has become free.
const WATCH: Duration = Duration::from_secs(2);

/// Our side of one binding's Lease.
pub(super) struct Keeper {
    api: Api<Lease>,
    name: String,
    identity: String,
    owner: OwnerReference,
    /// The resourceVersion last seen, and when it was first seen.
    seen: Option<(String, Instant)>,
    held_until: Option<Instant>,
    next_call: Option<Instant>,
    /// As we wrote it last: renewed without being read again.
    ours: Option<Lease>,
}

impl Keeper {
    pub fn new(api: Api<Lease>, name: String, identity: String, owner: OwnerReference) -> Self {
        Self {
            api,
            name,
            identity,
            owner,
            seen: None,
            held_until: None,
            next_call: None,
            ours: None,
        }
    }

    /// Whether we hold the Lease, after acquiring or renewing it if that is due.
    pub async fn hold(&mut self) -> Result<bool, Error> {
        let begun = Instant::now();
        if self.next_call.is_some_and(|due| begun < due) {
            return Ok(self.holds(begun));
        }
        if let Some(ours) = self.ours.take() {
            match self.write(&ours).await {
                Ok(lease) => {
                    self.hold_from(lease, begun);
                    return Ok(self.holds(begun));
                }
                // Somebody has changed or deleted it: read it.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => {
                    self.ours = Some(ours);
                    return Err(error);
                }
            }
        }
        let current = cluster::find(self.api.get_opt(&self.name)).await?;
        let written = match current {
            None => Some(call(self.api.create(&PostParams::default(), &self.claimed(None))).await),
            Some(lease) if self.may_take(&lease, begun) => Some(self.write(&lease).await),
            Some(_) => None,
        };
        match written {
            Some(Ok(lease)) => self.hold_from(lease, begun),
            // Somebody else was faster: that is the answer.
            Some(Err(error)) if error.is_conflict() => self.lost(begun),
            Some(Err(error)) => return Err(error),
            None => self.lost(begun),
        }
        Ok(self.holds(begun))
    }

    /// Writes the Lease over what was read.
    async fn write(&self, current: &Lease) -> Result<Lease, Error> {
        let claimed = self.claimed(Some(current));
        call(
            self.api
                .replace(&self.name, &PostParams::default(), &claimed),
        )
        .await
    }

    fn hold_from(&mut self, lease: Lease, begun: Instant) {
        fault::point!("lease/written");
        self.note(&lease, begun);
        self.held_until = Some(begun + DURATION);
        self.next_call = Some(begun + RENEW);
        self.ours = Some(lease);
    }

    /// Gives the Lease back, so that the next replica need not wait for it to expire.
    pub async fn release(&mut self) {
        if !self.holds(Instant::now()) {
            return;
        }
        self.held_until = None;
        self.ours = None;
        let Ok(Some(mut lease)) = cluster::find(self.api.get_opt(&self.name)).await else {
            return;
        };
        if holder(&lease) == Some(&self.identity) {
            if let Some(spec) = lease.spec.as_mut() {
                spec.holder_identity = None;
            }
            let _ = call(self.api.replace(&self.name, &PostParams::default(), &lease)).await;
            fault::point!("lease/released");
        }
    }

    fn holds(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    fn lost(&mut self, now: Instant) {
        self.held_until = None;
        self.next_call = Some(now + WATCH);
    }

    fn note(&mut self, lease: &Lease, now: Instant) {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, now));
        }
    }

    /// Ours, nobody's, or unchanged for the whole duration.
    fn may_take(&mut self, lease: &Lease, now: Instant) -> bool {
        self.note(lease, now);
        let unchanged = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |(_, since)| now.duration_since(*since));
        match holder(lease) {
            Some(other) if *other != self.identity => unchanged >= DURATION,
            _ => true,
        }
    }

    fn claimed(&self, current: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = current
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        let metadata = current.map_or_else(
            || ObjectMeta {
                name: Some(self.name.clone()),
                owner_references: Some(vec![self.owner.clone()]),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata.clone(),
        );
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if ours {
                    before.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!ours)),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_ref()
        .filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;

    type Stored = Arc<Mutex<Option<Value>>>;

    fn status(code: u16) -> Response {
        let reason = if code == 404 { "NotFound" } else { "Conflict" };
        let body = json!({"kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason});
        (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
    }

    async fn read(State(stored): State<Stored>) -> Response {
        stored
            .lock()
            .unwrap()
            .clone()
            .map_or_else(|| status(404), |lease| Json(lease).into_response())
    }

    async fn write(State(stored): State<Stored>, body: String) -> Response {
        let mut lease: Value = serde_json::from_str(&body).unwrap();
        let mut stored = stored.lock().unwrap();
        let version = |lease: &Value| {
            lease["metadata"]["resourceVersion"]
                .as_str()
                .unwrap_or("0")
                .parse::<u32>()
                .unwrap()
        };
        let current = stored.as_ref().map_or(0, version);
        if version(&lease) != current {
            return status(409);
        }
        lease["metadata"]["resourceVersion"] = json!((current + 1).to_string());
        *stored = Some(lease.clone());
        Json(lease).into_response()
    }

    /// Two replicas in front of one API server.
    fn replicas() -> (Keeper, Keeper) {
        let stored = Stored::default();
        let all = "/apis/coordination.k8s.io/v1/namespaces/ns/leases";
        let router = Router::new()
            .route(all, axum::routing::post(write))
            .route(&format!("{all}/trainyard-gpu"), get(read).put(write))
            .with_state(stored);
        let keeper = |identity: &str| {
            let api = Api::namespaced(kube::Client::new(router.clone(), "ns"), "ns");
            Keeper::new(
                api,
                "trainyard-gpu".into(),
                identity.into(),
                OwnerReference::default(),
            )
        };
        (keeper("a"), keeper("b"))
    }

    #[tokio::test]
    async fn one_of_two_replicas_holds_the_lease() {
        let (mut first, mut second) = replicas();
        assert!(first.hold().await.unwrap());
        assert!(!second.hold().await.unwrap());
        assert!(first.hold().await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_that_was_given_back_is_taken_at_once() {
        let (mut first, mut second) = replicas();
        assert!(first.hold().await.unwrap());
        first.release().await;
        assert!(second.hold().await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_that_nobody_renews_is_taken_over_and_its_holder_notices() {
        let (mut first, mut second) = replicas();
        assert!(first.hold().await.unwrap());
        assert!(!second.hold().await.unwrap());
        // As if the whole duration had passed without a renewal.
        second.seen = second
            .seen
            .take()
            .map(|(version, since)| (version, since - DURATION));
        second.next_call = None;
        assert!(second.hold().await.unwrap());
        first.next_call = None;
        assert!(!first.hold().await.unwrap());
    }
}
