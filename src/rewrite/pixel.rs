//! The pixel: an image of one transparent dot, whose fetching is an open.
//!
//! Owns: the tag, and in which part it goes. Does not: find its place inside the document ([`super::html`]).

use crate::mime::scan::Part;

/// Before the URL.
pub(super) const HEAD: &[u8] = b"<img src=\"";
/// Behind the URL. Not `display:none`, for Gmail would not fetch it. Out of the flow, so that nothing moves; where a
/// mail program drops `position`, a block of one dot that its margin takes back. `!important` since style sheets of
/// mails widen all images on phones.
pub(super) const TAIL: &[u8] = b"\" width=\"1\" height=\"1\" alt=\"\" style=\"display:block!important;\
position:absolute!important;width:1px!important;height:1px!important;margin:-1px 0 0!important;\
padding:0!important;border:0!important\">";

/// The HTML parts among `html` (indices into `parts`), the one for the pixel first: the last that is shown, then
/// those before it, then those that are not shown as a body of their own.
pub(super) fn preference(message: &[u8], parts: &[Part], html: &[usize]) -> Vec<usize> {
    let roots = roots(message, parts);
    let (shown, rest): (Vec<usize>, Vec<usize>) = html.iter().rev().partition(|&&index| is_shown(parts, &roots, index));
    [shown, rest].concat()
}

/// False for what stands in a multipart/related beside its root (RFC 2387 §3.2), such as the page of a frame.
fn is_shown(parts: &[Part], roots: &[Option<usize>], index: usize) -> bool {
    let mut child = index;
    while let Some(parent) = parts[child].parent {
        if parts[parent].media() == "multipart/related" && roots[parent] != Some(child) {
            return false;
        }
        child = parent;
    }
    true
}

/// The root of each multipart/related, by its index: the part that `start` names, else the first.
fn roots(message: &[u8], parts: &[Part]) -> Vec<Option<usize>> {
    let mut roots = vec![None; parts.len()];
    let mut named = vec![false; parts.len()];
    for (index, part) in parts.iter().enumerate() {
        let Some(parent) = part.parent.filter(|&parent| parts[parent].media() == "multipart/related") else { continue };
        let start = parts[parent].content.parameter("start").map(<[u8]>::trim_ascii);
        let id = part.content_id.clone().map(|span| message[span].trim_ascii());
        if start.is_some() && id == start && !named[parent] {
            (roots[parent], named[parent]) = (Some(index), true);
        } else if roots[parent].is_none() {
            roots[parent] = Some(index);
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::scan::scan;

    #[test]
    fn the_last_part_shown() {
        let part = |header: &str, boundary: &str| format!("--{boundary}\n{header}\n\nx\n");
        let html = |b: &str| part("Content-Type: text/html", b);
        let named = |b: &str| part("Content-Type: text/html\nContent-ID: <i>", b);
        let wrap =
            |kind: &str, inside: String| format!("Content-Type: multipart/{kind}; boundary=a\n\n{inside}--a--\n");
        let table = [
            ("Content-Type: text/html\n\nx".to_owned(), vec![0]),
            (wrap("mixed", html("a") + &html("a")), vec![2, 1]),
            (wrap("related", html("a") + &html("a")), vec![1, 2]),
            (wrap("related; start=\"<i>\"", html("a") + &named("a")), vec![2, 1]),
            (wrap("related; start=\"<none>\"", html("a") + &named("a")), vec![1, 2]),
        ];
        for (message, want) in table {
            let parts = scan(message.as_bytes()).unwrap();
            let html: Vec<usize> = (0..parts.len()).filter(|&i| parts[i].media() == "text/html").collect();
            assert_eq!(preference(message.as_bytes(), &parts, &html), want, "{message}");
        }
    }
}
