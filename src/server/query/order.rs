//! The order of a list (§1.13): by SQL where it can be told there, else by comparing documents. Pure.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::super::doc;
use super::super::wire::{Doc, Refusal};
use super::compare::compare_values;

/// The most fields that an order may name; a list for people has one or two.
const MOST: usize = 64;

/// Fields by their paths, and whether each goes downwards.
#[derive(Debug, Default)]
pub(super) struct Order<'a>(Vec<(&'a str, bool)>);

impl<'a> Order<'a> {
    /// Reads what a request names; a leading `-` goes downwards.
    pub(super) fn read(fields: &[&'a str]) -> Result<Self, Refusal> {
        if fields.len() > MOST {
            let text = format!("Invalid field value: order_by names more than {MOST} fields");
            return Err(Refusal::bad(16, text));
        }
        let read = |field: &&'a str| {
            field
                .strip_prefix('-')
                .map_or((*field, false), |field| (field, true))
        };
        Ok(Self(fields.iter().map(read).collect()))
    }

    /// Whether a field takes part.
    pub(super) fn names(&self, field: &str) -> bool {
        self.0
            .iter()
            .any(|(path, _)| path.split('.').next() == Some(field))
    }

    /// All paths.
    pub(super) fn paths(&self) -> Vec<&'a str> {
        self.0.iter().map(|(path, _)| *path).collect()
    }

    /// The order as SQL: by columns, or by members of the documents; nothing for members of members, which may be
    /// stored elsewhere, and for what is no name of a member.
    pub(super) fn in_sql(&self, table: &str) -> Option<String> {
        let columns: &[&str] = match table {
            "tasks" => &["name", "status", "type", "created", "last_update"],
            "models" => &["name", "created"],
            _ => &["name"],
        };
        if self.0.is_empty() {
            return Some("rowid".to_owned());
        }
        let mut sql = String::new();
        for (path, descending) in &self.0 {
            let plain = path.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if path.is_empty() || !plain || *path == "last_metrics" {
                return None;
            }
            if columns.contains(path) || *path == "id" {
                sql += path;
            } else {
                let _ = write!(sql, "json_extract(doc, '$.{path}')");
            }
            sql += if *descending { " DESC, " } else { ", " };
        }
        Some(sql + "id")
    }

    /// Which of two documents comes first.
    pub(super) fn compare(&self, a: &Doc, b: &Doc) -> Ordering {
        for (path, descending) in &self.0 {
            let order = compare_values(doc::get(a, path), doc::get(b, path));
            let order = if *descending { order.reverse() } else { order };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    }
}
