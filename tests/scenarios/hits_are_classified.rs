//! Every hit is kept, with a class and a reason.

use crate::common::{Client, FIREFOX, Relay, Setup, Smarthost, html, links, pixel, request, until};
use serde_json::{Value, json};

/// The delivery's time, then a moment at which a click is no longer too fast.
fn wait_until_read(relay: &Relay) {
    let delivered = relay.wait_for_events("email.delivered", 1)[0]["at"].as_u64().unwrap();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    until("two seconds after delivery", || (now() > delivered + 2_000).then_some(()));
}

#[test]
fn machines_are_told_from_people() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    // One more than is clicked: all of a message's links within seconds would be a burst.
    let urls: Vec<String> = (0..6).map(|n| format!("https://example.net/{n}")).collect();
    let urls: Vec<&str> = urls.iter().map(|url| &**url).collect();
    Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &html("x", &urls));
    let copy = smarthost.wait_for(1).remove(0);
    let (links, pixel) = (links(&copy.body), pixel(&copy.body).unwrap());
    let web = relay.web();

    let head = request(web, "HEAD", &links[0], FIREFOX);
    assert_eq!((head.status, head.header("location"), head.body.len()), (302, urls[0], 0));
    let head = request(web, "HEAD", &pixel, FIREFOX);
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "43", 0));
    request(web, "GET", &links[1], FIREFOX);
    wait_until_read(&relay);
    request(web, "GET", &links[2], FIREFOX);
    request(web, "GET", &links[3], "");
    request(web, "GET", &links[4], "python-requests/2.32");
    request(web, "GET", &pixel, FIREFOX);
    let gmail = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";
    request(web, "GET", &pixel, gmail);

    let clicks = relay.wait_for_events("email.clicked", 5);
    let class =
        |url: &str| clicks.iter().find(|click| click["link"] == *url).map(|click| (&click["class"], &click["reason"]));
    let of_machine = json!("machine");
    let (head, fast, none) = (json!("head"), json!("fast-click"), json!("no-agent"));
    assert_eq!(class(urls[0]), Some((&of_machine, &head)));
    assert_eq!(class(urls[1]), Some((&of_machine, &fast)));
    assert_eq!(class(urls[2]), Some((&json!("human"), &Value::Null)));
    assert_eq!(class(urls[3]), Some((&of_machine, &none)));
    let (library, reason) = class(urls[4]).unwrap();
    assert_eq!(*library, of_machine);
    assert!(reason.as_str().is_some_and(|reason| reason.starts_with("known-agent:")), "{reason}");
    let opens = relay.wait_for_events("email.opened", 3);
    let reasons: Vec<&Value> = opens.iter().map(|open| &open["reason"]).collect();
    let wanted = [json!("head"), Value::Null, json!("google-image-proxy")];
    assert!(wanted.iter().all(|reason| reasons.contains(&reason)), "{reasons:?}");

    // And as people read it.
    let text = relay.ok(&["events", "tail"]);
    for wanted in
        ["machine (fast-click)", "machine (head)", "machine (google-image-proxy)", "  human", "delivered", "sent"]
    {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
}

#[test]
fn the_same_hit_within_seconds_is_one_with_a_count() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    let id = Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &html("x", &[]));
    let pixel = pixel(&smarthost.wait_for(1)[0].body).unwrap();
    for _ in 0..4 {
        assert_eq!(request(relay.web(), "GET", &pixel, FIREFOX).status, 200);
    }
    let total = until("four opens", || {
        let opens = relay.wait_for_events("email.opened", 1);
        assert!(opens.iter().all(|open| open["email_id"] == *id));
        let total: u64 = opens.iter().map(|open| open["count"].as_u64().unwrap_or(1)).sum();
        (total >= 4).then_some((total, opens.len()))
    });
    assert!(total.0 == 4 && total.1 <= 2, "{total:?}");
}

#[test]
fn a_hit_is_recorded_when_the_server_is_killed_a_second_later() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    relay.track_example_com();
    Client::greeted(relay.smtp()).send("news@example.com", &["ada@example.net"], &html("x", &["https://example.net/"]));
    let link = links(&smarthost.wait_for(1)[0].body).remove(0);
    assert_eq!(request(relay.web(), "GET", &link, FIREFOX).status, 302);
    let answered = std::time::Instant::now();
    until("a second to pass", || (answered.elapsed().as_millis() > 1_000).then_some(()));
    relay.kill();
    relay.start();
    assert_eq!(relay.wait_for_events("email.clicked", 1).len(), 1);
}
