//! Questions come together, answers are never older than their question, and idle bindings share one budget.

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::*;
use crate::api::{Credentials, Settings};

fn queue(number: u32) -> QueueId {
    format!("{number:032x}").parse().unwrap()
}

/// A server on which queue `n` has `n` entries; each answer takes its time.
struct Stage {
    server: MockServer,
    servers: Servers,
}

impl Stage {
    async fn new(delay: Duration) -> Self {
        let server = MockServer::start().await;
        let login = json!({"meta": {"result_code": 200}, "data": {"token": "a.b.c"}});
        Mock::given(path("/auth.login"))
            .respond_with(ResponseTemplate::new(200).set_body_json(login))
            .mount(&server)
            .await;
        Mock::given(method("POST"))
            .and(path("/queues.get_all"))
            .respond_with(move |request: &Request| {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                let limit = body["max_task_entries"].as_u64().unwrap_or(u64::MAX);
                let one = |id: &Value| {
                    let number = u64::from_str_radix(id.as_str().unwrap(), 16).unwrap();
                    let entry = |place: u64| json!({"task": format!("{place:032x}"), "added": "2026-01-01"});
                    let entries: Vec<Value> = (0..number.min(limit)).map(entry).collect();
                    json!({"id": id, "name": format!("q{number}"), "entries": entries})
                };
                let queues: Vec<Value> = body["id"].as_array().into_iter().flatten().map(one).collect();
                let answer = json!({"meta": {"result_code": 200}, "data": {"queues": queues}});
                ResponseTemplate::new(200).set_body_json(answer).set_delay(delay)
            })
            .mount(&server)
            .await;
        Self {
            server,
            servers: Servers::default(),
        }
    }

    fn seat_of(&self, secret: &str) -> Seat {
        let whom = Whom {
            api_url: self.server.uri(),
            access_key: "key".into(),
            secret_key: SecretString::from(secret),
            ca: None,
            proxy: None,
        };
        let settings = Settings::new(self.server.uri(), Credentials::keys("key", secret), "w");
        self.servers.seat(whom, || Client::new(settings)).unwrap()
    }

    async fn looks(&self) -> Vec<Value> {
        let requests = self.server.received_requests().await.unwrap();
        requests
            .iter()
            .filter(|request| request.url.path() == "/queues.get_all")
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect()
    }
}

fn wanted(queues: &[u32], limit: u32) -> Wanted {
    Wanted {
        queues: queues.iter().copied().map(queue).collect(),
        limit,
        all: false,
    }
}

#[tokio::test]
async fn questions_of_one_moment_are_one_request_and_each_gets_its_own() {
    let stage = Stage::new(Duration::ZERO).await;
    let (one, other) = (stage.seat_of("s"), stage.seat_of("s"));
    // Both are awake: the first question waits for the second.
    one.wake();
    other.wake();
    let (first, second) = tokio::join!(one.entries(wanted(&[1, 2], 100)), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        other.entries(wanted(&[2, 3], 100)).await
    });
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.queues[&queue(2)], second.queues[&queue(2)]);
    assert_eq!(second.queues[&queue(3)].entries.len(), 3);
    let looks = stage.looks().await;
    assert_eq!(looks.len(), 1, "{looks:?}");
    assert_eq!(looks[0]["id"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_question_is_never_answered_by_a_read_that_was_begun_before_it() {
    let stage = Stage::new(Duration::from_millis(300)).await;
    let (one, other) = (stage.seat_of("s"), stage.seat_of("s"));
    let (first, asked, second) = tokio::join!(
        one.entries(wanted(&[1], 100)),
        async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            Timestamp::now()
        },
        async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            other.entries(wanted(&[1], 100)).await
        }
    );
    assert!(first.unwrap().read_at < asked);
    assert!(second.unwrap().read_at >= asked);
    assert_eq!(stage.looks().await.len(), 2);
}

#[tokio::test]
async fn a_long_queue_is_read_as_far_as_who_wants_most_of_it() {
    let stage = Stage::new(Duration::ZERO).await;
    let (one, other) = (stage.seat_of("s"), stage.seat_of("s"));
    one.wake();
    other.wake();
    let (few, many) = tokio::join!(
        one.entries(wanted(&[2], 100)),
        other.entries(wanted(&[3, 400], 500))
    );
    assert_eq!(few.unwrap().queues[&queue(2)].entries.len(), 2);
    let many = many.unwrap();
    let long = &many.queues[&queue(400)];
    assert_eq!((long.entries.len(), long.cut), (400, false));
    let looks = stage.looks().await;
    assert_eq!(looks.len(), 2, "{looks:?}");
    assert_eq!(looks[1]["id"], json!([queue(400).as_str()]));
}

#[tokio::test]
async fn other_credentials_are_another_server() {
    let stage = Stage::new(Duration::ZERO).await;
    let (one, same, other) = (stage.seat_of("s"), stage.seat_of("s"), stage.seat_of("t"));
    assert!(Arc::ptr_eq(&one.shared, &same.shared));
    assert!(!Arc::ptr_eq(&one.shared, &other.shared));
    drop((one, same));
    stage.seat_of("u");
    let known = stage.servers.known.lock().unwrap().len();
    assert_eq!(known, 2, "who has no seats left is forgotten");
}

#[tokio::test]
async fn who_is_due_soon_comes_along_with_who_is_due_now() {
    let stage = Stage::new(Duration::ZERO).await;
    let (now, soon, later) = (stage.seat_of("s"), stage.seat_of("s"), stage.seat_of("s"));
    let begun = Instant::now();
    let millis = Duration::from_millis;
    let ((), along, ()) = tokio::join!(
        now.sleep(millis(100), true),
        async {
            soon.sleep(millis(500), true).await;
            begun.elapsed()
        },
        async {
            let slept = tokio::time::timeout(millis(900), later.sleep(millis(5000), true)).await;
            assert!(slept.is_err(), "who is due much later sleeps on");
        }
    );
    assert!(along < millis(450), "{along:?}");
}

#[tokio::test]
async fn what_else_was_asked_while_nothing_is_on_its_way_puts_the_next_look_off() {
    let stage = Stage::new(Duration::ZERO).await;
    let seat = stage.seat_of("s");
    let slept = async |idle| {
        seat.entries(wanted(&[1], 100)).await.unwrap();
        assert!(seat.turn(), "once between two looks");
        assert!(!seat.turn());
        let begun = Instant::now();
        seat.sleep(Duration::from_secs(1), idle).await;
        begun.elapsed()
    };
    assert!(slept(false).await < Duration::from_millis(1500));
    assert!(slept(true).await >= Duration::from_millis(1900));
}

#[tokio::test]
async fn what_is_done_from_time_to_time_is_due_for_all_at_the_same_moment() {
    let stage = Stage::new(Duration::ZERO).await;
    let (one, other) = (stage.seat_of("s"), stage.seat_of("s"));
    let (minute, offset) = (Duration::from_mins(1), Duration::from_secs(30));
    let due = one.next(minute, offset);
    assert_eq!(due, other.next(minute, offset));
    let wait = due.duration_since(Instant::now());
    assert!(
        wait > Duration::from_secs(20) && wait <= minute + offset,
        "{wait:?}"
    );
}

#[tokio::test]
async fn a_call_that_came_just_when_it_woke_by_itself_lets_it_sleep_the_next_time() {
    let stage = Stage::new(Duration::ZERO).await;
    let seat = stage.seat_of("secret");
    seat.alarm.notify_one();
    let (begun, wait) = (Instant::now(), Duration::from_millis(300));
    seat.sleep(wait, false).await;
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
}
