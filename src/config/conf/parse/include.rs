//! Files that a file includes.

use super::{Parser, parse_in};
use crate::config::conf::tree::{Fields, joined_path};
use crate::config::conf::{ConfError, LONGEST};

/// How deep files may include others, and how many there may be in all: with ten in each, the depth alone allows
/// millions.
const MOST_FILES: usize = 8;
const MOST_INCLUDED: usize = 100;

impl Parser<'_> {
    /// `include "other.conf"`, `include file("other.conf")`, `include required("other.conf")`: what the other file says stands
    /// here; its name begins where this file lies. One that is not there is passed over unless it is required, as pyhocon
    /// does; one that is there counts.
    pub(super) fn included(
        &mut self,
        parent: &str,
        fields: &mut Fields,
        required: bool,
    ) -> Result<(), ConfError> {
        let line = self.line;
        let name = self.quoted()?;
        while self.take(")") {}
        if self.files >= MOST_FILES {
            return Err(self.error(format!(
                "{name:?} is included by files that include each other"
            )));
        }
        self.included.set(self.included.get() + 1);
        if self.included.get() > MOST_INCLUDED {
            return Err(self.error(format!("more than {MOST_INCLUDED} files are included")));
        }
        let path = self.folder.join(&name);
        let text = (self.include)(&path.to_string_lossy()).map_err(|why| {
            self.error(format!("the included file {name:?} cannot be read: {why}"))
        })?;
        let Some(text) = text else {
            let message = format!("the required file {name:?} cannot be read");
            return if required {
                Err(self.error(message))
            } else {
                Ok(())
            };
        };
        if text.len() > LONGEST {
            let message = format!("the file {name:?} is longer than {LONGEST} bytes");
            return Err(self.error(message));
        }
        let folder = path.parent().unwrap_or(self.folder);
        let files = self.files + 1;
        let included = parse_in(
            &text,
            self.include,
            &|_| false,
            folder,
            files,
            self.included,
        )
        .map_err(|error| self.error(format!("{name:?}, which is included here: {error}")))?;
        for path in included.lines.into_keys() {
            self.lines.insert(joined_path(parent, &path), line);
        }
        let set = fields.merge(included.fields, parent, &mut self.budget);
        self.unless_too_often(set)
    }
}
