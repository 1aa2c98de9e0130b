//! One message over a connection: MAIL, RCPT, DATA, the message, and a reply for each recipient.
//!
//! Every reply is waited for within its phase's time-out and must be of a class that the command allows. Whatever
//! goes otherwise ends the use of the connection. Whether a recipient is tried again is not decided here.

use super::body::{PIECE, has_clean_lines, push_piece};
use super::command::{Script, is_safe};
use super::connection::{Connection, Phase};
use super::reply;
use super::stream::SPOKE_UNASKED;
use crate::mail::{Address, Enhanced, Recipient, Reply, Return};
use lettre::transport::smtp::{Error, response::Response};
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// A message for recipients who all get the same octets.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// `None` is the null reverse-path.
    pub sender: Option<&'a Address>,
    pub recipients: &'a [&'a Recipient],
    /// The message holds octets over 127: BODY=8BITMIME is said where it is offered (RFC 6152).
    pub eight_bit: bool,
    /// The message needs SMTPUTF8 (RFC 6531); an address that is not ASCII needs it in any case.
    pub smtputf8: bool,
    /// RET and ENVID, passed on where DSN is offered (RFC 3461); ENVID is not yet xtext.
    pub ret: Option<Return>,
    pub envid: Option<&'a str>,
    /// With CRLF line ends and no dot stuffed. A missing last CRLF is added.
    pub message: &'a [u8],
}

/// The connection failed before every recipient had a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What was being said or waited for.
    pub phase: Phase,
    /// The whole message had been written, so the smarthost may have taken it: sent again, it may arrive twice.
    pub after_dot: bool,
    /// By place in [`Transaction::recipients`]: the refusals (4xx and 5xx) that had come before. All others are
    /// undecided; and so are all where replies came out of step, since none of them can be trusted then.
    pub replies: Vec<Option<Reply>>,
    /// What happened, for the log and the queue listing.
    pub text: String,
}

impl Connection {
    /// Sends one message and gives one reply per recipient, in their order: the refusal of MAIL, of RCPT or of DATA,
    /// or the reply to the message itself. Only replies of class 2 mean that it was taken.
    ///
    /// What must not go over the wire, or cannot to this smarthost, is answered here with a permanent reply and
    /// nothing said: a message with a bare CR or LF (554 5.6.0), SMTPUTF8 that is not offered (550 5.6.7), an address
    /// with a control character (553 5.1.3 or 5.1.7).
    ///
    /// After `Ok`, [`Connection::is_fit`] says whether there may be another; after `Err` there may not. A future that
    /// is dropped half-way leaves the connection unfit for ever.
    pub async fn send(&mut self, t: &Transaction<'_>) -> Result<Vec<Reply>, Broken> {
        let mut progress = Progress::new(t);
        if let Some(refusal) = self.refusal_here(t) {
            progress.settle_rest(&refusal);
        }
        if progress.is_settled() {
            return Ok(progress.into_replies());
        }
        if !self.is_fit() {
            return Err(progress.into_broken(Phase::Mail, "the connection is not fit for use".to_owned()));
        }
        self.busy = true;
        match self.run(t, &mut progress).await {
            Ok(()) => self.busy = false,
            Err(Stop::Closing(reply)) => progress.settle_rest(&reply),
            // The break changes nothing for recipients who all have their refusal.
            Err(Stop::Broken { .. }) if progress.is_settled() => {}
            Err(Stop::Broken { phase, text }) => return Err(progress.into_broken(phase, text)),
            Err(Stop::OutOfStep { phase, text }) => {
                progress.replies.fill(None);
                return Err(progress.into_broken(phase, text));
            }
        }
        Ok(progress.into_replies())
    }

    fn refusal_here(&self, t: &Transaction<'_>) -> Option<Reply> {
        if !has_clean_lines(t.message) {
            return Some(BARE_LINE_END);
        }
        if t.needs_smtputf8() && !self.capabilities.smtputf8 {
            return Some(NO_SMTPUTF8);
        }
        let safe = t.sender.is_none_or(|sender| is_safe(sender.as_str()));
        (!safe).then_some(BAD_SENDER)
    }

    /// The dialogue. On `Ok`, every recipient has a reply and the smarthost waits for a command.
    async fn run(&mut self, t: &Transaction<'_>, progress: &mut Progress) -> Result<(), Stop> {
        let open: Vec<usize> = progress.open().collect();
        let pipelined = self.capabilities.pipelining;
        let recipients = open.iter().map(|place| t.recipients[*place]);
        let mut script = Script::new(t, recipients, &self.capabilities, self.needs_reset);
        if self.needs_reset {
            let reply = self.say(Phase::Mail, script.advance()).await?;
            if reply.code / 100 != 2 {
                return Err(Stop::out_of_step(Phase::Mail, &reply));
            }
            self.needs_reset = false;
        }

        let mail = self.say(Phase::Mail, script.advance()).await?;
        let mail_taken = mail.code / 100 == 2;
        if mail.code == 503 {
            // A transaction of which we know nothing is open there: this is no word about the message.
            return Err(Stop::out_of_step(Phase::Mail, &mail));
        }
        if !mail_taken {
            progress.settle_rest(&mail);
            if !pipelined {
                return Ok(());
            }
        }
        // With PIPELINING the replies to RCPT and DATA come also after a refused MAIL, and must be read.
        for place in open {
            let reply = self.say(Phase::Rcpt, script.advance()).await?;
            if mail_taken && reply.code / 100 != 2 {
                progress.replies[place] = Some(reply);
            } else if !mail_taken && reply.code / 100 == 2 {
                // A recipient for a message that was refused: whatever is sent now, this one would get.
                return Err(Stop::broken(Phase::Rcpt, "a recipient was taken although MAIL was refused"));
            }
        }
        // Until the message ends the transaction, the next MAIL would be nested in it (RFC 5321 §4.1.4).
        self.needs_reset = mail_taken;
        if progress.is_settled() && !pipelined {
            return Ok(());
        }

        let data = self.say(Phase::Data, script.advance()).await?;
        if data.code / 100 != 3 {
            progress.settle_rest(&data);
            return Ok(());
        }
        // RFC 2920 §3.1: a smarthost that wants a message for nobody gets an empty one.
        let message = if progress.is_settled() { b"" } else { t.message };
        self.write_message(message).await?;
        progress.after_dot = !progress.is_settled();
        self.waits_for_dot.store(progress.after_dot, Ordering::Relaxed);
        let reply = self.say(Phase::Dot, "").await;
        self.waits_for_dot.store(false, Ordering::Relaxed);
        let reply = reply?;
        progress.settle_rest(&reply);
        // RFC 5321 §4.1.1.4 ends the transaction here in any case; some servers keep it open after a refusal.
        self.needs_reset = reply.code / 100 != 2;
        Ok(())
    }

    /// Writes the message and the final dot: up to [`PIECE`] octets in one write.
    ///
    /// After an error the smarthost cannot have the final dot, since the last octets of the message were not taken
    /// by the system.
    async fn write_message(&mut self, message: &[u8]) -> Result<(), Stop> {
        let mut start = 0;
        loop {
            // What is said before the final dot would be taken for the reply to it.
            if !self.stream.is_quiet() {
                return Err(Stop::out_of_turn(Phase::Message));
            }
            let end = message.len().min(start + PIECE);
            self.scratch.clear();
            push_piece(message, start..end, &mut self.scratch);
            match timeout(self.timeouts.block, self.stream.send(&self.scratch)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.reason_for_hangup(error).await),
                Err(_) => return Err(Stop::timed_out(Phase::Message, self.timeouts.block)),
            }
            if end == message.len() {
                return Ok(());
            }
            start = end;
        }
    }

    /// A smarthost that refuses in the middle of a message may say why before it hangs up.
    async fn reason_for_hangup(&mut self, error: std::io::Error) -> Stop {
        match timeout(LAST_WORDS, self.smtp.read_response()).await.map(understand) {
            Ok(Ok(reply)) if reply.is_permanent() || reply.is_transient() => Stop::Closing(reply),
            _ => Stop::broken(Phase::Message, error.to_string()),
        }
    }

    /// Writes `commands`, if any, and reads one reply.
    async fn say(&mut self, phase: Phase, commands: &str) -> Result<Reply, Stop> {
        // A reply that was there before its command would be taken for the reply to it.
        if !commands.is_empty() && !self.stream.is_quiet() {
            return Err(Stop::out_of_turn(phase));
        }
        let limit = self.timeouts.of(phase);
        let answer = if commands.is_empty() {
            timeout(limit, self.smtp.read_response()).await
        } else {
            timeout(limit, self.smtp.command(commands)).await
        };
        let Ok(answer) = answer else { return Err(Stop::timed_out(phase, limit)) };
        let reply = understand(answer).map_err(|text| Stop::broken(phase, text))?;
        let wanted = if phase == Phase::Data { 3 } else { 2 };
        match reply.code {
            421 => Err(Stop::Closing(reply)),
            code if code / 100 == wanted || code / 100 >= 4 => Ok(reply),
            _ => Err(Stop::out_of_step(phase, &reply)),
        }
    }
}

/// How long a smarthost that broke off may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

const BARE_LINE_END: Reply = Reply::new(554, Enhanced(5, 6, 0), "message holds a bare CR or LF");
const NO_SMTPUTF8: Reply = Reply::new(550, Enhanced(5, 6, 7), "message needs SMTPUTF8, which the smarthost lacks");
const BAD_SENDER: Reply = Reply::new(553, Enhanced(5, 1, 7), "sender address holds a control character");
const BAD_RECIPIENT: Reply = Reply::new(553, Enhanced(5, 1, 3), "recipient address holds a control character");

/// Refusals that are ours, which the smarthost never said. In words, without the reply code.
pub(super) fn is_ours(reply: &str) -> bool {
    let ours = [BARE_LINE_END, NO_SMTPUTF8, BAD_SENDER, BAD_RECIPIENT];
    ours.iter().any(|refusal| reply == refusal.to_string())
}

impl Transaction<'_> {
    pub(super) fn needs_smtputf8(&self) -> bool {
        self.smtputf8
            || self.sender.is_some_and(|sender| !sender.is_ascii())
            || self.recipients.iter().any(|recipient| !recipient.address.is_ascii())
    }
}

/// Who has a reply so far.
struct Progress {
    replies: Vec<Option<Reply>>,
    after_dot: bool,
}

impl Progress {
    fn new(t: &Transaction<'_>) -> Self {
        let refuse = |recipient: &&Recipient| (!is_safe(recipient.address.as_str())).then_some(BAD_RECIPIENT);
        Self { replies: t.recipients.iter().map(refuse).collect(), after_dot: false }
    }

    fn open(&self) -> impl Iterator<Item = usize> {
        self.replies.iter().enumerate().filter(|(_, reply)| reply.is_none()).map(|(place, _)| place)
    }

    fn is_settled(&self) -> bool {
        self.replies.iter().all(Option::is_some)
    }

    /// Gives `reply` to everyone who has none.
    fn settle_rest(&mut self, reply: &Reply) {
        for missing in self.replies.iter_mut().filter(|reply| reply.is_none()) {
            *missing = Some(reply.clone());
        }
    }

    /// Called when every recipient has a reply.
    fn into_replies(self) -> Vec<Reply> {
        debug_assert!(self.is_settled());
        self.replies.into_iter().flatten().collect()
    }

    fn into_broken(mut self, phase: Phase, text: String) -> Broken {
        for reply in &mut self.replies {
            reply.take_if(|reply| !reply.is_permanent() && !reply.is_transient());
        }
        Broken { phase, after_dot: self.after_dot, replies: self.replies, text }
    }
}

/// Why a dialogue ended early.
enum Stop {
    /// The smarthost said this and closes: 421 (RFC 5321 §3.8), or a refusal before it hung up.
    Closing(Reply),
    Broken {
        phase: Phase,
        text: String,
    },
    /// Replies and commands no longer belong together.
    OutOfStep {
        phase: Phase,
        text: String,
    },
}

impl Stop {
    fn broken(phase: Phase, text: impl Into<String>) -> Self {
        Self::Broken { phase, text: text.into() }
    }

    fn timed_out(phase: Phase, limit: Duration) -> Self {
        Self::broken(phase, format!("no answer within {limit:?}"))
    }

    fn out_of_step(phase: Phase, reply: &Reply) -> Self {
        Self::OutOfStep { phase, text: format!("unexpected reply: {reply}") }
    }

    fn out_of_turn(phase: Phase) -> Self {
        Self::OutOfStep { phase, text: SPOKE_UNASKED.to_owned() }
    }
}

fn understand(answer: Result<Response, Error>) -> Result<Reply, String> {
    match answer {
        Ok(response) => Ok(reply::from_response(&response)),
        Err(error) => reply::from_error(&error),
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase, self.text)
    }
}

impl std::error::Error for Broken {}
