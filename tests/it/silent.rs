//! A server that takes connections and never answers, or not to the end.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

/// Takes all connections on this address of the machine and never answers; says where.
pub fn start(host: &str) -> String {
    listen(host, None)
}

/// Begins its answer to each request with these words, and never goes on.
pub fn start_amid(host: &str, words: &'static str) -> String {
    listen(host, Some(words))
}

fn listen(host: &str, words: Option<&'static str>) -> String {
    let listener = TcpListener::bind((host, 0)).expect("the silent server binds");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        let taken = listener.incoming().inspect(|stream| {
            if let (Ok(mut stream), Some(words)) = (stream.as_ref(), words) {
                let _ = BufReader::new(stream).read_line(&mut String::new());
                let _ = stream.write_all(words.as_bytes());
            }
        });
        let kept: Vec<_> = taken.collect();
        drop(kept);
    });
    address.to_string()
}
