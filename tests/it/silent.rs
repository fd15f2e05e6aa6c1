//! A server that takes connections and never answers.

use std::net::TcpListener;
use std::thread;

/// Takes all connections on this address of the machine and never answers; says where.
pub fn start(host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).expect("the silent server binds");
    let address = listener.local_addr().expect("it has an address");
    thread::spawn(move || {
        let kept: Vec<_> = listener.incoming().collect();
        drop(kept);
    });
    address.to_string()
}
