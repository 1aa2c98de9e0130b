//! The paths in a crate's source: which file names which path on which line. Owns following `mod` lines from the root,
//! leaving out what is compiled for tests alone, and making paths absolute; what they mean is the caller's.
//!
//! It works on tokens, so comments and strings do not count, and what stands inside a macro call does. It panics at
//! what does not parse or is not there.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What was read.
#[derive(Default)]
pub struct Source {
    pub uses: Vec<Use>,
    /// The modules of the top level, each with the line that declares it.
    pub modules: BTreeMap<String, Place>,
    pub files: usize,
}

/// A path as it is meant: `crate::mail::Reply`, `std::fs::read`, `Instant::now`. Never empty; the library's own name
/// is `crate` too, and a glob ends in `*`.
pub struct Use {
    pub place: Place,
    pub path: Vec<String>,
}

/// Where something stands. `module` is that of the top level (`smtp` for all of `src/smtp`), or `lib`, or `main`.
#[derive(Clone)]
pub struct Place {
    pub module: String,
    pub file: PathBuf,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Reads `src/lib.rs` and `src/main.rs` under `root`, and every module that they lead to.
pub fn read(root: &Path) -> Source {
    let mut walk = Walk { root, at: Vec::new(), file: PathBuf::from("src/lib.rs"), source: Source::default() };
    walk.file();
    walk.at = vec!["main".to_owned()];
    walk.file = PathBuf::from("src/main.rs");
    walk.file();
    walk.source
}

/// Reads `text` as if it were `src/MODULE.rs`.
pub fn read_text(module: &str, text: &str) -> Source {
    let file = PathBuf::from(format!("src/{module}.rs"));
    let mut walk = Walk { root: Path::new(""), at: vec![module.to_owned()], file, source: Source::default() };
    walk.text(text);
    walk.source
}

const LIBRARY: &str = env!("CARGO_PKG_NAME");

struct Walk<'a> {
    root: &'a Path,
    /// The path of the module that is being read, without `crate`; empty in `lib.rs`.
    at: Vec<String>,
    file: PathBuf,
    source: Source,
}

impl Walk<'_> {
    fn file(&mut self) {
        let file = self.root.join(&self.file);
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.source.files += 1;
        self.text(&text);
    }

    fn text(&mut self, text: &str) {
        match text.parse::<TokenStream>() {
            Ok(tokens) => self.tokens(tokens),
            Err(e) => panic!("{}:{}: {e}", self.file.display(), e.span().start().line),
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = &tokens[..];
        while !rest.is_empty() {
            rest = match rest {
                [TokenTree::Punct(hash), TokenTree::Group(what), item @ ..]
                    if hash.as_char() == '#' && for_tests(what) =>
                {
                    after_item(item)
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(inside), after @ ..]
                    if word == "mod" =>
                {
                    self.at.push(plain(name));
                    self.tokens(inside.stream());
                    self.at.pop();
                    after
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(_), after @ ..] if word == "mod" => {
                    self.module(name);
                    after
                }
                [TokenTree::Ident(word), after @ ..] if word == "use" => self.tree(after, Vec::new()),
                [TokenTree::Ident(_), after @ ..] if after_colons(after).is_some() => self.tree(rest, Vec::new()),
                [TokenTree::Group(group), after @ ..] => {
                    self.tokens(group.stream());
                    after
                }
                [_, after @ ..] => after,
                [] => rest,
            };
        }
    }

    /// `mod NAME;`: its file is `NAME.rs` or `NAME/mod.rs`.
    fn module(&mut self, name: &Ident) {
        let place = self.place(name);
        self.at.push(plain(name));
        if let [top] = &self.at[..] {
            self.source.modules.insert(top.clone(), place);
        }
        let path = Path::new("src").join(self.at.join("/"));
        let alone = path.with_extension("rs");
        let file = if self.root.join(&alone).is_file() { alone } else { path.join("mod.rs") };
        let outer = std::mem::replace(&mut self.file, file);
        self.file();
        self.file = outer;
        self.at.pop();
    }

    /// Takes one path off `tokens`, or all the paths of a `use` tree, each with `prefix` before it; gives what follows.
    fn tree<'t>(&mut self, tokens: &'t [TokenTree], mut prefix: Vec<String>) -> &'t [TokenTree] {
        match after_colons(tokens).unwrap_or(tokens) {
            [TokenTree::Ident(name), after @ ..] => {
                prefix.push(plain(name));
                match after_colons(after) {
                    Some(more @ [TokenTree::Ident(_) | TokenTree::Group(_), ..]) => return self.tree(more, prefix),
                    Some([TokenTree::Punct(star), after @ ..]) if star.as_char() == '*' => {
                        prefix.push("*".to_owned());
                        self.found(name, &prefix);
                        return after;
                    }
                    _ => self.found(name, &prefix),
                }
                after
            }
            [TokenTree::Group(group), after @ ..] => {
                let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inside.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',')) {
                    self.tree(branch, prefix.clone());
                }
                after
            }
            [_, after @ ..] => after,
            [] => &[],
        }
    }

    fn found(&mut self, name: &Ident, path: &[String]) {
        // `use a::{self}` is `a`.
        let path = path.strip_suffix(&["self".to_owned()]).unwrap_or(path);
        let Some((first, rest)) = path.split_first() else { return };
        let path = match first.as_str() {
            "crate" | LIBRARY => [&["crate".to_owned()], rest].concat(),
            "self" => [&["crate".to_owned()], &self.at[..], rest].concat(),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                [&["crate".to_owned()], &self.at[..self.at.len().saturating_sub(up)], &path[up..]].concat()
            }
            _ => path.to_vec(),
        };
        self.source.uses.push(Use { place: self.place(name), path });
    }

    fn place(&self, name: &Ident) -> Place {
        let module = self.at.first().map_or("lib", String::as_str).to_owned();
        Place { module, file: self.file.clone(), line: name.span().start().line }
    }
}

/// What follows `::`, where `tokens` begin with it.
fn after_colons(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    match tokens {
        [TokenTree::Punct(a), TokenTree::Punct(b), after @ ..] if a.as_char() == ':' && b.as_char() == ':' => {
            Some(after)
        }
        _ => None,
    }
}

fn plain(name: &Ident) -> String {
    name.to_string().trim_start_matches("r#").to_owned()
}

/// `[cfg(test)]`, and nothing more involved: what is sometimes compiled is looked at.
fn for_tests(attribute: &Group) -> bool {
    attribute.delimiter() == Delimiter::Bracket && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// What follows the item, field or statement at the beginning of `tokens`.
fn after_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let (mut angles, mut bounds, mut arrow) = (0, false, false);
    for (n, token) in tokens.iter().enumerate() {
        let ends = match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Ident(word) => {
                bounds |= word == "where";
                false
            }
            TokenTree::Punct(punct) => match punct.as_char() {
                ';' => true,
                // A field ends here, but not a list of type parameters or of bounds.
                ',' => angles == 0 && !bounds,
                '<' => {
                    angles += 1;
                    false
                }
                '>' if !arrow => {
                    angles -= 1;
                    false
                }
                _ => false,
            },
            TokenTree::Literal(_) => false,
        };
        if ends {
            return &tokens[n + 1..];
        }
        arrow = matches!(token, TokenTree::Punct(punct) if matches!(punct.as_char(), '-' | '='));
    }
    &[]
}
