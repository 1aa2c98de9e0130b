//! What needs a person: found by looking at facts, the worst first, each with where to act.

use super::words;
use uuid::Uuid;

/// What there is to be looked at. The operator's alone is nothing for others.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub now: u64,
    pub operator: bool,
    /// Since when the smarthost cannot be reached, and its words or the system's.
    pub smarthost: Option<(u64, String)>,
    pub held: bool,
    /// Messages in the queue, and when the oldest of them was accepted.
    pub waiting: usize,
    pub oldest: Option<u64>,
    pub log_full: bool,
    pub store_shut: bool,
    /// For all mail.
    pub tracking_off: bool,
    /// Own domains for which it is off.
    pub tracking_off_for: Vec<String>,
    pub domains: Vec<DomainFact>,
    pub certificates: Vec<CertificateFact>,
    pub webhooks: Vec<WebhookFact>,
    /// Copies of which the end is known, and those of them that were refused or given up, in the last 24 hours.
    pub settled: u64,
    pub bounced: u64,
}

#[derive(Clone, Debug)]
pub struct DomainFact {
    pub id: Uuid,
    pub name: String,
    pub trouble: Trouble,
    /// What stands in the way, as [`crate::ops::DomainView`] says it; may be empty.
    pub why: String,
}

/// What is wrong with a domain. The worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// A record was given up.
    Failed,
    /// A record was there and is gone; mail is tracked until it is given up.
    Lost,
    /// Tracking is wanted, and cannot be done yet.
    Untracked,
    /// A record is waited for; mail is tracked meanwhile, or signed by an earlier key.
    Waiting,
}

#[derive(Clone, Debug)]
pub struct CertificateFact {
    pub host: String,
    /// Whose tracking host it is.
    pub domain: Option<Uuid>,
    pub not_after: Option<u64>,
    /// Why the last order failed.
    pub failed: Option<String>,
    /// We order the next one ourselves, in time.
    pub is_ordered: bool,
}

#[derive(Clone, Debug)]
pub struct WebhookFact {
    pub id: Uuid,
    pub endpoint: String,
    pub disabled: Option<String>,
    pub failing_since: Option<u64>,
}

/// One thing that needs a person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Mail or links suffer now; else they will, or less is known than could be.
    pub is_bad: bool,
    pub text: String,
    /// More about it, often in somebody else's words; may be empty.
    pub why: String,
    /// Where to act, and what that is called; both empty where a command does.
    pub href: String,
    pub act: &'static str,
    pub command: String,
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Mail that waits for longer than this is not waiting for a greylist any more.
const LONG_MS: u64 = 4 * HOUR_MS;
/// A certificate is near its end. One that we order ourselves has its successor long before, so it is near its end
/// much later.
const NEAR_MS: u64 = 14 * DAY_MS;
const NEAR_ORDERED_MS: u64 = DAY_MS;
/// A share of bounces is high from here on, where there are enough copies to speak of one.
const MANY_BOUNCES: f64 = 0.05;
const ENOUGH: u64 = 50;
/// Entries about things of one kind.
const MOST: usize = 5;

/// Everything that needs a person, what is bad first.
pub fn needs(facts: &Facts) -> Vec<Need> {
    let mut needs = Vec::new();
    if facts.operator {
        of_the_operator(facts, &mut needs);
    }
    of_tracking(facts, &mut needs);
    of_domains(facts, &mut needs);
    of_certificates(facts, &mut needs);
    of_webhooks(facts, &mut needs);
    if facts.settled >= ENOUGH && facts.bounced as f64 >= facts.settled as f64 * MANY_BOUNCES {
        let share = words::percent(facts.bounced as f64 / facts.settled as f64);
        needs.push(Need {
            text: format!("{share} of the copies settled in the last 24 hours bounced."),
            why: "Providers begin to refuse mail of senders with many bounces: see who is still written to.".to_owned(),
            href: "/dashboard/emails".to_owned(),
            act: "Emails",
            ..Need::default()
        });
    }
    needs.sort_by_key(|need| !need.is_bad);
    needs
}

fn of_the_operator(facts: &Facts, needs: &mut Vec<Need>) {
    let queue = |need: Need| Need { href: "/dashboard/queue".to_owned(), act: "Queue", ..need };
    if facts.log_full {
        needs.push(Need {
            is_bad: true,
            text: "The disk is full: new mail is put off with 452, and hits are not recorded.".to_owned(),
            why: "Make room on the file system of the data folder. Links go on redirecting meanwhile.".to_owned(),
            command: "df -h".to_owned(),
            ..Need::default()
        });
    }
    if let Some((since, why)) = &facts.smarthost {
        needs.push(queue(Need {
            is_bad: true,
            text: format!("The smarthost has not been reached for {}.", words::span(facts.now.saturating_sub(*since))),
            why: why.clone(),
            ..Need::default()
        }));
    }
    if facts.held {
        let text = "The queue is held: no mail is delivered until it is released.".to_owned();
        needs.push(queue(Need { is_bad: true, text, ..Need::default() }));
    }
    if facts.store_shut {
        needs.push(Need {
            is_bad: true,
            text: "The history is not open, so there are no figures and no timelines.".to_owned(),
            why:
                "It opens some moments after a start; if it stays so, the server's log says why. Mail and links go on."
                    .to_owned(),
            command: "journalctl -u trackpost -p warning".to_owned(),
            ..Need::default()
        });
    }
    // Where the cause is known, this only follows from it.
    let is_explained = facts.smarthost.is_some() || facts.held;
    if let Some(oldest) = facts.oldest.filter(|at| !is_explained && facts.now.saturating_sub(*at) > LONG_MS) {
        needs.push(queue(Need {
            text: format!("The oldest mail in the queue was accepted {}.", words::away(oldest, facts.now)),
            why: format!("{} waiting. The queue says for what.", words::counted(facts.waiting as u64, "message")),
            ..Need::default()
        }));
    }
}

fn of_tracking(facts: &Facts, needs: &mut Vec<Need>) {
    if facts.tracking_off {
        let text = match facts.operator {
            true => "Tracking is switched off for all mail.",
            false => "The operator has switched tracking off for all mail.",
        };
        let command = if facts.operator { "trackpost tracking on" } else { "" };
        needs.push(Need { text: text.to_owned(), command: command.to_owned(), is_bad: true, ..Need::default() });
    }
    for name in facts.tracking_off_for.iter().take(MOST) {
        let (text, command) = match facts.operator {
            true => (format!("Tracking is switched off for {name}."), format!("trackpost tracking on {name}")),
            false => (format!("The operator has switched tracking off for {name}."), String::new()),
        };
        needs.push(Need { text, command, is_bad: true, ..Need::default() });
    }
    more(facts.tracking_off_for.len(), "domain", "for which tracking is switched off", "/dashboard/domains", needs);
}

fn of_domains(facts: &Facts, needs: &mut Vec<Need>) {
    let mut all: Vec<_> = facts.domains.iter().collect();
    all.sort_by_key(|domain| domain.trouble);
    for domain in all.iter().take(MOST) {
        let name = words::cut(&domain.name, 100);
        let (is_bad, text) = match domain.trouble {
            Trouble::Failed => (true, format!("A DNS record of {name} was not found, and is no longer looked for.")),
            Trouble::Lost => {
                (true, format!("A DNS record of {name} is gone. If it stays away, its mail is no longer tracked."))
            }
            Trouble::Untracked => (false, format!("Mail of {name} is not tracked yet.")),
            Trouble::Waiting => (false, format!("A DNS record of {name} is not verified yet.")),
        };
        needs.push(Need {
            is_bad,
            text,
            why: domain.why.clone(),
            href: format!("/dashboard/domains/{}", domain.id),
            act: "Records",
            command: String::new(),
        });
    }
    more(all.len(), "domain", "with records to look at", "/dashboard/domains", needs);
}

fn of_certificates(facts: &Facts, needs: &mut Vec<Need>) {
    let is_near = |certificate: &&CertificateFact| {
        let left = certificate.not_after.map(|end| end.saturating_sub(facts.now));
        let is_quiet = certificate.is_ordered && certificate.failed.is_none();
        match left {
            None => certificate.failed.is_some(),
            Some(left) => left < if is_quiet { NEAR_ORDERED_MS } else { NEAR_MS },
        }
    };
    let mut near: Vec<_> = facts.certificates.iter().filter(is_near).collect();
    near.sort_by_key(|certificate| certificate.not_after);
    for certificate in near.iter().take(MOST) {
        let host = words::cut(&certificate.host, 100);
        let (is_bad, text) = match certificate.not_after {
            None => (true, format!("{host} has no certificate, so links cannot lead there.")),
            Some(end) if end <= facts.now => {
                (true, format!("The certificate of {host} has ended: browsers refuse its links."))
            }
            Some(end) => {
                let soon = end < facts.now + 3 * DAY_MS;
                (soon, format!("The certificate of {host} ends {}.", words::away(end, facts.now)))
            }
        };
        let usual = match certificate.is_ordered {
            true => "The next one is being ordered.",
            false => "Put a new one in the place of its files; it is taken into use by itself.",
        };
        let why = certificate.failed.as_deref().map_or(usual.to_owned(), words::sentence);
        let (href, act) = match certificate.domain {
            Some(id) => (format!("/dashboard/domains/{id}"), "Domain"),
            None => (String::new(), ""),
        };
        let command = if href.is_empty() { "trackpost check --online" } else { "" };
        needs.push(Need { is_bad, text, why, href, act, command: command.to_owned() });
    }
    more(near.len(), "certificate", "near the end or missing", "/dashboard/domains", needs);
}

fn of_webhooks(facts: &Facts, needs: &mut Vec<Need>) {
    let told = |webhook: &WebhookFact| {
        let endpoint = words::cut(&webhook.endpoint, 100);
        let (is_bad, text, why) = match (&webhook.disabled, webhook.failing_since) {
            (Some(why), _) => {
                (true, format!("The webhook {endpoint} was disabled: it is told of nothing."), words::sentence(why))
            }
            (None, Some(since)) => {
                let text =
                    format!("The webhook {endpoint} has failed for {}.", words::span(facts.now.saturating_sub(since)));
                (false, text, "Events are sent again for some time; then they are given up.".to_owned())
            }
            (None, None) => return None,
        };
        let href = format!("/dashboard/webhooks/{}", webhook.id);
        Some(Need { is_bad, text, why, href, act: "Attempts", command: String::new() })
    };
    let all: Vec<_> = facts.webhooks.iter().filter_map(told).collect();
    let count = all.len();
    needs.extend(all.into_iter().take(MOST));
    more(count, "webhook", "disabled or failing", "/dashboard/webhooks", needs);
}

/// Says how many there are beside those that were named.
fn more(count: usize, noun: &str, what: &str, href: &str, needs: &mut Vec<Need>) {
    if count > MOST {
        let text = format!("{} {what}.", words::counted((count - MOST) as u64, &format!("more {noun}")));
        needs.push(Need { text, href: href.to_owned(), act: "See all", ..Need::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_516_200_000;

    fn facts() -> Facts {
        Facts { now: NOW, operator: true, ..Facts::default() }
    }

    fn texts(facts: &Facts) -> Vec<String> {
        needs(facts).into_iter().map(|need| need.text).collect()
    }

    fn domain(n: u128, trouble: Trouble) -> DomainFact {
        DomainFact { id: Uuid::from_u128(n), name: format!("{n}.example.com"), trouble, why: "off: x".into() }
    }

    fn certificate(left: Option<u64>, failed: Option<&str>, is_ordered: bool) -> CertificateFact {
        let not_after = left.map(|left| NOW + left);
        let failed = failed.map(str::to_owned);
        CertificateFact { host: "links.example.com".into(), domain: None, not_after, failed, is_ordered }
    }

    #[test]
    fn nothing_needs_anybody() {
        assert!(needs(&facts()).is_empty());
        let busy = Facts { waiting: 9, oldest: Some(NOW - LONG_MS), settled: 49, bounced: 49, ..facts() };
        assert!(needs(&busy).is_empty(), "a greylist, and too few copies to speak of a rate");
        assert!(needs(&Facts { settled: 1_000, bounced: 49, ..facts() }).is_empty());
        let ordered = certificate(Some(5 * DAY_MS), None, true);
        assert!(needs(&Facts { certificates: vec![ordered], ..facts() }).is_empty(), "it is renewed in time");
    }

    #[test]
    fn what_is_the_operators_is_not_shown_to_others() {
        let all = Facts {
            smarthost: Some((NOW - HOUR_MS, "connection refused".into())),
            held: true,
            oldest: Some(0),
            log_full: true,
            store_shut: true,
            ..facts()
        };
        assert_eq!(texts(&all).len(), 4);
        assert!(needs(&all).iter().all(|need| need.is_bad));
        assert!(texts(&Facts { operator: false, ..all }).is_empty());
        let off = Facts { tracking_off: true, tracking_off_for: vec!["example.com".into()], ..facts() };
        assert_eq!(needs(&off)[1].command, "trackpost tracking on example.com");
        let others = needs(&Facts { operator: false, ..off });
        assert!(others.iter().all(|need| need.text.contains("operator") && need.command.is_empty()), "{others:?}");
    }

    #[test]
    fn the_smarthosts_words_are_told() {
        let down = Facts { smarthost: Some((NOW - 2 * HOUR_MS, "connection refused".into())), ..facts() };
        let told = needs(&down).remove(0);
        assert_eq!(told.text, "The smarthost has not been reached for 2 hours.");
        assert_eq!((&*told.why, &*told.href), ("connection refused", "/dashboard/queue"));
        let old = Facts { waiting: 2, oldest: Some(NOW - 26 * HOUR_MS), ..facts() };
        assert_eq!(texts(&old), ["The oldest mail in the queue was accepted 1 day ago."]);
        assert!(!texts(&Facts { oldest: Some(0), ..down }).iter().any(|text| text.contains("oldest")));
    }

    #[test]
    fn what_is_bad_comes_first_and_long_lists_end() {
        let mut domains: Vec<_> = (0..7).map(|n| domain(n, Trouble::Untracked)).collect();
        domains.push(domain(9, Trouble::Failed));
        let found = needs(&Facts { domains, settled: 100, bounced: 5, ..facts() });
        let texts: Vec<_> = found.iter().map(|need| &*need.text).collect();
        assert_eq!(texts[0], "A DNS record of 9.example.com was not found, and is no longer looked for.");
        assert_eq!(texts[1], "Mail of 0.example.com is not tracked yet.");
        assert_eq!(texts[5], "3 more domains with records to look at.");
        assert_eq!(texts[6], "5.0 % of the copies settled in the last 24 hours bounced.");
        assert_eq!(texts.len(), 7);
    }

    #[test]
    fn certificates_near_their_end() {
        for (certificate, is_bad, text) in [
            (certificate(Some(13 * DAY_MS), None, false), Some(false), "ends in 13 days"),
            (certificate(Some(15 * DAY_MS), Some("no"), true), None, ""),
            (certificate(Some(13 * DAY_MS), Some("no"), true), Some(false), "ends in 13 days"),
            (certificate(Some(2 * DAY_MS), Some("no"), true), Some(true), "ends in 2 days"),
            (certificate(Some(20 * HOUR_MS), None, true), Some(true), "ends in 20 hours"),
            (certificate(Some(0), None, false), Some(true), "has ended"),
            (certificate(None, Some("no"), true), Some(true), "has no certificate"),
            (certificate(None, None, true), None, ""),
        ] {
            let found = needs(&Facts { certificates: vec![certificate.clone()], ..facts() });
            assert_eq!(found.first().map(|need| need.is_bad), is_bad, "{certificate:?}");
            assert!(found.iter().all(|need| need.text.contains(text)), "{found:?}");
        }
    }

    #[test]
    fn webhooks_that_fail() {
        let webhook = |disabled: Option<&str>, failing_since| WebhookFact {
            id: Uuid::nil(),
            endpoint: "https://example.com/hook".into(),
            disabled: disabled.map(str::to_owned),
            failing_since,
        };
        let webhooks =
            vec![webhook(None, Some(NOW - 3 * HOUR_MS)), webhook(Some("410 Gone"), None), webhook(None, None)];
        let found = needs(&Facts { webhooks, ..facts() });
        assert_eq!(found[0].why, "410 Gone.");
        assert_eq!(found[1].text, "The webhook https://example.com/hook has failed for 3 hours.");
        assert_eq!(found.len(), 2);
    }
}
