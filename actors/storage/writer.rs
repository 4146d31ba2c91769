//! The writer: takes all that waits, commits it as one transaction, answers, and heals the store when it fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use majordomo_model::Envelope;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::batch::{Applied, COMMITS, HIGH_WATER, Prepared, Verdict};
use super::census::{self, Census};
use super::log::LogEnd;
use super::lookup::{Lookup, ReadError};
use super::redb::{CommitError as EngineCommitError, Engine, EngineError, WriteView};
use super::table::{Key, Table};
use super::{CommitError, Committed, Shared};
use crate::address::Reply;
use crate::telemetry;

const REOPEN_FIRST: Duration = Duration::from_millis(50);
const REOPEN_LAST: Duration = Duration::from_secs(5);

/// How often a group is given to the store, which is reopened in between, before its batches are refused.
const ATTEMPTS: usize = 2;

/// How many signals are told at once that an earlier incarnation did not tell.
const UNTOLD_PAGE: usize = 256;

/// Something that waits for the writer.
pub(super) struct Pending {
    work: Option<Arc<Prepared>>,
    asker: Asker,
    /// How long it may wait for company.
    patience: Duration,
    _queued: Option<Queued>,
}

/// Counts a waiting batch for as long as it exists, wherever it ends.
struct Queued(Arc<Shared>);

impl Queued {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.counters.queued.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.counters.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Asker {
    Waits(Reply<Result<Verdict, CommitError>>),
    Flushes(oneshot::Sender<()>),
    Left,
}

impl Pending {
    pub(super) fn asked(
        shared: &Arc<Shared>,
        work: Arc<Prepared>,
        patience: Duration,
        reply: Reply<Result<Verdict, CommitError>>,
    ) -> Self {
        Self { work: Some(work), asker: Asker::Waits(reply), patience, _queued: Some(Queued::new(shared)) }
    }

    pub(super) fn with_next(shared: &Arc<Shared>, work: Arc<Prepared>) -> Self {
        let patience = shared.settings.idle_flush;
        Self { work: Some(work), asker: Asker::Left, patience, _queued: Some(Queued::new(shared)) }
    }

    pub(super) const fn flush(flushed: oneshot::Sender<()>) -> Self {
        Self { work: None, asker: Asker::Flushes(flushed), patience: Duration::ZERO, _queued: None }
    }

    /// The span of whoever waits for it.
    fn span(&self) -> Option<&Span> {
        match &self.asker {
            Asker::Waits(reply) => Some(reply.span()),
            Asker::Flushes(_) | Asker::Left => None,
        }
    }

    /// Answers that it will not be committed.
    pub(super) fn refuse(self, shared: &Shared, error: CommitError) {
        match self.asker {
            Asker::Waits(reply) => reply.send(Err(error)),
            Asker::Flushes(flushed) => drop(flushed),
            Asker::Left => {
                shared.counters.lose(self.work.map_or(0, |work| work.batch.signals.len()));
            }
        }
    }

    fn answer(self, verdict: Option<Verdict>) {
        match (self.asker, verdict) {
            (Asker::Waits(reply), Some(verdict)) => reply.send(Ok(verdict)),
            (Asker::Waits(reply), None) => reply.send(Err(CommitError::Failed)),
            (Asker::Flushes(flushed), _) => {
                let _ = flushed.send(());
            }
            (Asker::Left, _) => {}
        }
    }
}

/// What a group's transaction did, provided that it took place.
struct Done {
    /// Its number, which the store holds if it took place; `None` where nothing was to be written.
    commit: Option<u64>,
    /// What each batch did, in their order.
    applied: Vec<Applied>,
}

/// Why a group was not committed.
enum GroupError {
    /// The store needs reopening. Where it was the commit that failed, only looking then tells whether what was done
    /// is in the store; otherwise nothing is.
    Store(EngineError, Option<Done>),
    /// One of the batches cannot be written.
    Batch(String),
}

impl From<ReadError> for GroupError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Engine(error) if error.needs_reopen() => Self::Store(error, None),
            error => Self::Batch(error.to_string()),
        }
    }
}

/// What became of a group whose store failed.
enum Fate {
    /// It had been committed.
    Committed(Done),
    /// The store is back, without it.
    Absent,
    /// The system stops before the store is back.
    Untold,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Pending>,
    /// Batches that wait for company, and until when the least patient of them does.
    held: Vec<Pending>,
    held_until: Option<Instant>,
    /// How long to wait before the store is opened again; none where it has worked since.
    pause: Option<Duration>,
}

impl Writer {
    pub(super) const fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<Pending>) -> Self {
        Self { shared, inbox, held: Vec::new(), held_until: None, pause: None }
    }

    /// Runs until the queue is closed and empty, once the writer of an earlier incarnation has done so: two at a time
    /// would tell signals out of order, and could not tell whose transaction the store ends with.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _turn = shared.writing.lock().await;
        if !shared.engine.is_available() {
            self.reopen().await;
        }
        self.tell_untold();
        while let Some(group) = self.gather().await {
            self.commit(group).await;
        }
    }

    /// Waits for work and takes all there is, as soon as the patience of any of it is over. As a rule there is none:
    /// company comes by itself while a commit runs. A store that readers find broken meanwhile is reopened.
    async fn gather(&mut self) -> Option<Vec<Pending>> {
        let limit = self.shared.settings.group.max(1);
        loop {
            let mut incoming = Vec::new();
            let room = limit.saturating_sub(self.held.len()).max(1);
            let count = tokio::select! {
                biased;
                count = self.inbox.recv_many(&mut incoming, room) => count,
                () = reached(self.held_until) => return Some(self.take_held()),
                () = self.shared.engine.suspected() => {
                    tracing::error!("a reader found the store broken, and it is being reopened");
                    self.reopen().await;
                    continue;
                }
            };
            let patience = incoming.iter().map(|pending| pending.patience).min().unwrap_or_default();
            self.held.append(&mut incoming);
            if count == 0 {
                return if self.held.is_empty() { None } else { Some(self.take_held()) };
            }
            if patience.is_zero() || self.held.len() >= limit {
                return Some(self.take_held());
            }
            let until = Instant::now() + patience;
            self.held_until = Some(self.held_until.map_or(until, |earlier| earlier.min(until)));
        }
    }

    fn take_held(&mut self) -> Vec<Pending> {
        self.held_until = None;
        std::mem::take(&mut self.held)
    }

    /// Commits a group whole; where one batch spoils its transaction, each gets its own, so that only that one fails.
    async fn commit(&mut self, group: Vec<Pending>) {
        let mut groups = VecDeque::from([(group, 1)]);
        while let Some((group, attempt)) = groups.pop_front() {
            match self.attempt(&group).await {
                Ok(done) => self.conclude(group, done),
                Err(GroupError::Batch(fault)) if group.len() == 1 => {
                    tracing::error!(%fault, "a batch cannot be committed");
                    self.refuse(group, CommitError::Failed);
                }
                Err(GroupError::Batch(_)) => groups.extend(group.into_iter().map(|pending| (vec![pending], attempt))),
                Err(GroupError::Store(error, done)) => {
                    let committing = done.is_some();
                    match self.heal(&error, done).await {
                        Fate::Committed(done) => self.conclude(group, done),
                        Fate::Absent if attempt < ATTEMPTS => groups.push_front((group, attempt + 1)),
                        Fate::Untold if committing => self.refuse(group, CommitError::Interrupted),
                        Fate::Absent | Fate::Untold => self.refuse(group, CommitError::Unavailable),
                    }
                }
            }
        }
    }

    fn refuse(&self, group: Vec<Pending>, error: CommitError) {
        group.into_iter().for_each(|pending| pending.refuse(&self.shared, error));
    }

    async fn attempt(&self, group: &[Pending]) -> Result<Done, GroupError> {
        let work: Vec<_> = group.iter().filter_map(|pending| pending.work.clone()).collect();
        if work.is_empty() {
            return Ok(Done { commit: None, applied: Vec::new() });
        }
        let shared = Arc::clone(&self.shared);
        let (_handling, begun) = (shared.gauge.begin(), Instant::now());
        let (writing, batches) = (Arc::clone(&shared), work.len());
        // One transaction serves many askers, so it is a part of no one's span; each is where it came from.
        let span = tracing::debug_span!(parent: None, "transaction", batches);
        for asked in group.iter().filter_map(Pending::span) {
            span.follows_from(asked);
        }
        let inside = span.clone();
        let writing = tokio::task::spawn_blocking(move || inside.in_scope(|| commit_group(&writing, &work)));
        match writing.instrument(span).await {
            Ok(outcome) => {
                if outcome.is_ok() {
                    telemetry::transaction(batches, begun.elapsed());
                }
                outcome
            }
            Err(panicked) => Err(GroupError::Batch(panicked.to_string())),
        }
    }

    /// Answers everyone, then tells the group's signals. A batch that had been committed before is answered as then,
    /// and its signals are not told again.
    fn conclude(&mut self, group: Vec<Pending>, done: Done) {
        let counters = &self.shared.counters;
        if let Some(commit) = done.commit {
            self.pause = None;
            counters.transactions.fetch_add(1, Ordering::Relaxed);
            counters.acknowledged.fetch_max(commit, Ordering::Relaxed);
        }
        let mut applied = done.applied.into_iter();
        let mut committed = Vec::new();
        for pending in group {
            let applied = pending.work.as_ref().and_then(|_| applied.next());
            match (&pending.work, &applied) {
                (Some(work), Some(Applied { verdict: Verdict::Committed(first_seq), repeated: false })) => {
                    counters.batches.fetch_add(1, Ordering::Relaxed);
                    counters.commands.fetch_add(u64::from(work.batch.outcome.is_some()), Ordering::Relaxed);
                    committed.push((Arc::clone(work), *first_seq));
                }
                (_, Some(Applied { verdict: Verdict::Conflict, .. })) => {
                    counters.conflicts.fetch_add(1, Ordering::Relaxed);
                    telemetry::conflict();
                }
                _ => {}
            }
            pending.answer(applied.map(|applied| applied.verdict));
        }
        let told: Vec<_> =
            committed.iter().flat_map(|(work, first_seq)| (*first_seq..).zip(&work.batch.signals)).collect();
        self.tell(&told);
    }

    fn tell(&self, signals: &[(u64, &Envelope)]) {
        if let Some((last, _)) = signals.last() {
            self.shared.counters.told.store(*last, Ordering::Relaxed);
            signals.iter().for_each(|(_, told)| telemetry::signal(told.signal.kind().as_str()));
            (self.shared.on_commit)(&Committed(signals));
        }
    }

    /// Tells the signals that an earlier incarnation committed, and died before it told them.
    fn tell_untold(&self) {
        let reader = self.shared.reader();
        loop {
            let told = self.shared.counters.told.load(Ordering::Relaxed);
            match reader.page_after(told, UNTOLD_PAGE, usize::MAX) {
                Ok(signals) if signals.is_empty() => return,
                Ok(signals) => {
                    self.tell(&signals.iter().filter_map(|told| Some((told.seq?, told))).collect::<Vec<_>>())
                }
                Err(error) => return tracing::warn!(%error, "signals may have been committed and not told live"),
            }
        }
    }

    /// Brings the store back, and looks there for the transaction whose commit failed.
    async fn heal(&mut self, error: &EngineError, done: Option<Done>) -> Fate {
        tracing::error!(%error, "the store failed and is being reopened");
        self.shared.failed(error);
        let Some(last_commit) = self.reopen().await else { return Fate::Untold };
        match done {
            Some(done) if done.commit == Some(last_commit) => Fate::Committed(done),
            _ => Fate::Absent,
        }
    }

    /// Closes the store and opens it again until it answers, with pauses that grow until a commit succeeds. Answers
    /// the number of the last transaction in it; gives up only when the system stops.
    async fn reopen(&mut self) -> Option<u64> {
        let shared = Arc::clone(&self.shared);
        let revoked = tokio::task::spawn_blocking(move || shared.engine.revoke()).await;
        tracing::debug!(?revoked, "the failed store was closed");
        loop {
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
            }
            self.pause = Some(self.pause.map_or(REOPEN_FIRST, |pause| (pause * 2).min(REOPEN_LAST)));
            let shared = Arc::clone(&self.shared);
            match tokio::task::spawn_blocking(move || reopen_once(&shared)).await {
                Ok(Ok(last_commit)) => {
                    self.shared.counters.reopenings.fetch_add(1, Ordering::Relaxed);
                    telemetry::store_reopened();
                    return Some(last_commit);
                }
                Ok(Err(fault)) => {
                    tracing::warn!(%fault, "the store cannot be reopened yet");
                    self.shared.failed(&fault);
                }
                Err(panicked) => tracing::error!(%panicked, "reopening the store panicked"),
            }
            if self.inbox.is_closed() || self.shared.released.load(Ordering::SeqCst) {
                return None;
            }
        }
    }
}

async fn reached(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Commits a group as one durable transaction.
fn commit_group(shared: &Shared, work: &[Arc<Prepared>]) -> Result<Done, GroupError> {
    let mut done = Done { commit: None, applied: Vec::with_capacity(work.len()) };
    let committed = shared.engine.write(|transaction| {
        let mut log = LogEnd::read(transaction)?;
        for prepared in work {
            done.applied.push(prepared.apply(transaction, &mut log, &shared.keys)?);
        }
        if transaction.is_changed() {
            log.store(transaction)?;
            done.commit = Some(mark_progress(transaction, shared)?);
        }
        let writes = || work.iter().flat_map(|prepared| &prepared.batch.writes);
        let census = writes().any(census::is_counted).then(|| Census::read(transaction)).transpose()?;
        // Readers may see it from the moment on at which it is committed, which is before this is told.
        Ok::<_, ReadError>((shared.sessions.change(writes()), census))
    });
    match committed {
        Ok((change, census)) => {
            census.into_iter().for_each(|census| shared.census.replace(census));
            // Here, where it is done even if the writer is killed meanwhile. A commit that failed leaves it marked until
            // the store is open again.
            shared.sessions.changed(change);
            Ok(done)
        }
        Err(EngineCommitError::Aborted(error)) => Err(error.into()),
        Err(EngineCommitError::Failed(error)) => {
            let done = error.is_outcome_unknown().then_some(done);
            Err(GroupError::Store(error, done))
        }
    }
}

fn mark_progress(transaction: &mut WriteView<'_>, shared: &Shared) -> Result<u64, ReadError> {
    let commit = transaction.meta_u64(COMMITS)?.unwrap_or(0).saturating_add(1);
    let now = shared.clock.now().as_micros().max(0).cast_unsigned();
    transaction.put(Table::Meta, COMMITS.as_bytes(), &Key::new().u64(commit))?;
    transaction.put(Table::Meta, HIGH_WATER.as_bytes(), &Key::new().u64(now))?;
    Ok(commit)
}

/// Opens the store again, trusting neither the page cache nor a store that ends before what was acknowledged. Answers
/// the number of the last transaction in it.
fn reopen_once(shared: &Shared) -> Result<u64, String> {
    if shared.released.load(Ordering::SeqCst) {
        return Err("the system has let go of the store".to_owned());
    }
    let engine =
        Engine::reopen_distrustful(&shared.location, &shared.settings.engine).map_err(|error| error.to_string())?;
    let found = engine.read(|view| view.meta_u64(COMMITS)).map_err(|error| error.to_string())?.unwrap_or(0);
    let acknowledged = shared.counters.acknowledged.load(Ordering::Relaxed);
    if found < acknowledged {
        return Err(format!("the store ends with transaction {found}, but {acknowledged} was acknowledged"));
    }
    shared.sessions.doubt_all();
    shared.census.replace(engine.read(Census::read).map_err(|error| error.to_string())?);
    shared.engine.install(engine);
    if shared.released.load(Ordering::SeqCst) {
        // Let go of meanwhile: whoever did so expects the file to be closed.
        let _ = shared.engine.revoke();
    }
    Ok(found)
}
