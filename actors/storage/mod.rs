//! Storage: the only writer, group commit over a transactional file, and snapshot reads that never wait for it.

mod actor;
mod batch;
mod census;
mod change;
mod commit;
mod credential;
mod dispatch;
mod known_sessions;
mod letter;
mod limit;
mod log;
mod lookup;
mod message;
mod migration;
mod names;
mod normalisation;
mod opening;
mod progress;
mod reader;
mod redb;
mod retention;
mod row;
mod settings;
mod table;
mod texts;
mod write;
mod writer;

#[cfg(any(test, feature = "testing"))]
mod faulty_disk;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use majordomo_model::Timestamp;
use ractor::{ActorCell, SpawnErr};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

pub use self::actor::StorageMessage;
pub(crate) use self::actor::Work;
pub use self::batch::{Batch, Check, Outcome, Verdict, Write};
pub(crate) use self::census::Census;
use self::census::KnownCensus;
pub use self::change::ChangeRow;
pub use self::commit::{CommitError, CommitHook, Committed};
pub(crate) use self::credential::ReadCredential;
pub use self::credential::{CredentialRow, StoredCredential};
pub use self::dispatch::DispatchRow;
#[cfg(any(test, feature = "testing"))]
pub use self::faulty_disk::{Counts, FaultyDisk, Operation};
use self::known_sessions::KnownSessions;
pub use self::limit::{AttemptRow, LimitRow};
pub use self::lookup::UniqueKey;
pub(crate) use self::lookup::{Lookup, ReadError};
pub use self::message::{Answered, MessagesRow};
pub use self::normalisation::NORMALISATION;
pub use self::opening::{OpenError, check_integrity};
pub use self::progress::{CursorRow, FailureRow, LetterRow, LetterState, OpenRow, OpenState, ProjectionRow};
pub use self::reader::{ProjectionRange, ProjectionValues, Reader, Unreadable};
pub(crate) use self::redb::ReadView;
pub use self::redb::{Disk, EngineSettings, Integrity, Location, MemoryDisk};
use self::redb::{Engine, EngineHandle};
pub(crate) use self::retention::Follower;
pub use self::retention::Lag;
pub(crate) use self::row::encode_signal;
pub use self::row::{
    ActivityRow, AppliedRow, ContactRow, DeliveryState, SessionRow, TokenEnd, TokenRow, UserRow, UsernameRow,
};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::row::{decode, decode_signal, encode};
pub use self::settings::StorageSettings;
pub use self::texts::{SLOT, TextEvent, TextSlot, TextsRow};
use crate::address::{Address, Binder};
use crate::clock::Clock;
use crate::gauge::{Gauge, GaugeReading, LastFailure};
use crate::keys::Keyring;

/// How many rows one sweep removes.
const SWEPT: usize = 10_000;

/// The handle of the storage actor. Cloning shares it; it outlives the actor's incarnations.
#[derive(Clone)]
pub struct Storage {
    shared: Arc<Shared>,
    address: Address<StorageMessage>,
    binder: Binder<StorageMessage>,
}

struct Shared {
    engine: EngineHandle,
    sessions: KnownSessions,
    census: Arc<KnownCensus>,
    /// What credentials are sealed under.
    keys: Keyring,
    location: Location,
    settings: StorageSettings,
    clock: Clock,
    counters: Counters,
    gauge: Gauge,
    last_failure: Mutex<Option<LastFailure>>,
    on_commit: CommitHook,
    /// Held by the writer for life, so that there is one at a time.
    writing: tokio::sync::Mutex<()>,
    /// Set before the file is closed for good: from then on nobody opens it again.
    released: AtomicBool,
}

#[derive(Default)]
struct Counters {
    transactions: AtomicU64,
    batches: AtomicU64,
    commands: AtomicU64,
    conflicts: AtomicU64,
    reopenings: AtomicU64,
    lost: AtomicU64,
    lost_signals: AtomicU64,
    queued: AtomicU64,
    sessions_looked_up: AtomicU64,
    /// The number of the last transaction that anybody was told of.
    acknowledged: AtomicU64,
    /// The place of the last signal that the hook was given.
    told: AtomicU64,
}

impl Shared {
    fn reader(&self) -> Reader {
        Reader::new(self.engine.clone(), Arc::clone(&self.census))
    }

    /// Puts a fault of the store on record.
    fn failed(&self, failure: &impl fmt::Display) {
        let failure = LastFailure { at: self.clock.now(), failure: failure.to_string() };
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

impl Counters {
    /// Counts a batch that was dropped, with its signals.
    fn lose(&self, signals: usize) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.lost_signals.fetch_add(signals as u64, Ordering::Relaxed);
    }
}

/// What storage has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageState {
    /// Whether reads and writes are possible now.
    pub available: bool,
    /// Durable transactions.
    pub transactions: u64,
    /// Batches committed in them.
    pub batches: u64,
    /// Those among them that were the outcome of a command.
    pub commands: u64,
    /// Batches refused because a check failed.
    pub conflicts: u64,
    /// How often the file was opened again after a fault.
    pub reopenings: u64,
    /// Batches for later that found no room while the store was out.
    pub lost: u64,
    /// Batches waiting for the writer, or being committed.
    pub queued: u64,
    /// How often a session that was checked was looked up in the store, because memory did not know it, or no longer.
    pub sessions_looked_up: u64,
    /// The size on the device, in bytes; 0 while the store is out.
    pub size_bytes: u64,
    /// Whether less room is left around the file than [`StorageSettings::reserve_bytes`].
    pub low_space: bool,
    /// How much of the log is kept; zeros while the store is out.
    pub log: LogState,
}

/// How much of the log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The first place that is kept; the next place where the log is empty.
    pub first: u64,
    /// The place of the last signal; 0 where there never was one.
    pub head: u64,
    /// The size of the signals that are kept, in bytes.
    pub bytes: u64,
}

impl Storage {
    /// Opens the store and checks that it is ours: the schema is not newer, the keys are those it was made with.
    ///
    /// Blocks; it may read the whole file after a crash of an older build.
    ///
    /// # Errors
    /// Any [`OpenError`]; the store is then closed again.
    pub fn open(
        location: Location,
        settings: StorageSettings,
        keys: &Keyring,
        clock: Clock,
        on_commit: CommitHook,
    ) -> Result<Self, OpenError> {
        let engine = Engine::open(&location, &settings.engine)?;
        opening::prepare(&engine, keys)?;
        let (high_water, head) =
            engine.read(|view| Ok::<_, ReadError>((view.meta_u64(batch::HIGH_WATER)?, view.head()?)))?;
        if let Some(micros) = high_water {
            clock.raise_to(Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX)));
        }
        let census = Arc::new(KnownCensus::default());
        census.replace(engine.read(Census::read)?);
        let handle = EngineHandle::unavailable();
        handle.install(engine);
        let (address, binder) = Address::new(settings.queue);
        let counters = Counters { told: AtomicU64::new(head), ..Counters::default() };
        let (gauge, last_failure) = (Gauge::new(), Mutex::new(None));
        let (writing, released) = (tokio::sync::Mutex::new(()), AtomicBool::new(false));
        let shared = Shared {
            engine: handle,
            sessions: KnownSessions::new(settings.sessions_kept),
            census,
            keys: keys.clone(),
            location,
            settings,
            clock,
            counters,
            gauge,
            last_failure,
            on_commit,
            writing,
            released,
        };
        Ok(Self { shared: Arc::new(shared), address, binder })
    }

    /// Starts an incarnation of the actor, linked to its supervisor.
    ///
    /// # Errors
    /// As ractor's spawning.
    pub async fn start(&self, supervisor: ActorCell) -> Result<ActorCell, SpawnErr> {
        let actor = actor::start(Arc::clone(&self.shared), supervisor).await?;
        Ok(self.binder.bind(actor))
    }

    /// Snapshot reads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.shared.reader()
    }

    /// Commits a batch together with whatever else waits. Once it answers, the verdict is durable.
    ///
    /// A store that fails meanwhile is opened again, and looked into for the batch: it is committed once. Where the
    /// actor itself dies, the question is asked again, and only a batch with an [`Outcome`] is sure to be committed once.
    ///
    /// # Errors
    /// Any [`CommitError`].
    pub async fn commit(&self, batch: Batch) -> Result<Verdict, CommitError> {
        self.commit_within(batch, Duration::ZERO).await
    }

    /// As [`Storage::commit`], together with whatever comes within `patience`, or until something comes that has none:
    /// fewer transactions, where it is certain that more is about to come.
    ///
    /// # Errors
    /// Any [`CommitError`].
    pub(crate) async fn commit_within(&self, batch: Batch, patience: Duration) -> Result<Verdict, CommitError> {
        self.commit_work(&Work::prepare(batch)?, patience).await
    }

    /// As [`Storage::commit_within`], of a batch that may have to be committed again where the store was out.
    ///
    /// # Errors
    /// Any [`CommitError`].
    pub(crate) async fn commit_work(&self, work: &Work, patience: Duration) -> Result<Verdict, CommitError> {
        let batch = &work.0.batch;
        let span = tracing::debug_span!("commit", flow = %batch.flow, signals = batch.signals.len());
        let build = |reply| StorageMessage::Commit { prepared: work.clone(), patience, reply };
        self.address.ask_repeatable(None, build).instrument(span).await?
    }

    /// Leaves a batch to be committed with the next one, or after [`StorageSettings::idle_flush`]; while the store is
    /// out it waits. Only for batches that may be lost, such as progress that is then repeated: where there is no
    /// room, or the store fails twice with it, it is dropped and counted ([`StorageState::lost`]).
    pub fn commit_with_next(&self, batch: Batch) {
        let signals = batch.signals.len();
        let told = Work::prepare(batch)
            .map(|prepared| self.address.tell(|reply| StorageMessage::CommitWithNext { prepared, reply }));
        if !matches!(told, Ok(Ok(_))) {
            self.shared.counters.lose(signals);
        }
    }

    /// How many signals were in batches that were dropped since the last call.
    pub(crate) fn take_lost_signals(&self) -> u64 {
        self.shared.counters.lost_signals.swap(0, Ordering::Relaxed)
    }

    /// Removes what has ended by time, 10,000 rows at most. The log is pruned by [`Storage::prune`].
    ///
    /// # Errors
    /// Any [`CommitError`].
    pub async fn sweep(&self) -> Result<(), CommitError> {
        let writes = vec![Write::Sweep(self.shared.clock.now(), SWEPT)];
        self.commit(Batch { writes, ..retention::empty() }).await.map(|_| ())
    }

    /// Commits everything that was left for later; answers once it is durable, or the store is out.
    pub async fn flush(&self) {
        let _ = self.address.ask_repeatable(None, |reply| StorageMessage::Flush { reply }).await;
    }

    /// Writes a copy of the store, as it is now, to a new file, while it goes on being used.
    ///
    /// # Errors
    /// A sentence for the operator: the target exists, the disk is full, the store is out.
    pub async fn backup(&self, target: PathBuf) -> Result<(), String> {
        let engine = self.shared.engine.clone();
        let copied = tokio::task::spawn_blocking(move || engine.with_engine(|engine| engine.backup_to(&target)));
        match copied.await {
            Ok(copied) => copied.map_err(|error| error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        }
    }

    /// Whether reads and writes are possible now; one look, for every request.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.shared.engine.is_available()
    }

    /// Whether there is room for what can be put off: as much as [`StorageSettings::reserve_bytes`], or nobody knows.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.location.free_bytes().is_none_or(|free| free >= self.shared.settings.reserve_bytes)
    }

    /// Whether anybody waits for the writer.
    fn is_waited_for(&self) -> bool {
        self.shared.counters.queued.load(Ordering::Relaxed) > 0
    }

    /// What it has done.
    #[must_use]
    pub fn observe(&self) -> StorageState {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        StorageState {
            available: self.is_available(),
            transactions: read(&counters.transactions),
            batches: read(&counters.batches),
            commands: read(&counters.commands),
            conflicts: read(&counters.conflicts),
            reopenings: read(&counters.reopenings),
            lost: read(&counters.lost),
            queued: read(&counters.queued),
            sessions_looked_up: read(&counters.sessions_looked_up),
            size_bytes: self.shared.engine.with_engine(Engine::size_bytes).unwrap_or(0),
            low_space: !self.has_room(),
            log: self.reader().log_state().unwrap_or_default(),
        }
    }

    /// How many batches wait or are being committed, and how long transactions take.
    #[must_use]
    pub fn gauge(&self) -> GaugeReading {
        let queued = self.shared.counters.queued.load(Ordering::Relaxed);
        self.shared.gauge.set_queue_depth(usize::try_from(queued).unwrap_or(usize::MAX));
        self.shared.gauge.reading()
    }

    /// The last fault of the store, which its writer mends by opening it again.
    #[must_use]
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.shared.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many signals were in batches that were dropped, without the log telling of it yet.
    pub(crate) fn untold_losses(&self) -> u64 {
        self.shared.counters.lost_signals.load(Ordering::Relaxed)
    }

    /// Counts signals as dropped.
    #[cfg(test)]
    pub(crate) fn lose(&self, signals: usize) {
        self.shared.counters.lose(signals);
    }

    /// Ends the address: whoever asks from now on is answered `Stopped`.
    pub fn close(&self) {
        self.binder.close();
    }

    /// Whether the file is closed for good, or about to be: then its silence is no outage.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.shared.released.load(Ordering::SeqCst)
    }

    /// Closes the file for good, waiting for reads under way. Blocks.
    pub fn release(&self) {
        self.shared.released.store(true, Ordering::SeqCst);
        if let Err(error) = self.shared.engine.revoke() {
            tracing::warn!(%error, "the store was closed with a fault");
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Storage").field("state", &self.observe()).finish_non_exhaustive()
    }
}
