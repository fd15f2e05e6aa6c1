//! A proxy that loses requests and answers on demand, and counts what passes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

/// How much later than the client's giving up a request reaches the server.
const LATE: Duration = Duration::from_millis(300);

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Pass,
    /// The server never sees it.
    LoseRequest,
    /// The server has done it, the client never hears of it.
    LoseAnswer,
    /// Answered with 503 without asking the server.
    Unavailable,
    /// Answered with 429 that asks for so many seconds.
    Patience(u64),
    /// Answered with this status and body without asking the server.
    Says(u16, &'static str),
    /// The client is cut off, and only then the server gets the request.
    Late,
}

/// A request that came by.
#[derive(Debug, Clone)]
pub struct Passed {
    pub at: SystemTime,
    pub action: String,
}

type Rule = dyn FnMut(&str, &[u8]) -> Fate + Send;

pub struct Proxy {
    pub url: String,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl Proxy {
    /// Stands before `server`; `rule` is asked with the action of each request.
    pub fn start(server: &str, mut rule: impl FnMut(&str) -> Fate + Send + 'static) -> Self {
        Self::reading(server, move |action, _| rule(action))
    }

    /// The same with a rule that is told each request's body, too.
    pub fn reading(server: &str, rule: impl FnMut(&str, &[u8]) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = server.trim_start_matches("http://").to_owned();
        let rule: Arc<Mutex<Box<Rule>>> = Arc::new(Mutex::new(Box::new(rule)));
        let passed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&passed);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (target, rule, seen) = (target.clone(), Arc::clone(&rule), Arc::clone(&seen));
                thread::spawn(move || serve(stream, &target, &rule, &seen));
            }
        });
        Self { url, passed }
    }

    pub fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap().clone()
    }

    pub fn count(&self, action: &str) -> usize {
        self.passed()
            .iter()
            .filter(|passed| passed.action == action)
            .count()
    }
}

/// One request for each connection: the answer says `Connection: close`.
fn serve(
    mut client: TcpStream,
    target: &str,
    rule: &Mutex<Box<Rule>>,
    seen: &Mutex<Vec<Passed>>,
) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let (head, body) = message(&mut reader)?;
    let action = head
        .split_whitespace()
        .nth(1)?
        .rsplit('/')
        .next()?
        .to_owned();
    let fate = {
        let fate = rule.lock().unwrap()(&action, &body);
        seen.lock().unwrap().push(Passed {
            at: SystemTime::now(),
            action,
        });
        fate
    };
    match fate {
        Fate::LoseRequest => return None,
        Fate::Unavailable => {
            let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return client.write_all(answer.as_bytes()).ok();
        }
        Fate::Patience(seconds) => {
            let answer = format!(
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            return client.write_all(answer.as_bytes()).ok();
        }
        Fate::Says(status, body) => {
            let answer = format!(
                "HTTP/1.1 {status} As Told\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            return client.write_all(answer.as_bytes()).ok();
        }
        Fate::Late => {
            let _ = client.shutdown(Shutdown::Both);
            thread::sleep(LATE);
        }
        Fate::Pass | Fate::LoseAnswer => {}
    }
    let mut server = TcpStream::connect(target).ok()?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(head.as_bytes()).ok()?;
    server.write_all(&body).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    if fate == Fate::Pass {
        client.write_all(&answer).ok()?;
    }
    Some(())
}

/// Head and body of an HTTP request with a content length.
fn message(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    loop {
        let before = head.len();
        reader
            .read_line(&mut head)
            .ok()
            .filter(|count| *count > 0)?;
        if &head[before..] == "\r\n" {
            break;
        }
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}
