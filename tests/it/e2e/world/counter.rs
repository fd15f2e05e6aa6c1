//! Runs of user code, counted outside of the cluster.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Counts what user code reports from its pod: one line per run, outside of the cluster.
#[derive(Debug, Clone)]
pub struct Counter {
    pub address: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Counter {
    pub(super) fn start(host: &str) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("counter binds");
        let address = listener
            .local_addr()
            .expect("counter has an address")
            .to_string();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || Self::take(stream, &kept));
            }
        });
        Self { address, lines }
    }

    fn take(mut stream: TcpStream, kept: &Mutex<Vec<String>>) {
        let mut line = String::new();
        let Ok(copy) = stream.try_clone() else { return };
        if BufReader::new(copy).read_line(&mut line).is_ok() && !line.trim().is_empty() {
            kept.lock()
                .expect("counter lock")
                .push(line.trim().to_owned());
            let _ = stream.write_all(b"ok\n");
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("counter lock").clone()
    }

    /// Python that reports `word` and goes on once it is counted.
    pub fn python(&self, word: &str) -> String {
        let (host, port) = self.address.rsplit_once(':').expect("address has a port");
        format!(
            "import os, socket\n\
             _c = socket.create_connection(('{host}', {port}), 30)\n\
             _c.sendall(('{word} ' + os.environ['CLEARML_TASK_ID'] + '\\n').encode())\n\
             assert _c.recv(3) == b'ok\\n'\n_c.close()\n"
        )
    }
}
