//! HTML of a stranger, made so that it does nothing: for a preview in a frame that runs and loads nothing anyway.
//!
//! The frame's sandbox and its Content-Security-Policy hold even where this fails; this keeps them from being the only
//! wall, and makes links visible that lead nowhere. Elements and attributes that are not known to be harmless go, so do
//! comments (Outlook's conditional ones among them), images that would have to be fetched, and whatever in a style
//! names an address. Does not: find links or judge them; [`crate::rewrite::marked`] has done that.

use crate::rewrite::{Mark, MarkedHtml, MarkedLink};
use aho_corasick::AhoCorasick;
use lol_html::html_content::{Comment, ContentType, Doctype, Element, TextChunk};
use lol_html::{
    AsciiCompatibleEncoding, DocumentContentHandlers, ElementContentHandlers, HtmlRewriter, MemorySettings, Selector,
    Settings,
};
use std::borrow::Cow;
use std::sync::LazyLock;

/// The document between the `<body>` tags of ours: harmless, with `data-mark` on links. `None` where readers could see
/// different elements.
pub fn neutral(html: &MarkedHtml) -> Option<String> {
    let links = html.links.as_deref()?;
    let mut out = Vec::with_capacity(html.text.len() + html.text.len() / 4);
    let mut style = String::new();
    let on_text = |text: &mut TextChunk<'_>| {
        style.push_str(text.as_str());
        match text.last_in_text_node() {
            true => text.replace(&harmless_style(&std::mem::take(&mut style)), ContentType::Html),
            false => text.remove(),
        }
        Ok(())
    };
    let on_comment = |comment: &mut Comment<'_>| {
        comment.remove();
        Ok(())
    };
    let on_doctype = |doctype: &mut Doctype<'_>| {
        doctype.remove();
        Ok(())
    };
    let settings = Settings::new()
        .with_encoding(AsciiCompatibleEncoding::utf_8())
        .with_strict(true)
        .with_memory_settings(MemorySettings::new().with_max_allowed_memory_usage(MAX_MEMORY))
        .append_element_content_handler((
            Cow::Borrowed(&*EVERY),
            ElementContentHandlers::default().element(|element: &mut Element<'_, '_>| {
                disarm(element, links);
                Ok(())
            }),
        ))
        .append_element_content_handler((Cow::Borrowed(&*STYLE), ElementContentHandlers::default().text(on_text)))
        .append_document_content_handler(DocumentContentHandlers::default().comments(on_comment).doctype(on_doctype));
    let mut parser = HtmlRewriter::new(settings, |bytes: &[u8]| out.extend_from_slice(bytes));
    parser.write(html.text.as_bytes()).ok()?;
    parser.end().ok()?;
    String::from_utf8(out).ok()
}

static EVERY: LazyLock<Selector> = LazyLock::new(|| "*".parse().expect("a constant selector"));
static STYLE: LazyLock<Selector> = LazyLock::new(|| "style".parse().expect("a constant selector"));
/// Memory that the parser may take: it buffers a tag or comment as a whole.
const MAX_MEMORY: usize = 16 << 20;

/// What mails are made of, and what does nothing but be shown.
const KEPT: &str = "a abbr address area article aside b bdi bdo big blockquote body br caption center cite code col \
    colgroup dd del dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 head header hr html \
    i img ins kbd li main mark nav nobr ol p pre q s samp section small span strike strong style sub sup \
    table tbody td tfoot th thead time tr tt u ul var wbr";
/// Elements that go with all that is inside: it is no text, or is read by other rules than ours.
const DROPPED: &str = "applet audio base canvas datalist embed frame frameset iframe link listing math meta noembed \
    noframes noscript object param plaintext portal script select source svg template textarea title \
    track video xmp";
const ATTRIBUTES: &str = "align alt bgcolor border cellpadding cellspacing class clear color cols colspan dir face height \
    hspace id lang noshade nowrap reversed role rowspan scope size span start title type valign value \
    vspace width";

fn disarm(element: &mut Element<'_, '_>, links: &[MarkedLink]) {
    let name = element.tag_name();
    if is_in(DROPPED, &name) {
        return element.remove();
    }
    if !is_in(KEPT, &name) {
        return element.remove_and_keep_content();
    }
    let mut names = Vec::new();
    let mut link = None;
    for attribute in element.attributes() {
        let name = attribute.name();
        if name == "href" && link.is_none() {
            let start = attribute.value_source_location().map(|place| place.bytes().start);
            link = start.and_then(|start| links.binary_search_by_key(&start, |link| link.value.start).ok());
        }
        names.push(name);
    }
    let held = name == "img" && element.get_attribute("src").is_some_and(|src| !is_data(&src));
    let style = element.get_attribute("style");
    for name in &names {
        let is_kept = is_in(ATTRIBUTES, name) || name == "src" && element.tag_name() == "img" && !held;
        if !is_kept {
            element.remove_attribute(name);
        }
    }
    // These names are our own and hold no character that a name may not.
    if let Some(style) = style {
        let style = harmless_style(&htmlize::unescape_attribute(style));
        let _ = element.set_attribute("style", &style.replace('&', "&amp;"));
    }
    if held {
        let _ = element.set_attribute("data-held", "");
    }
    if let Some(link) = link.and_then(|place| links.get(place)) {
        let (mark, word) = match link.mark {
            Mark::Tracked => ("tracked", "Tracked: "),
            Mark::Left(_) | Mark::Off => ("left", "Not tracked: "),
            Mark::Unknown => ("unknown", ""),
        };
        let _ = element.set_attribute("data-mark", mark);
        let url = super::words::cut(&link.url, MOST_OF_URL).replace('&', "&amp;").replace('<', "&lt;");
        let _ = element.set_attribute("title", &format!("{word}{url}"));
    }
}

fn is_in(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

/// Characters of a destination that are told.
const MOST_OF_URL: usize = 500;

/// An image that is in the document itself.
fn is_data(src: &str) -> bool {
    let src = src.trim_start().to_ascii_lowercase();
    ["png", "gif", "jpeg", "jpg", "webp"].iter().any(|kind| src.starts_with(&format!("data:image/{kind}")))
}

/// A style that names no address. Nothing in it is escaped any more, so that all names stand there as they are, and it
/// holds no `<`, so that nobody reads a tag in it.
fn harmless_style(style: &str) -> String {
    let style: String = style.chars().filter(|c| !matches!(c, '\\' | '<')).collect();
    NAMING.replace_all(&style, &[INSTEAD; NAMES.len()])
}

const NAMES: [&str; 8] =
    ["url(", "image-set(", "image(", "src(", "@import", "expression(", "behavior:", "-moz-binding"];
const INSTEAD: &str = "none-";
static NAMING: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder().ascii_case_insensitive(true).build(NAMES).expect("eight words make no large automaton")
});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::{Shown, SkipReason, marked};

    fn shown(html: &str) -> MarkedHtml {
        let message = format!("Content-Type: text/html; charset=utf-8\n\n{html}");
        match marked(message.as_bytes(), None, &[], 0, 1 << 20).shown {
            Shown::Html(html) => html,
            other => panic!("{other:?}"),
        }
    }

    fn made(html: &str) -> String {
        neutral(&shown(html)).unwrap()
    }

    #[test]
    fn what_would_do_something_is_gone() {
        for (html, want) in [
            ("a<script>alert(1)</script>b", "ab"),
            ("<img src=x onerror=alert(1) alt=A>", "<img alt=A data-held=\"\">"),
            ("<p ONLOAD=\"x()\" onClick='y()' align=left>z</p>", "<p align=left>z</p>"),
            ("<meta http-equiv=refresh content='0;url=https://example.com/'>a", "a"),
            ("<base href=https://example.com/ target=_top>a", "a"),
            ("<form action=https://example.com/><input name=p><button formaction=x>go</button></form>", "go"),
            ("<iframe src=https://example.com/>x</iframe>a<iframe srcdoc='<b>'></iframe>b", "ab"),
            ("<svg onload=x><a href=javascript:x><text>t</text></a></svg>a", "a"),
            ("<math href=x><mi>t</mi></math>a", "a"),
            ("<object data=x><embed src=y></object>a<applet code=z></applet>b", "ab"),
            ("<link rel=stylesheet href=https://example.com/x.css><title>t</title>a", "a"),
            ("<noscript><img src=x></noscript>a<noembed><img src=y></noembed>b", "ab"),
            ("<template><img src=x></template><video src=x></video><audio autoplay src=x></audio>a", "a"),
            ("<!--[if mso]><a href=x>y</a><![endif]--><!DOCTYPE html>a<![if !mso]>b<![endif]>", "ab"),
            ("<custom-thing onx=1>a</custom-thing><o:p>b</o:p>", "ab"),
            ("<td background=https://example.com/x.png bgcolor=red>a</td>", "<td bgcolor=red>a</td>"),
            ("<img src=\"DATA:image/png;base64,AA\" srcset=x lowsrc=y>", "<img src=\"DATA:image/png;base64,AA\">"),
            ("<img src=\"data:image/svg+xml,<svg>\">", "<img data-held=\"\">"),
            ("<a name=x target=_top ping=y>a</a>", "<a>a</a>"),
            ("<plaintext><b>a", ""),
        ] {
            assert_eq!(made(html), want, "{html}");
        }
    }

    #[test]
    fn styles_name_no_address() {
        for (style, want) in [
            ("color:red", "color:red"),
            ("background:URL(https://example.com/)", "background:none-https://example.com/)"),
            ("background:\\75rl(x)", "background:75rl(x)"),
            ("background:u\\rl(x)", "background:none-x)"),
            ("width:expression(x)", "width:none-x)"),
            ("content:image-set('x' 1x)", "content:none-'x' 1x)"),
        ] {
            assert_eq!(made(&format!("<p style=\"{style}\">")), format!("<p style=\"{want}\">"));
            assert_eq!(made(&format!("<style>p{{{style}}}</style>")), format!("<style>p{{{want}}}</style>"));
        }
        assert_eq!(made("<style>@im\\port 'x';</style>"), "<style>none- 'x';</style>");
        assert_eq!(made("<style><!-- a{} --></style>"), "<style>!-- a{} --></style>");
        assert_eq!(made("<p style='background:u&#114;l&lpar;x)'>"), "<p style=\"background:none-x)\">");
        assert_eq!(made("<p style='content:&quot;&amp;&quot;'>"), "<p style=\"content:&quot;&amp;&quot;\">");
        let long = format!("<style>{}</style>", "a{color:red}\n".repeat(20_000));
        assert_eq!(made(&long), long);
    }

    #[test]
    fn links_are_marked_and_lead_nowhere() {
        let document =
            shown("<a href=\"https://example.com/?a=1&amp;b=%22&quot;\" style=color:red>x</a><a href='#top'>y</a>");
        assert_eq!(
            neutral(&document).unwrap(),
            "<a style=\"color:red\" data-mark=\"unknown\" title=\"https://example.com/?a=1&amp;b=%22&quot;\">x</a>\
             <a data-mark=\"unknown\" title=\"#top\">y</a>"
        );
        let mut marks = [Mark::Tracked, Mark::Left(SkipReason::Fragment)].into_iter();
        let links = document.links.unwrap();
        let links = links.into_iter().map(|link| MarkedLink { mark: marks.next().unwrap(), ..link }).collect();
        let html = neutral(&MarkedHtml { links: Some(links), ..document }).unwrap();
        assert!(html.contains("data-mark=\"tracked\" title=\"Tracked: https://example.com/"), "{html}");
        assert!(html.contains("data-mark=\"left\" title=\"Not tracked: #top\""), "{html}");
        assert!(!html.contains("href"), "{html}");
        let two = made("<a href=javascript:a() href=https://example.com/>x</a>");
        assert_eq!(two, "<a data-mark=\"unknown\" title=\"javascript:a()\">x</a>");
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_shown() {
        assert_eq!(neutral(&shown("<select><xmp><script>\"<a href=https://example.com/>\"")), None);
        let ambiguous = "<select><xmp><script>x".to_owned();
        assert_eq!(neutral(&MarkedHtml { text: ambiguous, links: Some(Vec::new()) }), None);
    }
}
