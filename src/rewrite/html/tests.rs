//! Tables of documents, and what is found in them.

use super::*;

fn all(html: &str) -> (Vec<&str>, Option<usize>) {
    let found = find(html.as_bytes(), AsciiCompatibleEncoding::utf_8(), Some(100), true).unwrap();
    (found.sites.iter().map(|s| &html[s.value.clone()]).collect(), found.pixel)
}

#[test]
fn links() {
    let table: &[(&str, &[&str])] = &[
        ("<a href=\"1\"><A HREF='2'><a\nhref\n=\n3><a href=4/>", &["1", "2", "3", "4/"]),
        ("<a href=1 href=2><a x href><a href=\"\">", &["1", "", ""]),
        ("<map><area href=1></map><link href=2><base href=3><form action=4>", &["1"]),
        ("<!-- <a href=1> --><script>\"<a href=2>\"</script><style><a href=3></style>", &[]),
        ("<textarea><a href=1></textarea><title><a href=2></title><xmp><a href=3></xmp>", &[]),
        ("<noscript><p><a href=1>x</a></noscript><noscript><a href=2></noscript>", &["1", "2"]),
        ("<!--[if mso]><a href=\"1\"><v:roundrect x href='2'></v:roundrect><![endif]--><a href=3>", &["1", "2", "3"]),
        ("<!--[if !mso]><!--><a href=1><!--<![endif]--><!--[IF mso]><![ENDIF]-->", &["1"]),
        ("<![if !mso]><a href=1><![endif]>", &["1"]),
        ("<v:rect href=1 /><v:shape href=2>", &["1", "2"]),
        ("<!--[if mso]><noscript><a href=\"1\"></noscript><![endif]-->", &["1"]),
        ("<noscript><!--[if mso]><a href=\"1\"><![endif]--><a href=2></noscript>", &["1", "2"]),
        ("<a href=\"1", &[]),
        ("<a data-x='<a href=1>' href=2>", &["2"]),
    ];
    for (html, want) in table {
        assert_eq!(all(html).0, *want, "{html}");
        let tail = format!("{html}</body></html>");
        assert_eq!(all(&tail).0, *want, "{html}");
    }
}

#[test]
fn unclosed_foreign_content_is_ambiguous() {
    let find = |html: &str| find(html.as_bytes(), AsciiCompatibleEncoding::utf_8(), Some(9), true);
    for html in [
        "<div><svg></div><textarea><a href=1>x</a></textarea>",
        "<table><tr><td><svg></td></tr></table><xmp><a href=1></xmp>",
        "<div><svg><path d=\"x\"></div><style>/*<a href=1>*/</style>",
        "<div><math></div><textarea><a href=1>x</a></textarea>",
        "<select><svg></select><script>var a=\"<a href='1'>\"</script>",
        "<div><svg></div><![CDATA[x><a href=1>y</a>]]>",
        "<!--[if mso]><div><svg></div><textarea><a href=\"1\">x</a></textarea><![endif]-->",
    ] {
        assert_eq!(find(html), Err(HtmlError::Ambiguous), "{html}");
    }
    let plain = "<a href=1><svg width='9'><path d='M0'/></svg></a><math><mi>x</mi></math><a href=2>";
    assert_eq!(find(plain).unwrap().sites.len(), 2);
    assert_eq!(find("<frameset><frame src=x></frameset>").unwrap().pixel, None);
}

#[test]
fn excluded_and_fragile() {
    let find = |html: &str| find(html.as_bytes(), AsciiCompatibleEncoding::utf_8(), Some(9), false).unwrap().sites;
    for attribute in [
        "data-track=off",
        "DATA-TRACK='OFF'",
        "ses:no-track",
        "ses:no-track=x",
        "clicktracking=\"off\"",
        "data-pm-no-track",
        "data-msys-clicktrack=0",
        "data-msys-unsubscribe=1",
        "mc:disable-tracking",
        "disable-tracking=true",
    ] {
        assert!(find(&format!("<a {attribute} href=x>"))[0].excluded, "{attribute}");
    }
    for attribute in ["data-track=on", "clicktracking", "data-msys-clicktrack=1", "class=off"] {
        assert!(!find(&format!("<a href=x {attribute}>"))[0].excluded, "{attribute}");
    }
    let sites = find("<a href=1><!--[if mso]><a href=2><a href='3'><noscript><a href=4></noscript><![endif]-->");
    assert_eq!(sites.iter().map(|s| s.fragile).collect::<Vec<_>>(), [false, true, false, true]);
}

#[test]
fn the_pixel_is_never_inside_anything() {
    let table: &[(&str, Option<&str>)] = &[
        ("<body>a</body></html>", Some("</body></html>")),
        ("<body>a</BODY \n></html>", Some("</BODY \n></html>")),
        ("a</html>\n", Some("</html>\n")),
        ("a\r\n", Some("\r\n")),
        ("", Some("")),
        ("<body>a</body><body>b</body>c", Some("</body>c")),
        ("<body>a</body><!-- </body> -->", Some("</body><!-- </body> -->")),
        ("<body>a</body><script>'</body>'</script>", Some("</body><script>'</body>'</script>")),
        ("<body>a</body><p title='</body>'>", Some("</body><p title='</body>'>")),
        ("<body>a</body><!--[if mso]></body><![endif]-->", Some("</body><!--[if mso]></body><![endif]-->")),
        ("a</bodyguard>", Some("")),
        ("a<!-- b", Some("<!-- b")),
        ("<!-- --><p>a<!--[if mso]><p><p><p><p><style></body>", Some("<!--[if mso]><p><p><p><p><style></body>")),
        ("<p>a<!-- --><select></body>", Some("<select></body>")),
        ("<p>a<template></body></html>", Some("<template></body></html>")),
        ("<ul><li>a<select></ul></body>", Some("<select></ul></body>")),
        ("<p>a<select></select><template></template></body>", Some("</body>")),
        ("a<p title='b", Some("<p title='b")),
        ("<head><title>a", None),
        ("a<textarea>b", None),
        ("a<title>b", None),
        ("a<style>b</body>", None),
        ("a</", Some("</")),
        ("<plaintext>a</body>", None),
    ];
    for (html, want) in table {
        assert_eq!(all(html).1.map(|at| &html[at..]), *want, "{html}");
    }
}

#[test]
fn bombs() {
    let utf_8 = AsciiCompatibleEncoding::utf_8();
    assert_eq!(find("<a href=x>".repeat(101).as_bytes(), utf_8, Some(100), true), Err(HtmlError::TooManyLinks));
    let comments = "<!--[if a]>href<![endif]-->".repeat(3_000);
    assert_eq!(find(comments.as_bytes(), utf_8, Some(100), true), Err(HtmlError::Ambiguous));
    find("</p>".repeat(20_000).as_bytes(), utf_8, Some(100), true).unwrap();
    find("<!--</body>-->".repeat(2_000).as_bytes(), utf_8, Some(100), true).unwrap();
    assert_eq!(find(b"<select><xmp><script></script>", utf_8, Some(9), true), Err(HtmlError::Ambiguous));
}
