//! A subscription: the actor that hears the doorbell and watches over the thread on which its worker feeds the subscriber.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::doorbell::Bell;
use super::feed::Feed;
use super::halt::quarantined;
use super::worker::{self, Orders};
use crate::host::{Guest, Host};
use crate::storage::Batch;

/// How long a start waits for the cursor; what takes longer is done later.
const OPEN_WITHIN: Duration = Duration::from_secs(5);
/// How long a stop waits for the worker.
const STOP_WITHIN: Duration = Duration::from_millis(1_800);
/// How often it looks whether the thread still moves.
const WATCH_MIN: Duration = Duration::from_millis(20);
const WATCH_MAX: Duration = Duration::from_secs(1);
/// How much longer than its deadline a handler may hold its thread.
const GRACE: Duration = Duration::from_millis(500);
/// How many threads that a subscriber blocks are left behind before it is quarantined.
const ABANDONED_LIMIT: usize = 4;
const BLOCKED: &str = "the handler blocked its thread beyond its deadline";

/// What a subscription is told.
#[derive(Debug)]
pub(super) enum SubscriptionMessage {
    /// The log may have grown.
    Look,
    /// A while has passed: see whether the thread still moves.
    Watch,
}

/// Starts an incarnation. A subscription that is new gets its cursor before it returns, unless the store is out.
pub(super) async fn start(feed: Arc<Feed>, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
    let (actor, _) = Actor::spawn_linked(None, SubscriptionActor, feed, supervisor).await?;
    Ok(actor.get_cell())
}

struct SubscriptionActor;

struct State {
    feed: Arc<Feed>,
    bell: Bell,
    working: Working,
    /// How many threads that the subscriber blocked are still blocked.
    abandoned: Arc<AtomicUsize>,
}

/// A worker on its thread. Dropped, it ends as a crash would end it.
struct Working {
    look: Arc<Notify>,
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
    _host: Host,
}

impl Working {
    fn begin(feed: &Arc<Feed>, bell: &Bell) -> io::Result<(Self, mpsc::Receiver<()>)> {
        let worker = feed.next_worker();
        let host = Host::start(&feed.registration.name, Guest::Subscriber)?;
        let (look, stop) = (Arc::new(Notify::new()), watch::Sender::new(false));
        let (opened, is_open) = mpsc::channel();
        let orders = Orders { look: Arc::clone(&look), bell: bell.clone(), stop: stop.subscribe(), opened, worker };
        let ended = host.spawn(worker::run(Arc::clone(feed), orders));
        Ok((Self { look, stop, ended, _host: host }, is_open))
    }
}

#[ractor::actor(message = SubscriptionMessage, state = State, arguments = Arc<Feed>)]
impl SubscriptionActor {
    async fn pre_start(
        &self,
        myself: ActorRef<SubscriptionMessage>,
        feed: Arc<Feed>,
    ) -> Result<State, ActorProcessingErr> {
        let bell = feed.doorbell.join(&myself);
        let (working, is_open) = Working::begin(&feed, &bell)?;
        // On a thread that may wait: the runtime's time stands still meanwhile where a test has paused it.
        let _ = tokio::task::spawn_blocking(move || is_open.recv_timeout(OPEN_WITHIN)).await;
        Ok(State { feed, bell, working, abandoned: Arc::default() })
    }

    async fn post_start(
        &self,
        myself: ActorRef<SubscriptionMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.bell.wake();
        let pace = state.feed.registration.settings.deadline.clamp(WATCH_MIN, WATCH_MAX);
        myself.send_interval(pace, || SubscriptionMessage::Watch);
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<SubscriptionMessage>,
        message: SubscriptionMessage,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SubscriptionMessage::Look => {
                state.working.look.notify_one();
                Ok(())
            }
            SubscriptionMessage::Watch => state.watch(),
        }
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<SubscriptionMessage>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.working.stop.send_replace(true);
        if tokio::time::timeout(STOP_WITHIN, &mut state.working.ended).await.is_err() {
            tracing::warn!(subscription = state.feed.registration.name, "a subscriber did not end in time");
        }
        Ok(())
    }
}

impl State {
    /// A handler that waits is ended at its deadline by the worker itself. One that blocks the thread can only be left
    /// behind with it: the attempt is counted, and another thread goes on.
    fn watch(&mut self) -> Result<(), ActorProcessingErr> {
        let deadline = self.feed.registration.settings.deadline;
        if self.feed.is_quarantined() || self.feed.longest_hold() <= deadline.saturating_mul(2) + GRACE {
            if self.working.ended.is_finished() && !self.feed.storage.is_released() {
                return Err("the worker ended".into());
            }
            return Ok(());
        }
        let name = &self.feed.registration.name;
        tracing::error!(subscription = name, "a subscriber blocks its thread, which is left behind");
        self.feed.note_failure(BLOCKED);
        self.feed.figures().restarts += 1;
        if self.abandoned.load(Ordering::SeqCst) >= ABANDONED_LIMIT {
            // Another thread would only be blocked as well.
            self.feed.quarantine();
            let feed = &self.feed;
            let told = quarantined(feed, BLOCKED.to_owned());
            let (checks, writes) = (Vec::new(), Vec::new());
            feed.storage.commit_with_next(Batch {
                flow: told.flow,
                outcome: None,
                checks,
                writes,
                signals: vec![told],
            });
            return Ok(());
        }
        let (working, _) = Working::begin(&self.feed, &self.bell)?;
        let left = std::mem::replace(&mut self.working, working);
        let abandoned = Arc::clone(&self.abandoned);
        abandoned.fetch_add(1, Ordering::SeqCst);
        drop(left.stop);
        tokio::spawn(async move {
            // It ends where the handler next waits, if ever.
            let _ = left.ended.await;
            abandoned.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(())
    }
}
