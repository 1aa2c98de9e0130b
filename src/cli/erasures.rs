//! The list of erasures, which `recipient erased` prints and takes back: one a line, the hash of the address and when it
//! was erased, in milliseconds since 1970. No address can be read from it.
//!
//! A copy of the data folder, or a backup, knows the erasures that were made before it. With a later list it forgets
//! those as well that were made since.

use super::{ask, fail, load_alone, print_json};
use crate::admin::Request;
use crate::privacy::Erased;
use crate::settings::erasure_elsewhere;
use crate::spool::{Entry, Log, Options};
use serde_json::json;
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
        let (log, _) = Log::open(Options::new(&config.data_dir)).map_err(|e| e.to_string())?;
        write(&log, &list)?;
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

/// Writes erasures of another log to this one.
pub(super) fn write(log: &Log, list: &[(Erased, u64)]) -> Result<(), String> {
    for some in list.chunks(TOGETHER) {
        let settings = some.iter().map(|(erased, at)| erasure_elsewhere(*erased, *at));
        let settings = settings.map(|(key, value)| (key.into(), Some(value.into()))).collect();
        log.append(Entry::Settings(settings)).wait().map_err(|e| e.to_string())?;
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

/// The list, or the number of the first line that is none of it.
fn parsed(text: &str) -> Result<Vec<(Erased, u64)>, usize> {
    let mut list = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let read = line.trim().split_once(' ').and_then(|(hash, at)| Some((Erased::parse(hash)?, at.parse().ok()?)));
        list.push(read.ok_or(number + 1)?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_erasure_is_named_by_its_line() {
        let hash = "ab".repeat(32);
        assert_eq!(parsed(&format!("{hash} 5\n\n{hash} 17\n")).unwrap().iter().map(|(_, at)| *at).sum::<u64>(), 22);
        for (text, line) in [("ada@example.net 5", 1), (&*format!("{hash} 5\n{hash}"), 2), (&*format!("{hash} -1"), 1)]
        {
            assert_eq!(parsed(text).unwrap_err(), line, "{text}");
        }
    }
}
