//! The list installed with pip, for tasks that ask for it.

use std::path::Path;

use tokio::process::Command;

use super::{Maker, QUICK, write};
use crate::exec::failure::Failure;
use crate::exec::python::install::pip_requirement;
use crate::exec::python::list::List;
use crate::exec::python::store::{Place, Store};
use crate::exec::python::version::{Version, allows};
use crate::exec::python::{answers, index, remote};
use crate::exec::tool::{self, Log};

impl Maker<'_> {
    pub(super) async fn install_by_pip(
        &self,
        store: &Store,
        place: &Place,
        list: &List,
        log: &mut Log<'_>,
    ) -> Result<(), Failure> {
        let python = place.folder().join("bin/python");
        let wanted = pip_requirement(&self.settings.options.pip_version, &self.interpreter.facts);
        let mut pip = self.install_into(store, place.folder(), &["--quiet"]);
        pip.arg(wanted).args(index::options(self.settings));
        self.must(pip, None, log).await?;
        let is_old = self.has_old_resolver(store, &python).await;
        // Builds of old look around in the environment, which then has to hold what they look for.
        let first = self.first(list);
        if !first.is_empty() {
            let text: String = first.iter().flat_map(|line| [*line, "\n"]).collect();
            let first = List {
                text: list.options() + &text,
                ..list.clone()
            };
            let install = self.pip_install(store, place, "priority.txt", &first, is_old)?;
            self.must(install, None, log).await?;
        }
        let install = self.pip_install(store, place, "requirements.txt", list, is_old)?;
        self.must(install, None, log).await.map(drop)
    }

    /// pip, about to install this list, which it reads from a file of that name.
    fn pip_install(
        &self,
        store: &Store,
        place: &Place,
        name: &str,
        list: &List,
        is_old: bool,
    ) -> Result<Command, Failure> {
        let file = place.folder().join(name);
        write(&file, &remote::on_disk(&list.text, &self.settings.brought))?;
        let quiet = [
            "--disable-pip-version-check",
            "--no-input",
            "--progress-bar",
            "off",
        ];
        let mut install = self.settings.child(&place.folder().join("bin/python"));
        install
            .args(["-m", "pip", "install"])
            .args(quiet)
            .arg("-r")
            .arg(&file);
        if !list.constraints.trim().is_empty() {
            let constraints = place.folder().join("constraints.txt");
            write(&constraints, &list.constraints)?;
            install.arg("-c").arg(constraints);
        }
        if self.settings.options.force_upgrade {
            install.arg("--upgrade");
        }
        install.args(&self.settings.options.extra_flags);
        if is_old {
            install.args(["--use-deprecated", "legacy-resolver"]);
        }
        install
            .current_dir(self.working_dir)
            .env("PIP_CACHE_DIR", store.base().join("pip"));
        install.envs(index::pip_variables(self.settings));
        Ok(install)
    }

    /// Whether the pip that was installed is one of those that are to resolve as pip did before 20.3.
    async fn has_old_resolver(&self, store: &Store, python: &Path) -> bool {
        let ranges = &self.settings.options.legacy_resolver;
        let mut list = self.uv(
            store,
            &["pip", "list", "--format", "json", "--quiet", "--python"],
        );
        list.arg(python);
        let listed = tool::run(list, None, QUICK, &mut |_| {}).await;
        let pip = listed
            .ok()
            .and_then(|ended| answers::versions(&ended.output, "pip"))
            .and_then(|lines| Some(lines.first()?.split("==").last()?.to_owned()))
            .and_then(|version| version.parse::<Version>().ok());
        pip.is_some_and(|pip| ranges.iter().any(|range| allows(range, &pip) == Some(true)))
    }
}
