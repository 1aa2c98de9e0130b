//! Clients that take all the time in the world do not get it.

use crate::common::{Client, Setup, Smarthost, plain};
use std::thread;
use std::time::Duration;

#[test]
fn a_line_that_comes_byte_by_byte_is_cut_off() {
    let smarthost = Smarthost::start();
    let relay = Setup::new(smarthost.address).with("smtp.timeouts.line", "\"1s\"").start();
    let mut slow = Client::greeted(relay.smtp());
    // The pace of the client, not a wait for something: no pause between two bytes is long.
    for byte in "MAIL FROM".bytes() {
        slow.write([byte]);
        thread::sleep(Duration::from_millis(100));
    }
    let reply = slow.reply();
    assert!(reply.starts_with("421 4.4.2 ") && slow.is_closed(), "{reply}");
    // Whole lines may come as slowly as they like.
    let mut patient = Client::greeted(relay.smtp());
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(400));
        patient.expect("NOOP", "250 ");
    }
    patient.send("a@example.com", &["b@example.net"], &plain("example.com", "patient"));
    smarthost.wait_for_text("patient");
}
