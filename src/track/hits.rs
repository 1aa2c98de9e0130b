//! From the redirect to the log: a bounded queue of hits, and the task that writes them down in batches.
//!
//! A redirect never fails over its hit. When the queue is full (the log is stuck, or the disk full), a request waits
//! 50 ms at most; then the hit is lost and counted, in [`HitQueue::lost`] and `trackpost_hits_lost_total`.

use super::repeats::Repeats;
use crate::event::{Hit, HitKind};
use crate::supervise;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Places of a queue: each takes a hit of up to 1 KiB, so the queue stays below 64 MiB.
pub const DEFAULT_PLACES: usize = 65_536;
/// Bytes to a place. A hit with a long URL takes several.
const PLACE_BYTES: usize = 1_024;
/// Hits in one batch.
const BATCH: usize = 1_024;
/// Between two batches, if the first is not full; after a longer silence a hit is written at once.
const BATCH_PAUSE: Duration = Duration::from_millis(50);
/// After a look into the queue that did not fill a batch: under load the writer is woken a hundred times a second and
/// not for every hit, which takes a tenth off the CPU time of a redirect.
const GATHER: Duration = Duration::from_millis(10);
/// Turns that end by a panic while everything ends.
const LAST_TURNS: u32 = 3;
/// For a place in a full queue.
const FULL_WAIT: Duration = Duration::from_millis(50);

/// A queue with `places` places, at least 4, and the writer at its end.
pub fn hits(places: usize) -> (HitQueue, HitWriter) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let places = Arc::new(Semaphore::new(places.clamp(4, Semaphore::MAX_PERMITS)));
    let lost = Arc::new(Lost::default());
    let queue = HitQueue { sender, places: places.clone(), lost: lost.clone() };
    (queue, HitWriter { receiver, places, lost })
}

/// Where hits go in. Clones feed the same queue.
#[derive(Clone)]
pub struct HitQueue {
    sender: mpsc::UnboundedSender<Hit>,
    /// What bounds the channel.
    places: Arc<Semaphore>,
    lost: Arc<Lost>,
}

impl HitQueue {
    /// Queues `hit`; waits up to 50 ms for a place and then gives the hit up.
    pub async fn push(&self, hit: Hit) {
        let places = places_of(&hit);
        let place = match self.places.try_acquire_many(places) {
            Ok(place) => Some(place),
            Err(_) => timeout(FULL_WAIT, self.places.acquire_many(places)).await.ok().and_then(Result::ok),
        };
        let Some(place) = place else { return self.lost.count(1) };
        match self.sender.send(hit) {
            // The writer gives it back.
            Ok(()) => place.forget(),
            Err(_) => self.lost.count(1),
        }
    }

    /// Hits given up since the start, here or because they could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.0.load(Relaxed)
    }
}

/// Takes hits from the queue, counts repeats, and hands out batches.
pub struct HitWriter {
    receiver: mpsc::UnboundedReceiver<Hit>,
    places: Arc<Semaphore>,
    lost: Arc<Lost>,
}

impl HitWriter {
    /// Hands batches to `write`, one at a time, until `shutdown` turns true or all queues are gone; then what is
    /// queued is still written. A first hit is handed on at once after a silence, else within 50 ms; its repeats
    /// within five seconds follow as counts, every 500 ms. The hits of a batch that `write` fails on are lost.
    ///
    /// After a panic it begins again; what it had in hand is lost.
    pub async fn run<W, F, E>(mut self, mut write: W, mut shutdown: watch::Receiver<bool>)
    where
        W: FnMut(Vec<Hit>) -> F,
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let mut turns = supervise::Turns::new("hits");
        let mut last = LAST_TURNS;
        while let Err(panic) = supervise::caught(self.take_hits(&mut write, &mut shutdown)).await {
            // What is queued is still to be written after the end of the others.
            if turns.pause(&panic, &mut shutdown).await {
                last -= 1;
                if last == 0 {
                    return;
                }
            }
        }
    }

    async fn take_hits<W, F, E>(&mut self, write: &mut W, shutdown: &mut watch::Receiver<bool>)
    where
        W: FnMut(Vec<Hit>) -> F,
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let started = Instant::now();
        let clock = || started.elapsed().as_millis() as u64;
        let mut repeats = Repeats::default();
        let mut received = Vec::new();
        let mut batch = Vec::new();
        let mut next_batch = started;
        let mut closing = false;
        loop {
            let due = repeats.due().map(|due| started + Duration::from_millis(due));
            let wake = if batch.is_empty() { due } else { Some(due.map_or(next_batch, |due| due.min(next_batch))) };
            let mut gather = false;
            tokio::select! {
                biased;
                () = told(shutdown), if !closing => {
                    closing = true;
                    self.receiver.close();
                }
                count = self.receiver.recv_many(&mut received, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    gather = count < BATCH && !closing;
                    self.places.add_permits(received.iter().map(|hit| places_of(hit) as usize).sum());
                    let now = clock();
                    batch.extend(received.drain(..).filter_map(|hit| repeats.admit(hit, now)));
                }
                () = sleep_until(wake.unwrap_or(started)), if wake.is_some() => {}
            }
            repeats.take_due(clock(), &mut batch);
            if batch.len() >= BATCH || (!batch.is_empty() && Instant::now() >= next_batch) {
                self.hand_on(std::mem::take(&mut batch), write).await;
                next_batch = Instant::now() + BATCH_PAUSE;
            }
            if gather {
                sleep(GATHER).await;
            }
        }
        repeats.take_all(&mut batch);
        if !batch.is_empty() {
            self.hand_on(batch, write).await;
        }
    }

    async fn hand_on<W, F, E>(&self, batch: Vec<Hit>, write: &mut W)
    where
        W: FnMut(Vec<Hit>) -> F,
        F: Future<Output = Result<(), E>>,
        E: fmt::Display,
    {
        let count = batch.iter().map(|hit| u64::from(hit.count)).sum();
        if let Err(error) = write(batch).await {
            tracing::warn!(%error, hits = count, "hits could not be written and are lost");
            self.lost.count(count);
        }
    }
}

async fn told(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which asks for the same.
    let _ = shutdown.wait_for(|down| *down).await;
}

fn places_of(hit: &Hit) -> u32 {
    let url = match &hit.kind {
        HitKind::Click { url, .. } => url.len(),
        HitKind::Open => 0,
    };
    let bytes = size_of::<Hit>() + hit.agent.len() + url;
    // At most as many as the smallest queue has, or a hit would wait for ever.
    bytes.div_ceil(PLACE_BYTES).min(4) as u32
}

#[derive(Default)]
struct Lost(AtomicU64);

impl Lost {
    fn count(&self, hits: u64) {
        self.0.fetch_add(hits, Relaxed);
        metrics::counter!("trackpost_hits_lost_total").increment(hits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::QueueId;
    use std::convert::Infallible;
    use std::sync::Mutex;

    fn hit(recipient: u16) -> Hit {
        Hit {
            id: QueueId::from_bytes([1; 16]),
            recipient,
            kind: HitKind::Open,
            at: 0,
            count: 1,
            address: [192, 0, 2, 1].into(),
            agent: "agent".into(),
            head: false,
            repeat: false,
        }
    }

    type Batches = Arc<Mutex<Vec<(Duration, Vec<Hit>)>>>;

    /// A writer that keeps what it is given, with the time since the start.
    fn kept(batches: &Batches) -> impl FnMut(Vec<Hit>) -> std::future::Ready<Result<(), Infallible>> + use<> {
        let (batches, started) = (batches.clone(), Instant::now());
        move |batch| {
            batches.lock().unwrap().push((started.elapsed(), batch));
            std::future::ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_first_hit_at_once_others_in_batches_repeats_as_counts() {
        let (queue, writer) = hits(DEFAULT_PLACES);
        let (down, shutdown) = watch::channel(false);
        let batches = Batches::default();
        let task = tokio::spawn(writer.run(kept(&batches), shutdown));
        tokio::time::sleep(Duration::from_millis(20)).await;
        for recipient in [0, 1, 0, 0, 2] {
            queue.push(hit(recipient)).await;
            tokio::task::yield_now().await;
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while batches.lock().unwrap().len() < 3 {
            assert!(Instant::now() < deadline, "{:?}", batches.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let seen = batches.lock().unwrap().clone();
        let of = |batch: usize| seen[batch].1.iter().map(|h| (h.recipient, h.count, h.repeat)).collect::<Vec<_>>();
        assert_eq!(of(0), [(0, 1, false)]);
        assert_eq!(of(1), [(1, 1, false), (2, 1, false)]);
        assert_eq!(of(2), [(0, 2, true)]);
        assert_eq!(seen.len(), 3);
        let wait = seen[2].0 - seen[0].0;
        assert!(wait >= Duration::from_millis(450), "{wait:?}");

        // What is queued or counted at shutdown is still written.
        queue.push(hit(0)).await;
        queue.push(hit(3)).await;
        down.send(true).unwrap();
        task.await.unwrap();
        let last: Vec<_> = batches.lock().unwrap()[3..].iter().flat_map(|b| b.1.clone()).map(|h| h.recipient).collect();
        assert_eq!(last, [3, 0]);
        assert_eq!(queue.lost(), 0);
        queue.push(hit(4)).await;
        assert_eq!(queue.lost(), 1);
    }

    #[tokio::test]
    async fn a_full_queue_delays_a_little_and_loses_the_hit() {
        let (queue, writer) = hits(4);
        for recipient in 0..4 {
            queue.push(hit(recipient)).await;
        }
        let started = Instant::now();
        queue.push(hit(4)).await;
        let waited = started.elapsed();
        assert!(waited >= FULL_WAIT && waited < FULL_WAIT * 20, "{waited:?}");
        assert_eq!(queue.lost(), 1);

        // A place that falls free in time is taken.
        let (_down, shutdown) = watch::channel(false);
        let batches = Batches::default();
        let mut task = None;
        tokio::join!(queue.push(hit(5)), async { task = Some(tokio::spawn(writer.run(kept(&batches), shutdown))) });
        assert_eq!(queue.lost(), 1);
        drop(queue);
        task.unwrap().await.unwrap();
        let written: usize = batches.lock().unwrap().iter().map(|b| b.1.len()).sum();
        assert_eq!(written, 5);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_counted_as_lost() {
        let (queue, writer) = hits(100);
        for _ in 0..3 {
            queue.push(hit(0)).await;
        }
        let lost = queue.clone();
        drop(queue);
        let (down, shutdown) = watch::channel(false);
        let task = tokio::spawn(writer.run(|_| std::future::ready(Err("disk full")), shutdown));
        down.send(true).unwrap();
        task.await.unwrap();
        assert_eq!(lost.lost(), 3);
    }

    #[test]
    fn large_hits_take_more_places() {
        let url = |len: usize| HitKind::Click { link: 0, url: "x".repeat(len).into() };
        for (kind, want) in [(HitKind::Open, 1), (url(100), 1), (url(2_000), 3), (url(100_000), 4)] {
            assert_eq!(places_of(&Hit { kind, ..hit(0) }), want);
        }
    }
}
