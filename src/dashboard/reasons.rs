//! Why something was left as it was, in words: what it means, and what to do about it.

use crate::rewrite::SkipReason;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

/// A title and a remedy for a reason as reports and counts have it (`no-html`).
pub fn explain(reason: &str) -> (&'static str, &'static str) {
    let known = SkipReason::deserialize(IntoDeserializer::<Error>::into_deserializer(reason));
    known.map_or(("Another reason", "A later version of the relay has written this reason."), said)
}

fn said(reason: SkipReason) -> (&'static str, &'static str) {
    match reason {
        SkipReason::NoSender => (
            "No sender in the From header",
            "The From header is missing or cannot be read. Have the application write one address there.",
        ),
        SkipReason::UnknownDomain => (
            "The domain is not set up here",
            "Add the domain of the From header, exactly as it is there, if its mail is to be tracked.",
        ),
        SkipReason::SwitchedOff => {
            ("Tracking is switched off", "The switch for all mail or for the domain is off: trackpost tracking on.")
        }
        SkipReason::Disabled => (
            "Tracking is not turned on",
            "Turn on opens or clicks in the domain's configuration. Right for password resets and receipts.",
        ),
        SkipReason::NoSubdomain => ("No tracking subdomain", "Give the domain a subdomain in its configuration."),
        SkipReason::NotVerified => (
            "The subdomain is not verified",
            "Add the DNS records that the domain's page shows, then have them looked for.",
        ),
        SkipReason::NoCertificate => (
            "No certificate for the subdomain",
            "Browsers would not take the links yet. The domain's page says what the certificate waits for.",
        ),
        SkipReason::ExcludedRecipient => (
            "All recipients are excluded",
            "The domain's configuration names recipients who are never tracked. Nothing is to be done if that is meant.",
        ),
        SkipReason::OptedOut => {
            ("All recipients have opted out", "They want no tracking. Nothing is to be done: their wish stands.")
        }
        SkipReason::AskedByHeader => (
            "The message asked for it",
            "A header field such as X-Trackpost-Track switches tracking off. Nothing is to be done if that is meant.",
        ),
        SkipReason::DkimSigned => (
            "Signed before it came here",
            "A change would break the signature. Sign behind the relay, let the relay sign, or see on_signed in [rewrite].",
        ),
        SkipReason::BrokenStructure => (
            "A broken MIME structure",
            "Mail programs could read it in different ways. Have what composes the mail close every part it opens.",
        ),
        SkipReason::TooDeep => ("Parts nested too deeply", "Have what composes the mail nest fewer parts."),
        SkipReason::TooManyParts => ("Too many parts", "Have what composes the mail use fewer parts."),
        SkipReason::TooManyLinks => ("Too many links", "Have what composes the mail use fewer links in one message."),
        SkipReason::TooManyRecipients => ("Too many recipients", "Send it in several messages."),
        SkipReason::InlinePgp => ("Signed or encrypted with PGP", "A change would break it. Nothing is to be done."),
        SkipReason::Panicked => (
            "A fault of the relay",
            "The mail went out as it came. Please report this with the message; the server's log says more.",
        ),
        SkipReason::SignedPart => ("A signed part", "A change would break the signature. Nothing is to be done."),
        SkipReason::EncryptedPart => ("An encrypted part", "There is nothing to be read in it. Nothing is to be done."),
        SkipReason::Report => ("A delivery report", "Reports about mail are left alone. Nothing is to be done."),
        SkipReason::Pkcs7 => ("Signed or encrypted with S/MIME", "A change would break it. Nothing is to be done."),
        SkipReason::EmbeddedMessage => {
            ("A message within", "Forwarded messages are left alone. Nothing is to be done.")
        }
        SkipReason::Attachment => ("An attachment", "Attached files are left alone. Nothing is to be done."),
        SkipReason::Amp => ("An AMP part", "AMP allows no links of others. Nothing is to be done."),
        SkipReason::Undecodable => (
            "Cannot be decoded",
            "The part is not in the encoding that it names. Have what composes the mail encode it rightly.",
        ),
        SkipReason::UnknownEncoding => ("An unknown encoding", "Use quoted-printable or base64."),
        SkipReason::Charset => ("A charset that is not read", "Use UTF-8."),
        SkipReason::TooLarge => ("Too large", "The HTML is larger than what is rewritten. Send less of it."),
        SkipReason::AmbiguousHtml => (
            "Ambiguous HTML",
            "Mail programs could read it in different ways. Have the HTML checked for tags and quotes left open.",
        ),
        SkipReason::OtherScheme => ("Not a web address", "Only http and https are tracked. Nothing is to be done."),
        SkipReason::Relative => ("A relative address", "It leads nowhere in mail. Write the whole address."),
        SkipReason::Fragment => ("A place in the message", "It leads nowhere else. Nothing is to be done."),
        SkipReason::MalformedUrl => ("A malformed address", "No browser could follow it. Correct the address."),
        SkipReason::Placeholder => (
            "A placeholder",
            "A template's variable was left as it was. See that it is filled in before the mail comes here.",
        ),
        SkipReason::OwnHost => ("A tracking link already", "It leads to a tracking host. Nothing is to be done."),
        SkipReason::ListUnsubscribe => {
            ("The way to unsubscribe", "It is never tracked, so that it always works. Nothing is to be done.")
        }
        SkipReason::TooLong => ("Too long an address", "Shorten the address."),
        SkipReason::Excluded => ("Excluded", "The message says that it is not to be tracked. Nothing is to be done."),
        SkipReason::UnquotedInComment => ("Within a comment", "Put the address in quotes, or take the comment out."),
        SkipReason::OpenTrackingOff => {
            ("Opens are not tracked", "Turn on opens in the domain's configuration if they are to be counted.")
        }
        SkipReason::NoHtml => (
            "No HTML, so nothing to track",
            "Plain text is left as it came. Send an HTML part as well if opens and clicks are to be counted.",
        ),
        SkipReason::NoSafePlace => ("No place for the pixel", "Have the HTML end with </body></html>."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_known_by_the_names_that_counts_have() {
        for reason in [SkipReason::NoHtml, SkipReason::Pkcs7, SkipReason::UnknownDomain, SkipReason::OptedOut] {
            assert_eq!(explain(&reason.to_string()), said(reason));
        }
        assert_eq!(explain("no-html").0, "No HTML, so nothing to track");
        assert_eq!(explain("<b>").0, "Another reason");
    }
}
