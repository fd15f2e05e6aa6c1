//! What is put into an environment: what the image lacks, the parts of the checkout, and last what looks at the others.

use std::path::Path;

use tokio::process::Command;

use super::{Maker, write};
use crate::exec::failure::Failure;
use crate::exec::python::list::{List, package_name};
use crate::exec::python::store::{Place, Store, fetched_anew};
use crate::exec::python::{answers, index, remote};
use crate::exec::tool::Log;

impl Maker<'_> {
    pub(super) async fn venv(&self, store: &Store, place: &Place) -> Result<(), Failure> {
        place.clear()?;
        let mut venv = self.uv(store, &["venv", "--quiet", "--no-project", "--python"]);
        venv.arg(&self.interpreter.program);
        if self.settings.options.system_site_packages {
            venv.arg("--system-site-packages");
        }
        venv.arg(place.folder());
        self.must(venv, None, &mut |_| {}).await?;
        self.show_packages_of_the_image(place)
    }

    /// Builds it; and once more where what uv's cache held of it is damaged.
    pub(super) async fn build_whole(
        &self,
        store: &Store,
        place: &Place,
        list: &List,
        log: &mut Log<'_>,
    ) -> Result<Vec<String>, Failure> {
        let installed = self.build(store, place, list, log).await?;
        let damaged = place.damaged_of_uv();
        if damaged.is_empty() {
            return Ok(installed);
        }
        log(&fetched_anew(&damaged));
        self.settings.forget(store.base(), &damaged).await;
        self.build(store, place, list, log).await
    }

    async fn build(
        &self,
        store: &Store,
        place: &Place,
        list: &List,
        log: &mut Log<'_>,
    ) -> Result<Vec<String>, Failure> {
        self.venv(store, place).await?;
        if !store.links_to(place.folder()) {
            log(
                "the environment lies on another file system than the cache: its files are copied, which takes longer",
            );
        }
        let (optional, list) = self.split_optional(list);
        let (last, list) = self.split_post(&list);
        for line in optional {
            self.install_optional(store, place, &line, log).await;
        }
        if self.pip {
            self.install_by_pip(store, place, &list, log).await?;
        } else {
            self.install(store, place, &list, log).await?;
        }
        for (line, optional) in last {
            self.install_last(store, place, &line, optional, log)
                .await?;
        }
        let frozen = self.frozen(store, place.folder()).await?;
        let of_the_image = self.listed_in_the_image(store, &list).await;
        Ok(answers::installed(&frozen, of_the_image))
    }

    pub(super) async fn frozen(
        &self,
        store: &Store,
        environment: &Path,
    ) -> Result<String, Failure> {
        let mut freeze = self.uv(store, &["pip", "freeze", "--quiet", "--python"]);
        freeze.arg(environment.join("bin/python"));
        let frozen = self.must(freeze, None, &mut |_| {}).await?.output;
        let lines = frozen.lines();
        let lines = lines.map(|line| remote::recorded(line, &self.settings.brought) + "\n");
        Ok(lines.collect())
    }

    /// An image may bring its packages in a virtual environment of its own; "system packages" would not be those.
    fn show_packages_of_the_image(&self, place: &Place) -> Result<(), Failure> {
        let packages = self.interpreter.packages.as_ref();
        let Some(packages) = packages.filter(|_| self.settings.options.system_site_packages) else {
            return Ok(());
        };
        let minor: Vec<&str> = self.interpreter.version.split('.').take(2).collect();
        let folder = format!("lib/python{}/site-packages", minor.join("."));
        let file = place.folder().join(folder).join("trainyard-image.pth");
        write(&file, &format!("{}\n", packages.display()))
    }

    /// uv, about to install into an environment; these options come first.
    pub(super) fn install_into(
        &self,
        store: &Store,
        environment: &Path,
        options: &[&str],
    ) -> Command {
        let mut install = self.uv(store, &["pip", "install"]);
        install
            .args(options)
            .arg("--python")
            .arg(environment.join("bin/python"));
        if !store.links_to(environment) {
            install.env("UV_LINK_MODE", "copy");
        }
        install
    }

    /// What the image lacks of this list.
    pub(super) async fn install(
        &self,
        store: &Store,
        place: &Place,
        list: &List,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let (additions, attempt) = self.missing(store, list, "", log).await?;
        let text = if list.exact {
            list.only(&additions.names())
        } else {
            let elsewhere: Vec<String> = additions
                .others
                .iter()
                .map(|(name, _)| package_name(name))
                .collect();
            let lines = list
                .text
                .lines()
                .filter(|line| elsewhere.contains(&package_name(line)));
            let lines: Vec<&str> = lines.collect();
            list.options() + &list.hashed(&additions.text()) + &lines.join("\n")
        };
        let unnamed = additions.others.len()
            != text.lines().filter(|line| line.contains('@')).count()
            && !list.exact;
        // An address without a name stands for itself: then all is installed as it is written.
        let (text, extra): (&str, &[&str]) = if unnamed {
            (&list.text, &[])
        } else {
            (&text, &["--no-deps"])
        };
        let index = attempt
            .as_ref()
            .and_then(|attempt| attempt.index.as_deref());
        let inputs = self.inputs(list, text, index)?;
        loop {
            let mut install = self.install_into(store, place.folder(), extra);
            install
                .args(&inputs.arguments)
                .args(&self.settings.options.extra_flags)
                .args(index::options(self.settings));
            let tried = self.tried(install, inputs.text.as_bytes(), log).await;
            self.tell_aid(log);
            if tried?.is_some() {
                return Ok(());
            }
        }
    }

    /// The parts of the checkout, into the task's own layer.
    pub(super) async fn install_local(
        &self,
        store: &Store,
        layer: &Path,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let brought = &self.settings.brought;
        let text = if self.pip {
            remote::on_disk(&self.list.text, brought) + &self.list.local
        } else {
            self.list.options() + &self.list.local
        };
        loop {
            let mut install = self.install_into(store, layer, &[]);
            if !self.pip {
                install.arg("--no-deps");
            }
            install
                .args(["-r", "-"])
                .args(index::options(self.settings));
            let tried = self.tried(install, text.as_bytes(), log).await;
            self.tell_aid(log);
            if tried?.is_some() {
                return Ok(());
            }
        }
    }

    /// The lines that are installed last, whether they may fail, and the list without them.
    fn split_post(&self, list: &List) -> (Vec<(String, bool)>, List) {
        let options = &self.settings.options;
        let named = |names: &[String], line: &str| {
            names
                .iter()
                .any(|name| package_name(name) == package_name(line))
        };
        let (mut last, mut text) = (Vec::new(), String::new());
        for line in list.text.lines() {
            if named(&options.post_packages, line) {
                last.push((line.to_owned(), false));
            } else if named(&options.post_optional_packages, line) {
                last.push((line.to_owned(), true));
            } else {
                text.push_str(line);
                text.push('\n');
            }
        }
        let list = List {
            text,
            ..list.clone()
        };
        (last, list)
    }

    /// A package that looks at the others while it is built.
    async fn install_last(
        &self,
        store: &Store,
        place: &Place,
        line: &str,
        optional: bool,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let mut install = self.install_into(store, place.folder(), &["--no-build-isolation"]);
        // pip itself knows no such choice, and the log says so.
        let strategy: &[&str] = if self.pip {
            &[]
        } else {
            self.settings.options.index_strategy(self.list.exact)
        };
        install
            .args(["-r", "-"])
            .args(strategy)
            .args(index::options(self.settings));
        // The indexes that the list names hold for all of it.
        let text = self.list.options() + &remote::on_disk(line, &self.settings.brought);
        match self.must(install, Some(text.as_bytes()), log).await {
            Err(failure) if optional => {
                log(&format!("left out, as it is optional: {failure}"));
                Ok(())
            }
            result => result.map(drop),
        }
    }
}
