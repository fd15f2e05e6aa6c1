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
    /// Values that were set one after the other: the last one that stands for something counts, over the objects before
    /// it if it is an object.
    Either(Vec<Node>),
}

impl Node {
    /// Whether it stands for nothing where what it refers to is not there.
    fn may_be_nothing(&self) -> bool {
        match self {
            Self::Reference(to) => to.optional,
            Self::Joined(parts) => parts
                .iter()
                .all(|part| part.is_blank() || part.may_be_nothing()),
            Self::Either(all) => all.iter().all(Self::may_be_nothing),
            Self::Object(_) | Self::List(_) | Self::Scalar(_) => false,
        }
    }

    fn may_be_an_object(&self) -> bool {
        match self {
            Self::Object(_) | Self::Reference(_) => true,
            Self::Joined(parts) => parts
                .iter()
                .all(|part| part.is_blank() || part.may_be_an_object()),
            Self::Either(all) => all.iter().any(Self::may_be_an_object),
            Self::List(_) | Self::Scalar(_) => false,
        }
    }

    fn is_blank(&self) -> bool {
        matches!(self, Self::Scalar(Value::String(text)) if text.trim().is_empty())
    }

    /// What counts if `later` is set where this stood.
    fn then(self, later: Self) -> Self {
        let both = self.may_be_an_object() && later.may_be_an_object();
        if !both && !later.may_be_nothing() {
            return later;
        }
        match self {
            Self::Either(mut all) => {
                all.push(later);
                Self::Either(all)
            }
            before => Self::Either(vec![before, later]),
        }
    }

    /// About how much a copy of it takes.
    fn size(&self) -> usize {
        1 + match self {
            Self::Object(fields) => fields.0.iter().map(|(_, node)| node.size()).sum(),
            Self::List(nodes) | Self::Joined(nodes) | Self::Either(nodes) => {
                nodes.iter().map(Self::size).sum()
            }
            Self::Scalar(Value::String(text)) => text.len(),
            Self::Scalar(_) | Self::Reference(_) => 0,
        }
    }
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

    /// Sets a field; two objects are merged, a value that refers to itself means the one before, and so does one by
    /// `${?...}` that refers to nothing. `left` is how much self-references may still copy: `a = ${a}${a}` doubles with
    /// each line. The error is the path that has copied too much.
    pub(super) fn set(
        &mut self,
        name: &str,
        full_path: &str,
        node: Node,
        left: &mut usize,
    ) -> Result<(), String> {
        let Some(index) = self.position(name) else {
            self.0.push((name.to_owned(), node));
            return Ok(());
        };
        let slot = &mut self.0[index].1;
        let before = std::mem::replace(slot, Node::Scalar(Value::Null));
        *slot = match (before, node) {
            (Node::Object(mut old), Node::Object(new)) => {
                old.merge(new, full_path, left)?;
                Node::Object(old)
            }
            (Node::Either(mut all), Node::Object(new)) => {
                if let Some(Node::Object(old)) = all.last_mut() {
                    old.merge(new, full_path, left)?;
                    Node::Either(all)
                } else {
                    Node::Either(all).then(Node::Object(new))
                }
            }
            (before, Node::Reference(to)) if to.path == full_path => before,
            (before, node) => {
                let node = without_self(node, full_path, &before, left)?;
                before.then(node)
            }
        };
        Ok(())
    }

    pub(super) fn merge(
        &mut self,
        other: Self,
        path: &str,
        left: &mut usize,
    ) -> Result<(), String> {
        for (name, node) in other.0 {
            let path = joined_path(path, &name);
            self.set(&name, &path, node, left)?;
        }
        Ok(())
    }
}

/// `node` with references to its own place replaced by what stood there.
fn without_self(node: Node, path: &str, before: &Node, left: &mut usize) -> Result<Node, String> {
    match node {
        Node::Reference(reference) if reference.path == path => {
            *left = left
                .checked_sub(before.size())
                .ok_or_else(|| path.to_owned())?;
            Ok(before.clone())
        }
        Node::Joined(parts) => {
            let mut replaced = Vec::with_capacity(parts.len());
            for part in parts {
                replaced.push(without_self(part, path, before, left)?);
            }
            Ok(Node::Joined(replaced))
        }
        node => Ok(node),
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
