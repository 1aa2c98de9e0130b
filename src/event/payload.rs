//! What webhooks are told: the JSON body of each event, byte for byte as it is signed, and the event's id, which is
//! made of what it tells so that telling it twice is seen. Pure; who is told, and when, is not decided here.
//!
//! A body has exactly three keys, `type`, `created_at` and `data`: one client breaks on a fourth. An email event is of
//! one copy, so its `to` is that copy's recipient alone.

use super::Class;
use crate::mail::{Enhanced, QueueId};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;

/// The names of events that an endpoint may ask for. Those of contacts, of incoming mail and of complaints are known to
/// all clients, so they are accepted, and never sent.
pub const EVENT_NAMES: [&str; 17] = [
    "email.sent",
    "email.delivered",
    "email.delivery_delayed",
    "email.complained",
    "email.bounced",
    "email.opened",
    "email.clicked",
    "email.failed",
    "email.received",
    "email.scheduled",
    "email.suppressed",
    "contact.created",
    "contact.updated",
    "contact.deleted",
    "domain.created",
    "domain.updated",
    "domain.deleted",
];

/// One copy of a message.
#[derive(Clone, Copy, Debug)]
pub struct Email<'a> {
    pub id: QueueId,
    /// Milliseconds since 1970, as all times here.
    pub accepted_at: u64,
    /// With its angle brackets; `""` where the message has none.
    pub message_id: &'a str,
    pub from: &'a str,
    /// The recipient of this copy.
    pub to: &'a str,
    pub subject: &'a str,
    pub tags: &'a [(Box<str>, Box<str>)],
}

/// What happened to the copy.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    Sent,
    Delivered,
    DeliveryDelayed,
    /// The smarthost's reply as the outcome has it, and whether it had been put off until its time was up.
    Bounced {
        reply: &'a str,
        gave_up: bool,
    },
    Failed {
        reason: &'a str,
    },
    Opened(Visit<'a>),
    Clicked {
        visit: Visit<'a>,
        link: &'a str,
    },
}

/// Who opened or clicked.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    pub at: u64,
    /// `None` where it is not kept.
    pub address: Option<IpAddr>,
    pub agent: &'a str,
    pub class: &'a Class,
}

impl Told<'_> {
    /// One of [`EVENT_NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sent => "email.sent",
            Self::Delivered => "email.delivered",
            Self::DeliveryDelayed => "email.delivery_delayed",
            Self::Bounced { .. } => "email.bounced",
            Self::Failed { .. } => "email.failed",
            Self::Opened(_) => "email.opened",
            Self::Clicked { .. } => "email.clicked",
        }
    }
}

/// The body that tells of an event which happened at `at`.
pub fn email_payload(email: &Email<'_>, told: &Told<'_>, at: u64) -> Vec<u8> {
    let tags = (!email.tags.is_empty()).then(|| email.tags.iter().map(|(name, value)| (&**name, &**value)).collect());
    let mut data = EmailData {
        created_at: iso_z(email.accepted_at),
        email_id: email.id.to_string(),
        message_id: email.message_id,
        from: email.from,
        to: [email.to],
        subject: email.subject,
        tags,
        bounce: None,
        open: None,
        click: None,
        failed: None,
    };
    match told {
        Told::Sent | Told::Delivered | Told::DeliveryDelayed => {}
        Told::Bounced { reply, gave_up } => data.bounce = Some(Bounce::of(reply, *gave_up)),
        Told::Failed { reason } => data.failed = Some(Failed { reason }),
        Told::Opened(visit) => data.open = Some(VisitData::of(visit, None)),
        Told::Clicked { visit, link } => data.click = Some(VisitData::of(visit, Some(link))),
    }
    written(told.name(), at, &data)
}

/// The body of `domain.created` and its like. `data`: the domain as [`domain_data`] makes it.
pub fn domain_payload(kind: &str, data: &Value, at: u64) -> Vec<u8> {
    written(kind, at, data)
}

/// A domain as webhooks tell it, of the JSON that the API answers with: its fields that every client knows, times to
/// the millisecond, and no status that one of them breaks on (`partially_verified` is told as `pending`; that of each
/// record says more).
pub fn domain_data(shown: &Value) -> Value {
    const FIELDS: [&str; 9] = [
        "id",
        "name",
        "status",
        "open_tracking",
        "click_tracking",
        "tracking_subdomain",
        "capabilities",
        "region",
        "records",
    ];
    const RECORD_FIELDS: [&str; 6] = ["record", "name", "type", "ttl", "status", "value"];
    let pick = |from: &Value, fields: &[&str]| {
        let there = |field: &str| from.get(field).filter(|value| !value.is_null()).cloned();
        let known = fields.iter().filter_map(|field| Some(((*field).to_owned(), there(field)?)));
        known.collect::<serde_json::Map<_, _>>()
    };
    let mut data = pick(shown, &FIELDS);
    if let Some(records) = data.get_mut("records").and_then(Value::as_array_mut) {
        records.iter_mut().for_each(|record| *record = pick(record, &RECORD_FIELDS).into());
    }
    if data.get("status").and_then(Value::as_str) == Some("partially_verified") {
        data.insert("status".to_owned(), "pending".into());
    }
    let created = shown.get("created_at").and_then(Value::as_str).and_then(|text| text.parse::<Timestamp>().ok());
    let created = created.and_then(|at| u64::try_from(at.as_millisecond()).ok()).unwrap_or(0);
    data.insert("created_at".to_owned(), iso_z(created).into());
    data.into()
}

/// The id of an event of one copy, the same for every endpoint and attempt. `number` tells events of one kind apart:
/// the attempt of a delay, the hit of an open.
pub fn email_event_id(id: &QueueId, recipient: u16, kind: &str, number: u64) -> String {
    let (recipient, number) = (recipient.to_be_bytes(), number.to_be_bytes());
    derived("msg_", &[id.as_bytes(), &recipient, &number, kind.as_bytes()])
}

/// The id of an event of a domain, told apart by when it happened.
pub fn domain_event_id(domain: Uuid, kind: &str, at: u64) -> String {
    derived("msg_", &[domain.as_bytes(), &at.to_be_bytes(), kind.as_bytes()])
}

/// The id of one attempt to tell an endpoint of an event.
pub fn attempt_id(webhook: Uuid, event: &str, number: u32) -> String {
    derived("atmpt_", &[webhook.as_bytes(), &number.to_be_bytes(), event.as_bytes()])
}

/// `prefix` and 27 characters, which hold 160 bits.
fn derived(prefix: &str, parts: &[&[u8]]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut number: [u8; 20] = [0; 20];
    number.copy_from_slice(&hash.finalize()[..20]);
    let mut digits = [0; 27];
    for digit in digits.iter_mut().rev() {
        // One long division by 62; what is left over is the next digit from the right.
        let rest = number.iter_mut().fold(0_u32, |rest, byte| {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            value % 62
        });
        *digit = DIGITS[rest as usize];
    }
    format!("{prefix}{}", String::from_utf8_lossy(&digits))
}

/// `2026-11-22T23:41:12.126Z`.
pub fn iso_z(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn written(kind: &str, at: u64, data: &impl Serialize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a, T> {
        r#type: &'a str,
        created_at: String,
        data: &'a T,
    }
    let body = Body { r#type: kind, created_at: iso_z(at), data };
    serde_json::to_vec(&body).expect("bodies have string keys only and always serialise")
}

#[derive(Serialize)]
struct EmailData<'a> {
    created_at: String,
    email_id: String,
    message_id: &'a str,
    from: &'a str,
    to: [&'a str; 1],
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bounce: Option<Bounce<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<VisitData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    click: Option<VisitData<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<Failed<'a>>,
}

#[derive(Serialize)]
struct Failed<'a> {
    reason: &'a str,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bounce<'a> {
    message: &'a str,
    sub_type: &'static str,
    r#type: &'static str,
    diagnostic_code: Vec<String>,
}

impl<'a> Bounce<'a> {
    /// What a smarthost's reply says, with the words of the contract.
    fn of(reply: &'a str, gave_up: bool) -> Self {
        let code = reply.get(..3).and_then(|digits| digits.parse::<u16>().ok()).filter(|code| code / 100 >= 2);
        let text = code.and_then(|_| reply.get(4..)).unwrap_or("");
        let enhanced = code.and_then(|code| Enhanced::split(code, text)).map(|(enhanced, _)| enhanced);
        let r#type = match code {
            _ if gave_up => "Transient",
            Some(500..600) => "Permanent",
            _ => "Undetermined",
        };
        // RFC 3463 §3; the words are the contract's.
        let sub_type = match enhanced {
            Some(Enhanced(_, 1, 1 | 2 | 6 | 10)) => "NoEmail",
            Some(Enhanced(_, 2, 2)) => "MailboxFull",
            Some(Enhanced(_, 2, 3) | Enhanced(_, 3, 4)) => "MessageTooLarge",
            Some(Enhanced(_, 6, _)) => "ContentRejected",
            None if code.is_none() => "Undetermined",
            _ => "General",
        };
        let one_line = reply.split_whitespace().collect::<Vec<_>>().join(" ");
        let diagnostic_code = code.map(|_| format!("smtp; {one_line}")).into_iter().collect();
        Self { message: reply, sub_type, r#type, diagnostic_code }
    }
}

/// `open` and `click`. The last three fields are ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VisitData<'a> {
    ip_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    timestamp: String,
    user_agent: &'a str,
    machine: bool,
    class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl<'a> VisitData<'a> {
    fn of(visit: &Visit<'a>, link: Option<&'a str>) -> Self {
        let reason = match visit.class {
            Class::Human => None,
            Class::Machine(reason) => Some(reason.to_string()),
            Class::Unknown(reason) => {
                serde_json::to_value(reason).ok().and_then(|text| Some(text.as_str()?.to_owned()))
            }
        };
        Self {
            ip_address: visit.address.map_or_else(String::new, |address| address.to_string()),
            link,
            timestamp: iso_z(visit.at),
            user_agent: visit.agent,
            machine: matches!(visit.class, Class::Machine(_)),
            class: visit.class.to_string(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MachineReason;
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn fixture(name: &str) -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/webhooks").join(name);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    const AT: u64 = 1_795_390_872_126;
    const OPENED_AT: u64 = 1_795_496_457_163;

    fn told_as_json(told: &Told<'_>) -> Value {
        let email = Email {
            id: "56761188-7520-42d8-8898-ff6fc54ce618".parse().unwrap(),
            accepted_at: 1_795_390_871_894,
            message_id: "<111-222-333@email.example.com>",
            from: "Acme <onboarding@example.com>",
            to: "delivered@example.net",
            subject: "Sending this example",
            tags: &[("category".into(), "confirm_email".into())],
        };
        serde_json::from_slice(&email_payload(&email, told, AT)).unwrap()
    }

    #[test]
    fn bodies_are_the_contracts() {
        let visit = Visit {
            at: OPENED_AT,
            address: Some("122.115.53.11".parse().unwrap()),
            agent: "Mozilla/5.0",
            class: &Class::Human,
        };
        let link = "https://example.org/";
        for (told, name) in [
            (Told::Sent, "ev_email_sent.json"),
            (Told::Delivered, "ev_email_delivered.json"),
            (Told::DeliveryDelayed, "ev_email_delivery_delayed.json"),
            (Told::Failed { reason: "reached_daily_quota" }, "ev_email_failed.json"),
            (Told::Opened(visit), "ev_email_opened.json"),
            (Told::Clicked { visit, link }, "ev_email_clicked.json"),
            (Told::Bounced { reply: "550 5.1.1 user unknown", gave_up: false }, "ev_email_bounced.json"),
        ] {
            let (mut told, mut wanted) = (told_as_json(&told), fixture(name));
            // What is ours, and the words of a bounce, which are Resend's own there.
            for visit in ["open", "click"] {
                let Some(ours) = told["data"].get_mut(visit).and_then(Value::as_object_mut) else { continue };
                assert_eq!((ours.remove("machine"), ours.remove("class")), (Some(json!(false)), Some(json!("human"))));
            }
            if let Some(bounce) = wanted["data"].get_mut("bounce") {
                bounce["message"] = json!("550 5.1.1 user unknown");
                bounce["subType"] = json!("NoEmail");
            }
            assert_eq!(told, wanted, "{name}");
            told.as_object_mut().unwrap().remove("data");
            assert_eq!(told.as_object().unwrap().len(), 2);
        }
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let email = Email {
            id: QueueId::from_bytes([1; 16]),
            accepted_at: 0,
            message_id: "",
            from: "",
            to: "a@example.net",
            subject: "",
            tags: &[],
        };
        let class = Class::Machine(MachineReason::Head);
        let visit = Visit { at: 1, address: None, agent: "", class: &class };
        let told: Value = serde_json::from_slice(&email_payload(&email, &Told::Opened(visit), 1)).unwrap();
        assert!(told["data"].get("tags").is_none() && !told.to_string().contains("null"));
        let open = &told["data"]["open"];
        assert_eq!(
            (&open["machine"], &open["reason"], &open["class"]),
            (&json!(true), &json!("head"), &json!("machine"))
        );
        assert_eq!(open["ipAddress"], "");
        let class = Class::Unknown(super::super::UnknownReason::NotDelivered);
        let told = Told::Clicked { visit: Visit { class: &class, ..visit }, link: "https://example.org/" };
        assert_eq!(told_as_json(&told)["data"]["click"]["reason"], "not-delivered");
    }

    #[test]
    fn bounces() {
        for (reply, gave_up, kind, sub_type) in [
            ("550 5.1.1 no such user", false, "Permanent", "NoEmail"),
            ("550 no such user", false, "Permanent", "General"),
            ("552 5.2.2 full", false, "Permanent", "MailboxFull"),
            ("452 4.2.2 full", true, "Transient", "MailboxFull"),
            ("552 5.3.4 too big", false, "Permanent", "MessageTooLarge"),
            ("554 5.6.0 odd", false, "Permanent", "ContentRejected"),
            ("550 5.7.1 go away", false, "Permanent", "General"),
            ("connection refused", true, "Transient", "Undetermined"),
            ("given up", false, "Undetermined", "Undetermined"),
            ("550", false, "Permanent", "General"),
            ("", false, "Undetermined", "Undetermined"),
            ("é50", false, "Undetermined", "Undetermined"),
        ] {
            let bounce = Bounce::of(reply, gave_up);
            assert_eq!((bounce.r#type, bounce.sub_type), (kind, sub_type), "{reply:?}");
        }
        assert_eq!(Bounce::of("550 5.1.1 no\nsuch user", false).diagnostic_code, ["smtp; 550 5.1.1 no such user"]);
        assert!(Bounce::of("timed out", true).diagnostic_code.is_empty());
    }

    #[test]
    fn a_domain_is_told_with_what_clients_know() {
        for name in ["ev_domain_created.json", "ev_domain_updated.json", "ev_domain_deleted.json"] {
            let mut wanted = fixture(name);
            let mut shown = wanted["data"].clone();
            shown["created_at"] = json!("2026-04-26T20:21:26.347000+00:00");
            shown["status"] = json!("partially_verified");
            shown["certificates"] = json!([]);
            shown["records"][0]["earlier"] = json!(true);
            let kind = wanted["type"].as_str().unwrap().to_owned();
            let at = wanted["created_at"].as_str().unwrap().parse::<Timestamp>().unwrap().as_millisecond() as u64;
            let told: Value = serde_json::from_slice(&domain_payload(&kind, &domain_data(&shown), at)).unwrap();
            wanted["data"]["status"] = json!("pending");
            // Of incoming mail and of Resend's own senders; we have none.
            for record in wanted["data"]["records"].as_array_mut().unwrap() {
                record.as_object_mut().unwrap().remove("priority");
            }
            assert_eq!(told, wanted, "{name}");
        }
    }

    #[test]
    fn ids_say_what_is_told() {
        let id = QueueId::new(1, [2; 10]);
        let one = email_event_id(&id, 0, "email.opened", 1);
        assert_eq!(one.len(), 4 + 27);
        assert!(one.starts_with("msg_") && one[4..].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(one, email_event_id(&id, 0, "email.opened", 1));
        let others = [
            email_event_id(&id, 1, "email.opened", 1),
            email_event_id(&id, 0, "email.clicked", 1),
            email_event_id(&id, 0, "email.opened", 2),
            email_event_id(&QueueId::new(1, [3; 10]), 0, "email.opened", 1),
            domain_event_id(Uuid::from_u128(1), "domain.created", 1),
            domain_event_id(Uuid::from_u128(1), "domain.created", 2),
        ];
        let all: std::collections::BTreeSet<_> = others.iter().chain([&one]).collect();
        assert_eq!(all.len(), 7);
        let (first, second) = (attempt_id(Uuid::nil(), &one, 0), attempt_id(Uuid::nil(), &one, 1));
        assert!(first.starts_with("atmpt_") && first != second);
    }
}
