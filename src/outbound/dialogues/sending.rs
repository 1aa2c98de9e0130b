//! Messages over an open connection.

use super::*;
use crate::mail::Enhanced;
use std::time::Instant;
use tokio::time::sleep;

#[tokio::test]
async fn two_messages_over_one_connection() {
    let rcpts = ["C: RCPT TO:<r0@example.net>\nS: 250 Ok\n", "C: RCPT TO:<r1@example.net>\nS: 250 Ok\n"].concat();
    let stepwise =
        format!("C: MAIL FROM:<a@example.com>\nS: 250 Ok\n{rcpts}C: DATA\nS: 354 go\n{BODY}S: 250 2.0.0 Ok: Q\n");
    let piped = format!("{GROUP_OF_TWO}S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 2.0.0 Ok: Q\n");
    for (hello, one) in [(PLAIN, stepwise), (PIPED, piped)] {
        let (to, task) = smarthost(&[format!("{hello}{one}{one}C: QUIT\nS: 221 bye\n")]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        for _ in 0..2 {
            let want = Reply::new(250, Enhanced(2, 0, 0), "Ok: Q");
            assert_eq!(send(&mut connection, 2, MESSAGE).await.unwrap(), [want.clone(), want]);
            assert!(connection.is_fit());
        }
        connection.quit().await;
        task.await.unwrap();
    }
}

#[tokio::test]
async fn refusals() {
    let rset_then_good =
        format!("C: RSET\n{GROUP_OF_TWO}S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n");
    let good = format!("{GROUP_OF_TWO}S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n");
    // Replies to MAIL, RCPT, RCPT, DATA and what follows; the codes that the recipients get; what the next message
    // begins with.
    let table: &[(&str, String, [u16; 2], &str)] = &[
        ("one refused", format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n"), [550, 250], &good),
        (
            "too many",
            format!("S: 250 Ok\nS: 250 Ok\nS: 452 4.5.3 full\nS: 354 go\n{BODY}S: 250 Ok\n"),
            [250, 452],
            &good,
        ),
        (
            "the message refused",
            format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}S: 554 spam\n"),
            [550, 554],
            &rset_then_good,
        ),
        ("all refused", "S: 250 Ok\nS: 550 no\nS: 451 no\nS: 554 none\n".to_owned(), [550, 451], &rset_then_good),
        (
            "all refused and 354",
            "S: 250 Ok\nS: 550 no\nS: 451 no\nS: 354 go\nC: .\nS: 554 none\n".to_owned(),
            [550, 451],
            &rset_then_good,
        ),
        ("MAIL refused", "S: 552 big\nS: 503 no\nS: 503 no\nS: 503 no\n".to_owned(), [552, 552], &good),
        (
            "MAIL refused and 354",
            "S: 451 no\nS: 503 no\nS: 503 no\nS: 354 go\nC: .\nS: 554 none\n".to_owned(),
            [451, 451],
            &rset_then_good,
        ),
        ("DATA refused", "S: 250 Ok\nS: 251 Ok\nS: 550 no\nS: 451 no\n".to_owned(), [451, 550], &rset_then_good),
        ("forwarded", format!("S: 250 Ok\nS: 251 Ok\nS: 252 Ok\nS: 354 go\n{BODY}S: 250 Ok\n"), [250, 250], &good),
    ];
    for (name, replies, want, next) in table {
        let (to, task) = smarthost(&[format!("{PIPED}{GROUP_OF_TWO}{replies}{next}")]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        let got = send(&mut connection, 2, MESSAGE).await.unwrap();
        assert_eq!(codes(&got), want, "{name}");
        assert!(connection.is_fit(), "{name}");
        assert_eq!(codes(&send(&mut connection, 2, MESSAGE).await.unwrap()), [250, 250], "{name}");
        task.await.unwrap();
    }
}

#[tokio::test]
async fn refusals_step_by_step() {
    let good = format!(
        "C: MAIL FROM:<a@example.com>\nS: 250 Ok\nC: RCPT TO:<r0@example.net>\nS: 250 Ok\nC: DATA\nS: 354 go\n{BODY}S: 250 Ok\n"
    );
    let table = [
        ("C: MAIL FROM:<a@example.com>\nS: 550 no\n", 550, ""),
        (
            "C: MAIL FROM:<a@example.com>\nS: 250 Ok\nC: RCPT TO:<r0@example.net>\nS: 551 no\n",
            551,
            "C: RSET\nS: 250 Ok\n",
        ),
        (
            "C: MAIL FROM:<a@example.com>\nS: 250 Ok\nC: RCPT TO:<r0@example.net>\nS: 250 Ok\nC: DATA\nS: 451 no\n",
            451,
            "C: RSET\nS: 250 Ok\n",
        ),
    ];
    for (dialogue, code, before_next) in table {
        let (to, task) = smarthost(&[format!("{PLAIN}{dialogue}{before_next}{good}")]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        assert_eq!(codes(&send(&mut connection, 1, MESSAGE).await.unwrap()), [code]);
        assert_eq!(codes(&send(&mut connection, 1, MESSAGE).await.unwrap()), [250]);
        task.await.unwrap();
    }
}

#[tokio::test]
async fn closing_replies_reach_the_undecided() {
    let table = [
        ("S: 421 bye\n".to_owned(), [421, 421]),
        ("S: 250 Ok\nS: 550 no\nS: 421 bye\n".to_owned(), [550, 421]),
        ("S: 250 Ok\nS: 250 Ok\nS: 421 bye\n".to_owned(), [421, 421]),
        ("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 421 bye\n".to_owned(), [550, 421]),
        (format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}S: 421 bye\n"), [550, 421]),
        // Everyone is refused when it breaks.
        ("S: 554 no\nS: 503 no\n".to_owned(), [554, 554]),
        ("S: 250 Ok\nS: 550 no\nS: 450 no\n".to_owned(), [550, 450]),
    ];
    for (replies, want) in table {
        let (result, fit) = deliver(&format!("{PIPED}{GROUP_OF_TWO}{replies}"), 2, Timeouts::default()).await;
        assert_eq!(codes(&result.unwrap()), want, "{replies}");
        assert!(!fit, "{replies}");
    }
}

#[tokio::test]
async fn breaks() {
    let endless = format!("R: {}\n", "250 x".repeat(20_000));
    let many_lines = "S: 250-x\n".repeat(200);
    let sent = format!("S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\n{BODY}");
    // What the smarthost says after the commands; the phase; whether the message may have been taken; what is known of
    // the first recipient. Behind replies out of step nothing is.
    let table: &[(&str, String, Phase, bool, Option<u16>)] = &[
        ("closes at MAIL", String::new(), Phase::Mail, false, None),
        ("closes at RCPT", "S: 250 Ok\n".to_owned(), Phase::Rcpt, false, None),
        ("closes after a refusal", "S: 250 Ok\nS: 550 no\n".to_owned(), Phase::Rcpt, false, Some(550)),
        ("closes after a 4xx", "S: 250 Ok\nS: 450 no\n".to_owned(), Phase::Rcpt, false, Some(450)),
        ("closes at DATA", "S: 250 Ok\nS: 550 no\nS: 250 Ok\n".to_owned(), Phase::Data, false, Some(550)),
        ("closes after the dot", sent.clone(), Phase::Dot, true, Some(550)),
        ("half a reply", format!("{sent}R: 250 O\n"), Phase::Dot, true, Some(550)),
        ("354 after the dot", format!("{sent}S: 354 go\n"), Phase::Dot, true, None),
        ("garbage after the dot", format!("{sent}S: hello\n"), Phase::Dot, true, Some(550)),
        ("garbage", "S: HTTP/1.1 400 Bad Request\n".to_owned(), Phase::Mail, false, None),
        ("354 at MAIL", "S: 354 go\n".to_owned(), Phase::Mail, false, None),
        ("354 at RCPT", "S: 250 Ok\nS: 354 go\n".to_owned(), Phase::Rcpt, false, None),
        (
            "one reply too many in the group",
            "S: 250 Ok\nS: 250 Ok\nS: 550 no\nS: 250 Ok\n".to_owned(),
            Phase::Data,
            false,
            None,
        ),
        ("250 at DATA", "S: 250 Ok\nS: 250 Ok\nS: 250 Ok\nS: 250 Ok\n".to_owned(), Phase::Data, false, None),
        ("differing codes", "S: 250-Ok\nS: 550 no\n".to_owned(), Phase::Mail, false, None),
        (
            "a reply too many",
            "S: 250 Ok\nS: 550 no\nS: 250 Ok\nS: 354 go\nS: 250 Ok\nX: hang".to_owned(),
            Phase::Message,
            false,
            None,
        ),
        ("endless line", endless, Phase::Mail, false, None),
        ("endless reply", many_lines, Phase::Mail, false, None),
    ];
    for (name, replies, phase, after_dot, refused) in table {
        let (result, fit) = deliver(&format!("{PIPED}{GROUP_OF_TWO}{replies}"), 2, Timeouts::default()).await;
        let broken = result.expect_err(name);
        assert_eq!((broken.phase, broken.after_dot), (*phase, *after_dot), "{name}: {broken}");
        assert_eq!(broken.replies[0].as_ref().map(|reply| reply.code), *refused, "{name}");
        assert_eq!(broken.replies[1], None, "{name}");
        assert!(!fit, "{name}");
        assert!(!broken.text.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn a_reply_too_many_makes_the_connection_unfit() {
    let script = format!("{PIPED}{GROUP_OF_ONE}S: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\nS: 250 Ok\nX: hang");
    let (result, fit) = deliver(&script, 1, Timeouts::default()).await;
    assert_eq!(codes(&result.unwrap()), [250]);
    assert!(!fit);
}

#[tokio::test]
async fn what_is_said_while_idle_is_noticed() {
    for farewell in ["S: 421 idle for too long\n", ""] {
        let (to, task) = smarthost(&[format!("{PIPED}{farewell}")]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        task.await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while connection.is_fit() {
            assert!(Instant::now() < deadline, "{farewell:?} not noticed");
            sleep(Duration::from_millis(1)).await;
        }
        let broken = send(&mut connection, 1, MESSAGE).await.unwrap_err();
        assert_eq!((broken.phase, broken.after_dot), (Phase::Mail, false));
        connection.quit().await;
    }
}

#[tokio::test]
async fn a_refusal_in_latin_1_is_a_refusal() {
    let script = format!("{PIPED}{GROUP_OF_ONE}S: 250 Ok\nS: 550 5.1.1 unzulässig\nS: 554 none\nX: hang");
    let (to, task) = smarthost(&[script]).await;
    let mut connection = Connection::open(&to).await.unwrap();
    let replies = send(&mut connection, 1, MESSAGE).await.unwrap();
    assert_eq!(replies, [Reply::new(550, Enhanced(5, 1, 1), "unzul\u{fffd}ssig")]);
    assert!(connection.is_fit());
    drop(connection);
    task.await.unwrap();
}

#[tokio::test]
async fn time_outs() {
    let long = Timeouts::default();
    let table: &[(&str, Timeouts, Phase)] = &[
        ("", Timeouts { mail: SHORT, ..long }, Phase::Mail),
        ("R: 250 O\n", Timeouts { mail: SHORT, ..long }, Phase::Mail),
        ("S: 250 Ok\n", Timeouts { rcpt: SHORT, ..long }, Phase::Rcpt),
        ("S: 250 Ok\nS: 250 Ok\n", Timeouts { data: SHORT, ..long }, Phase::Data),
        ("S: 250 Ok\nS: 250 Ok\nS: 354 go\n", Timeouts { dot: SHORT, ..long }, Phase::Dot),
        ("S: 250 Ok\nS: 250 Ok\nS: 354 go\nC: Subject: x\nR: 25\n", Timeouts { dot: SHORT, ..long }, Phase::Dot),
    ];
    for (replies, timeouts, phase) in table {
        let (to, task) = smarthost(&[format!("{PIPED}{GROUP_OF_ONE}{replies}X: hang")]).await;
        let mut connection = Connection::open(&Smarthost { timeouts: *timeouts, ..to }).await.unwrap();
        let broken = send(&mut connection, 1, MESSAGE).await.unwrap_err();
        assert_eq!((broken.phase, broken.after_dot), (*phase, *phase == Phase::Dot), "{broken}");
        assert!(broken.text.contains("80ms"), "{broken}");
        assert!(!connection.is_fit());
        drop(connection);
        task.await.unwrap();
    }
}

/// A smarthost that says 354 to one recipient's message, and then is left to the caller.
async fn after_354(listener: &TcpListener) -> tokio::net::TcpStream {
    let mut stream = listener.accept().await.unwrap().0;
    play(&mut stream, &format!("{PIPED}{GROUP_OF_ONE}S: 250 Ok\nS: 250 Ok\nS: 354 go\n")).await;
    stream
}

#[tokio::test]
async fn a_smarthost_that_stops_reading() {
    let (listener, to) = listen().await;
    let task = tokio::spawn(async move { after_354(&listener).await });
    let timeouts = Timeouts { block: SHORT, ..Timeouts::default() };
    let mut connection = Connection::open(&Smarthost { timeouts, ..to }).await.unwrap();
    let broken = send(&mut connection, 1, &b"0123456789abcd\r\n".repeat(1 << 20)).await.unwrap_err();
    assert_eq!((broken.phase, broken.after_dot), (Phase::Message, false), "{broken}");
    assert!(!connection.is_fit());
    drop(task.await.unwrap());
}

#[tokio::test]
async fn a_smarthost_that_hangs_up_in_the_message() {
    let (listener, to) = listen().await;
    let task = tokio::spawn(async move {
        let mut stream = after_354(&listener).await;
        stream.read_exact(&mut [0; 1 << 16]).await.unwrap();
    });
    let mut connection = Connection::open(&to).await.unwrap();
    let broken = send(&mut connection, 1, &b"0123456789abcd\r\n".repeat(1 << 20)).await.unwrap_err();
    assert_eq!((broken.phase, broken.after_dot), (Phase::Message, false), "{broken}");
    assert!(!connection.is_fit());
    task.await.unwrap();
}

#[tokio::test]
async fn large_messages_arrive_whole() {
    let message = b"..line of text\r\n.\r\n\xff no text\r\n".repeat(40_000);
    let wire = [b"...line of text\r\n..\r\n\xff no text\r\n".repeat(40_000).as_slice(), b".\r\n"].concat();
    let (listener, to) = listen().await;
    let task = tokio::spawn(async move {
        let mut stream = after_354(&listener).await;
        let mut got = vec![0; wire.len()];
        stream.read_exact(&mut got).await.unwrap();
        assert!(got == wire, "the message arrived changed");
        play(&mut stream, "S: 250 Ok\nX: hang").await;
    });
    let mut connection = Connection::open(&to).await.unwrap();
    assert_eq!(codes(&send(&mut connection, 1, &message).await.unwrap()), [250]);
    assert!(connection.is_fit());
    drop(connection);
    task.await.unwrap();
}

#[tokio::test]
async fn a_cancelled_transaction_is_the_last() {
    let dialogue = [GROUP_OF_ONE, "S: 250 Ok\nS: 250 Ok\nS: 354 go\n", BODY, "S: 250 Ok\n"].concat();
    // Cut before each of the smarthost's words, which then stays silent.
    for (at, _) in dialogue.match_indices("S: ") {
        let (to, task) = smarthost(&[format!("{PIPED}{}X: hang", &dialogue[..at])]).await;
        let mut connection = Connection::open(&to).await.unwrap();
        assert!(timeout(SHORT, send(&mut connection, 1, MESSAGE)).await.is_err());
        assert!(!connection.is_fit());
        assert!(send(&mut connection, 1, MESSAGE).await.is_err());
        connection.quit().await;
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_here() {
    let (to, task) = smarthost(&[format!("{PIPED}X: hang")]).await;
    let mut connection = Connection::open(&to).await.unwrap();
    for message in [b"a\n.\nb\r\n".as_slice(), b"a\rb\r\n", b"a\r\n\n.\n"] {
        let replies = send(&mut connection, 2, message).await.unwrap();
        assert!(replies.iter().all(|reply| reply.code == 554 && reply.enhanced == Some(Enhanced(5, 6, 0))));
    }
    let utf8: Recipient = Address::parse("grüße@example.net").unwrap().into();
    // Only reading it back from a disk can make such an address.
    let evil: Address = serde_json::from_str(r#""a@example.com>\r\nRCPT TO:<b@example.com""#).unwrap();
    let evil: Recipient = evil.into();
    let plain = &recipients(1)[0];
    let nothing = Transaction {
        sender: None,
        recipients: &[],
        eight_bit: false,
        smtputf8: false,
        ret: None,
        envid: None,
        message: MESSAGE,
    };
    let table = [
        (Transaction { recipients: &[&utf8, plain], ..nothing }, Enhanced(5, 6, 7)),
        (Transaction { recipients: &[plain], smtputf8: true, ..nothing }, Enhanced(5, 6, 7)),
        (Transaction { recipients: &[plain, plain], sender: Some(&evil.address), ..nothing }, Enhanced(5, 1, 7)),
        (Transaction { recipients: &[&evil], ..nothing }, Enhanced(5, 1, 3)),
    ];
    for (transaction, enhanced) in table {
        let replies = connection.send(&transaction).await.unwrap();
        assert_eq!(replies.len(), transaction.recipients.len());
        assert!(replies.iter().all(|reply| reply.enhanced == Some(enhanced)), "{replies:?}");
        assert!(connection.is_fit(), "nothing was said");
    }
    assert_eq!(connection.send(&nothing).await, Ok(Vec::new()));
    drop(connection);
    task.await.unwrap();
}

#[tokio::test]
async fn an_unsafe_recipient_is_left_out() {
    let replies = format!("S: 250 Ok\nS: 250 Ok\nS: 354 go\n{BODY}S: 250 Ok\n");
    let (to, task) = smarthost(&[format!("{PIPED}{GROUP_OF_ONE}{replies}")]).await;
    let mut connection = Connection::open(&to).await.unwrap();
    let evil: Address = serde_json::from_str(r#""a\u0000@example.com""#).unwrap();
    let sender = Address::parse("a@example.com").unwrap();
    let transaction = Transaction {
        sender: Some(&sender),
        recipients: &[&evil.into(), &recipients(1)[0]],
        eight_bit: false,
        smtputf8: false,
        ret: None,
        envid: None,
        message: MESSAGE,
    };
    assert_eq!(codes(&connection.send(&transaction).await.unwrap()), [553, 250]);
    task.await.unwrap();
}

#[test]
fn futures_may_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    fn check(connection: &mut Connection, to: &Smarthost, transaction: &Transaction<'_>) {
        is_send(&Connection::open(to));
        is_send(&connection.send(transaction));
    }
    let _ = check;
}
