//! The writer: takes all that waits, commits it as one transaction, answers, and heals the store when it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use majordomo_model::Envelope;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::batch::{HIGH_WATER, NEXT_SEQ, Prepared, Verdict};
use super::lookup::{Lookup, ReadError};
use super::redb::{CommitError as EngineCommitError, Engine, EngineError, WriteView};
use super::table::{Key, Table};
use super::{CommitError, Shared};
use crate::address::Reply;

const REOPEN_FIRST: Duration = Duration::from_millis(50);
const REOPEN_LAST: Duration = Duration::from_secs(5);

/// Something that waits for the writer.
pub(super) struct Pending {
    work: Option<Arc<Prepared>>,
    asker: Asker,
}

enum Asker {
    Waits(Reply<Result<Verdict, CommitError>>),
    Flushes(oneshot::Sender<()>),
    Left,
}

impl Pending {
    pub(super) const fn now(work: Arc<Prepared>, reply: Reply<Result<Verdict, CommitError>>) -> Self {
        Self { work: Some(work), asker: Asker::Waits(reply) }
    }

    pub(super) const fn with_next(work: Arc<Prepared>) -> Self {
        Self { work: Some(work), asker: Asker::Left }
    }

    pub(super) const fn flush(flushed: oneshot::Sender<()>) -> Self {
        Self { work: None, asker: Asker::Flushes(flushed) }
    }

    const fn is_urgent(&self) -> bool {
        !matches!(self.asker, Asker::Left)
    }

    /// Answers that it will not be committed.
    pub(super) fn refuse(self, shared: &Shared, error: CommitError) {
        match self.asker {
            Asker::Waits(reply) => reply.send(Err(error)),
            Asker::Flushes(flushed) => drop(flushed),
            Asker::Left => {
                shared.counters.lost.fetch_add(1, Ordering::Relaxed);
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

/// Why a group was not committed.
enum GroupError {
    /// The store needs reopening; whether the group is in it is unknown.
    Store(EngineError),
    /// One of the batches cannot be written.
    Batch(String),
}

impl From<ReadError> for GroupError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Engine(error) if error.needs_reopen() => Self::Store(error),
            error => Self::Batch(error.to_string()),
        }
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Pending>,
    /// Batches that wait for company, and since when.
    held: Vec<Pending>,
    held_until: Option<Instant>,
}

impl Writer {
    pub(super) const fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<Pending>) -> Self {
        Self { shared, inbox, held: Vec::new(), held_until: None }
    }

    /// Runs until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        if !self.shared.engine.is_available() {
            self.reopen().await;
        }
        while let Some(group) = self.gather().await {
            self.commit(group).await;
        }
    }

    /// Waits for work and takes all there is, without a timer: company comes by itself while a commit runs.
    async fn gather(&mut self) -> Option<Vec<Pending>> {
        let limit = self.shared.settings.group.max(1);
        loop {
            let mut incoming = Vec::new();
            let received = self.inbox.recv_many(&mut incoming, limit);
            let count = match self.held_until {
                None => received.await,
                Some(until) => match tokio::time::timeout_at(until, received).await {
                    Ok(count) => count,
                    Err(_) => return Some(self.take_held()),
                },
            };
            self.shared.counters.queued.fetch_sub(count as u64, Ordering::Relaxed);
            let urgent = incoming.iter().any(Pending::is_urgent);
            self.held.append(&mut incoming);
            if count == 0 {
                return if self.held.is_empty() { None } else { Some(self.take_held()) };
            }
            if urgent || self.held.len() >= limit {
                return Some(self.take_held());
            }
            self.held_until.get_or_insert_with(|| Instant::now() + self.shared.settings.idle_flush);
        }
    }

    fn take_held(&mut self) -> Vec<Pending> {
        self.held_until = None;
        std::mem::take(&mut self.held)
    }

    async fn commit(&mut self, group: Vec<Pending>) {
        match self.attempt(&group).await {
            Ok(verdicts) => self.conclude(group, verdicts),
            Err(GroupError::Batch(fault)) if group.len() == 1 => {
                tracing::error!(%fault, "a batch cannot be committed");
                self.conclude(group, Vec::new());
            }
            Err(GroupError::Batch(_)) => {
                // One of them spoils the transaction: each gets its own, so that only the culprit fails.
                for pending in group {
                    Box::pin(self.commit(vec![pending])).await;
                }
            }
            Err(GroupError::Store(error)) => {
                tracing::error!(%error, "the store failed and is being reopened");
                if self.reopen().await {
                    // Whether the group is in the store is unknown; each batch is told by its outcome or its checks.
                    Box::pin(self.commit(group)).await;
                } else {
                    group.into_iter().for_each(|pending| pending.refuse(&self.shared, CommitError::Unavailable));
                }
            }
        }
    }

    async fn attempt(&self, group: &[Pending]) -> Result<Vec<Verdict>, GroupError> {
        let work: Vec<_> = group.iter().filter_map(|pending| pending.work.clone()).collect();
        if work.is_empty() {
            return Ok(Vec::new());
        }
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || commit_group(&shared, &work)).await {
            Ok(outcome) => outcome,
            Err(panicked) => Err(GroupError::Batch(panicked.to_string())),
        }
    }

    /// Answers everyone, then tells the group's signals.
    fn conclude(&self, group: Vec<Pending>, verdicts: Vec<Verdict>) {
        let mut verdicts = verdicts.into_iter();
        let mut told = Vec::new();
        for pending in group {
            let verdict = pending.work.as_ref().and_then(|_| verdicts.next());
            if let (Some(work), Some(Verdict::Committed(first_seq))) = (&pending.work, &verdict) {
                told.extend(placed(work, *first_seq));
            }
            if matches!(verdict, Some(Verdict::Conflict)) {
                self.shared.counters.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            pending.answer(verdict);
        }
        if !told.is_empty() {
            (self.shared.on_commit)(&told);
        }
    }

    /// Closes the store and opens it again until it answers, with growing pauses. Gives up only when the system stops.
    async fn reopen(&mut self) -> bool {
        let mut pause = REOPEN_FIRST;
        loop {
            let shared = Arc::clone(&self.shared);
            let reopened = tokio::task::spawn_blocking(move || reopen_once(&shared)).await;
            match reopened {
                Ok(Ok(())) => {
                    self.shared.counters.reopenings.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Ok(Err(fault)) => tracing::warn!(%fault, "the store cannot be reopened yet"),
                Err(panicked) => tracing::error!(%panicked, "reopening the store panicked"),
            }
            if self.inbox.is_closed() {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REOPEN_LAST);
        }
    }
}

fn placed(work: &Prepared, first_seq: u64) -> impl Iterator<Item = Arc<Envelope>> {
    (first_seq..).zip(&work.batch.signals).map(|(seq, envelope)| {
        let mut envelope = envelope.clone();
        envelope.seq = Some(seq);
        Arc::new(envelope)
    })
}

/// Commits a group as one durable transaction.
fn commit_group(shared: &Shared, work: &[Arc<Prepared>]) -> Result<Vec<Verdict>, GroupError> {
    let committed = shared.engine.write(|transaction| {
        let first_seq = transaction.meta_u64(NEXT_SEQ)?.unwrap_or(1);
        let mut next_seq = first_seq;
        let mut verdicts = Vec::with_capacity(work.len());
        for prepared in work {
            verdicts.push(prepared.apply(transaction, &mut next_seq)?);
        }
        if next_seq != first_seq {
            mark_progress(transaction, shared, next_seq)?;
        }
        Ok::<_, ReadError>((verdicts, next_seq))
    });
    match committed {
        Ok((verdicts, next_seq)) => {
            let counters = &shared.counters;
            let done = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Committed(_))).count();
            counters.batches.fetch_add(done as u64, Ordering::Relaxed);
            counters.transactions.fetch_add(1, Ordering::Relaxed);
            counters.acknowledged.fetch_max(next_seq, Ordering::Relaxed);
            Ok(verdicts)
        }
        Err(EngineCommitError::Aborted(error)) => Err(error.into()),
        Err(EngineCommitError::Failed(error)) => Err(GroupError::Store(error)),
    }
}

fn mark_progress(transaction: &mut WriteView<'_>, shared: &Shared, next_seq: u64) -> Result<(), ReadError> {
    let now = shared.clock.now().as_micros().max(0).cast_unsigned();
    transaction.put(Table::Meta, NEXT_SEQ.as_bytes(), &Key::new().u64(next_seq))?;
    transaction.put(Table::Meta, HIGH_WATER.as_bytes(), &Key::new().u64(now))?;
    Ok(())
}

/// Opens the store again, trusting neither the page cache nor a log that ends before what was acknowledged.
fn reopen_once(shared: &Shared) -> Result<(), String> {
    if let Err(error) = shared.engine.revoke() {
        tracing::debug!(%error, "the failed store was closed with a fault");
    }
    let engine =
        Engine::reopen_distrustful(&shared.location, &shared.settings.engine).map_err(|error| error.to_string())?;
    let found = engine.read(|view| view.meta_u64(NEXT_SEQ)).map_err(|error| error.to_string())?;
    let acknowledged = shared.counters.acknowledged.load(Ordering::Relaxed);
    if found.unwrap_or(1) < acknowledged {
        return Err(format!("the log ends before place {acknowledged}, which was acknowledged"));
    }
    shared.engine.install(engine);
    Ok(())
}
