use super::*;

#[test]
fn a_token_is_found_by_its_digest() {
    let key = |n: u128, token: &str| {
        ApiKey::new(Uuid::from_u128(n), "app".into(), token, Permission::SendingAccess, Vec::new(), 0)
    };
    let mut settings = Snapshot::default();
    settings.apply(Change::ApiKey(key(1, "re_one")));
    settings.apply(Change::ApiKey(key(2, "re_two")));
    assert_eq!(settings.find_api_key("re_two"), KeyLookup::Found(key(2, "re_two")));
    for wrong in ["", "re_", "re_thre", "RE_ONE", "re_one\0"] {
        assert_eq!(settings.find_api_key(wrong), KeyLookup::Unknown, "{wrong:?}");
    }
    settings.api_keys_incomplete = true;
    assert_eq!(settings.find_api_key("re_three"), KeyLookup::Unreadable);
    assert_eq!(settings.find_api_key("re_one"), KeyLookup::Found(key(1, "re_one")));
}

#[test]
fn changes_come_back_from_their_records() {
    let name = DomainName::parse("example.com").unwrap();
    let mut domain = SenderDomain::new(name.clone(), Uuid::from_u128(1), 5);
    domain.set_subdomain("links", 6).unwrap();
    domain.verify_by_operator(7).unwrap();
    let ties = vec![Tie { id: Uuid::from_u128(1), name: name.clone() }];
    let key = ApiKey::new(Uuid::from_u128(2), "app".into(), "re_a", Permission::SendingAccess, ties.clone(), 8);
    let secret = crate::event::SigningSecret::new([1; 24]);
    let events = vec!["email.sent".to_owned()];
    let mut webhook = Webhook::new(Uuid::from_u128(3), "https://example.com/".into(), events, secret.clone(), ties, 9);
    webhook.rotate(secret, 10);
    for change in [
        Change::Webhook(webhook),
        Change::Domain(domain.clone()),
        Change::Removed(domain),
        Change::ApiKey(key),
        Change::TrackingOff(None, true),
        Change::QueueHeld(true),
        Change::Certificate(name.clone(), CertificateState::issued(9)),
        Change::TrackingOff(Some(name.clone()), true),
        Change::Kill(Kill::Link("https://example.com/a/b?c".into()), Killed { id: Uuid::from_u128(3), added_at: 4 }),
        Change::OptOut(opt_out(), OptedOut { created_at: 10, customer: Some(Uuid::from_u128(9)) }),
    ] {
        let (key, value) = encode(&change);
        assert_eq!(decode(&key, &value.unwrap()), Some(change));
    }
    // As it was written before customers had shares.
    let old = Change::OptOut(opt_out(), OptedOut { created_at: 10, customer: None });
    assert_eq!(decode(&format!("opt-out/{}", opt_out()), br#"{"created_at":10}"#), Some(old));
    let domain = DomainName::parse("example.com").unwrap();
    assert_eq!(encode(&Change::DropCertificate(domain)), ("certificate/example.com".to_owned(), None));
    assert_eq!(decode("domain/example.com", b"{"), None);
    assert_eq!(decode("later/thing", b"1"), None);
}

fn opt_out() -> OptOut {
    PrivacyKey::new(&[1; 32]).opt_out(None, &Address::parse("ada@example.net").unwrap())
}

#[test]
fn a_snapshot_is_all_there_in_its_records() {
    let mut settings = Snapshot::default();
    let killed = Killed { id: Uuid::from_u128(3), added_at: 4 };
    for kill in ["message/01a20be1-7252-70f9-aff9-876b58905e9a", "link/http://a.test/", "domain/b.test"] {
        settings.apply(Change::Kill(Kill::of_key(kill).unwrap(), killed));
    }
    settings.apply(Change::OptOut(opt_out(), OptedOut { created_at: 5, customer: None }));
    let records = settings.records();
    let keys: Vec<_> = records.keys().map(String::as_str).collect();
    let hash = format!("opt-out/{}", opt_out());
    let kills = ["kill/domain/b.test", "kill/link/http://a.test/", "kill/message/01a20be1-7252-70f9-aff9-876b58905e9a"];
    assert_eq!(keys, [kills[0], kills[1], kills[2], &*hash]);
    let mut again = Snapshot::default();
    records.iter().for_each(|(key, value)| again.apply(decode(key, value).unwrap()));
    assert_eq!((&again.kills, &again.opt_outs), (&settings.kills, &settings.opt_outs));

    for kill in kills {
        settings.apply(Change::DropKill(Kill::of_key(kill.strip_prefix("kill/").unwrap()).unwrap()));
    }
    settings.apply(Change::DropOptOut(opt_out()));
    assert_eq!(settings.records().len(), 0);
}

#[test]
fn a_tie_of_an_earlier_version_is_resolved() {
    let name = DomainName::parse("example.com").unwrap();
    let stored = r#"{"id":"00000000-0000-0000-0000-000000000002","name":"app","token_sha256":"00",
        "permission":"sending_access","domain":"example.com","created_at":8}"#;
    let key: ApiKey = serde_json::from_str(stored).unwrap();
    let domain = SenderDomain::new(name.clone(), Uuid::from_u128(1), 5);
    let there = key.clone().resolved(&[(name.clone(), domain.clone())].into());
    assert!(there.reaches(&domain) && there.sends_for(Some(&name), Some(&domain)));
    assert!(there.sends_for(Some(&name), None) && !there.sends_for(None, None));
    let gone = key.resolved(&BTreeMap::new());
    assert!(!gone.reaches(&domain) && gone.sends_for(Some(&name), None));
    assert!(!gone.sends_for(Some(&name), Some(&domain)), "somebody else has set it up since");
    assert!(!serde_json::to_string(&gone).unwrap().contains("\"domain\""));
}

#[tokio::test]
async fn what_follows_from_a_change_is_done_though_who_asked_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovered) = Log::open(crate::spool::Options::new(dir.path())).unwrap();
    let (settings, _) = Settings::new(log.clone(), &recovered.settings);
    let done = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let ordering = std::sync::atomic::Ordering::SeqCst;
    for n in 1..=100u64 {
        let count = Arc::clone(&done);
        let then: Then = Box::new(move || _ = count.fetch_add(1, ordering));
        let change =
            settings.change_then(|_| Ok::<_, AppendError>((vec![Change::QueueHeld(n % 2 == 0)], (), Some(then))));
        let mut change = Box::pin(change);
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(change.as_mut().poll(cx).is_pending())).await);
        drop(change);
        let seen = settings.change(|_| Ok::<_, AppendError>((vec![], done.load(ordering)))).await.unwrap();
        assert_eq!(seen, n, "before the next change is decided");
    }
    let nothing: Then = Box::new(|| unreachable!("nothing has changed"));
    settings.change_then(|_| Ok::<_, AppendError>((vec![], (), Some(nothing)))).await.unwrap();
    log.close();
    let count = Arc::clone(&done);
    let then: Then = Box::new(move || _ = count.fetch_add(1, ordering));
    let failed = settings.change_then(|_| Ok::<_, AppendError>((vec![Change::QueueHeld(true)], (), Some(then))));
    assert!(failed.await.is_err() && done.load(ordering) == 100, "nor where it could not be written");
}

#[tokio::test]
async fn who_asks_for_a_change_may_go_away() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovered) = Log::open(crate::spool::Options::new(dir.path())).unwrap();
    let (settings, _) = Settings::new(log.clone(), &recovered.settings);
    for n in 0..200u64 {
        let held = n % 2 == 0;
        let change = settings.change(|_| Ok::<_, AppendError>((vec![Change::QueueHeld(held)], ())));
        // Polled once, so that the record is on its way, and dropped.
        let mut change = Box::pin(change);
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(change.as_mut().poll(cx).is_pending())).await);
        drop(change);
        // The next change waits for the one before it, and sees it.
        let seen = settings.change(|before| Ok::<_, AppendError>((vec![], before.queue_held))).await.unwrap();
        assert_eq!(seen, held, "{n}");
    }
    drop(settings);
    log.close();
    let (_, recovered) = Log::open(crate::spool::Options::new(dir.path())).unwrap();
    assert!(!recovered.settings.contains_key(HELD), "memory and disk say the same");
}

#[tokio::test]
async fn a_change_of_several_settings_is_in_force_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovered) = Log::open(crate::spool::Options::new(dir.path())).unwrap();
    let (settings, _) = Settings::new(log.clone(), &recovered.settings);
    let name = DomainName::parse("example.com").unwrap();
    let off = |off| vec![Change::TrackingOff(Some(name.clone()), off), Change::QueueHeld(!off)];
    settings.change(|_| Ok::<_, AppendError>((off(false), ()))).await.unwrap();
    let file = dir.path().join("log/0000000000000001.log");
    let before = std::fs::metadata(&file).unwrap().len();
    settings.change(|_| Ok::<_, AppendError>((off(true), ()))).await.unwrap();
    log.close();
    let whole = std::fs::read(&file).unwrap();
    let (mut seen, end) = (Vec::new(), whole.len() as u64);
    for cut in before..=end {
        let copy = tempfile::tempdir().unwrap();
        std::fs::create_dir(copy.path().join("log")).unwrap();
        std::fs::write(copy.path().join("log/0000000000000001.log"), &whole[..usize::try_from(cut).unwrap()]).unwrap();
        let (log, recovered) = Log::open(crate::spool::Options::new(copy.path())).unwrap();
        let (settings, _) = Settings::new(log, &recovered.settings);
        let settings = settings.snapshot();
        let (off, held) = (settings.tracking_off_for.contains(&name), settings.queue_held);
        assert_ne!(off, held, "half of a change, cut at {cut} of {end}");
        seen.push(off);
    }
    // From the record's last byte on; behind it lies no more than the segment's footer.
    assert!(seen.is_sorted() && !seen[0] && seen[seen.len() - 1], "{seen:?}");
}
