//! `/emails/metrics` as Resend's SDK for Rust reads it, and `domain stats`.

use crate::common::{Relay, Setup, Smarthost, until};
use resend_rs::types::{EmailMetrics, GetEmailMetricsOptions, Metric, MetricsGranularity};
use resend_rs::{ConfigBuilder, Error, Resend};

struct Place {
    relay: Relay,
    _smarthost: Smarthost,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Self {
        let smarthost = Smarthost::start();
        let relay = Setup::new(smarthost.address).start();
        relay.track_example_com();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Its HTTP client wants a provider for TLS also where there is none.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { relay, _smarthost: smarthost, runtime }
    }

    fn client(&self, options: &[&str]) -> Resend {
        let token = self.relay.ok(&[&["key", "create", "--name", "sdk"], options].concat());
        let url = format!("http://{}/", self.relay.api()).parse().unwrap();
        Resend::with_config(ConfigBuilder::new(token.trim()).base_url(url).build())
    }

    fn ask<T>(&self, client: &Resend, options: GetEmailMetricsOptions<T>) -> Result<EmailMetrics, (u16, String)> {
        match self.runtime.block_on(client.emails.metrics(options)) {
            Ok(metrics) => Ok(metrics),
            Err(Error::Resend(refused)) => Err((refused.status_code, refused.name)),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_sdk_reads_an_answer() {
    let place = Place::new();
    let client = place.client(&[]);
    let plain = place.ask(&client, GetEmailMetricsOptions::default()).unwrap();
    assert_eq!((plain.metrics.len(), plain.totals.len(), plain.data.is_none()), (22, 22, true));
    assert_eq!(plain.granularity, MetricsGranularity::Daily);
    let by_day = GetEmailMetricsOptions::default()
        .with_start_date("2026-07-01")
        .with_end_date("2026-07-03")
        .with_metrics([Metric::Delivered, Metric::OpenRate])
        .with_period_dimension();
    let by_day = place.ask(&client, by_day).unwrap();
    assert_eq!((&*by_day.start_date, &*by_day.end_date), ("2026-07-01T00:00:00.000Z", "2026-07-04T00:00:00.000Z"));
    let days: Vec<_> = by_day.data.unwrap().into_iter().map(|row| (row.period.unwrap(), row.metrics.len())).collect();
    let want = ["2026-07-01", "2026-07-02", "2026-07-03"].map(|day| (day.to_owned(), 2));
    assert_eq!(days, want);
    let no_such = "01a20bca-30ad-7a41-9458-9e4990397764";
    let email = GetEmailMetricsOptions::default().with_email_id(no_such).with_email_dimension();
    assert_eq!(place.ask(&client, email).unwrap().data.unwrap().len(), 0);
    let not_found = (404, "not_found".to_owned());
    assert_eq!(place.ask(&client, GetEmailMetricsOptions::default().with_domain_id(no_such)).unwrap_err(), not_found);
    let hours = GetEmailMetricsOptions::default()
        .with_start_date("2020-01-01")
        .with_granularity(MetricsGranularity::Hourly)
        .with_period_dimension();
    assert_eq!(place.ask(&client, hours).unwrap_err(), (422, "validation_error".to_owned()));
}

#[test]
fn a_tied_key_asks_for_its_domain_alone() {
    let place = Place::new();
    place.relay.ok(&["domain", "add", "example.org"]);
    let id = |name: &str| place.relay.json(&["domain", "show", name])["id"].as_str().unwrap().to_owned();
    let client = place.client(&["--domain", "example.org"]);
    let of = |name: &str| GetEmailMetricsOptions::default().with_domain_id(&id(name));
    assert!(place.ask(&client, of("example.org")).is_ok());
    assert_eq!(place.ask(&client, of("example.com")).unwrap_err(), (404, "not_found".to_owned()));
    let sender = place.client(&["--permission", "sending_access"]);
    let refused = place.ask(&sender, GetEmailMetricsOptions::default()).unwrap_err();
    assert_eq!(refused, (401, "restricted_api_key".to_owned()));
}

#[test]
fn the_terminal_shows_a_domain() {
    let relay = Place::new().relay;
    let stats = until("history to be open", || {
        let ran = relay.run(&["domain", "stats", "example.com", "--days", "3", "--json"]);
        (ran.code == Some(0)).then(|| serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap())
    });
    assert_eq!((&stats["domain"], stats["days"].as_array().unwrap().len()), (&"example.com".into(), 3));
    assert_eq!(stats["total"]["sent"], 0);
    let quiet = relay.run(&["domain", "stats", "example.com"]);
    assert_eq!((quiet.code, &*quiet.stdout), (Some(0), ""));
    assert!(quiet.stderr.contains("nothing happened in the last 30 days"), "{}", quiet.stderr);
    assert_eq!(relay.run(&["domain", "stats", "example.net"]).code, Some(1));
    assert_eq!(relay.run(&["domain", "stats", "example.com", "--days", "0"]).code, Some(2));
}
