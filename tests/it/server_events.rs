//! Events of tasks and models: what is stored of a batch (`reported`), the less usual forms of reading (`forms`), what
//! comes in several answers (`pages`), and what takes events away (`removed`).

mod forms;
mod pages;
mod removed;
mod reported;

use serde_json::Value;

use crate::server_world::Client;

async fn refused(client: &Client, call: &str, body: Value) -> (u16, u64) {
    let (status, answer) = client.raw(call, body).await;
    (
        status,
        answer["meta"]["result_subcode"].as_u64().unwrap_or(0),
    )
}
