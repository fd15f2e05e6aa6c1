//! The programs of the network, all on the address that pods reach, and what each was asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::super::experiment;
use super::super::world::{Proc, World, wait};
use crate::git::servers::{Server, free_port};

const FRONT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/e2e/s17_closed_network/front.py"
);
pub const GIT: &str = "git.internal";
pub const INDEX: &str = "index.internal";
pub const CHANNEL: &str = "conda.internal";
pub const REGISTRY: &str = "registry.internal";
/// What the proxy knows, and nothing else.
pub const PROXIED: [&str; 4] = [GIT, INDEX, CHANNEL, REGISTRY];

pub struct Network {
    pub authority: String,
    server: String,
    proxy: String,
    /// Where conda's channel is without the proxy.
    pub channel: String,
    /// Where the node finds the registry.
    pub registry: String,
    pub commit: String,
    fronts: Fronts,
    _hosts: Hosts,
    _git: (Server, tokio::runtime::Runtime),
}

fn openssl(folder: &Path, args: &str) {
    let output = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An authority, and one certificate of it for all names.
pub fn certificates(folder: &Path, host: &str) -> String {
    openssl(
        folder,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
    );
    openssl(
        folder,
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=internal -keyout key.pem -out request.pem",
    );
    let names = PROXIED.map(|name| format!("DNS:{name}")).join(",");
    fs::write(
        folder.join("names"),
        format!("subjectAltName=IP:{host},{names}\n"),
    )
    .expect("names are written");
    openssl(
        folder,
        "x509 -req -in request.pem -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem",
    );
    fs::read_to_string(folder.join("ca.crt")).expect("the authority is there")
}

/// How an image of the cluster's registry is called inside.
pub fn inside(world: &World, image: &str) -> String {
    let path = image
        .strip_prefix(&world.place.registry)
        .unwrap_or_else(|| panic!("{image} is not of {}", world.place.registry));
    format!("{REGISTRY}{path}")
}

/// What tells the cluster's node where the registry inside is and whom to trust, as long as this value lives: containerd
/// reads it at every pull.
struct Hosts(PathBuf);

impl Hosts {
    fn write(world: &World, address: &str, authority: &Path) -> Self {
        let all = &world.place.registry_hosts;
        assert!(
            all.is_absolute(),
            "the node of this cluster cannot be told of a registry; unset KUBECONFIG for the local one"
        );
        let folder = all.join(REGISTRY);
        fs::create_dir_all(&folder).expect("folder is made");
        let text = format!(
            "server = \"https://{address}\"\n\n[host.\"https://{address}\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = \"{}\"\n",
            authority.display()
        );
        fs::write(folder.join("hosts.toml"), text).expect("the host is written");
        Self(folder)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Programs of `front.py`: the record of each lies beside its log.
struct Fronts {
    folder: PathBuf,
    host: String,
    running: Vec<Proc>,
}

impl Fronts {
    fn start(&mut self, name: &str, arguments: &[&str]) {
        let mut command = Command::new("/usr/bin/python3");
        command.arg(FRONT).args(arguments);
        let mut program = Proc::start(&mut command, &self.folder.join(format!("{name}.log")));
        wait(&format!("{name} listens"), 20, || {
            assert!(!program.has_ended(), "{arguments:?}: {}", program.log());
            program.log().contains("listening").then_some(())
        });
        self.running.push(program);
    }

    /// TLS before what listens at `target`, whose URL or address this is; gives where.
    fn tls(&mut self, name: &str, target: &str) -> String {
        let rest = target.trim_start_matches("http://");
        let target = rest.split('/').next().unwrap_or_default();
        let address = self.free();
        let (cert, key) = (self.at("cert.pem"), self.at("key.pem"));
        let record = self.at(&format!("{name}.record"));
        self.start(name, &["tls", &address, &cert, &key, target, &record]);
        address
    }

    /// The proxy, which leads names to addresses; gives where.
    fn proxy(&mut self, known: &[(&str, &str)]) -> String {
        let address = self.free();
        let record = self.at("proxy.record");
        let known: Vec<String> = known
            .iter()
            .map(|(name, address)| format!("{name}={address}"))
            .collect();
        let mut arguments = vec!["proxy", &address, &record];
        arguments.extend(known.iter().map(String::as_str));
        self.start("proxy", &arguments);
        address
    }

    fn packets(&mut self) {
        let record = self.at("packets.record");
        self.start("packets", &["packets", "trainyard0", &record]);
    }

    fn free(&self) -> String {
        format!("{}:{}", self.host, free_port(&self.host))
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// A server of the repository of these files, and their commit.
fn serve(folder: &Path, files: &[(String, String)]) -> (String, (Server, tokio::runtime::Runtime)) {
    fs::create_dir_all(folder.join("served")).expect("folder is made");
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let commit = experiment::commit(folder, &files);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    let server = runtime.block_on(Server::start(&folder.join("served"), None));
    (commit, (server, runtime))
}

impl Network {
    /// With a repository of these files, and with the channel of conda that has this URL outside.
    pub fn start(world: &World, files: &[(String, String)], channel: &str) -> Self {
        let folder = world.dir.path().join("network");
        fs::create_dir_all(&folder).expect("folder is made");
        let authority = certificates(&folder, &world.place.gateway);
        let (commit, repositories) = serve(&folder, files);
        let mut fronts = Fronts {
            folder,
            host: world.place.gateway.clone(),
            running: Vec::new(),
        };
        let server = fronts.tls("server", &world.url);
        let git = fronts.tls(GIT, &repositories.0.url);
        let index = fronts.tls(INDEX, &world.place.index_url);
        let channel = fronts.tls(CHANNEL, channel);
        let registry = fronts.tls(REGISTRY, &world.place.registry);
        let proxy = fronts.proxy(&[
            (GIT, git.as_str()),
            (INDEX, index.as_str()),
            (CHANNEL, channel.as_str()),
            (REGISTRY, registry.as_str()),
        ]);
        fronts.packets();
        Self {
            authority,
            server: format!("https://{server}"),
            proxy: format!("http://{proxy}"),
            channel,
            commit,
            _hosts: Hosts::write(world, &registry, &fronts.folder.join("ca.crt")),
            registry,
            fronts,
            _git: repositories,
        }
    }

    /// What the program of this name was asked, or has seen.
    pub fn record(&self, name: &str) -> Vec<String> {
        let file = self.fronts.folder.join(format!("{name}.record"));
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What a controller needs to ask the registry. `HTTPS_PROXY` would lead to the API server, too, where a kubeconfig
    /// says how it is reached.
    pub fn of_controller(&self, world: &World) -> [(String, String); 3] {
        let authority = self.fronts.at("ca.crt");
        [
            ("ALL_PROXY", self.proxy.as_str()),
            ("NO_PROXY", world.place.gateway.as_str()),
            ("TRAINYARD_REGISTRY_CA", authority.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// The share of a binding whose tasks run in this image, which the node asks for at every pod.
    pub fn patch(&self, world: &World, image: &str) -> Value {
        let bundle = json!({"kind": "ConfigMap", "name": "corp-ca", "key": "ca.crt"});
        let env = [
            ("HTTPS_PROXY", self.proxy.as_str()),
            ("HTTP_PROXY", self.proxy.as_str()),
            ("NO_PROXY", world.place.gateway.as_str()),
        ]
        .map(|(name, value)| json!({"name": name, "value": value}));
        json!({
            "server": {"apiUrl": self.server, "webUrl": self.server, "filesUrl": format!("{}/files", self.server),
                       "caBundleRef": bundle},
            "environment": {"indexUrl": format!("https://{INDEX}/simple/"), "caBundleRef": bundle},
            "imageCheck": "Enforce",
            "overrides": {"image": {"allow": [format!("{REGISTRY}/*")]}},
            "template": {"spec": {"containers": [
                {"name": "task", "image": image, "imagePullPolicy": "Always", "env": env},
            ]}},
        })
    }
}
