//! A repository to check out from, and a place to check out to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use trainyard::exec::failure::Failure;
use trainyard::exec::git::{Checked, GitSettings, checkout};
use trainyard::exec::plan::{Checkout, Revision};

/// Git is given up after so long; what is told sooner was not waited for in vain.
pub const HUNG: Duration = Duration::from_mins(3);

/// Runs git as a person would, without the settings of the machine; its trimmed output.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "a")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "a@b")))
        .output()
        .expect("git runs (apt-get install git)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with a work tree, where commits are made.
pub struct Origin {
    folder: TempDir,
}

impl Origin {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        git(
            folder.path(),
            &["init", "--quiet", "--initial-branch", "main"],
        );
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git(self.folder.path(), arguments)
    }

    pub fn git_in(&self, folder: &str, arguments: &[&str]) -> String {
        git(&self.folder.path().join(folder), arguments)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let file = self.folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a folder is made");
        fs::write(file, content).expect("a file is written");
    }

    /// Adds another repository as a submodule, for the next commit.
    pub fn add_submodule(&self, library: &Self, folder: &str) {
        self.git(&[
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            &library.url(),
            folder,
        ]);
    }

    /// Commits everything, with this file; the commit.
    pub fn commit(&self, name: &str, content: &str) -> String {
        self.write(name, content);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", name]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// A commit of a repository.
pub fn wanted(url: &str, commit: &str) -> Checkout {
    Checkout {
        url: url.to_owned(),
        revision: Revision::Commit(commit.to_owned()),
        branch: None,
        credentials: None,
    }
}

/// Where code goes, and what was logged on the way.
pub struct Dest {
    folder: TempDir,
    pub settings: GitSettings,
    log: Mutex<Vec<String>>,
}

impl Dest {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        fs::create_dir(folder.path().join("code")).expect("a folder is made");
        let settings = GitSettings {
            limit: HUNG,
            ..GitSettings::default()
        };
        Self {
            folder,
            settings,
            log: Mutex::new(Vec::new()),
        }
    }

    /// With a shell script in place of git.
    pub fn with_git(script: &str) -> Self {
        let mut dest = Self::new();
        dest.settings.git = dest.program("git", script);
        dest
    }

    /// An executable shell script beside the code.
    pub fn program(&self, name: &str, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let file = self.folder.path().join(name);
        let new = self.folder.path().join("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("a script is written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))
            .expect("it is made executable");
        fs::rename(&new, &file).expect("it is renamed");
        file
    }

    /// A mounted Secret.
    pub fn give(&mut self, key: &str, value: &str) {
        let secret = self.folder.path().join("secret");
        fs::create_dir_all(&secret).expect("a folder is made");
        fs::write(secret.join(key), value).expect("a key is written");
        self.settings.credentials = Some(secret);
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("code")
    }

    pub async fn checkout(&self, wanted: &Checkout) -> Result<Checked, Failure> {
        let mut log = |line: &str| self.log.lock().expect("the log").push(line.to_owned());
        checkout(wanted, &self.path(), &self.settings, &mut log).await
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).expect("the file is there")
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.path(), arguments)
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("the log").join("\n")
    }
}
