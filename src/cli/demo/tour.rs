//! The whole thing on this machine, with nothing set up: a server on a temporary data folder, a sink as its
//! smarthost, a newsletter through real SMTP, its pixel fetched and a link followed over real HTTP.
//!
//! Everything goes the way that an operator's mail goes; only the sink and the browser are stand-ins.

use super::browser::{Browser, Page};
use super::sink::Sink;
use super::visitor;
use crate::admin::{self, Request};
use crate::config::Config;
use crate::event::FAST_CLICK_MS;
use crate::mail::{Address, Recipient};
use crate::ops::{NewDomain, NewKey};
use crate::outbound::{Connection, Smarthost, Timeouts, TlsMode, Transaction};
use crate::rewrite::Report;
use crate::server::{self, Bound};
use crate::settings::Permission;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const NEWSLETTER: &[u8] = include_bytes!("../../../fixtures/mail/newsletter.eml");
const SENDER: &str = "news@shop.example.com";
const RECIPIENTS: [&str; 2] = ["ada@example.net", "grace@example.org"];
const HOST: &str = "links.shop.example.com";
/// Any step that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const GMAIL: &str = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Shows every step on stdout. With `exit` it ends after the last, otherwise it waits for Ctrl-C.
pub async fn run(exit: bool) -> Result<(), Failure> {
    let folder = tempfile::Builder::new().prefix("trackpost-demo-").tempdir()?;
    let mut sink = Sink::start().await?;
    let config = configuration(folder.path(), sink.address)?;
    let data_dir = config.data_dir.clone();

    println!("trackpost demo: a newsletter goes through the relay, and its reader opens and clicks.\n");
    step(1, "Start a relay with an empty data folder, and a mail sink as its smarthost");
    let (ready, started) = oneshot::channel();
    let (end, ended) = oneshot::channel::<()>();
    let server =
        tokio::spawn(server::serve_until(config, |bound| drop(ready.send(bound)), async move { drop(ended.await) }));
    let Ok(bound) = within(started).await? else {
        return Err(server.await?.map_or_else(|e| e.to_string(), |_| "the server ended".to_owned()).into());
    };
    let (smtp, web) = addresses(&bound)?;
    say("SMTP", smtp);
    say("tracking host", format_args!("http://{HOST}:{}  (really {web})", web.port()));
    say("smarthost", sink.address);

    step(2, "Set up the sender domain, as `trackpost domain add` does");
    let domain = NewDomain {
        name: "shop.example.com".to_owned(),
        subdomain: Some("links".to_owned()),
        open: true,
        click: true,
        force_verified: true,
        ..NewDomain::default()
    };
    let answer = admin::ask(&data_dir, &Request::DomainAdd(domain)).await?;
    say("tracking", answer["tracking"].as_str().unwrap_or_default());

    step(3, "Send the newsletter over SMTP, to two recipients");
    let reply = submit(smtp).await?;
    say("the relay says", &reply);
    let id = reply.rsplit(' ').next().unwrap_or_default().to_owned();

    step(4, "The relay rewrites it, a copy for each, and the smarthost takes both");
    let copies =
        [within(sink.next()).await?.ok_or("the sink ended")?, within(sink.next()).await?.ok_or("the sink ended")?];
    let report = wait_for_report(&data_dir, &id).await?;
    say("links", format_args!("{} found, {} rewritten", report.links_found, report.links_rewritten));
    for (reason, count) in &report.links_skipped {
        say("", format_args!("{count} left alone: {reason}"));
    }
    say("size", format_args!("{} bytes in, {} out", report.bytes_in, report.bytes_out));
    let pages = copies.iter().map(|copy| Page::of(copy, HOST)).collect::<Result<Vec<_>, _>>()?;
    let [first, second] = &pages[..] else { return Err("two copies were expected".into()) };
    let original = report.links.first().ok_or("the report names no link")?;
    say("was", &original.url);
    for (copy, page) in copies.iter().zip(&pages) {
        say(&format!("for {}", copy.recipient), shorten(&page.links[0], 90));
    }
    if first.links[0] == second.links[0] {
        return Err("both recipients got the same link".into());
    }

    step(5, "A link scanner follows a link before anybody can have read the mail");
    let browser = Browser { address: web };
    let scanned = browser.get("HEAD", &first.links[0], "Mozilla/5.0 (compatible; scanner.example)").await?;
    say("HEAD", format_args!("{} → {}", scanned.status, shorten(&scanned.location, 80)));
    let fast = browser.get("GET", &first.links[1], FIREFOX).await?;
    say("GET at once", format_args!("{} → {}", fast.status, shorten(&fast.location, 80)));

    step(6, "Two seconds later the reader opens the mail and clicks");
    tokio::time::sleep(Duration::from_millis(FAST_CLICK_MS + 200)).await;
    let opened = browser.get("GET", &first.pixel, FIREFOX).await?;
    say("pixel", format_args!("{}, {} bytes of {}", opened.status, opened.body, opened.content_type));
    let proxied = browser.get("GET", &second.pixel, GMAIL).await?;
    say("pixel by Gmail", format_args!("{}, {} bytes", proxied.status, proxied.body));
    let clicked = browser.get("GET", &first.links[0], FIREFOX).await?;
    say("link", format_args!("{} → {}", clicked.status, shorten(&clicked.location, 80)));
    if *clicked.location != *original.url || clicked.status != 302 || opened.body != 43 {
        return Err(format!("the link leads to {:?} and not to {:?}", clicked.location, original.url).into());
    }
    let mut tampered = first.links[0].clone();
    tampered.pop();
    let refused = browser.get("GET", &tampered, FIREFOX).await?;
    say("tampered link", format_args!("{}, and nothing is recorded", refused.status));
    if refused.status != 404 {
        return Err("a tampered link was answered".into());
    }

    step(7, "What the relay recorded, as `trackpost events tail` shows it");
    let events = wait_for_events(&data_dir, 8).await?;
    for event in &events {
        println!("     {}", shorten(&crate::cli::events::line(event), 150));
    }
    let class = |name: &str| events.iter().filter(|event| event["class"].to_string().contains(name)).count();
    step(8, "The same in the dashboard");
    let new = NewKey { name: "demo".to_owned(), permission: Permission::FullAccess, domains: Vec::new() };
    let made = admin::ask(&data_dir, &Request::KeyCreate(new)).await?;
    let key = made["token"].as_str().ok_or("no key was made")?;
    let dashboard = bound.api.ok_or("the API does not listen")?;
    say("address", format_args!("http://{dashboard}/dashboard/emails/{id}"));
    say("sign in with", key);
    let page = visitor::page_of(dashboard, key, &id).await?;
    say("its timeline", format_args!("{} bytes of HTML, with what {} did", page.len(), RECIPIENTS.join(" and ")));
    if !RECIPIENTS.iter().all(|recipient| page.contains(recipient)) || !page.contains("clicked") {
        return Err("the dashboard does not show what the reader did".into());
    }

    println!(
        "\nDone: {} hits by people, {} by machines; nothing was blocked, nothing lost.",
        class("human"),
        class("machine")
    );
    if class("human") != 2 || class("machine") != 3 {
        return Err("two hits of a person and three of machines were expected".into());
    }

    if !exit {
        println!("\nThe relay goes on until Ctrl-C: look at the dashboard, and try");
        println!("     curl -i --resolve {HOST}:{port}:{ip} '{}'", first.links[0], port = web.port(), ip = web.ip());
        tokio::signal::ctrl_c().await?;
    }
    drop(end);
    within(server).await???;
    Ok(())
}

fn step(number: usize, text: &str) {
    println!("{}{number}. {text}", if number == 1 { "" } else { "\n" });
}

fn say(what: &str, value: impl std::fmt::Display) {
    println!("     {what:<22} {value}");
}

fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(DEADLINE, future).await.map_err(|_| "a step took longer than 20 seconds".into())
}

fn configuration(folder: &std::path::Path, sink: SocketAddr) -> Result<Config, Failure> {
    // Links carry the port, so it must be known before the server starts.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let text = format!(
        "hostname = \"relay.example.net\"\n\
         [[smtp.listener]]\naddress = \"127.0.0.1:0\"\n\
         [smarthost]\naddress = \"{sink}\"\ntls = \"none\"\n\
         [api]\naddress = \"127.0.0.1:0\"\n\
         [queue]\nmin_free = \"1MiB\"\n\
         [tracking]\nhttp = [\"127.0.0.1:{port}\"]\nlink_scheme = \"http\"\nlink_port = {port}\n\
         cname_target = \"track.relay.example.net\"\n"
    );
    let file = folder.join("trackpost.toml");
    std::fs::write(&file, text)?;
    Config::load(&file).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n").into())
}

fn addresses(bound: &Bound) -> Result<(SocketAddr, SocketAddr), Failure> {
    match (&bound.smtp[..], &bound.tracking[..]) {
        ([smtp], [web]) => Ok((*smtp, *web)),
        _ => Err("the server does not listen".into()),
    }
}

/// Sends the newsletter as any SMTP client does.
async fn submit(smtp: SocketAddr) -> Result<String, Failure> {
    let client = Smarthost {
        host: smtp.ip().to_string(),
        port: smtp.port(),
        tls: TlsMode::None,
        credentials: None,
        tls_config: Arc::new(crate::outbound::client_tls(None, false)?),
        helo: "laptop.example.com".to_owned(),
        timeouts: Timeouts::default(),
    };
    let mut connection = within(Connection::open(&client)).await??;
    let sender = Address::parse(SENDER)?;
    let recipients =
        RECIPIENTS.iter().map(|r| Address::parse(r).map(Recipient::from)).collect::<Result<Vec<_>, _>>()?;
    let transaction = Transaction {
        sender: Some(&sender),
        recipients: &recipients.iter().collect::<Vec<_>>(),
        eight_bit: !NEWSLETTER.is_ascii(),
        smtputf8: false,
        ret: None,
        envid: None,
        message: NEWSLETTER,
    };
    let replies = within(connection.send(&transaction)).await?.map_err(|broken| broken.text)?;
    connection.quit().await;
    let reply = replies.first().ok_or("the relay did not answer")?;
    match reply.code {
        250 => Ok(reply.to_string()),
        _ => Err(format!("the relay refused the newsletter: {reply}").into()),
    }
}

async fn wait_for_report(data_dir: &std::path::Path, id: &str) -> Result<Report, Failure> {
    let until = Instant::now() + DEADLINE;
    loop {
        // History follows a moment after delivery.
        if let Ok(message) = admin::ask(data_dir, &Request::QueueShow(id.to_owned())).await
            && !message["report"].is_null()
        {
            return Ok(serde_json::from_value(message["report"].clone())?);
        }
        if Instant::now() > until {
            return Err("no report of rewriting came".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn wait_for_events(data_dir: &std::path::Path, count: usize) -> Result<Vec<Value>, Failure> {
    let until = Instant::now() + DEADLINE;
    loop {
        let request = Request::EventsTail { limit: 50, follow: false };
        if let Value::Array(events) = admin::ask(data_dir, &request).await?
            && (events.len() >= count || Instant::now() > until)
        {
            return Ok(events);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
