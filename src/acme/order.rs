//! One order: from an account to a certificate, by HTTP-01 (RFC 8555 §7.4, §8.3).

use super::client::{CaClient, heeding_retry_after};
use crate::domain::OrderFailure;
use crate::keys::Keys;
use crate::mail::DomainName;
use crate::tls::Challenges;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// For the CA to look at the challenge, and to issue.
const PATIENCE: Duration = Duration::from_secs(90);
/// Nonces that may turn out to be stale in one order. Pebble refuses good ones to see that one tries again.
const MOST_STALE: u32 = 20;

pub(super) const ACCOUNT_FILE: &str = "acme-account.json";

/// The account at one CA, made when it is first needed and kept.
pub struct AtCa {
    pub client: CaClient,
    pub directory: String,
    pub contact: Option<String>,
    pub keys: Keys,
    pub challenges: Challenges,
    pub account: tokio::sync::Mutex<Option<Account>>,
}

/// A chain and its key, both PEM.
pub struct Issued {
    pub chain: String,
    pub key: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    directory: String,
    credentials: AccountCredentials,
}

impl AtCa {
    /// Orders a certificate for `host`.
    pub async fn order(&self, host: &DomainName) -> Result<Issued, OrderFailure> {
        let (ordered, retry_after) = heeding_retry_after(self.insist(host)).await;
        ordered.map_err(|e| failure(&e, retry_after))
    }

    async fn insist(&self, host: &DomainName) -> Result<Issued, Error> {
        for _ in 0..MOST_STALE {
            match self.try_order(host).await {
                Ok(issued) => return Ok(issued),
                Err(Error::Api(problem)) if is(&problem, "badNonce") => {}
                Err(Error::Api(problem)) if is(&problem, "accountDoesNotExist") => self.forget_account().await,
                Err(e) => return Err(e),
            }
        }
        Err(Error::Other("the CA takes none of its own nonces, or knows no account of ours".into()))
    }

    async fn try_order(&self, host: &DomainName) -> Result<Issued, Error> {
        let account = self.account().await?;
        let identifiers = [Identifier::Dns(host.to_string())];
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        let mut held = Vec::new();
        {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                let mut authorization = authorization?;
                if authorization.status == AuthorizationStatus::Valid {
                    continue;
                }
                let mut challenge =
                    authorization.challenge(ChallengeType::Http01).ok_or(Error::Unsupported("HTTP-01"))?;
                held.push(self.challenges.hold(&challenge.token, challenge.key_authorization().as_str()));
                challenge.set_ready().await?;
            }
        }
        let policy = RetryPolicy::new().initial_delay(Duration::from_millis(200)).timeout(PATIENCE);
        match order.poll_ready(&policy).await {
            Ok(OrderStatus::Invalid) => return Err(why_invalid(&mut order).await),
            Ok(_) => {}
            Err(Error::Api(problem)) if !is(&problem, "badNonce") => {
                let told = why_invalid(&mut order).await;
                return Err(if matches!(told, Error::Api(_)) { told } else { Error::Api(problem) });
            }
            Err(e) => return Err(e),
        }
        drop(held);
        let failed = |e: rcgen::Error| Error::Other(e.into());
        // ECDSA P-256, which is what this makes.
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(vec![host.to_string()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(failed)?;
        order.finalize_csr(request.der()).await?;
        let chain = order.poll_certificate(&policy).await?;
        Ok(Issued { chain, key: key.serialize_pem() })
    }

    async fn account(&self) -> Result<Account, Error> {
        let mut held = self.account.lock().await;
        if let Some(account) = &*held {
            return Ok(account.clone());
        }
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        let failed = |e: crate::keys::KeyError| Error::Other(e.to_string().into());
        let stored = self.keys.read(ACCOUNT_FILE).map_err(failed)?;
        let stored = stored.and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
        let account = match stored.filter(|stored| stored.directory == self.directory) {
            Some(stored) => builder().from_credentials(stored.credentials).await?,
            None => {
                let contact = self.contact.as_ref().map(|address| format!("mailto:{address}"));
                let contacts: Vec<&str> = contact.as_deref().into_iter().collect();
                let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
                let (account, credentials) = builder().create(&new, self.directory.clone(), None).await?;
                let stored = Stored { directory: self.directory.clone(), credentials };
                self.keys.write(ACCOUNT_FILE, &serde_json::to_vec_pretty(&stored)?).map_err(failed)?;
                tracing::info!(account = account.id(), "an account was made at the CA");
                account
            }
        };
        *held = Some(account.clone());
        Ok(account)
    }

    async fn forget_account(&self) {
        *self.account.lock().await = None;
        if let Err(e) = self.keys.remove(ACCOUNT_FILE) {
            tracing::warn!("{e}");
        }
    }
}

fn failure(error: &Error, retry_after: Option<u64>) -> OrderFailure {
    let problem = if let Error::Api(problem) = error { Some(problem) } else { None };
    let message = match problem {
        Some(problem) => told(problem),
        None => error.to_string(),
    };
    let refused = problem.is_some_and(|problem| is(problem, "rejectedIdentifier"));
    OrderFailure { message: fit_to_show(&message), retry_after, refused }
}

/// The CA's words as they are kept and shown: not without bound, and nothing that moves a cursor.
fn fit_to_show(text: &str) -> String {
    const MOST: usize = 400;
    let moves = |c: char| c.is_control() || c.general_category() == GeneralCategory::Format;
    let mut shown: String = text.chars().take(MOST).map(|c| if moves(c) { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a problem, or a part of it, has this type (RFC 8555 §6.7).
fn is(problem: &Problem, kind: &str) -> bool {
    let has = |text: Option<&str>| text.and_then(|text| text.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind);
    has(problem.r#type.as_deref()) || problem.subproblems.iter().any(|part| has(part.r#type.as_deref()))
}

/// The CA's words, with the type of the problem where it has one.
fn told(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or("no reason given");
    match problem.r#type.as_deref().and_then(|kind| kind.strip_prefix("urn:ietf:params:acme:error:")) {
        Some(kind) => format!("{detail} ({kind})"),
        None => detail.to_owned(),
    }
}

/// What the CA found wrong with the challenge.
async fn why_invalid(order: &mut Order) -> Error {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await
            && let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.clone())
        {
            return Error::Api(problem);
        }
    }
    Error::Str("the CA ended the order without a reason")
}
