//! The Job of an admitted task, until it is created.

use crate::render::{JobName, Rendered};

/// A rendered Job, packed as text: as a tree of values it takes several times the room, and hundreds may wait in a pass.
#[derive(Debug, Clone)]
pub(in crate::controller) struct Draft {
    /// Without its Job.
    rendered: Rendered,
    text: String,
}

impl From<Rendered> for Draft {
    fn from(mut rendered: Rendered) -> Self {
        let text = std::mem::take(&mut rendered.job).to_string();
        Self { rendered, text }
    }
}

impl Draft {
    pub fn name(&self) -> &JobName {
        &self.rendered.name
    }

    pub fn image(&self) -> &str {
        &self.rendered.image
    }

    /// What the task asked for and does not get.
    pub fn notes(&self) -> &[String] {
        &self.rendered.notes
    }

    /// What was packed.
    pub fn unpacked(&self) -> Result<Rendered, serde_json::Error> {
        Ok(Rendered {
            job: serde_json::from_str(&self.text)?,
            ..self.rendered.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::rendered;
    use super::*;

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let draft = Draft::from(rendered());
        assert_eq!(draft.unpacked().unwrap(), rendered());
        assert_eq!(draft.name(), &rendered().name);
    }
}
