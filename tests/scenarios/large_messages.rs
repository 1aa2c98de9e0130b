//! A message of 5 MB, tracked and untracked.

use crate::common::{Client, Setup, Smarthost, crlf, get, links, pixel, without_received};

const URL: &str = "https://shop.example.com/offer?id=1&from=mail#top";

/// An HTML part, and 5 MB attached to it.
fn message(from_domain: &str) -> Vec<u8> {
    let head = format!(
        "From: News <news@{from_domain}>\nTo: ada@example.net\nSubject: Catalogue\nMIME-Version: 1.0\n\
         Content-Type: multipart/mixed; boundary=cut\n\n--cut\nContent-Type: text/html; charset=utf-8\n\n\
         <html><body><a href=\"{}\">Look</a></body></html>\n--cut\n\
         Content-Type: application/pdf\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n",
        URL.replace('&', "&amp;")
    );
    let line = format!("{}\r\n", "JVBERi0xLjcKJeLjz9MK".repeat(4).split_at(76).0);
    [crlf(&head), line.repeat(5_000_000 / line.len()).into_bytes(), crlf("--cut--\n")].concat()
}

#[test]
fn an_attachment_passes_beside_a_rewritten_part() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let message = message("example.com");
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &message);
    let arrived = smarthost.wait_for_text(&id);
    let links = links(&arrived.body);
    assert_eq!(links.len(), 1);
    assert_eq!(get(relay.web(), &links[0]).header("location"), URL);
    let copy = arrived.text();
    let pixel = pixel(&arrived.body).expect("it has a pixel");
    let start = copy.find("<img ").unwrap();
    let image = &copy[start..=start + copy[start..].find('>').unwrap()];
    assert!(image.contains(&pixel));
    let undone = copy.replace(image, "").replace(&links[0], &URL.replace('&', "&amp;"));
    assert!(without_received(undone.as_bytes()) == message, "more than the link and the pixel was changed");
}

#[test]
fn it_is_relayed_untouched_where_the_domain_is_unknown() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let message = message("example.org");
    let id = Client::greeted(relay.smtp()).send("news@example.org", &["ada@example.net"], &message);
    let arrived = smarthost.wait_for_text(&id);
    assert!(without_received(&arrived.body) == message);
}
