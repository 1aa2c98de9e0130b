//! The list of erasures, which `recipient erased` prints and takes back: one a line, the hash of the address and when it
//! was erased, in milliseconds since 1970. No address can be read from it.
//!
//! A copy of the data folder, or a backup, knows the erasures that were made before it. With a later list it forgets
//! those as well that were made since.

use super::{ask, fail, load_alone, print_json};
use crate::admin::Request;
use crate::privacy::Erased;
use crate::settings::erasure_added;
use crate::spool::{Entry, Log, Options};
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

/// Longest list that is read.
const LONGEST: u64 = 64 * 1024 * 1024;
/// Erasures that one record holds.
const TOGETHER: usize = 1_000;

/// Prints the list.
pub(super) fn print(file: &Path, as_json: bool) -> ExitCode {
    ask(file, &Request::RecipientsErased, |answer| {
        let list: Vec<(String, u64)> = serde_json::from_value(answer.clone()).unwrap_or_default();
        match as_json {
            true => {
                print_json(&json!(list.iter().map(|(hash, at)| json!({ "hash": hash, "at": at })).collect::<Vec<_>>()))
            }
            false => list.iter().for_each(|(hash, at)| println!("{hash} {at}")),
        }
    })
}

/// Adds a list to a data folder whose server is stopped.
pub(super) fn add(file: &Path, from: &Path) -> ExitCode {
    let config = match load_alone(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let added = read(from).and_then(|list| {
        let (log, recovered) = Log::open(Options::new(&config.data_dir)).map_err(|e| e.to_string())?;
        write(&log, &recovered.settings, &list)?;
        log.close();
        Ok(list.len())
    });
    match added {
        Ok(count) => {
            println!("{count} erasures are in force from the next start on");
            let store = config.data_dir.join("store");
            if store.exists() {
                println!("the history is there already: delete {} to have it made anew without them", store.display());
            }
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

/// Writes erasures of another log to this one, which holds `settings`: those that are later than what it knows.
pub(super) fn write(log: &Log, settings: &BTreeMap<Box<str>, Bytes>, list: &[(Erased, u64)]) -> Result<(), String> {
    let added = list.iter().filter_map(|(erased, at)| erasure_added(settings, *erased, *at));
    let added: Vec<_> = added.map(|(key, value)| (key.into(), Some(value.into()))).collect();
    for some in added.chunks(TOGETHER) {
        log.append(Entry::Settings(some.to_vec())).wait().map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Reads a list.
pub(super) fn read(from: &Path) -> Result<Vec<(Erased, u64)>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", from.display());
    let mut text = String::new();
    let file = fs::File::open(from).map_err(|e| failed(&e))?;
    file.take(LONGEST).read_to_string(&mut text).map_err(|e| failed(&e))?;
    parsed(&text).map_err(|line| failed(&format_args!("line {line} is no erasure: a hash and a time are expected")))
}

/// The list, or the number of the first line that is none of it. Of somebody who is in it several times, as in lists
/// that were put together, the last time counts.
fn parsed(text: &str) -> Result<Vec<(Erased, u64)>, usize> {
    let mut list: BTreeMap<Erased, u64> = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let read = line.trim().split_once(' ').and_then(|(hash, at)| Some((Erased::parse(hash)?, at.parse().ok()?)));
        let (erased, at) = read.ok_or(number + 1)?;
        let latest = list.entry(erased).or_insert(at);
        *latest = at.max(*latest);
    }
    Ok(list.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_erasure_is_named_by_its_line() {
        let hash = "ab".repeat(32);
        let other = "cd".repeat(32);
        assert_eq!(parsed(&format!("{hash} 5\n\n{other} 17\n")).unwrap().iter().map(|(_, at)| *at).sum::<u64>(), 22);
        for (text, line) in [("ada@example.net 5", 1), (&*format!("{hash} 5\n{hash}"), 2), (&*format!("{hash} -1"), 1)]
        {
            assert_eq!(parsed(text).unwrap_err(), line, "{text}");
        }
    }

    #[test]
    fn of_lists_put_together_the_last_time_counts() {
        let (hash, other) = ("ab".repeat(32), "cd".repeat(32));
        let want = [(Erased::parse(&hash).unwrap(), 9), (Erased::parse(&other).unwrap(), 7)];
        assert_eq!(parsed(&format!("{hash} 5\n{other} 7\n{hash} 9\n")).unwrap(), want);
        assert_eq!(parsed(&format!("{hash} 9\n{other} 7\n{hash} 5\n")).unwrap(), want);
    }
}
