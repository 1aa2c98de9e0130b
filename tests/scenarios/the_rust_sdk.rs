//! The API as Resend's SDK for Rust sees it, whose types are the strictest of all: a field that is missing, or a word
//! that it does not know, fails a whole answer.

use crate::common::{Client, Knot, Relay, Setup, Smarthost, html, links};
use resend_rs::events::EmailEventType;
use resend_rs::list_opts::ListOptions;
use resend_rs::types::{
    CreateApiKeyOptions, CreateDomainOptions, CreateWebhookOptions, Domain, DomainChanges, DomainRecord, EmailEvent,
    ErrorKind, Tls, UpdateWebhookOptions, WebhookStatus,
};
use resend_rs::{ConfigBuilder, Error, Resend};
use serde_json::{Value, json};

struct Place {
    relay: Relay,
    smarthost: Smarthost,
    knot: Knot,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Self {
        let (smarthost, knot) = (Smarthost::start(), Knot::start("example.com"));
        let servers = format!("[\"{}\"]", knot.address);
        let relay = Setup::new(smarthost.address).with("dns.servers", &servers).start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Its HTTP client wants a provider for TLS also where there is none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { relay, smarthost, knot, runtime }
    }

    fn key(&self, options: &[&str]) -> String {
        self.relay.ok(&[&["key", "create", "--name", "sdk"], options].concat()).trim().to_owned()
    }

    fn client(&self, key: &str) -> Resend {
        let url = format!("http://{}/", self.relay.api()).parse().unwrap();
        Resend::with_config(ConfigBuilder::new(key).base_url(url).build())
    }

    /// The tracked link of a message that was sent just now; nothing if it left as it came.
    fn link(&self) -> String {
        let message = html("x", &["https://example.net/"]);
        let id = Client::greeted(self.relay.smtp()).send("news@example.com", &["ada@example.org"], &message);
        links(&self.smarthost.wait_for_text(&id).body).pop().unwrap_or_default()
    }
}

/// `invalid_api_key` is a name that this client has no word for.
fn kind<T: std::fmt::Debug>(result: resend_rs::Result<T>) -> (u16, ErrorKind) {
    match result {
        Err(Error::Resend(refused)) => (refused.status_code, refused.kind()),
        other => panic!("a refusal was expected: {other:?}"),
    }
}

fn whole(domain: &Domain) -> Value {
    serde_json::to_value(domain).unwrap()
}

#[test]
fn a_domains_life() {
    let mut place = Place::new();
    let resend = place.client(&place.key(&[]));
    let (created, found) = place.runtime.block_on(async {
        let options = CreateDomainOptions::new("example.com")
            .with_open_tracking(true)
            .with_click_tracking(true)
            .with_tls(Tls::Enforced)
            .with_tracking_subdomain("links");
        let created = resend.domains.create(options).await.unwrap();
        let found = resend.domains.get(&created.id).await.unwrap();
        (created, found)
    });
    assert_eq!(whole(&created), whole(&found));
    assert_eq!(whole(&created)["status"], "not_started");
    let records = created.records.clone().unwrap();
    let [DomainRecord::TrackingRecord(record)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&*record.name, &*record.value), ("links.example.com", "track.relay.example.net"));
    let id = created.id.to_string();

    assert_eq!(place.link(), "", "nobody has verified it yet");
    place.runtime.block_on(resend.domains.verify(&id)).unwrap();
    let pending = place.runtime.block_on(resend.domains.get(&id)).unwrap();
    assert_eq!(whole(&pending)["status"], "pending");
    assert_eq!(place.link(), "");

    place.knot.write(&["links CNAME track.relay.example.net."]);
    place.runtime.block_on(resend.domains.verify(&id)).unwrap();
    let verified = place.runtime.block_on(resend.domains.get(&id)).unwrap();
    assert_eq!(whole(&verified)["status"], "verified");
    assert!(place.link().starts_with("http://links.example.com/c/"), "tracked from now on");

    // The seed's own snippet, once more: the same subdomain is no change.
    let changes =
        DomainChanges::new().with_open_tracking(true).with_click_tracking(true).with_tracking_subdomain("links");
    place.runtime.block_on(resend.domains.update(&id, changes)).unwrap();
    let off = DomainChanges::new().with_click_tracking(false);
    place.runtime.block_on(resend.domains.update(&id, off)).unwrap();
    assert_eq!(place.link(), "");
    let deleted = place.runtime.block_on(resend.domains.delete(&id)).unwrap();
    assert!(deleted.deleted);
    assert_eq!(kind(place.runtime.block_on(resend.domains.get(&id))), (404, ErrorKind::NotFound));
}

#[test]
fn the_seeds_snippet_on_a_bare_domain_twice() {
    let place = Place::new();
    let resend = place.client(&place.key(&[]));
    place.runtime.block_on(async {
        let id = resend.domains.create(CreateDomainOptions::new("example.com")).await.unwrap().id.to_string();
        for _ in 0..2 {
            let changes = DomainChanges::new()
                .with_open_tracking(true)
                .with_click_tracking(true)
                .with_tracking_subdomain("links");
            resend.domains.update(&id, changes).await.unwrap();
        }
        let other = DomainChanges::new().with_tracking_subdomain("other");
        resend.domains.update(&id, other).await.unwrap();
        let third = DomainChanges::new().with_tracking_subdomain("third");
        assert_eq!(kind(resend.domains.update(&id, third).await), (422, ErrorKind::ValidationError));
    });
}

#[test]
fn lists_and_their_pages() {
    let place = Place::new();
    let resend = place.client(&place.key(&[]));
    let names = ["a.example.com", "b.example.com", "c.example.com"];
    place.runtime.block_on(async {
        for name in names {
            let _ = resend.domains.create(CreateDomainOptions::new(name)).await.unwrap();
        }
        let all = resend.domains.list(ListOptions::default()).await.unwrap();
        assert!(!all.has_more);
        assert_eq!(
            all.data.iter().map(|d| &*d.name).collect::<Vec<_>>(),
            ["c.example.com", "b.example.com", "a.example.com"]
        );
        let first = resend.domains.list(ListOptions::default().with_limit(2)).await.unwrap();
        assert_eq!((first.data.len(), first.has_more), (2, true));
        let options = ListOptions::default().with_limit(2).list_after(&first.data[1].id);
        let second = resend.domains.list(options).await.unwrap();
        assert_eq!((second.data[0].name.as_str(), second.data.len(), second.has_more), ("a.example.com", 1, false));
        let options = ListOptions::default().list_before(&second.data[0].id);
        let back = resend.domains.list(options).await.unwrap();
        assert_eq!(back.data.len(), 2);
    });
}

#[test]
fn refusals() {
    let place = Place::new();
    let resend = place.client(&place.key(&[]));
    place.runtime.block_on(async {
        let refused = resend.domains.create(CreateDomainOptions::new("no domain")).await;
        assert_eq!(kind(refused), (422, ErrorKind::ValidationError));
        let refused = resend.domains.create(CreateDomainOptions::new("")).await;
        assert_eq!(kind(refused), (422, ErrorKind::MissingRequiredField));
        let refused = resend.domains.get("00000000-0000-7000-8000-000000000000").await;
        assert_eq!(kind(refused), (404, ErrorKind::NotFound));
        assert_eq!(kind(resend.domains.get("x").await), (422, ErrorKind::InvalidParameter));
        let stranger = place.client("re_stranger");
        assert_eq!(kind(stranger.domains.list(ListOptions::default()).await), (403, ErrorKind::Unrecognized));
        let sender = place.client(&place.key(&["--permission", "sending_access"]));
        assert_eq!(kind(sender.domains.list(ListOptions::default()).await), (401, ErrorKind::RestrictedApiKey));
    });
}

#[test]
fn keys_and_mail() {
    let place = Place::new();
    let resend = place.client(&place.key(&[]));
    place.runtime.block_on(async {
        let domain = resend.domains.create(CreateDomainOptions::new("example.com")).await.unwrap();
        let options = CreateApiKeyOptions::new("app").with_domain_access(&domain.id);
        let made = resend.api_keys.create(options).await.unwrap();
        assert!(made.token.starts_with("re_"));
        let keys = resend.api_keys.list(ListOptions::default()).await.unwrap();
        assert_eq!(keys.data.iter().map(|key| &*key.name).collect::<Vec<_>>(), ["app", "sdk"]);
        resend.api_keys.delete(&made.id).await.unwrap();
        let refused = place.client(&made.token).domains.list(ListOptions::default()).await;
        assert_eq!(kind(refused), (403, ErrorKind::Unrecognized));
    });
    let message = html("x", &["https://example.net/"]);
    let id = Client::greeted(place.relay.smtp()).send("news@example.com", &["ada@example.org"], &message);
    place.smarthost.wait_for_text(&id);
    place.relay.wait_for_status(&id, &["relayed"]);
    place.runtime.block_on(async {
        let email = resend.emails.get(&id).await.unwrap();
        assert_eq!((email.to, email.last_event), (vec!["ada@example.org".to_owned()], EmailEvent::Delivered));
        let listed = resend.emails.list(ListOptions::default()).await.unwrap();
        assert_eq!(listed.data.iter().map(|email| json!(email.id)).collect::<Vec<_>>(), [json!(id)]);
    });
}

#[test]
fn webhooks() {
    let place = Place::new();
    place.relay.ok(&["domain", "add", "example.com"]);
    let (resend, tied) = (place.client(&place.key(&[])), place.client(&place.key(&["--domain", "example.com"])));
    place.runtime.block_on(async {
        let events = [EmailEventType::EmailDelivered, EmailEventType::EmailClicked];
        let options = |url: &str| CreateWebhookOptions::new(url, events);
        let made = resend.webhooks.create(options("https://hook.example.com/a")).await.unwrap();
        assert!(made.signing_secret.starts_with("whsec_") && made.signing_secret.len() == 38);
        let own = tied.webhooks.create(options("https://hook.example.com/b")).await.unwrap();
        let shown = resend.webhooks.get(&made.id).await.unwrap();
        assert_eq!((&*shown.endpoint, &*shown.status), ("https://hook.example.com/a", "enabled"));
        assert_eq!(json!(shown.events), json!(["email.delivered", "email.clicked"]));
        // A key that is tied to domains sees what it could have made.
        let ids = async |client: &Resend| {
            let list = client.webhooks.list(ListOptions::default()).await.unwrap();
            list.data.iter().map(|webhook| webhook.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&resend).await, [own.id.to_string(), made.id.to_string()]);
        assert_eq!(ids(&tied).await, [own.id.to_string()]);
        assert_eq!(kind(tied.webhooks.get(&made.id).await), (404, ErrorKind::NotFound));
        let change = UpdateWebhookOptions::default().with_status(WebhookStatus::Disabled);
        assert_eq!(kind(tied.webhooks.update(&made.id, change.clone()).await), (404, ErrorKind::NotFound));
        resend.webhooks.update(&made.id, change.with_events([EmailEventType::EmailOpened])).await.unwrap();
        let shown = resend.webhooks.get(&made.id).await.unwrap();
        assert_eq!((&*shown.status, json!(shown.events)), ("disabled", json!(["email.opened"])));
        let rotated = resend.webhooks.rotate_signing_secret(&made.id).await.unwrap();
        assert_ne!(rotated.signing_secret, made.signing_secret);
        let none = resend.webhooks.list_events(&made.id, ListOptions::default()).await.unwrap();
        assert!(none.data.is_empty() && !none.has_more);
        assert_eq!(kind(resend.webhooks.get_event(&made.id, "msg_x").await), (404, ErrorKind::NotFound));
        assert_eq!(kind(resend.webhooks.replay_event(&made.id, "msg_x").await), (404, ErrorKind::NotFound));
        for bad in ["http://hook.example.com/", "https://127.0.0.1/", "https://localhost/", "https://u:p@example.com/"]
        {
            assert_eq!(kind(resend.webhooks.create(options(bad)).await), (422, ErrorKind::ValidationError), "{bad}");
        }
        let nothing = CreateWebhookOptions::new("https://hook.example.com/", [EmailEventType::EmailSent; 0]);
        assert_eq!(kind(resend.webhooks.create(nothing).await), (422, ErrorKind::ValidationError));
        resend.webhooks.delete(&made.id).await.unwrap();
        assert_eq!(kind(resend.webhooks.get(&made.id).await), (404, ErrorKind::NotFound));
    });
}
