//! The state of one session, and what every command does to it (RFC 5321 §3 and §4.1.4).
//!
//! The order below is the order of a session: banner, octets, commands, AUTH and TLS, a mail transaction, its data, the
//! end. Lines are cut in [`super::line`] and read in [`super::command`]; data is decoded in [`super::data`]. It is one
//! long file since it is one state machine: what a command may do depends on all the others.

#[cfg(test)]
mod tests;

use super::auth::{self, Exchange, Step};
use super::command::{self, Command, Mail, Mechanism, Path};
use super::data::{Decoder, Refused};
use super::line::{LineFault, LineReader};
use super::replies as say;
use super::{Auth, Event, Peer, Phase, SessionConfig, limits};
use crate::mail::{Envelope, Protocol, Recipient, Reply};
use std::borrow::Cow;
use std::sync::Arc;

/// One SMTP session. See [`super`] for how a shell drives it.
///
/// A method that answers an event does nothing unless that event is open.
pub struct Session {
    config: Arc<SessionConfig>,
    peer: Peer,
    state: State,
    lines: LineReader,
    output: Vec<u8>,
    helo: String,
    /// The client said EHLO, not HELO.
    extended: bool,
    authenticated: bool,
    transaction: Option<Transaction>,
    /// SMTPUTF8 of the last MAIL; outlives the transaction for the trace header.
    utf8: bool,
    mail_refusal: Option<Reply>,
    /// Given to RCPT and DATA of a transaction that was given up.
    given_up: Option<Reply>,
    /// Given at the end of the DATA under way, whatever comes.
    data_refusal: Option<Reply>,
    lines_ended: u64,
    errors: u32,
    idle_commands: u32,
    auth_failures: u32,
}

enum State {
    /// No banner yet.
    Connected,
    Command,
    Auth(Exchange),
    /// An event is open.
    Asking(Question),
    Data(Decoder),
    Closed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    StartTls,
    Authenticate,
    Data,
    Message,
}

struct Transaction {
    envelope: Envelope,
    declared: Option<u64>,
    /// Octets of the recipients' text.
    text: usize,
}

impl Session {
    pub fn new(config: Arc<SessionConfig>, peer: Peer) -> Self {
        Self {
            config,
            peer,
            state: State::Connected,
            lines: LineReader::default(),
            output: Vec::new(),
            helo: String::new(),
            extended: false,
            authenticated: false,
            transaction: None,
            utf8: false,
            mail_refusal: None,
            given_up: None,
            data_refusal: None,
            lines_ended: 0,
            errors: 0,
            idle_commands: 0,
            auth_failures: 0,
        }
    }

    /// Queues the banner. The shell first looks whether the client speaks before its turn ([`Self::early_talker`]).
    pub fn greet(&mut self) {
        if matches!(self.state, State::Connected) {
            self.reply(&Reply::plain(220, format!("{} ESMTP", self.config.hostname)));
            self.state = State::Command;
        }
    }

    /// Instead of the banner, when the client did not wait for it (RFC 5321 §4.3.1): 554, and the session closes.
    pub fn early_talker(&mut self) {
        self.close(&say::OUT_OF_STEP);
    }

    /// Instead of the banner (RFC 5321 §3.1): says why, and the session closes.
    pub fn refuse(&mut self, reply: Reply) {
        self.close(&reply);
    }

    /// Takes what the client sent, in the pieces in which it was read. Returns how many octets were used, all of them
    /// unless there is an event, and the event. The rest is passed in again once the event is answered; until then
    /// nothing is used. A closed session swallows everything and asks to be closed.
    pub fn input(&mut self, bytes: &[u8]) -> (usize, Option<Event>) {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            let (taken, event) = match &mut self.state {
                State::Closed => return (bytes.len(), Some(Event::Close)),
                State::Asking(_) => return (used, None),
                _ if rest.is_empty() => return (used, None),
                State::Connected => {
                    self.early_talker();
                    (0, None)
                }
                State::Data(decoder) => {
                    let (taken, end) = decoder.feed(rest);
                    (taken, end.and_then(|end| self.data_ended(end)))
                }
                State::Command | State::Auth(_) => {
                    let in_auth = matches!(self.state, State::Auth(_));
                    let (taken, line) = self.lines.next(rest, in_auth);
                    self.lines_ended += u64::from(line.is_some());
                    let event = match line {
                        Some(Ok(line)) => self.line(&line, taken < rest.len()),
                        Some(Err(fault)) => self.bad_line(&fault),
                        None => None,
                    };
                    (taken, event)
                }
            };
            used += taken;
            if event.is_some() {
                return (used, event);
            }
        }
    }

    /// Octets for the client; the shell writes them and clears the buffer.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    pub fn phase(&self) -> Phase {
        match self.state {
            State::Asking(_) => Phase::Answering,
            State::Data(_) => Phase::Data,
            State::Connected | State::Command | State::Auth(_) | State::Closed => Phase::Command,
        }
    }

    /// Which line has begun and not ended, counted from the first; `None` between two lines and in DATA.
    pub fn begun_line(&self) -> Option<u64> {
        let in_line = matches!(self.state, State::Command | State::Auth(_)) && self.lines.has_begun();
        in_line.then_some(self.lines_ended)
    }

    /// True when nothing more will be asked or answered: the output is all that is left to do.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// What the client called itself; empty before EHLO or HELO.
    pub fn helo(&self) -> &str {
        &self.helo
    }

    /// For the trace header of the message that was last handed over.
    pub fn protocol(&self) -> Protocol {
        Protocol { extended: self.extended, tls: self.peer.tls, authenticated: self.authenticated, utf8: self.utf8 }
    }

    /// While set, MAIL is answered with this: `452 4.3.1` with the disk nearly full, `451 4.3.2` with a full queue.
    pub fn set_mail_refusal(&mut self, reply: Option<Reply>) {
        self.mail_refusal = reply;
    }

    fn line(&mut self, line: &[u8], more: bool) -> Option<Event> {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Auth(exchange) => self.auth_step(exchange.answer(line)),
            _ => self.command(line, more),
        }
    }

    /// `more`: octets that came in the same segment stand behind the line.
    fn command(&mut self, line: &[u8], more: bool) -> Option<Event> {
        if more && command::ends_group(line) {
            return self.close(&say::OUT_OF_STEP);
        }
        match Command::parse(line) {
            Ok(Command::Mail(mail)) => self.mail(mail),
            Ok(Command::Rcpt(recipient)) => self.rcpt(recipient),
            Ok(Command::Data) => self.data(),
            Ok(Command::Ehlo(name)) => self.ehlo(&name),
            Ok(Command::Helo(name)) => self.helo_command(&name),
            Ok(Command::StartTls) => self.start_tls(),
            Ok(Command::Auth { mechanism, initial }) => self.auth(mechanism, initial),
            Ok(Command::Rset) => {
                (self.transaction, self.given_up) = (None, None);
                self.idle(&say::OK)
            }
            Ok(Command::Noop) => self.idle(&say::OK),
            Ok(Command::Vrfy) => self.idle(&say::CANNOT_VERIFY),
            Ok(Command::Help) => self.idle(&say::HELP),
            Ok(Command::Expn | Command::Bdat) => self.bad(&say::NOT_OFFERED),
            Ok(Command::Quit) => self.close(&say::BYE),
            Ok(Command::Http) => self.close(&say::NOT_HTTP),
            Err(error) => self.bad(&say::command_error(error)),
        }
    }

    fn bad_line(&mut self, fault: &LineFault<'_>) -> Option<Event> {
        if matches!(self.state, State::Auth(_)) {
            self.state = State::Command;
        }
        match fault {
            LineFault::TooLong => self.bad(&say::LINE_TOO_LONG),
            LineFault::TooLongAuth => self.bad(&say::AUTH_LINE_TOO_LONG),
            LineFault::Endless => self.close(&say::TOO_MANY_ERRORS),
            // A client that sends DATA so badly may send the message next, and its lines are not commands.
            LineFault::Control(line) if command::ends_group(line) => self.close(&say::OUT_OF_STEP),
            LineFault::Control(line) => match command::path_of(line).filter(|_| command::is_in_path(line)) {
                Some(Path::Reverse) => self.bad(&say::BAD_SENDER_BYTES),
                Some(Path::Forward) => self.bad(&say::BAD_RECIPIENT_BYTES),
                None => self.bad(&say::BAD_LINE),
            },
        }
    }

    fn ehlo(&mut self, name: &str) -> Option<Event> {
        self.greeted(name, true);
        let mut text = format!(
            "{}\nPIPELINING\nSIZE {}\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES\nDSN",
            self.config.hostname, self.config.max_message_size
        );
        if self.config.starttls && !self.peer.tls {
            text.push_str("\nSTARTTLS");
        }
        if self.config.auth != Auth::None && self.may_see_passwords() {
            text.push_str("\nAUTH PLAIN LOGIN");
        }
        self.idle(&Reply::plain(250, text))
    }

    fn helo_command(&mut self, name: &str) -> Option<Event> {
        self.greeted(name, false);
        self.idle(&Reply::plain(250, self.config.hostname.clone()))
    }

    /// EHLO and HELO end a transaction like RSET (RFC 5321 §4.1.4), and leave authentication alone.
    fn greeted(&mut self, name: &str, extended: bool) {
        self.helo = name.to_owned();
        self.extended = extended;
        (self.transaction, self.given_up) = (None, None);
    }

    fn start_tls(&mut self) -> Option<Event> {
        if self.peer.tls {
            return self.bad(&say::TLS_TWICE);
        }
        if !self.config.starttls {
            return self.bad(&say::NOT_OFFERED);
        }
        self.reply(&say::READY_FOR_TLS);
        self.ask(Question::StartTls, Event::StartTls)
    }

    /// Answers [`Event::StartTls`] after the handshake. All that the client said before is forgotten (RFC 3207 §4.2);
    /// what it did wrong is not.
    pub fn tls_started(&mut self) {
        if self.answers(Question::StartTls) {
            self.peer.tls = true;
            self.helo.clear();
            self.extended = false;
            self.authenticated = false;
            (self.transaction, self.given_up) = (None, None);
            self.utf8 = false;
            self.lines = LineReader::default();
        }
    }

    fn auth(&mut self, mechanism: Mechanism, initial: Option<Cow<'_, str>>) -> Option<Event> {
        if self.config.auth == Auth::None {
            self.bad(&say::NOT_OFFERED)
        } else if self.helo.is_empty() {
            self.bad(&say::GREET_FIRST)
        } else if self.authenticated {
            self.bad(&say::AUTH_TWICE)
        } else if self.transaction.is_some() {
            self.bad(&say::AUTH_IN_MAIL)
        } else if !self.may_see_passwords() {
            self.bad(&say::ENCRYPTION_FIRST)
        } else {
            self.auth_step(auth::begin(mechanism, initial.as_deref()))
        }
    }

    fn auth_step(&mut self, step: Step) -> Option<Event> {
        match step {
            Step::Ask(exchange, challenge) => {
                self.reply(&Reply::plain(334, challenge));
                self.state = State::Auth(exchange);
                None
            }
            Step::Check { username, password } => {
                self.ask(Question::Authenticate, Event::Authenticate { username, password })
            }
            Step::Cancelled => self.bad(&say::AUTH_CANCELLED),
            Step::Malformed => self.bad(&say::AUTH_MALFORMED),
        }
    }

    /// Answers [`Event::Authenticate`]: 235.
    pub fn auth_ok(&mut self) {
        if self.answers(Question::Authenticate) {
            self.authenticated = true;
            self.reply(&say::AUTHENTICATED);
        }
    }

    /// Answers [`Event::Authenticate`]: 535, or 421 and the end at the [`limits::AUTH_FAILURES`]th time. Wrong
    /// passwords and unknown users get the same answer; that it takes the same time is up to the shell.
    pub fn auth_failed(&mut self) {
        if self.answers(Question::Authenticate) {
            self.auth_failures += 1;
            if self.auth_failures >= limits::AUTH_FAILURES {
                self.close(&say::TOO_MANY_AUTH_FAILURES);
            } else {
                self.bad(&say::BAD_CREDENTIALS);
            }
        }
    }

    /// Answers [`Event::Authenticate`] when the password could not be checked: 454, or 421 as after wrong ones.
    pub fn auth_unavailable(&mut self) {
        if self.answers(Question::Authenticate) {
            self.auth_failures += 1;
            match self.auth_failures >= limits::AUTH_FAILURES {
                true => drop(self.close(&say::TOO_MANY_AUTH_FAILURES)),
                false => self.reply(&say::AUTH_UNAVAILABLE),
            }
        }
    }

    /// PLAIN and LOGIN carry the password in the clear (RFC 4954 §4).
    fn may_see_passwords(&self) -> bool {
        self.peer.tls || self.peer.address.to_canonical().is_loopback()
    }

    fn mail(&mut self, mail: Mail) -> Option<Event> {
        if self.helo.is_empty() {
            return self.bad(&say::GREET_FIRST);
        }
        if self.transaction.is_some() {
            return self.bad(&say::NESTED_MAIL);
        }
        if !self.authenticated && !self.peer.trusted {
            let refusal = if self.config.auth == Auth::None { say::RELAY_DENIED } else { say::AUTH_FIRST };
            return self.bad(&refusal);
        }
        if !mail.smtputf8 && mail.sender.as_ref().is_some_and(|sender| !sender.is_ascii()) {
            return self.bad(&say::NEED_SMTPUTF8);
        }
        if mail.declared.is_some_and(|size| size > self.config.max_message_size) {
            return self.bad(&say::TOO_LARGE);
        }
        if let Some(refusal) = self.mail_refusal.clone() {
            return self.say(&refusal);
        }
        let Mail { sender, declared, body, smtputf8, ret, envid } = mail;
        let envelope = Envelope { sender, recipients: Vec::new(), body, smtputf8, ret, envid };
        self.utf8 = smtputf8;
        self.given_up = None;
        self.transaction = Some(Transaction { envelope, declared, text: 0 });
        self.say(&say::SENDER_OK)
    }

    fn rcpt(&mut self, recipient: Recipient) -> Option<Event> {
        let max_recipients = self.config.max_recipients;
        let Some(Transaction { envelope, text, .. }) = &mut self.transaction else {
            return self.no_transaction();
        };
        if !envelope.smtputf8 && !recipient.address.is_ascii() {
            return self.bad(&say::NEED_SMTPUTF8);
        }
        // RFC 5321 §4.5.3.1.10: the client sends the others in another transaction; it did nothing wrong.
        if envelope.recipients.len() >= max_recipients {
            return self.say(&say::TOO_MANY_RECIPIENTS);
        }
        *text += recipient.address.as_str().len() + recipient.orcpt.as_ref().map_or(0, |orcpt| orcpt.len());
        envelope.recipients.push(recipient);
        self.say(&say::RECIPIENT_OK)
    }

    fn data(&mut self) -> Option<Event> {
        match &self.transaction {
            None => self.no_transaction(),
            Some(transaction) if transaction.envelope.recipients.is_empty() => self.bad(&say::NO_RECIPIENTS),
            Some(transaction) => {
                let declared = transaction.declared;
                self.ask(Question::Data, Event::Data { declared })
            }
        }
    }

    fn no_transaction(&mut self) -> Option<Event> {
        match self.given_up.clone() {
            Some(reply) => self.say(&reply),
            None => self.bad(&say::NEED_MAIL),
        }
    }

    /// Gives up the transaction before its DATA: `reply`, a 4xx or 5xx, comes to what the client still says in it.
    /// False if there is none.
    pub fn give_up_mail(&mut self, reply: Reply) -> bool {
        let is_open = self.transaction.take().is_some();
        if is_open {
            self.given_up = Some(reply);
        }
        is_open
    }

    /// Answers [`Event::Data`]: 354, and data begins.
    pub fn data_go_ahead(&mut self) {
        if self.answers(Question::Data) {
            let declared = self.transaction.as_ref().and_then(|transaction| transaction.declared);
            self.reply(&Reply::plain(354, "End data with <CR><LF>.<CR><LF>"));
            self.state = State::Data(Decoder::new(self.config.max_message_size, declared, self.config.bare_newline));
        }
    }

    /// Answers [`Event::Data`] with a 4xx or 5xx. The transaction is over.
    pub fn data_refused(&mut self, reply: Reply) {
        if self.answers(Question::Data) {
            self.transaction = None;
            self.answer(&reply);
        }
    }

    /// Gives up the message of this DATA: what is left of it is read and dropped, and `reply`, a 4xx or 5xx, comes at
    /// its end.
    pub fn give_up_data(&mut self, reply: Reply) {
        if let State::Data(decoder) = &mut self.state {
            decoder.drop_all();
            self.data_refusal = Some(reply);
            self.transaction = None;
        }
    }

    /// In DATA, and the message has not been given up.
    pub fn keeps_data(&self) -> bool {
        matches!(self.state, State::Data(_)) && self.data_refusal.is_none()
    }

    /// Octets received in this DATA, 0 outside: for the data rate ([`super::Timeouts::is_too_slow`]).
    pub fn data_len(&self) -> u64 {
        match &self.state {
            State::Data(decoder) => decoder.received(),
            _ => 0,
        }
    }

    /// Octets of memory that the client has filled: its message, recipients, a line that has begun, names, replies that
    /// wait to be written. For the memory budget.
    pub fn memory(&self) -> usize {
        let recipients = |Transaction { envelope, text, .. }: &Transaction| {
            envelope.recipients.capacity() * size_of::<Recipient>() + text
        };
        let in_state = match &self.state {
            State::Data(decoder) => decoder.kept(),
            State::Auth(exchange) => exchange.memory(),
            _ => 0,
        };
        let transaction = self.transaction.as_ref().map_or(0, recipients);
        self.lines.memory() + self.output.capacity() + self.helo.len() + in_state + transaction
    }

    /// SIZE of the MAIL of this DATA.
    pub fn declared(&self) -> Option<u64> {
        self.transaction.as_ref().and_then(|transaction| transaction.declared)
    }

    fn data_ended(&mut self, end: Result<Vec<u8>, Refused>) -> Option<Event> {
        self.state = State::Command;
        let transaction = self.transaction.take();
        let given_up = self.data_refusal.take();
        match (end, transaction) {
            (Err(Refused { doubtful_end: false, .. }) | Ok(_), _) if let Some(reply) = given_up => {
                self.answer(&reply);
                None
            }
            (Ok(bytes), Some(Transaction { envelope, .. })) => {
                self.ask(Question::Message, Event::Message { envelope, bytes })
            }
            (Err(Refused { fault, doubtful_end: true }), _) => self.close(&say::data_fault(fault)),
            (Err(Refused { fault, .. }), _) => self.say(&say::data_fault(fault)),
            (Ok(_), None) => self.say(&say::NEED_MAIL),
        }
    }

    /// Answers [`Event::Message`]. A 2xx must not be given before the message is safe.
    pub fn message_answered(&mut self, reply: Reply) {
        if self.answers(Question::Message) {
            if reply.code / 100 == 2 {
                self.errors = 0;
                self.idle_commands = 0;
            }
            self.answer(&reply);
        }
    }

    /// The client was silent for too long: 421, and the session closes.
    pub fn timed_out(&mut self) {
        self.close(&say::TIMED_OUT);
    }

    /// The server stops: 421, and the session closes, unless a message is under way or an event is open. The shell
    /// calls again after that; [`Self::is_closed`] tells.
    pub fn shutting_down(&mut self) {
        if self.phase() == Phase::Command {
            self.close(&say::SHUTTING_DOWN);
        }
    }

    fn ask(&mut self, question: Question, event: Event) -> Option<Event> {
        self.state = State::Asking(question);
        Some(event)
    }

    /// True, and the event is no longer open, when `question` is what was asked.
    fn answers(&mut self, question: Question) -> bool {
        let open = matches!(self.state, State::Asking(asked) if asked == question);
        if open {
            self.state = State::Command;
        }
        open
    }

    /// The shell's own reply. 421 means that the connection closes (RFC 5321 §3.8).
    fn answer(&mut self, reply: &Reply) {
        self.reply(reply);
        if reply.code == 421 {
            self.state = State::Closed;
        }
    }

    fn reply(&mut self, reply: &Reply) {
        reply.write_to(&mut self.output);
    }

    // The four below return no event, so that a command can end with one of them.

    fn say(&mut self, reply: &Reply) -> Option<Event> {
        self.reply(reply);
        None
    }

    /// Answers a command that the client should not have sent; the [`limits::ERRORS`]th ends the session.
    fn bad(&mut self, reply: &Reply) -> Option<Event> {
        self.errors += 1;
        if self.errors >= limits::ERRORS { self.close(&say::TOO_MANY_ERRORS) } else { self.say(reply) }
    }

    /// Answers a command that moves no mail.
    fn idle(&mut self, reply: &Reply) -> Option<Event> {
        self.idle_commands += 1;
        if self.idle_commands > limits::IDLE_COMMANDS { self.close(&say::TOO_MANY_COMMANDS) } else { self.say(reply) }
    }

    /// The last reply, once.
    fn close(&mut self, reply: &Reply) -> Option<Event> {
        if !self.is_closed() {
            self.reply(reply);
            self.state = State::Closed;
            self.transaction = None;
        }
        None
    }
}
