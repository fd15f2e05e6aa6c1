//! One request on its way through a handler: what was asked, by whom, when, and the database to answer it from.

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::App;
use super::auth::Caller;
use super::line::Line;
use super::rules::Ask;
use super::wire::{Answer, Doc, Refusal, Version};

/// What was asked, before a connection is at hand.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) body: Doc,
    /// The lines of a batch body (§1.9).
    pub(crate) lines: Option<Vec<Line>>,
    pub(crate) version: Version,
    pub(crate) caller: Caller,
    /// `X-ClearML-Worker`: the host name of the client's machine (§1.5).
    pub(crate) worker: Option<String>,
    pub(crate) ip: String,
}

impl Request {
    /// A request of the server itself.
    pub(crate) fn own() -> Self {
        Self {
            body: Doc::new(),
            lines: None,
            version: Version::NEWEST,
            caller: Caller::default(),
            worker: None,
            ip: String::new(),
        }
    }
}

/// A request with a transaction open.
pub(crate) struct Call<'a> {
    pub(crate) db: &'a Connection,
    pub(crate) app: &'a App,
    pub(crate) request: &'a Request,
    pub(crate) at: Timestamp,
    /// `at` as documents carry it.
    pub(crate) now: String,
}

/// A time as documents carry it (§1.12).
pub(crate) fn iso(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

impl<'a> Call<'a> {
    pub(crate) fn new(db: &'a Connection, app: &'a App, request: &'a Request) -> Self {
        let at = Timestamp::now();
        Self {
            db,
            app,
            request,
            at,
            now: iso(at),
        }
    }

    /// Whether the server that is played knows what came with this version (§1.7).
    pub(crate) fn plays(&self, since: Version) -> bool {
        self.app.newest >= since
    }

    /// Id of the user who asks.
    pub(crate) fn user(&self) -> &'a str {
        &self.request.caller.user
    }

    /// A member that is there and not null.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.request.body.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, key: &str) -> Result<&'a str, Refusal> {
        self.text_or_none(key)?.ok_or_else(|| required(key))
    }

    pub(crate) fn text_or_none(&self, key: &str) -> Result<Option<&'a str>, Refusal> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(key, "a string")),
        }
    }

    /// A flag; absent is false.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, Refusal> {
        self.flag_or(key, false)
    }

    pub(crate) fn flag_or(&self, key: &str, absent: bool) -> Result<bool, Refusal> {
        match self.value(key) {
            None => Ok(absent),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::Number(number)) => Ok(number.as_f64() != Some(0.0)),
            Some(_) => Err(wrong(key, "a boolean")),
        }
    }

    pub(crate) fn int(&self, key: &str) -> Result<Option<i64>, Refusal> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => integer(value)
                .map(Some)
                .ok_or_else(|| wrong(key, "an integer")),
        }
    }

    /// A list of strings; one string stands for a list of one (§1.13).
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&'a str>, Refusal> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(list)) => list
                .iter()
                .map(|item| item.as_str().ok_or_else(|| wrong(key, "a list of strings")))
                .collect(),
            Some(_) => Err(wrong(key, "a list of strings")),
        }
    }

    pub(crate) fn texts_required(&self, key: &str) -> Result<Vec<&'a str>, Refusal> {
        self.value(key).ok_or_else(|| required(key))?;
        self.texts(key)
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<&'a Doc>, Refusal> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(wrong(key, "an object")),
        }
    }

    /// A list of objects, as for hyperparameters and artifacts.
    pub(crate) fn objects(&self, key: &str) -> Result<Vec<&'a Doc>, Refusal> {
        let items = match self.value(key) {
            None => return Err(required(key)),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(wrong(key, "a list of objects")),
        };
        items
            .iter()
            .map(|item| {
                item.as_object()
                    .ok_or_else(|| wrong(key, "a list of objects"))
            })
            .collect()
    }

    /// Copies the strings that are there under these keys, and tells which.
    pub(crate) fn copy_texts(
        &self,
        keys: &[&'static str],
        into: &mut Doc,
    ) -> Result<Vec<&'static str>, Refusal> {
        let mut copied = Vec::new();
        for key in keys {
            if let Some(text) = self.text_or_none(key)? {
                into.insert((*key).into(), text.into());
                copied.push(*key);
            }
        }
        Ok(copied)
    }

    /// 403 unless the caller administers.
    pub(crate) fn administer(&self) -> Result<(), Refusal> {
        if self.request.caller.administers() {
            Ok(())
        } else {
            Err(Refusal::of_role())
        }
    }

    /// The `*_many` form: each of `ids` on its own; what fails says why (§2.3).
    pub(crate) fn many(&self, one: impl Fn(&Self, &str) -> Result<Doc, Refusal>) -> Answer {
        let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
        for id in self.texts_required("ids")? {
            match one(self, id) {
                Ok(mut answer) => {
                    answer.insert("id".into(), id.into());
                    succeeded.push(answer);
                }
                Err(refusal) if refusal.code == 400 => {
                    let codes = [refusal.code, refusal.subcode];
                    failed.push(json!({
                        "id": id,
                        "error": {"codes": codes, "msg": refusal.text, "data": refusal.data.unwrap_or_default()},
                    }));
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(json!({"succeeded": succeeded, "failed": failed}))
    }

    /// What every status call may say.
    pub(crate) fn status_ask(&self) -> Result<Ask, Refusal> {
        Ok(Ask {
            force: self.flag("force")?,
            reason: self
                .text_or_none("status_reason")?
                .unwrap_or_default()
                .to_owned(),
            message: self
                .text_or_none("status_message")?
                .unwrap_or_default()
                .to_owned(),
        })
    }
}

/// An integer, also one written `1.0`.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "has no fraction and is within range"
        )]
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

pub(crate) fn required(key: &str) -> Refusal {
    Refusal::invalid(format_args!("error for field '{key}'. field is required!"))
}

pub(crate) fn wrong(key: &str, wanted: &str) -> Refusal {
    Refusal::invalid(format_args!(
        "error for field '{key}'. value is not {wanted}"
    ))
}
