//! Deletion of bindings from outside the controller, which must still be there: its finalizer brings back the tasks
//! that are taken and not started. Without it, bindings that helm deletes last would wait for a controller for ever.

use std::time::Duration;

use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, sleep};

use super::cluster::{self, call};
use crate::crd::{QueueBinding, condition};

/// Time between two looks at what is left.
const PERIOD: Duration = Duration::from_millis(500);

/// Why bindings are not gone.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    #[error("no connection to a Kubernetes API server: {0}")]
    Connect(String),
    #[error("could not list bindings: {0}")]
    List(String),
    #[error("could not delete binding {name:?}: {message}")]
    Delete { name: String, message: String },
    #[error(
        "binding {name:?} is not gone after {seconds} s: {state}; \
         its controller has to return its tasks first (hint: to leave it behind, uninstall with --no-hooks)"
    )]
    Left {
        name: String,
        seconds: u64,
        state: String,
    },
}

/// Deletes the bindings that `selector` selects and waits until they are gone.
pub async fn retire(
    namespace: Option<&str>,
    selector: &str,
    patience: Duration,
) -> Result<(), RetireError> {
    let kube = Client::try_default()
        .await
        .map_err(|error| RetireError::Connect(cluster::told(&error)))?;
    let namespace = namespace.unwrap_or(kube.default_namespace()).to_owned();
    let api: Api<QueueBinding> = Api::namespaced(kube, &namespace);
    let of_selector = ListParams::default().labels(selector);
    let deadline = Instant::now() + patience;
    loop {
        let list = call(api.list(&of_selector)).await;
        let left = list
            .map_err(|error| RetireError::List(error.to_string()))?
            .items;
        let Some(first) = left.first() else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            return Err(RetireError::Left {
                name: first.name_any(),
                seconds: patience.as_secs(),
                state: state(first),
            });
        }
        for binding in left
            .iter()
            .filter(|binding| binding.metadata.deletion_timestamp.is_none())
        {
            let name = binding.name_any();
            match call(api.delete(&name, &DeleteParams::default())).await {
                Err(error) if !error.is_not_found() => {
                    return Err(RetireError::Delete {
                        name,
                        message: error.to_string(),
                    });
                }
                _ => {}
            }
        }
        sleep(PERIOD).await;
    }
}

/// What the controller last said of a binding.
fn state(binding: &QueueBinding) -> String {
    let conditions = binding
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    let ready = conditions
        .iter()
        .find(|known| known.type_ == condition::READY && known.status != "True");
    ready.map_or_else(
        || "no controller has spoken of it".to_owned(),
        |ready| ready.message.clone(),
    )
}
