//! A token service as a registry trusts one: it knows one user, and signs tokens for what it is asked for.
//!
//! It stands for those of Docker Hub, Harbor and the like, which no distribution packages. None of it is believed: the
//! registry is a real one and judges each token's signature, issuer, audience, rights and end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::Signer;
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// Whose tokens the registry takes, and what it calls itself to their service.
pub const ISSUER: &str = "tokens.example";
pub const SERVICE: &str = "registry.example";
/// The one who may log in.
pub const USER: &str = "user";
pub const PASSWORD: &str = "canary-secret";
/// For so many seconds a registry takes a token that has ended, because clocks differ.
pub const LEEWAY: i64 = 60;

/// A key that signs tokens, and the certificate by which a registry knows it.
pub struct Seal {
    signer: Box<dyn Signer>,
    /// As a token carries it.
    certificate: String,
    /// The same as a file.
    pub file: PathBuf,
}

impl Seal {
    /// A new one, in two files of this folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = folder.join(format!("{name}.key"));
        let file = folder.join(format!("{name}.crt"));
        let made = Command::new("openssl")
            .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens".split(' '))
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&file)
            .output()
            .expect("openssl runs");
        assert!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let key = PrivateKeyDer::from_pem_file(&key).expect("a key was written");
        let key = any_supported_type(&key).expect("the key can sign");
        let signer = key
            .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
            .expect("it is an RSA key");
        let certificate = CertificateDer::from_pem_file(&file).expect("a certificate was written");
        Self {
            signer,
            certificate: STANDARD.encode(certificate),
            file,
        }
    }

    /// A token for a scope such as `repository:NAME:pull,push` (empty: for nothing) that ends in so many seconds.
    ///
    /// Source: "Token Authentication Implementation" of the distribution project: a JWT by RS256, the certificate in
    /// `x5c`.
    pub fn token(&self, scope: &str, seconds: i64) -> String {
        let ends = Timestamp::now().as_second() + seconds;
        let begins = ends - 3600;
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "aud": SERVICE, "sub": USER, "iat": begins, "nbf": begins, "exp": ends,
            "access": access(scope),
        });
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.signer.sign(signed.as_bytes()).expect("it is signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The rights of a scope, as a token lists them.
fn access(scope: &str) -> Value {
    let parts: Vec<&str> = scope.splitn(3, ':').collect();
    match parts.as_slice() {
        [kind, name, actions] => {
            let actions: Vec<&str> = actions.split(',').collect();
            json!([{"type": kind, "name": name, "actions": actions}])
        }
        _ => json!([]),
    }
}

/// A token that was given, and what was asked for.
#[derive(Debug)]
pub struct Given {
    pub scope: String,
    pub token: String,
}

/// The service, as long as this value lives.
pub struct Issuer {
    server: MockServer,
    desk: Desk,
}

/// What answers those who ask for a token.
#[derive(Clone)]
struct Desk {
    seal: Arc<Seal>,
    /// In how many seconds a token ends.
    lasts: Arc<AtomicI64>,
    given: Arc<Mutex<Vec<Given>>>,
}

impl Issuer {
    pub async fn start(seal: Arc<Seal>) -> Self {
        let server = MockServer::start().await;
        let desk = Desk {
            seal,
            lasts: Arc::new(AtomicI64::new(300)),
            given: Arc::default(),
        };
        Mock::given(method("GET"))
            .and(path("/token"))
            .respond_with(desk.clone())
            .mount(&server)
            .await;
        Self { server, desk }
    }

    /// Where a registry sends those who ask without a token.
    pub fn realm(&self) -> String {
        format!("{}/token", self.server.uri())
    }

    /// From now on tokens end in so many seconds.
    pub fn lasts(&self, seconds: i64) {
        self.desk.lasts.store(seconds, Ordering::Relaxed);
    }

    /// What was given since this was last asked.
    pub fn given(&self) -> Vec<Given> {
        std::mem::take(&mut *self.desk.given.lock().expect("lock"))
    }
}

impl Respond for Desk {
    /// A wrong password gets nothing. Who has none gets a token without rights, as from Docker Hub for what is private.
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let asked = |name: &str| {
            let mut pairs = request.url.query_pairs();
            let found = pairs.find(|(key, _)| key == name);
            found
                .map(|(_, value)| value.into_owned())
                .unwrap_or_default()
        };
        let login = request.headers.get("authorization");
        let right = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let is_wrong = login.is_some_and(|login| login.as_bytes() != right.as_bytes());
        if is_wrong || asked("service") != SERVICE {
            return ResponseTemplate::new(401);
        }
        let scope = asked("scope");
        let rights = if login.is_some() { scope.as_str() } else { "" };
        let token = self.seal.token(rights, self.lasts.load(Ordering::Relaxed));
        let answer = ResponseTemplate::new(200).set_body_json(json!({"token": token}));
        let given = Given { scope, token };
        self.given.lock().expect("lock").push(given);
        answer
    }
}
