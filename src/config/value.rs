//! From one TOML value to one typed value. Each parser says what it expected and what it found instead.

use crate::mail::{Address, DomainName};
use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml_edit::Value;
use url::Url;

/// One KiB, and one MiB.
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

const SECOND: u64 = 1_000;
const DAY: u64 = 24 * 60 * 60 * SECOND;
/// A hundred years, in milliseconds: a clock to which this is added does not overflow.
const LONGEST: u64 = 36_500 * DAY;

/// A text that logs and `{:?}` do not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself. Not for logs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// `found` of every message: short, and on one line.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(text) if text.value().chars().count() > 80 => "a long string".to_owned(),
        Value::String(text) => format!("{:?}", text.value()),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => format!("the fraction {}", number.value()),
        Value::Boolean(flag) => flag.value().to_string(),
        Value::Datetime(_) => "a date or time".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::InlineTable(_) => "a section".to_owned(),
    }
}

fn expected<T>(what: impl fmt::Display, value: &Value) -> Result<T, String> {
    Err(format!("expected {what}, found {}", describe(value)))
}

/// A string without control characters: none of the keys has a use for them, and some end up in a protocol.
pub(super) fn string(value: &Value) -> Result<String, String> {
    match value.as_str() {
        Some(text) if text.chars().any(char::is_control) => Err(format!("{text:?} holds a control character")),
        Some(text) => Ok(text.to_owned()),
        None => expected("a string", value),
    }
}

pub(super) fn flag(value: &Value) -> Result<bool, String> {
    value.as_bool().map_or_else(|| expected("true or false", value), Ok)
}

/// A whole number within `range`.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&Value) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + fmt::Display,
{
    move |value| {
        let number = value.as_integer().and_then(|number| T::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(number),
            None => expected(format_args!("a whole number from {} to {}", range.start(), range.end()), value),
        }
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
        match found {
            Some((_, meaning)) => Ok(*meaning),
            None => {
                let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
                match quoted.as_slice() {
                    [one, other] => expected(format_args!("{one} or {other}"), value),
                    _ => expected(format_args!("one of {}", quoted.join(", ")), value),
                }
            }
        }
    }
}

/// `"250ms"`, `"30s"`, `"1m"`, `"4h"`, `"5d"`, or `"0"`.
pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let Some((number, unit)) = value.as_str().and_then(split_unit) else {
        return expected("a duration such as \"30s\", \"5m\", \"4h\" or \"90d\"", value);
    };
    let unit = match unit {
        "ms" => 1,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 60 * 60 * SECOND,
        "d" => DAY,
        "" if number == 0 => 1,
        _ => return expected("a duration such as \"30s\", \"5m\", \"4h\" or \"90d\"", value),
    };
    match number.checked_mul(unit) {
        Some(ms) if ms <= LONGEST => Ok(Duration::from_millis(ms)),
        _ => expected("at most \"36500d\"", value),
    }
}

/// A duration that is not 0.
pub(super) fn some_time(value: &Value) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => expected("more than 0", value),
        duration => Ok(duration),
    }
}

/// Bytes: `"50MiB"`, `"10MB"`, `"512B"`, or a plain number.
pub(super) fn size(value: &Value) -> Result<u64, String> {
    let wanted = "a size such as \"50MiB\", \"10MB\" or a number of bytes";
    if let Some(number) = value.as_integer() {
        return u64::try_from(number).or_else(|_| expected(wanted, value));
    }
    let Some((number, unit)) = value.as_str().and_then(split_unit) else { return expected(wanted, value) };
    let unit: u64 = match unit {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return expected(wanted, value),
    };
    match number.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok()) {
        Some(bytes) => Ok(bytes),
        None => expected("a smaller size", value),
    }
}

/// A size within `range`, whose ends are said in the unit of the operator.
pub(super) fn size_within(range: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, String> {
    move |value| match size(value)? {
        bytes if range.contains(&bytes) => Ok(bytes),
        _ => expected(format_args!("a size from {} to {}", shown(*range.start()), shown(*range.end())), value),
    }
}

/// Bytes a second: a size, with or without `/s`.
pub(super) fn rate(value: &Value) -> Result<u64, String> {
    let bytes = match value.as_str().and_then(|text| text.strip_suffix("/s")) {
        Some(text) => size(&Value::from(text)),
        None => size(value),
    };
    bytes.or_else(|_| expected("a rate such as \"500B/s\" or \"2KiB/s\"", value))
}

/// Digits and what follows them.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Bytes in the largest binary unit that divides them.
pub(super) fn shown(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

/// An IP address with a port: `127.0.0.1:2525`, `[::1]:2525`.
pub(super) fn socket_address(value: &Value) -> Result<SocketAddr, String> {
    let text = string(value)?;
    text.parse().or_else(|_| {
        let host = text.trim_matches(['[', ']']);
        if host.parse::<IpAddr>().is_ok() {
            return Err(format!("{text:?} has no port"));
        }
        expected("an IP address and a port, as in \"127.0.0.1:2525\"", value)
    })
}

/// Host and port of a server to connect to: `mail.example.com:587`, `192.0.2.1:25`, `[2001:db8::1]:25`. Names need no
/// dot (`localhost`), and may hold underscores, as those of containers do. The brackets are taken off.
pub(super) fn host_and_port(value: &Value) -> Result<(String, u16), String> {
    let text = string(value)?;
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(format!("{text:?} has port 0")),
            port => Ok((address.ip().to_string(), port)),
        };
    }
    let bare = text.trim_matches(['[', ']']);
    let Some((host, port)) = text.rsplit_once(':').filter(|_| bare.parse::<IpAddr>().is_err()) else {
        return Err(format!("{text:?} has no port"));
    };
    let label = |label: &str| {
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !label.is_empty() && label.len() <= 63 && letters && !label.starts_with('-') && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(label) {
        return Err(format!("{host:?} is neither a host name nor an IP address"));
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok((host.to_ascii_lowercase(), port)),
        _ => Err(format!("{port:?} is not a port")),
    }
}

/// A network, `10.0.0.0/8`, or one address. IPv4 inside IPv6 (`::ffff:0:0/96`, RFC 4291 §2.5.5.2) becomes the IPv4
/// network that it is, so that every rule sees it.
pub(super) fn network(value: &Value) -> Result<IpNet, String> {
    let text = string(value)?;
    let Ok(network) = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) else {
        return expected("a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"", value);
    };
    if network != network.trunc() {
        return Err(format!("{text:?} has bits set behind its prefix, did you mean \"{}\"?", network.trunc()));
    }
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let mapped = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    Ok(mapped.map_or(network, IpNet::V4))
}

pub(super) fn domain(value: &Value) -> Result<DomainName, String> {
    let text = string(value)?;
    DomainName::parse(&text).map_err(|e| format!("{text:?} {e}"))
}

/// The end of a domain name: as [`domain`], but one label will do, and a dot may stand in front.
pub(super) fn domain_suffix(value: &Value) -> Result<String, String> {
    let text = string(value)?;
    let bare = text.strip_prefix('.').unwrap_or(&text);
    // Under a name that is known to be good, any suffix can be judged by the same rules.
    match DomainName::parse(&format!("x.{bare}")) {
        Ok(name) => Ok(name.as_str()[2..].to_owned()),
        Err(_) => Err(format!("{text:?} is not the end of a domain name")),
    }
}

pub(super) fn address(value: &Value) -> Result<Address, String> {
    let text = string(value)?;
    let address = Address::parse(&text).map_err(|e| format!("{text:?} is not a mail address: {e}"))?;
    if address.domain().is_none() {
        Err(format!("{text:?} is not a mail address: it has no domain"))
    } else {
        Ok(address)
    }
}

/// An address of the web with one of `schemes`, without user, password and fragment.
pub(super) fn web_address(schemes: &'static [&'static str]) -> impl Fn(&Value) -> Result<Url, String> {
    move |value| {
        let text = string(value)?;
        let plain = |url: &Url| {
            let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
            schemes.contains(&url.scheme()) && url.has_host() && bare
        };
        match Url::parse(&text) {
            Ok(url) if plain(&url) => Ok(url),
            _ => expected(format_args!("an address that begins with {}://", schemes.join(":// or ")), value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::from(text)
    }

    #[test]
    fn durations() {
        let table = [("0", 0), ("0s", 0), ("250ms", 250), ("1s", 1_000), ("1m", 60_000), ("4h", 14_400_000)];
        for (written, ms) in table.into_iter().chain([("5d", 432_000_000), ("36500d", LONGEST)]) {
            assert_eq!(duration(&text(written)), Ok(Duration::from_millis(ms)), "{written}");
        }
        for bad in ["", "5", "m", "-1m", "1.5h", "1 m", "1M", "1w", "36501d", "99999999999999999999d", "1m ", "１m"] {
            assert!(duration(&text(bad)).is_err(), "{bad:?}");
        }
        assert!(duration(&Value::from(5)).is_err());
        assert_eq!(some_time(&text("0")).unwrap_err(), "expected more than 0, found \"0\"");
    }

    #[test]
    fn sizes() {
        let table = [("0", 0), ("17", 17), ("1B", 1), ("50MiB", 50 * MIB), ("10MB", 10_000_000), ("2TiB", 2 << 40)];
        for (written, bytes) in table {
            assert_eq!(size(&text(written)), Ok(bytes), "{written}");
        }
        assert_eq!(size(&Value::from(1_024)), Ok(1_024));
        for bad in ["", "MiB", "50mib", "50 MiB", "1.5MiB", "-1", "9999999TiB", "99999999999999999999"] {
            assert!(size(&text(bad)).is_err(), "{bad:?}");
        }
        assert!(size(&Value::from(-1)).is_err());
        assert_eq!(rate(&text("2KiB/s")), Ok(2 * KIB));
        assert_eq!(rate(&text("500B")), Ok(500));
        assert_eq!(
            rate(&text("fast/s")).unwrap_err(),
            "expected a rate such as \"500B/s\" or \"2KiB/s\", found \"fast/s\""
        );
        for (bytes, text) in [(0, "0 bytes"), (1_000, "1000 bytes"), (1_536, "1536 bytes"), (72 * MIB, "72MiB")] {
            assert_eq!(shown(bytes), text);
        }
    }

    #[test]
    fn servers() {
        type Row = (&'static str, Result<(&'static str, u16), &'static str>);
        let table: &[Row] = &[
            ("mail.example.com:587", Ok(("mail.example.com", 587))),
            ("Mail_Sink:25", Ok(("mail_sink", 25))),
            ("192.0.2.1:25", Ok(("192.0.2.1", 25))),
            ("[2001:db8::1]:25", Ok(("2001:db8::1", 25))),
            ("mail.example", Err("\"mail.example\" has no port")),
            ("2001:db8::1", Err("\"2001:db8::1\" has no port")),
            ("[::1]", Err("\"[::1]\" has no port")),
            ("192.0.2.1:0", Err("\"192.0.2.1:0\" has port 0")),
            ("mail.example.com:0", Err("\"0\" is not a port")),
            ("mail.example.com:smtp", Err("\"smtp\" is not a port")),
            ("mail.example.com:65536", Err("\"65536\" is not a port")),
            (":25", Err("\"\" is neither a host name nor an IP address")),
            ("a b:25", Err("\"a b\" is neither a host name nor an IP address")),
            ("a..b:25", Err("\"a..b\" is neither a host name nor an IP address")),
        ];
        for (written, want) in table {
            let want = want.map(|(host, port)| (host.to_owned(), port)).map_err(str::to_owned);
            assert_eq!(host_and_port(&text(written)), want, "{written:?}");
        }
    }

    #[test]
    fn networks() {
        let table = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::1", "::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::/0", "::/0"),
        ];
        for (written, want) in table {
            assert_eq!(network(&text(written)).unwrap().to_string(), want);
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "example.com", "::1/129", "10.0.0.0/"] {
            assert!(network(&text(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(domain_suffix(&text(".RU")), Ok("ru".to_owned()));
        assert_eq!(domain_suffix(&text("co.example")), Ok("co.example".to_owned()));
        for bad in ["", ".", "..ru", "a b", "-x"] {
            assert!(domain_suffix(&text(bad)).is_err(), "{bad:?}");
        }
        assert!(address(&text("postmaster")).is_err());
        assert!(address(&text("ops@example.com")).is_ok());
        for bad in ["", "example.com", "ftp://example.com/", "https://u:p@example.com/", "https://example.com/#a"] {
            assert!(web_address(&["https", "http"])(&text(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_secret_stays_one() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret.reveal(), "hunter2");
    }

    proptest! {
        #[test]
        fn whole_units_come_back(number in 0..1_000_u64) {
            prop_assert_eq!(size(&text(&format!("{number}KiB"))), Ok(number * KIB));
            prop_assert_eq!(duration(&text(&format!("{number}d"))), Ok(Duration::from_millis(number * DAY)));
            if number > 0 {
                prop_assert_eq!(size(&text(&shown(number * KIB))), Ok(number * KIB));
            }
        }

        #[test]
        fn no_text_is_too_odd(any in "\\PC{0,40}|[0-9.:\\[\\]/a-fA-FxMKGiBdhms-]{0,40}") {
            let value = text(&any);
            let _ = (duration(&value), size(&value), rate(&value), socket_address(&value), network(&value));
            let _ = (domain(&value), domain_suffix(&value), address(&value), web_address(&["https"])(&value));
            if let Ok((host, port)) = host_and_port(&value) {
                prop_assert!(!host.is_empty() && port > 0);
            }
        }
    }
}
