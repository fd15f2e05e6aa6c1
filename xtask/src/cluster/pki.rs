//! Certificates and kubeconfigs of the local cluster: made anew by each `up`, valid for this machine only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::layout::{API_PORT, GATEWAY, NODE, SERVICE_FIRST, State};
use crate::sh;

/// A certificate to make: file name, subject and, for servers, the names it answers to.
struct Leaf {
    name: &'static str,
    subject: String,
    names: String,
}

/// Makes the authority, all certificates, the key pair for tokens, and the kubeconfigs.
pub fn create(state: &State) -> Result<()> {
    let folder = state.path("pki");
    sh::remove(&folder)?;
    sh::make_dir(&folder)?;
    // Keys lie in it.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    authority(&folder)?;
    for leaf in leaves() {
        issue(&folder, &leaf)?;
    }
    let (key, public) = (folder.join("sa.key"), folder.join("sa.pub"));
    sh::run(
        sh::command("openssl")
            .args([
                "ecparam",
                "-name",
                "prime256v1",
                "-genkey",
                "-noout",
                "-out",
            ])
            .arg(&key),
    )?;
    sh::run(
        sh::command("openssl")
            .args(["ec", "-pubout", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(public),
    )?;
    for (file, identity) in [
        ("kubeconfig", "admin"),
        ("kubelet.kubeconfig", "kubelet"),
        ("kube-proxy.kubeconfig", "kube-proxy"),
    ] {
        write_kubeconfig(&folder, identity, &state.path(file))?;
    }
    Ok(())
}

fn leaves() -> Vec<Leaf> {
    let leaf = |name, subject: &str, names: &str| Leaf {
        name,
        subject: subject.to_owned(),
        names: names.to_owned(),
    };
    vec![
        leaf(
            "apiserver",
            "/CN=kube-apiserver",
            &format!(
                "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
                 DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:{GATEWAY},IP:{SERVICE_FIRST}"
            ),
        ),
        leaf("admin", "/O=system:masters/CN=admin", "DNS:admin"),
        leaf(
            "kubelet",
            &format!("/O=system:nodes/CN=system:node:{NODE}"),
            &format!("DNS:{NODE},IP:{GATEWAY}"),
        ),
        leaf("kube-proxy", "/CN=system:kube-proxy", "DNS:kube-proxy"),
    ]
}

fn authority(folder: &Path) -> Result<()> {
    let config = folder.join("ca.cnf");
    sh::write(
        &config,
        "[req]\ndistinguished_name = name\n[name]\n[ca]\nbasicConstraints = critical,CA:TRUE\n\
         keyUsage = critical,keyCertSign,cRLSign\nsubjectKeyIdentifier = hash\n",
    )?;
    let mut command = request(folder, "ca", &config, "/CN=trainyard-test-cluster");
    sh::run(command.args(["-extensions", "ca"]))
}

/// One end certificate. Not being an authority is said outright: strict TLS clients refuse it otherwise.
fn issue(folder: &Path, leaf: &Leaf) -> Result<()> {
    let config = folder.join(format!("{}.cnf", leaf.name));
    sh::write(
        &config,
        format!(
            "[req]\ndistinguished_name = name\n[name]\n[leaf]\nbasicConstraints = critical,CA:FALSE\n\
             keyUsage = critical,digitalSignature\nextendedKeyUsage = serverAuth,clientAuth\nsubjectAltName = {}\n",
            leaf.names
        ),
    )?;
    let mut command = request(folder, leaf.name, &config, &leaf.subject);
    command
        .args(["-extensions", "leaf", "-CA"])
        .arg(folder.join("ca.crt"))
        .arg("-CAkey")
        .arg(folder.join("ca.key"));
    sh::run(&mut command)
}

fn request(folder: &Path, name: &str, config: &Path, subject: &str) -> std::process::Command {
    let mut command = sh::command("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "365",
    ]);
    command
        .arg("-config")
        .arg(config)
        .args(["-subj", subject, "-keyout"]);
    command
        .arg(folder.join(format!("{name}.key")))
        .arg("-out")
        .arg(folder.join(format!("{name}.crt")));
    command
}

/// Everything inline, so that the file can be copied elsewhere.
fn write_kubeconfig(folder: &Path, identity: &str, path: &Path) -> Result<()> {
    let inline = |file: String| -> Result<String> {
        let path = folder.join(file);
        Ok(STANDARD
            .encode(fs::read(&path).with_context(|| format!("could not read {}", path.display()))?))
    };
    let authority = inline("ca.crt".to_owned())?;
    let certificate = inline(format!("{identity}.crt"))?;
    let key = inline(format!("{identity}.key"))?;
    sh::write(
        path,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: trainyard\n\
             clusters:\n- name: trainyard\n  cluster:\n    server: https://{GATEWAY}:{API_PORT}\n    certificate-authority-data: {authority}\n\
             users:\n- name: {identity}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n- name: trainyard\n  context:\n    cluster: trainyard\n    user: {identity}\n"
        ),
    )?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
