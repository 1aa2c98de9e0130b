//! What is wrong with a configuration file, and where. Always the operator's to mend.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, or doubtful, in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file as it was named on the command line.
    pub file: PathBuf,
    /// Counted from 1. `None` where nothing stands in the file: it cannot be read, or a default is at odds with it.
    pub line: Option<usize>,
    /// The key with its sections, `smtp.listener.address`; empty where the file as a whole is meant.
    pub key: String,
    /// Lower case, without a final period, naming the value.
    pub message: String,
}

/// `config/trackpost.toml:14: smarthost.address: "mail.example" has no port`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for Fault {}

/// The one of `known` that was most likely meant by `word`, if any is near.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let near = |candidate: &str| 1 + candidate.len() / 4;
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= near(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove, replace or swap with their neighbour to turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // A key this long was not mistyped, and the table below would grow with the file.
    if a.len() > 64 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (_, 0) => i,
                (0, _) => j,
                _ => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_compilers_do() {
        let mut fault = Fault {
            file: "config/trackpost.toml".into(),
            line: Some(14),
            key: "smarthost.address".to_owned(),
            message: "\"mail.example\" has no port".to_owned(),
        };
        assert_eq!(fault.to_string(), "config/trackpost.toml:14: smarthost.address: \"mail.example\" has no port");
        fault.line = None;
        fault.key.clear();
        assert_eq!(fault.to_string(), "config/trackpost.toml: \"mail.example\" has no port");
    }

    #[test]
    fn the_nearest_key() {
        let known = ["address", "tls", "auth", "trusted_networks", "max_connections", "max_recipients"];
        let table = [
            ("adress", Some("address")),
            ("tsl", Some("tls")),
            ("Auth", Some("auth")),
            ("trusted-networks", Some("trusted_networks")),
            ("trusted_network", Some("trusted_networks")),
            ("max_conections", Some("max_connections")),
            ("hostname", None),
            ("", None),
        ];
        for (word, want) in table {
            assert_eq!(nearest(word, &known), want, "{word:?}");
        }
    }
}
