//! Doors before which the code of a task stands until the test opens them: what is to be seen before or after is seen,
//! however long a machine that others use too takes for it.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::world::World;

#[derive(Default)]
struct State {
    open: HashSet<String>,
    /// Whether the test is over: nobody is let through any more.
    over: bool,
}

type Shared = (Mutex<State>, Condvar);

/// All doors of a test, by their names; they are shut until they are opened.
pub struct Doors {
    address: String,
    state: Arc<Shared>,
}

impl Doors {
    /// On the address that pods reach.
    pub fn start(world: &World) -> Self {
        let listener =
            TcpListener::bind((world.place.gateway.as_str(), 0)).expect("the doors are hung");
        let address = listener.local_addr().expect("an address").to_string();
        let state: Arc<Shared> = Arc::default();
        let kept = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&kept);
                thread::spawn(move || stand(stream, &state));
            }
        });
        Self { address, state }
    }

    /// Lets through who stands there and who comes later.
    pub fn open(&self, door: &str) {
        let (state, changed) = &*self.state;
        state
            .lock()
            .expect("doors lock")
            .open
            .insert(door.to_owned());
        changed.notify_all();
    }

    /// Python that goes on once the door is open; it holds no double quote.
    pub fn python(&self, door: &str) -> String {
        let (host, port) = self.address.rsplit_once(':').expect("address has a port");
        format!(
            "import socket\n\
             _d = socket.create_connection(('{host}', {port}), 60)\n\
             _d.settimeout(None)\n\
             _d.sendall(b'{door}\\n')\n\
             assert _d.recv(1) == b'o'\n_d.close()\n"
        )
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        let (state, changed) = &*self.state;
        if let Ok(mut state) = state.lock() {
            state.over = true;
        }
        changed.notify_all();
    }
}

/// Answers once the door that is named is open.
fn stand(mut stream: TcpStream, (state, changed): &Shared) -> Option<()> {
    let mut door = String::new();
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    reader.read_line(&mut door).ok()?;
    let door = door.trim();
    let is_shut = |state: &mut State| !state.over && !state.open.contains(door);
    let state = changed.wait_while(state.lock().ok()?, is_shut).ok()?;
    let may_pass = !state.over;
    drop(state);
    may_pass.then(|| stream.write_all(b"o").ok())?
}
