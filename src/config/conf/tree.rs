//! What stands in a file, before `${...}` is replaced by what it stands for.

use serde_json::{Map, Value};

/// A value as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Object(Fields),
    List(Vec<Node>),
    Scalar(Value),
    /// `${path}` or `${?path}`.
    Reference(Reference),
    /// Several values side by side: texts are joined, lists appended, objects merged.
    Joined(Vec<Node>),
}

/// `${path}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reference {
    pub(super) path: String,
    pub(super) optional: bool,
    pub(super) line: usize,
}

/// Fields of an object in the order of the file; serde_json's map keeps order, but holds no [`Node`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Fields(pub(super) Vec<(String, Node)>);

impl Fields {
    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.position(name).map(|index| &self.0[index].1)
    }

    /// Sets a field; two objects are merged, a value that refers to itself means the one before.
    pub(super) fn set(&mut self, name: &str, full_path: &str, node: Node) {
        let Some(index) = self.position(name) else {
            self.0.push((name.to_owned(), node));
            return;
        };
        let slot = &mut self.0[index].1;
        let before = std::mem::replace(slot, Node::Scalar(Value::Null));
        *slot = match (before, node) {
            (Node::Object(mut old), Node::Object(new)) => {
                old.merge(new, full_path);
                Node::Object(old)
            }
            (before, node) => without_self(node, full_path, &before),
        };
    }

    pub(super) fn merge(&mut self, other: Self, path: &str) {
        for (name, node) in other.0 {
            let path = joined_path(path, &name);
            self.set(&name, &path, node);
        }
    }
}

/// `node` with references to its own place replaced by what stood there.
fn without_self(node: Node, path: &str, before: &Node) -> Node {
    match node {
        Node::Reference(reference) if reference.path == path => before.clone(),
        Node::Joined(parts) => Node::Joined(
            parts
                .into_iter()
                .map(|part| without_self(part, path, before))
                .collect(),
        ),
        node => node,
    }
}

pub(super) fn joined_path(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// As a JSON object, for what has no open reference left.
pub(super) fn object(fields: impl Iterator<Item = (String, Value)>) -> Value {
    Value::Object(fields.collect::<Map<String, Value>>())
}
