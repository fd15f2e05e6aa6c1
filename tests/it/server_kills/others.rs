//! Stories of users, their keys and preferences, and of files.

use reqwest::Method;
use serde_json::{Value, json};

use super::ADMINISTRATOR;
use super::facts::{Ask, Who, is, is_gone, is_not};
use super::lane::{Lane, id};
use crate::s57_server::contents;

/// A key pair of the administrator's, and tokens that it got.
pub async fn keys(lane: &mut Lane) -> Option<()> {
    let pairs = Ask::call("auth.get_credentials", json!({}));
    let (label, later) = (lane.name("label"), lane.name("label"));
    let labelled = |label: &str| format!("credentials/label={label}/label");
    let facts = vec![is(&pairs, &labelled(&label), label.clone())];
    let made = lane
        .write("auth.create_credentials", json!({"label": label}), facts)
        .await?;
    let part = |name: &str| {
        made["credentials"][name]
            .as_str()
            .expect("a pair")
            .to_owned()
    };
    let (key, secret) = (part("access_key"), part("secret_key"));
    let who = Who::Keys(key.clone(), secret);
    let by_keys = Ask::user(who.clone());
    lane.facts.hold(is(&by_keys, "user/name", ADMINISTRATOR));
    let own = |member: &str| format!("credentials/access_key={key}/{member}");

    let facts = vec![is_not(&pairs, &own("last_used"), Value::Null)];
    let login = lane.write_as(&who, "auth.login", json!({}), facts).await?;
    let again = lane
        .also_as(&who, "auth.login", json!({}), Vec::new())
        .await?;
    for (call, answer) in [("auth.logout", login), ("login.logout", again)] {
        let token = answer["token"].as_str().expect("a token");
        let who = Who::Token(token.to_owned());
        let by_token = Ask::user(who.clone());
        lane.facts.hold(is(&by_token, "user/name", ADMINISTRATOR));
        let facts = vec![is(&by_token, "user/name", Value::Null)];
        lane.write_as(&who, call, json!({}), facts).await?;
    }

    let ask = json!({"access_key": key, "label": later});
    let facts = vec![
        is(&pairs, &labelled(&label), Value::Null),
        is(&pairs, &own("label"), later.clone()),
    ];
    lane.write("auth.edit_credentials", ask, facts).await?;
    let facts = vec![
        is(&by_keys, "user/name", Value::Null),
        is(&pairs, &own("label"), Value::Null),
        is(&pairs, &own("last_used"), Value::Null),
    ];
    lane.write("auth.revoke_credentials", json!({"access_key": key}), facts)
        .await?;
    Some(())
}

/// Another user, and the administrator's preferences.
pub async fn users(lane: &mut Lane) -> Option<()> {
    let name = lane.name("user");
    let all = Ask::call("users.get_all", json!({}));
    let role = format!("users/name={name}/role");
    let facts = vec![is(&all, &role, "user")];
    let new = json!({"name": name, "role": "user"});
    let user = id(&lane.write("auth.create_user", new, facts).await?);
    let facts = vec![is(&all, &role, "guest")];
    let ask = json!({"user": user, "role": "guest"});
    lane.write("auth.edit_user", ask, facts).await?;

    let key = lane.name("preference");
    let preferences = Ask::call("users.get_preferences", json!({}));
    let facts = vec![is(&preferences, &format!("preferences/{key}"), "set")];
    let ask = json!({"preferences": {(key): "set"}});
    lane.write("users.set_preferences", ask, facts).await?;
    Some(())
}

/// Files that come, change and go.
pub async fn files(lane: &mut Lane) -> Option<()> {
    let folder = format!("p/{}", lane.name("files"));
    let path = format!("{folder}/artifacts/a.bin");
    let about = Ask::File(path.clone());
    for (kind, said) in [
        ("a new file", contents(&path)),
        ("a file over another", contents("other words ")),
    ] {
        let text = String::from_utf8_lossy(&said);
        let facts = vec![is(&about, "", text)];
        let request = lane.client.upload(&path, &said);
        lane.send(kind, request, facts).await?;
    }
    let request = lane
        .client
        .request(Method::DELETE, &format!("files/{path}"));
    lane.send("a deleted file", request, vec![is_gone(&about)])
        .await?;

    for kind in ["several deleted files", "a deleted folder"] {
        let paths = [
            format!("{folder}/more/b.bin"),
            format!("{folder}/more/c.bin"),
        ];
        for path in &paths {
            let said = contents(path);
            let facts = vec![is(
                &Ask::File(path.clone()),
                "",
                String::from_utf8_lossy(&said),
            )];
            let request = lane.client.upload(path, &said);
            lane.also_send("a file beside", request, facts).await?;
        }
        let gone = paths
            .each_ref()
            .map(|path| is_gone(&Ask::File(path.clone())));
        let request = if kind == "a deleted folder" {
            let folder = format!("files/{folder}/more");
            lane.client.request(Method::DELETE, &folder)
        } else {
            let request = lane.client.request(Method::POST, "files/delete_many");
            request.json(&json!({"files": paths}))
        };
        lane.send_several(kind, request, gone.to_vec()).await?;
    }
    Some(())
}
