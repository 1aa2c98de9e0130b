//! Where in an HTML document the links stand, and where the pixel may be put.
//!
//! Owns: running lol_html over a document, over the inside of its conditional comments and of `<noscript>`, which a
//! mail program without scripts shows. Does not: change anything, decode a value, or judge a link. Offsets are those
//! of the octets given in.

#[cfg(test)]
mod tests;

use super::foreign;
use lol_html::html_content::Element;
use lol_html::{
    AsciiCompatibleEncoding, DocumentContentHandlers, ElementContentHandlers, HtmlRewriter, MemorySettings, Selector,
    Settings,
};
use memchr::{memchr_iter, memchr2_iter, memmem, memrchr};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::LazyLock;

/// The `href` of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// The value without its quotes.
    pub value: Range<usize>,
    /// The sender excludes it by an attribute.
    pub excluded: bool,
    /// It stands without quotes inside a comment, where `-->` would end more than the tag.
    pub fragile: bool,
}

/// What [`find`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// In order.
    pub sites: Vec<Site>,
    /// Where the pixel may be put; `None` when it was not asked for or has no safe place.
    pub pixel: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HtmlError {
    TooManyLinks,
    /// Needs a full parser to tell what is text and what is markup, or takes too much memory or time.
    Ambiguous,
}

/// Looks for links, at most `links` of them (`None`: not at all), and for the place of the pixel.
pub(super) fn find(
    html: &[u8],
    encoding: AsciiCompatibleEncoding,
    links: Option<usize>,
    pixel: bool,
) -> Result<Found, HtmlError> {
    let mut places = if pixel { Places::new(html) } else { Places::none() };
    loop {
        let place = places.next(html);
        let pass = run(html, encoding, links, place)?;
        if place.is_some() && !pass.probe_seen {
            // The probe went into a comment, an attribute or other text, so what was found is not to be trusted.
            continue;
        }
        let mut sites = pass.sites;
        if let Some(max) = links {
            let mut budget = MAX_NESTED_RUNS;
            nested(html, encoding, max, pass.nested, 0, &mut sites, &mut budget)?;
            sites.sort_by_key(|site| site.value.start);
        }
        return Ok(Found { sites, pixel: place });
    }
}

/// Inner documents (conditional comments and the like) of one part that are looked into.
const MAX_NESTED_RUNS: usize = 2_000;
const MAX_NESTING: usize = 3;
/// Memory that the parser may take: it buffers a tag or comment as a whole.
const MAX_MEMORY: usize = 32 << 20;

/// Elements whose `href` a recipient can follow; the VML shapes are how Outlook shows buttons.
static LINKS: LazyLock<Selector> = LazyLock::new(|| {
    let vml = ["rect", "roundrect", "shape", "oval", "line", "polyline", "image", "group", "arc", "curve"];
    let vml: String = vml.iter().map(|name| format!(", v\\:{name}[href]")).collect();
    format!("a[href], area[href]{vml}").parse().expect("a constant selector")
});
static NOSCRIPT: LazyLock<Selector> = LazyLock::new(|| "noscript".parse().expect("a constant selector"));
/// In these a browser drops an image or keeps it back. No end tag but their own closes them.
static HIDING: LazyLock<Selector> = LazyLock::new(|| "select, template".parse().expect("a constant selector"));
static FOREIGN: LazyLock<Selector> = LazyLock::new(|| "svg, math".parse().expect("a constant selector"));
/// A page of frames has no body that would show a pixel.
static FRAMES: LazyLock<Selector> = LazyLock::new(|| "frameset".parse().expect("a constant selector"));
static PROBE_ELEMENT: LazyLock<Selector> = LazyLock::new(|| PROBE_NAME.parse().expect("a constant selector"));

const PROBE_NAME: &str = "x-trackpost-probe";
/// Put where the pixel would stand: seen as an element, so would be the pixel.
const PROBE: &[u8] = b"<x-trackpost-probe>";

/// Part of a document that is a document in itself.
struct Inner {
    range: Range<usize>,
    in_comment: bool,
}

#[derive(Default)]
struct Pass {
    sites: Vec<Site>,
    nested: Vec<Inner>,
    probe_seen: bool,
}

/// Back from an offset in what the parser saw to one in the document.
#[derive(Clone, Copy)]
struct Shift(Option<usize>);

impl Shift {
    fn range(self, range: Range<usize>) -> Range<usize> {
        let back = |at: usize| match self.0 {
            Some(probe) if at > probe => at.saturating_sub(PROBE.len()).max(probe),
            _ => at,
        };
        back(range.start)..back(range.end)
    }
}

fn run(
    html: &[u8],
    encoding: AsciiCompatibleEncoding,
    links: Option<usize>,
    probe: Option<usize>,
) -> Result<Pass, HtmlError> {
    let shift = Shift(probe);
    let pass = RefCell::new(Pass::default());
    let foreign = RefCell::new(Vec::new());
    let too_many = RefCell::new(false);
    // The probe shifts what stands behind it; a strict parser refuses what it cannot be sure of.
    let mut settings = Settings::new();
    settings = settings
        .with_encoding(encoding)
        .with_strict(true)
        .with_memory_settings(MemorySettings::new().with_max_allowed_memory_usage(MAX_MEMORY));
    let on_foreign = |element: &mut Element<'_, '_>| {
        foreign.borrow_mut().push(shift.range(element.source_location().bytes()).start);
        Ok(())
    };
    if mentions_tag(html, &[b"svg", b"math"]) {
        settings = settings.append_element_content_handler((
            Cow::Borrowed(&*FOREIGN),
            ElementContentHandlers::default().element(on_foreign),
        ));
    }
    let max = links.unwrap_or(0);
    if links.is_some() {
        let on_link = |element: &mut Element<'_, '_>| {
            let mut pass = pass.borrow_mut();
            if pass.sites.len() >= max {
                *too_many.borrow_mut() = true;
                return Err("too many links".into());
            }
            pass.sites.extend(site(html, element, shift));
            Ok(())
        };
        let on_noscript = |text: &mut lol_html::html_content::TextChunk<'_>| {
            let range = shift.range(text.source_location().bytes());
            let nested = &mut pass.borrow_mut().nested;
            match nested.last_mut() {
                // Text comes in chunks.
                Some(last) if !last.in_comment && last.range.end == range.start => last.range.end = range.end,
                _ => nested.push(Inner { range, in_comment: false }),
            }
            Ok(())
        };
        let on_comment = |comment: &mut lol_html::html_content::Comment<'_>| {
            let range = shift.range(comment.source_location().bytes());
            pass.borrow_mut().nested.extend(conditional(html, range));
            Ok(())
        };
        settings = settings
            .append_element_content_handler((
                Cow::Borrowed(&*LINKS),
                ElementContentHandlers::default().element(on_link),
            ))
            .append_element_content_handler((
                Cow::Borrowed(&*NOSCRIPT),
                ElementContentHandlers::default().text(on_noscript),
            ))
            .append_document_content_handler(DocumentContentHandlers::default().comments(on_comment));
    }
    let hides_from = Cell::new(None);
    let has_frames = Cell::new(false);
    if probe.is_some() {
        let on_probe = |element: &mut Element<'_, '_>| {
            // In SVG or MathML the pixel would break out and change the tree.
            let at_home = element.namespace_uri() == "http://www.w3.org/1999/xhtml";
            pass.borrow_mut().probe_seen |= at_home && Some(element.source_location().bytes().start) == probe;
            Ok(())
        };
        let on_hiding = |element: &mut Element<'_, '_>| {
            let start = element.source_location().bytes().start;
            if Some(start) < probe {
                hides_from.set(Some(start));
            }
            Ok(())
        };
        let on_frames = |_: &mut Element<'_, '_>| {
            has_frames.set(true);
            Ok(())
        };
        settings = settings
            .append_element_content_handler((
                Cow::Borrowed(&*FRAMES),
                ElementContentHandlers::default().element(on_frames),
            ))
            .append_element_content_handler((
                Cow::Borrowed(&*PROBE_ELEMENT),
                ElementContentHandlers::default().element(on_probe),
            ))
            .append_element_content_handler((
                Cow::Borrowed(&*HIDING),
                ElementContentHandlers::default().element(on_hiding),
            ));
    }
    let mut parser = HtmlRewriter::new(settings, |_: &[u8]| {});
    let (head, tail) = html.split_at(probe.unwrap_or(html.len()));
    let result = parser
        .write(head)
        .and_then(|()| if probe.is_some() { parser.write(PROBE) } else { Ok(()) })
        .and_then(|()| parser.write(tail));
    let result = match result {
        Ok(()) => parser.end(),
        error => {
            drop(parser);
            error
        }
    };
    match result {
        Ok(()) if !foreign_is_plain(html, &foreign.borrow()) => Err(HtmlError::Ambiguous),
        Ok(()) => {
            let pass = pass.into_inner();
            let hidden = hides_from.get().zip(probe).is_some_and(|(start, place)| !closes(&html[start..place]));
            Ok(Pass { probe_seen: pass.probe_seen && !hidden && !has_frames.get(), ..pass })
        }
        Err(_) if *too_many.borrow() => Err(HtmlError::TooManyLinks),
        Err(_) => Err(HtmlError::Ambiguous),
    }
}

/// Whether every SVG and MathML element, given by where it starts, ends where all readers see its end.
fn foreign_is_plain(html: &[u8], starts: &[usize]) -> bool {
    let mut inside = 0;
    // What stands inside of one is judged with it.
    starts.iter().all(|start| *start < inside || foreign::end(html, *start).map(|end| inside = end).is_some())
}

fn site(html: &[u8], element: &Element<'_, '_>, shift: Shift) -> Option<Site> {
    let mut value = None;
    let mut excluded = false;
    let text = |range: &Range<usize>| html.get(range.clone()).unwrap_or_default();
    for attribute in element.attributes() {
        let Some(name) = attribute.name_source_location() else { continue };
        let name = shift.range(name.bytes());
        // `<a href>` has an empty value, of no place: that of its name's end.
        let content =
            attribute.value_source_location().map_or(name.end..name.end, |location| shift.range(location.bytes()));
        let name = text(&name);
        if name.eq_ignore_ascii_case(b"href") {
            // Of two, a browser takes the first.
            value = value.or(Some(content));
        } else {
            excluded |= excludes(name, text(&content));
        }
    }
    Some(Site { value: value?, excluded, fragile: false })
}

/// Whether the element that begins `html` is closed in it, as far as its name tells.
fn closes(html: &[u8]) -> bool {
    let length = html.iter().skip(1).take_while(|b| b.is_ascii_alphabetic()).count();
    last_end_tag(html, &html[1..1 + length]).is_some()
}

/// Attributes by which senders exclude a link, here and at other providers.
fn excludes(name: &[u8], value: &[u8]) -> bool {
    const PRESENT: [&[u8]; 4] = [b"ses:no-track", b"data-pm-no-track", b"mc:disable-tracking", b"disable-tracking"];
    const VALUED: [(&[u8], &[u8]); 4] = [
        (b"data-track", b"off"),
        (b"clicktracking", b"off"),
        (b"data-msys-clicktrack", b"0"),
        (b"data-msys-unsubscribe", b"1"),
    ];
    PRESENT.iter().any(|p| name.eq_ignore_ascii_case(p))
        || VALUED.iter().any(|(n, v)| name.eq_ignore_ascii_case(n) && value.trim_ascii().eq_ignore_ascii_case(v))
}

/// The inside of `<!--[if …]>…<![endif]-->`, if the comment in `range` is such a one.
fn conditional(html: &[u8], range: Range<usize>) -> Option<Inner> {
    let comment = html.get(range.clone())?.strip_prefix(b"<!--")?;
    let inside = comment.strip_suffix(b"-->").or(comment.strip_suffix(b"--!>"))?;
    if !inside.get(..3)?.eq_ignore_ascii_case(b"[if") {
        return None;
    }
    let start = memmem::find(inside, b"]>")? + 2;
    let end = memmem::rfind(inside, b"<![")?;
    let closing = inside.get(end + 3..)?.trim_ascii_start();
    if start > end || !closing.get(..5)?.eq_ignore_ascii_case(b"endif") {
        return None;
    }
    let base = range.start + 4;
    Some(Inner { range: base + start..base + end, in_comment: true })
}

fn nested(
    html: &[u8],
    encoding: AsciiCompatibleEncoding,
    max: usize,
    inner: Vec<Inner>,
    depth: usize,
    sites: &mut Vec<Site>,
    budget: &mut usize,
) -> Result<(), HtmlError> {
    for Inner { range, in_comment } in inner {
        let document = &html[range.clone()];
        if !mentions_href(document) {
            continue;
        }
        *budget = budget.checked_sub(1).ok_or(HtmlError::Ambiguous)?;
        let pass = run(document, encoding, Some(max.saturating_sub(sites.len())), None)?;
        let first = sites.len();
        sites.extend(pass.sites);
        if depth < MAX_NESTING {
            nested(document, encoding, max, pass.nested, depth + 1, sites, budget)?;
        }
        for site in &mut sites[first..] {
            site.value = site.value.start + range.start..site.value.end + range.start;
            let before = site.value.start.checked_sub(1).map(|at| html[at]);
            site.fragile |= in_comment && !matches!(before, Some(b'"' | b'\''));
        }
    }
    Ok(())
}

fn mentions_href(html: &[u8]) -> bool {
    memchr2_iter(b'h', b'H', html).any(|at| html.get(at..at + 4).is_some_and(|w| w.eq_ignore_ascii_case(b"href")))
}

/// Whether there is anything like a start tag of one of these names, for sparing most documents a handler.
fn mentions_tag(html: &[u8], names: &[&[u8]]) -> bool {
    let begins =
        |at: usize, name: &[u8]| html.get(at + 1..at + 1 + name.len()).is_some_and(|w| w.eq_ignore_ascii_case(name));
    memchr_iter(b'<', html).any(|at| names.iter().any(|name| begins(at, name)))
}

/// Where the pixel may stand, the best place first: before the last `</body>`, before the last `</html>`, at the end,
/// before what the end cuts off. A tag that turns out to be text leads to the one before it.
struct Places {
    stage: Stage,
    tries: usize,
    before: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Body,
    Html,
    End,
    /// Before a comment that nothing closes.
    Comment,
    /// Before a tag that the end cuts off.
    Tag,
    Done,
}

/// End tags of one name that are tried, each at the cost of a pass.
const MAX_TRIES: usize = 4;

impl Places {
    fn new(html: &[u8]) -> Self {
        Self { stage: Stage::Body, tries: 0, before: html.len() }
    }

    fn none() -> Self {
        Self { stage: Stage::Done, tries: 0, before: 0 }
    }

    fn next(&mut self, html: &[u8]) -> Option<usize> {
        loop {
            let name: &[u8] = match self.stage {
                Stage::Body => b"body",
                Stage::Html => b"html",
                Stage::End => {
                    self.stage = Stage::Comment;
                    // Before the last line end, so that a message still ends with one.
                    self.tries = 0;
                    return Some(html.trim_ascii_end().len());
                }
                Stage::Comment => {
                    self.stage = Stage::Tag;
                    let closed = memmem::rfind(html, b"-->").unwrap_or(0);
                    match memmem::find(&html[closed..], b"<!--") {
                        Some(at) => return Some(closed + at),
                        None => continue,
                    }
                }
                Stage::Tag => {
                    self.tries += 1;
                    match memrchr(b'<', &html[..self.before]) {
                        Some(at) if self.tries <= MAX_TRIES && !opens_head_or_text(&html[at + 1..]) => {
                            self.before = at;
                            return Some(at);
                        }
                        _ => self.stage = Stage::Done,
                    }
                    continue;
                }
                Stage::Done => return None,
            };
            if self.tries < MAX_TRIES
                && let Some(at) = last_end_tag(&html[..self.before], name)
            {
                self.before = at;
                self.tries += 1;
                return Some(at);
            }
            self.stage = if self.stage == Stage::Body { Stage::Html } else { Stage::End };
            (self.tries, self.before) = (0, html.len());
        }
    }
}

/// True for elements before which the pixel would change the tree: those of the head, and those whose inside is text.
fn opens_head_or_text(tag: &[u8]) -> bool {
    const NAMES: [&[u8]; 16] = [
        b"!doctype",
        b"html",
        b"head",
        b"body",
        b"base",
        b"link",
        b"meta",
        b"title",
        b"style",
        b"script",
        b"noscript",
        b"textarea",
        b"xmp",
        b"iframe",
        b"noframes",
        b"plaintext",
    ];
    NAMES.iter().any(|name| tag.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name)))
}

/// Where the last `</NAME` before the end of `html` begins.
fn last_end_tag(html: &[u8], name: &[u8]) -> Option<usize> {
    let mut end = html.len();
    while let Some(at) = memrchr(b'<', &html[..end]) {
        if let Some(b'/') = html.get(at + 1)
            && let Some(word) = html.get(at + 2..at + 2 + name.len())
            && word.eq_ignore_ascii_case(name)
            && html.get(at + 2 + name.len()).is_some_and(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'))
        {
            return Some(at);
        }
        end = at;
    }
    None
}
