//! Debian's own ssh server on a port of this machine, with keys of its own, for the present user; ends with its value.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};
use tempfile::TempDir;

use super::servers::free_port;

/// It starts itself anew for each connection, and therefore wants to be called by its whole path.
const PROGRAM: &str = "/usr/sbin/sshd";

/// The kind of key that all use who have no reason for another one.
pub const USUAL: [&str; 2] = ["-t", "ed25519"];

/// A private key, and the line of its public one.
pub struct Keys {
    pub private: String,
    pub public: String,
}

impl Keys {
    /// New ones of this kind, in the arguments of `ssh-keygen`.
    pub fn new(kind: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        let file = folder.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", "test", "-f"])
            .arg(&file)
            .args(kind)
            .stdin(Stdio::null())
            .status()
            .expect("ssh-keygen runs (apt-get install openssh-client)");
        assert!(made.success(), "ssh-keygen {kind:?}");
        let read = |file: &Path| fs::read_to_string(file).expect("a key is readable");
        Self {
            private: read(&file),
            public: read(&file.with_extension("pub")),
        }
    }
}

/// The server; whoever has a key that it lets in is the present user.
pub struct Sshd {
    folder: TempDir,
    child: Child,
    host: Keys,
    /// Where it listens.
    address: String,
    pub port: u16,
    pub user: String,
}

impl Sshd {
    /// `more` stands for further lines of its configuration.
    pub fn start(more: &str) -> Self {
        Self::start_on("127.0.0.1", more)
    }

    /// The same on another address of this machine. A port that was free a moment ago may be somebody else's by now.
    pub fn start_on(address: &str, more: &str) -> Self {
        for _ in 0..5 {
            let mut server = Self::spawn(address, more);
            if server.listens() {
                return server;
            }
        }
        panic!("sshd found five ports taken");
    }

    fn spawn(address: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder is made");
        let host = Keys::new(&USUAL);
        append(&folder.path().join("host"), &host.private);
        let port = free_port(address);
        append(
            &folder.path().join("sshd_config"),
            &configuration(folder.path(), address, port, more),
        );
        if Uid::effective().is_root() {
            // The part that faces the network is locked into this folder; systemd makes it, where it runs.
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create("/run/sshd");
            made.expect("/run/sshd is made");
        }
        let child = Command::new(PROGRAM)
            .arg("-D")
            .arg("-f")
            .arg(folder.path().join("sshd_config"))
            .arg("-E")
            .arg(folder.path().join("log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd runs (apt-get install openssh-server)");
        let user = User::from_uid(Uid::effective()).expect("users are readable");
        Self {
            folder,
            child,
            host,
            address: address.to_owned(),
            port,
            user: user.expect("the present user has a name").name,
        }
    }

    /// Waits until it does; `false` where its port is taken.
    fn listens(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.log().contains("Server listening on") {
            let ended = self.child.try_wait().expect("it is a child of ours");
            if ended.is_some() && self.log().contains("Address already in use") {
                return false;
            }
            let goes_on = ended.is_none() && Instant::now() < until;
            assert!(goes_on, "sshd does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    /// Lets in who has the private part of this key.
    pub fn let_in(&self, keys: &Keys) {
        append(&self.folder.path().join("authorized_keys"), &keys.public);
    }

    /// The address of a repository, by its path on this machine.
    pub fn url(&self, repository: &Path) -> String {
        let (user, address, port) = (&self.user, &self.address, self.port);
        format!("ssh://{user}@{address}:{port}{}", repository.display())
    }

    /// The line of a `known_hosts` by which it is known.
    pub fn known_as_it_is(&self) -> String {
        self.known_as(&self.host)
    }

    /// The line by which a server of another key in its place would be known.
    pub fn known_as(&self, keys: &Keys) -> String {
        format!("[{}]:{} {}", self.address, self.port, keys.public)
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Whether it has let anybody in.
    pub fn has_let_in(&self) -> bool {
        self.log().contains("Accepted publickey")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keys and nothing else; neither PAM nor the owners of the folders above have a say.
fn configuration(folder: &Path, address: &str, port: u16, more: &str) -> String {
    let folder = folder.display();
    format!(
        "ListenAddress {address}:{port}\n\
         HostKey {folder}/host\n\
         AuthorizedKeysFile {folder}/authorized_keys\n\
         PidFile none\n\
         LogLevel VERBOSE\n\
         StrictModes no\n\
         UsePAM no\n\
         PubkeyAuthentication yes\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         PermitUserRC no\n\
         {more}\n"
    )
}

/// Adds to a file that nobody else may read.
fn append(file: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).mode(0o600).open(file);
    let mut file = opened.expect("a file is opened");
    file.write_all(text.as_bytes())
        .expect("a file is written to");
}
