//! Whether the relay lives and works, as its API address says.

use crate::common::{Setup, Smarthost, get, until};
use std::fs;

#[test]
fn ready_with_log_and_store_and_alive_without() {
    let smarthost = Smarthost::start();
    let mut relay = Setup::new(smarthost.address).start();
    let ask = |relay: &crate::common::Relay, path: &str| {
        let answer = get(relay.api(), &format!("http://127.0.0.1{path}"));
        (answer.status, String::from_utf8(answer.body).unwrap())
    };
    until("the store to be open", || (ask(&relay, "/readyz").0 == 200).then_some(()));
    assert_eq!(ask(&relay, "/readyz").1, "ready\nlog: works\nstore: works\n");
    assert_eq!(ask(&relay, "/healthz"), (200, "alive\nlog: works\ndelivery: works\nrecorder: works\n".to_owned()));
    assert_eq!(ask(&relay, "/nothing").0, 404);
    assert_eq!(crate::common::request(relay.api(), "POST", "http://127.0.0.1/readyz", "x").status, 405);
    relay.stop();
    fs::remove_dir_all(relay.data_dir().join("store")).unwrap();
    fs::write(relay.data_dir().join("store"), "no folder").unwrap();
    relay.start();
    let (status, text) = ask(&relay, "/readyz");
    assert!(status == 503 && text.contains("log: works") && text.contains("store: it is not open"), "{status} {text}");
    assert_eq!(ask(&relay, "/healthz").0, 200);
}
