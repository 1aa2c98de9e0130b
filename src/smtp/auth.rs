//! The exchanges of AUTH PLAIN and LOGIN (RFC 4954, RFC 4616). It decodes; whether the password is right is asked of
//! the shell.

use super::command::Mechanism;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Which line of the client comes next.
pub(super) enum Exchange {
    Plain,
    LoginName,
    LoginPassword { username: String },
}

/// What to do after a line of the client.
pub(super) enum Step {
    /// Send `334` and this challenge, in base64, and wait for the next line.
    Ask(Exchange, &'static str),
    Check {
        username: String,
        password: String,
    },
    /// The client sent `*`.
    Cancelled,
    /// Not base64, not UTF-8, or not the parts that the mechanism wants.
    Malformed,
}

/// `initial`: the response on the AUTH line itself; `=` stands for an empty one (RFC 4954 §4).
pub(super) fn begin(mechanism: Mechanism, initial: Option<&str>) -> Step {
    let first = match mechanism {
        Mechanism::Plain => Exchange::Plain,
        Mechanism::Login => Exchange::LoginName,
    };
    match (initial, first) {
        (Some("="), first) => first.answer(b""),
        (Some(text), first) => first.answer(text.as_bytes()),
        (None, Exchange::Plain) => Step::Ask(Exchange::Plain, ""),
        (None, first) => Step::Ask(first, "VXNlcm5hbWU6"),
    }
}

impl Exchange {
    /// Octets of memory that it holds.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Plain | Self::LoginName => 0,
            Self::LoginPassword { username } => username.capacity(),
        }
    }

    pub(super) fn answer(self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Cancelled;
        }
        let Some(text) = BASE64.decode(line).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return Step::Malformed;
        };
        match self {
            // RFC 4616 §2: [authzid] NUL authcid NUL passwd. Acting for somebody else has no meaning here.
            Self::Plain => match text.split('\0').collect::<Vec<_>>()[..] {
                [_, username, password] => Step::Check { username: username.into(), password: password.into() },
                _ => Step::Malformed,
            },
            Self::LoginName => Step::Ask(Self::LoginPassword { username: text }, "UGFzc3dvcmQ6"),
            Self::LoginPassword { username } => Step::Check { username, password: text },
        }
    }
}

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of the client, and what comes out: challenges and then the end.
    fn run(mechanism: Mechanism, initial: Option<&str>, lines: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        let mut step = begin(mechanism, initial);
        let mut lines = lines.iter();
        loop {
            step = match step {
                Step::Ask(next, challenge) => {
                    out.push(challenge.to_owned());
                    next.answer(lines.next().unwrap().as_bytes())
                }
                Step::Check { username, password } => return [out, vec![format!("{username}/{password}")]].concat(),
                Step::Cancelled => return [out, vec!["cancelled".into()]].concat(),
                Step::Malformed => return [out, vec!["malformed".into()]].concat(),
            };
        }
    }

    #[test]
    fn exchanges() {
        use Mechanism::{Login, Plain};
        let (name, secret) = ("VXNlcm5hbWU6", "UGFzc3dvcmQ6");
        assert_eq!(run(Plain, Some("AHVzZXIAcGFzcw=="), &[]), ["user/pass"]);
        assert_eq!(run(Plain, Some("AHVzZXIAcGFzcw"), &[]), ["user/pass"]);
        assert_eq!(run(Plain, None, &["YWRtaW4AdXNlcgBwYXNz"]), ["", "user/pass"]);
        assert_eq!(run(Plain, None, &["*"]), ["", "cancelled"]);
        assert_eq!(run(Plain, Some("="), &[]), ["malformed"]);
        assert_eq!(run(Plain, Some("dXNlcg=="), &[]), ["malformed"]);
        assert_eq!(run(Plain, Some("AGEAYgBj"), &[]), ["malformed"]);
        assert_eq!(run(Plain, Some("!"), &[]), ["malformed"]);
        assert_eq!(run(Plain, Some("AP8A/w=="), &[]), ["malformed"]);
        assert_eq!(run(Login, None, &["dXNlcg==", "cGFzcw=="]), [name, secret, "user/pass"]);
        assert_eq!(run(Login, Some("dXNlcg=="), &["cGFzcw=="]), [secret, "user/pass"]);
        assert_eq!(run(Login, None, &["dXNlcg==", "*"]), [name, secret, "cancelled"]);
        assert_eq!(run(Login, None, &["dXNlcg==", "%"]), [name, secret, "malformed"]);
    }
}
