//! States that take hours to come about, written into the log of a relay that stands still.

use crate::common::{At, Client, Do, Setup, Smarthost, until};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use trackpost::mail::{Address, Body, Envelope, Notify, Outcome, QueueId, Recipient, Status};
use trackpost::spool::{Entry, Log, MessageHead, Options};

const HOUR: u64 = 3_600_000;

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A message that has been deferred for almost four hours, of a sender who wants to hear of delays.
fn deferred(log: &Log, n: u8, delay: bool, told: bool) -> QueueId {
    let body = Bytes::from(format!("From: a@example.com\r\nSubject: waits-{n}\r\n\r\nx\r\n"));
    let id = QueueId::new(now() - 4 * HOUR, [n; 10]);
    let recipient = Recipient {
        address: Address::parse(&format!("b{n}@example.net")).unwrap(),
        notify: Notify { given: delay, delay, failure: true, success: false },
        orcpt: None,
    };
    let head = MessageHead {
        envelope: Envelope {
            sender: Some(Address::parse("a@example.com").unwrap()),
            recipients: vec![recipient],
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        accepted_at: now() - 4 * HOUR,
        from_domain: Some("example.com".into()),
        from: "a@example.com".into(),
        subject: format!("waits-{n}").into(),
        message_id: "".into(),
        size: body.len() as u64,
        tags: Vec::new(),
        role: trackpost::mail::Role::Submission,
    };
    log.append(Entry::Message { id, head: Arc::new(head), body: vec![body] }).wait().unwrap();
    let status = Status::Deferred { attempts: 5, next: now(), age: 4 * HOUR - 1, told };
    let outcome = Outcome { recipient: 0, status, reply: "450 4.2.0 Busy".into(), at: now() - 1_000 };
    log.append(Entry::Outcomes { id, outcomes: vec![outcome], report: None }).wait().unwrap();
    id
}

#[test]
fn a_delay_is_told_once_to_who_asked_for_it() {
    let smarthost = Smarthost::scripted(|at| match at {
        At::Rcpt(address) if address.starts_with('b') => Do::Say("450 4.2.0 Busy"),
        _ => Do::Go,
    });
    let mut relay = Setup::new(smarthost.address).with("queue.retry", "[\"1s\"]").start();
    relay.stop();
    let (log, _) = Log::open(Options::new(relay.data_dir())).unwrap();
    let asked = deferred(&log, 1, true, false);
    let silent = deferred(&log, 2, false, false);
    let told = deferred(&log, 3, true, true);
    log.close();
    drop(log);
    relay.start();
    let notice = smarthost.wait_for_text("Action: delayed").text();
    for wanted in ["waits-1", "b1@example.net", "450 4.2.0 Busy", "Will-Retry-Until:"] {
        assert!(notice.contains(wanted), "{wanted:?} is not in\n{notice}");
    }
    let attempts = |id: &QueueId| {
        let shown = relay.json(&["queue", "show", &id.to_string()]);
        shown["recipients"][0]["attempts"].as_u64().unwrap()
    };
    // Each has been tried twice more by then, and there is still one notice.
    for id in [&asked, &silent, &told] {
        until("two more attempts", || (attempts(id) >= 8).then_some(()));
    }
    assert_eq!(smarthost.taken().len(), 1);
}

#[test]
fn with_keys_that_cannot_be_read_a_password_is_neither_right_nor_wrong() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).with("listener.auth", "\"required\"").start();
    let key = relay.ok(&["key", "create", "--name", "app"]).trim().to_owned();
    relay.stop();
    let (log, _) = Log::open(Options::new(relay.data_dir())).unwrap();
    let value = Some(Bytes::from_static(b"{"));
    log.append(Entry::Setting { key: "api-key/01a20bcb-f522-7113-8653-f1e598090d4a".into(), value }).wait().unwrap();
    log.close();
    drop(log);
    relay.start();
    let mut client = Client::greeted(relay.smtp());
    client.expect(&format!("AUTH PLAIN {}", super::submission::plain_response("re_unknown")), "454 4.7.0 ");
    client.expect(&format!("AUTH PLAIN {}", super::submission::plain_response(&key)), "235 ");
    relay.wait_for_log("cannot be read and is left out");
}
