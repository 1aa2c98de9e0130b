//! The configuration: defaults, then the file, then the secrets it points to, parsed into one [`Config`].
//!
//! Owns every key with its default and meaning (told to the operator in `config/trackpost.toml`), the rules between
//! keys, and above all the one that a listener is never an open relay. A bad file gives ALL its faults at once, each
//! with its line. Files that are named are opened here, so that a missing one is found before anything is bound; what
//! is in a certificate is read by `tls` alone. Nothing here is global, and nothing is changed after loading:
//! a reload makes a new `Config`.
//!
//! Reading goes top down: `section` walks the tables of the file, `value` parses single values, `reach` knows who can
//! get at a listener, and one file for each group of sections says what they hold.

mod fault;
mod outgoing;
mod reach;
mod records;
mod section;
mod smtp;
mod value;
mod web;

pub use fault::Fault;
pub use outgoing::{
    Credentials, MAX_LINKS, OnSigned, Queue, Rewrite, SmarthostConfig, SmarthostTimeouts, SmarthostTls, Spool,
};
pub use records::{Events, Log, LogFormat, WebhookPorts, Webhooks};
pub use smtp::{
    BareNewline, CertificateFiles, LARGE_POOL, Listener, ListenerAuth, ListenerTls, MAX_RECIPIENTS, Smtp, SmtpTimeouts,
    TiedMailFrom,
};
pub use value::Secret;
pub use web::{Acme, Api, Dns, LinkScheme, Tracking, TrackingTls};

use crate::mail::{DomainError, DomainName};
use reach::Bound;
use section::{Opens, Section};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use toml_edit::Value;

/// All settings. Every value is legal and every path absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file as it was named.
    pub file: PathBuf,
    /// What we call ourselves in greetings, EHLO and `Received`.
    pub hostname: String,
    pub data_dir: PathBuf,
    pub unknown_domains: UnknownDomains,
    pub smtp: Smtp,
    /// At least one, in the order in which they are tried.
    pub smarthosts: Vec<SmarthostConfig>,
    pub queue: Queue,
    pub spool: Spool,
    pub rewrite: Rewrite,
    pub tracking: Tracking,
    pub api: Api,
    pub dns: Dns,
    pub acme: Acme,
    pub events: Events,
    pub webhooks: Webhooks,
    pub log: Log,
    /// What is doubtful in the file, but no reason to refuse it.
    pub warnings: Vec<Fault>,
}

/// What becomes of mail whose From domain is not configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownDomains {
    /// Relayed untouched.
    Relay,
    Reject,
}

/// Where the file is when neither the command line nor the environment names one.
const DEFAULT_FILE: &str = "config/trackpost.toml";
/// Our name on a machine that has none with a dot.
const NO_NAME: &str = "localhost.localdomain";

impl Config {
    /// Reads `path` and all that it points to. Gives every fault of the file, in the order of its lines.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        Self::load_with(path, Opens::All)
    }

    /// Reads `path` alone: what commands need beside a server, whose secrets they may not be allowed to read. There are
    /// no credentials in it, and files that it names may be missing.
    pub fn load_alone(path: &Path) -> Result<Self, Vec<Fault>> {
        Self::load_with(path, Opens::None)
    }

    /// As [`Self::load`], outside of the service: credentials that systemd hands to it alone are a warning.
    pub fn check(path: &Path) -> Result<Self, Vec<Fault>> {
        Self::load_with(path, Opens::AllButCredentials)
    }

    /// As [`Self::load_alone`], of a file that is yet to be written.
    pub fn parse_alone(path: &Path, bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        Self::parse_bytes(path, bytes, Opens::None)
    }

    fn load_with(path: &Path, opens: Opens) -> Result<Self, Vec<Fault>> {
        let bytes = fs::read(path).map_err(|e| {
            vec![Fault {
                file: path.to_owned(),
                line: None,
                key: String::new(),
                message: format!("cannot be read: {e}"),
            }]
        })?;
        Self::parse_bytes(path, &bytes, opens)
    }

    fn parse_bytes(path: &Path, bytes: &[u8], opens: Opens) -> Result<Self, Vec<Fault>> {
        let fault = |line, message| vec![Fault { file: path.to_owned(), line, key: String::new(), message }];
        let text = str::from_utf8(bytes).map_err(|e| {
            let before = &bytes[..e.valid_up_to()];
            fault(Some(1 + memchr::memchr_iter(b'\n', before).count()), "is not UTF-8 text".to_owned())
        })?;
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self::parse(path, text, machine.trim(), opens)
    }

    /// The file to load: `arg` (of `--config`), else `TRACKPOST_CONFIG`, else `config/trackpost.toml`.
    pub fn find(arg: Option<&Path>) -> PathBuf {
        first_named(arg, std::env::var_os("TRACKPOST_CONFIG"))
    }

    /// Parses `text`, the content of `file`, on a machine of this name.
    fn parse(file: &Path, text: &str, machine: &str, opens: Opens) -> Result<Self, Vec<Fault>> {
        let (mut config, warnings) = section::read_file(file, text, opens, |top| read(top, file, machine))?;
        config.warnings = warnings;
        Ok(config)
    }
}

fn first_named(arg: Option<&Path>, variable: Option<OsString>) -> PathBuf {
    let variable = variable.filter(|name| !name.is_empty()).map(PathBuf::from);
    arg.map(Path::to_owned).or(variable).unwrap_or_else(|| DEFAULT_FILE.into())
}

fn read(top: &mut Section<'_>, file: &Path, machine: &str) -> Config {
    let unknown = [("relay", UnknownDomains::Relay), ("reject", UnknownDomains::Reject)];
    let hostname = read_hostname(top, machine);
    let data_dir = read_data_dir(top);
    let unknown_domains = top.value("unknown_domains", value::one_of(&unknown), UnknownDomains::Relay);
    // Listeners first: what comes later is held against them.
    let mut bound = Bound::default();
    let smtp = top.section("smtp", |s| smtp::read(s, &mut bound));
    Config {
        file: file.to_owned(),
        smarthosts: top.section("smarthost", |s| outgoing::read_smarthosts(s, &bound)),
        queue: top.section("queue", outgoing::read_queue),
        spool: top.section("spool", outgoing::read_spool),
        rewrite: top.section("rewrite", outgoing::read_rewrite),
        tracking: top.section("tracking", |s| web::read_tracking(s, &mut bound, &hostname)),
        api: top.section("api", |s| web::read_api(s, &mut bound)),
        dns: top.section("dns", web::read_dns),
        acme: top.section("acme", web::read_acme),
        events: top.section("events", records::read_events),
        webhooks: top.section("webhooks", records::read_webhooks),
        log: top.section("log", records::read_log),
        hostname,
        data_dir,
        unknown_domains,
        smtp,
        warnings: Vec::new(),
    }
}

/// `hostname`, else the machine's name if it is a full one. A greeting must name something (RFC 5321 §4.1.1.1), and
/// many servers turn away a name without a dot.
fn read_hostname(top: &mut Section<'_>, machine: &str) -> String {
    let parse = |value: &Value| {
        let text = value::string(value)?;
        match DomainName::parse(&text) {
            Ok(name) => Ok(name.as_str().to_owned()),
            // One label, judged by the rules of a longer name.
            Err(DomainError::NoDot) if DomainName::parse(&format!("{text}.invalid")).is_ok() => {
                Ok(text.to_ascii_lowercase())
            }
            Err(e) => Err(format!("{text:?} {e}")),
        }
    };
    match top.option("hostname", parse) {
        Some(name) => {
            let message = format!("{name:?} has no dot; many servers refuse mail from such a name");
            top.warn(!name.contains('.'), &["hostname"], message);
            name
        }
        None => DomainName::parse(machine).map_or_else(
            |_| {
                let message = format!("this machine's name, {machine:?}, is not a full one: using {NO_NAME:?}");
                top.warn(true, &["hostname"], message);
                NO_NAME.to_owned()
            },
            |name| name.as_str().to_owned(),
        ),
    }
}

fn read_data_dir(top: &mut Section<'_>) -> PathBuf {
    let folder = top.path("data_dir").unwrap_or_else(|| top.beside("data"));
    top.refuse(
        folder.exists() && !folder.is_dir(),
        &["data_dir"],
        format_args!("{} is not a folder", top.written("data_dir")),
    );
    folder
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/trackpost.toml");
    const FULL: &str = include_str!("../../config/trackpost.toml");

    fn parse(text: &str) -> Result<Config, Vec<Fault>> {
        Config::parse(Path::new(FILE), text, "relay.example.net", Opens::All)
    }

    #[test]
    fn the_commented_file_says_the_defaults() {
        let (full, empty) = (parse(FULL).unwrap(), parse("").unwrap());
        assert_eq!(full, empty);
        assert_eq!(full.warnings, []);
        assert_eq!(full.hostname, "relay.example.net");
        assert_eq!(full.tracking.cname_target.as_str(), "track.relay.example.net");
        assert_eq!(full.data_dir, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/data")));
    }

    #[test]
    fn names_of_this_machine() {
        for (machine, hostname, warnings) in [
            ("relay.example.net", "relay.example.net", 0),
            ("box", NO_NAME, 1),
            ("", NO_NAME, 1),
            ("a b.c", NO_NAME, 1),
        ] {
            let config = Config::parse(Path::new(FILE), "", machine, Opens::All).unwrap();
            assert_eq!((&*config.hostname, config.warnings.len()), (hostname, warnings), "{machine:?}");
        }
    }

    #[test]
    fn warnings_name_their_key() {
        let table = [
            ("hostname = \"Box\"", "hostname: \"box\" has no dot; many servers refuse mail from such a name"),
            ("[tracking]\nhttp = []", "tracking.http: links in sent mail lead nowhere without a listener"),
            (
                "[tracking]\ntrusted_proxies = [\"0.0.0.0/0\"]",
                "tracking.trusted_proxies: 0.0.0.0/0 holds strangers, who can then forge the address that is recorded \
                 for them",
            ),
            ("[smtp]\nmax_message_size = 1000", "smtp.max_message_size: RFC 5321 asks for at least 64KiB"),
        ];
        for (text, want) in table {
            let warnings = parse(text).unwrap().warnings;
            let shown: Vec<String> = warnings.iter().map(|w| format!("{}: {}", w.key, w.message)).collect();
            assert_eq!(shown, [want]);
            assert_eq!(warnings[0].line, Some(text.lines().count()));
        }
    }

    #[test]
    fn listeners_that_are_no_open_relay() {
        for text in [
            "address = \"0.0.0.0:25\"\ntrusted_networks = [\"10.0.0.0/8\"]",
            "address = \"0.0.0.0:25\"\ntrusted_networks = [\"127.0.0.0/8\"]",
            "address = \"127.0.0.1:25\"\ntrusted_networks = []",
            "address = \"127.0.0.1:25\"\nauth = \"required\"",
            "address = \"127.0.0.1:25\"\nproxy_protocol = [\"127.0.0.1\"]\ntrusted_networks = [\"10.0.0.0/8\"]",
        ] {
            assert!(parse(&format!("[[smtp.listener]]\n{text}")).is_ok(), "{text}");
        }
    }

    #[test]
    fn sections_in_other_forms() {
        let table = "[[smtp.listener]]\naddress = \"127.0.0.1:25\"\n[smtp]\nmax_recipients = 5";
        let inline = "smtp = { listener = [{ address = \"127.0.0.1:25\" }], max_recipients = 5 }";
        let dotted = "smtp.listener = [{ address = \"127.0.0.1:25\" }]\nsmtp.max_recipients = 5";
        assert_eq!(parse(table), parse(inline));
        assert_eq!(parse(table), parse(dotted));
        assert_eq!(parse(table), parse(&format!("\u{feff}{}", table.replace('\n', "\r\n"))));
        assert_eq!(parse("[smtp.timeouts]\ncommand = \"1m\"").unwrap().smtp.timeouts.command.as_secs(), 60);
    }

    #[test]
    fn fallbacks_keep_their_order() {
        let text = "[smarthost]\naddress = \"one.example.com:25\"\n[[smarthost.fallback]]\naddress = \
                    \"two.example.com:587\"\ntls = \"required\"\n[[smarthost.fallback]]\naddress = \"[2001:db8::3]:25\"";
        let smarthosts = parse(text).unwrap().smarthosts;
        let hosts: Vec<_> = smarthosts.iter().map(|s| (&*s.host, s.port, s.tls)).collect();
        let opportunistic = SmarthostTls::Opportunistic;
        let want = [("two.example.com", 587, SmarthostTls::Required), ("2001:db8::3", 25, opportunistic)];
        assert_eq!(hosts[0], ("one.example.com", 25, opportunistic));
        assert_eq!(hosts[1..], want);
    }

    #[test]
    fn ports_of_webhooks() {
        let these = |ports: &[u16]| WebhookPorts::These(ports.to_vec());
        for (text, want) in [
            ("", these(&[443, 8443])),
            ("[webhooks]\nports = [443]", these(&[443])),
            ("[webhooks]\nallow_private = true", WebhookPorts::Any),
            ("[webhooks]\nallow_private = true\nports = [80, 443]", these(&[80, 443])),
        ] {
            assert_eq!(parse(text).unwrap().webhooks.ports, want, "{text}");
        }
        assert!(WebhookPorts::Any.hold(25) && these(&[443]).hold(443) && !these(&[443]).hold(25));
    }

    #[test]
    fn where_the_file_is() {
        let table = [
            (Some("a.toml"), Some("b.toml"), "a.toml"),
            (None, Some("b.toml"), "b.toml"),
            (None, Some(""), DEFAULT_FILE),
            (None, None, DEFAULT_FILE),
        ];
        for (arg, variable, want) in table {
            assert_eq!(first_named(arg.map(Path::new), variable.map(OsString::from)), Path::new(want));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_config_or_has_faults(text in "\\PC{0,60}(\n\\PC{0,20}){0,3}") {
            if let Err(faults) = parse(&text) {
                prop_assert!(!faults.is_empty());
            }
        }

        /// A value that is cut short or swapped for another one is taken, or named by its line.
        #[test]
        fn faults_point_into_the_file(line in 0..FULL.lines().count(), junk in "[\\[\\]{}=\"a-z0-9.,#-]{0,12}") {
            let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
            let kept = lines[line].split_inclusive('=').next().unwrap_or_default().to_owned();
            lines[line] = kept + &junk;
            for fault in parse(&lines.join("\n")).err().unwrap_or_default() {
                prop_assert!(fault.line.is_none_or(|line| line <= lines.len() + 1), "{}", fault);
                prop_assert!(!fault.message.contains('\n'));
            }
        }
    }
}
