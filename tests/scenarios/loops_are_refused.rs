//! A message that went through too many hosts is in a loop.

use crate::common::{Client, Setup, Smarthost, plain};

#[test]
fn fifty_hops_pass_and_one_more_does_not() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).start();
    let mut client = Client::greeted(relay.smtp());
    let with_hops = |hops: usize| {
        let trace = "Received: from a.example by b.example;\r\n\tMon, 23 Nov 2026 10:00:00 +0000\r\n".repeat(hops);
        [trace.into_bytes(), plain("example.com", "round")].concat()
    };
    client.send("a@example.com", &["b@example.net"], &with_hops(50));
    client.begin("a@example.com", &["b@example.net"]);
    let reply = client.data(&with_hops(51));
    assert!(reply.starts_with("554 5.4.6 "), "{reply}");
    let after = client.send("a@example.com", &["b@example.net"], &plain("example.com", "next"));
    smarthost.wait_for_text(&after);
    assert_eq!(smarthost.wait_for(2).len(), 2);
}
