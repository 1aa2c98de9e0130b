//! What is to run for as long as the process: a panic ends one turn of a task, never the task, and is seen.
//!
//! A panic is caught, logged with its words, and counted by the task's name; then the task begins again, after a pause
//! that grows while it goes on panicking. Who holds something when a turn ends, such as a message, gives it back itself.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(30);
/// A task that ran for so long has begun well, and its next pause is the first one again.
const BEGUN_WELL: Duration = Duration::from_secs(60);

/// What a panic said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic(pub String);

impl Panic {
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        Self(text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no words".to_owned()))
    }

    /// Logs and counts it.
    pub fn tell(&self, task: &'static str) {
        tracing::error!(task, "a task panicked: {}", self.0);
        metrics::counter!("trackpost_task_panics_total", "task" => task).increment(1);
    }
}

/// Runs a future to its end or to its panic. What it held is dropped then.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(payload) => Poll::Ready(Err(Panic::of(&*payload))),
    })
    .await
}

/// Runs what takes long, or waits for the disk, where it keeps no other task waiting; on a runtime of one thread there is
/// no such place.
pub fn out_of_the_way<T>(work: impl FnOnce() -> T) -> T {
    let threads = Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if threads { tokio::task::block_in_place(work) } else { work() }
}

/// Counts a panic that nobody catches here, where this is dropped by one. The words are the panic hook's to log.
pub struct Counted(pub &'static str);

impl Drop for Counted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            metrics::counter!("trackpost_task_panics_total", "task" => self.0).increment(1);
        }
    }
}

/// Tells of a task that was joined and had panicked.
pub fn joined<T>(task: &'static str, ended: Result<T, JoinError>) {
    if let Err(e) = ended
        && let Ok(payload) = e.try_into_panic()
    {
        Panic::of(&*payload).tell(task);
    }
}

/// Runs what `begin` gives until it ends by itself, and again after each panic until `stop`. What `begin` keeps for the
/// next time, such as a socket, is let go of at `stop`.
pub async fn run<F, B>(task: &'static str, mut begin: B, mut stop: watch::Receiver<bool>)
where
    F: Future<Output = ()>,
    B: FnMut() -> F,
{
    let mut turns = Turns::new(task);
    loop {
        let mut turn = pin!(caught(begin()));
        let ended = tokio::select! {
            ended = &mut turn => Some(ended),
            () = async { drop(stop.wait_for(|stop| *stop).await) } => None,
        };
        let Some(ended) = ended else {
            drop(begin);
            if let Err(panic) = turn.await {
                panic.tell(task);
            }
            return;
        };
        let Err(panic) = ended else { return };
        if turns.pause(&panic, &mut stop).await {
            return;
        }
    }
}

/// The turns of one task, for those who begin them themselves.
pub struct Turns {
    task: &'static str,
    pause: Duration,
    begun: Instant,
}

impl Turns {
    pub fn new(task: &'static str) -> Self {
        Self { task, pause: PAUSE_FIRST, begun: Instant::now() }
    }

    /// Tells of the panic that ended a turn, and waits until the next may begin; true when `stop` says that none is to.
    pub async fn pause(&mut self, panic: &Panic, stop: &mut watch::Receiver<bool>) -> bool {
        panic.tell(self.task);
        if self.begun.elapsed() > BEGUN_WELL {
            self.pause = PAUSE_FIRST;
        }
        let stopped = tokio::time::timeout(self.pause, stop.wait_for(|stop| *stop)).await.is_ok();
        self.pause = (self.pause * 2).min(PAUSE_LAST);
        self.begun = Instant::now();
        if !stopped {
            tracing::warn!(task = self.task, "the task begins again");
        }
        stopped
    }
}

/// Panics where a test of this crate has asked for it; nothing outside of them.
#[cfg(test)]
pub fn failpoint(place: &'static str, what: &str) {
    let mut planned = PLANNED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = planned.iter().position(|(at, wanted, _)| *at == place && what.contains(&**wanted));
    if let Some(n) = found {
        planned[n].2 -= 1;
        if planned[n].2 == 0 {
            planned.remove(n);
        }
        drop(planned);
        panic!("planned at {place}");
    }
}

#[cfg(not(test))]
#[inline(always)]
pub fn failpoint(_: &'static str, _: &str) {}

/// Places, what is to be met there, and how often.
#[cfg(test)]
pub static PLANNED: std::sync::Mutex<Vec<(&'static str, String, u32)>> = std::sync::Mutex::new(Vec::new());

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_after_growing_pauses() {
        let (_stop, stopped) = watch::channel(false);
        let turns = Arc::new(AtomicU32::new(0));
        let (count, started) = (Arc::clone(&turns), Instant::now());
        let begin = move || {
            let count = Arc::clone(&count);
            async move {
                tokio::task::yield_now().await;
                assert!(count.fetch_add(1, SeqCst) >= 4, "not yet");
            }
        };
        run("test", begin, stopped).await;
        assert_eq!(turns.load(SeqCst), 5);
        let took = started.elapsed();
        assert!(took >= PAUSE_FIRST * 15 && took < PAUSE_FIRST * 16, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_after_its_stop_does_not_begin_again() {
        let (stop, stopped) = watch::channel(false);
        let kept = Arc::new(());
        let (held, told) = (Arc::clone(&kept), stopped.clone());
        let begin = move || {
            let (_held, mut seen) = (&held, told.clone());
            async move {
                drop(seen.wait_for(|stop| *stop).await);
                panic!("late");
            }
        };
        let task = tokio::spawn(run("test", begin, stopped));
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&kept), 2);
        stop.send(true).unwrap();
        task.await.unwrap();
        assert_eq!(Arc::strong_count(&kept), 1);
    }

    #[tokio::test]
    async fn the_words_of_a_panic() {
        assert_eq!(caught(async { 5 }).await, Ok(5));
        assert_eq!(caught(panics(Some(1))).await, Err(Panic("so 1".to_owned())));
        assert_eq!(caught(panics(None)).await, Err(Panic("so".to_owned())));
    }

    async fn panics(number: Option<u8>) {
        match number {
            Some(number) => panic!("so {number}"),
            None => panic!("so"),
        }
    }
}
