//! What browsers and scanners ask of the tracking host.

use super::DEADLINE;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.next().unwrap_or_default()
    }
}

/// Asks the relay at `address` for `url`, whose host is looked up nowhere.
pub fn request(address: SocketAddr, method: &str, url: &str, agent: &str) -> Answer {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).expect("http://HOST/PATH");
    exchange(address, method, &format!("/{path}"), &format!("Host: {host}\r\nUser-Agent: {agent}\r\n"), "")
}

/// Asks the API; the status and what it says. Without a `body`, nothing is sent.
pub fn ask_api(address: SocketAddr, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let length = body.len();
    let head = format!("Host: {address}\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n");
    let answer = exchange(address, method, path, &head, &body);
    (answer.status, serde_json::from_slice(&answer.body).expect("the API answers JSON"))
}

fn exchange(address: SocketAddr, method: &str, target: &str, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the tracking host takes connections");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let lines = format!("{method} {target} HTTP/1.1\r\n{head}Connection: close\r\n\r\n{body}");
    stream.write_all(lines.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the answer comes in time");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("the answer has headers");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("the answer has a status");
    Answer { status, head, body: answer.split_off(end + 4) }
}

/// What a person's browser does.
pub fn get(address: SocketAddr, url: &str) -> Answer {
    request(address, "GET", url, FIREFOX)
}
