//! API keys, and the key that signs tokens.

use super::{OpError, Ops, domain_name};
use crate::clock;
use crate::settings::{ApiKey, Change, Permission, Tie};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    pub name: String,
    pub permission: Permission,
    /// Names of the sender domains that it is tied to; empty: to none.
    pub domains: Vec<String>,
}

/// A key as people see it: never the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    pub id: String,
    pub name: String,
    pub permission: Permission,
    /// Empty: all.
    pub domains: Vec<String>,
    pub created_at: u64,
    /// Within an hour.
    pub last_used_at: Option<u64>,
}

/// A new key with its token, which is shown this once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub id: String,
    pub token: String,
}

pub async fn key_create(ops: &Ops, new: NewKey) -> Result<Made, OpError> {
    let name = key_name(new.name)?;
    let names: Vec<_> = new.domains.iter().map(|name| domain_name(name)).collect::<Result<_, _>>()?;
    // `re_`, since the SDKs that people bring expect it.
    let token = format!("re_{}", URL_SAFE_NO_PAD.encode(clock::random::<32>()));
    let id = Uuid::from_bytes(*clock::queue_id().as_bytes());
    let now = clock::unix_ms();
    ops.settings
        .change(|settings| {
            let tie = |name| match settings.domains.get(&name) {
                Some(domain) => Ok(Tie { id: domain.id, name }),
                None => Err(OpError::UnknownDomain(name)),
            };
            let ties: Vec<_> = names.into_iter().map(tie).collect::<Result<_, _>>()?;
            let key = ApiKey::new(id, name, &token, new.permission, ties, now);
            Ok((vec![Change::ApiKey(key)], Made { id: id.to_string(), token }))
        })
        .await
}

fn key_name(name: String) -> Result<String, OpError> {
    let fits = (1..=50).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits { Ok(name) } else { Err(OpError::BadKeyName) }
}

pub fn key_list(ops: &Ops) -> Vec<KeyView> {
    let settings = ops.settings.snapshot();
    settings.api_keys.values().map(view).collect()
}

/// Gives a key another name.
pub async fn key_rename(ops: &Ops, id: Uuid, name: String) -> Result<(), OpError> {
    let name = key_name(name)?;
    let renamed = ops.settings.change(|settings| {
        let mut key = settings.api_keys.get(&id).cloned().ok_or_else(|| OpError::UnknownKey(id.to_string()))?;
        key.name = name;
        Ok((vec![Change::ApiKey(key)], ()))
    });
    renamed.await
}

/// Takes a key away: it is good for nothing from now on.
pub async fn key_delete(ops: &Ops, id: Uuid) -> Result<KeyView, OpError> {
    ops.settings
        .change(|settings| {
            let key = settings.api_keys.get(&id).ok_or_else(|| OpError::UnknownKey(id.to_string()))?;
            Ok((vec![Change::DropApiKey(id)], view(key)))
        })
        .await
}

/// Revokes the key whose id begins with `id`.
pub async fn key_revoke(ops: &Ops, id: &str) -> Result<KeyView, OpError> {
    let settings = ops.settings.snapshot();
    let mut found = settings.api_keys.keys().filter(|key| !id.is_empty() && key.to_string().starts_with(id));
    let key = *found.next().ok_or_else(|| OpError::UnknownKey(id.to_owned()))?;
    if found.next().is_some() {
        return Err(OpError::AmbiguousKey(id.to_owned()));
    }
    key_delete(ops, key).await
}

/// Adds a token key; links are signed with it from now on. Returns its number. Done even where who asks goes away.
pub async fn key_rotate(ops: &Ops) -> Result<u8, OpError> {
    let keys = ops.keys.clone();
    let rotated = tokio::task::spawn_blocking(move || keys.rotate()).await;
    rotated.map_err(|e| OpError::Fault(e.to_string()))?.map_err(OpError::Keys)
}

fn view(key: &ApiKey) -> KeyView {
    KeyView {
        id: key.id.to_string(),
        name: key.name.clone(),
        permission: key.permission,
        domains: key.domains.iter().map(|tie| crate::domain::unicode(tie.name.as_str())).collect(),
        created_at: key.created_at,
        last_used_at: key.last_used_at,
    }
}
