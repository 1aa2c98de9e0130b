//! Machine or human: what one hit shows by itself, given when the copy was delivered.
//!
//! Judged here: HEAD requests, agents and addresses on the list ([`MachineList`]), no agent at all, and clicks within
//! two seconds of delivery. What only several hits together show is [`super::Bursts`]'.

use super::{Hit, HitKind, MachineList, MachineReason};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a hit is taken for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing speaks against a person.
    Human,
    Machine(MachineReason),
    /// It looks like a person's, but one fact is still missing; judge again when it is there.
    Unknown(UnknownReason),
}

/// Why a hit cannot be judged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownReason {
    /// A click whose delivery is not recorded: it may yet turn out to be too fast.
    NotDelivered,
}

/// A click sooner than this after delivery is no person's (milliseconds).
pub const FAST_CLICK_MS: u64 = 2_000;

/// Judges `hit`. `delivered_at`: when the smarthost took this recipient's copy, milliseconds since 1970, if known.
pub fn classify(hit: &Hit, delivered_at: Option<u64>, machines: &MachineList) -> Class {
    if hit.head {
        return Class::Machine(MachineReason::Head);
    }
    if let Some(reason) = machines.reason(hit) {
        return Class::Machine(reason.clone());
    }
    if hit.agent.trim().is_empty() {
        return Class::Machine(MachineReason::NoAgent);
    }
    match (&hit.kind, delivered_at) {
        (HitKind::Click { .. }, Some(at)) if hit.at < at.saturating_add(FAST_CLICK_MS) => {
            Class::Machine(MachineReason::FastClick)
        }
        (HitKind::Click { .. }, None) => Class::Unknown(UnknownReason::NotDelivered),
        _ => Class::Human,
    }
}

impl Class {
    /// `human`, `machine` or `unknown`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Machine(_) => "machine",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why it was not taken for a person's.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Human => None,
            Self::Machine(reason) => Some(reason.to_string()),
            Self::Unknown(UnknownReason::NotDelivered) => Some("not-delivered".to_owned()),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::QueueId;
    use std::net::{IpAddr, Ipv4Addr};

    const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";

    fn hit(kind: HitKind, agent: &str, at: u64) -> Hit {
        Hit {
            id: QueueId::from_bytes([1; 16]),
            recipient: 0,
            kind,
            at,
            count: 1,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            agent: agent.into(),
            head: false,
            repeat: false,
        }
    }

    fn click() -> HitKind {
        HitKind::Click { link: 0, url: "https://example.com/".into() }
    }

    #[test]
    fn agents_are_told_from_people() {
        let machines = MachineList::builtin();
        let table: &[(&str, Option<&str>)] = &[
            (CHROME, None),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)", None),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; Microsoft Outlook 16.0.5134; ms-office)", None),
            ("Outlook-iOS/2.0", None),
            ("Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Chrome/141.0 Mobile Safari/537.36", None),
            (
                "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
                Some("google-image-proxy"),
            ),
            ("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", Some("yahoo-image-proxy")),
            ("Mozilla/5.0", Some("apple-mail-privacy")),
            (" Mozilla/5.0 ", Some("apple-mail-privacy")),
            ("Mozilla/5.0 (compatible; Barracuda Sentinel)", Some("link-scanner:barracuda")),
            ("Microsoft Office Existence Discovery", Some("link-scanner:microsoft-office")),
            ("CURL/8.4.0", Some("known-agent:curl")),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Some("known-agent:google")),
            ("Mozilla/5.0 (compatible; SomethingBot/1.0)", Some("known-agent:bot")),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/141.0",
                Some("known-agent:headless-chrome"),
            ),
            ("", Some("no-agent")),
            (" \t", Some("no-agent")),
        ];
        for (agent, want) in table {
            let class = classify(&hit(HitKind::Open, agent, 5), Some(0), &machines);
            let got = match &class {
                Class::Machine(reason) => Some(reason.to_string()),
                _ => None,
            };
            assert_eq!(got.as_deref(), *want, "{agent:?}");
        }
    }

    #[test]
    fn clicks_are_judged_by_the_time_since_delivery() {
        let machines = MachineList::builtin();
        let fast = Class::Machine(MachineReason::FastClick);
        let waiting = Class::Unknown(UnknownReason::NotDelivered);
        for (kind, at, delivered, want) in [
            (click(), 11_999, Some(10_000), &fast),
            (click(), 12_000, Some(10_000), &Class::Human),
            (click(), 9_000, Some(10_000), &fast),
            (click(), 10, Some(u64::MAX), &fast),
            (click(), 9_000, None, &waiting),
            (HitKind::Open, 10_001, Some(10_000), &Class::Human),
            (HitKind::Open, 10_001, None, &Class::Human),
        ] {
            assert_eq!(
                &classify(&hit(kind.clone(), CHROME, at), delivered, &machines),
                want,
                "{kind:?} {at} {delivered:?}"
            );
        }
    }

    #[test]
    fn head_comes_before_all_else() {
        let head = Hit { head: true, ..hit(click(), "curl/8", 1) };
        assert_eq!(classify(&head, None, &MachineList::builtin()), Class::Machine(MachineReason::Head));
    }
}
