//! What is known of machines by the agent they send and the address they come from: the list, its form, and the
//! look-up. `machines.txt` beside this file is the list that comes with the program, and tells the form.

use super::networks::Networks;
use super::reason::NotAReason;
use super::{Hit, HitKind, MachineReason};
use aho_corasick::AhoCorasick;
use ipnet::{IpNet, Ipv4Net};
use memchr::memmem::Finder;
use std::fmt;
use std::net::IpAddr;

/// The list that comes with the program, as text to start from.
pub const BUILTIN_MACHINES: &str = include_str!("machines.txt");

/// Known machines. Lines with an agent alone are tried first, in their order; then those with an address that holds
/// the hit's, the narrowest network first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineList {
    agents: Box<[(Pattern, Rule)]>,
    within: Within,
    networks: Networks<(Option<Pattern>, Rule)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `None`: both.
    only: Option<Only>,
    reason: MachineReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Open,
    Click,
}

/// Lower-case texts.
#[derive(Clone, Debug)]
enum Pattern {
    Whole(Box<str>),
    Start(Box<str>),
    Within(Box<Finder<'static>>),
}

/// Why a text is no list of machines; lines count from 1. The fault of whoever wrote the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineListError {
    /// Neither four nor five columns between `|`, or an empty pattern.
    Columns { line: usize },
    /// The second column is no [`MachineReason`].
    Reason { line: usize, text: String },
    /// What follows `address` is no network.
    Network { line: usize, text: String },
    /// The fifth column is neither `open` nor `click`.
    Only { line: usize, text: String },
}

impl MachineList {
    /// [`BUILTIN_MACHINES`], read.
    pub fn builtin() -> Self {
        Self::parse(BUILTIN_MACHINES).expect("the list that is compiled in is covered by a test")
    }

    /// Reads a list in the form that the head of `machines.txt` tells.
    pub fn parse(text: &str) -> Result<Self, MachineListError> {
        let (mut agents, mut networks) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (network, pattern, rule) = parse_line(index + 1, line)?;
            match (network, pattern) {
                (Some(network), pattern) => networks.push((network, (pattern, rule))),
                (None, Some(pattern)) => agents.push((pattern, rule)),
                (None, None) => return Err(MachineListError::Columns { line: index + 1 }),
            }
        }
        Ok(Self { within: Within::new(&agents), agents: agents.into(), networks: Networks::new(networks) })
    }

    /// Why `hit` is a machine's, if its agent or address says so.
    pub(super) fn reason(&self, hit: &Hit) -> Option<&MachineReason> {
        let agent = hit.agent.trim().to_ascii_lowercase();
        let by_agent = self.by_agent(&agent, &hit.kind);
        let by_address = || {
            let asks = |pattern: &Option<Pattern>| pattern.as_ref().is_none_or(|pattern| pattern.matches(&agent));
            self.networks.holding(hit.address).find(|(pattern, rule)| rule.holds(&hit.kind) && asks(pattern))
        };
        by_agent.or_else(|| by_address().map(|(_, rule)| rule)).map(|rule| &rule.reason)
    }
}

impl MachineList {
    /// The first line whose pattern is in the agent: all that may stand anywhere in it are looked for at once.
    fn by_agent(&self, agent: &str, kind: &HitKind) -> Option<&Rule> {
        let holds = |place: &usize| self.agents.get(*place).is_some_and(|(_, rule)| rule.holds(kind));
        let within = self.within.places(agent).filter(holds).min();
        let others = self.within.others.iter().copied().filter(holds);
        let other = others.take_while(|place| within.is_none_or(|within| *place < within));
        let other = other.into_iter().find(|place| self.agents[*place].0.matches(agent));
        other.or(within).and_then(|place| self.agents.get(place)).map(|(_, rule)| rule)
    }
}

/// All patterns that may stand anywhere, as one automaton. Made of the list, so it says nothing of its own.
#[derive(Clone, Debug)]
struct Within {
    automaton: Option<AhoCorasick>,
    /// Where each of them stands in the list.
    places: Box<[usize]>,
    /// Where the others stand.
    others: Box<[usize]>,
}

impl Within {
    fn new(agents: &[(Pattern, Rule)]) -> Self {
        let is_within = |place: &usize| matches!(agents[*place].0, Pattern::Within(_));
        let (places, others): (Vec<usize>, Vec<usize>) = (0..agents.len()).partition(is_within);
        // One that cannot be built, of a list of gigabytes, leaves the patterns to be tried one by one.
        match AhoCorasick::new(places.iter().map(|place| agents[*place].0.text())) {
            Ok(automaton) => Self { automaton: Some(automaton), places: places.into(), others: others.into() },
            Err(_) => Self { automaton: None, places: Box::default(), others: (0..agents.len()).collect() },
        }
    }

    fn places(&self, agent: &str) -> impl Iterator<Item = usize> {
        let found = self.automaton.iter().flat_map(move |automaton| automaton.find_overlapping_iter(agent));
        found.filter_map(|found| self.places.get(found.pattern().as_usize()).copied())
    }
}

impl PartialEq for Within {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Within {}

impl Rule {
    fn holds(&self, kind: &HitKind) -> bool {
        match self.only {
            None => true,
            Some(Only::Open) => matches!(kind, HitKind::Open),
            Some(Only::Click) => matches!(kind, HitKind::Click { .. }),
        }
    }
}

impl Pattern {
    /// `None` where nothing would be looked for: that would match everybody.
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let pattern = match (lower.strip_prefix('='), lower.strip_prefix('^')) {
            (Some(whole), _) => Self::Whole(whole.into()),
            (None, Some(start)) => Self::Start(start.into()),
            (None, None) => Self::Within(Box::new(Finder::new(&lower).into_owned())),
        };
        (!pattern.text().is_empty()).then_some(pattern)
    }

    /// `agent` is in lower case.
    fn matches(&self, agent: &str) -> bool {
        match self {
            Self::Whole(text) => agent == &**text,
            Self::Start(text) => agent.starts_with(&**text),
            Self::Within(finder) => finder.find(agent.as_bytes()).is_some(),
        }
    }

    fn text(&self) -> &[u8] {
        match self {
            Self::Whole(text) | Self::Start(text) => text.as_bytes(),
            Self::Within(finder) => finder.needle(),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.text() == other.text()
    }
}

impl Eq for Pattern {}

type Line = (Option<IpNet>, Option<Pattern>, Rule);

fn parse_line(line: usize, text: &str) -> Result<Line, MachineListError> {
    let columns: Vec<_> = text.split('|').map(str::trim).collect();
    let (who, reason, only) = match columns[..] {
        [who, reason, _source, _since] => (who, reason, None),
        [who, reason, _source, _since, only] => (who, reason, Some(only)),
        _ => return Err(MachineListError::Columns { line }),
    };
    let only = match only {
        None => None,
        Some("open") => Some(Only::Open),
        Some("click") => Some(Only::Click),
        Some(other) => return Err(MachineListError::Only { line, text: other.to_owned() }),
    };
    let reason = reason.parse().map_err(|NotAReason(text)| MachineListError::Reason { line, text })?;
    let (network, pattern) = match who.strip_prefix("address ") {
        None => (None, who),
        Some(rest) => {
            let (network, pattern) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
            let network =
                parse_network(network).ok_or_else(|| MachineListError::Network { line, text: network.to_owned() })?;
            (Some(network), pattern.trim_start())
        }
    };
    // Behind an address the agent may be left out; alone, an empty one would be everybody's.
    let pattern = match (network, pattern) {
        (Some(_), "") => None,
        _ => Some(Pattern::parse(pattern).ok_or(MachineListError::Columns { line })?),
    };
    Ok((network, pattern, Rule { only, reason }))
}

/// A network without bits behind its prefix, or one address. An IPv4 network inside an IPv6 one becomes what it is.
fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let network = match mapped {
        Some((address, prefix)) => IpNet::V4(Ipv4Net::new(address, prefix).ok()?),
        None => network,
    };
    (network == network.trunc()).then_some(network)
}

impl fmt::Display for MachineListError {
    /// `5: "10.0.0.1/8" is not a network`: the line first, so that the file's name can stand before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Columns { line } => {
                write!(f, "{line}: expected PATTERN | REASON | SOURCE | SINCE, or | ONLY behind it")
            }
            Self::Reason { line, text } => write!(f, "{line}: {}", NotAReason(text.clone())),
            Self::Network { line, text } => write!(f, "{line}: {text:?} is not a network"),
            Self::Only { line, text } => write!(f, "{line}: {text:?} is neither \"open\" nor \"click\""),
        }
    }
}

impl std::error::Error for MachineListError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::QueueId;

    const HUMAN: &str = include_str!("../../fixtures/agents/human.txt");
    const MACHINE: &str = include_str!("../../fixtures/agents/machine.tsv");

    fn hit(kind: &str, agent: &str, address: &str) -> Hit {
        let kind = match kind {
            "open" => HitKind::Open,
            _ => HitKind::Click { link: 0, url: "https://example.com/".into() },
        };
        Hit {
            id: QueueId::from_bytes([1; 16]),
            recipient: 0,
            kind,
            at: 0,
            count: 1,
            address: address.parse().unwrap(),
            agent: agent.into(),
            head: false,
            repeat: false,
        }
    }

    fn reason(list: &MachineList, kind: &str, agent: &str, address: &str) -> Option<String> {
        list.reason(&hit(kind, agent, address)).map(ToString::to_string)
    }

    fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    #[test]
    fn no_person_is_on_the_list() {
        let list = MachineList::builtin();
        assert!(lines(HUMAN).count() >= 300);
        let taken = lines(HUMAN).flat_map(|agent| ["open", "click"].map(|kind| (agent, kind)));
        let taken: Vec<_> =
            taken.filter_map(|(agent, kind)| Some((agent, kind, reason(&list, kind, agent, "192.0.2.1")?))).collect();
        assert!(taken.is_empty(), "{taken:#?}");
    }

    /// Kinds (`open`, `click`, `both`), reason and agent, a tab between them.
    fn machines() -> Vec<(&'static str, &'static str, &'static str)> {
        let columns =
            |line: &'static str| line.split_once('\t').and_then(|(kinds, rest)| Some((kinds, rest.split_once('\t')?)));
        lines(MACHINE)
            .map(|line| columns(line).unwrap())
            .map(|(kinds, (reason, agent))| (kinds, reason, agent))
            .collect()
    }

    #[test]
    fn every_machine_is_on_the_list() {
        let (list, machines) = (MachineList::builtin(), machines());
        for (_, _, agent) in &machines {
            for kind in ["open", "click"] {
                let said = |(kinds, _, same): &&(&str, &str, &str)| same == agent && ["both", kind].contains(kinds);
                let want = machines.iter().find(said).map(|(_, reason, _)| *reason);
                assert_eq!(reason(&list, kind, agent, "192.0.2.1").as_deref(), want, "{kind} by {agent}");
            }
        }
    }

    /// Every line of the list is met by one of the machines, so that none is there for nothing.
    #[test]
    fn every_pattern_has_its_machine() {
        let list = MachineList::builtin();
        let agents: Vec<_> = machines().iter().map(|(_, _, agent)| agent.to_ascii_lowercase()).collect();
        let met = |pattern: &Pattern| agents.iter().any(|agent| pattern.matches(agent));
        let unmet: Vec<_> = list.agents.iter().filter(|(pattern, _)| !met(pattern)).collect();
        assert!(unmet.is_empty(), "{unmet:#?}");
    }

    #[test]
    fn addresses_may_ask_for_an_agent_and_a_kind() {
        let text = "address 192.0.2.0/24 =Mozilla/5.0 | apple-mail-privacy | s | d | open\n\
                    address 192.0.2.128/25 | link-scanner:a | s | d\n\
                    address 192.0.2.128/25 ^curl/ | link-scanner:b | s | d\n\
                    address 2001:db8::1 | link-scanner:c | s | d | click\n\
                    wget | known-agent:wget | s | d\n";
        let list = MachineList::parse(text).unwrap();
        for (kind, agent, address, want) in [
            ("open", "mozilla/5.0", "192.0.2.1", Some("apple-mail-privacy")),
            ("click", "Mozilla/5.0", "192.0.2.1", None),
            ("open", "Mozilla/5.0 (X11)", "192.0.2.1", None),
            ("open", "Mozilla/5.0", "192.0.3.1", None),
            ("open", "Mozilla/5.0", "192.0.2.129", Some("link-scanner:a")),
            ("click", "curl/8", "192.0.2.129", Some("link-scanner:a")),
            ("click", "Wget/1", "192.0.2.129", Some("known-agent:wget")),
            ("click", "", "::ffff:192.0.2.129", Some("link-scanner:a")),
            ("click", "x", "2001:db8::1", Some("link-scanner:c")),
            ("open", "x", "2001:db8::1", None),
            ("click", "x", "2001:db8::2", None),
        ] {
            assert_eq!(reason(&list, kind, agent, address).as_deref(), want, "{kind} {agent} {address}");
        }
    }

    #[test]
    fn the_built_in_addresses() {
        let list = MachineList::builtin();
        let chrome = lines(HUMAN).next().unwrap();
        for (kind, address, want) in [
            ("open", "66.249.84.1", Some("google-image-proxy")),
            ("click", "66.249.84.1", None),
            ("open", "66.249.96.0", None),
            ("click", "209.222.82.5", Some("link-scanner:barracuda")),
            ("open", "64.235.159.255", Some("link-scanner:barracuda")),
            ("click", "64.235.160.0", None),
        ] {
            assert_eq!(reason(&list, kind, chrome, address).as_deref(), want, "{kind} {address}");
        }
    }

    #[test]
    fn faults_in_a_list_name_the_line() {
        let columns = |line| MachineListError::Columns { line };
        let network = |text: &str| MachineListError::Network { line: 1, text: text.into() };
        let reason = |text: &str| MachineListError::Reason { line: 1, text: text.into() };
        for (text, want) in [
            ("# c\n\na | head | s", columns(3)),
            ("a | head | s | d | open | f", columns(1)),
            (" | head | s | d", columns(1)),
            ("= | head | s | d", columns(1)),
            ("^ | head | s | d", columns(1)),
            ("a | Head | s | d", reason("Head")),
            ("a | known-agent: | s | d", reason("known-agent:")),
            ("a | head | s | d | both", MachineListError::Only { line: 1, text: "both".into() }),
            ("address 10.0.0.1/8 | head | s | d", network("10.0.0.1/8")),
            ("address 10.0.0.0/33 curl | head | s | d", network("10.0.0.0/33")),
            ("address example.com | head | s | d", network("example.com")),
            ("address 10.0.0.0/8 = | head | s | d", columns(1)),
        ] {
            assert_eq!(MachineList::parse(text).err(), Some(want), "{text:?}");
        }
        let shown = MachineList::parse("address ::/129 | head | s | d").unwrap_err().to_string();
        assert_eq!(shown, "1: \"::/129\" is not a network");
    }
}
