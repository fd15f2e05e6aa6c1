//! Rows: what is kept in memory of a Job and of a pod. There may be ten thousand of each, and typed objects take ten
//! times the room of what a pass reads of them.
//!
//! A row answers what every pass asks; where something has to be explained, the object is made of it again, with all
//! that explanations read.

mod job;
mod lean;
mod pod;

use std::collections::BTreeMap;
use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;

pub(super) use job::JobRow;
pub(super) use lean::JobObject;
pub(super) use pod::{PodRow, task_container_started};

/// What is kept of one kind of object.
pub(super) trait Row: Send + Sync + 'static {
    type Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static;

    fn of(object: Self::Object) -> Self;
    fn head(&self) -> &Head;
}

/// Of every object: who it is, in which version, and whether it is on its way out.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub name: Box<str>,
    /// Empty for an object that no API server has made.
    pub uid: Box<str>,
    /// To be compared with another for being the same, and handed back as a precondition.
    pub resource_version: Box<str>,
    pub created: Option<Timestamp>,
    pub deleted: Option<Timestamp>,
    /// UIDs of the owners.
    pub owners: Box<[Box<str>]>,
}

impl Head {
    fn of(metadata: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        let owners = metadata.owner_references.iter().flatten();
        Self {
            name: text(&metadata.name),
            uid: text(&metadata.uid),
            resource_version: text(&metadata.resource_version),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            deleted: metadata.deletion_timestamp.as_ref().map(|time| time.0),
            owners: owners.map(|owner| owner.uid.as_str().into()).collect(),
        }
    }

    pub fn is_deleting(&self) -> bool {
        self.deleted.is_some()
    }

    /// Whether the object of this UID owns it.
    pub fn is_owned_by(&self, uid: &str) -> bool {
        self.owners.iter().any(|owner| **owner == *uid)
    }

    /// Versions of one object can be compared as numbers; where one cannot be read, the later message wins.
    pub fn version(&self) -> u64 {
        self.resource_version.parse().unwrap_or(0)
    }
}

/// The few labels or annotations of an object that somebody reads; their names are the program's own. Their texts lie in
/// one piece: each in a piece of its own takes twice the room.
#[derive(Debug, Clone, Default)]
struct Notes {
    names: &'static [&'static str],
    text: Box<str>,
    /// Where the text of each name ends.
    ends: [u32; MOST_NOTES],
    /// A bit for each name that the object has.
    has: u8,
}

/// Names that are kept of labels, or of annotations.
const MOST_NOTES: usize = 8;

impl Notes {
    fn of(all: Option<BTreeMap<String, String>>, names: &'static [&'static str]) -> Self {
        debug_assert!(names.len() <= MOST_NOTES, "{names:?}");
        let all = all.unwrap_or_default();
        let (mut text, mut ends, mut has) = (String::new(), [0_u32; MOST_NOTES], 0_u8);
        for (place, name) in names.iter().enumerate() {
            if let Some(found) = all.get(*name) {
                text.push_str(found);
                has |= 1_u8 << place;
            }
            ends[place] = u32::try_from(text.len()).unwrap_or(u32::MAX);
        }
        Self {
            names,
            text: text.into_boxed_str(),
            ends,
            has,
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        let place = self.names.iter().position(|known| *known == name)?;
        if self.has & (1_u8 << place) == 0 {
            return None;
        }
        let begin = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(begin as usize..self.ends[place] as usize)
    }
}
