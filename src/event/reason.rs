//! The words for why a hit is taken for a machine's, and their text.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

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
    /// A click before delivery or less than [`super::FAST_CLICK_MS`] after it.
    FastClick,
    /// One of many clicks on different links of a copy at once, or a hit beside them; see [`super::Bursts`].
    Burst,
    /// One of many hits on copies of different recipients at once; see [`super::Bursts`].
    ManyRecipients,
    /// One of too many hits of one address on one link or pixel; see [`super::Floods`].
    Flood,
}

/// The name of an agent: lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentName(Box<str>);

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
            Self::Burst => f.write_str("burst"),
            Self::ManyRecipients => f.write_str("many-recipients"),
            Self::Flood => f.write_str("flood"),
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
            "burst" => Self::Burst,
            "many-recipients" => Self::ManyRecipients,
            "flood" => Self::Flood,
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

impl fmt::Display for NotAReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a reason to take a hit for a machine's", self.0)
    }
}

impl std::error::Error for NotAReason {}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::*;

    #[test]
    fn reasons_keep_their_text_in_serde() {
        for text in [
            "head",
            "no-agent",
            "fast-click",
            "burst",
            "many-recipients",
            "flood",
            "link-scanner:trend-micro",
            "known-agent:curl",
        ] {
            let reason: MachineReason = text.parse().unwrap();
            let json = serde_json::to_string(&Class::Machine(reason.clone())).unwrap();
            assert_eq!(json, format!("{{\"machine\":\"{text}\"}}"));
            assert_eq!(serde_json::from_str::<Class>(&json).unwrap(), Class::Machine(reason));
        }
        assert!(serde_json::from_str::<MachineReason>("\"Known-Agent:x\"").is_err());
    }
}
