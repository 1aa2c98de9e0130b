//! One command line into one [`Command`] (RFC 5321 §4.1, with the parameters of SIZE, 8BITMIME, SMTPUTF8, DSN, AUTH).
//!
//! smtp-proto reads verbs, mechanisms and those parameters that [`super::parameters`] does not take out of the line
//! before. Whether a command is allowed now is for the session.

use super::parameters;
use crate::mail::{Address, AddressError, Body, Notify, Recipient, Return};
use smtp_proto::{
    AUTH_LOGIN, AUTH_PLAIN, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8,
    RCPT_NOTIFY_DELAY, RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS, Request,
};
use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    Ehlo(Cow<'a, str>),
    Helo(Cow<'a, str>),
    Mail(Mail),
    Rcpt(Recipient),
    Data,
    Bdat,
    StartTls,
    Auth {
        mechanism: Mechanism,
        /// The initial response as it came, in base64.
        initial: Option<Cow<'a, str>>,
    },
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    /// The first line of an HTTP request: a browser, or somebody who makes one speak to us.
    Http,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mail {
    pub sender: Option<Address>,
    /// SIZE in octets; `None` when it was not said or 0, which says nothing (RFC 1870 §6.1).
    pub declared: Option<u64>,
    pub body: Body,
    pub smtputf8: bool,
    pub ret: Option<Return>,
    pub envid: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    Login,
}

/// What is wrong with a command line. All of it is the client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    UnknownCommand,
    /// Not the grammar of the command, or a parameter whose value is wrong or that is there twice.
    Syntax,
    UnknownParameter,
    UnknownMechanism,
    Sender(AddressError),
    Recipient(AddressError),
    /// SIZE of 2^63 octets and more.
    TooLarge,
}

impl<'a> Command<'a> {
    /// Reads `line`, which holds no CR, LF or NUL.
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        match path_of(line) {
            Some(Path::Reverse) => return mail(line).map(Self::Mail),
            Some(Path::Forward) => return recipient(line).map(Self::Rcpt),
            None if is_http(line) => return Ok(Self::Http),
            None => {}
        }
        let with_crlf = [line, b"\r\n"].concat();
        let command = match Request::parse(&mut with_crlf.iter()).map_err(error_of)? {
            Request::Ehlo { host } => Self::Ehlo(Cow::Owned(host.into_owned())),
            Request::Helo { host } => Self::Helo(Cow::Owned(host.into_owned())),
            Request::Auth { mechanism, initial_response } => {
                if words(line).count() > 3 {
                    return Err(CommandError::Syntax);
                }
                let mechanism = match mechanism {
                    AUTH_PLAIN => Mechanism::Plain,
                    AUTH_LOGIN => Mechanism::Login,
                    _ => return Err(CommandError::UnknownMechanism),
                };
                let initial = Some(initial_response.into_owned()).filter(|text| !text.is_empty());
                Self::Auth { mechanism, initial: initial.map(Cow::Owned) }
            }
            Request::Data => Self::Data,
            Request::StartTls => Self::StartTls,
            Request::Rset => Self::Rset,
            Request::Quit => Self::Quit,
            Request::Bdat { .. } => Self::Bdat,
            Request::Noop { .. } => Self::Noop,
            Request::Vrfy { .. } => Self::Vrfy,
            Request::Expn { .. } => Self::Expn,
            Request::Help { .. } => Self::Help,
            _ => return Err(CommandError::UnknownCommand),
        };
        let bare = matches!(command, Self::Data | Self::StartTls | Self::Rset | Self::Quit);
        if bare && words(line).count() > 1 {
            return Err(CommandError::Syntax);
        }
        Ok(command)
    }
}

/// Which path a MAIL or RCPT command carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Reverse,
    Forward,
}

/// `Some` when the line is a MAIL or RCPT command, well formed or not.
pub(super) fn path_of(line: &[u8]) -> Option<Path> {
    let verb = words(line).next()?;
    if verb.eq_ignore_ascii_case(b"MAIL") {
        Some(Path::Reverse)
    } else if verb.eq_ignore_ascii_case(b"RCPT") {
        Some(Path::Forward)
    } else {
        None
    }
}

/// True when `line`, the beginning of a MAIL or RCPT command, breaks off between the angle brackets.
pub(super) fn is_in_path(line: &[u8]) -> bool {
    matches!(memchr::memrchr2(b'<', b'>', line), Some(at) if line[at] == b'<')
}

/// True for the commands after which a client must wait for the reply (RFC 2920 §3.1, RFC 3207 §4), and for BDAT,
/// whose chunk would be read as commands since we do not offer it. Right for malformed lines too.
pub(super) fn ends_group(line: &[u8]) -> bool {
    let verb = words(line).next().unwrap_or_default();
    [&b"DATA"[..], b"STARTTLS", b"BDAT"].iter().any(|word| verb.eq_ignore_ascii_case(word))
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty())
}

fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"CONNECT ", b"DELETE ", b"PATCH ", b"TRACE "];
    METHODS.iter().any(|method| line.starts_with(method))
}

fn mail(line: &[u8]) -> Result<Mail, CommandError> {
    let parts = parameters::split(line, CommandError::Sender, &["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"])?;
    let sender = match parts.path {
        "" => None,
        path => Some(Address::parse(parameters::without_route(path)).map_err(CommandError::Sender)?),
    };
    let envid = parts.envid.map(|text| parameters::envid(text).ok_or(CommandError::Syntax)).transpose()?;
    let Request::Mail { from } = Request::parse(&mut parts.rest.iter()).map_err(error_of)? else {
        return Err(CommandError::Syntax);
    };
    if from.flags & MAIL_BODY_BINARYMIME != 0 {
        return Err(CommandError::UnknownParameter);
    }
    let ret = match (from.flags & MAIL_RET_FULL != 0, from.flags & MAIL_RET_HDRS != 0) {
        (true, _) => Some(Return::Full),
        (_, true) => Some(Return::Headers),
        _ => None,
    };
    let body = if from.flags & MAIL_BODY_8BITMIME != 0 { Body::EightBitMime } else { Body::SevenBit };
    let declared = Some(from.size as u64).filter(|size| *size > 0);
    Ok(Mail { sender, declared, body, smtputf8: from.flags & MAIL_SMTPUTF8 != 0, ret, envid })
}

fn recipient(line: &[u8]) -> Result<Recipient, CommandError> {
    let parts = parameters::split(line, CommandError::Recipient, &["NOTIFY", "ORCPT"])?;
    let address = Address::parse(parameters::without_route(parts.path)).map_err(CommandError::Recipient)?;
    let orcpt = parts.orcpt.map(|text| parameters::orcpt(text).ok_or(CommandError::Syntax)).transpose()?;
    let Request::Rcpt { to } = Request::parse(&mut parts.rest.iter()).map_err(error_of)? else {
        return Err(CommandError::Syntax);
    };
    let success = to.flags & RCPT_NOTIFY_SUCCESS != 0;
    let failure = to.flags & RCPT_NOTIFY_FAILURE != 0;
    let delay = to.flags & RCPT_NOTIFY_DELAY != 0;
    let never = to.flags & RCPT_NOTIFY_NEVER != 0;
    if never && (success || failure || delay) {
        return Err(CommandError::Syntax);
    }
    let given = never || success || failure || delay;
    Ok(Recipient { address, notify: Notify { given, success, failure, delay }, orcpt })
}

fn error_of(error: smtp_proto::Error) -> CommandError {
    match error {
        smtp_proto::Error::UnknownCommand => CommandError::UnknownCommand,
        smtp_proto::Error::UnsupportedParameter { .. } => CommandError::UnknownParameter,
        _ => CommandError::Syntax,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sender(text: &str) -> Mail {
        let sender = (!text.is_empty()).then(|| Address::parse(text).unwrap());
        Mail { sender, declared: None, body: Body::SevenBit, smtputf8: false, ret: None, envid: None }
    }

    #[test]
    fn mail_commands() {
        use CommandError::*;
        let table: &[(&str, Result<Mail, CommandError>)] = &[
            ("MAIL FROM:<>", Ok(sender(""))),
            ("mail from:<a@example.com>", Ok(sender("a@example.com"))),
            ("MAIL FROM: <a@example.com> ", Ok(sender("a@example.com"))),
            ("MAIL FROM:<a..b.@example.com>", Ok(sender("a..b.@example.com"))),
            ("MAIL FROM:<\"a b\"@example.com>", Ok(sender("\"a b\"@example.com"))),
            ("MAIL FROM:<\"a>\\\"b\"@example.com>", Ok(sender("\"a>\\\"b\"@example.com"))),
            ("MAIL FROM:<@x.test,@y.test:a@example.com>", Ok(sender("a@example.com"))),
            ("MAIL FROM:<a@[IPv6:::1]>", Ok(sender("a@[IPv6:::1]"))),
            ("MAIL FROM:<postmaster>", Ok(sender("postmaster"))),
            ("MAIL FROM:<grüße@example.com> SMTPUTF8", Ok(Mail { smtputf8: true, ..sender("grüße@example.com") })),
            (
                "MAIL FROM:<> SIZE=1000 BODY=8bitmime ret=HDRS ENVID=Q+2BQ+20x AUTH=<>",
                Ok(Mail {
                    declared: Some(1_000),
                    body: Body::EightBitMime,
                    ret: Some(Return::Headers),
                    envid: Some("Q+Q x".into()),
                    ..sender("")
                }),
            ),
            ("MAIL FROM:<> RET=FULL BODY=7BIT", Ok(Mail { ret: Some(Return::Full), ..sender("") })),
            ("MAIL FROM:<> SIZE=0", Ok(sender(""))),
            ("MAIL FROM:<> SIZE=00000000000000000000007", Ok(Mail { declared: Some(7), ..sender("") })),
            (
                "MAIL FROM:<> SIZE=999999999999999999",
                Ok(Mail { declared: Some(999_999_999_999_999_999), ..sender("") }),
            ),
            ("MAIL FROM:<> SIZE=99999999999999999999999", Err(TooLarge)),
            ("MAIL FROM:<> SIZE=", Err(Syntax)),
            ("MAIL FROM:<> SIZE", Err(Syntax)),
            ("MAIL FROM:<> SIZE=-1", Err(Syntax)),
            ("MAIL FROM:<> SIZE=1 SIZE=2", Err(Syntax)),
            ("MAIL FROM:<> BODY=BINARYMIME", Err(UnknownParameter)),
            ("MAIL FROM:<> BODY=9BIT", Err(Syntax)),
            ("MAIL FROM:<> SMTPUTF8=1", Err(Syntax)),
            ("MAIL FROM:<> RET=BOTH", Err(Syntax)),
            ("MAIL FROM:<> ENVID=a+", Err(Syntax)),
            ("MAIL FROM:<> ENVID=a+0D+0A", Err(Syntax)),
            ("MAIL FROM:<> REQUIRETLS", Err(UnknownParameter)),
            ("MAIL FROM:<> HOLDFOR=10", Err(UnknownParameter)),
            ("MAIL FROM:<> NOTIFY=NEVER", Err(UnknownParameter)),
            ("MAIL FROM:<> =", Err(UnknownParameter)),
            ("MAIL FROM:<>SIZE=1", Err(Syntax)),
            ("MAIL FROM:<", Err(Syntax)),
            ("MAIL FROM:a@example.com", Err(Syntax)),
            ("MAIL FROM:x <a@example.com>", Err(Syntax)),
            ("MAIL TO:<a@example.com>", Err(Syntax)),
            ("MAIL <a@example.com>", Err(Syntax)),
            ("MAIL", Err(Syntax)),
            ("MAIL FROM:<\"a@example.com>", Err(Syntax)),
            ("MAIL FROM:<root>", Err(Sender(AddressError::NoDomain))),
            ("MAIL FROM:<a b@example.com>", Err(Sender(AddressError::BadLocalPart))),
            ("MAIL FROM:<@x.test:>", Err(Sender(AddressError::Empty))),
            ("MAIL FROM:<a\tb@example.com>", Err(Sender(AddressError::Control))),
        ];
        for (line, want) in table {
            assert_eq!(Command::parse(line.as_bytes()), want.clone().map(Command::Mail), "{line}");
        }
        let latin1 = b"MAIL FROM:<gr\xfc\xdfe@example.com>";
        assert_eq!(Command::parse(latin1), Err(Sender(AddressError::BadLocalPart)));
    }

    #[test]
    fn rcpt_commands() {
        use CommandError::{Syntax, UnknownParameter};
        let to = |text: &str| Recipient::from(Address::parse(text).unwrap());
        let notify = |success, failure, delay| Notify { given: true, success, failure, delay };
        let table: &[(&str, Result<Recipient, CommandError>)] = &[
            ("RCPT TO:<b@example.net>", Ok(to("b@example.net"))),
            ("rcpt to:<Postmaster>", Ok(to("Postmaster"))),
            ("RCPT TO:<@relay.test:b@example.net>", Ok(to("b@example.net"))),
            ("RCPT TO:<a%b@example.net>", Ok(to("a%b@example.net"))),
            ("RCPT TO:<a!b@example.net>", Ok(to("a!b@example.net"))),
            (
                "RCPT TO:<b@example.net> NOTIFY=SUCCESS,delay ORCPT=rfc822;b+2Bx@example.net",
                Ok(Recipient {
                    notify: notify(true, false, true),
                    orcpt: Some("rfc822;b+x@example.net".into()),
                    ..to("b@example.net")
                }),
            ),
            (
                "RCPT TO:<b@example.net> NOTIFY=NEVER ORCPT=utf-8;grüße@example.net",
                Ok(Recipient {
                    notify: notify(false, false, false),
                    orcpt: Some("utf-8;grüße@example.net".into()),
                    ..to("b@example.net")
                }),
            ),
            ("RCPT TO:<b@example.net> NOTIFY=NEVER,SUCCESS", Err(Syntax)),
            ("RCPT TO:<b@example.net> NOTIFY=SUCCESS,NEVER", Err(Syntax)),
            ("RCPT TO:<b@example.net> NOTIFY=", Err(Syntax)),
            ("RCPT TO:<b@example.net> NOTIFY=X", Err(Syntax)),
            ("RCPT TO:<b@example.net> ORCPT=b@example.net", Err(Syntax)),
            ("RCPT TO:<b@example.net> ORCPT=rfc822;a+0Ab", Err(Syntax)),
            ("RCPT TO:<b@example.net> SIZE=1", Err(UnknownParameter)),
            ("RCPT TO:<b@example.net> RRVS=2026-01-01T00:00:00Z", Err(UnknownParameter)),
            ("RCPT TO:<>", Err(CommandError::Recipient(AddressError::Empty))),
            ("RCPT TO:<b>", Err(CommandError::Recipient(AddressError::NoDomain))),
            ("RCPT FROM:<b@example.net>", Err(Syntax)),
            ("RCPT TO:b@example.net", Err(Syntax)),
        ];
        for (line, want) in table {
            assert_eq!(Command::parse(line.as_bytes()), want.clone().map(Command::Rcpt), "{line}");
        }
    }

    #[test]
    fn other_commands() {
        use CommandError::*;
        let auth =
            |mechanism, initial: Option<&'static str>| Command::Auth { mechanism, initial: initial.map(Cow::from) };
        let table = [
            ("EHLO client.example.com", Ok(Command::Ehlo("client.example.com".into()))),
            ("ehlo [IPv6:::1]", Ok(Command::Ehlo("[IPv6:::1]".into()))),
            ("HELO x", Ok(Command::Helo("x".into()))),
            ("EHLO", Err(Syntax)),
            ("DATA", Ok(Command::Data)),
            ("data ", Ok(Command::Data)),
            ("DATA now", Err(Syntax)),
            ("RSET", Ok(Command::Rset)),
            ("RSET x", Err(Syntax)),
            ("QUIT", Ok(Command::Quit)),
            ("QUIT x", Err(Syntax)),
            ("STARTTLS", Ok(Command::StartTls)),
            ("STARTTLS x", Err(Syntax)),
            ("NOOP", Ok(Command::Noop)),
            ("NOOP \"what", Ok(Command::Noop)),
            ("VRFY a", Ok(Command::Vrfy)),
            ("VRFY", Err(Syntax)),
            ("EXPN list", Ok(Command::Expn)),
            ("HELP", Ok(Command::Help)),
            ("HELP me", Ok(Command::Help)),
            ("BDAT 10 LAST", Ok(Command::Bdat)),
            ("BDAT x", Err(Syntax)),
            ("AUTH PLAIN", Ok(auth(Mechanism::Plain, None))),
            ("AUTH plain AGEAYg==", Ok(auth(Mechanism::Plain, Some("AGEAYg==")))),
            ("AUTH PLAIN =", Ok(auth(Mechanism::Plain, Some("=")))),
            ("AUTH LOGIN", Ok(auth(Mechanism::Login, None))),
            ("AUTH PLAIN a b", Err(Syntax)),
            ("AUTH", Err(Syntax)),
            ("AUTH CRAM-MD5", Err(UnknownMechanism)),
            ("AUTH WHATEVER-ELSE", Err(UnknownMechanism)),
            ("LHLO x", Err(UnknownCommand)),
            ("ETRN x", Err(UnknownCommand)),
            ("DATAX", Err(UnknownCommand)),
            ("MAILX FROM:<>", Err(UnknownCommand)),
            ("STARTTLSX", Err(UnknownCommand)),
            ("", Err(UnknownCommand)),
            ("GET / HTTP/1.1", Ok(Command::Http)),
            ("POST / HTTP/1.1", Ok(Command::Http)),
        ];
        for (line, want) in table {
            assert_eq!(Command::parse(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn groups_end_at_malformed_commands_too() {
        for line in ["DATA", "data x", " DATA", "DATA\tx", "STARTTLS", "BDAT 1", "BDAT"] {
            assert!(ends_group(line.as_bytes()), "{line}");
        }
        for line in ["", "DATAX", "RCPT TO:<data>", "NOOP DATA"] {
            assert!(!ends_group(line.as_bytes()), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(head in "(MAIL FROM:<|RCPT TO:<|AUTH |EHLO |)", tail in "[ -~é\t=+;<>\"\\\\]{0,60}") {
            let _ = Command::parse(format!("{head}{tail}").as_bytes());
        }

        #[test]
        fn no_bytes_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Command::parse(&line);
        }
    }
}
