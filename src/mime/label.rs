//! The Content-Transfer-Encoding field of a part whose body gets another encoding (RFC 2045 §6).
//!
//! Owns: what changes in the header. Does not: encode the body ([`super::transfer`]), or decide that it must be.

use super::scan::Part;
use std::ops::Range;

/// What stands in the header of `part` where the body's encoding is `encoding`: spans of `message`, in order, and the
/// text instead. Only the value changes, in each field of that name; where there is none, a field is added behind the
/// last one, with `eol`.
pub fn relabel(message: &[u8], part: &Part, encoding: &str, eol: &[u8]) -> Vec<(Range<usize>, Box<[u8]>)> {
    if part.transfer_values.is_empty() {
        let field = [b"Content-Transfer-Encoding: ", encoding.as_bytes(), eol].concat();
        return vec![(part.header.end..part.header.end, field.into())];
    }
    let change = |value: &Range<usize>| {
        let text = &message[value.clone()];
        let start = value.start + text.len() - text.trim_ascii_start().len();
        let end = start + text.trim_ascii().len();
        match start < end {
            true => (start..end, encoding.as_bytes().into()),
            false => (value.start..value.start, [b" ", encoding.as_bytes()].concat().into()),
        }
    };
    part.transfer_values.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::scan::scan;

    #[test]
    fn only_the_value_changes() {
        let table = [
            ("", "Content-Transfer-Encoding: base64\n"),
            ("A: b\n", "A: b\nContent-Transfer-Encoding: base64\n"),
            ("content-transfer-ENCODING :\t8Bit  \nA: b\n", "content-transfer-ENCODING :\tbase64  \nA: b\n"),
            ("Content-Transfer-Encoding:\n 8bit\n (as it is)\n", "Content-Transfer-Encoding:\n base64\n"),
            ("Content-Transfer-Encoding:\n", "Content-Transfer-Encoding: base64\n"),
            (
                "Content-Transfer-Encoding: 8bit\nA: b\nContent-Transfer-Encoding: binary\n",
                "Content-Transfer-Encoding: base64\nA: b\nContent-Transfer-Encoding: base64\n",
            ),
        ];
        for (header, want) in table {
            let message = format!("{header}\nbody");
            let mut got = message.clone();
            for (range, text) in
                relabel(message.as_bytes(), &scan(message.as_bytes()).unwrap()[0], "base64", b"\n").into_iter().rev()
            {
                got.replace_range(range, std::str::from_utf8(&text).unwrap());
            }
            assert_eq!(got, format!("{want}\nbody"));
        }
    }
}
