//! The wire: paths, request bodies, the response envelope and refusals (`protocol.md` §1.1 to §1.9).
//!
//! These types are the server's own, on purpose not shared with the client's: sharing would cancel a wrong name out.

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use super::line::{self, Line};

/// A JSON object: a request's body, a stored document, an answer's `data`.
pub(crate) type Doc = Map<String, Value>;

/// Answer of an endpoint: its `data`, or why not.
pub(crate) type Answer = Result<Value, Refusal>;

/// Version of the API: major, minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// What this server claims to be (§1.7).
    pub const NEWEST: Version = Version(2, 34);
    /// The oldest server that can be played: clients of today ask for at least that (§1.7).
    pub const OLDEST: Version = Version(2, 9);
}

impl std::str::FromStr for Version {
    type Err = String;

    /// A version that this server can play.
    fn from_str(text: &str) -> Result<Self, String> {
        parse_version(&format!("v{text}"))
            .filter(|version| (Self::OLDEST..=Self::NEWEST).contains(version))
            .ok_or_else(|| {
                format!(
                    "must be an API version from {} to {}, such as 2.13",
                    Self::OLDEST,
                    Self::NEWEST
                )
            })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Why a request is not granted: HTTP status, subcode and text of §1.8.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) subcode: u16,
    pub(crate) text: String,
    /// `meta.error_data`, also part of the answers of the `*_many` calls.
    pub(crate) data: Option<Box<Doc>>,
    /// The refusal itself left something behind that must be stored (a failed enqueue does).
    pub(crate) keeps_writes: bool,
    /// Why the server cannot go on after this, if it cannot.
    pub(crate) fatal: Option<String>,
}

impl Refusal {
    pub(crate) fn new(code: u16, subcode: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            subcode,
            text: text.into(),
            data: None,
            keeps_writes: false,
            fatal: None,
        }
    }

    /// 400 with a subcode.
    pub(crate) fn bad(subcode: u16, text: impl Into<String>) -> Self {
        Self::new(400, subcode, text)
    }

    /// 403/20: this caller's role may not ask that.
    pub(crate) fn of_role() -> Self {
        Self::new(403, 20, "Forbidden (role not allowed)")
    }

    /// 400/12: a member is missing or has the wrong type.
    pub(crate) fn invalid(text: impl std::fmt::Display) -> Self {
        Self::bad(12, format!("Validation error ({text})"))
    }

    /// 400 that names the object: `<text>: id=<id>, company=<company>`, with both as error data.
    pub(crate) fn unknown_id(subcode: u16, text: &str, id: &str, company: &str) -> Self {
        let mut refusal = Self::bad(subcode, format!("{text}: id={id}, company={company}"));
        let data = [
            ("id".to_owned(), id.into()),
            ("company".to_owned(), company.into()),
        ];
        refusal.data = Some(Box::new(data.into_iter().collect()));
        refusal
    }

    /// 500: something here went wrong, not in the request.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(500, 0, text)
    }

    pub(crate) fn keeping_writes(mut self) -> Self {
        self.keeps_writes = true;
        self
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        let mut refusal = Self::new(500, 102, format!("Database unavailable: {error}"));
        refusal.fatal = super::store::fatal(&error);
        refusal
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!("A stored document cannot be read: {error}"))
    }
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `service.action`, with the version the path names, if any.
    Call {
        name: String,
        version: Option<Version>,
    },
    /// Nothing that is known here.
    Malformed,
}

/// Reads `/[vX.Y/]service.action[/]` (§1.1).
pub(crate) fn target(path: &str) -> Target {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let (version, name) = match path.split_once('/') {
        None => (None, path),
        Some((version, name)) => match parse_version(version) {
            Some(version) => (Some(version), name),
            None => return Target::Malformed,
        },
    };
    let Some((service, action)) = name.split_once('.') else {
        return Target::Malformed;
    };
    if is_word(service) && is_word(action) {
        Target::Call {
            name: name.to_owned(),
            version,
        }
    } else {
        Target::Malformed
    }
}

fn parse_version(text: &str) -> Option<Version> {
    let digits = text.strip_prefix('v')?;
    let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
    Some(Version(major.parse().ok()?, minor.parse().ok()?))
}

/// `[A-Za-z_]\w+`
fn is_word(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.len() > 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A request's content: its members, and the lines of a batch body.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) members: Doc,
    pub(crate) lines: Option<Vec<Line>>,
}

/// Reads a JSON body, then the query string, then a form; the body's type matters only for batches and forms (§1.2,
/// §1.9).
pub(crate) fn content(
    body: &Bytes,
    content_type: &str,
    query: Option<&str>,
) -> Result<Content, Refusal> {
    let mut content = Content::default();
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_form = kind == "application/x-www-form-urlencoded";
    if kind == "application/json-lines" {
        content.lines = Some(line::lines(body)?);
    } else if !is_form && !body.trim_ascii().is_empty() {
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => content.members = not_too_deep(members)?,
            Ok(_) => return Err(Refusal::new(500, 0, "Data should be a dict")),
            Err(error) => return Err(Refusal::bad(0, format!("The body is not JSON: {error}"))),
        }
    }
    if let Some(query) = query {
        merge_pairs(&mut content.members, query.as_bytes());
    }
    if is_form {
        merge_pairs(&mut content.members, body);
    }
    Ok(content)
}

/// How deep the members of a request may nest. Some are stored a few levels deeper than they came, and JSON that nests
/// deeper than 127 levels is never read again: one such document would spoil every list that it is part of.
const DEEPEST: usize = 100;

/// The members of a request, unless they nest too deep to be stored.
pub(super) fn not_too_deep(members: Doc) -> Result<Doc, Refusal> {
    let too_deep = |value: &Value| super::doc::is_deeper(value, DEEPEST);
    if members.values().any(too_deep) {
        let text = format!("The body nests deeper than {DEEPEST} levels");
        return Err(Refusal::bad(0, text));
    }
    Ok(members)
}

/// How deep the dots of a query's key may nest; no parameter needs more than a few.
const DEEPEST_KEY: usize = 32;

/// Query or form fields: numbers and booleans by their look, `a[]` and repeated keys are lists, dots nest (§1.2).
fn merge_pairs(members: &mut Doc, text: &[u8]) {
    let mut lists: Vec<String> = Vec::new();
    let mut seen = Doc::new();
    for (key, value) in url::form_urlencoded::parse(text) {
        let (key, listed) = match key.strip_suffix("[]") {
            Some(key) => (key.to_owned(), true),
            None => (key.into_owned(), false),
        };
        let value = by_look(&value);
        match seen.get_mut(&key) {
            Some(Value::Array(all)) if lists.contains(&key) => all.push(value),
            Some(first) => {
                *first = json!([first.take(), value]);
                lists.push(key);
            }
            None if listed => {
                seen.insert(key.clone(), json!([value]));
                lists.push(key);
            }
            None => {
                seen.insert(key, value);
            }
        }
    }
    for (key, value) in seen {
        if key.matches('.').count() < DEEPEST_KEY {
            super::doc::set(members, &key, value);
        }
    }
}

fn by_look(text: &str) -> Value {
    let number = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty();
    if number && !text.contains('.') {
        return text
            .parse::<i64>()
            .map_or_else(|_| text.into(), Value::from);
    }
    if number && text.matches('.').count() == 1 {
        return text
            .parse::<f64>()
            .map_or_else(|_| text.into(), Value::from);
    }
    match text {
        "true" | "True" => true.into(),
        "false" | "False" => false.into(),
        _ => text.into(),
    }
}

/// The names in `meta` of one answer.
pub(crate) struct Endpoint<'a> {
    pub(crate) name: &'a str,
    pub(crate) requested: Version,
    pub(crate) actual: Option<Version>,
    /// `X-ClearML-Trx`, echoed.
    pub(crate) transaction: Option<&'a str>,
}

impl Endpoint<'_> {
    /// A version as this caller reads it: a number before 2.1 (§1.3).
    fn shown(&self, version: Version) -> Value {
        let text = version.to_string();
        if self.requested < Version(2, 1) {
            json!(text.parse::<f64>().unwrap_or_default())
        } else {
            text.into()
        }
    }
}

/// `data` of an answer.
pub(crate) enum Data {
    Tree(Value),
    /// JSON that is written already.
    Written(String),
}

/// The envelope around an answer (§1.3), with its HTTP status.
pub(crate) fn envelope(endpoint: &Endpoint<'_>, answer: Result<Data, Refusal>) -> (u16, Enveloped) {
    let id = new_id();
    let (code, subcode, text, error_data, data) = match answer {
        Ok(data) => (200, 0, "OK".to_owned(), Doc::new(), data),
        Err(refusal) => (
            refusal.code,
            refusal.subcode,
            refusal.text,
            refusal.data.map(|data| *data).unwrap_or_default(),
            Data::Tree(json!({})),
        ),
    };
    let meta = json!({
        "id": id,
        "trx": endpoint.transaction.unwrap_or(&id),
        "endpoint": {
            "name": endpoint.name,
            "requested_version": endpoint.shown(endpoint.requested),
            "actual_version": endpoint.actual.map(|version| endpoint.shown(version)),
        },
        "result_code": code,
        "result_subcode": subcode,
        "result_msg": text,
        "error_stack": null,
        "error_data": error_data,
    });
    let data = match data {
        Data::Tree(data) => data.to_string(),
        Data::Written(text) => text,
    };
    let head = format!("{{\"meta\":{meta},\"data\":");
    (code, Enveloped { head, data })
}

/// An answer in its envelope. The data may be some MiB, so that nothing is put together that can be sent in parts.
pub(crate) struct Enveloped {
    head: String,
    data: String,
}

impl Enveloped {
    const END: &str = "}";

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.data.len() + Self::END.len()
    }

    /// All in one.
    pub(crate) fn joined(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.len());
        for part in [&self.head, &self.data, Self::END] {
            body.extend_from_slice(part.as_bytes());
        }
        body
    }

    /// In the order in which they are sent.
    pub(crate) fn parts(self) -> [Bytes; 3] {
        [
            self.head.into(),
            self.data.into(),
            Bytes::from_static(Self::END.as_bytes()),
        ]
    }
}

/// A new object id: 32 lower-case hexadecimal digits (§1.12).
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str) -> Target {
        target(path)
    }

    fn named(name: &str, version: Option<Version>) -> Target {
        Target::Call {
            name: name.to_owned(),
            version,
        }
    }

    #[test]
    fn a_path_is_an_optional_version_and_a_dotted_name() {
        assert_eq!(call("/tasks.get_all"), named("tasks.get_all", None));
        assert_eq!(
            call("/v2.23/tasks.get_all/"),
            named("tasks.get_all", Some(Version(2, 23)))
        );
        assert_eq!(
            call("/v999.0/debug.ping"),
            named("debug.ping", Some(Version(999, 0)))
        );
        for bad in [
            "/tasks",
            "/vx/debug.ping",
            "/a.b.c",
            "/.x",
            "/v2.23/a/b.c",
            "/x.y",
        ] {
            assert_eq!(call(bad), Target::Malformed, "{bad}");
        }
    }

    #[test]
    fn a_query_is_merged_over_the_body_with_values_by_their_look() {
        let body = Bytes::from_static(br#"{"a": 1, "method": "get"}"#);
        let content = content(
            &body,
            "application/json",
            Some("a=2&f=1.5&ok=true&l[]=x&r=1&r=2&d.e=t"),
        )
        .unwrap();
        assert_eq!(
            Value::Object(content.members),
            json!({"a": 2, "method": "get", "f": 1.5, "ok": true, "l": ["x"], "r": [1, 2], "d": {"e": "t"}})
        );
    }

    #[test]
    fn a_form_is_merged_over_the_query() {
        let body = Bytes::from_static(b"a=2&b=x");
        let kind = "application/x-www-form-urlencoded";
        let content = content(&body, kind, Some("a=1&c=3")).unwrap();
        assert_eq!(
            Value::Object(content.members),
            json!({"a": 2, "c": 3, "b": "x"})
        );
    }

    #[test]
    fn versions_are_numbers_for_the_oldest_callers_alone() {
        let shown = |requested| {
            let endpoint = Endpoint {
                name: "debug.ping",
                requested,
                actual: Some(Version(1, 0)),
                transaction: None,
            };
            let (_, body) = envelope(&endpoint, Ok(Data::Tree(json!({}))));
            assert_eq!(body.joined().len(), body.len());
            let answer: Value = serde_json::from_slice(&body.joined()).unwrap();
            let shown = &answer["meta"]["endpoint"];
            (
                shown["requested_version"].clone(),
                shown["actual_version"].clone(),
            )
        };
        assert_eq!(shown(Version(2, 0)), (json!(2.0), json!(1.0)));
        assert_eq!(shown(Version(2, 1)), (json!("2.1"), json!("1.0")));
    }

    #[test]
    fn a_body_that_is_no_object_is_refused_as_the_real_server_does() {
        let refused = |body: &'static [u8], kind: &str| {
            let refusal = content(&Bytes::from_static(body), kind, None).unwrap_err();
            (refusal.code, refusal.subcode)
        };
        assert_eq!(refused(b"[1]", ""), (500, 0));
        assert_eq!(refused(b"{", ""), (400, 0));
        assert_eq!(refused(b"", "application/json-lines"), (400, 17));
        assert_eq!(refused(b"{\"type\"\n", "application/json-lines"), (400, 0));
        assert_eq!(refused(b"[]", "application/json-lines"), (400, 0));
    }

    #[test]
    fn what_is_taken_in_can_be_read_again_from_where_it_is_stored() {
        let nested = |levels: usize| {
            let text = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
            Bytes::from(text)
        };
        let taken = content(&nested(DEEPEST), "", None).unwrap().members;
        let stored = json!({"execution": {"artifacts": [{"type_data": taken}]}}).to_string();
        assert!(serde_json::from_str::<Doc>(&stored).is_ok());
        for levels in [DEEPEST + 1, 126] {
            for kind in ["application/json", "application/json-lines"] {
                let refusal = content(&nested(levels), kind, None).unwrap_err();
                assert_eq!((refusal.code, refusal.subcode), (400, 0), "{levels} {kind}");
                assert!(refusal.text.contains("deeper than 100"), "{}", refusal.text);
            }
        }
    }
}
