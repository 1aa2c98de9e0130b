//! Endpoints that are told of events, and what was told to them.

use super::domain_view::DomainView;
use super::share::{Bounds, Used, is_same_customer};
use super::{OpError, Ops, Terms};
use crate::clock;
use crate::event::SigningSecret;
use crate::event::payload::{EVENT_NAMES, attempt_id, domain_data, iso_z};
use crate::settings::{ApiKey, Change, Snapshot, Webhook};
use crate::store::{self, Attempt, Delivery, Store};
use serde_json::{Value, json};
use std::sync::Arc;
use url::{Host, Url};
use uuid::Uuid;

/// An endpoint to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWebhook {
    pub endpoint: String,
    pub events: Vec<String>,
    pub enabled: bool,
}

/// What is to change; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookUpdate {
    pub endpoint: Option<String>,
    pub events: Option<Vec<String>>,
    pub enabled: Option<bool>,
}

/// Endpoints that there may be: each is looked at for every event. Those of a customer are those that keys of the same
/// domains have made.
pub const WEBHOOKS: Bounds = Bounds { all: 500, tied: 400, share: 10 };
/// Characters of an endpoint's URL.
const MAX_ENDPOINT: usize = 2_000;

/// Makes an endpoint. It is tied to the domains that `key` is tied to.
pub async fn webhook_create(ops: &Ops, key: &ApiKey, new: NewWebhook) -> Result<Webhook, OpError> {
    check_endpoint(&new.endpoint, &ops.terms.load())?;
    let events = event_names(new.events)?;
    let id = Uuid::from_bytes(*clock::queue_id().as_bytes());
    let secret = SigningSecret::new(clock::random());
    let mut webhook = Webhook::new(id, new.endpoint, events, secret, key.domains.clone(), clock::unix_ms());
    webhook.set_enabled(new.enabled);
    let made = ops.settings.change(|settings| {
        WEBHOOKS.takes(&key.domains, used(settings, key)).map_err(OpError::TooManyWebhooks)?;
        Ok::<_, OpError>((vec![Change::Webhook(webhook.clone())], ()))
    });
    made.await?;
    Ok(webhook)
}

fn used(settings: &Snapshot, key: &ApiKey) -> Used {
    let ties = || settings.webhooks.values().map(|webhook| &*webhook.domains);
    Used {
        all: settings.webhooks.len(),
        tied: ties().filter(|ties| !ties.is_empty()).count(),
        own: ties().filter(|ties| is_same_customer(ties, &key.domains)).count(),
    }
}

pub async fn webhook_update(ops: &Ops, key: &ApiKey, id: Uuid, update: WebhookUpdate) -> Result<(), OpError> {
    if let Some(endpoint) = &update.endpoint {
        check_endpoint(endpoint, &ops.terms.load())?;
    }
    let events = update.events.map(event_names).transpose()?;
    let changed = ops.settings.change(|settings| {
        let before = own(settings, key, id)?;
        let mut webhook = before.clone();
        if let Some(endpoint) = update.endpoint
            && endpoint != webhook.endpoint
        {
            (webhook.endpoint, webhook.failing_since) = (endpoint, None);
        }
        if let Some(events) = events {
            webhook.events = events;
        }
        if let Some(enabled) = update.enabled {
            webhook.set_enabled(enabled);
        }
        let change = (webhook != *before).then_some(Change::Webhook(webhook));
        Ok::<_, OpError>((change.into_iter().collect(), ()))
    });
    changed.await
}

/// Removes an endpoint. What was told to it is forgotten by and by.
pub async fn webhook_delete(ops: &Ops, key: &ApiKey, id: Uuid) -> Result<(), OpError> {
    let gone = ops.settings.change(|settings| {
        own(settings, key, id)?;
        Ok::<_, OpError>((vec![Change::DropWebhook(id)], ()))
    });
    gone.await
}

/// Gives an endpoint a new secret. The one before stays good for a day.
pub async fn webhook_rotate(ops: &Ops, key: &ApiKey, id: Uuid) -> Result<SigningSecret, OpError> {
    let (secret, now) = (SigningSecret::new(clock::random()), clock::unix_ms());
    let rotated = ops.settings.change(|settings| {
        let mut webhook = own(settings, key, id)?.clone();
        webhook.rotate(secret.clone(), now);
        Ok::<_, OpError>((vec![Change::Webhook(webhook)], ()))
    });
    rotated.await?;
    Ok(secret)
}

/// Disables an endpoint for a reason of ours. `None`: it was not enabled any more, or leads elsewhere than to `endpoint`.
pub async fn webhook_disable(ops: &Ops, id: Uuid, endpoint: &str, why: &str) -> Result<Option<Webhook>, OpError> {
    let now = clock::unix_ms();
    let disabled = ops.settings.change(|settings| {
        let there = settings.webhooks.get(&id).filter(|webhook| webhook.enabled && webhook.endpoint == endpoint);
        let disabled = there.map(|webhook| Webhook {
            enabled: false,
            disabled_because: Some(why.to_owned()),
            disabled_at: Some(now),
            ..webhook.clone()
        });
        Ok::<_, OpError>((disabled.iter().cloned().map(Change::Webhook).collect(), disabled))
    });
    disabled.await
}

/// Notes since when nothing but failures came from `endpoint`, or that this has ended.
pub async fn webhook_failing(ops: &Ops, id: Uuid, endpoint: &str, since: Option<u64>) -> Result<(), OpError> {
    let noted = ops.settings.change(|settings| {
        let there = settings.webhooks.get(&id).filter(|webhook| webhook.endpoint == endpoint);
        let noted = there.filter(|webhook| webhook.failing_since != since);
        let noted = noted.map(|webhook| Change::Webhook(Webhook { failing_since: since, ..webhook.clone() }));
        Ok::<_, OpError>((noted.into_iter().collect(), ()))
    });
    noted.await
}

/// Up to `limit` deliveries that are older than that of the event `after`, the newest first, and whether there are
/// more. Reads the disk, as do those below.
pub fn webhook_events(
    ops: &Ops,
    key: &ApiKey,
    id: Uuid,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Delivery>, bool), OpError> {
    let store = history(ops, key, id)?;
    let after = match after {
        None => None,
        Some(event) => {
            let order = store::delivery_order(&store, id, event)?;
            Some(order.ok_or_else(|| OpError::UnknownAfter(event.to_owned()))?)
        }
    };
    let mut found = store::deliveries(&store, id, after, limit + 1)?;
    let more = found.len() > limit;
    found.truncate(limit);
    Ok((found, more))
}

pub fn webhook_event(ops: &Ops, key: &ApiKey, id: Uuid, event: &str) -> Result<Delivery, OpError> {
    let store = history(ops, key, id)?;
    let order = store::delivery_order(&store, id, event)?.ok_or(OpError::NoSuchWebhookEvent)?;
    store::delivery(&store, id, order)?.ok_or(OpError::NoSuchWebhookEvent)
}

/// Up to `limit` attempts with their ids that are older than the one of id `after`, the newest first, and whether there
/// are more.
pub fn webhook_attempts(
    ops: &Ops,
    key: &ApiKey,
    id: Uuid,
    event: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<(String, Attempt)>, bool), OpError> {
    let store = history(ops, key, id)?;
    let order = store::delivery_order(&store, id, event)?.ok_or(OpError::NoSuchWebhookEvent)?;
    // There are few: retries come to an end, and only people ask for more.
    let all = store::delivery_attempts(&store, id, order, None, usize::MAX)?;
    let mut all: Vec<_> = all.into_iter().map(|(number, attempt)| (attempt_id(id, event, number), attempt)).collect();
    if let Some(after) = after {
        let place =
            all.iter().position(|(id, _)| id == after).ok_or_else(|| OpError::UnknownAfter(after.to_owned()))?;
        all.drain(..=place);
    }
    let more = all.len() > limit;
    all.truncate(limit);
    Ok((all, more))
}

/// Has an event sent again, under the same id, whatever became of it.
pub async fn webhook_replay(ops: &Ops, key: &ApiKey, id: Uuid, event: &str) -> Result<(), OpError> {
    let store = history(ops, key, id)?;
    let order = store::delivery_order(&store, id, event)?.ok_or(OpError::NoSuchWebhookEvent)?;
    let webhooks = Arc::clone(&ops.webhooks);
    // Who asked may hang up: what is in the store is sent all the same.
    let ordered = tokio::spawn(async move {
        store.commit(vec![store::replay_write(id, order)]).await?;
        webhooks.notify_one();
        Ok::<_, OpError>(())
    });
    ordered.await.map_err(|e| OpError::Fault(e.to_string()))?
}

/// A domain as `domain.created` and its like tell it.
pub fn domain_told(view: &DomainView) -> Value {
    let records = view.records.iter().map(|record| {
        json!({
            "record": record.record,
            "name": record.name,
            "type": record.kind,
            "ttl": "Auto",
            "status": record.status,
            "value": record.value,
        })
    });
    domain_data(&json!({
        "id": view.id,
        "name": view.name,
        "created_at": iso_z(view.created_at),
        "status": view.status,
        "open_tracking": view.open_tracking,
        "click_tracking": view.click_tracking,
        "tracking_subdomain": view.tracking_subdomain,
        "capabilities": {"sending": "enabled", "receiving": "disabled"},
        "region": view.region,
        "records": records.collect::<Vec<_>>(),
    }))
}

fn history(ops: &Ops, key: &ApiKey, id: Uuid) -> Result<Arc<Store>, OpError> {
    own(&ops.settings.snapshot(), key, id)?;
    ops.store.load_full().ok_or(OpError::NoHistory)
}

/// The endpoint with this id, if the key may see it; others are not there.
fn own<'a>(settings: &'a Snapshot, key: &ApiKey, id: Uuid) -> Result<&'a Webhook, OpError> {
    let webhook = settings.webhooks.get(&id).filter(|webhook| key.reaches_webhook(webhook));
    webhook.ok_or(OpError::NoSuchWebhook)
}

/// Known names, none twice.
fn event_names(events: Vec<String>) -> Result<Vec<String>, OpError> {
    let mut names: Vec<String> = Vec::new();
    for name in events {
        if !EVENT_NAMES.contains(&name.as_str()) {
            return Err(OpError::UnknownEventName(name));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { Err(OpError::NoEventNames) } else { Ok(names) }
}

/// What can be seen of a URL: where its name leads is looked at whenever something is sent there.
fn check_endpoint(text: &str, terms: &Terms) -> Result<(), OpError> {
    let allow_private = terms.private_webhooks;
    let bad = |why: &'static str| Err(OpError::BadEndpoint(text.chars().take(200).collect(), why));
    if text.chars().count() > MAX_ENDPOINT {
        return bad("is longer than 2000 characters");
    }
    let Ok(url) = Url::parse(text) else { return bad("is no URL") };
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return bad("does not begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("names a user or a password");
    }
    let is_public = match url.host() {
        None => return bad("has no host"),
        Some(Host::Ipv4(address)) => crate::domain::is_public(address.into()),
        Some(Host::Ipv6(address)) => crate::domain::is_public(address.into()),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name != "localhost" && !name.ends_with(".localhost")
        }
    };
    if !is_public && !allow_private {
        return bad("leads to a private address");
    }
    if url.port() == Some(0) {
        return bad("has port 0");
    }
    match url.port_or_known_default() {
        Some(port) if !terms.webhook_ports.hold(port) => {
            let ports = terms.webhook_ports.clone();
            Err(OpError::ClosedPort { endpoint: text.chars().take(200).collect(), port, ports })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Fixture};
    use super::super::share::Full;
    use super::*;
    use crate::config::WebhookPorts;
    use crate::domain::SenderDomain;

    #[test]
    fn endpoints() {
        let [strict, open] = [false, true].map(|private| terms(private, WebhookPorts::Any));
        for (url, public, private) in [
            ("https://example.com/hook", true, true),
            ("https://example.com:8443/hook?a=b#c", true, true),
            ("https://93.184.215.14/", true, true),
            ("https://bücher.example/", true, true),
            ("http://example.com/", false, true),
            ("https://localhost/", false, true),
            ("https://LOCALHOST./", false, true),
            ("https://a.localhost/", false, true),
            ("https://127.0.0.1/", false, true),
            ("https://127.1/", false, true),
            ("https://0x7f000001/", false, true),
            ("https://2130706433/", false, true),
            ("https://017700000001/", false, true),
            ("https://10.1.2.3:444/", false, true),
            ("https://169.254.169.254/latest/meta-data/", false, true),
            ("https://[::1]/", false, true),
            ("https://[::ffff:127.0.0.1]/", false, true),
            ("https://[fd00::1]/", false, true),
            ("https://user@example.com/", false, false),
            ("https://user:secret@example.com/", false, false),
            ("https://:secret@example.com/", false, false),
            ("https://example.com:0/", false, false),
            ("ftp://example.com/", false, false),
            ("file:///etc/passwd", false, false),
            ("javascript:alert(1)", false, false),
            ("https://", false, false),
            ("example.com", false, false),
            ("", false, false),
            ("https://a b/", false, false),
        ] {
            assert_eq!(check_endpoint(url, &strict).is_ok(), public, "{url}");
            assert_eq!(check_endpoint(url, &open).is_ok(), private, "{url}");
        }
        let long = format!("https://example.com/{}", "a".repeat(2_000));
        assert!(check_endpoint(&long, &open).is_err());
    }

    fn terms(private_webhooks: bool, webhook_ports: WebhookPorts) -> Terms {
        let fixture = Fixture::new();
        let terms = fixture.ops.terms.load();
        Terms { private_webhooks, webhook_ports, ..Terms::clone(&terms) }
    }

    #[test]
    fn endpoints_have_ports_of_the_list_alone() {
        let terms = terms(true, WebhookPorts::These(vec![443, 8443]));
        for (url, taken) in [
            ("https://example.com/", true),
            ("https://example.com:443/", true),
            ("https://example.com:8443/", true),
            ("https://example.com:25/", false),
            ("https://example.com:6379/", false),
            ("http://example.com/", false),
            ("http://example.com:443/", true),
        ] {
            let checked = check_endpoint(url, &terms);
            assert_eq!(checked.is_ok(), taken, "{url}");
            let text = checked.err().map(|e| e.to_string()).unwrap_or_default();
            assert!(taken || text.contains("443, 8443"), "{text}");
        }
    }

    fn key(id: u128, domains: &[&SenderDomain]) -> ApiKey {
        let mut key = fixture::key(domains);
        key.id = Uuid::from_u128(id);
        key
    }

    fn hook() -> NewWebhook {
        let endpoint = "https://hooks.example.com/".to_owned();
        NewWebhook { endpoint, events: vec!["email.sent".to_owned()], enabled: true }
    }

    #[tokio::test]
    async fn one_customer_does_not_take_the_webhooks_of_all() {
        let fixture = Fixture::new();
        let ops = &fixture.ops;
        let [one, two] = [fixture::domain("one.example", 1), fixture::domain("two.example", 2)];
        let made = async |key: &ApiKey| webhook_create(ops, key, hook()).await;
        for _ in 0..WEBHOOKS.share {
            made(&key(1, &[&one])).await.unwrap();
        }
        // Another key of the same customer has no further share.
        for again in [key(1, &[&one]), key(2, &[&one])] {
            let refused = made(&again).await;
            assert!(matches!(refused, Err(OpError::TooManyWebhooks(Full::Share(_)))), "{refused:?}");
        }
        for other in [key(3, &[&two]), key(4, &[&one, &two]), key(5, &[])] {
            made(&other).await.unwrap();
        }
        // One that goes makes room.
        let id = *ops.settings.snapshot().webhooks.keys().next().unwrap();
        webhook_delete(ops, &key(1, &[&one]), id).await.unwrap();
        made(&key(2, &[&one])).await.unwrap();
    }

    #[tokio::test]
    async fn all_customers_together_leave_a_reserve() {
        let fixture = Fixture::new();
        let ops = &fixture.ops;
        let customers: Vec<_> = (0..50).map(|n| fixture::domain(&format!("d{n}.example"), n)).collect();
        let many = WEBHOOKS.tied.div_ceil(WEBHOOKS.share);
        for n in 0..WEBHOOKS.tied {
            webhook_create(ops, &key(1, &[&customers[n / WEBHOOKS.share]]), hook()).await.unwrap();
        }
        let refused = webhook_create(ops, &key(1, &[&customers[many]]), hook()).await;
        assert!(matches!(refused, Err(OpError::TooManyWebhooks(Full::Tied(_)))), "{refused:?}");
        webhook_create(ops, &key(1, &[]), hook()).await.unwrap();
    }

    #[test]
    fn names_of_events() {
        let names = |all: &[&str]| event_names(all.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names(&["email.sent", "email.opened", "email.sent"]).unwrap(), ["email.sent", "email.opened"]);
        assert_eq!(names(&EVENT_NAMES).unwrap().len(), 17);
        assert!(
            matches!(names(&["email.sent", "email.send"]), Err(OpError::UnknownEventName(name)) if name == "email.send")
        );
        assert!(matches!(names(&[]), Err(OpError::NoEventNames)));
    }
}
