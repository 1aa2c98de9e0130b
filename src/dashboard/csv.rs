//! Tables as files for spreadsheets (RFC 4180).
//!
//! A text that begins like a formula gets an apostrophe before it: spreadsheets would compute what somebody else wrote
//! into a link or a domain. Numbers are never negative, so nothing is lost.

use axum::response::{IntoResponse, Response};
use http::header;

/// A table that grows by rows.
pub struct Csv(String);

impl Csv {
    /// The first row are the names of columns.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut csv = Self(String::new());
        csv.row(names);
        csv
    }

    pub fn row<'a>(&mut self, fields: impl IntoIterator<Item = &'a str>) {
        for (n, field) in fields.into_iter().enumerate() {
            if n > 0 {
                self.0.push(',');
            }
            push(&mut self.0, field);
        }
        self.0.push_str("\r\n");
    }

    /// As a file to be kept; the name has letters, digits, hyphens and full stops alone.
    pub fn into_file(self, name: &str) -> Response {
        let kind = "text/csv; charset=utf-8; header=present".to_owned();
        let how = format!("attachment; filename=\"{name}\"");
        ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, how)], self.0).into_response()
    }
}

fn push(text: &mut String, field: &str) {
    let is_formula = field.trim_start_matches(' ').starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let guard = if is_formula { "'" } else { "" };
    match field.contains([',', '"', '\r', '\n']) {
        false => text.extend([guard, field]),
        true => text.extend(["\"", guard, &field.replace('"', "\"\""), "\""]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_harmless() {
        for (field, want) in [
            ("", ""),
            ("2026-11-24", "2026-11-24"),
            ("0.25", "0.25"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("a\r\nb", "\"a\r\nb\""),
            ("=1+1", "'=1+1"),
            ("+49", "'+49"),
            ("-2", "'-2"),
            ("@sum(a1)", "'@sum(a1)"),
            ("  =1", "'  =1"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=cmd|' /c calc'!a1,\"x\"", "\"'=cmd|' /c calc'!a1,\"\"x\"\"\""),
            ("https://example.net/=1", "https://example.net/=1"),
        ] {
            let mut text = String::new();
            push(&mut text, field);
            assert_eq!(text, want, "{field:?}");
        }
    }

    #[test]
    fn a_file() {
        let mut csv = Csv::new(["day", "opens"]);
        csv.row(["2026-11-24", "1"]);
        assert_eq!(csv.0, "day,opens\r\n2026-11-24,1\r\n");
        let file = csv.into_file("trackpost-opens.csv");
        assert_eq!(file.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"trackpost-opens.csv\"");
    }
}
