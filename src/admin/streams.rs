//! Answers of many lines: events as they happen, and everything that was kept.

use super::{Answer, say};
use crate::event::Event;
use crate::ops::{self, OpError, Ops};
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{broadcast, mpsc};

/// Messages whose events are read at once.
const STEP: usize = 200;

/// The newest events, and then those to come until the caller goes.
pub(super) async fn follow(
    ops: &Ops,
    events: &broadcast::Sender<Arc<Event>>,
    limit: usize,
    write: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let mut following = events.subscribe();
    match ops::events_tail(ops, limit) {
        Ok(past) => {
            for event in past {
                say(write, &Answer::Ok(json!(event))).await?;
            }
        }
        Err(e) => say(write, &Answer::Error(e.to_string())).await?,
    }
    loop {
        match following.recv().await {
            Ok(event) => say(write, &Answer::Ok(json!(*event))).await?,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                say(write, &Answer::Error(format!("{missed} events went by too fast to be shown"))).await?;
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}

/// Every event that is kept, message by message in the order of their acceptance.
pub(super) async fn export(ops: &Arc<Ops>, write: &mut OwnedWriteHalf) -> io::Result<()> {
    let reading = Arc::clone(ops);
    lines(write, move |tell| {
        let mut last = None;
        loop {
            let (events, next) = ops::events_page(&reading, last, STEP)?;
            let Some(next) = next else { return Ok(()) };
            if !events.iter().all(|event| tell(json!(event))) {
                return Ok(());
            }
            last = Some(next);
        }
    })
    .await
}

/// All that is kept of one recipient.
pub(super) async fn export_recipient(ops: &Arc<Ops>, address: String, write: &mut OwnedWriteHalf) -> io::Result<()> {
    let reading = Arc::clone(ops);
    lines(write, move |tell| ops::recipient_export(&reading, &address, |known| tell(json!(known)))).await
}

/// Writes what `read` tells, which reads the disk and so runs aside; then how many lines there were.
async fn lines(
    write: &mut OwnedWriteHalf,
    read: impl FnOnce(&mut dyn FnMut(Value) -> bool) -> Result<(), OpError> + Send + 'static,
) -> io::Result<()> {
    let (sender, mut told) = mpsc::channel::<Value>(STEP);
    let reading = tokio::task::spawn_blocking(move || read(&mut |line| sender.blocking_send(line).is_ok()));
    let mut count = 0u64;
    while let Some(line) = told.recv().await {
        say(write, &Answer::Ok(line)).await?;
        count += 1;
    }
    match reading.await {
        Ok(Ok(())) => say(write, &Answer::Ok(json!(count))).await,
        Ok(Err(e)) => say(write, &Answer::Error(e.to_string())).await,
        Err(_) => say(write, &Answer::Error("the history could not be read".to_owned())).await,
    }
}
