//! Machine or human: what one hit shows by itself, given when the copy was delivered.
//!
//! Judged here: HEAD requests, agents on the list (`agents.txt`), no agent at all, and clicks within two seconds of
//! delivery. What only several hits together show, such as a burst over all links of a message, is not.

use super::{Hit, HitKind};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

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

/// Why a hit is taken for a machine's. As text, also in serde, `head`, `link-scanner:barracuda` and their like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MachineReason {
    /// A HEAD request: nobody reads the answer.
    Head,
    /// No User-Agent, or an empty one.
    NoAgent,
    /// Apple's proxy, which fetches every image whether or not the mail is read.
    AppleMailPrivacy,
    GoogleImageProxy,
    YahooImageProxy,
    /// A mail filter that follows links.
    LinkScanner(AgentName),
    /// A program, library, search engine or preview.
    KnownAgent(AgentName),
    /// A click before delivery or less than [`FAST_CLICK_MS`] after it.
    FastClick,
}

/// The name of an agent: lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentName(Box<str>);

/// A click sooner than this after delivery is no person's (milliseconds).
pub const FAST_CLICK_MS: u64 = 2_000;

/// Judges `hit`. `delivered_at`: when the smarthost took this recipient's copy, milliseconds since 1970, if known.
pub fn classify(hit: &Hit, delivered_at: Option<u64>, agents: &AgentList) -> Class {
    if hit.head {
        return Class::Machine(MachineReason::Head);
    }
    if let Some(reason) = agents.reason(&hit.agent) {
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

/// The agents that are known to be machines, in the order in which they are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentList(Box<[(Pattern, MachineReason)]>);

/// Lower-case texts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Whole(Box<str>),
    Within(Box<str>),
}

/// Why a text is no list of agents; lines count from 1. The fault of whoever wrote the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentListError {
    /// Not four columns between `|`, or an empty pattern.
    Columns { line: usize },
    /// The second column is no [`MachineReason`].
    Reason { line: usize, text: String },
}

impl AgentList {
    /// The list that comes with the program.
    pub fn builtin() -> Self {
        Self::parse(include_str!("agents.txt")).expect("the list that is compiled in is covered by a test")
    }

    /// Reads a list in the form that the head of `agents.txt` tells.
    pub fn parse(text: &str) -> Result<Self, AgentListError> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        lines
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .map(parse_line)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn reason(&self, agent: &str) -> Option<&MachineReason> {
        let agent = agent.trim().to_ascii_lowercase();
        let matches = |pattern: &Pattern| match pattern {
            Pattern::Whole(text) => agent == **text,
            Pattern::Within(text) => agent.contains(&**text),
        };
        self.0.iter().find(|(pattern, _)| matches(pattern)).map(|(_, reason)| reason)
    }
}

fn parse_line((line, text): (usize, &str)) -> Result<(Pattern, MachineReason), AgentListError> {
    let mut columns = text.split('|').map(str::trim);
    let (Some(pattern), Some(reason), Some(_source), Some(_since), None) =
        (columns.next(), columns.next(), columns.next(), columns.next(), columns.next())
    else {
        return Err(AgentListError::Columns { line });
    };
    let lower = |text: &str| text.to_ascii_lowercase().into_boxed_str();
    let pattern = match pattern.strip_prefix('=') {
        Some("") => return Err(AgentListError::Columns { line }),
        Some(whole) => Pattern::Whole(lower(whole)),
        None if pattern.is_empty() => return Err(AgentListError::Columns { line }),
        None => Pattern::Within(lower(pattern)),
    };
    let reason = reason.parse().map_err(|NotAReason(text)| AgentListError::Reason { line, text })?;
    Ok((pattern, reason))
}

/// A text that is no [`MachineReason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAReason(pub String);

impl fmt::Display for MachineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::NoAgent => f.write_str("no-agent"),
            Self::AppleMailPrivacy => f.write_str("apple-mail-privacy"),
            Self::GoogleImageProxy => f.write_str("google-image-proxy"),
            Self::YahooImageProxy => f.write_str("yahoo-image-proxy"),
            Self::LinkScanner(AgentName(name)) => write!(f, "link-scanner:{name}"),
            Self::KnownAgent(AgentName(name)) => write!(f, "known-agent:{name}"),
            Self::FastClick => f.write_str("fast-click"),
        }
    }
}

impl FromStr for MachineReason {
    type Err = NotAReason;

    fn from_str(text: &str) -> Result<Self, NotAReason> {
        let named = |name: &str| AgentName::parse(name).ok_or_else(|| NotAReason(text.to_owned()));
        match text.split_once(':') {
            Some(("link-scanner", name)) => return named(name).map(Self::LinkScanner),
            Some(("known-agent", name)) => return named(name).map(Self::KnownAgent),
            _ => {}
        }
        Ok(match text {
            "head" => Self::Head,
            "no-agent" => Self::NoAgent,
            "apple-mail-privacy" => Self::AppleMailPrivacy,
            "google-image-proxy" => Self::GoogleImageProxy,
            "yahoo-image-proxy" => Self::YahooImageProxy,
            "fast-click" => Self::FastClick,
            _ => return Err(NotAReason(text.to_owned())),
        })
    }
}

impl AgentName {
    /// `None` unless `text` is made of lower-case letters, digits and hyphens.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        (!text.is_empty() && text.bytes().all(plain)).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MachineReason {
    type Error = NotAReason;

    fn try_from(text: String) -> Result<Self, NotAReason> {
        text.parse()
    }
}

impl From<MachineReason> for String {
    fn from(reason: MachineReason) -> Self {
        reason.to_string()
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

impl fmt::Display for NotAReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a reason to take a hit for a machine's", self.0)
    }
}

impl std::error::Error for NotAReason {}

impl fmt::Display for AgentListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns { line } => write!(f, "line {line}: expected PATTERN | REASON | SOURCE | SINCE"),
            Self::Reason { line, text } => write!(f, "line {line}: {}", NotAReason(text.clone())),
        }
    }
}

impl std::error::Error for AgentListError {}

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
        let agents = AgentList::builtin();
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
            let class = classify(&hit(HitKind::Open, agent, 5), Some(0), &agents);
            let got = match &class {
                Class::Machine(reason) => Some(reason.to_string()),
                _ => None,
            };
            assert_eq!(got.as_deref(), *want, "{agent:?}");
        }
    }

    #[test]
    fn clicks_are_judged_by_the_time_since_delivery() {
        let agents = AgentList::builtin();
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
                &classify(&hit(kind.clone(), CHROME, at), delivered, &agents),
                want,
                "{kind:?} {at} {delivered:?}"
            );
        }
    }

    #[test]
    fn head_comes_before_all_else() {
        let head = Hit { head: true, ..hit(click(), "curl/8", 1) };
        assert_eq!(classify(&head, None, &AgentList::builtin()), Class::Machine(MachineReason::Head));
    }

    #[test]
    fn faults_in_a_list_name_the_line() {
        let columns = |line| Err(AgentListError::Columns { line });
        for (text, want) in [
            ("# c\n\na | head | s", columns(3)),
            ("a | head | s | d | e", columns(1)),
            (" | head | s | d", columns(1)),
            ("= | head | s | d", columns(1)),
            ("a | Head | s | d", Err(AgentListError::Reason { line: 1, text: "Head".into() })),
            ("a | known-agent: | s | d", Err(AgentListError::Reason { line: 1, text: "known-agent:".into() })),
        ] {
            assert_eq!(AgentList::parse(text), want, "{text:?}");
        }
    }

    #[test]
    fn reasons_keep_their_text_in_serde() {
        for text in ["head", "no-agent", "fast-click", "link-scanner:trend-micro", "known-agent:curl"] {
            let reason: MachineReason = text.parse().unwrap();
            let json = serde_json::to_string(&Class::Machine(reason.clone())).unwrap();
            assert_eq!(json, format!("{{\"machine\":\"{text}\"}}"));
            assert_eq!(serde_json::from_str::<Class>(&json).unwrap(), Class::Machine(reason));
        }
        assert!(serde_json::from_str::<MachineReason>("\"Known-Agent:x\"").is_err());
    }
}
