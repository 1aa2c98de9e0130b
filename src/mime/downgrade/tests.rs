//! Tables of small messages: what becomes of them, what stays as it is, what is stuck. `oracle` holds whole ones.

use super::*;

pub(super) fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// A multipart of one part, which has `header` and `body`.
fn inside(kind: &str, header: &str, body: &str) -> String {
    format!("MIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=b\n\n--b\n{header}\n\n{body}\n--b--\n")
}

#[test]
fn one_part() {
    let table: &[(&str, &[u8], &str, &str)] = &[
        // What follows "MIME-Version: 1.0\n", and what header and body become.
        ("Content-Transfer-Encoding: 8bit\n", b"\xe9\n", "Content-Transfer-Encoding: quoted-printable\n", "=E9\n"),
        ("content-transfer-encoding:7BIT\n", b"\xe9", "content-transfer-encoding:quoted-printable\n", "=E9"),
        ("A: b\n", b"a=b \n.\n\xe9\n", "A: b\nContent-Transfer-Encoding: quoted-printable\n", "a=3Db=20\n=2E\n=E9\n"),
        // Text is lines, whatever the label; what is not lines is no text.
        ("Content-Transfer-Encoding: binary\n", b"\xe9\n", "Content-Transfer-Encoding: quoted-printable\n", "=E9\n"),
        ("Content-Transfer-Encoding: 8bit\n", b"\xe9\r\n", "Content-Transfer-Encoding: base64\n", "6Q0K\n"),
        ("Content-Transfer-Encoding: 8bit\n", b"\0\xe9", "Content-Transfer-Encoding: base64\n", "AOk=\n"),
        (
            "Content-Type: application/json\nContent-Transfer-Encoding: 8bit\n",
            b"\xe9\n",
            "Content-Type: application/json\nContent-Transfer-Encoding: quoted-printable\n",
            "=E9\n",
        ),
        (
            "Content-Type: application/json\nContent-Transfer-Encoding: Binary (all of it)\n",
            b"\xe9\n",
            "Content-Type: application/json\nContent-Transfer-Encoding: base64\n",
            "6Qo=\n",
        ),
        // Encoded, and then mislabelled or damaged.
        (
            "Content-Transfer-Encoding: Quoted-Printable\n",
            b"=C3=a9\xe9 =\n\xe9 \n",
            "Content-Transfer-Encoding: Quoted-Printable\n",
            "=C3=A9=E9 =E9\n",
        ),
        (
            "Content-Type: application/x\nContent-Transfer-Encoding: quoted-printable\n",
            b"=0A\xe9\n",
            "Content-Type: application/x\nContent-Transfer-Encoding: base64\n",
            "CukK\n",
        ),
        // Composite by name, but encoded whole (RFC 6532 §3.5).
        (
            "Content-Type: message/global\nContent-Transfer-Encoding: 8bit\n",
            b"A: \xc3\xa9\n\n\xc3\xa9\n",
            "Content-Type: message/global\nContent-Transfer-Encoding: quoted-printable\n",
            "A: =C3=A9\n\n=C3=A9\n",
        ),
    ];
    for (header, body, new_header, new_body) in table {
        let message = [b"MIME-Version: 1.0\n", header.as_bytes(), b"\n", body].concat();
        let got = to_seven_bit(&message).unwrap_or_else(|e| panic!("{header}: {e:?}"));
        assert_eq!(text(&got), text(format!("MIME-Version: 1.0\n{new_header}\n{new_body}").as_bytes()));
    }
}

#[test]
fn mime_version_is_added_where_it_is_missing() {
    let got = to_seven_bit("Subject: x\r\n\r\né\r\n".as_bytes()).unwrap();
    let want = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9\r\n";
    assert_eq!(text(&got), text(want.as_bytes()));
    // Also where the encoding is named further inside, and in each embedded message by itself.
    let message = inside("mixed", "Content-Type: message/rfc822", "Subject: x\n\né");
    let got = to_seven_bit(message.as_bytes()).unwrap();
    let added = "Subject: x\nMIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A9";
    assert_eq!(text(&got), text(inside("mixed", "Content-Type: message/rfc822", added).as_bytes()));
    let message = message.replacen("MIME-Version: 1.0\n", "", 1);
    let got = to_seven_bit(message.as_bytes()).unwrap();
    assert!(got.starts_with(b"Content-Type: multipart/mixed; boundary=b\nMIME-Version: 1.0\n\n--b\n"));
}

#[test]
fn nothing_to_do() {
    let report = inside("report", "Content-Type: message/delivery-status", "A: b\n\nStatus: 5.1.1 é");
    let table = [
        "",
        "A: b",
        "Content-Transfer-Encoding: 8bit\n\nall of it ASCII\n",
        "Subject: é\n\nx",
        // Header fields of parts and of embedded messages, whatever is around them; no content.
        &inside("mixed", "Content-Description: é", "x"),
        &inside("signed", "Content-Description: é", "x"),
        &inside("mixed", "Content-Description: é", "x").replace("MIME-Version: 1.0\n", ""),
        &inside("mixed", "Content-Type: message/rfc822", "Subject: é\n\nx"),
        &report,
        &inside("mixed", "A: b", "x").replace("--b\n", "é\n--b\n"),
        &(inside("mixed", "A: b", "x") + "é"),
        // No structure, but no 8-bit body either.
        "Subject: é\nContent-Type: multipart/mixed\n\nx",
        &inside("mixed", "Content-Type: message/rfc822", "Subject: é\nContent-Type: multipart/mixed\n\nx"),
    ];
    for message in table {
        let got = to_seven_bit(message.as_bytes());
        assert!(matches!(got, Ok(Cow::Borrowed(same)) if same == message.as_bytes()), "{message}: {got:?}");
    }
}

#[test]
fn composite_labels() {
    let label = |inner: &str, header: &str, body: &str| {
        let message = inside("mixed", header, body).replacen("\n\n--b", &format!("\n{inner}\n\n--b"), 1);
        let got = String::from_utf8(to_seven_bit(message.as_bytes()).unwrap().into_owned()).unwrap();
        got.lines().nth(2).unwrap().to_owned()
    };
    let table = [
        ("Content-Transfer-Encoding: 8bit", "A: b", "é", "Content-Transfer-Encoding: 7bit"),
        ("Content-Transfer-Encoding:BINARY", "A: b", "é", "Content-Transfer-Encoding:7bit"),
        ("Content-Transfer-Encoding: 7Bit", "A: b", "é", "Content-Transfer-Encoding: 7Bit"),
        // Still true: there is the header of the part.
        ("Content-Transfer-Encoding: 8bit", "A: é", "é", "Content-Transfer-Encoding: 8bit"),
        (
            "Content-Transfer-Encoding: 8bit",
            "Content-Type: message/rfc822",
            "A: é\n\né",
            "Content-Transfer-Encoding: 8bit",
        ),
        ("Content-Transfer-Encoding: 8bit", "A: b", "é\n--b\n\nx\n--b--\nBehind: é", "Content-Transfer-Encoding: 8bit"),
        // The preamble.
        ("Content-Transfer-Encoding: 8bit\n\né", "A: b", "é", "Content-Transfer-Encoding: 8bit"),
    ];
    for (inner, header, body, want) in table {
        assert_eq!(label(inner, header, body), want, "{header} {body}");
    }
    // A label that claims too much, but around nothing that changed.
    let embedded = "Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: x\n\nx";
    let message = inside("mixed", "A: b", &format!("é\n--b\n{embedded}"));
    assert!(text(&to_seven_bit(message.as_bytes()).unwrap()).contains(&text(embedded.as_bytes())));
}

#[test]
fn stuck() {
    use Stuck::*;
    let signed = inside("signed", "A: b", "é").replace("=b", "=c").replace("--b", "--c");
    let embedded = inside("mixed", "Content-Type: message/rfc822", &signed);
    let table = [
        (inside("signed", "A: b", "é"), Signed),
        (inside("signed", "Content-Type: message/rfc822", "A: b\n\né"), Signed),
        (inside("signed", "Content-Type: message/global", "A: b\n\né"), Signed),
        (embedded, Signed),
        (inside("mixed", "Content-Transfer-Encoding: base64", "6Q==é"), Broken),
        (inside("mixed", "Content-Transfer-Encoding: x-uuencode", "é"), Broken),
        (inside("mixed", "Content-Transfer-Encoding: quoted-printable", "a=b é"), Broken),
        (inside("mixed", "Content-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: base64", "é"), Broken),
        (inside("mixed", "no field, so that the header ends here for some", "é"), Broken),
        (inside("mixed", "Content-Type: message/partial; id=a; number=2", "é"), Broken),
        (inside("mixed", "Content-Type: message/external-body", "A: b\n\né"), Broken),
        (inside("mixed", "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64", "é"), Broken),
        (inside("mixed", "Content-Type: message/rfc822", "Content-Type: multipart/mixed\n\né"), Broken),
        (inside("mixed", "A: b", "é").replace("--b--", ""), Broken),
        (format!("A: {}\n\né", "b".repeat(2 << 20)), Broken),
    ];
    for (message, want) in table {
        assert_eq!(to_seven_bit(message.as_bytes()), Err(want), "{}", &message[..message.len().min(300)]);
    }
}

#[test]
fn bounded() {
    let nested = |levels: usize, body: &str| {
        let mut message = String::new();
        for level in 0..levels {
            message += &format!(
                "Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\nContent-Type: message/rfc822\n\n"
            );
        }
        message += &format!("A: b\n\n{body}");
        (0..levels).rev().for_each(|level| message += &format!("\n--b{level}--"));
        to_seven_bit(message.as_bytes()).map(|message| message.is_ascii())
    };
    assert_eq!(nested(99, "é"), Ok(true));
    assert_eq!(nested(100, "é"), Err(Stuck::Broken));
    // Each level reads all that is inside once more.
    let large = "\n--é".repeat(1 << 18);
    assert_eq!(nested(7, &large), Ok(true));
    assert_eq!(nested(90, &large), Err(Stuck::Broken));
}
