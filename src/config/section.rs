//! Reading a table of the file key by key, so that one look finds every fault in it.
//!
//! A [`Section`] hands out one key at a time through a parser of [`super::value`]. What does not parse is noted with
//! its line and answered with the default, and reading goes on. What no one asked for by the end of the section is an
//! unknown key. Rules between keys are stated with [`Section::refuse`], which keeps still while one of the keys is
//! itself at fault, so that one mistake is one line. What the keys mean is no concern of this file.

use super::Fault;
use super::fault::nearest;
use super::value::describe;
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml_edit::{ImDocument, Item, TableLike, Value};

/// The file that is being read, and what was found wrong with it so far.
pub(super) struct Source<'a> {
    file: &'a Path,
    text: &'a str,
    opens: Opens,
    faults: RefCell<Vec<Fault>>,
    warnings: RefCell<Vec<Fault>>,
}

/// Which of the files that are named are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opens {
    All,
    /// But for those that systemd hands to the service alone.
    AllButCredentials,
    None,
}

/// One table of the file. A section that the file does not have is one without keys.
pub(super) struct Section<'a> {
    source: &'a Source<'a>,
    /// With the dot behind it: `smtp.listener.`; empty for the file's top.
    prefix: String,
    table: Option<&'a dyn TableLike>,
    /// The line of its header.
    line: Option<usize>,
    known: Vec<&'static str>,
    bad: Vec<&'static str>,
}

/// Where a key stands, or would stand.
#[derive(Clone)]
pub(super) struct Place {
    key: String,
    line: Option<usize>,
}

/// Reads `text`, which came out of `file`: gives what `read` makes of its top table and the warnings, or all faults
/// in the order of their lines.
pub(super) fn read_file<T>(
    file: &Path,
    text: &str,
    opens: Opens,
    read: impl FnOnce(&mut Section<'_>) -> T,
) -> Result<(T, Vec<Fault>), Vec<Fault>> {
    let source = Source { file, text, opens, faults: RefCell::default(), warnings: RefCell::default() };
    let document = match ImDocument::parse(text) {
        Ok(document) => document,
        Err(e) => {
            // At the end of input the parser points behind the last line end.
            let start = e.span().map_or(0, |span| span.start.min(text.trim_end().len()));
            let message = e.message().trim().replace('\n', ", ");
            source.note(&source.faults, Place { key: String::new(), line: Some(source.line_at(start)) }, message);
            return Err(source.faults.into_inner());
        }
    };
    let mut top = Section::new(&source, String::new(), Some(document.as_table()), None);
    let made = read(&mut top);
    top.name_unknown_keys();
    let sorted = |list: RefCell<Vec<Fault>>| {
        let mut list = list.into_inner();
        list.sort_by_key(|fault| fault.line);
        list
    };
    let (faults, warnings) = (sorted(source.faults), sorted(source.warnings));
    if faults.is_empty() { Ok((made, warnings)) } else { Err(faults) }
}

/// Where a credential is, for those to whom systemd has given none.
pub(super) const NOT_HERE: &str = "credential:";

impl<'a> Section<'a> {
    fn new(source: &'a Source<'a>, prefix: String, table: Option<&'a dyn TableLike>, line: Option<usize>) -> Self {
        Self { source, prefix, table, line, known: Vec::new(), bad: Vec::new() }
    }

    /// The value of `key`, or `default` where the file has none, or none that parses.
    pub fn value<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Result<T, String>, default: T) -> T {
        let Some(item) = self.item(key) else { return default };
        // A table where a value belongs becomes an inline one, so that the parser says what it wanted instead.
        let parsed = match item.clone().into_value() {
            Ok(value) => parse(&value),
            Err(_) => return default,
        };
        parsed.unwrap_or_else(|message| {
            self.fault(key, message);
            default
        })
    }

    /// As [`Section::value`], where the empty string stands for "none", as it does in every key that may be left out.
    pub fn option<T>(&mut self, key: &'static str, parse: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        self.value(key, |value| if value.as_str() == Some("") { Ok(None) } else { parse(value).map(Some) }, None)
    }

    /// The array `key`; every element that does not parse is a fault on its own line.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Result<T, String>,
        default: impl IntoIterator<Item = T>,
    ) -> Vec<T> {
        let Some(item) = self.item(key) else { return default.into_iter().collect() };
        let Some(array) = item.as_array() else {
            self.fault(key, format!("expected an array, found {}", describe_item(item)));
            return default.into_iter().collect();
        };
        let mut list = Vec::with_capacity(array.len());
        for element in array {
            match parse(element) {
                Ok(one) => list.push(one),
                Err(message) => {
                    let line = element.span().map(|span| self.source.line_at(span.start));
                    self.bad.push(key);
                    self.source.note(&self.source.faults, Place { line, ..self.place(key) }, message);
                }
            }
        }
        list
    }

    /// A path, made absolute from the folder of the file.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = self.option(key, super::value::string)?;
        Some(self.beside(&path))
    }

    /// `path` from the folder of the file.
    pub fn beside(&self, path: &str) -> PathBuf {
        let path = self.source.file.parent().unwrap_or(Path::new("")).join(path);
        // Only the working directory can be missing; a relative path is then as good as any.
        std::path::absolute(&path).unwrap_or(path)
    }

    /// False where the file at `path`, as [`Self::readable_file`] gave it, is not to be looked at.
    pub fn opens(&self, path: &Path) -> bool {
        self.source.opens != Opens::None && !path.starts_with(NOT_HERE)
    }

    /// A path to a file that can be opened. `credential:NAME` is one that systemd hands to the service
    /// (LoadCredential).
    pub fn readable_file(&mut self, key: &'static str) -> Option<PathBuf> {
        let text = self.option(key, super::value::string)?;
        let path = match text.strip_prefix("credential:") {
            None => self.beside(&text),
            Some(name) => match std::env::var_os("CREDENTIALS_DIRECTORY") {
                Some(folder) => Path::new(&folder).join(name),
                None => {
                    let message = format!("{} is there for the service alone, which systemd starts", self.written(key));
                    if self.source.opens == Opens::All {
                        self.fault(key, message);
                        return None;
                    }
                    self.warn(self.source.opens == Opens::AllButCredentials, &[key], message);
                    Path::new(NOT_HERE).join(name)
                }
            },
        };
        if !self.opens(&path) {
            return Some(path);
        }
        let problem = match File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_dir() => "is a folder, not a file".to_owned(),
            Ok(_) => return Some(path),
            Err(e) => format!("cannot be read: {e}"),
        };
        self.fault(key, format!("{} {problem}", self.written(key)));
        None
    }

    /// The table `key` inside this one.
    pub fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        let item = self.item(key);
        let table = item.and_then(Item::as_table_like);
        if let (Some(item), None) = (item, table) {
            self.fault(key, format!("expected the section [{}{key}], found {}", self.prefix, describe_item(item)));
        }
        self.inside(key, table, table.and_then(|_| self.line_of(key)), read)
    }

    /// The array of tables `key` inside this one; `None` where the file does not have it.
    pub fn sections<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Section<'a>) -> T) -> Option<Vec<T>> {
        let item = self.item(key)?;
        let line = |span: Option<Range<usize>>| span.map(|span| self.source.line_at(span.start));
        let tables: Option<Vec<(&'a dyn TableLike, _)>> = match item {
            Item::ArrayOfTables(tables) => Some(tables.iter().map(|t| (t as &dyn TableLike, line(t.span()))).collect()),
            Item::Value(Value::Array(values)) => {
                values.iter().map(|v| Some((v.as_inline_table()? as &dyn TableLike, line(v.span())))).collect()
            }
            _ => None,
        };
        let Some(tables) = tables else {
            self.fault(key, format!("expected sections [[{}{key}]], with two brackets", self.prefix));
            return None;
        };
        Some(tables.into_iter().map(|(table, line)| self.inside(key, Some(table), line, &mut read)).collect())
    }

    /// A section `key` that this file does not have: all its keys have their defaults.
    pub fn absent<T>(&self, key: &str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        self.inside(key, None, None, read)
    }

    fn inside<T>(
        &self,
        key: &str,
        table: Option<&'a dyn TableLike>,
        line: Option<usize>,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        let mut section = Section::new(self.source, format!("{}{key}.", self.prefix), table, line);
        let made = read(&mut section);
        section.name_unknown_keys();
        made
    }

    /// A rule between keys: a fault of the first of `keys` when `wrong`, unless one of them is at fault already.
    pub fn refuse(&mut self, wrong: bool, keys: &[&'static str], message: impl fmt::Display) {
        if let (true, [first, ..]) = (wrong && !self.is_bad(keys), keys) {
            self.source.note(&self.source.faults, self.place_of(keys), message.to_string());
            self.bad.push(first);
        }
    }

    /// As [`Section::refuse`], but the file is accepted.
    pub fn warn(&mut self, doubtful: bool, keys: &[&'static str], message: impl fmt::Display) {
        if doubtful && !self.is_bad(keys) {
            self.source.note(&self.source.warnings, self.place_of(keys), message.to_string());
        }
    }

    /// True where the file has `key`.
    pub fn is_set(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The value of `key` as messages show it.
    pub fn written(&self, key: &str) -> String {
        let item = self.table.and_then(|table| table.get(key));
        item.map_or_else(|| "the default".to_owned(), describe_item)
    }

    /// True where one of `keys` did not parse or breaks a rule.
    pub fn is_bad(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.bad.contains(key))
    }

    pub fn place(&self, key: &str) -> Place {
        Place { key: format!("{}{key}", self.prefix), line: self.line_of(key).or(self.line) }
    }

    /// Named by the first of `keys`, at the line of the first that the file has.
    fn place_of(&self, keys: &[&str]) -> Place {
        let line = keys.iter().find_map(|key| self.line_of(key));
        Place { key: format!("{}{}", self.prefix, keys.first().unwrap_or(&"")), line: line.or(self.line) }
    }

    fn line_of(&self, key: &str) -> Option<usize> {
        let (key, item) = self.table?.get_key_value(key)?;
        let span = key.span().or_else(|| item.span())?;
        Some(self.source.line_at(span.start))
    }

    fn item(&mut self, key: &'static str) -> Option<&'a Item> {
        self.known.push(key);
        self.table?.get(key)
    }

    fn fault(&mut self, key: &'static str, message: String) {
        self.bad.push(key);
        self.source.note(&self.source.faults, self.place(key), message);
    }

    fn name_unknown_keys(&self) {
        let Some(table) = self.table else { return };
        for (key, _) in table.iter().filter(|(key, _)| !self.known.contains(key)) {
            let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            let shown = if bare { key.to_owned() } else { format!("{key:?}") };
            let message = match nearest(key, &self.known) {
                Some(known) => format!("unknown key, did you mean {known}?"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            let place = Place { key: format!("{}{shown}", self.prefix), line: self.line_of(key).or(self.line) };
            self.source.note(&self.source.faults, place, message);
        }
    }
}

impl Source<'_> {
    fn note(&self, list: &RefCell<Vec<Fault>>, place: Place, message: String) {
        let Place { key, line } = place;
        list.borrow_mut().push(Fault { file: self.file.to_owned(), line, key, message });
    }

    fn line_at(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        1 + memchr::memchr_iter(b'\n', before).count()
    }
}

fn describe_item(item: &Item) -> String {
    item.clone().into_value().map_or_else(|_| "nothing".to_owned(), |value| describe(&value))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} in line {line}", self.key),
            None => write!(f, "the default of {}", self.key),
        }
    }
}
