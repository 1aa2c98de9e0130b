//! One order: from an account to a certificate, by HTTP-01 (RFC 8555 §7.4, §8.3).

use super::client::{CaClient, heeding_retry_after};
use crate::domain::OrderFailure;
use crate::keys::Keys;
use crate::mail::DomainName;
use crate::supervise::out_of_the_way;
use crate::tls::Challenges;
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// For the CA to look at the challenge, and to issue.
const PATIENCE: Duration = Duration::from_secs(90);
/// Nonces that may turn out to be stale in one order. Pebble refuses good ones to see that one tries again.
const MOST_STALE: u32 = 20;

/// Of the account at the CA that was the first one here.
pub(super) const ACCOUNT_FILE: &str = "acme-account.json";

/// The account at one CA, made when it is first needed and kept.
pub struct AtCa {
    pub client: CaClient,
    pub directory: String,
    pub contact: Option<String>,
    pub keys: Keys,
    pub challenges: Challenges,
    pub account: tokio::sync::Mutex<HeldAccount>,
}

/// The account in use.
#[derive(Default)]
pub struct HeldAccount {
    account: Option<Account>,
    /// Where it is kept.
    file: String,
    /// Of this one among those that were held here.
    number: u32,
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
        let mut has_forgotten = false;
        for _ in 0..MOST_STALE {
            let (account, number) = self.account().await?;
            match Self::try_order(&account, &self.challenges, host).await {
                Ok(issued) => return Ok(issued),
                Err(Error::Api(problem)) if is(&problem, "badNonce") => {}
                Err(Error::Api(problem)) if is(&problem, "accountDoesNotExist") && !has_forgotten => {
                    self.forget_account(number).await;
                    has_forgotten = true;
                }
                Err(e) => return Err(e),
            }
        }
        Err(Error::Other("the CA takes none of its own nonces".into()))
    }

    async fn try_order(account: &Account, challenges: &Challenges, host: &DomainName) -> Result<Issued, Error> {
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
                held.push(challenges.hold(&challenge.token, challenge.key_authorization().as_str()));
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

    /// The account, with its number among those that were held.
    async fn account(&self) -> Result<(Account, u32), Error> {
        let mut held = self.account.lock().await;
        if let Some(account) = &held.account {
            return Ok((account.clone(), held.number));
        }
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        let (account, file) = match self.stored()? {
            Some((file, stored)) => match builder().from_credentials(stored.credentials).await {
                Err(Error::KeyRejected | Error::Crypto) => return Err(self.unreadable(&file)),
                account => (account?, file),
            },
            None => {
                let file = self.file_of_new()?;
                let contact = self.contact.as_ref().map(|address| format!("mailto:{address}"));
                let contacts: Vec<&str> = contact.as_deref().into_iter().collect();
                let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
                let (account, credentials) = builder().create(&new, self.directory.clone(), None).await?;
                let stored = Stored { directory: self.directory.clone(), credentials };
                let stored = serde_json::to_vec_pretty(&stored)?;
                out_of_the_way(|| self.keys.write_new(&file, &stored)).map_err(of_file)?;
                tracing::info!(account = account.id(), "an account was made at the CA");
                (account, file)
            }
        };
        *held = HeldAccount { account: Some(account.clone()), file, number: held.number.wrapping_add(1) };
        Ok((account, held.number))
    }

    /// The account at this CA as it is kept, and where. What cannot be read is nobody's to overwrite: there may be a
    /// limit to accounts, and the file may be all that is left of this one.
    fn stored(&self) -> Result<Option<(String, Stored)>, Error> {
        for file in [own_file(&self.directory), ACCOUNT_FILE.to_owned()] {
            let Some(bytes) = self.keys.read(&file).map_err(of_file)? else { continue };
            match serde_json::from_slice::<Stored>(&bytes) {
                Ok(stored) if stored.directory == self.directory => return Ok(Some((file, stored))),
                Ok(_) => {}
                Err(_) => return Err(self.unreadable(&file)),
            }
        }
        Ok(None)
    }

    fn unreadable(&self, file: &str) -> Error {
        let why = "it is no account that can be read; move it away to have a new one made";
        Error::Other(format!("{}: {why}", self.keys.path(file).display()).into())
    }

    /// Where a new account is kept: each CA's has its own file, so that going from one to another and back makes none.
    /// Whether it can be written is seen before there is one.
    fn file_of_new(&self) -> Result<String, Error> {
        let file = match self.keys.read(ACCOUNT_FILE).map_err(of_file)? {
            None => ACCOUNT_FILE.to_owned(),
            Some(_) => own_file(&self.directory),
        };
        self.keys.probe(&file).map_err(of_file)?;
        Ok(file)
    }

    /// The CA does not know the account of this number. Where another one is held by now, that one is left alone.
    async fn forget_account(&self, number: u32) {
        let mut held = self.account.lock().await;
        if held.number != number || held.account.take().is_none() {
            return;
        }
        tracing::warn!("the CA knows no account of ours; another one is made");
        if let Err(e) = self.keys.remove(&held.file) {
            tracing::warn!("{e}");
        }
    }
}

fn of_file(e: crate::keys::KeyError) -> Error {
    Error::Other(e.to_string().into())
}

/// For the account at a CA that is not the first.
fn own_file(directory: &str) -> String {
    let digest: String = Sha256::digest(directory).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("acme-account-{digest}.json")
}

fn failure(error: &Error, retry_after: Option<u64>) -> OrderFailure {
    let problem = if let Error::Api(problem) = error { Some(problem) } else { None };
    let message = match problem {
        Some(problem) => told(problem),
        None => error.to_string(),
    };
    let refused = problem.is_some_and(|problem| is(problem, "rejectedIdentifier"));
    OrderFailure { retry_after, refused, ..OrderFailure::new(fit_to_show(&message)) }
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
