//! Tracked mail: a copy for each recipient, whose links lead to the exact original.

use crate::common::{Client, HOST, Setup, Smarthost, get, html, links, pixel, request};
use std::collections::BTreeSet;

/// As written in the HTML, and as a browser asks for it.
const URLS: [(&str, &str); 4] = [
    ("https://shop.example.com/?a=1&amp;b=%20x#frag", "https://shop.example.com/?a=1&b=%20x#frag"),
    ("HTTP://Shop.Example.COM/A/../b", "HTTP://Shop.Example.COM/A/../b"),
    ("https://example.net", "https://example.net"),
    ("https://example.net/'~!$*()[]{}|", "https://example.net/'~!$*()[]{}|"),
];

#[test]
fn links_resolve_to_the_original_and_name_message_and_recipient() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let message = html("offers", &URLS.map(|(written, _)| written));
    let recipients = ["ada@example.net", "grace@example.org", "bcc@example.edu"];
    let id = Client::greeted(relay.smtp()).send("news@example.com", &recipients, &message);
    let copies = smarthost.wait_for(3);
    let mut seen = BTreeSet::new();
    for copy in &copies {
        assert_eq!(copy.to.len(), 1, "copies that differ go apart");
        let links = links(&copy.body);
        assert_eq!(links.len(), URLS.len(), "{}", copy.text());
        for (link, (_, original)) in links.iter().zip(URLS) {
            let answer = get(relay.web(), link);
            assert_eq!((answer.status, answer.header("location")), (302, original));
            assert_eq!(answer.header("cache-control"), "no-store, private");
            assert_eq!(answer.header("referrer-policy"), "no-referrer");
            assert_eq!(answer.header("x-robots-tag"), "noindex");
        }
        let pixel = pixel(&copy.body).expect("it has a pixel");
        let answer = get(relay.web(), &pixel);
        assert_eq!((answer.status, answer.header("content-type"), answer.body.len()), (200, "image/gif", 43));
        assert!(answer.header("cache-control").contains("no-store"));
        seen.extend(links);
        seen.insert(pixel);
    }
    assert_eq!(seen.len(), 3 * (URLS.len() + 1), "no two recipients share a token");
    let clicks = relay.wait_for_events("email.clicked", 12);
    assert!(clicks.iter().all(|click| click["email_id"] == *id));
    for place in 0..3 {
        let to: BTreeSet<_> = clicks.iter().filter(|c| c["recipient"] == place).map(|c| c["link"].as_str()).collect();
        assert_eq!(to, URLS.iter().map(|(_, original)| Some(*original)).collect());
    }
    let opens = relay.wait_for_events("email.opened", 3);
    assert_eq!(opens.iter().map(|open| open["recipient"].as_u64()).collect::<BTreeSet<_>>().len(), 3);
    let shown = relay.wait_for_status(&id, &["relayed"; 3]);
    assert_eq!(shown["report"]["links_rewritten"], URLS.len(), "{shown}");
}

#[test]
fn what_was_not_made_by_us_opens_nothing() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    relay.ok(&["domain", "add", "example.org", "--subdomain", "links", "--open", "--click", "--force-verified"]);
    Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &html("x", &["https://example.net/"]));
    let copy = &smarthost.wait_for(1)[0];
    let (link, pixel) = (&links(&copy.body)[0], pixel(&copy.body).unwrap());
    let changed = format!("{}{}", &link[..link.len() - 1], if link.ends_with('A') { "B" } else { "A" });
    let web = relay.web();
    let table = [
        ("GET", changed, 404),
        ("GET", link[..link.len() - 1].to_owned(), 404),
        ("GET", format!("http://{HOST}/c/"), 404),
        ("GET", format!("http://{HOST}/c/https://evil.example"), 404),
        // Another tenant's host; one that nobody has.
        ("GET", link.replace(HOST, "links.example.org"), 404),
        ("GET", link.replace(HOST, "links.example.edu"), 421),
        ("GET", format!("http://{HOST}/"), 200),
        ("GET", format!("http://{HOST}/robots.txt"), 200),
        ("GET", format!("http://{HOST}/o/nonsense.gif"), 200),
        ("POST", link.clone(), 405),
        ("DELETE", pixel, 405),
    ];
    for (method, url, status) in table {
        let answer = request(web, method, &url, "curl/8");
        assert_eq!(answer.status, status, "{method} {url}");
        assert_eq!(answer.header("location"), "", "{method} {url}");
    }
    assert_eq!(get(web, link).status, 302);
    relay.wait_for_events("email.clicked", 1);
    let hits = relay.events().iter().filter(|e| e["type"] == "email.opened" || e["type"] == "email.clicked").count();
    assert_eq!(hits, 1, "only the true link was recorded");
}
