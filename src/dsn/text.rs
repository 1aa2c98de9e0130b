//! The part of a notice that a person reads: what happened, to whom, why in the words of the server, what to do now.
//!
//! In English. Lines are wrapped, but addresses and other long words are left whole so that they can be copied; the
//! transfer encoding keeps them within what SMTP carries.

use super::clean::{host, mta_name, one_line};
use super::original::Returned;
use super::status::{Verdict, verdict};
use super::{Concerned, Kind, Notice};
use crate::mail::Enhanced;

/// The whole text, with CRLF line ends.
pub(super) fn write(notice: &Notice<'_>, concerned: &[&Concerned<'_>], original: Option<&Returned<'_>>) -> String {
    let server = match mta_name(notice.smarthost) {
        name if name.is_empty() => "the next mail server".to_owned(),
        name => name,
    };
    let mut page = Page::default();
    page.paragraph(0, &opening(notice, concerned, &server));
    page.gap();
    let subject = one_line(notice.subject, 200);
    if !subject.is_empty() {
        page.paragraph(2, &format!("Subject: {subject}"));
    }
    page.paragraph(2, &format!("Accepted: {}", spoken_date(notice.arrived_at)));
    for concerned in concerned.iter().take(MAX_NAMED) {
        page.gap();
        page.paragraph(0, &format!("<{}>", one_line(concerned.recipient.address.as_str(), 500)));
        recipient(notice.kind, concerned, &server, &mut page);
    }
    page.gap();
    if let Some(more) = concerned.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        page.paragraph(0, &format!("... and {more} more: the delivery report in this notice names them all."));
        page.gap();
    }
    if notice.envelope.recipients.len() > concerned.len() {
        page.paragraph(0, "This notice says nothing about recipients whom it does not name.");
    }
    match original {
        Some(Returned { whole: true, .. }) => page.paragraph(0, "Your message is attached."),
        Some(_) => page.paragraph(0, "The header of your message is attached."),
        None => {}
    }
    page.paragraph(0, "This notice was made automatically, and nobody reads answers to it.");
    page.gap();
    page.paragraph(0, &format!("For your postmaster: queue id {} on {}.", notice.id, host(notice.hostname)));
    page.text
}

fn opening(notice: &Notice<'_>, concerned: &[&Concerned<'_>], server: &str) -> String {
    let named = match concerned.len() {
        1 => "the recipient named below".to_owned(),
        n => format!("the {n} recipients named below"),
    };
    match notice.kind {
        Kind::Failed => format!("Your message could not be delivered to {named}. It will not be tried again."),
        Kind::Delayed { until } => {
            let told = concerned.iter().all(|concerned| concerned.recipient.notify.failure);
            let then = if told { " If that fails, you will get another notice." } else { "" };
            format!(
                "Your message has not been delivered yet to {named}. You need not do anything: it will be tried \
                 again until {}.{then}",
                spoken_date(until)
            )
        }
        Kind::Relayed => format!(
            "Your message was handed on to {server} for {named}. That server does not confirm delivery, so this is \
             the last that is known here. You need not do anything."
        ),
    }
}

fn recipient(kind: Kind, concerned: &Concerned<'_>, server: &str, page: &mut Page) {
    let Verdict { code, status } = verdict(kind, concerned.reply);
    let attempts = match concerned.attempts {
        1 => "1 attempt".to_owned(),
        n => format!("{n} attempts"),
    };
    let words = one_line(concerned.reply, 500);
    let end = if words.is_empty() { "." } else { ":" };
    let told = match (kind, code) {
        (Kind::Failed, Some(500..)) => format!("Refused by {server}, which said{end}"),
        (Kind::Failed, Some(_)) => {
            format!("Given up after {attempts}. The last answer of {server} was{end}")
        }
        (Kind::Failed, None) if words.is_empty() => format!("Given up after {attempts}."),
        (Kind::Failed, None) => format!("Given up after {attempts}. This went wrong the last time:"),
        (Kind::Delayed { .. }, Some(_)) => {
            format!("Not taken in {attempts} so far. The last answer of {server} was{end}")
        }
        (Kind::Delayed { .. }, None) if words.is_empty() => format!("Not taken in {attempts} so far."),
        (Kind::Delayed { .. }, None) => format!("Not taken in {attempts} so far. This went wrong the last time:"),
        (Kind::Relayed, _) => format!("Taken by {server}{end}"),
    };
    page.paragraph(2, &told);
    page.paragraph(4, &words);
    if kind == Kind::Failed {
        page.paragraph(2, advice(status));
    }
}

/// What a sender can do about a failure.
fn advice(status: Enhanced) -> &'static str {
    match status {
        Enhanced(_, 1, 7 | 8) => "Your own address was not accepted. Show this notice to your postmaster.",
        Enhanced(_, 1, _) => {
            "Check the address for mistakes, and send the message again to the right one. If it is right, ask the \
             recipient in another way: the mailbox may be gone."
        }
        Enhanced(_, 2, 2) => "The mailbox is full. Ask the recipient to make room, then send the message again.",
        Enhanced(_, 2, 3) | Enhanced(_, 3, 4) => {
            "The message is too large. Send it again without large attachments, or give them to the recipient in \
             another way."
        }
        Enhanced(_, 6, 7) => {
            "The address has characters that the server cannot handle. Ask the recipient for an address in plain \
             letters."
        }
        Enhanced(5, 7, _) => {
            "The server has a rule against the message; its words may say which. Show this notice to your postmaster."
        }
        Enhanced(5, ..) => {
            "Check the address for mistakes. If it is right, the words above are all that is known here: show this \
             notice to your postmaster."
        }
        _ => {
            "The address may well be right: the message was not taken in time. Send it again later. If that fails \
             too, show this notice to your postmaster."
        }
    }
}

/// `Monday, 23 November 2026 at 10:00 UTC`.
fn spoken_date(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    at.strftime("%A, %-d %B %Y at %H:%M UTC").to_string()
}

/// More recipients than this are counted, not named.
pub(super) const MAX_NAMED: usize = 50;
/// Characters of a line; room is left for a quotation's marks.
const WIDTH: usize = 72;

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// Words wrapped to [`WIDTH`], every line indented; nothing for no words.
    fn paragraph(&mut self, indent: usize, text: &str) {
        let mut column = 0;
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if column > 0 && column + 1 + length <= WIDTH {
                self.text.push(' ');
                column += 1;
            } else {
                if column > 0 {
                    self.text.push_str("\r\n");
                }
                self.text.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            }
            self.text.push_str(word);
            column += length;
        }
        if column > 0 {
            self.text.push_str("\r\n");
        }
    }

    fn gap(&mut self) {
        self.text.push_str("\r\n");
    }
}
