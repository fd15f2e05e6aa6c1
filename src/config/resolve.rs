//! From flags, environment variables and `clearml.conf` to settings.

use std::net::SocketAddr;

use super::conf::Document;
use super::env::{self, Environment};
use super::settings::{
    Credentials, LogFormat, Origin, Raw, RegistrySettings, Scope, ServerSettings, Setting,
    SettingError, Settings, TaskPodSettings,
};

impl Settings {
    /// Resolves what was typed, the environment and a `clearml.conf` (path and content) into settings.
    pub fn resolve(
        raw: &Raw,
        environment: &Environment,
        conf: Option<(&str, &Document)>,
    ) -> Result<Self, Vec<SettingError>> {
        let mut lookup = Lookup {
            environment,
            conf,
            errors: Vec::new(),
        };
        let settings = lookup.settings(raw);
        match settings {
            Some(settings) if lookup.errors.is_empty() => Ok(settings),
            _ => Err(lookup.errors),
        }
    }
}

/// One place to look for values, in the order flag, variable, file.
struct Lookup<'a> {
    environment: &'a Environment,
    conf: Option<(&'a str, &'a Document)>,
    errors: Vec<SettingError>,
}

impl Lookup<'_> {
    fn settings(&mut self, raw: &Raw) -> Option<Settings> {
        let api_url = self.url(
            "api-url",
            raw.api_url.as_deref(),
            env::API_HOST,
            "api.api_server",
        );
        let web_url = self.url(
            "web-url",
            raw.web_url.as_deref(),
            env::WEB_HOST,
            "api.web_server",
        );
        let files_url = self.url(
            "files-url",
            raw.files_url.as_deref(),
            env::FILES_HOST,
            "api.files_server",
        );
        let credentials = self.credentials(raw);
        let pods = self.pods(raw);
        let namespace = self.name("namespace", raw.namespace.as_deref(), env::NAMESPACE);
        let ca_config_map = self.name(
            "server-ca-config-map",
            raw.server_ca_config_map.as_deref(),
            env::SERVER_CA_CONFIG_MAP,
        );
        let cluster_id = self.name("cluster-id", raw.cluster_id.as_deref(), env::CLUSTER_ID);
        let scope = self.one_of(
            ("scope", raw.scope.as_deref(), env::SCOPE),
            &[("namespace", Scope::Namespace), ("cluster", Scope::Cluster)],
        );
        let log_format = self.one_of(
            ("log-format", raw.log_format.as_deref(), env::LOG_FORMAT),
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        );
        let listen = self.listen(raw);
        let registries = RegistrySettings {
            ca: self.text("registry-ca", raw.registry_ca.as_deref(), env::REGISTRY_CA),
            plain_http: self.list(
                "plain-http-registries",
                raw.plain_http_registries.as_deref(),
                env::PLAIN_HTTP_REGISTRIES,
            ),
        };
        let log = self.text("log", raw.log.as_deref(), env::LOG);
        Some(Settings {
            server: ServerSettings {
                api_url,
                web_url,
                files_url,
                credentials,
                ca_config_map,
            },
            pods: pods?,
            registries,
            namespace,
            scope,
            cluster_id,
            worker_id: self.text("worker-id", raw.worker_id.as_deref(), env::WORKER_ID),
            identity: self.text("identity", raw.identity.as_deref(), env::IDENTITY),
            listen,
            log: log.unwrap_or(Setting {
                value: "info".into(),
                origin: Origin::Default,
            }),
            log_format,
        })
    }

    fn error<T>(
        &mut self,
        setting: &'static str,
        message: impl Into<String>,
        origin: Origin,
    ) -> Option<T> {
        self.errors.push(SettingError {
            setting,
            message: message.into(),
            origin,
        });
        None
    }

    /// The text of a setting, from a flag or a variable.
    fn text(
        &self,
        flag: &'static str,
        typed: Option<&str>,
        variable: &'static str,
    ) -> Option<Setting<String>> {
        if let Some(value) = typed {
            return Some(Setting {
                value: value.trim().to_owned(),
                origin: Origin::Flag(flag),
            });
        }
        let value = self.environment.get(variable)?.trim().to_owned();
        Some(Setting {
            value,
            origin: Origin::Variable(variable),
        })
    }

    /// A list of words with commas between them, from a flag or a variable.
    fn list(
        &self,
        flag: &'static str,
        typed: Option<&str>,
        variable: &'static str,
    ) -> Setting<Vec<String>> {
        let text = self.text(flag, typed, variable).unwrap_or(Setting {
            value: String::new(),
            origin: Origin::Default,
        });
        text.map(|list| {
            list.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        })
    }

    /// The text of a key of the file.
    fn of_file(&self, key: &'static str) -> Option<Setting<String>> {
        let (path, document) = self.conf?;
        let value = document.text(key)?.trim().to_owned();
        let origin = Origin::File {
            path: path.to_owned(),
            key,
            line: document.line(key),
        };
        (!value.is_empty()).then_some(Setting { value, origin })
    }

    fn url(
        &mut self,
        flag: &'static str,
        typed: Option<&str>,
        variable: &'static str,
        key: &'static str,
    ) -> Option<Setting<String>> {
        let setting = self
            .text(flag, typed, variable)
            .or_else(|| self.of_file(key))?;
        let parsed = url::Url::parse(&setting.value);
        let usable = parsed.as_ref().is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        });
        if usable {
            return Some(setting.map(|url| url.trim_end_matches('/').to_owned()));
        }
        // A URL may hold a password, so it is not repeated.
        self.error(
            flag,
            "is not an address such as https://api.clear.example, without user and password",
            setting.origin,
        )
    }

    /// A name that Kubernetes accepts.
    fn name(
        &mut self,
        flag: &'static str,
        typed: Option<&str>,
        variable: &'static str,
    ) -> Option<Setting<String>> {
        let setting = self.text(flag, typed, variable)?;
        if is_dns_name(&setting.value) {
            return Some(setting);
        }
        let message = format!(
            "{:?} is no Kubernetes name: lower-case letters, digits, - and ., at most 253 of them",
            setting.value.chars().take(80).collect::<String>()
        );
        self.error(flag, message, setting.origin)
    }

    /// One of a few words; the first is the default.
    fn one_of<T: Copy>(
        &mut self,
        (flag, typed, variable): (&'static str, Option<&str>, &'static str),
        words: &[(&str, T)],
    ) -> Setting<T> {
        let default = Setting {
            value: words[0].1,
            origin: Origin::Default,
        };
        let Some(setting) = self.text(flag, typed, variable) else {
            return default;
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == setting.value) {
            return Setting {
                value: *value,
                origin: setting.origin,
            };
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("is {:?}, not one of {}", setting.value, known.join(", "));
        self.error::<()>(flag, message, setting.origin);
        default
    }

    fn listen(&mut self, raw: &Raw) -> Setting<SocketAddr> {
        let default = Setting {
            value: SocketAddr::from(([0, 0, 0, 0], 8080)),
            origin: Origin::Default,
        };
        let Some(setting) = self.text("listen", raw.listen.as_deref(), env::LISTEN) else {
            return default;
        };
        if let Ok(value) = setting.value.parse() {
            return Setting {
                value,
                origin: setting.origin,
            };
        }
        let message = format!(
            "is {:?}, not an address and port such as 0.0.0.0:8080",
            setting.value
        );
        self.error::<()>("listen", message, setting.origin);
        default
    }

    /// The Secret if one is named, else both keys from one place.
    fn credentials(&mut self, raw: &Raw) -> Option<Setting<Credentials>> {
        let secret = self.name(
            "credentials-secret",
            raw.credentials_secret.as_deref(),
            env::CREDENTIALS_SECRET,
        );
        if let Some(secret) = secret {
            return Some(secret.map(Credentials::Secret));
        }
        let of_variables = (
            self.text("access-key", None, env::ACCESS_KEY),
            self.text("secret-key", None, env::SECRET_KEY),
        );
        let of_file = (
            self.of_file("api.credentials.access_key"),
            self.of_file("api.credentials.secret_key"),
        );
        for pair in [of_variables, of_file] {
            match pair {
                (Some(access_key), Some(secret_key)) => {
                    return Some(access_key.map(|access_key| Credentials::Keys {
                        access_key: access_key.into(),
                        secret_key: secret_key.value.into(),
                    }));
                }
                (Some(lone), None) => {
                    return self.error(
                        "credentials",
                        "have an access key and no secret key; give both",
                        lone.origin,
                    );
                }
                (None, Some(lone)) => {
                    return self.error(
                        "credentials",
                        "have a secret key and no access key; give both",
                        lone.origin,
                    );
                }
                (None, None) => {}
            }
        }
        None
    }

    fn pods(&mut self, raw: &Raw) -> Option<TaskPodSettings> {
        let image = self.text("image", raw.image.as_deref(), env::IMAGE);
        let pull_policy = self.text(
            "image-pull-policy",
            raw.image_pull_policy.as_deref(),
            env::IMAGE_PULL_POLICY,
        );
        let known = ["Always", "IfNotPresent", "Never"];
        if let Some(policy) = &pull_policy
            && !known.contains(&policy.value.as_str())
        {
            let message = format!("is {:?}, not one of {}", policy.value, known.join(", "));
            self.error::<()>("image-pull-policy", message, policy.origin.clone());
        }
        let secrets = self.list(
            "image-pull-secrets",
            raw.image_pull_secrets.as_deref(),
            env::IMAGE_PULL_SECRETS,
        );
        if let Some(bad) = secrets.value.iter().find(|name| !is_dns_name(name)) {
            let message = format!("has {bad:?}, which is no Kubernetes name");
            self.error::<()>("image-pull-secrets", message, secrets.origin.clone());
        }
        let default_image = self.text(
            "default-image",
            raw.default_image.as_deref(),
            env::DEFAULT_IMAGE,
        );
        let Some(image) = image else {
            return self.error(
                "image",
                format!(
                    "is not given; name trainyard's own image by --image or {}",
                    env::IMAGE
                ),
                Origin::Default,
            );
        };
        Some(TaskPodSettings {
            image,
            image_pull_policy: pull_policy,
            image_pull_secrets: secrets,
            default_image,
        })
    }
}

fn is_dns_name(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || b"-.".contains(b))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let image = [(env::IMAGE, "trainyard:1")];
        Environment::of(
            image
                .iter()
                .chain(variables)
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    fn resolve(raw: &Raw, variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let conf = Document::read(
            "api {\n  api_server: http://file:8008/\n  credentials { access_key: fk, secret_key: fs }\n}",
            &|_| None,
        )
        .unwrap();
        Settings::resolve(
            raw,
            &environment(variables),
            Some(("/etc/clearml.conf", &conf)),
        )
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn keys(settings: &Settings) -> (String, String) {
        match &settings.server.credentials.as_ref().unwrap().value {
            Credentials::Keys {
                access_key,
                secret_key,
            } => (
                access_key.expose_secret().to_owned(),
                secret_key.expose_secret().to_owned(),
            ),
            Credentials::Secret(name) => (String::new(), name.clone()),
        }
    }

    #[test]
    fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
        let typed = Raw {
            api_url: Some("http://flag:8008".into()),
            ..Raw::default()
        };
        let variable = [(env::API_HOST, "http://variable:8008")];
        let api = |raw: &Raw, variables: &[(&str, &str)]| {
            let setting = resolve(raw, variables).unwrap().server.api_url.unwrap();
            (setting.value, setting.origin.to_string())
        };
        assert_eq!(
            api(&typed, &variable),
            ("http://flag:8008".into(), "flag --api-url".into())
        );
        assert_eq!(
            api(&Raw::default(), &variable),
            (
                "http://variable:8008".into(),
                "environment variable CLEARML_API_HOST".into()
            )
        );
        assert_eq!(
            api(&Raw::default(), &[]),
            (
                "http://file:8008".into(),
                "api.api_server in line 2 of /etc/clearml.conf".into()
            )
        );
    }

    #[test]
    fn a_secret_goes_before_keys_and_keys_are_never_mixed() {
        let of = |variables: &[(&str, &str)]| {
            resolve(&Raw::default(), variables).map(|settings| keys(&settings))
        };
        assert_eq!(of(&[]), Ok(("fk".into(), "fs".into())));
        let both = [(env::ACCESS_KEY, "vk"), (env::SECRET_KEY, "vs")];
        assert_eq!(of(&both), Ok(("vk".into(), "vs".into())));
        let secret = [
            (env::ACCESS_KEY, "vk"),
            (env::SECRET_KEY, "vs"),
            (env::CREDENTIALS_SECRET, "keys"),
        ];
        assert_eq!(of(&secret), Ok((String::new(), "keys".into())));
        let lone = [(env::ACCESS_KEY, "vk")];
        assert_eq!(
            of(&lone),
            Err(vec![
                "credentials have an access key and no secret key; give both \
                 (from environment variable CLEARML_API_ACCESS_KEY)"
                    .into()
            ])
        );
    }

    #[test]
    fn keys_are_not_shown() {
        let settings = resolve(
            &Raw::default(),
            &[(env::ACCESS_KEY, "canary"), (env::SECRET_KEY, "canary")],
        )
        .unwrap();
        assert!(!format!("{settings:?}").contains("canary"));
    }

    #[test]
    fn defaults_are_said_to_be_defaults() {
        let settings = resolve(&Raw::default(), &[]).unwrap();
        assert_eq!(settings.listen.value.port(), 8080);
        assert_eq!(
            settings.scope,
            Setting {
                value: Scope::Namespace,
                origin: Origin::Default
            }
        );
        assert_eq!(settings.log.value, "info");
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let raw = Raw {
            listen: Some("8080".into()),
            scope: Some("all".into()),
            namespace: Some("My Space".into()),
            api_url: Some("http://user:canary@host".into()),
            ..Raw::default()
        };
        let errors = resolve(&raw, &[(env::IMAGE_PULL_POLICY, "Sometimes")]).unwrap_err();
        assert_eq!(
            errors,
            [
                "api-url is not an address such as https://api.clear.example, without user and password (from flag --api-url)",
                "image-pull-policy is \"Sometimes\", not one of Always, IfNotPresent, Never \
                 (from environment variable TRAINYARD_IMAGE_PULL_POLICY)",
                "namespace \"My Space\" is no Kubernetes name: lower-case letters, digits, - and ., at most 253 of them \
                 (from flag --namespace)",
                "scope is \"all\", not one of namespace, cluster (from flag --scope)",
                "listen is \"8080\", not an address and port such as 0.0.0.0:8080 (from flag --listen)",
            ]
        );
    }

    #[test]
    fn without_an_image_of_ours_there_is_no_controller() {
        let errors = Settings::resolve(&Raw::default(), &Environment::default(), None).unwrap_err();
        assert!(
            errors[0].to_string().contains("TRAINYARD_IMAGE"),
            "{errors:?}"
        );
    }
}
