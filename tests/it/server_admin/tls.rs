//! A server with a certificate, and one whose certificate cannot be used.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::{said, trainyard};
use crate::server_world::{Client, Program};

/// Makes `cert.pem`, a certificate for 127.0.0.1 that vouches for itself, and its `key.pem`.
pub fn certificate(folder: &Path) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=trainyard",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", said(&made));
}

#[test]
fn with_a_certificate_it_speaks_tls_of_both_versions_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainyard"));
    command
        .env("TRAINYARD_SERVER_TLS_CERT", &cert)
        .env("TRAINYARD_SERVER_TLS_KEY", &key);
    let server = Program::start_by(&mut command, &folder.path().join("data"));
    assert!(
        server.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.url
    );
    // Python's clients speak TLS 1.2 alone.
    let python = "import json, ssl, sys, urllib.request as r\n\
        c = ssl.create_default_context(cafile=sys.argv[2])\n\
        c.minimum_version = c.maximum_version = getattr(ssl.TLSVersion, sys.argv[3])\n\
        print(json.load(r.urlopen(sys.argv[1] + '/debug.ping', context=c))['data']['msg'])\n";
    for version in ["TLSv1_2", "TLSv1_3"] {
        let output = Command::new("python3")
            .args(["-c", python, &server.url])
            .arg(&cert)
            .arg(version)
            .output()
            .unwrap();
        assert_eq!(said(&output).trim(), "ClearML server", "{version}");
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let plain = server.url.replace("https", "http");
    let (status, _) = runtime.block_on(Client::without_keys(&plain).raw("debug.ping", json!({})));
    assert_eq!(status, 0, "it must not answer without TLS");
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("cert.pem"), "no certificate").unwrap();
    std::fs::write(file("key.pem"), "no key").unwrap();
    let output = trainyard(
        &[
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            &file("cert.pem"),
            "--tls-key",
            &file("key.pem"),
        ],
        &folder.path().join("data"),
    );
    let error = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.contains("could not read the certificate") && error.lines().count() == 1,
        "{error}"
    );
    let alone = trainyard(&["--tls-cert", &file("cert.pem")], folder.path());
    assert_eq!(alone.status.code(), Some(2), "{}", said(&alone));
}
