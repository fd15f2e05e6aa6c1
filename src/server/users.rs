//! The `auth`, `login` and `users` services (`protocol.md` §1.4, §2.1).

use rusqlite::{OptionalExtension as _, params};
use serde_json::{Value, json};

use super::auth::{COMPANY, COMPANY_NAME, LIFETIME, LONGEST, add_pair, note_change};
use super::call::Call;
use super::wire::{Answer, Doc, Refusal, new_id};

/// `auth.login`
pub(crate) fn login(call: &Call) -> Answer {
    let lifetime = lifetime(call)?;
    let caller = &call.request.caller;
    if let Some(key) = &caller.access_key {
        let from = call.request.worker.as_deref().unwrap_or(&call.request.ip);
        let sql =
            "UPDATE credentials SET last_used = ?2, last_used_from = ?3 WHERE access_key = ?1";
        call.db.execute(sql, params![key, call.now, from])?;
    }
    Ok(json!({"token": call.app.auth.token(caller, call.at.as_second(), lifetime)?}))
}

/// How many seconds a new token is to live.
fn lifetime(call: &Call) -> Result<i64, Refusal> {
    let lifetime = call.int("expiration_sec")?.unwrap_or(LIFETIME);
    if (1..=LONGEST).contains(&lifetime) {
        return Ok(lifetime);
    }
    Err(Refusal::invalid(format_args!(
        "expiration_sec must be between 1 and {LONGEST}"
    )))
}

/// `auth.logout`, `login.logout`
pub(crate) fn logout(call: &Call) -> Answer {
    if let Some(session) = &call.request.caller.session {
        let until = call.at.as_second() + LONGEST;
        call.db.execute(
            "DELETE FROM revoked_sessions WHERE until < ?1",
            [call.at.as_second()],
        )?;
        call.db.execute(
            "INSERT OR REPLACE INTO revoked_sessions VALUES (?1, ?2)",
            params![session, until],
        )?;
        call.app.auth.revoke(session.clone());
    }
    Ok(json!({}))
}

/// `auth.validate_token`
pub(crate) fn validate_token(call: &Call) -> Answer {
    Ok(
        match call
            .app
            .auth
            .by_token(call.text("token")?, call.at.as_second())
        {
            Ok(caller) => {
                json!({"valid": true, "user": caller.user, "company": COMPANY, "msg": ""})
            }
            Err(refusal) => json!({"valid": false, "msg": refusal.text}),
        },
    )
}

/// `auth.get_token_for_user`
pub(crate) fn token_for_user(call: &Call) -> Answer {
    call.administer()?;
    let user = call.text("user")?;
    let target = call
        .app
        .auth
        .user(user)
        .ok_or_else(|| Refusal::bad(6, "Unknown user"))?;
    let lifetime = lifetime(call)?;
    Ok(json!({"token": call.app.auth.token(&target, call.at.as_second(), lifetime)?}))
}

/// `auth.create_credentials`
pub(crate) fn create_credentials(call: &Call) -> Answer {
    let label = call.text_or_none("label")?.unwrap_or_default();
    let (access_key, secret) = add_pair(call.db, call.user(), label)?;
    call.app
        .auth
        .accept(access_key.clone(), &secret, call.user());
    Ok(json!({"credentials": {"access_key": access_key, "secret_key": secret, "label": label}}))
}

/// `auth.get_credentials`
pub(crate) fn get_credentials(call: &Call) -> Answer {
    let sql =
        "SELECT access_key, label, last_used, last_used_from FROM credentials WHERE user = ?1";
    let mut statement = call.db.prepare_cached(sql)?;
    let mut rows = statement.query([call.user()])?;
    let mut pairs = Vec::new();
    while let Some(row) = rows.next()? {
        let mut pair = Doc::new();
        for (column, name) in ["access_key", "label", "last_used", "last_used_from"]
            .into_iter()
            .enumerate()
        {
            if let Some(text) = row.get::<_, Option<String>>(column)? {
                pair.insert(name.into(), text.into());
            }
        }
        pairs.push(pair);
    }
    Ok(json!({"credentials": pairs}))
}

/// `auth.revoke_credentials`
pub(crate) fn revoke_credentials(call: &Call) -> Answer {
    let key = call.text("access_key")?;
    let sql = "DELETE FROM credentials WHERE access_key = ?1 AND user = ?2";
    let revoked = call.db.execute(sql, params![key, call.user()])?;
    if revoked > 0 {
        note_change(call.db)?;
        call.app.auth.forget(key);
    }
    Ok(json!({"revoked": revoked}))
}

/// `auth.fixed_users_mode`
#[expect(clippy::unnecessary_wraps, reason = "an endpoint like the others")]
pub(crate) fn fixed_users_mode(_: &Call) -> Answer {
    Ok(json!({"enabled": false, "guest": {"enabled": false}, "server_errors": {}}))
}

/// `login.supported_modes`
#[expect(clippy::unnecessary_wraps, reason = "an endpoint like the others")]
pub(crate) fn supported_modes(call: &Call) -> Answer {
    let guest = json!({"enabled": false, "name": "", "username": "", "password": ""});
    Ok(json!({
        "basic": {"enabled": false, "guest": guest},
        "sso": {},
        "sso_providers": [],
        "server_errors": {"missed_es_upgrade": false, "es_connection_error": false},
        "authenticated": !call.user().is_empty(),
    }))
}

/// `users.get_current_user`
pub(crate) fn current_user(call: &Call) -> Answer {
    let caller = &call.request.caller;
    let sql = "SELECT created, preferences FROM users WHERE id = ?1";
    let row: Option<(String, String)> = call
        .db
        .query_row(sql, [call.user()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (created, preferences) = row.unwrap_or_else(|| (call.now.clone(), "{}".into()));
    Ok(json!({
        "user": {
            "id": caller.user,
            "name": caller.name,
            "company": {"id": COMPANY, "name": COMPANY_NAME},
            "role": caller.role,
            "created": created,
            "preferences": serde_json::from_str::<Value>(&preferences)?,
        },
        "getting_started": {"agentName": "trainyard", "configure": "", "install": "", "packageName": "clearml"},
        "settings": {"max_download_items": 1000},
    }))
}

/// `users.get_all`, `users.get_all_ex`
pub(crate) fn get_all(call: &Call) -> Answer {
    let wanted = call.texts("id")?;
    let mut users = Vec::new();
    for (id, name, role) in call.app.auth.all_users() {
        if wanted.is_empty() || wanted.contains(&id.as_str()) {
            users.push(json!({"id": id, "name": name, "role": role, "company": COMPANY}));
        }
    }
    Ok(json!({"users": users}))
}

/// `users.get_by_id`
pub(crate) fn get_by_id(call: &Call) -> Answer {
    let id = call.text("user")?;
    let user = call
        .app
        .auth
        .user(id)
        .ok_or_else(|| Refusal::unknown_id(10, "Invalid user id", id, COMPANY))?;
    Ok(json!({"user": {"id": id, "name": user.name, "role": user.role, "company": COMPANY}}))
}

/// `users.get_preferences`
pub(crate) fn get_preferences(call: &Call) -> Answer {
    Ok(json!({"preferences": preferences(call)?}))
}

fn preferences(call: &Call) -> Result<Doc, Refusal> {
    let sql = "SELECT preferences FROM users WHERE id = ?1";
    let text: Option<String> = call
        .db
        .query_row(sql, [call.user()], |row| row.get(0))
        .optional()?;
    Ok(match text {
        Some(text) => serde_json::from_str(&text)?,
        None => Doc::new(),
    })
}

/// The largest preferences of a user, in bytes.
const PREFERENCES: usize = 1 << 20;

/// `users.set_preferences`: what is sent goes over what is there; null takes away.
pub(crate) fn set_preferences(call: &Call) -> Answer {
    let new = call
        .object("preferences")?
        .ok_or_else(|| super::call::required("preferences"))?;
    let mut all = preferences(call)?;
    for (key, value) in new {
        if value.is_null() {
            all.shift_remove(key);
        } else {
            all.insert(key.clone(), value.clone());
        }
    }
    let text = serde_json::to_string(&all)?;
    if text.len() > PREFERENCES {
        return Err(Refusal::invalid(format_args!(
            "preferences are larger than {PREFERENCES} bytes"
        )));
    }
    let sql = "UPDATE users SET preferences = ?2 WHERE id = ?1";
    let updated = call.db.execute(sql, [call.user(), &text])?;
    Ok(json!({"updated": updated, "fields": {"preferences": all}}))
}

/// `auth.create_user`, for those who administer: a user without keys; `auth.get_token_for_user` lets it in.
pub(crate) fn create_user(call: &Call) -> Answer {
    call.administer()?;
    let name = call.text("name")?;
    let role = role(call.text_or_none("role")?.unwrap_or("user"))?;
    let taken = call
        .db
        .prepare_cached("SELECT 1 FROM users WHERE name = ?1")?
        .exists([name])?;
    if taken || name.trim().is_empty() {
        return Err(super::queues::name_taken(name));
    }
    let id = new_id();
    call.db.execute(
        "INSERT INTO users (id, name, role, created, preferences) VALUES (?1, ?2, ?3, ?4, '{}')",
        params![id, name, role, call.now],
    )?;
    note_change(call.db)?;
    call.app.auth.admit(&id, name, role);
    Ok(json!({"id": id}))
}

fn role(word: &str) -> Result<&str, Refusal> {
    if ["user", "admin", "guest"].contains(&word) {
        Ok(word)
    } else {
        Err(Refusal::invalid(format_args!("Invalid role: {word}")))
    }
}

/// `auth.edit_user`: the role of another user.
pub(crate) fn edit_user(call: &Call) -> Answer {
    call.administer()?;
    let id = call.text("user")?;
    let user = call
        .app
        .auth
        .user(id)
        .ok_or_else(|| Refusal::unknown_id(10, "Invalid user id", id, COMPANY))?;
    let Some(new) = call.text_or_none("role")? else {
        return Ok(json!({"updated": 0, "fields": {}}));
    };
    let new = role(new)?;
    let sql = "UPDATE users SET role = ?2 WHERE id = ?1";
    let updated = call.db.execute(sql, [id, new])?;
    note_change(call.db)?;
    call.app.auth.admit(id, &user.name, new);
    Ok(json!({"updated": updated, "fields": {"role": new}}))
}

/// `auth.edit_credentials`: the label of a key pair of the caller.
pub(crate) fn edit_credentials(call: &Call) -> Answer {
    let sql = "UPDATE credentials SET label = ?3 WHERE access_key = ?1 AND user = ?2";
    let label = call.text_or_none("label")?.unwrap_or_default();
    let updated = call
        .db
        .execute(sql, [call.text("access_key")?, call.user(), label])?;
    Ok(json!({"updated": updated}))
}
