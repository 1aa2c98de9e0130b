//! API keys, and the key that signs tokens.

use super::{OpError, Ops, domain_name};
use crate::clock;
use crate::settings::{ApiKey, Change, Permission, token_digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    pub name: String,
    pub permission: Permission,
    pub domain: Option<String>,
}

/// A key as people see it: never the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    pub id: String,
    pub name: String,
    pub permission: Permission,
    pub domain: Option<String>,
    pub created_at: u64,
}

/// Makes a key and returns its token, which is shown this once.
pub async fn key_create(ops: &Ops, new: NewKey) -> Result<String, OpError> {
    if new.name.is_empty() || new.name.chars().count() > 50 || new.name.chars().any(char::is_control) {
        return Err(OpError::BadKeyName);
    }
    let domain = new.domain.as_deref().map(domain_name).transpose()?;
    // `re_`, since the SDKs that people bring expect it.
    let token = format!("re_{}", URL_SAFE_NO_PAD.encode(clock::random::<32>()));
    let key = ApiKey {
        id: uuid::Uuid::from_bytes(*clock::queue_id().as_bytes()),
        name: new.name,
        token_sha256: token_digest(&token),
        permission: new.permission,
        domain,
        created_at: clock::unix_ms(),
    };
    ops.settings
        .change(|settings| {
            if let Some(name) = key.domain.as_ref().filter(|name| !settings.domains.contains_key(*name)) {
                return Err(OpError::UnknownDomain(name.clone()));
            }
            Ok((vec![Change::ApiKey(key)], token))
        })
        .await
}

pub fn key_list(ops: &Ops) -> Vec<KeyView> {
    let settings = ops.settings.snapshot();
    settings.api_keys.values().map(view).collect()
}

/// Revokes the key whose id begins with `id`.
pub async fn key_revoke(ops: &Ops, id: &str) -> Result<KeyView, OpError> {
    ops.settings
        .change(|settings| {
            let mut found =
                settings.api_keys.values().filter(|key| !id.is_empty() && key.id.to_string().starts_with(id));
            let key = found.next().ok_or_else(|| OpError::UnknownKey(id.to_owned()))?;
            if found.next().is_some() {
                return Err(OpError::AmbiguousKey(id.to_owned()));
            }
            Ok((vec![Change::DropApiKey(key.id)], view(key)))
        })
        .await
}

/// Adds a token key; links are signed with it from now on. Returns its number.
pub fn key_rotate(ops: &Ops) -> Result<u8, OpError> {
    ops.keys.rotate().map_err(OpError::Keys)
}

fn view(key: &ApiKey) -> KeyView {
    KeyView {
        id: key.id.to_string(),
        name: key.name.clone(),
        permission: key.permission,
        domain: key.domain.as_ref().map(ToString::to_string),
        created_at: key.created_at,
    }
}
