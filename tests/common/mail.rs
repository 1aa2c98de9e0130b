//! Messages to send, and what to look for in those that arrive.

/// The tracking host of example.com in the scenarios.
pub const HOST: &str = "links.example.com";

/// `text` with CRLF line ends.
pub fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// A small text message. Its Message-ID holds `subject`.
pub fn plain(from_domain: &str, subject: &str) -> Vec<u8> {
    crlf(&format!(
        "From: News <news@{from_domain}>\nTo: reader@example.net\nSubject: {subject}\n\
         Message-ID: <{subject}@{from_domain}>\n\nHello.\n"
    ))
}

/// A small HTML message of example.com with these links.
pub fn html(subject: &str, urls: &[&str]) -> Vec<u8> {
    let links: String = urls.iter().map(|url| format!("<p><a href=\"{url}\">Read on</a></p>\n")).collect();
    crlf(&format!(
        "From: News <news@example.com>\nTo: reader@example.net\nSubject: {subject}\n\
         Message-ID: <{subject}@example.com>\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n\
         <html><body>\n{links}</body></html>\n"
    ))
}

/// The tracked links of an arrived message, in order.
pub fn links(message: &[u8]) -> Vec<String> {
    quoted(message, &format!("\"http://{HOST}/c/"))
}

/// The address of its pixel.
pub fn pixel(message: &[u8]) -> Option<String> {
    quoted(message, &format!("\"http://{HOST}/o/")).pop()
}

/// What stands between quotes, where it begins like `start`, which holds the first quote.
fn quoted(message: &[u8], start: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(message);
    let value = |(at, _): (usize, &str)| text[at + 1..].split('"').next().unwrap_or_default().to_owned();
    text.match_indices(start).map(value).collect()
}

/// An arrived message without the trace header that the relay put in front.
#[track_caller]
pub fn without_received(message: &[u8]) -> &[u8] {
    assert!(message.starts_with(b"Received: from app.example.com ([127.0.0.1])\r\n\tby relay.example.net"));
    let mut lines = message.split_inclusive(|b| *b == b'\n').skip(1);
    let folded: usize = lines.by_ref().take_while(|line| line.starts_with(b"\t")).map(<[u8]>::len).sum();
    let first = message.iter().position(|b| *b == b'\n').expect("it has a line") + 1;
    &message[first + folded..]
}
