//! A second place on the same server: another cluster, or another namespace of this one.

use std::sync::Mutex;

use super::World;

impl World {
    /// Shares server, keys and counter with `self`, and nothing else; the server stays with `self`.
    pub fn neighbour(&self, namespace: &str, kubeconfig: &str) -> Self {
        let mut place = self.place.clone();
        kubeconfig.clone_into(&mut place.kubeconfig);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let world = Self {
            foreign: None,
            place,
            namespace: namespace.to_owned(),
            dir: tempfile::tempdir().expect("temp folder"),
            url: self.url.clone(),
            key: self.key.clone(),
            secret: self.secret.clone(),
            counter: self.counter.clone(),
            program: self.program.clone(),
            server: None,
            controller: None,
            environment: Vec::new(),
            probes: String::new(),
            runtime,
            http: self.http.clone(),
            cluster: tokio::sync::OnceCell::new(),
            token: Mutex::default(),
        };
        world.settle_in();
        world
    }
}
