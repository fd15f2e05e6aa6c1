//! Dereference: from names in a binding to a connected client. Secrets are read again and again, so that a rotated one
//! is taken up without a restart.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::cluster::{self, find};
use super::fault;
use super::observe::Identity;
use super::status::Trouble;
use super::together::{self, Seat};
use super::{Context, DefaultServer};
use crate::api::{Client, Credentials, Settings};
use crate::crd::{FileKind, FileRef, QueueBinding, condition};
use crate::pod::{ACCESS_KEY_KEY, SECRET_KEY_KEY};
use crate::render;

/// How often Secret and CA bundle are read again.
const REREAD: Duration = Duration::from_secs(15);
/// `tasks.enqueue` with `update_execution_queue: false`, on which requeueing rests, came with this version.
const OLDEST_API: (u32, u32) = (2, 31);

/// A client for the binding's server, and that server as pods reach it.
pub(super) struct Connection {
    pub client: Client,
    /// Where this binding's looks are made together with those of others.
    pub seat: Seat,
    pub server: render::Server,
    /// What it was made from: versions of the objects, and the spec's generation.
    made_from: String,
    next_read: Instant,
    version_checked: bool,
}

impl Connection {
    /// Reads the objects again at the next opportunity: the server has refused the credentials.
    pub fn doubt(&mut self) {
        self.next_read = Instant::now();
    }

    /// That the server is there, knows us and is new enough.
    pub async fn check_version(&mut self) -> Result<(), Trouble> {
        if self.version_checked {
            return Ok(());
        }
        let version = self
            .client
            .api_version()
            .await
            .map_err(|error| Trouble::from(&error))?;
        fault::point!("connect/version-read");
        if let Some((major, minor)) = version.filter(|version| *version < OLDEST_API) {
            let (needed_major, needed_minor) = OLDEST_API;
            return Err(Trouble::new(
                condition::SERVER_REACHABLE,
                "TooOld",
                format!(
                    "the server speaks API {major}.{minor}; trainyard needs {needed_major}.{needed_minor} or newer, update the server"
                ),
            ));
        }
        self.version_checked = true;
        Ok(())
    }
}

/// Where the binding's server is, from the binding and the controller's own settings.
struct Address<'a> {
    api_url: &'a str,
    web_url: Option<&'a str>,
    files_url: Option<&'a str>,
    secret: &'a str,
    ca: Option<FileRef>,
    proxy: Option<&'a str>,
}

/// The connection, made anew only if something it was made from has changed.
pub(super) async fn connect(
    context: &Context,
    binding: &QueueBinding,
    identity: &Identity,
    connection: &mut Option<Connection>,
) -> Result<(), Trouble> {
    let now = Instant::now();
    let generation = binding.metadata.generation.unwrap_or_default();
    let prefix = format!("{generation}/");
    if connection
        .as_ref()
        .is_some_and(|known| now < known.next_read && known.made_from.starts_with(&prefix))
    {
        return Ok(());
    }
    let address = address(binding, context.settings.server.as_ref())?;
    let namespace = binding.namespace().unwrap_or_default();
    let (access_key, secret_key, secret_version) =
        keys(context, &namespace, address.secret).await?;
    let (ca, ca_version) = match &address.ca {
        None => (None, String::new()),
        Some(reference) => {
            let (text, version) =
                file(context, &namespace, reference)
                    .await
                    .map_err(|message| {
                        Trouble::new(
                            condition::SERVER_REACHABLE,
                            "CaBundleMissing",
                            format!("spec.server.caBundleRef: {message}"),
                        )
                    })?;
            (Some(text), version)
        }
    };
    let made_from = format!("{prefix}{secret_version}/{ca_version}");
    if let Some(known) = connection
        .as_mut()
        .filter(|known| known.made_from == made_from)
    {
        known.next_read = now + REREAD;
        return Ok(());
    }
    let client = |worker: &str| {
        let keys = Credentials::keys(access_key.as_str(), secret_key.expose_secret());
        let settings = Settings {
            ca: ca.clone(),
            proxy: address.proxy.map(SecretString::from),
            timeout: super::request_timeout(),
            metrics: Some(context.metrics.clone()),
            ..Settings::new(address.api_url, keys, worker)
        };
        Client::new(settings).map_err(|error| {
            Trouble::new(
                condition::SERVER_REACHABLE,
                "SettingsRefused",
                format!("spec.server: {error}"),
            )
        })
    };
    let whom = together::Whom {
        api_url: address.api_url.to_owned(),
        access_key: access_key.clone(),
        secret_key: secret_key.clone(),
        ca: ca.clone(),
        proxy: address.proxy.map(str::to_owned),
    };
    let seat = context
        .servers
        .seat(whom, || client(&context.settings.worker))?;
    let client = client(&identity.worker.0)?;
    let derived = derived(&client, &address).await?;
    let server = render::Server {
        api_url: address.api_url.to_owned(),
        web_url: Some(address.web_url.map_or(derived.web, str::to_owned)),
        files_url: Some(address.files_url.map_or(derived.files, str::to_owned)),
        credentials_secret: address.secret.to_owned(),
        ca_bundle: address.ca,
        proxy: address.proxy.map(str::to_owned),
    };
    *connection = Some(Connection {
        client,
        seat,
        server,
        made_from,
        next_read: now + REREAD,
        version_checked: false,
    });
    Ok(())
}

/// Web and files addresses for where none are given; the server is asked whether it has files below its own address.
async fn derived(client: &Client, address: &Address<'_>) -> Result<Derived, Trouble> {
    if address.files_url.is_some() {
        return Ok(Derived::of(address.api_url));
    }
    let found = client.files_below_api().await;
    fault::point!("connect/files-read");
    Ok(match found.map_err(|error| Trouble::from(&error))? {
        Some(files) => Derived {
            web: address.api_url.trim_end_matches('/').to_owned(),
            files,
        },
        None => Derived::of(address.api_url),
    })
}

/// The server as pods would reach it, as far as the binding says; nobody is asked.
pub(super) fn assumed(
    binding: &QueueBinding,
    default: Option<&DefaultServer>,
) -> Result<render::Server, Trouble> {
    let address = address(binding, default)?;
    let derived = Derived::of(address.api_url);
    Ok(render::Server {
        api_url: address.api_url.to_owned(),
        web_url: Some(address.web_url.map_or(derived.web, str::to_owned)),
        files_url: Some(address.files_url.map_or(derived.files, str::to_owned)),
        credentials_secret: address.secret.to_owned(),
        ca_bundle: address.ca,
        proxy: address.proxy.map(str::to_owned),
    })
}

fn address<'a>(
    binding: &'a QueueBinding,
    default: Option<&'a DefaultServer>,
) -> Result<Address<'a>, Trouble> {
    let given = binding.spec.server.as_ref();
    let own_url = given.and_then(|server| server.api_url.as_deref());
    let secret = given
        .and_then(|server| server.credentials_secret_ref.as_ref())
        .map(|secret| secret.name.as_str());
    // Other addresses of the default server belong to it alone.
    let rest = default.filter(|_| own_url.is_none());
    let Some(api_url) = own_url.or(rest.map(|default| default.api_url.as_str())) else {
        return Err(Trouble::new(
            condition::SERVER_REACHABLE,
            "NoServer",
            "spec.server.apiUrl is not given and the controller has no server of its own; give it here or to the controller (--api-url)",
        ));
    };
    let Some(secret) = secret.or(rest.and_then(|default| default.credentials_secret.as_deref()))
    else {
        return Err(Trouble::new(
            condition::CREDENTIALS_VALID,
            "NoCredentials",
            "spec.server.credentialsSecretRef is not given; name a Secret with the keys access_key and secret_key",
        ));
    };
    Ok(Address {
        api_url,
        web_url: given
            .and_then(|server| server.web_url.as_deref())
            .or(rest.and_then(|default| default.web_url.as_deref())),
        files_url: given
            .and_then(|server| server.files_url.as_deref())
            .or(rest.and_then(|default| default.files_url.as_deref())),
        secret,
        ca: given
            .and_then(|server| server.ca_bundle_ref.clone())
            .or_else(|| {
                let name = rest?.ca_config_map.clone()?;
                Some(FileRef {
                    kind: FileKind::ConfigMap,
                    name,
                    key: "ca.crt".into(),
                })
            }),
        proxy: given.and_then(|server| server.proxy_url.as_deref()),
    })
}

/// Key and secret, and the version of the Secret that they are from.
async fn keys(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<(String, SecretString, String), Trouble> {
    let trouble =
        |reason, message: String| Trouble::new(condition::CREDENTIALS_VALID, reason, message);
    let api: Api<Secret> = Api::namespaced(context.kube.clone(), namespace);
    let secret = find(api.get_opt(name))
        .await
        .map_err(|error| trouble("SecretUnreadable", format!("Secret {name:?} in namespace {namespace:?} could not be read: {error}")))?
        .ok_or_else(|| trouble("SecretMissing", format!("there is no Secret {name:?} in namespace {namespace:?}; create it with the keys {ACCESS_KEY_KEY} and {SECRET_KEY_KEY}")))?;
    fault::point!("connect/secret-read");
    let value = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let text = bytes
            .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
            .map(str::trim);
        text.filter(|text| !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| {
                trouble(
                    "KeyMissing",
                    format!("Secret {name:?} in namespace {namespace:?} has no readable key {key}"),
                )
            })
    };
    Ok((
        value(ACCESS_KEY_KEY)?,
        SecretString::from(value(SECRET_KEY_KEY)?),
        version(&secret),
    ))
}

/// One key of a ConfigMap or Secret, and the object's version; or what is wrong, in words.
pub(super) async fn file(
    context: &Context,
    namespace: &str,
    reference: &FileRef,
) -> Result<(Vec<u8>, String), String> {
    let FileRef { kind, name, key } = reference;
    let missing = |kind: &str| format!("there is no {kind} {name:?} in namespace {namespace:?}");
    let unreadable = |error: cluster::Error| {
        format!("{name:?} in namespace {namespace:?} could not be read: {error}")
    };
    let no_key = || format!("{name:?} in namespace {namespace:?} has no key {key:?}");
    match kind {
        FileKind::ConfigMap => {
            let api: Api<ConfigMap> = Api::namespaced(context.kube.clone(), namespace);
            let map = find(api.get_opt(name))
                .await
                .map_err(unreadable)?
                .ok_or_else(|| missing("ConfigMap"))?;
            fault::point!("file/map-read");
            let text = map
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .map(|text| text.clone().into_bytes());
            let bytes = text.or_else(|| Some(map.binary_data.as_ref()?.get(key)?.0.clone()));
            Ok((bytes.ok_or_else(no_key)?, version(&map)))
        }
        FileKind::Secret => {
            let api: Api<Secret> = Api::namespaced(context.kube.clone(), namespace);
            let secret = find(api.get_opt(name))
                .await
                .map_err(unreadable)?
                .ok_or_else(|| missing("Secret"))?;
            fault::point!("file/secret-read");
            let bytes = secret
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .map(|bytes| bytes.0.clone());
            Ok((bytes.ok_or_else(no_key)?, version(&secret)))
        }
    }
}

fn version(object: &impl ResourceExt) -> String {
    format!(
        "{}@{}",
        object.uid().unwrap_or_default(),
        object.resource_version().unwrap_or_default()
    )
}

/// Web and files addresses as the SDK derives them from the API's, where nobody gives them and the server has no files
/// below its own address: `api.` becomes `app.` and
/// `files.`, port 8008 becomes 8080 and 8081; anything else serves all three itself.
struct Derived {
    web: String,
    files: String,
}

impl Derived {
    fn of(api_url: &str) -> Self {
        let replaced = |port: u16, host: &str| {
            let mut url = url::Url::parse(api_url).ok()?;
            if let Some(rest) = url.host_str().and_then(|name| name.strip_prefix("api.")) {
                let name = format!("{host}.{rest}");
                url.set_host(Some(&name)).ok()?;
            } else if url.port() == Some(8008) {
                url.set_port(Some(port)).ok()?;
            }
            Some(url.as_str().trim_end_matches('/').to_owned())
        };
        let own = || api_url.trim_end_matches('/').to_owned();
        Self {
            web: replaced(8080, "app").unwrap_or_else(own),
            files: replaced(8081, "files").unwrap_or_else(own),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn binding(server: &Value) -> QueueBinding {
        serde_json::from_value(json!({"metadata": {"name": "gpu"}, "spec": {"queues": [{"name": "gpu"}], "server": server}}))
            .unwrap()
    }

    fn default_server() -> DefaultServer {
        DefaultServer {
            api_url: "http://own:8008".into(),
            web_url: None,
            files_url: Some("http://own-files".into()),
            credentials_secret: Some("own".into()),
            ca_config_map: None,
        }
    }

    #[test]
    fn addresses_are_derived_as_the_sdk_does() {
        let derived = Derived::of("https://api.clear.example/");
        assert_eq!(
            (derived.web.as_str(), derived.files.as_str()),
            ("https://app.clear.example", "https://files.clear.example")
        );
        let derived = Derived::of("http://host:8008");
        assert_eq!(
            (derived.web.as_str(), derived.files.as_str()),
            ("http://host:8080", "http://host:8081")
        );
        let derived = Derived::of("http://10.89.0.1:18100/");
        assert_eq!(
            (derived.web.as_str(), derived.files.as_str()),
            ("http://10.89.0.1:18100", "http://10.89.0.1:18100")
        );
    }

    #[test]
    fn the_controllers_keys_and_addresses_are_never_mixed_into_another_server() {
        let default = default_server();
        let other =
            binding(&json!({"apiUrl": "http://other", "credentialsSecretRef": {"name": "theirs"}}));
        let address = address(&other, Some(&default)).unwrap();
        assert_eq!(
            (address.api_url, address.secret, address.files_url),
            ("http://other", "theirs", None)
        );
        let without_keys = binding(&json!({"apiUrl": "http://other"}));
        assert_eq!(
            super::address(&without_keys, Some(&default))
                .err()
                .unwrap()
                .reason,
            "NoCredentials"
        );
    }

    #[test]
    fn a_binding_without_a_server_uses_the_controllers() {
        let default = default_server();
        let plain = binding(&Value::Null);
        let found = address(&plain, Some(&default)).unwrap();
        assert_eq!(
            (found.api_url, found.secret, found.files_url),
            ("http://own:8008", "own", Some("http://own-files"))
        );
        assert_eq!(address(&plain, None).err().unwrap().reason, "NoServer");
    }

    #[test]
    fn the_proxy_of_a_binding_is_the_controllers_way_and_that_of_the_pods() {
        let default = default_server();
        let way = "http://proxy:3128";
        let theirs = json!({"apiUrl": "http://other", "credentialsSecretRef": {"name": "theirs"}, "proxyUrl": way});
        for (server, api_url) in [
            (theirs, "http://other"),
            (json!({"proxyUrl": way}), "http://own:8008"),
        ] {
            let binding = binding(&server);
            // What the controller's own client is made with.
            let found = address(&binding, Some(&default)).unwrap();
            assert_eq!((found.api_url, found.proxy), (api_url, Some(way)));
            let pods = assumed(&binding, Some(&default)).unwrap();
            assert_eq!(
                (pods.api_url.as_str(), pods.proxy.as_deref()),
                (api_url, Some(way))
            );
        }
        let without = assumed(&binding(&Value::Null), Some(&default)).unwrap();
        assert_eq!(without.proxy, None);
    }
}
