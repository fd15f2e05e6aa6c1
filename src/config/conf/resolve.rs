//! Tree with `${...}` → JSON value.

use serde_json::Value;

use super::tree::{Fields, Node, Reference, joined_path, object};
use super::{ConfError, DEEPEST};

/// How much text and how many values references may grow to.
const MOST: usize = 8 << 20;

/// The value of a whole file.
pub(super) fn resolve(
    root: &Fields,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Value, ConfError> {
    let mut resolver = Resolver {
        root,
        variable,
        open: Vec::new(),
        left: MOST,
    };
    let mut fields = Vec::new();
    for (name, node) in &root.0 {
        if let Some(value) = resolver.at(name, node)? {
            fields.push((name.clone(), value));
        }
    }
    Ok(object(fields.into_iter()))
}

struct Resolver<'r> {
    root: &'r Fields,
    variable: &'r dyn Fn(&str) -> Option<String>,
    /// Paths that are being resolved, the innermost last: one that comes up again is a circle.
    open: Vec<String>,
    left: usize,
}

impl Resolver<'_> {
    /// The value of the node at `path`.
    fn at(&mut self, path: &str, node: &Node) -> Result<Option<Value>, ConfError> {
        self.open.push(path.to_owned());
        let value = self.node(node);
        self.open.pop();
        value
    }

    /// The value of a node; nothing for an optional reference to nothing.
    fn node(&mut self, node: &Node) -> Result<Option<Value>, ConfError> {
        match node {
            Node::Scalar(value) => {
                self.grow(1 + value.as_str().map_or(0, str::len))?;
                Ok(Some(value.clone()))
            }
            Node::Object(fields) => {
                self.grow(1)?;
                let mut values = Vec::new();
                for (name, node) in &fields.0 {
                    self.grow(name.len())?;
                    let path = joined_path(self.open.last().map_or("", String::as_str), name);
                    if let Some(value) = self.at(&path, node)? {
                        values.push((name.clone(), value));
                    }
                }
                Ok(Some(object(values.into_iter())))
            }
            Node::List(items) => {
                self.grow(1)?;
                let mut values = Vec::new();
                for item in items {
                    values.extend(self.node(item)?);
                }
                Ok(Some(Value::Array(values)))
            }
            Node::Reference(reference) => self.reference(reference),
            Node::Joined(parts) => self.joined(parts),
            Node::Either(nodes) => self.last(nodes),
        }
    }

    fn reference(&mut self, reference: &Reference) -> Result<Option<Value>, ConfError> {
        let Reference {
            path,
            optional,
            line,
        } = reference;
        // Costs something also where it stands for nothing: those may double with each line, too.
        self.grow(16)?;
        let circle = self.open.contains(path);
        let root = self.root;
        let value = if circle || self.open.len() > 4 * DEEPEST {
            None
        } else {
            let names: Vec<&str> = path.split('.').map(str::trim).collect();
            self.open.push(path.clone());
            let value = self.within(root, &names, "");
            self.open.pop();
            value?
        };
        let value = value.or_else(|| (self.variable)(path).map(Value::String));
        if value.is_some() || (*optional && self.open.len() <= 4 * DEEPEST) {
            return Ok(value);
        }
        let message = if circle || self.open.len() > 4 * DEEPEST {
            format!("${{{path}}} refers to itself in a circle")
        } else {
            format!("${{{path}}} is neither a key of the file nor an environment variable")
        };
        Err(ConfError::new(*line, message))
    }

    /// The value of a field, named from an object that stands at `path`.
    fn within(
        &mut self,
        fields: &Fields,
        names: &[&str],
        path: &str,
    ) -> Result<Option<Value>, ConfError> {
        let Some((name, deeper)) = names.split_first() else {
            return Ok(None);
        };
        match fields.get(name) {
            Some(node) => self.below(node, deeper, &joined_path(path, name)),
            None => Ok(None),
        }
    }

    /// The value of what is named from a node that stands at `path`, where its value need not be known as a whole: it
    /// may refer to this very part.
    fn below(
        &mut self,
        node: &Node,
        names: &[&str],
        path: &str,
    ) -> Result<Option<Value>, ConfError> {
        if names.is_empty() {
            return self.at(path, node);
        }
        match node {
            Node::Object(fields) => self.within(fields, names, path),
            Node::Either(nodes) | Node::Joined(nodes) => {
                for node in nodes.iter().rev() {
                    let value = self.below(node, names, path)?;
                    if value.is_some() {
                        return Ok(value);
                    }
                }
                Ok(None)
            }
            Node::Reference(reference) => {
                let value = self.reference(reference)?;
                let deeper = |value: Value| {
                    let mut names = names.iter();
                    names.try_fold(value, |value, name| value.get(*name).cloned())
                };
                Ok(value.and_then(deeper))
            }
            Node::Scalar(_) | Node::List(_) => Ok(None),
        }
    }

    /// The last value that stands for something, over the objects before it if it is one.
    fn last(&mut self, nodes: &[Node]) -> Result<Option<Value>, ConfError> {
        let mut found: Option<Value> = None;
        for node in nodes.iter().rev() {
            let Some(value) = self.node(node)? else {
                continue;
            };
            found = match found {
                None if value.is_object() => Some(value),
                None => return Ok(Some(value)),
                Some(later) if value.is_object() => {
                    let mut merged = value;
                    merge(&mut merged, &later);
                    Some(merged)
                }
                Some(later) => return Ok(Some(later)),
            };
        }
        Ok(found)
    }

    /// Values side by side: lists are appended, objects merged, all else is text.
    fn joined(&mut self, parts: &[Node]) -> Result<Option<Value>, ConfError> {
        let mut values = Vec::new();
        for part in parts {
            values.extend(self.node(part)?.filter(|value| !value.is_null()));
        }
        let blank = |value: &Value| value.as_str().is_some_and(|text| text.trim().is_empty());
        let solid: Vec<&Value> = values.iter().filter(|value| !blank(value)).collect();
        if solid.is_empty() {
            return Ok(None);
        }
        if solid.iter().all(|value| value.is_array()) {
            let items = solid
                .iter()
                .flat_map(|value| value.as_array().into_iter().flatten())
                .cloned();
            return Ok(Some(Value::Array(items.collect())));
        }
        if solid.iter().all(|value| value.is_object()) {
            let mut merged = Value::Null;
            for value in solid {
                merge(&mut merged, value);
            }
            return Ok(Some(merged));
        }
        if let [only] = solid[..]
            && !only.is_string()
        {
            return Ok(Some(only.clone()));
        }
        let text: String = values.iter().map(as_text).collect();
        self.grow(text.len())?;
        Ok(Some(Value::String(text.trim().to_owned())))
    }

    fn grow(&mut self, by: usize) -> Result<(), ConfError> {
        self.left = self.left.checked_sub(by).ok_or_else(|| {
            ConfError::new(
                1,
                format!("what the file's references stand for is larger than {MOST} bytes"),
            )
        })?;
        Ok(())
    }
}

fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
