//! The newsletter of 20 KB and 20 links that is measured, and what it is tracked with.

use trackpost::mail::{DomainName, QueueId};
use trackpost::mime::transfer;
use trackpost::rewrite::{Limits, OnSigned, Policy, Scheme, Tracking};
use trackpost::token::{HostSigner, Signer, TokenKey};

#[derive(Clone, Copy, Debug)]
pub enum Transfer {
    SevenBit,
    QuotedPrintable,
    Base64,
}

pub const ALL: [Transfer; 3] = [Transfer::SevenBit, Transfer::QuotedPrintable, Transfer::Base64];

pub fn newsletter(way: Transfer) -> Vec<u8> {
    let mut html = String::from("<!DOCTYPE html>\r\n<html><head><style>p { margin: 0 }</style></head>\r\n<body>\r\n");
    for index in 0..20 {
        html.push_str("<table role=\"presentation\" width=\"600\" style=\"border-collapse: collapse\"><tr>\r\n");
        for _ in 0..4 {
            html.push_str("<td class=\"cell\" style=\"font: 14px sans-serif; color: #333333; padding: 12px\">\r\n");
            html.push_str("Some words of a letter that many people read, and then more of them.\r\n</td>\r\n");
        }
        html.push_str(&format!(
            "<td><a class=\"button\" href=\"https://www.example.org/offers/{index}?a=1&amp;utm_source=letter\">More\r\n\
             </a></td></tr></table>\r\n<!-- {index} -->\r\n"
        ));
    }
    html.push_str("</body></html>\r\n");
    let (name, body) = match way {
        Transfer::SevenBit => ("7bit", html.into_bytes()),
        Transfer::QuotedPrintable => ("quoted-printable", {
            let mut out = Vec::new();
            transfer::encode_quoted_printable(html.as_bytes(), b"\r\n", &mut out);
            out
        }),
        Transfer::Base64 => ("base64", {
            let mut out = Vec::new();
            transfer::encode_base64(html.as_bytes(), 0, 76, b"\r\n", &mut out);
            out
        }),
    };
    let head = format!(
        "Received: from a.example.com by b.example.com; Tue, 1 Dec 2026 10:00:00 +0000\r\nFrom: News <news@example.com>\r\n\
         To: you@example.org\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@example.com>\r\n\
         MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=\"=_x\"\r\n\r\n--=_x\r\n\r\nplain\r\n--=_x\r\n\
         Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {name}\r\n\r\n"
    );
    [head.as_bytes(), &body, b"\r\n--=_x--\r\n"].concat()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("a domain name")
}

pub fn tracking() -> Tracking {
    Tracking::Active(Policy {
        domain: name("example.com"),
        open: true,
        click: true,
        scheme: Scheme::Https,
        host: name("links.example.com"),
        port: 0,
        own_hosts: Vec::new(),
        on_signed: OnSigned::Skip,
        signs: false,
        limits: Limits::default(),
    })
}

pub fn key() -> TokenKey {
    TokenKey { id: 1, secret: [1; 32] }
}

pub fn signer() -> HostSigner {
    Signer::new(&key()).for_host(&name("links.example.com"))
}

pub fn id() -> QueueId {
    QueueId::from_bytes([1; 16])
}
