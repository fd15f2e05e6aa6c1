//! One Lease per binding: of several replicas one works on it. It saves work; safety does not rest on it.
//!
//! Expiry is judged as client-go does: by the time that has passed on our own clock since the Lease's spec was last seen
//! to change, never by comparing clocks. Every write carries the resourceVersion that was read. Several replicas come to
//! equal shares of the bindings ([`shares`]).

mod shares;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;

use self::shares::{Read, Turn};
use super::cluster::{self, Error, call};
use super::fault;

pub(super) use self::shares::Shares;

/// A Lease that has not changed for this long may be taken over.
const DURATION: Duration = Duration::from_secs(10);
/// The holder renews this often.
const RENEW: Duration = Duration::from_secs(3);
/// Others look this often whether it has become free, and once more at the moment at which it may be taken over.
const WATCH: Duration = Duration::from_secs(2);
/// Annotation that names the replica which would like to have the Lease.
const WANTED_BY: &str = "trainyard.dev/wanted-by";

/// Our side of one binding's Lease.
pub(super) struct Keeper {
    api: Api<Lease>,
    name: String,
    shares: Shares,
    owner: OwnerReference,
    /// The spec last seen, and when it was first seen. A wish of somebody's does not count as a sign of life.
    seen: Option<(Option<LeaseSpec>, Instant)>,
    held_until: Option<Instant>,
    next_call: Option<Instant>,
    /// As we wrote it last: renewed without being read again.
    ours: Option<Lease>,
}

impl Keeper {
    pub fn new(api: Api<Lease>, name: String, shares: Shares, owner: OwnerReference) -> Self {
        Self {
            api,
            name,
            shares,
            owner,
            seen: None,
            held_until: None,
            next_call: None,
            ours: None,
        }
    }

    /// Whether we hold the Lease, after acquiring or renewing it if that is due. Asked between passes: where another
    /// replica is to have the Lease it is given up here, and no pass is cut short.
    pub async fn hold(&mut self) -> Result<bool, Error> {
        let begun = Instant::now();
        if self.next_call.is_some_and(|due| begun < due) {
            return Ok(self.holds(begun));
        }
        if let Some(ours) = self.ours.take() {
            match self.write(&self.claimed(Some(&ours))).await {
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
        fault::point!("lease/read");
        match &current {
            None => self.claim(None, begun).await?,
            Some(lease) => match self.turn(lease, begun) {
                Turn::Take => self.claim(Some(lease), begun).await?,
                Turn::Leave => self.lost(),
                Turn::Ask => {
                    self.lost();
                    self.ask(lease).await;
                }
                Turn::Give(other) => {
                    self.lost();
                    self.give(lease, other).await?;
                }
            },
        }
        Ok(self.holds(begun))
    }

    /// Takes the Lease, or renews it.
    async fn claim(&mut self, current: Option<&Lease>, begun: Instant) -> Result<(), Error> {
        match self.write(&self.claimed(current)).await {
            Ok(lease) => self.hold_from(lease, begun),
            // Somebody else was faster: that is the answer.
            Err(error) if error.is_conflict() => self.lost(),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes on another replica's Lease that we would like to have it. Nothing rests on that.
    async fn ask(&self, lease: &Lease) {
        let mut wanted = lease.clone();
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(WANTED_BY.into(), self.shares.identity().into());
        match self.write(&wanted).await {
            Ok(_) => {}
            // It was renewed meanwhile.
            Err(error) if error.is_conflict() => self.shares.withdraw(),
            Err(error) => {
                tracing::debug!(lease = self.name, %error, "another replica could not be asked for a lease");
            }
        }
    }

    /// Gives the Lease up for the replica that wants it, as its annotation goes on saying.
    async fn give(&mut self, lease: &Lease, other: &str) -> Result<(), Error> {
        match self.write(&freed(lease)).await {
            Ok(free) => {
                self.note(&free, Instant::now());
                tracing::info!(lease = self.name, to = other, "lease is handed over");
                Ok(())
            }
            // Somebody has changed it again: the next look tells.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the Lease: over the version that it carries, or as a new one.
    async fn write(&self, lease: &Lease) -> Result<Lease, Error> {
        let written = if lease.metadata.resource_version.is_some() {
            call(self.api.replace(&self.name, &PostParams::default(), lease)).await?
        } else {
            call(self.api.create(&PostParams::default(), lease)).await?
        };
        fault::point!("lease/written");
        Ok(written)
    }

    fn hold_from(&mut self, lease: Lease, begun: Instant) {
        self.note(&lease, begun);
        self.shares.holds(&self.owner.uid);
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
        let Ok(Some(lease)) = cluster::find(self.api.get_opt(&self.name)).await else {
            return;
        };
        fault::point!("lease/read-at-end");
        if holder(&lease) == Some(self.shares.identity()) {
            let free = freed(&lease);
            let _ = call(self.api.replace(&self.name, &PostParams::default(), &free)).await;
            fault::point!("lease/released");
        }
    }

    fn holds(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    fn lost(&mut self) {
        let now = Instant::now();
        self.held_until = None;
        let expires = self.seen.as_ref().map(|(_, since)| *since + DURATION);
        let next = now + WATCH;
        self.next_call = Some(
            expires
                .filter(|at| *at > now)
                .map_or(next, |at| at.min(next)),
        );
    }

    /// How long until the Lease is looked at or renewed again.
    pub fn rest(&self) -> Duration {
        let now = Instant::now();
        self.next_call
            .map_or(WATCH, |at| at.saturating_duration_since(now))
    }

    fn note(&mut self, lease: &Lease, now: Instant) {
        if self
            .seen
            .as_ref()
            .is_none_or(|(seen, _)| *seen != lease.spec)
        {
            self.seen = Some((lease.spec.clone(), now));
        }
    }

    /// What to do with the Lease that was read.
    fn turn<'a>(&mut self, lease: &'a Lease, now: Instant) -> Turn<'a> {
        self.note(lease, now);
        let unchanged = self
            .seen
            .as_ref()
            .map_or(Duration::ZERO, |(_, since)| now.duration_since(*since));
        let read = Read {
            holder: holder(lease),
            wanted_by: wanted_by(lease),
            unchanged,
        };
        self.shares.turn(&self.owner.uid, read, now)
    }

    fn claimed(&self, current: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = current
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let identity = self.shares.identity();
        let ours = before.holder_identity.as_deref() == Some(identity);
        let mut metadata = current.map_or_else(
            || ObjectMeta {
                name: Some(self.name.clone()),
                owner_references: Some(vec![self.owner.clone()]),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata.clone(),
        );
        // Who wants it has got it, or is declined.
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(WANTED_BY);
        }
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(identity.to_owned()),
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

impl Drop for Keeper {
    /// The binding is gone: it counts no more.
    fn drop(&mut self) {
        self.shares.forget(&self.owner.uid);
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|holder| !holder.is_empty())
}

fn wanted_by(lease: &Lease) -> Option<&str> {
    let annotations = lease.metadata.annotations.as_ref()?;
    annotations.get(WANTED_BY).map(String::as_str)
}

/// The same Lease without a holder.
fn freed(lease: &Lease) -> Lease {
    let mut free = lease.clone();
    if let Some(spec) = &mut free.spec {
        spec.holder_identity = None;
    }
    free
}

#[cfg(test)]
mod tests;
