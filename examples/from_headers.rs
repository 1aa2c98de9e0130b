//! Reads messages from stdin, each with a NUL behind it, and prints a line of JSON for each: the domains that a key tied to
//! them would need, or `null` where no tied key may send it, and the addresses that mail-parser finds in all its From
//! fields. The bridge of `tests/campaigns/from_headers.py`, which asks other readers about the same messages.

use mail_parser::MessageParser;
use serde_json::json;
use std::error::Error;
use std::io::{BufRead, BufWriter, Write, stdin, stdout};
use trackpost::mime::originators::originators;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut input, mut output) = (stdin().lock(), BufWriter::new(stdout().lock()));
    let mut message = Vec::new();
    while input.read_until(0, &mut message)? > 0 {
        if message.last() == Some(&0) {
            message.pop();
        }
        let domains = originators(&message).ok().map(|named| {
            let all = named.from.iter().chain(&named.senders);
            all.map(|domain| domain.as_str().to_owned()).collect::<Vec<_>>()
        });
        writeln!(output, "{}", json!({ "domains": domains, "mail_parser": mail_parser(&message) }))?;
        message.clear();
    }
    output.flush()?;
    Ok(())
}

fn mail_parser(message: &[u8]) -> Vec<String> {
    let Some(parsed) = MessageParser::default().parse_headers(message) else { return Vec::new() };
    let fields = parsed.headers().iter().filter(|header| header.name() == "From");
    let addresses = fields.filter_map(|header| header.value().as_address());
    addresses.flat_map(|address| address.iter()).filter_map(|one| one.address()).map(str::to_owned).collect()
}
