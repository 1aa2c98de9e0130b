//! Every fixed reply of the session in one place (RFC 5321 §4.2.3, RFC 3463, RFC 5248).

use super::command::CommandError;
use super::data::Fault;
use crate::mail::{Enhanced, Reply};

pub(super) const OK: Reply = Reply::new(250, Enhanced(2, 0, 0), "Ok");
pub(super) const SENDER_OK: Reply = Reply::new(250, Enhanced(2, 1, 0), "Ok");
pub(super) const RECIPIENT_OK: Reply = Reply::new(250, Enhanced(2, 1, 5), "Ok");
pub(super) const BYE: Reply = Reply::new(221, Enhanced(2, 0, 0), "Bye");
pub(super) const HELP: Reply = Reply::new(214, Enhanced(2, 0, 0), "EHLO MAIL RCPT DATA RSET NOOP QUIT");
pub(super) const CANNOT_VERIFY: Reply = Reply::new(252, Enhanced(2, 1, 5), "Cannot VRFY, but will take mail for relay");
pub(super) const READY_FOR_TLS: Reply = Reply::new(220, Enhanced(2, 0, 0), "Ready to start TLS");
pub(super) const AUTHENTICATED: Reply = Reply::new(235, Enhanced(2, 7, 0), "Authentication succeeded");

pub(super) const SHUTTING_DOWN: Reply = Reply::new(421, Enhanced(4, 3, 2), "Service shutting down");
pub(super) const TIMED_OUT: Reply = Reply::new(421, Enhanced(4, 4, 2), "Timed out waiting for the client");
pub(super) const TOO_MANY_ERRORS: Reply = Reply::new(421, Enhanced(4, 7, 0), "Too many errors");
pub(super) const TOO_MANY_COMMANDS: Reply = Reply::new(421, Enhanced(4, 7, 0), "Too many commands without mail");
pub(super) const TOO_MANY_AUTH_FAILURES: Reply = Reply::new(421, Enhanced(4, 7, 0), "Too many failed authentications");
pub(super) const NOT_HTTP: Reply = Reply::new(421, Enhanced(4, 7, 0), "This is an SMTP server");
pub(super) const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, Enhanced(4, 5, 3), "Too many recipients");
pub(super) const AUTH_UNAVAILABLE: Reply = Reply::new(454, Enhanced(4, 7, 0), "Temporary authentication failure");

pub(super) const BAD_LINE: Reply = Reply::new(500, Enhanced(5, 5, 2), "Bare CR, LF or NUL in a command");
pub(super) const LINE_TOO_LONG: Reply = Reply::new(500, Enhanced(5, 5, 2), "Line too long");
pub(super) const AUTH_LINE_TOO_LONG: Reply =
    Reply::new(500, Enhanced(5, 5, 6), "Authentication exchange line is too long");
pub(super) const AUTH_CANCELLED: Reply = Reply::new(501, Enhanced(5, 7, 0), "Authentication cancelled");
pub(super) const AUTH_MALFORMED: Reply = Reply::new(501, Enhanced(5, 5, 2), "Cannot decode the response");
pub(super) const BAD_SENDER_BYTES: Reply = Reply::new(501, Enhanced(5, 1, 7), "Control character in the address");
pub(super) const BAD_RECIPIENT_BYTES: Reply = Reply::new(501, Enhanced(5, 1, 3), "Control character in the address");
pub(super) const NOT_OFFERED: Reply = Reply::new(502, Enhanced(5, 5, 1), "Command not offered");
pub(super) const GREET_FIRST: Reply = Reply::new(503, Enhanced(5, 5, 1), "Send EHLO first");
pub(super) const NESTED_MAIL: Reply = Reply::new(503, Enhanced(5, 5, 1), "Nested MAIL command");
pub(super) const NEED_MAIL: Reply = Reply::new(503, Enhanced(5, 5, 1), "Send MAIL first");
pub(super) const AUTH_TWICE: Reply = Reply::new(503, Enhanced(5, 5, 1), "Already authenticated");
pub(super) const AUTH_IN_MAIL: Reply = Reply::new(503, Enhanced(5, 5, 1), "Not during a mail transaction");
pub(super) const TLS_TWICE: Reply = Reply::new(503, Enhanced(5, 5, 1), "TLS is active already");
pub(super) const AUTH_FIRST: Reply = Reply::new(530, Enhanced(5, 7, 0), "Authentication required");
pub(super) const BAD_CREDENTIALS: Reply = Reply::new(535, Enhanced(5, 7, 8), "Authentication credentials invalid");
pub(super) const ENCRYPTION_FIRST: Reply =
    Reply::new(538, Enhanced(5, 7, 11), "Encryption required for authentication");
pub(super) const RELAY_DENIED: Reply = Reply::new(550, Enhanced(5, 7, 1), "Relaying denied");
pub(super) const TOO_LARGE: Reply = Reply::new(552, Enhanced(5, 3, 4), "Message size exceeds the limit");
pub(super) const NEED_SMTPUTF8: Reply = Reply::new(553, Enhanced(5, 6, 7), "The address needs SMTPUTF8");
pub(super) const OUT_OF_STEP: Reply = Reply::new(554, Enhanced(5, 5, 0), "Client sent data before its turn");
pub(super) const NO_RECIPIENTS: Reply = Reply::new(554, Enhanced(5, 5, 1), "No valid recipients");

pub(super) fn command_error(error: CommandError) -> Reply {
    match error {
        CommandError::UnknownCommand => Reply::new(500, Enhanced(5, 5, 1), "Command not recognized"),
        CommandError::Syntax => Reply::new(501, Enhanced(5, 5, 4), "Syntax error in parameters"),
        CommandError::UnknownMechanism => Reply::new(504, Enhanced(5, 5, 4), "Authentication mechanism not offered"),
        CommandError::UnknownParameter => Reply::new(555, Enhanced(5, 5, 4), "Parameter not recognized"),
        CommandError::Sender(error) => Reply::with_text(501, Enhanced(5, 1, 7), format!("Bad sender: {error}")),
        CommandError::Recipient(error) => Reply::with_text(501, Enhanced(5, 1, 3), format!("Bad recipient: {error}")),
        CommandError::TooLarge => TOO_LARGE,
    }
}

pub(super) fn data_fault(fault: Fault) -> Reply {
    match fault {
        Fault::TooLarge => TOO_LARGE,
        Fault::Nul => Reply::new(550, Enhanced(5, 6, 0), "NUL in the message"),
        Fault::BareNewline => Reply::new(550, Enhanced(5, 5, 2), "Bare CR or LF in the message"),
    }
}
