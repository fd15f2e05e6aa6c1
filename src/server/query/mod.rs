//! The list queries that all services share (`protocol.md` §1.13): which documents, in which order, which fields.
//!
//! What columns can answer is asked of SQLite; the rest is decided here, on the documents.

mod compare;
mod order;
mod terms;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use regex::Regex;
use rusqlite::{Connection, OptionalExtension as _, ToSql};
use serde_json::{Value, json};

use super::call::{Call, integer, wrong};
use super::doc;
use super::events::scroll;
use super::wire::{Doc, Refusal};
use compare::{Comparison, compare_dates, comparison, in_range, regex, texts_at};
use order::Order;
use terms::Terms;

/// The most documents that `page` and `page_size` give at once.
const PAGE: usize = 500;

/// The most that `start` and `size` give at once.
const LARGEST: usize = 10_000;

/// Whether hidden objects are part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hidden {
    Shown,
    LeftOut,
}

/// A list query, read from a request.
#[derive(Debug, Default)]
pub(crate) struct Query<'a> {
    pub(crate) ids: Vec<&'a str>,
    pub(crate) name: Option<Regex>,
    pub(crate) only_fields: Vec<&'a str>,
    pub(crate) search_hidden: bool,
    order: Order<'a>,
    skip: usize,
    take: usize,
    /// Whether the answer says where the next request goes on.
    scrolls: bool,
    lists: Vec<(&'a str, Terms)>,
    dates: Vec<(&'static str, Vec<(Comparison, String)>)>,
    ranges: Vec<(&'static str, Value, Value)>,
    patterns: Vec<Pattern<'a>>,
    further: Vec<fn(&Doc) -> bool>,
}

#[derive(Debug)]
struct Pattern<'a> {
    fields: Vec<&'a str>,
    regex: Regex,
    all: bool,
}

impl<'a> Query<'a> {
    /// Reads a request; `lists` are the members that filter by value or list, `path.*` all those below a path.
    pub(crate) fn read(call: &Call<'a>, lists: &[&'static str]) -> Result<Self, Refusal> {
        let mut query = Query {
            ids: call.texts("id")?,
            only_fields: call.texts("only_fields")?,
            search_hidden: call.flag("search_hidden")?,
            order: Order::read(&call.texts("order_by")?)?,
            ..Query::default()
        };
        if let Some(pattern) = call.text_or_none("name")? {
            query.name = Some(regex(pattern)?);
        }
        query.read_paging(call)?;
        for &key in lists {
            if let Some(above) = key.strip_suffix('*') {
                let members = call.request.body.iter();
                for (key, value) in members.filter(|(key, _)| key.starts_with(above)) {
                    query.read_list(key, value)?;
                }
            } else if let Some(value) = call.value(key) {
                query.read_list(key, value)?;
            }
        }
        for key in ["status_changed", "last_update", "last_change"] {
            let conditions = call
                .texts(key)?
                .into_iter()
                .map(comparison)
                .collect::<Vec<_>>();
            if !conditions.is_empty() {
                query.dates.push((key, conditions));
            }
        }
        for key in [
            "created",
            "started",
            "completed",
            "last_iteration",
            "active_duration",
        ] {
            if let Some(Value::Array(ends)) = call.value(key)
                && let [low, high] = ends.as_slice()
            {
                query.ranges.push((key, low.clone(), high.clone()));
            }
        }
        for (key, all) in [("_any_", false), ("_all_", true)] {
            if let Some(pattern) = call.object(key)? {
                let fields = doc::strings(pattern, "fields");
                let regex = regex(&format!("(?i){}", doc::text(pattern, "pattern")))?;
                query.patterns.push(Pattern { fields, regex, all });
            }
        }
        Ok(query)
    }

    fn read_list(&mut self, key: &'a str, value: &Value) -> Result<(), Refusal> {
        let items = match value {
            Value::Null => return Ok(()),
            Value::Array(items) if items.is_empty() => return Ok(()),
            Value::Array(items) => items,
            item => std::slice::from_ref(item),
        };
        self.lists.push((key, Terms::read(items)?));
        Ok(())
    }

    fn read_paging(&mut self, call: &Call<'a>) -> Result<(), Refusal> {
        let number = |key| -> Result<Option<usize>, Refusal> {
            match call.int(key)? {
                None => Ok(None),
                Some(value) => usize::try_from(value)
                    .map(Some)
                    .map_err(|_| wrong(key, "zero or more")),
            }
        };
        let (start, size) = (number("start")?, number("size")?);
        // A scroll begins with an id that is null or empty, and goes on with the one that was answered: a position.
        self.scrolls = call.request.body.contains_key("scroll_id");
        if start.is_some() || size.is_some() || call.value("scroll_id").is_some() {
            let position = usize::try_from(scroll(call)?).unwrap_or(usize::MAX);
            self.skip = start.unwrap_or(position);
            self.take = size.unwrap_or(PAGE).min(LARGEST);
        } else {
            self.take = number("page_size")?.unwrap_or(PAGE).min(PAGE);
            self.skip = number("page")?.unwrap_or(0).saturating_mul(self.take);
        }
        Ok(())
    }

    /// Further filter that did not come from the request's own member of that name.
    pub(crate) fn replace_list(&mut self, key: &'static str, values: Vec<String>) {
        self.lists.retain(|(have, _)| *have != key);
        self.lists.push((
            key,
            Terms {
                include: values,
                ..Terms::default()
            },
        ));
    }

    /// A filter of one service alone. It counts before the page is cut: a page that is not full is the last one.
    pub(crate) fn only(&mut self, filter: fn(&Doc) -> bool) {
        self.further.push(filter);
    }

    /// Whether a field takes part in the order.
    pub(crate) fn sorts_by(&self, field: &str) -> bool {
        self.order.names(field)
    }

    /// Whether a field is part of the answer.
    pub(crate) fn shows(&self, field: &str) -> bool {
        self.only_fields.is_empty()
            || self
                .only_fields
                .iter()
                .any(|path| path.split('.').next() == Some(field))
    }

    /// Only the fields that were asked for.
    pub(crate) fn cut(&self, doc: Doc) -> Doc {
        if self.only_fields.is_empty() {
            doc
        } else {
            doc::project(&doc, &self.only_fields)
        }
    }

    /// The same, with the id in any case (`*_ex`).
    pub(crate) fn cut_with_id(&self, doc: Doc) -> Doc {
        let id = doc.get("id").cloned();
        let mut cut = self.cut(doc);
        if let Some(id) = id {
            cut.insert("id".into(), id);
        }
        cut
    }

    /// Where a scroll goes on after so many documents, if the request is one.
    pub(crate) fn next(&self, returned: usize) -> Option<String> {
        self.scrolls
            .then(|| self.skip.saturating_add(returned).to_string())
    }

    /// An answer with so many documents, and with that place.
    pub(crate) fn paged(&self, mut answer: Value, returned: usize) -> Value {
        if let Some(next) = self.next(returned) {
            answer["scroll_id"] = next.into();
        }
        answer
    }

    /// The documents of one table that match, in order, one page of them. `columns` are the filters that the table
    /// has as columns.
    pub(crate) fn run(
        &self,
        db: &Connection,
        table: &str,
        hidden: Hidden,
        columns: &[&str],
    ) -> Result<Vec<Doc>, Refusal> {
        self.run_with(db, table, hidden, columns, |_| Ok(()))
    }

    /// As `run`; `complete` adds to each document what is stored elsewhere, before it is ordered.
    ///
    /// Documents are read one by one and only those of the page are kept: a list of ten thousand tasks stays cheap.
    /// Where an index has the order, what lies behind the page is not looked at.
    pub(crate) fn run_with(
        &self,
        db: &Connection,
        table: &str,
        hidden: Hidden,
        columns: &[&str],
        complete: impl Fn(&mut Doc) -> Result<(), Refusal>,
    ) -> Result<Vec<Doc>, Refusal> {
        let order = self.order.in_sql(table);
        let (sql, values, rest) = self.statement(table, hidden, columns, order.as_deref());
        let mut statement = db.prepare_cached(&sql)?;
        let values: Vec<&dyn ToSql> = values.iter().map(|value| value as &dyn ToSql).collect();
        let mut rows = statement.query(values.as_slice())?;
        let read = |id: &str| self.one_of(db, table, id, &rest);
        if order.is_some() {
            let mut found = Vec::new();
            let mut skip = self.skip;
            while found.len() < self.take
                && let Some(row) = rows.next()?
            {
                let id: String = row.get(0)?;
                let Some(mut doc) = read(&id)? else { continue };
                if skip > 0 {
                    skip -= 1;
                } else {
                    complete(&mut doc)?;
                    found.push(doc);
                }
            }
            return Ok(found);
        }
        let (mut keys, paths) = (Vec::new(), self.order.paths());
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            let Some(mut doc) = read(&id)? else { continue };
            complete(&mut doc)?;
            keys.push((doc::project(&doc, &paths), id));
        }
        keys.sort_by(|(a, a_id), (b, b_id)| {
            let order = self.order.compare(a, b);
            order.then_with(|| a_id.cmp(b_id))
        });
        let mut found = Vec::new();
        for (_, id) in keys.into_iter().skip(self.skip).take(self.take) {
            if let Some(mut doc) = read(&id)? {
                complete(&mut doc)?;
                found.push(doc);
            }
        }
        Ok(found)
    }

    /// A document, if it is there and matches.
    fn one_of(
        &self,
        db: &Connection,
        table: &str,
        id: &str,
        lists: &[&(&str, Terms)],
    ) -> Result<Option<Doc>, Refusal> {
        let sql = format!("SELECT name, doc FROM {table} WHERE id = ?1");
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([id])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let name: Option<&str> = row.get_ref(0)?.as_str_or_null().unwrap_or_default();
        if self
            .name
            .as_ref()
            .is_some_and(|regex| !regex.is_match(name.unwrap_or_default()))
        {
            return Ok(None);
        }
        let text = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let doc: Doc = serde_json::from_str(text)?;
        Ok(self.matches(&doc, lists).then_some(doc))
    }

    /// The SQL for the ids, its values, and the list filters that it leaves to us.
    fn statement(
        &self,
        table: &str,
        hidden: Hidden,
        columns: &[&str],
        order: Option<&str>,
    ) -> (String, Vec<String>, Vec<&(&'a str, Terms)>) {
        let mut sql = format!("SELECT id FROM {table} WHERE 1");
        let mut values = Vec::new();
        let mut one_of = |sql: &mut String, column: &str, of: Value| {
            values.push(of.to_string());
            let number = values.len();
            let _ = write!(
                sql,
                " AND {column} IN (SELECT value FROM json_each(?{number}))"
            );
        };
        if !self.ids.is_empty() {
            one_of(&mut sql, "id", json!(self.ids));
        }
        let mut rest = Vec::new();
        for filter in &self.lists {
            let (field, terms) = filter;
            if columns.contains(field) && terms.is_plain() {
                one_of(&mut sql, field, json!(terms.include));
            } else {
                rest.push(filter);
            }
        }
        if hidden == Hidden::LeftOut {
            sql += " AND hidden = 0";
        }
        let _ = write!(sql, " ORDER BY {}", order.unwrap_or("rowid"));
        let ours = order.is_some()
            && rest.is_empty()
            && self.name.is_none()
            && self.dates.is_empty()
            && self.ranges.is_empty()
            && self.patterns.is_empty()
            && self.further.is_empty();
        if ours {
            let limit = i64::try_from(self.skip.saturating_add(self.take)).unwrap_or(i64::MAX);
            let _ = write!(sql, " LIMIT {limit}");
        }
        (sql, values, rest)
    }

    fn matches(&self, doc: &Doc, lists: &[&(&str, Terms)]) -> bool {
        lists
            .iter()
            .all(|(field, terms)| terms.holds(&texts_at(doc, field)))
            && self.dates.iter().all(|(field, all)| {
                let have = doc::text(doc, field);
                !have.is_empty()
                    && all
                        .iter()
                        .all(|(comparison, date)| compare_dates(have, *comparison, date))
            })
            && self
                .ranges
                .iter()
                .all(|(field, low, high)| in_range(doc::get(doc, field), low, high))
            && self.patterns.iter().all(|pattern| pattern.holds(doc))
            && self.further.iter().all(|filter| filter(doc))
    }
}

impl Pattern<'_> {
    fn holds(&self, doc: &Doc) -> bool {
        let matches = |field: &&str| {
            texts_at(doc, field)
                .iter()
                .any(|text| self.regex.is_match(text))
        };
        if self.all {
            self.fields.iter().all(matches)
        } else {
            self.fields.iter().any(matches)
        }
    }
}

/// One document by its id.
pub(crate) fn one(db: &Connection, sql: &str, id: &str) -> Result<Option<Doc>, Refusal> {
    let text: Option<String> = db
        .prepare_cached(sql)?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(match text {
        Some(text) => Some(serde_json::from_str(&text)?),
        None => None,
    })
}

/// All documents that a statement finds for an id.
pub(crate) fn documents(db: &Connection, sql: &str, id: &str) -> Result<Vec<Doc>, Refusal> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(serde_json::from_str(&row.get::<_, String>(0)?)?);
    }
    Ok(found)
}

/// Tags as they are stored: sorted, each once (§3.1).
pub(crate) fn tags(tags: &[&str]) -> Value {
    let mut tags: Vec<&str> = tags.to_vec();
    tags.sort_unstable();
    tags.dedup();
    json!(tags)
}

/// Copies the tags that a call gives, and tells which.
pub(crate) fn copy_tags(call: &Call, into: &mut Doc) -> Result<Vec<&'static str>, Refusal> {
    let mut copied = Vec::new();
    for key in ["tags", "system_tags"] {
        if call.value(key).is_some() {
            into.insert(key.into(), tags(&call.texts(key)?));
            copied.push(key);
        }
    }
    Ok(copied)
}

/// An integer member of an event or a document, 0 if there is none.
pub(crate) fn int_at(doc: &Doc, key: &str) -> i64 {
    doc.get(key).and_then(integer).unwrap_or(0)
}
