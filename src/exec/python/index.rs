//! Which package index counts: the binding's, else what the image has set for uv, else what it has set for pip.

use std::path::Path;

use super::PythonSettings;
use crate::exec::failure::masked;

/// Where distributions keep the certificates that they trust.
const STORES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The variables by which uv is told where packages come from.
const NAMES: [&str; 5] = [
    "UV_DEFAULT_INDEX",
    "UV_INDEX_URL",
    "UV_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
];

/// Environment variables for uv.
pub(super) fn variables(settings: &PythonSettings) -> Vec<(String, String)> {
    let mut variables = match &settings.index_url {
        Some(url) => vec![pair("UV_DEFAULT_INDEX", url)],
        None if is_set_for_uv(settings) => Vec::new(),
        None => from_pip(&Pip::of_image(settings), &|path| path.exists()),
    };
    if let Some(bundle) = trusted(settings) {
        variables.retain(|(name, _)| name != "SSL_CERT_FILE");
        variables.push(pair("SSL_CERT_FILE", &bundle));
    } else if STORES.iter().any(|store| Path::new(store).is_file()) {
        // As pip does: what the image trusts counts, a company's own authority for instance.
        variables.push(pair("UV_SYSTEM_CERTS", "1"));
    }
    variables
}

/// What of the index decides on the content of an environment; without passwords, which change.
pub(super) fn identity(settings: &PythonSettings) -> String {
    let set = settings
        .variables
        .iter()
        .map(|(name, value)| pair(name, value));
    let all = set.chain(variables(settings));
    let mut deciding: Vec<String> = all
        .filter(|(name, _)| NAMES.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={}", masked(&value)))
        .collect();
    deciding.sort();
    deciding.extend(options(settings).iter().map(|option| (*option).to_owned()));
    deciding.join("\n")
}

/// Options for `uv pip install` that have no variable.
pub(super) fn options(settings: &PythonSettings) -> &'static [&'static str] {
    let from_pip = settings.index_url.is_none() && !is_set_for_uv(settings);
    if from_pip && Pip::of_image(settings).no_index {
        &["--no-index"]
    } else {
        &[]
    }
}

/// The same for pip, which knows the image's own settings by itself.
pub(super) fn pip_variables(settings: &PythonSettings) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    if let Some(url) = &settings.index_url {
        variables.push(pair("PIP_INDEX_URL", url));
    }
    if let Some(bundle) = trusted(settings) {
        variables.push(pair("PIP_CERT", &bundle));
    }
    variables
}

/// By what conda and mamba are told what to trust; what image or template say in these words counts. mamba reads none of
/// the common variables: it looks where distributions and a package of its own put theirs.
pub(super) fn conda_variables(settings: &PythonSettings) -> Vec<(String, String)> {
    let Some(bundle) = trusted(settings) else {
        return Vec::new();
    };
    ["CONDA_SSL_VERIFY", "MAMBA_SSL_VERIFY"]
        .into_iter()
        .filter(|name| !settings.variables.contains_key(*name))
        .map(|name| pair(name, &bundle))
        .collect()
}

/// The bundle of certificates that installers are told of.
fn trusted(settings: &PythonSettings) -> Option<String> {
    let bundle = settings.trusted.as_deref()?;
    bundle
        .is_file()
        .then(|| bundle.to_string_lossy().into_owned())
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn is_set_for_uv(settings: &PythonSettings) -> bool {
    NAMES.iter().any(|name| {
        settings
            .variables
            .get(*name)
            .is_some_and(|value| !value.is_empty())
    })
}

/// The settings of pip that say where packages come from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pip {
    index_url: Option<String>,
    extra_index_url: Option<String>,
    find_links: Option<String>,
    trusted_host: Option<String>,
    cert: Option<String>,
    no_index: bool,
}

impl Pip {
    /// The image's files in pip's order, then its variables: the later wins.
    fn of_image(settings: &PythonSettings) -> Self {
        let home = settings
            .variables
            .get("HOME")
            .map_or("/root", String::as_str);
        let mut files = vec!["/etc/pip.conf".to_owned()];
        files
            .extend([".pip/pip.conf", ".config/pip/pip.conf"].map(|file| format!("{home}/{file}")));
        files.extend(settings.variables.get("PIP_CONFIG_FILE").cloned());
        let mut pip = Self::default();
        for file in files {
            if let Ok(text) = std::fs::read_to_string(file) {
                pip.read(&text);
            }
        }
        for (name, value) in &settings.variables {
            if let Some(name) = name.strip_prefix("PIP_") {
                pip.set(&name.to_ascii_lowercase().replace('_', "-"), value);
            }
        }
        pip
    }

    /// One `pip.conf`: the sections `global` and `install`; a value may go on in indented lines.
    fn read(&mut self, text: &str) {
        let mut counts = false;
        let mut open: Option<(String, String)> = None;
        for line in text.lines() {
            if line.starts_with([' ', '\t'])
                && let Some((_, value)) = &mut open
            {
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            if let Some((name, value)) = open.take() {
                self.set(&name, &value);
            }
            let line = line.trim();
            if let Some(section) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                counts = matches!(section.trim(), "global" | "install");
            } else if let Some((name, value)) = line
                .split_once(['=', ':'])
                .filter(|_| counts && !line.starts_with(['#', ';']))
            {
                open = Some((name.trim().replace('_', "-"), value.trim().to_owned()));
            }
        }
        if let Some((name, value)) = open {
            self.set(&name, &value);
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match name {
            "index-url" => self.index_url = value,
            "extra-index-url" => self.extra_index_url = value,
            "find-links" => self.find_links = value,
            "trusted-host" => self.trusted_host = value,
            "cert" => self.cert = value,
            "no-index" => {
                let yes = |value: String| {
                    ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
                };
                self.no_index = value.is_some_and(yes);
            }
            _ => {}
        }
    }
}

/// The same settings in uv's words. Folders and bundles that are not there are left out: uv would refuse to start.
fn from_pip(pip: &Pip, exists: &dyn Fn(&Path) -> bool) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    if let Some(url) = &pip.index_url {
        variables.push(pair("UV_DEFAULT_INDEX", url));
    }
    if let Some(urls) = &pip.extra_index_url {
        variables.push(pair(
            "UV_INDEX",
            &urls.split_whitespace().collect::<Vec<_>>().join(" "),
        ));
    }
    if let Some(links) = &pip.find_links {
        let usable = |link: &&str| link.contains("://") || exists(Path::new(link));
        let links: Vec<&str> = links.split_whitespace().filter(usable).collect();
        if !links.is_empty() {
            variables.push(pair("UV_FIND_LINKS", &links.join(",")));
        }
    }
    if let Some(hosts) = &pip.trusted_host {
        variables.push(pair(
            "UV_INSECURE_HOST",
            &hosts.split_whitespace().collect::<Vec<_>>().join(" "),
        ));
    }
    if let Some(bundle) = pip
        .cert
        .as_deref()
        .filter(|bundle| exists(Path::new(bundle)))
    {
        variables.push(pair("SSL_CERT_FILE", bundle));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pip_conf_is_read_as_pip_reads_it() {
        let mut pip = Pip::default();
        pip.read("# c\n[global]\nindex-url = https://index.example/simple\n[install]\nfind_links =\n    /opt/wheels\n    /gone\n\n[list]\ncert = /x\n");
        assert_eq!(
            pip.index_url.as_deref(),
            Some("https://index.example/simple")
        );
        assert_eq!(pip.cert, None);
        let variables = from_pip(&pip, &|path| path == Path::new("/opt/wheels"));
        assert_eq!(
            variables,
            [
                pair("UV_DEFAULT_INDEX", "https://index.example/simple"),
                pair("UV_FIND_LINKS", "/opt/wheels")
            ]
        );
    }

    fn settings(variables: &[(&str, &str)]) -> PythonSettings {
        PythonSettings {
            alone: false,
            driver_elsewhere: false,
            brought: Vec::new(),
            uv: "uv".into(),
            cache: "/c".into(),
            own: "/o".into(),
            variables: variables
                .iter()
                .map(|(name, value)| pair(name, value))
                .chain([pair("HOME", "/none")])
                .collect(),
            index_url: None,
            trusted: None,
            limit: std::time::Duration::from_secs(1),
            options: super::super::Options::default(),
        }
    }

    #[test]
    fn the_binding_wins_over_uv_settings_and_those_over_pips() {
        let mut settings = settings(&[
            ("PIP_INDEX_URL", "http://pip"),
            ("PIP_CONFIG_FILE", "/none"),
            ("PIP_NO_INDEX", "true"),
        ]);
        let index = |settings: &PythonSettings| {
            let variables = variables(settings);
            variables
                .into_iter()
                .find(|(name, _)| name == "UV_DEFAULT_INDEX")
                .map(|(_, url)| url)
        };
        assert_eq!(index(&settings).as_deref(), Some("http://pip"));
        assert_eq!(options(&settings), ["--no-index"]);
        settings
            .variables
            .insert("UV_INDEX_URL".into(), "http://uv".into());
        assert_eq!(index(&settings), None);
        settings.index_url = Some("http://binding".into());
        assert_eq!(index(&settings).as_deref(), Some("http://binding"));
        assert_eq!(options(&settings), [""; 0]);
        assert_eq!(
            pip_variables(&settings),
            [pair("PIP_INDEX_URL", "http://binding")]
        );
    }

    #[test]
    fn a_bundle_is_told_to_each_installer_in_its_words_and_to_conda_where_nobody_else_says() {
        let mut settings = settings(&[("CONDA_SSL_VERIFY", "false")]);
        assert!(conda_variables(&settings).is_empty());
        let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        settings.trusted = Some(bundle.into());
        assert_eq!(
            conda_variables(&settings),
            [pair("MAMBA_SSL_VERIFY", bundle)]
        );
        settings.variables.remove("CONDA_SSL_VERIFY");
        assert_eq!(
            conda_variables(&settings),
            ["CONDA_SSL_VERIFY", "MAMBA_SSL_VERIFY"].map(|name| pair(name, bundle))
        );
        assert_eq!(pip_variables(&settings), [pair("PIP_CERT", bundle)]);
        assert!(variables(&settings).contains(&pair("SSL_CERT_FILE", bundle)));
    }
}
