//! Why something was left as it was, for people: what each reason of the report means and what can be done about it.

use crate::rewrite::SkipReason;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

/// A reason by its word, as reports and counts have it: what it means, and what to do about it.
pub fn explain(reason: &str) -> (&'static str, &'static str) {
    let word: StrDeserializer<'_, Error> = reason.into_deserializer();
    match SkipReason::deserialize(word) {
        Ok(reason) => said(reason),
        Err(_) => ("Left as it was", "A newer version has written this reason: see its docs/rewriting.md."),
    }
}

/// The same of a reason. Every one has a title without a period and a remedy in sentences.
pub fn said(reason: SkipReason) -> (&'static str, &'static str) {
    use SkipReason::*;
    match reason {
        NoSender => (
            "No From address that can be read",
            "The From header says whose mail it is. Have the program that sends write exactly one, with an address.",
        ),
        UnknownDomain => (
            "The From domain is not set up",
            "Add the domain under Domains, exactly as it stands in the From header: example.com does not cover \
             news.example.com.",
        ),
        SwitchedOff => (
            "Tracking was switched off by the operator",
            "On the machine of the relay, trackpost tracking on brings it back, for all mail or for one domain.",
        ),
        Disabled => (
            "Neither opens nor clicks are tracked for this domain",
            "Switch them on under Domains, in the domain's configuration. Leave them off for password resets and receipts.",
        ),
        NoSubdomain => (
            "The domain has no tracking subdomain",
            "Choose one under Domains, in the domain's configuration, and add the record that is shown there.",
        ),
        NotVerified => (
            "The tracking subdomain was not verified",
            "Look at the domain's records: they say what DNS answers instead. Add the record, then ask for a check.",
        ),
        NoCertificate => (
            "The tracking subdomain did not answer over HTTPS",
            "No browser would have followed the links. Look at the certificate on the domain's page, or at the proxy \
             that ends TLS.",
        ),
        ExcludedRecipient => (
            "All its recipients are excluded from tracking",
            "Nothing needs to be done. Who is excluded stands in the domain's configuration.",
        ),
        OptedOut => (
            "All its recipients have opted out of tracking",
            "Nothing needs to be done: they are not tracked until they opt in again.",
        ),
        Inbound => (
            "It came in by an inbound listener",
            "Nothing needs to be done: mail that comes in is passed on as it is, whatever domain its From header names.",
        ),
        AskedByHeader => (
            "The message asked for it in its header",
            "Nothing needs to be done. If it should be tracked, leave out X-Trackpost-Track and its like at other \
             providers.",
        ),
        DkimSigned => (
            "It was signed with DKIM before it came here",
            "Rewriting would break the signature. Let trackpost sign for the domain, or sign behind it and not before it.",
        ),
        BrokenStructure => (
            "Its MIME structure can be read in two ways",
            "Programs would see different parts, so nothing was touched. Have the program that writes the mail mended: \
             often a boundary is missing.",
        ),
        TooDeep => (
            "Its parts are nested too deeply",
            "Over 100 levels are not followed. Have the program that writes the mail mended.",
        ),
        TooManyParts => {
            ("It has too many parts", "Over 10,000 parts are not looked at. Send fewer attachments in one message.")
        }
        TooManyLinks => (
            "It has too many links",
            "Send fewer links in one message, or have the operator raise max_links in the configuration.",
        ),
        TooManyRecipients => {
            ("It has too many recipients", "Links count up to 32,768 recipients of one message. Send it in several.")
        }
        InlinePgp => (
            "It holds a message that is encrypted or signed with PGP",
            "Nothing needs to be done: changing it would break what is signed.",
        ),
        Panicked => {
            ("A fault of trackpost", "The message went out as it came. Please report it, with the message if you can.")
        }
        SignedPart => {
            ("It is signed with S/MIME or PGP", "Nothing needs to be done: changing it would break the signature.")
        }
        EncryptedPart => ("It is encrypted", "Nothing needs to be done: what is inside cannot be read here."),
        Report => ("It is a delivery report", "Nothing needs to be done: programs read these."),
        Pkcs7 => (
            "It is signed or encrypted with S/MIME",
            "Nothing needs to be done: changing it would break the signature, or it cannot be read here.",
        ),
        EmbeddedMessage => (
            "A forwarded message inside it was left alone",
            "Nothing needs to be done: what somebody else wrote is passed on as it is.",
        ),
        Attachment => ("Attachments are left alone", "Nothing needs to be done. HTML that is to be read goes inline."),
        Amp => ("The AMP part was left alone", "Nothing needs to be done: readers' programs check it themselves."),
        Undecodable => (
            "Its transfer encoding is damaged",
            "Have the program that writes the mail mended: base64 or quoted-printable of the part cannot be decoded.",
        ),
        UnknownEncoding => (
            "Its transfer encoding is unknown",
            "Have the program that writes the mail use base64, quoted-printable, 8bit or 7bit.",
        ),
        Charset => (
            "Its character set is unknown, or cannot be searched",
            "Write the HTML in UTF-8. UTF-16, UTF-7 and ISO-2022-JP are left alone.",
        ),
        TooLarge => (
            "Its HTML is too large",
            "Make it smaller, or have the operator raise max_html_size. Gmail clips HTML over 102 KB in any case.",
        ),
        AmbiguousHtml => (
            "Its HTML can be read in two ways",
            "Mail programs would see different elements, so it was left alone. Check the HTML, above all elements that \
             are never closed: select, textarea, svg.",
        ),
        OtherScheme => (
            "Not a web link",
            "Nothing needs to be done: mailto:, tel: and their like have no detour over a web server.",
        ),
        Relative => ("No host in the link", "Write the whole address, with https:// and the host."),
        Fragment => ("Leads to a place inside the mail", "Nothing needs to be done."),
        MalformedUrl => {
            ("Not an address that a browser could ask for", "Correct it: a web link begins with https:// and a host.")
        }
        Placeholder => (
            "A placeholder that was not filled in",
            "If a program further on fills it in, nothing needs to be done. If not, the template was sent unfilled: \
             readers cannot follow this link.",
        ),
        OwnHost => (
            "Leads to the tracking subdomain already",
            "Nothing needs to be done. A mail that quotes a tracked one has such links.",
        ),
        ListUnsubscribe => (
            "Unsubscribes",
            "Nothing needs to be done: the link stands in List-Unsubscribe, and mail programs compare the two.",
        ),
        TooLong => {
            ("The tracked link would be too long", "Shorten the address, or have the operator raise max_link_length.")
        }
        Excluded => {
            ("Excluded by the sender", "Nothing needs to be done: an attribute such as data-track=\"off\" asks for it.")
        }
        UnquotedInComment => {
            ("Not in quotes, inside a comment for Outlook", "Put the address into quotes: href=\"…\".")
        }
        OpenTrackingOff => (
            "Opens are not tracked",
            "Switch them on in the domain's configuration, if the message did not ask for it in its header.",
        ),
        NoHtml => ("No HTML in it", "Nothing needs to be done: text alone can be neither rewritten nor have a pixel."),
        NoSafePlace => (
            "No place for the pixel",
            "Its HTML has no end of a body that all programs see. Close what is open before </body>.",
        ),
    }
}

/// Whether a domain's configuration is the place to do something about it.
pub fn lies_with_the_domain(reason: SkipReason) -> bool {
    use SkipReason::*;
    matches!(
        reason,
        Disabled | NoSubdomain | NotVerified | NoCertificate | ExcludedRecipient | DkimSigned | OpenTrackingOff
    )
}

/// What an open or a click was taken for, in words: `machine (fast-click)` is a class and a reason.
pub fn hit(class: &str, reason: &str) -> String {
    let (kind, name) = reason.split_once(':').unwrap_or((reason, ""));
    let why = match kind {
        "head" => "a HEAD request, whose answer nobody reads".to_owned(),
        "no-agent" => "no program named itself".to_owned(),
        "apple-mail-privacy" => "Apple's proxy, which fetches images whether or not the mail is read".to_owned(),
        "google-image-proxy" => "Google's image proxy".to_owned(),
        "yahoo-image-proxy" => "Yahoo's image proxy".to_owned(),
        "link-scanner" => format!("a mail filter: {name}"),
        "known-agent" => format!("a program: {name}"),
        "fast-click" => "less than 2 seconds after delivery".to_owned(),
        "burst" => "one of many clicks at once".to_owned(),
        "many-recipients" => "the same client over many recipients".to_owned(),
        "flood" => "one address over and over".to_owned(),
        "not-delivered" => "its delivery is not recorded".to_owned(),
        other => other.to_owned(),
    };
    match (class, reason) {
        (class, "") => class.to_owned(),
        (class, _) => format!("{class}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MachineReason;
    use std::collections::HashSet;

    /// All there are, as postcard numbers them.
    fn all() -> Vec<SkipReason> {
        (0u8..127).map_while(|number| postcard::from_bytes(&[number]).ok()).collect()
    }

    #[test]
    fn every_reason_is_explained() {
        let all = all();
        assert!(all.len() > 40 && all.contains(&SkipReason::NoSafePlace), "{}", all.len());
        let mut titles = HashSet::new();
        for reason in all {
            let (title, remedy) = explain(&reason.to_string());
            assert_eq!((title, remedy), said(reason));
            assert!(titles.insert(title), "{title} stands for two reasons");
            assert!(!title.is_empty() && !title.ends_with('.'), "{reason}: {title}");
            assert!(remedy.ends_with(['.', '…']) && remedy.len() > 10, "{reason}: {remedy}");
            for text in [title, remedy] {
                assert!(text.starts_with(char::is_uppercase) || text.starts_with("trackpost"), "{reason}: {text}");
                assert!(!text.contains("  "), "{reason}: {text}");
            }
        }
        assert_eq!(explain("of-another-version").0, "Left as it was");
        assert_eq!(explain("").0, "Left as it was");
    }

    #[test]
    fn hits_are_told_in_words() {
        assert_eq!(hit("human", ""), "human");
        assert_eq!(hit("machine", "link-scanner:barracuda"), "machine: a mail filter: barracuda");
        assert_eq!(hit("unknown", "not-delivered"), "unknown: its delivery is not recorded");
        for word in ["head", "no-agent", "apple-mail-privacy", "fast-click", "burst", "many-recipients", "flood"] {
            assert!(word.parse::<MachineReason>().is_ok());
            assert!(!hit("machine", word).contains(word), "{word} has no words");
        }
    }
}
