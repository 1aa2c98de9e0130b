//! What the relay measures of itself, for Prometheus: every name with its kind, labels and meaning, and the page that
//! shows them.
//!
//! Modules count with the macros of the `metrics` crate, by the names of [`ALL`]; nothing is counted before
//! [`install`]. What is a state and not an event, such as the length of the queue, is looked up when somebody asks and
//! written by [`Page`]. Labels are bounded: words of ours, and hosts that are configured; never an address or a URL.

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::fmt::Write;
use std::sync::OnceLock;

/// One name that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meter {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
    /// The one label that it has, with the values that are there from the start: of what never happened Prometheus
    /// would not see the first time.
    pub label: Option<(&'static str, &'static [&'static str])>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
    /// Looked up when asked for.
    LookedUpGauge,
    LookedUpCounter,
}

const fn counter(name: &'static str, help: &'static str) -> Meter {
    Meter { name, kind: Kind::Counter, unit: Unit::Count, help, label: None }
}

const fn gauge(name: &'static str, help: &'static str) -> Meter {
    Meter { name, kind: Kind::Gauge, unit: Unit::Count, help, label: None }
}

const fn state(name: &'static str, unit: Unit, help: &'static str) -> Meter {
    Meter { name, kind: Kind::LookedUpGauge, unit, help, label: None }
}

const fn seconds(name: &'static str, buckets: &'static [f64], help: &'static str) -> Meter {
    Meter { name, kind: Kind::Histogram(buckets), unit: Unit::Seconds, help, label: None }
}

impl Meter {
    const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { label: Some((label, values)), ..self }
    }

    const fn sum(self) -> Self {
        Self { kind: Kind::LookedUpCounter, ..self }
    }
}

/// From a syscall that goes to memory to a disk that is stuck.
const SYNC_BUCKETS: &[f64] = &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// From a message without HTML to one at the limits.
const REWRITE_BUCKETS: &[f64] =
    &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0];

/// What runs for as long as the process, or for one client.
const PANICKING: &[&str] = &[
    "SMTP listener",
    "SMTP session",
    "HTTP listener",
    "HTTP connection",
    "command line",
    "delivery",
    "delivery worker",
    "delivery attempt",
    "log",
    "recorder",
    "hits",
    "verification",
    "certificates",
    "webhooks",
    "health",
    "reload",
];

/// All of them.
pub static ALL: &[Meter] = &[
    // Mail.
    counter("trackpost_messages_accepted_total", "Messages accepted, those composed here included."),
    counter("trackpost_deliveries_total", "Answers of the smarthost for single copies, and attempts that failed.")
        .by("outcome", &["sent", "deferred", "bounced"]),
    counter(
        "trackpost_possible_duplicates_total",
        "Copies that may arrive twice: the connection broke after the final dot.",
    ),
    counter("trackpost_messages_tracked_total", "Messages that left with a pixel or a tracked link."),
    counter("trackpost_messages_untracked_total", "Messages that left with neither, by the reason.").by("reason", &[]),
    seconds("trackpost_rewrite_seconds", REWRITE_BUCKETS, "Time to read one message and plan its copies."),
    counter("trackpost_dkim_signed_total", "Transactions with mail that was signed."),
    counter("trackpost_dkim_unsigned_total", "Mail of signing domains that left unsigned, by the reason.")
        .by("reason", &[]),
    counter("trackpost_auth_failures_total", "Wrong user names and passwords over SMTP."),
    counter("trackpost_gave_way_total", "SMTP sessions that had to give way when memory was short: 452 4.3.1."),
    gauge("trackpost_connections", "Open connections of clients.").by("protocol", &["smtp", "http"]),
    counter("trackpost_http_refused_connections_total", "HTTP connections over the limit, turned away."),
    // The queue.
    state("trackpost_queue_messages", Unit::Count, "Messages in the queue.")
        .by("state", &["ready", "deferred", "sending"]),
    state("trackpost_queue_oldest_seconds", Unit::Seconds, "Age of the oldest message in the queue; 0 if it is empty."),
    state("trackpost_queue_held", Unit::Count, "1 while the operator keeps all mail back."),
    state("trackpost_smarthost_reachable", Unit::Count, "0 while no smarthost can be reached."),
    // Opens and clicks.
    counter("trackpost_hits_total", "Opens and clicks recorded, repeats included, by what they were taken for.")
        .by("class", &["human", "machine", "unknown"]),
    counter("trackpost_hits_lost_total", "Opens and clicks that were answered and could not be recorded."),
    counter("trackpost_hits_relabelled_total", "Opens and clicks that later ones have shown to be a machine's."),
    counter("trackpost_killed_links_total", "Clicks on links of the kill list, which were answered 410."),
    counter("trackpost_history_cut_total", "Times that the oldest history went because it took too much of the disk."),
    counter("trackpost_clock_jumps_total", "Times that the clock was too far ahead to forget history by it."),
    counter("trackpost_token_failures_total", "Requests whose token is not one of ours.")
        .by("kind", &["click", "open"]),
    counter("trackpost_tls_unknown_hosts_total", "TLS handshakes for a host that has no certificate here."),
    // Log and store.
    seconds("trackpost_log_sync_seconds", SYNC_BUCKETS, "Time of one fdatasync of the log."),
    counter("trackpost_log_sync_failures_total", "Syncs of the log that failed.").sum(),
    state("trackpost_log_bytes", Unit::Bytes, "Bytes of the log."),
    state("trackpost_log_live_bytes", Unit::Bytes, "Bytes of the log that are still needed."),
    state("trackpost_log_unread_bytes", Unit::Bytes, "Bytes of the log that the history does not have yet."),
    state("trackpost_log_damaged_records", Unit::Count, "Records of the log that were found damaged since the start."),
    state("trackpost_log_full", Unit::Count, "1 while no mail is taken because the disk is full or nearly so."),
    state(
        "trackpost_log_stuck_seconds",
        Unit::Seconds,
        "For how long outcomes cannot be written, so that nothing is delivered; 0 while they can.",
    ),
    state("trackpost_log_waiting_entries", Unit::Count, "Outcomes that could not be written yet."),
    state("trackpost_disk_free_bytes", Unit::Bytes, "Free bytes on the file system of the data folder."),
    state("trackpost_store_open", Unit::Count, "0 while the store is not open, so that no history is written."),
    counter("trackpost_store_open_failures_total", "Times that the store did not open."),
    counter("trackpost_store_read_failures_total", "Times that the store could not be read for the history."),
    counter("trackpost_store_write_failures_total", "Times that the store could not be written."),
    counter("trackpost_records_skipped_total", "Records of the log left out of the history after a panic."),
    counter("trackpost_rows_damaged_total", "Times that a damaged row of the history was passed over."),
    counter("trackpost_history_lost_total", "Times that the log freed what the history did not have yet."),
    // Certificates.
    state(
        "trackpost_certificate_expiry_timestamp_seconds",
        Unit::Seconds,
        "When the certificate in use of a tracking host ends, in seconds since 1970.",
    )
    .by("host", &[]),
    state(
        "trackpost_certificate_missing",
        Unit::Count,
        "1 for a tracking host that is to have a certificate and has none.",
    )
    .by("host", &[]),
    state(
        "trackpost_certificate_failed_orders",
        Unit::Count,
        "Orders of a certificate for a tracking host that failed since the last one that did not.",
    )
    .by("host", &[]),
    counter("trackpost_certificates_issued_total", "Certificates that the CA issued."),
    counter("trackpost_certificate_failures_total", "Orders of certificates that failed."),
    // Webhooks.
    counter("trackpost_webhook_attempts_total", "Requests to webhook endpoints, by what came of them.")
        .by("outcome", &["failure", "success"]),
    state(
        "trackpost_webhooks_disabled",
        Unit::Count,
        "Webhook endpoints that were disabled because they kept failing.",
    ),
    // The program.
    counter("trackpost_log_lines_dropped_total", "Lines of the server's log that nobody read from stderr in time."),
    counter("trackpost_task_panics_total", "Panics, each of which ended one turn of a task, by the task.")
        .by("task", PANICKING),
    state("trackpost_build_info", Unit::Count, "Always 1; the version as a label.").by("version", &[]),
];

/// What was counted so far.
#[derive(Clone, Debug)]
pub struct Meters(PrometheusHandle);

/// Begins to count, once in a process.
pub fn install() -> Meters {
    static INSTALLED: OnceLock<Meters> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let recorder = builder().build_recorder();
            let meters = Meters(recorder.handle());
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::error!("another recorder of metrics is in place: /metrics will miss most of them");
            }
            begin();
            meters
        })
        .clone()
}

fn builder() -> PrometheusBuilder {
    ALL.iter().fold(PrometheusBuilder::new(), |builder, meter| match meter.kind {
        Kind::Histogram(buckets) => builder
            .set_buckets_for_metric(Matcher::Full(meter.name.to_owned()), buckets)
            .expect("the table has buckets for each histogram"),
        _ => builder,
    })
}

/// Describes all, and begins those at nothing whose labels are known.
fn begin() {
    for meter in ALL {
        let labels: Vec<_> = match meter.label {
            None => vec![Vec::new()],
            Some((key, values)) => values.iter().map(|value| vec![metrics::Label::new(key, *value)]).collect(),
        };
        match meter.kind {
            Kind::Counter => {
                metrics::describe_counter!(meter.name, meter.unit, meter.help);
                labels.into_iter().for_each(|labels| metrics::counter!(meter.name, labels).increment(0));
            }
            Kind::Gauge => {
                metrics::describe_gauge!(meter.name, meter.unit, meter.help);
                labels.into_iter().for_each(|labels| metrics::gauge!(meter.name, labels).increment(0.0));
            }
            Kind::Histogram(_) => {
                metrics::describe_histogram!(meter.name, meter.unit, meter.help);
                labels.into_iter().for_each(|labels| drop(metrics::histogram!(meter.name, labels)));
            }
            Kind::LookedUpGauge | Kind::LookedUpCounter => {}
        }
    }
}

impl Meters {
    /// A page that begins with what was counted.
    pub fn page(&self) -> Page {
        Page(self.0.render())
    }

    /// To be called every few seconds: what histograms were told waits in memory until then.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Text in the exposition format of Prometheus, version 0.0.4.
#[derive(Debug)]
pub struct Page(String);

impl Page {
    /// What is there under a name that is looked up: each value with that of the label, where the name has one.
    ///
    /// # Panics
    /// If the table has no such name.
    pub fn show<'a>(&mut self, name: &str, values: impl IntoIterator<Item = (&'a str, f64)>) {
        let meter = ALL.iter().find(|meter| meter.name == name).expect("every name is in the table");
        let kind = if meter.kind == Kind::LookedUpCounter { "counter" } else { "gauge" };
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}\n", meter.help);
        for (value, number) in values {
            let _ = match meter.label {
                None => writeln!(self.0, "{name} {number}"),
                Some((label, _)) => writeln!(self.0, "{name}{{{label}=\"{}\"}} {number}", escaped(value)),
            };
        }
        self.0.push('\n');
    }

    /// One without a label.
    pub fn show_one(&mut self, name: &str, number: f64) {
        self.show(name, [("", number)]);
    }

    pub fn into_text(self) -> String {
        self.0
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Names of ours in a text.
    fn names(text: &str) -> BTreeSet<String> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let found = text.match_indices("trackpost_").map(|(at, _)| &text[at..]);
        found.map(|rest| rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())].to_owned()).collect()
    }

    fn is_known(name: &str) -> bool {
        ALL.iter().any(|meter| match meter.kind {
            Kind::Histogram(_) => {
                name.strip_prefix(meter.name).is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
            }
            _ => meter.name == name,
        })
    }

    fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => sources(&path, into),
                path if path.extension().is_some_and(|e| e == "rs") => into.push(path),
                _ => {}
            }
        }
    }

    #[test]
    fn every_name_that_is_counted_is_described_and_the_other_way_round() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        sources(&root.join("src"), &mut files);
        let mut used = BTreeSet::new();
        for file in files.iter().filter(|file| !file.ends_with("src/meters.rs")) {
            let text = fs::read_to_string(file).unwrap();
            let quoted = text.split('"').filter(|part| part.starts_with("trackpost_"));
            used.extend(quoted.flat_map(names));
        }
        let unknown: Vec<_> = used.iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "not in the table: {unknown:?}");
        // Webhooks are described before they are there.
        let unused = ALL.iter().filter(|meter| !meter.name.contains("webhook") && !used.contains(meter.name));
        assert_eq!(unused.map(|meter| meter.name).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn alert_rules_ask_for_names_that_are_there() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/alerts.yml");
        let text = fs::read_to_string(file).unwrap();
        let expressions: String = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let asked = names(&expressions);
        assert!(asked.len() >= 12, "{asked:?}");
        let unknown: Vec<_> = asked.iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "not in the table: {unknown:?}");
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for meter in ALL {
            let is_counter = matches!(meter.kind, Kind::Counter | Kind::LookedUpCounter);
            assert_eq!(meter.name.ends_with("_total"), is_counter, "{}", meter.name);
            match meter.unit {
                Unit::Seconds => assert!(meter.name.ends_with("_seconds"), "{}", meter.name),
                Unit::Bytes => assert!(meter.name.ends_with("_bytes"), "{}", meter.name),
                _ => assert!(!meter.name.contains("_ms") && !meter.name.ends_with("_seconds"), "{}", meter.name),
            }
            assert!(meter.help.ends_with('.') && !meter.help.contains('\n'), "{}", meter.name);
            if let Kind::Histogram(buckets) = meter.kind {
                assert!(buckets.is_sorted() && !buckets.is_empty(), "{}", meter.name);
            }
        }
        let distinct: BTreeSet<_> = ALL.iter().map(|meter| meter.name).collect();
        assert_eq!(distinct.len(), ALL.len());
    }

    #[test]
    fn a_page() {
        let meters = install();
        metrics::histogram!("trackpost_rewrite_seconds").record(0.003);
        metrics::counter!("trackpost_token_failures_total", "kind" => "click").increment(2);
        meters.upkeep();
        let mut page = meters.page();
        page.show("trackpost_certificate_missing", [("links.example.com", 1.0), ("a\"b\\c\nd", 0.0)]);
        page.show_one("trackpost_log_sync_failures_total", 3.0);
        let text = page.into_text();
        for line in [
            "# TYPE trackpost_rewrite_seconds histogram",
            "trackpost_token_failures_total{kind=\"open\"} 0",
            "trackpost_messages_accepted_total 0",
            "# TYPE trackpost_certificate_missing gauge",
            "trackpost_certificate_missing{host=\"links.example.com\"} 1",
            r#"trackpost_certificate_missing{host="a\"b\\c\nd"} 0"#,
            "# TYPE trackpost_log_sync_failures_total counter",
            "trackpost_log_sync_failures_total 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.contains("trackpost_rewrite_seconds_bucket{le=\"0.005\"}"), "{text}");
    }
}
