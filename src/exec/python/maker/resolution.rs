//! What of a list the image lacks: uv is asked what it would change in the image's Python, before anything is made.

use std::ffi::OsString;

use tokio::process::Command;

use super::{Maker, QUICK};
use crate::exec::failure::Failure;
use crate::exec::python::answers::{self, Additions};
use crate::exec::python::install::Inputs;
use crate::exec::python::list::{List, package_name};
use crate::exec::python::store::Store;
use crate::exec::python::torch::{self, Attempt};
use crate::exec::python::{index, remote};
use crate::exec::tool::{self, Log};

impl Maker<'_> {
    /// What of the list others can share, in exact versions.
    pub(super) async fn resolved(&self, store: &Store, log: &mut Log<'_>) -> Result<List, Failure> {
        // Whether an optional one can be had is seen when it is installed.
        let (optional, list) = self.split_optional(self.list);
        let (additions, _) = self.missing(store, &list, &list.local, log).await?;
        let elsewhere: Vec<String> = additions
            .others
            .iter()
            .map(|(name, _)| package_name(name))
            .collect();
        let mut text = list.options() + &list.hashed(&additions.text());
        for line in list.text.lines() {
            // From git or an address: the line itself says which.
            if line.contains('@') && elsewhere.contains(&package_name(line)) {
                text.push_str(line);
                text.push('\n');
            }
        }
        text.extend(optional.iter().flat_map(|line| [line.as_str(), "\n"]));
        Ok(List {
            exact: true,
            beside: self.list.beside.clone(),
            ..List::of_text(&text)
        })
    }

    /// A prebuilt image may hold all that is asked for: then it runs as it is, with no network and no waiting.
    pub(super) async fn in_the_image(
        &self,
        store: &Store,
        list: &List,
        log: &mut Log<'_>,
    ) -> Option<Vec<String>> {
        let options = &self.settings.options;
        if !options.system_site_packages || options.force_upgrade {
            return None;
        }
        let inputs = self.inputs(list, &list.text, None).ok()?;
        let command = self.dry_run(store, list, &inputs, &["--offline"]);
        let ended = tool::run(command, Some(inputs.text.as_bytes()), QUICK, &mut |_| {})
            .await
            .ok()?;
        if !ended.status.success() || !answers::additions(&ended.output).is_empty() {
            return None;
        }
        log("the image holds all required packages: it is used as it is");
        Some(self.listed_in_the_image(store, list).await)
    }

    /// The listed packages alone, with the image's versions: the rest of an image is no requirement of the task.
    pub(super) async fn listed_in_the_image(&self, store: &Store, list: &List) -> Vec<String> {
        if !self.settings.options.system_site_packages {
            return Vec::new();
        }
        let mut command = self.uv(
            store,
            &["pip", "list", "--format", "json", "--quiet", "--python"],
        );
        command.arg(&self.interpreter.program);
        let listed = tool::run(command, None, QUICK, &mut |_| {}).await;
        // Nothing depends on it but the record in the task.
        listed
            .ok()
            .and_then(|ended| answers::versions(&ended.output, &list.text))
            .unwrap_or_default()
    }

    /// What has to come on top of the image, and how PyTorch is chosen.
    pub(super) async fn missing(
        &self,
        store: &Store,
        list: &List,
        local: &str,
        log: &mut Log<'_>,
    ) -> Result<(Additions, Option<Attempt>), Failure> {
        let lines: Vec<&str> = list.text.lines().collect();
        let mut attempts: Vec<Option<Attempt>> = match self.cuda {
            Some(cuda) if !list.exact => {
                let index = self.settings.options.torch_index.as_deref();
                torch::attempts(&lines, cuda, index)
                    .into_iter()
                    .map(Some)
                    .collect()
            }
            _ => Vec::new(),
        };
        if attempts.is_empty() {
            attempts.push(None);
        }
        let text = format!("{}{local}", list.text);
        let mut last = Failure::new("the Python environment could not be made");
        let mut said = Vec::new();
        for attempt in attempts {
            said.clear();
            let index = attempt
                .as_ref()
                .and_then(|attempt| attempt.index.as_deref());
            let inputs = match &attempt {
                Some(attempt) => self.inputs(list, &with_family(&text, &attempt.lines), index)?,
                None => self.inputs(list, &text, index)?,
            };
            let ended = loop {
                let command = self.dry_run(store, list, &inputs, index::options(self.settings));
                let tried = self
                    .tried(command, inputs.text.as_bytes(), &mut |line: &str| {
                        said.push(line.to_owned());
                    })
                    .await;
                if let Some(ended) = tried.transpose() {
                    break ended;
                }
            };
            self.tell_aid(log);
            match ended {
                Ok(ended) => {
                    let additions = answers::additions(&ended.output);
                    if let Some(attempt) = &attempt {
                        let comes = additions.names().iter().any(|name| torch::is_family(name));
                        let note = if comes {
                            attempt.note.as_str()
                        } else {
                            "PyTorch: the image's own is used"
                        };
                        self.tell_choice(note, log);
                    }
                    return Ok((additions, attempt));
                }
                Err(failure) => last = failure,
            }
        }
        for line in &said {
            log(line);
        }
        Err(last)
    }

    pub(super) fn inputs(
        &self,
        list: &List,
        text: &str,
        index: Option<&str>,
    ) -> Result<Inputs, Failure> {
        let brought = &self.settings.brought;
        let text = remote::on_disk(text, brought);
        let (is_page, own) = (self.settings.options.torch_page, &self.settings.own);
        let mut inputs = Inputs::new(&text, index, is_page, &list.constraints, own)?;
        inputs.overrides(&remote::overrides(brought), &self.settings.own)?;
        let strategy = self.settings.options.index_strategy(list.exact);
        inputs.arguments.extend(strategy.iter().map(OsString::from));
        Ok(inputs)
    }

    /// Asks uv what it would change in the image's Python, which stays as it is.
    fn dry_run(&self, store: &Store, list: &List, inputs: &Inputs, extra: &[&str]) -> Command {
        let mut command = self.uv(
            store,
            &["pip", "install", "--dry-run", "--break-system-packages"],
        );
        command.args(extra).args(&inputs.arguments);
        if list.exact {
            command.arg("--no-deps");
        }
        let options = &self.settings.options;
        if options.force_upgrade {
            command.arg("--upgrade");
        }
        command.args(&options.extra_flags);
        if options.system_site_packages {
            command.arg("--python").arg(&self.interpreter.program);
        } else {
            // An environment that has nothing: what the image holds does not count.
            let target = self.settings.own.join("nothing");
            command
                .arg("--python")
                .arg(&self.interpreter.program)
                .arg("--target")
                .arg(target);
        }
        command
    }
}

/// The list with these lines in place of PyTorch's.
fn with_family(text: &str, lines: &[String]) -> String {
    let rest = text.lines().filter(|line| !torch::is_family(line));
    rest.chain(lines.iter().map(String::as_str))
        .flat_map(|line| [line, "\n"])
        .collect()
}
