//! Storage as a whole: rows, batches, groups, faults.

mod changes;
mod credentials;
mod dispatches;
mod faults;
mod groups;
mod letters;
mod names;
mod opening;
mod places;
mod rows;
mod writes;

use std::sync::Mutex;
use std::time::Duration;

use majordomo_model::{
    Actor as OnBehalf, Channel, CommandId, ContactId, Context, Envelope, FlowId, FlowKind, Lane, Profile, SessionId,
    Signal, SignalId, TokenId, TokenPurpose, UserId, UserStatus,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use super::opening::{DATABASE, KEY_PROOF, SCHEMA, SCHEMA_NAME};
use super::redb::{EngineError, View};
use super::table::Table;
use super::*;
use crate::bytes::Bytes;
use crate::stamp::Stamp;
use crate::token::{Binding, KeyId};

/// Outlives the actors that it started.
struct Overseer;

#[ractor::actor(message = (), state = (), arguments = ())]
impl Overseer {
    async fn pre_start(&self, _myself: ActorRef<()>, _arguments: ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<()>,
        _event: SupervisionEvent,
        _state: &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// A store with its actor running.
struct Store {
    storage: Storage,
    supervisor: ActorRef<()>,
    actor: ActorCell,
    /// The places of the signals that were told, in the order of telling.
    told: Arc<Mutex<Vec<u64>>>,
}

impl Store {
    async fn new() -> Self {
        Self::on(Location::Memory(MemoryDisk::new())).await
    }

    async fn on(location: Location) -> Self {
        Self::with(location, StorageSettings::default()).await
    }

    async fn with(location: Location, settings: StorageSettings) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&told);
        let hook: CommitHook = Arc::new(move |signals| {
            note.lock().unwrap().extend(signals.envelopes().iter().filter_map(|envelope| envelope.seq));
        });
        let storage = Storage::open(location, settings, &keys(7), Clock::manual(at(0)), hook).unwrap();
        Self::start(storage, told).await
    }

    async fn start(storage: Storage, told: Arc<Mutex<Vec<u64>>>) -> Self {
        let (supervisor, _) = Actor::spawn(None, Overseer, ()).await.unwrap();
        let actor = storage.start(supervisor.get_cell()).await.unwrap();
        Self { storage, supervisor, actor, told }
    }

    /// Kills the actor, and answers once it has ended; what its writer has begun it ends.
    async fn kill(&self) {
        self.actor.kill();
        self.actor.wait(None).await.unwrap();
    }

    async fn restart(&mut self) {
        self.actor = self.storage.start(self.supervisor.get_cell()).await.unwrap();
    }

    /// Stops the actor as its supervisor does, and closes the file.
    async fn close(self) {
        self.actor.drain().unwrap();
        self.actor.wait(None).await.unwrap();
        self.storage.close();
        self.storage.release();
    }

    /// Commits, and answers the place of the first signal.
    async fn commit(&self, batch: Batch) -> u64 {
        match self.storage.commit(batch).await {
            Ok(Verdict::Committed(first_seq)) => first_seq,
            other => panic!("not committed: {other:?}"),
        }
    }

    async fn write(&self, writes: Vec<Write>) {
        self.commit(Batch { writes, ..batch() }).await;
    }

    async fn holds(&self, check: Check) -> bool {
        match self.storage.commit(Batch { checks: vec![check], ..batch() }).await {
            Ok(Verdict::Committed(_)) => true,
            Ok(Verdict::Conflict) => false,
            other => panic!("not checked: {other:?}"),
        }
    }

    /// Waits until so many batches wait for the writer.
    async fn queued(&self, count: u64) {
        while self.storage.observe().queued < count {
            tokio::task::yield_now().await;
        }
    }

    fn rows(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        self.storage.shared.engine.with_engine(|engine| Ok::<_, EngineError>(rows_of(engine))).unwrap()
    }

    fn count(&self, table: Table) -> usize {
        self.rows().iter().filter(|(found, ..)| *found == table).count()
    }

    /// The tables that have these bytes in a key or a value.
    fn tables_with(&self, bytes: &[u8]) -> Vec<Table> {
        let has = |row: &[u8]| row.windows(bytes.len()).any(|window| window == bytes);
        self.rows().into_iter().filter(|(_, key, value)| has(key) || has(value)).map(|(table, ..)| table).collect()
    }

    /// The places in the log.
    fn log(&self) -> Vec<u64> {
        let signals = self.storage.reader().signals_after(0, usize::MAX).unwrap();
        signals.iter().filter_map(|envelope| envelope.seq).collect()
    }

    fn user(&self, id: UserId) -> Option<UserRow> {
        self.storage.reader().user_row(id).unwrap()
    }

    fn look<T>(&self, look: impl FnOnce(&ReadView) -> Result<T, ReadError>) -> T {
        self.storage.reader().snapshot(look).unwrap()
    }
}

fn rows_of(engine: &Engine) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let read = engine.read(|view| {
        let mut rows = Vec::new();
        for table in Table::ALL {
            for row in view.range(table, &[], None)? {
                let row = row?;
                rows.push((table, row.key().to_vec(), row.value().to_vec()));
            }
        }
        Ok::<_, EngineError>(rows)
    });
    read.unwrap()
}

fn keys(seed: u8) -> Keyring {
    Keyring::from_keys(vec![[seed; 32]]).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn id<T>(from_bytes: fn([u8; 16]) -> T, seed: u8) -> T {
    from_bytes(std::array::from_fn(|index| seed ^ (index as u8).wrapping_mul(37)))
}

fn user_id(seed: u8) -> UserId {
    id(UserId::from_bytes, seed)
}

fn batch() -> Batch {
    Batch { flow: FlowId::new(), outcome: None, checks: Vec::new(), writes: Vec::new(), signals: Vec::new() }
}

fn signal(user: UserId) -> Envelope {
    let stamp = Stamp {
        flow: FlowId::new(),
        cause: None,
        lane: Lane::User(user),
        actor: OnBehalf::System,
        context: Context::new(),
    };
    stamp.envelope(SignalId::new(), at(1), Signal::UserDisableStarted { user }, None)
}

/// A batch that tells one signal.
fn telling() -> Batch {
    Batch { signals: vec![signal(UserId::new())], ..batch() }
}

fn outcome(command: CommandId) -> Outcome {
    Outcome {
        command,
        kind: FlowKind::Register,
        fingerprint: [3; 32],
        settled: true,
        answer: b"answer".to_vec(),
        renew: false,
        keep: Duration::from_secs(10),
        at: at(0),
    }
}

fn put_user(row: UserRow) -> Write {
    Write::PutUser(Box::new(row))
}

fn user_row(id: UserId) -> UserRow {
    UserRow::unknown(id, at(1))
}

fn contact_row(seed: u8, canonical: &str) -> ContactRow {
    ContactRow {
        id: id(ContactId::from_bytes, seed),
        channel: Channel::Email,
        canonical: canonical.to_owned(),
        original: canonical.to_owned(),
        revision: 1,
        proven_at: None,
        primary: false,
        added_at: at(1),
        replaces: None,
    }
}

fn token_row(seed: u8, user: Option<UserId>) -> TokenRow {
    TokenRow {
        id: id(TokenId::from_bytes, seed),
        purpose: TokenPurpose::ResetByEmail,
        user,
        address: "ada@example.com".to_owned(),
        binding: Binding::CredentialEpoch(1),
        key: KeyId::from_bytes([5; 8]),
        created_at: at(1),
        expires_at: at(100),
        attempts: 0,
        end: None,
        delivery: id(FlowId::from_bytes, seed),
        delivered: DeliveryState::Pending,
        code_only: false,
    }
}

fn session_row(seed: u8, user: UserId) -> SessionRow {
    SessionRow {
        id: id(SessionId::from_bytes, seed),
        user,
        epoch: 1,
        created_at: at(1),
        last_seen_at: at(1),
        expires_at: at(100),
        context: Context::new(),
    }
}

fn put_session(seed: u8, user: UserId) -> Write {
    Write::PutSession([seed; 32], Box::new(session_row(seed, user)))
}
