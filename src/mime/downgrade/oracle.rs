//! Whole messages: golden pairs, and fixtures and random ones of which mail-parser must read the same before and after.
//!
//! Golden: `fixtures/downgrade/NAME.expected.eml` is what becomes of `NAME.eml` there, or else in `fixtures/mail`.
//! `UPDATE=1` writes it anew; look at what changed.

use super::tests::text;
use super::*;
use mail_parser::{Message, MessageParser, PartType};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Name and octets of each message in a folder of fixtures.
fn messages(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".eml") {
            found.push((name, std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn golden_pairs() {
    let ours = messages("downgrade").into_iter();
    let all: Vec<_> = ours.chain(messages("mail")).filter(|(name, _)| !name.ends_with(".expected.eml")).collect();
    let mut changed = 0;
    for (name, message) in &all {
        let got = to_seven_bit(message).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        if let Cow::Borrowed(same) = got {
            assert_eq!(text(same), text(message), "{name}");
            continue;
        }
        changed += 1;
        let path = folder("downgrade").join(name.replace(".eml", ".expected.eml"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &got).unwrap();
        }
        let want = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(text(&got), text(&want), "{name}");
    }
    assert!(changed >= 13, "only {changed} of {} messages", all.len());
}

#[test]
fn fixtures_read_the_same() {
    for (name, message) in messages("downgrade").into_iter().chain(messages("mail")) {
        check(&message).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// What must hold for every message that is not stuck.
fn check(message: &[u8]) -> Result<(), TestCaseError> {
    let after = to_seven_bit(message).map_err(|stuck| TestCaseError::fail(format!("{stuck:?}")))?;
    if message.is_ascii() {
        prop_assert!(matches!(after, Cow::Borrowed(_)));
    }
    prop_assert!(matches!(to_seven_bit(&after), Ok(Cow::Borrowed(same)) if same == &*after));
    fuzz_downgrade(message);
    let mut read = [Vec::new(), Vec::new()];
    for (message, out) in [message, &*after].into_iter().zip(&mut read) {
        read_parts(&MessageParser::new().parse(message).unwrap(), out);
    }
    let [before, read] = read;
    prop_assert_eq!(before, read, "{}\nbecame\n{}", text(message), text(&after));
    Ok(())
}

/// Header fields, but for the two that may change, and content of each part, as mail-parser sees it.
fn read_parts(message: &Message, out: &mut Vec<(Vec<String>, String)>) {
    for part in &message.parts {
        let raw = |header: &mail_parser::Header| {
            text(&message.raw_message[header.offset_field as usize..header.offset_end as usize])
        };
        let may_change = |field: &String| {
            let field = field.to_ascii_lowercase();
            field.starts_with("content-transfer-encoding") || field.starts_with("mime-version")
        };
        let header = part.headers.iter().map(raw).filter(|field| !may_change(field)).collect();
        match &part.body {
            PartType::Multipart(_) => out.push((header, String::new())),
            PartType::Message(inner) => {
                out.push((header, String::new()));
                read_parts(inner, out);
            }
            _ => out.push((header, text(part.contents()))),
        }
    }
}

#[derive(Clone, Debug)]
enum Tree {
    Leaf(&'static str, Vec<u8>),
    Multi(Vec<Tree>),
    Message(Box<Tree>),
}

/// Headers of leaves, each with a line end behind it.
const LEAVES: &[&str] = &[
    "",
    "Content-Type: text/plain\n",
    "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n",
    "Content-Transfer-Encoding: 7bit\nContent-Type: text/html; charset=iso-8859-1\n",
    "Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: binary\n",
    "Content-Type: application/octet-stream\nContent-Transfer-Encoding: binary\n",
    "Content-Type: application/json\nContent-Transfer-Encoding: 8bit\nContent-Disposition: attachment; filename=é\n",
    "Content-Type: image/png\n",
];

fn tree() -> impl Strategy<Value = Tree> {
    let piece = prop_oneof![
        4 => "[a-z =.<>-]{1,30}".prop_map(String::into_bytes),
        3 => Just("é".as_bytes().to_vec()),
        1 => Just(b"\xff".to_vec()),
        3 => Just(b"\r\n".to_vec()),
        1 => prop_oneof![Just(b"\0".to_vec()), Just(b"\rx".to_vec()), Just(b"\nx".to_vec())],
    ];
    let body = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
    let leaf = (proptest::sample::select(LEAVES), body).prop_map(|(header, body)| Tree::Leaf(header, body));
    leaf.prop_recursive(5, 20, 4, |inner| {
        prop_oneof![
            3 => proptest::collection::vec(inner.clone(), 1..4).prop_map(Tree::Multi),
            // A message that is a message that is a message, mail-parser 0.11 loses count of.
            1 => inner.prop_map(|tree| match tree {
                Tree::Message(_) => Tree::Message(Box::new(Tree::Multi(vec![tree]))),
                tree => Tree::Message(Box::new(tree)),
            }),
        ]
    })
}

fn write_tree(tree: &Tree, out: &mut Vec<u8>, count: &mut u32) {
    let label = if count.is_multiple_of(2) { "Content-Transfer-Encoding: 8bit\r\n" } else { "" };
    *count += 1;
    match tree {
        Tree::Leaf(header, body) => {
            out.extend_from_slice(header.replace('\n', "\r\n").as_bytes());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(body);
        }
        Tree::Multi(children) => {
            let boundary = format!("=_{count}_x");
            out.extend(format!("{label}Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n").bytes());
            for child in children {
                out.extend(format!("--{boundary}\r\n").bytes());
                write_tree(child, out, count);
                out.extend_from_slice(b"\r\n");
            }
            out.extend(format!("--{boundary}--\r\n").bytes());
        }
        Tree::Message(inner) => {
            out.extend(format!("Content-Type: message/rfc822\r\n{label}\r\nSubject: x\r\n").bytes());
            write_tree(inner, out, count);
        }
    }
}

proptest! {
    #[test]
    fn mail_parser_reads_the_same(tree in tree()) {
        let mut message = b"From: a@example.com\r\n".to_vec();
        write_tree(&tree, &mut message, &mut 0);
        check(&message)?;
    }

    #[test]
    fn any_bytes(data in proptest::collection::vec(prop_oneof![
        Just(b"\r\n".to_vec()), Just(b"\n--b\n".to_vec()), Just(b"--b--\n".to_vec()), Just(b"\n\n".to_vec()),
        Just(b"Content-Type: multipart/mixed; boundary=b\n".to_vec()), Just(b"Content-Type: message/rfc822\n".to_vec()),
        Just(b"Content-Transfer-Encoding: quoted-printable\n".to_vec()), proptest::collection::vec(any::<u8>(), 0..9),
    ], 0..30)) {
        let message = data.concat();
        fuzz_downgrade(&message);
        if let Ok(after) = to_seven_bit(&message) {
            prop_assert_eq!(&to_seven_bit(&after), &Ok(Cow::Borrowed(&*after)));
        }
    }
}
