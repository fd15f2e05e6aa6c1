//! Which certificates are trusted, and by whom.
//!
//! A task image may come without a certificate store; the init container brings that of our image, for our client
//! alone. What the binding names (`server.caBundleRef`, `environment.caBundleRef`) is trusted by all: our client, git,
//! the installers, and by variables that most programs know the SDK and the user's code, beside what the image trusts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::spool::write_shared;
use crate::pod;

/// Where distributions keep their bundle.
const STORES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The variables by which OpenSSL, `requests`, curl and git are told of a bundle.
pub const VARIABLES: [&str; 4] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
];

/// Puts the bundle of our image onto the pod's volume, if the server is reached by TLS.
pub fn bring(settings: &Settings) -> io::Result<()> {
    let bundle = STORES.iter().find_map(|path| fs::read(path).ok());
    match bundle {
        Some(bundle) if by_tls(settings) => write_shared(&settings.layout.certificates(), &bundle),
        _ => Ok(()),
    }
}

/// The certificates beside the image's own: the binding's for the server, and where the image has none those that the
/// init container brought.
pub fn of_client(settings: &Settings) -> Option<Vec<u8>> {
    if !by_tls(settings) {
        return None;
    }
    let of_server = fs::read(pod::SERVER_CA).ok();
    let brought = (!STORES.iter().any(|path| Path::new(path).exists()))
        .then(|| fs::read(settings.layout.certificates()).ok())
        .flatten();
    together(of_server, brought)
}

/// Writes one bundle of what this container's image trusts and what the binding names, for programs that read one file
/// alone; `None` where the binding names nothing.
pub fn for_programs(settings: &Settings, role: &str) -> io::Result<Option<PathBuf>> {
    let named = [pod::SERVER_CA, pod::INDEX_CA].map(|path| fs::read(path).ok());
    let Some(named) = named.into_iter().fold(None, together) else {
        return Ok(None);
    };
    let store = STORES
        .iter()
        .find_map(|path| fs::read(path).ok())
        .or_else(|| fs::read(settings.layout.certificates()).ok());
    let path = settings.layout.bundle(role);
    write_shared(&path, &together(store, Some(named)).unwrap_or_default())?;
    Ok(Some(path))
}

/// The same in the task's container; that it cannot be written is told and fails nobody by itself.
pub fn of_task(settings: &Settings) -> Option<PathBuf> {
    for_programs(settings, pod::TASK).unwrap_or_else(|error| {
        tracing::warn!(%error, "could not write the bundle of trusted certificates");
        None
    })
}

fn by_tls(settings: &Settings) -> bool {
    settings.api_host.starts_with("https:")
}

/// Both bundles as one; PEM blocks begin on a line of their own.
fn together(first: Option<Vec<u8>>, second: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match (first, second) {
        (Some(first), Some(second)) => Some([first, b"\n".to_vec(), second].concat()),
        (first, second) => first.or(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_joined_by_a_line_end() {
        let pem = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(together(pem("a"), pem("b")), pem("a\nb"));
        assert_eq!(together(None, pem("b")), pem("b"));
        assert_eq!(together(None, None), None);
    }
}
