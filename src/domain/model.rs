//! Random stories of a domain, held against a reference that knows no state machine: it keeps the story and answers
//! every question by reading it from the beginning.

use super::record::PATIENCE_MS;
use super::*;
use proptest::prelude::*;

const HOUR: u64 = 3_600_000;
const LABELS: [&str; 3] = ["links", "go", "t.mail"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Ask(usize),
    Verify,
    Look(usize, Evidence),
    Vouch,
    LeaveToDns,
    Wait(u64),
}

/// One thing that happened, and when.
type Story = Vec<(u64, Step)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let evidence = prop_oneof![
        4 => Just(Evidence::Good),
        4 => Just(Evidence::Bad),
        1 => Just(Evidence::Unknown),
    ];
    let step = prop_oneof![
        3 => (0..LABELS.len()).prop_map(Step::Ask),
        3 => Just(Step::Verify),
        8 => (0..LABELS.len(), evidence).prop_map(|(label, evidence)| Step::Look(label, evidence)),
        1 => Just(Step::Vouch),
        1 => Just(Step::LeaveToDns),
        4 => prop_oneof![Just(1), Just(HOUR), Just(23 * HOUR), Just(24 * HOUR), Just(71 * HOUR), Just(73 * HOUR)]
            .prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..40)
}

/// The story's last request, whom it was for, and all that were granted.
fn asked(story: &Story) -> Option<usize> {
    story.iter().rev().find_map(|(_, step)| if let Step::Ask(label) = step { Some(*label) } else { None })
}

/// When the subdomain may next be changed to `label`: `Ok` now, `Err` with the time.
fn may_ask(story: &Story, label: usize, now: u64) -> Result<(), u64> {
    let (mut last, mut changed) = (None, None);
    for (at, step) in story {
        if let Step::Ask(label) = step {
            if last.is_some_and(|last| last != *label) {
                changed = Some(*at);
            }
            last = Some(*label);
        }
    }
    match (last, changed) {
        (Some(last), Some(changed)) if last != label && now < changed + 24 * HOUR => Err(changed + 24 * HOUR),
        _ => Ok(()),
    }
}

/// What the story says of one label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    listed: bool,
    proven: bool,
    vouched: bool,
    record: Record,
}

/// Reads the story up to its end: every label, and which one is in use.
fn read(story: &Story) -> ([Told; LABELS.len()], Option<usize>) {
    let mut told = [Told::default(); LABELS.len()];
    let mut in_use = None;
    // What an operator's word has put in the place of something that was verified.
    let mut displaced = None;
    let mut current = None;
    for (now, step) in story {
        match *step {
            Step::Ask(label) if current == Some(label) => {}
            Step::Ask(label) => {
                for other in &mut told {
                    if !other.proven {
                        *other = Told::default();
                    }
                }
                if in_use != Some(label) {
                    told[label] = Told { listed: true, proven: told[label].proven, ..Told::default() };
                }
                current = Some(label);
            }
            Step::Verify => {
                for label in told.iter_mut().filter(|label| label.listed) {
                    if matches!(label.record, Record::NotStarted | Record::Failed { .. }) {
                        label.record = Record::Pending { since: *now };
                    }
                }
            }
            Step::Look(label, evidence) if told[label].listed => {
                let told = &mut told[label];
                let three_days = |since: u64| *now >= since + PATIENCE_MS;
                told.record = match told.record {
                    Record::NotStarted => Record::NotStarted,
                    Record::Failed { at } => Record::Failed { at },
                    Record::Pending { since } => match evidence {
                        Evidence::Good => Record::Verified { at: *now },
                        _ if three_days(since) => Record::Failed { at: *now },
                        _ => Record::Pending { since },
                    },
                    Record::Verified { at } => match evidence {
                        Evidence::Bad => Record::TemporaryFailure { since: *now },
                        _ => Record::Verified { at },
                    },
                    Record::TemporaryFailure { since } => match evidence {
                        Evidence::Good => Record::Verified { at: *now },
                        Evidence::Bad if three_days(since) => Record::Failed { at: *now },
                        _ => Record::TemporaryFailure { since },
                    },
                };
                told.proven |= told.vouched || matches!(told.record, Record::Verified { .. });
                if current == Some(label) && (told.vouched || matches!(told.record, Record::Verified { .. })) {
                    in_use = current;
                }
            }
            Step::Vouch => {
                if let Some(label) = current {
                    told[label].vouched = true;
                    told[label].proven = true;
                    if in_use.is_some() && in_use != current {
                        displaced = in_use;
                    }
                    in_use = current;
                }
            }
            Step::LeaveToDns => {
                told.iter_mut().for_each(|label| label.vouched = false);
                // The previous one is used while the one asked for is not verified.
                let holds = |label: Option<usize>| label.is_some_and(|label: usize| told[label].record.holds());
                if !holds(in_use) && holds(displaced) {
                    in_use = displaced.take();
                }
            }
            Step::Look(..) | Step::Wait(_) => {}
        }
    }
    (told, in_use)
}

fn status(told: Option<Told>) -> &'static str {
    match told {
        None => "verified",
        Some(Told { vouched: true, .. }) => "verified",
        Some(told) => match told.record {
            Record::NotStarted => "not_started",
            Record::Pending { .. } | Record::TemporaryFailure { .. } => "pending",
            Record::Verified { .. } => "verified",
            Record::Failed { .. } => "failed",
        },
    }
}

fn finding(evidence: Evidence) -> Finding {
    let cname = match evidence {
        Evidence::Good => Ok(CnameFound::Target),
        Evidence::Bad => Ok(CnameFound::Nothing),
        Evidence::Unknown => Err(NotKnown("SERVFAIL".into())),
    };
    Finding { cname, caa: None, browser: Browser::NotAsked }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn any_story_ends_as_the_reference_says(steps in steps()) {
        let target = DomainName::parse("track.relay.example.net").unwrap();
        let expected = Expected { caa_issuer: target.clone(), cname_target: target };
        let mut domain = SenderDomain::new(DomainName::parse("example.com").unwrap(), Uuid::nil(), 0);
        let (mut story, mut now) = (Story::new(), 1_000);
        for step in steps {
            let before = domain.clone();
            match step {
                Step::Ask(label) => match (domain.set_subdomain(LABELS[label], now), may_ask(&story, label, now)) {
                    (Ok(()), Ok(())) => story.push((now, step)),
                    (Err(DomainRule::ChangedLately { next }), Err(wanted)) => {
                        prop_assert_eq!(next, wanted);
                        prop_assert_eq!(&domain, &before, "a refusal changes nothing");
                    }
                    (got, wanted) => prop_assert!(false, "{got:?}, but {wanted:?}"),
                },
                Step::Verify => domain.verify(now),
                Step::Look(label, evidence) => {
                    if let Some(looked_at) = domain.by_labels(LABELS[label]).cloned() {
                        domain.checked(&looked_at, &finding(evidence), &expected, Demand::Nothing, now);
                    }
                }
                Step::Vouch => prop_assert_eq!(domain.verify_by_operator(now).is_ok(), asked(&story).is_some()),
                Step::LeaveToDns => domain.leave_to_dns(),
                Step::Wait(ms) => now += ms,
            }
            if !matches!(step, Step::Ask(_)) {
                story.push((now, step));
            }

            let (told, in_use) = read(&story);
            let wanted: Vec<_> = (0..LABELS.len()).filter(|n| told[*n].listed).map(|n| (LABELS[n], told[n].record)).collect();
            let mut got: Vec<_> = domain.subdomains.iter().map(|s| (s.labels.as_str(), s.cname)).collect();
            got.sort_by_key(|(labels, _)| LABELS.iter().position(|l| l == labels));
            prop_assert_eq!(got, wanted, "{:?}", story);
            prop_assert_eq!(domain.status(), status(asked(&story).map(|label| told[label])));
            let usable = |label: &usize| told[*label].vouched || told[*label].record.holds();
            let active = domain.active_subdomain(Demand::Nothing).map(|s| s.labels.as_str());
            prop_assert_eq!(active, in_use.filter(usable).map(|label| LABELS[label]), "{:?}", story);
            for proven in before.subdomains.iter().filter(|s| s.proven) {
                prop_assert!(domain.subdomains.iter().any(|s| s.host == proven.host && s.proven), "served for good");
            }
            let again: SenderDomain = serde_json::from_str(&serde_json::to_string(&domain).unwrap()).unwrap();
            prop_assert_eq!(&again, &domain, "a restart goes on");
        }
    }
}
