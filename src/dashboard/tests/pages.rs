//! Webhooks, API keys and queue as somebody uses them, with values that mean no good.

use super::*;
use crate::mail::{Address, Envelope, Outcome, QueueId, Status};
use crate::settings::Webhook;
use crate::spool::{Cursor, MessageHead};
use crate::store::{self, NewDelivery, Order};

const EVIL: &str = "\"><script>alert(1)</script>\u{202e}gro.elpmaxe";

impl Place {
    fn webhook(&self, id: Uuid) -> Webhook {
        self.ops.settings.snapshot().webhooks[&id].clone()
    }

    /// Adds an endpoint by the form; its id.
    async fn add_webhook(&self, browser: &Browser) -> Uuid {
        let answer = self.post("/dashboard/webhooks/new", browser, &HOOK).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        answer.location().rsplit('/').next().unwrap().parse().unwrap()
    }

    /// An event that an endpoint is to be told.
    async fn tell(&self, webhook: Uuid, number: u32, payload: &str) {
        let new = NewDelivery {
            webhook,
            id: &format!("msg_{number}"),
            kind: "email.opened",
            created_at: 5,
            order: Order::new(Cursor::default(), number),
            email: Some(QueueId::from_bytes([3; 16])),
            recipient: Some("ada@example.net"),
            payload: payload.as_bytes(),
        };
        let mut writes = Vec::new();
        store::delivery_writes(&new, &mut writes);
        self.ops.store.load_full().unwrap().commit(writes).await.unwrap();
    }

    /// A message in the queue.
    fn accept(&self, n: u8, subject: &str, recipients: usize) -> QueueId {
        let id = QueueId::new(1_000 + u64::from(n), [n; 10]);
        let to = (0..recipients).map(|n| Address::parse(&format!("person{n}@example.net")).unwrap().into());
        let envelope = Envelope {
            sender: None,
            recipients: to.collect(),
            body: Default::default(),
            smtputf8: false,
            ret: None,
            envid: None,
        };
        let head = MessageHead {
            envelope,
            accepted_at: 60_000,
            from_domain: None,
            from: EVIL.into(),
            subject: subject.into(),
            message_id: EVIL.into(),
            size: 5,
            tags: Vec::new(),
            role: crate::mail::Role::Submission,
        };
        let head = Arc::new(head);
        let body = vec![bytes::Bytes::from_static(b"Hello")];
        let accepted = self.ops.log.append(crate::spool::Entry::Message { id, head: Arc::clone(&head), body });
        crate::ops::fixture::aside(|| accepted.wait().unwrap());
        self.ops.queue.insert(id, head, None);
        id
    }

    /// What the smarthost said to all that is due.
    fn smarthost_says(&self, status: impl Fn(u64) -> Status, reply: &str) {
        let now = clock::steady_ms();
        while let Some(attempt) = self.ops.queue.take(now) {
            let said = |due: &crate::queue::Due| Outcome {
                recipient: due.recipient,
                status: status(now),
                reply: reply.into(),
                at: clock::unix_ms(),
            };
            self.ops.queue.note(&attempt.id, &attempt.due.iter().map(said).collect::<Vec<_>>());
            let head = self.ops.queue.show(&attempt.id).map(|shown| shown.head);
            self.ops.queue.finish(&attempt.id, head.as_ref(), now);
        }
    }
}

fn deferred(now: u64) -> Status {
    Status::Deferred { attempts: 2, next: now + 5_400_000, age: 5, told: false }
}

#[tokio::test]
async fn a_webhook_from_its_making_to_its_end() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let empty = place.get("/dashboard/webhooks", &browser).await.text;
    assert!(
        empty.contains("There is none yet")
            && empty.contains("curl -H")
            && empty.contains("http://relay.example.net:8081/webhooks")
    );

    for (fields, wrong) in [
        (&[("endpoint", "ftp://example.com"), ("events[]", "email.sent")][..], "does not begin with https://"),
        (&[("endpoint", "https://127.0.0.1/"), ("events[]", "email.sent")], "leads to a private address"),
        (&[("endpoint", "https://hooks.example.com/")], "Mark at least one event."),
        (&[("endpoint", " "), ("events[]", "email.sent")], "Give the address"),
        (&[("endpoint", EVIL), ("events[]", "email.sent"), ("events[]", EVIL)], "is no URL"),
    ] {
        let again = place.post("/dashboard/webhooks/new", &browser, fields).await;
        assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(again.text.contains(wrong), "{wrong}: {}", again.text);
        // All that was typed is there again.
        assert_eq!(again.between("name=\"endpoint\" type=\"text\" value=\"", "\""), escaped(fields[0].1));
        let checked = fields.contains(&("events[]", "email.sent"));
        assert_eq!(again.text.contains("name=\"events[]\" value=\"email.sent\" checked"), checked);
        assert!(!again.text.contains("name=\"enabled\" value=\"yes\" checked"));
    }

    let id = place.add_webhook(&browser).await;
    let path = format!("/dashboard/webhooks/{id}");
    let made = place.get(&path, &browser).await.text;
    assert!(made.contains("Webhook added.") && made.contains("enabled</span>") && made.contains("Nothing yet."));
    let secret = place.webhook(id).secret;
    assert!(made.split("<details>").nth(1).unwrap().contains(&escaped(secret.reveal())));
    assert!(!place.get(&path, &browser).await.text.contains("Webhook added."), "a notice is shown once");

    let form = place.get(&format!("{path}/edit"), &browser).await.text;
    assert!(form.contains("value=\"email.opened\" checked") && !form.contains("value=\"email.sent\" checked"));
    let fields = [("endpoint", "https://other.example.com/"), ("events[]", "email.sent"), ("events[]", "email.opened")];
    let saved = place.post(&format!("{path}/edit"), &browser, &fields).await;
    assert_eq!((saved.status, saved.location()), (StatusCode::SEE_OTHER, &*path));
    let webhook = place.webhook(id);
    assert_eq!((&*webhook.endpoint, webhook.enabled), ("https://other.example.com/", false));
    assert_eq!(webhook.events, ["email.sent", "email.opened"]);
    let refused = place.post(&format!("{path}/edit"), &browser, &fields[..1]).await;
    assert_eq!((refused.status, place.webhook(id)), (StatusCode::UNPROCESSABLE_ENTITY, webhook));

    let asked = place.get(&format!("{path}/rotate"), &browser).await.text;
    assert!(asked.contains("For 24 hours"));
    assert_eq!(place.webhook(id).secret, secret, "asking changes nothing");
    assert_eq!(place.post(&format!("{path}/rotate"), &browser, &[]).await.location(), path);
    assert_ne!(place.webhook(id).secret, secret);
    let rotated = place.get(&path, &browser).await.text;
    assert!(rotated.contains("The secret before it is good until") && !rotated.contains(&escaped(secret.reveal())));

    let asked = place.get(&format!("{path}/delete"), &browser).await.text;
    assert!(asked.contains("https://other.example.com/\u{2069}” is told nothing any more."));
    assert_eq!(place.webhooks(), 1);
    assert_eq!(place.post(&format!("{path}/delete"), &browser, &[]).await.location(), "/dashboard/webhooks");
    assert_eq!((place.webhooks(), place.get(&path, &browser).await.status), (0, StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn what_a_webhook_was_told_is_paged_shown_and_sent_again() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let id = place.add_webhook(&browser).await;
    for number in 0..51 {
        place.tell(id, number, "{}").await;
    }
    let payload = serde_json::json!({"type": "email.opened", "data": {"evil": EVIL, "long": "<".repeat(40_000)}});
    place.tell(id, 99, &payload.to_string()).await;
    let path = format!("/dashboard/webhooks/{id}");
    let first = place.get(&path, &browser).await;
    assert_eq!(first.text.matches("pending</span>").count(), 50);
    let next = first.between("<p class=\"pages\"><a href=\"", "\"").to_owned();
    let second = place.get(&next, &browser).await.text;
    assert_eq!(second.matches("pending</span>").count(), 2);
    assert!(second.contains("/events/msg_0\"") && !second.contains("Older events") && !second.contains("data-live"));
    assert_eq!(place.get(&format!("{path}?after=msg_none"), &browser).await.status, StatusCode::NOT_FOUND);

    let event = format!("{path}/events/msg_99");
    let shown = place.get(&event, &browser).await.text;
    assert!(shown.contains("\\u202egro.elpmaxe") && shown.contains("Cut here") && !shown.contains('\u{202e}'));
    assert!(shown.contains("/dashboard/emails/03030303-") && shown.contains("ada@example.net"));
    let replayed = place.post(&format!("{event}/replay"), &browser, &[]).await;
    assert_eq!((replayed.status, replayed.location()), (StatusCode::SEE_OTHER, &*event));
    assert!(place.get(&event, &browser).await.text.contains("It is sent again, under the same id."));
    let none = place.post(&format!("{path}/events/msg_none/replay"), &browser, &[]).await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);

    // Without history the endpoint can still be looked at and changed.
    place.ops.store.store(None);
    let shown = place.get(&path, &browser).await;
    assert!(shown.status == StatusCode::OK && shown.text.contains("there is no history yet"), "{}", shown.text);
    assert_eq!(place.get(&event, &browser).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_tied_key_sees_and_changes_its_own_webhooks_alone() {
    let place = Place::new(false);
    place.domain("a.example.com").await;
    place.domain("b.example.com").await;
    let operator = place.operator().await;
    let mut browsers = Vec::new();
    for name in ["a.example.com", "b.example.com"] {
        let (_, token) = place.key(Permission::FullAccess, &[name]).await;
        browsers.push(place.sign_in(&token).await);
    }
    let (all, own) = (place.add_webhook(&operator).await, place.add_webhook(&browsers[0]).await);
    assert_eq!(place.webhook(own).domains.len(), 1);
    place.tell(own, 1, "{}").await;
    place.tell(all, 1, "{}").await;
    let list = async |browser| place.get("/dashboard/webhooks", browser).await.text;
    let (seen, others) = (list(&browsers[0]).await, list(&browsers[1]).await);
    assert!(seen.contains(&own.to_string()) && seen.contains("a.example.com") && !seen.contains(&all.to_string()));
    assert!(others.contains("There is none yet"));
    assert!(list(&operator).await.contains(&own.to_string()));
    let ends = ["", "/edit", "/rotate", "/delete", "/events/msg_1"];
    for (browser, id, status) in [
        (&browsers[0], own, StatusCode::OK),
        (&browsers[0], all, StatusCode::NOT_FOUND),
        (&browsers[1], own, StatusCode::NOT_FOUND),
        (&operator, own, StatusCode::OK),
    ] {
        for end in ends {
            assert_eq!(place.get(&format!("/dashboard/webhooks/{id}{end}"), browser).await.status, status, "{end}");
        }
    }
    let before = (place.webhook(own), place.webhook(all));
    for (browser, id) in [(&browsers[0], all), (&browsers[1], own)] {
        for end in ["/edit", "/rotate", "/delete", "/events/msg_1/replay"] {
            let answer = place.post(&format!("/dashboard/webhooks/{id}{end}"), browser, &HOOK).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{end}");
        }
    }
    assert_eq!((place.webhook(own), place.webhook(all)), before);
}

#[tokio::test]
async fn an_api_key_from_its_making_to_its_end() {
    let place = Place::new(false);
    let browser = place.operator().await;
    place.domain("b\u{fc}cher.example").await;
    place.domain("a.example.com").await;
    let count = || place.ops.settings.snapshot().api_keys.len();
    for (fields, wrong) in [
        (&[("name", "shop")][..], "Say what the key may do."),
        (&[("name", ""), ("permission", "full_access")], "has 1 to 50 characters"),
        (
            &[("name", EVIL), ("permission", "sending_access"), ("domains", "none.example.com")],
            "There is no sender domain",
        ),
        (&[("name", "shop"), ("permission", "full_access"), ("domains[]", EVIL)], "domains-wrong"),
    ] {
        let again = place.post("/dashboard/api-keys/new", &browser, fields).await;
        assert_eq!((again.status, count()), (StatusCode::UNPROCESSABLE_ENTITY, 1), "{wrong}");
        assert!(again.text.contains(wrong) && !again.text.contains("re_"), "{wrong}: {}", again.text);
        assert_eq!(again.between("name=\"name\" type=\"text\" value=\"", "\""), escaped(fields[0].1));
    }
    let fields = [("name", EVIL), ("permission", "full_access"), ("domains[]", "b\u{fc}cher.example"), ("csrf", "x")];
    let made = place.post("/dashboard/api-keys/new", &browser, &fields).await;
    assert_eq!((made.status, count()), (StatusCode::OK, 2));
    let token = made.between("<code data-copy=\"the key\">", "<").to_owned();
    assert!(token.starts_with("re_") && made.text.contains("b\u{fc}cher.example"));
    assert!(made.text.contains(&format!("Authorization: Bearer {token}\" http://relay.example.net:8081/domains")));
    let tied = place.sign_in(&token).await;
    assert_eq!(place.get("/dashboard/queue", &tied).await.status, StatusCode::NOT_FOUND);

    let list = place.get("/dashboard/api-keys", &browser).await.text;
    assert!(
        !list.contains(&token)
            && list.contains(&escaped(&EVIL.replace('\u{202e}', "")))
            && list.matches("signed in</span>").count() == 1
    );
    let id: Uuid = list.split("/rename").next().unwrap().rsplit('/').next().unwrap().parse().unwrap();
    let path = format!("/dashboard/api-keys/{id}");
    let refused = place.post(&format!("{path}/rename"), &browser, &[("name", &"x".repeat(51))]).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        place.post(&format!("{path}/rename"), &browser, &[("name", "a shop")]).await.status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(place.ops.settings.snapshot().api_keys[&id].name, "a shop");

    let asked = place.get(&format!("{path}/delete"), &browser).await.text;
    assert!(asked.contains("a shop") && !asked.contains("you will be signed out") && count() == 2);
    assert_eq!(place.post(&format!("{path}/delete"), &browser, &[]).await.location(), "/dashboard/api-keys");
    assert_eq!(count(), 1);
    assert!(place.get("/dashboard/webhooks", &tied).await.leads_to_sign_in("/dashboard/webhooks"));

    // The one that is signed in, and the last.
    let mine = place.ops.settings.snapshot().api_keys.keys().next().copied().unwrap();
    let path = format!("/dashboard/api-keys/{mine}/delete");
    let asked = place.get(&path, &browser).await.text;
    assert!(asked.contains("you will be signed out") && asked.contains("No other key signs in as the operator"));
    assert_eq!(place.post(&path, &browser, &[]).await.location(), sign_in::PATH);
    assert!(place.get("/dashboard/api-keys", &browser).await.leads_to_sign_in("/dashboard/api-keys"));
}

#[tokio::test]
async fn domains_of_a_key_are_chosen_while_there_are_few_and_else_typed() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let form = async || place.get("/dashboard/api-keys/new", &browser).await.text;
    assert!(form().await.contains("There is no sender domain yet"));
    for n in 0..50 {
        place.domain(&format!("{n}.example.com")).await;
    }
    assert_eq!(form().await.matches("type=\"checkbox\" name=\"domains[]\"").count(), 50);
    place.domain("last.example.com").await;
    assert!(form().await.contains("<input id=\"domains\" name=\"domains\""));
    let fields = [("name", "x"), ("permission", "sending_access"), ("domains", "1.example.com, LAST.example.com")];
    let made = place.post("/dashboard/api-keys/new", &browser, &fields).await;
    assert!(made.text.contains("1.example.com, last.example.com") && !made.text.contains("curl"), "{}", made.text);
}

#[tokio::test]
async fn lists_of_keys_and_webhooks_are_paged() {
    let place = Place::new(false);
    let browser = place.operator().await;
    for _ in 0..60 {
        place.key(Permission::SendingAccess, &[]).await;
        place.add_webhook(&browser).await;
    }
    for (list, entries, row) in
        [("/dashboard/api-keys", 61, "/rename\""), ("/dashboard/webhooks", 60, "enabled</span>")]
    {
        let first = place.get(list, &browser).await;
        assert_eq!(first.text.matches(row).count(), 50, "{list}");
        let next = first.between("<p class=\"pages\"><a href=\"", "\"");
        let second = place.get(next, &browser).await.text;
        assert_eq!(second.matches(row).count(), entries - 50, "{list}");
        assert!(!second.contains("class=\"pages\""), "{list}");
    }
}

#[tokio::test]
async fn the_queue_is_held_released_and_tried_again() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let list = async || place.get("/dashboard/queue", &browser).await.text;
    let empty = list().await;
    assert!(empty.contains("Nothing waits.") && empty.contains("Hold queue") && !empty.contains("Retry all"));

    let held = place.post("/dashboard/queue/hold", &browser, &[("held", "yes")]).await;
    assert_eq!((held.location(), place.ops.queue.is_held()), ("/dashboard/queue", true));
    let shown = list().await;
    assert!(shown.contains("Release queue") && shown.contains("Held: mail is accepted"));
    assert_eq!(place.post("/dashboard/queue/hold", &browser, &[]).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(place.ops.queue.is_held());
    place.post("/dashboard/queue/hold", &browser, &[("held", "no")]).await;
    assert!(!place.ops.queue.is_held() && list().await.contains("Released"));

    let id = place.accept(1, "Hello", 3);
    place.smarthost_says(deferred, "451 4.7.1 not now, <b>please</b>");
    let shown = list().await;
    assert!(shown.contains("Hello") && shown.contains("person0@example.net") && shown.contains("and 2 more"));
    assert!(shown.contains("451 4.7.1 not now, &#60;b&#62;please") && shown.contains("in 1 hour"), "{shown}");
    let path = format!("/dashboard/queue/{id}");
    let one = place.get(&path, &browser).await.text;
    assert_eq!((one.matches("451 4.7.1 not now").count(), one.matches("deferred</span>").count()), (3, 3));

    assert_eq!(place.post(&format!("{path}/retry"), &browser, &[]).await.location(), path);
    let one = place.get(&path, &browser).await.text;
    assert!(one.contains("It is due now.") && one.matches("due now").count() == 4, "{one}");
    assert_eq!(place.ops.queue.figures().ready, 1);
    place.smarthost_says(deferred, "451 4.7.1 not now");
    place.ops.queue.smarthost_is_down("connection <refused>", 0);
    place.post("/dashboard/queue/retry", &browser, &[]).await;
    let shown = list().await;
    assert!(shown.contains("1 message is due now. The smarthost cannot be reached"), "{shown}");
    assert!(shown.contains("1970-01-01 00:00</time> UTC: <bdi>connection &#60;refused&#62;</bdi>"));
    place.post("/dashboard/queue/retry", &browser, &[]).await;
    assert!(list().await.contains("Nothing is put off"));
}

#[tokio::test]
async fn a_message_is_removed_unless_it_has_left_or_is_being_sent() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let id = place.accept(1, EVIL, 2);
    let path = format!("/dashboard/queue/{id}");
    let asked = place.get(&format!("{path}/remove"), &browser).await.text;
    assert!(asked.contains("Still waiting: 2 recipients.") && asked.contains("Its sender is told nothing"));
    assert_eq!(place.ops.queue.len(), 1);

    let attempt = place.ops.queue.take(clock::steady_ms()).unwrap();
    let shown = place.get(&path, &browser).await.text;
    assert_eq!(shown.matches("sending</span>").count(), 2);
    let refused = place.post(&format!("{path}/remove"), &browser, &[]).await;
    assert_eq!((refused.location(), place.ops.queue.len()), (&*path, 1));
    assert!(place.get(&path, &browser).await.text.contains("It is being sent at this moment"));
    place.ops.queue.finish(&attempt.id, None, clock::steady_ms());

    let removed = place.post(&format!("{path}/remove"), &browser, &[]).await;
    assert_eq!((removed.location(), place.ops.queue.len()), ("/dashboard/queue", 0));
    assert!(place.get("/dashboard/queue", &browser).await.text.contains("nothing more is sent to 2 recipients."));
    let left = place.get(&path, &browser).await.text;
    assert!(left.contains("It has left the queue.") && !left.contains("Retry</button>") && !left.contains("data-live"));
    for end in ["/remove", "/retry"] {
        let answer = place.post(&format!("{path}{end}"), &browser, &[]).await;
        assert_eq!(answer.location(), "/dashboard/queue");
        assert!(place.get("/dashboard/queue", &browser).await.text.contains("has left the queue"));
    }
}

#[tokio::test]
async fn a_full_queue_of_hostile_mail_makes_small_pages() {
    let place = Place::new(false);
    let browser = place.operator().await;
    let subject = EVIL.repeat(400);
    let reply = "\"<\u{202e}>'&".repeat(90);
    for n in 0..30 {
        place.accept(n, &subject, 1);
    }
    place.smarthost_says(|_| Status::Bounced, &reply);
    for n in 100..180 {
        place.accept(n, &subject, 120);
    }
    place.smarthost_says(deferred, &reply);
    let first = place.get("/dashboard/queue", &browser).await;
    let rows = |text: &str| text.matches("and 119 more").count();
    assert_eq!((rows(&first.text), first.text.matches("href=\"/dashboard/emails/").count()), (50, 20));
    assert!(first.text.contains("<span class=\"figure\">80</span>"));
    let next = first.between("<p class=\"pages\"><a href=\"", "\"");
    let second = place.get(next, &browser).await.text;
    assert_eq!(rows(&second), 30);
    let one = first.between("<a href=\"/dashboard/queue/", "\"").to_owned();
    for (page, shown) in [("", 50), ("?page=3", 20), ("?page=9", 20)] {
        let text = place.get(&format!("/dashboard/queue/{one}{page}"), &browser).await.text;
        assert_eq!(text.matches("deferred</span>").count(), shown, "{page}");
    }
    // What waits is seen without history, at once.
    place.ops.store.store(None);
    let list = place.get("/dashboard/queue", &browser).await.text;
    assert!(rows(&list) == 50 && list.contains("The history is not open"));
    assert_eq!(place.get(&format!("/dashboard/queue/{one}"), &browser).await.status, StatusCode::OK);
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;");
    text.replace('"', "&#34;").replace('\'', "&#39;")
}
