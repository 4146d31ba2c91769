//! Batches: what a login and a registration hand over to storage, and storage by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use majordomo::{Clock, Keyring, StorageSettings};
use majordomo_actors::storage::{
    Batch, Check, Committed, CredentialRow, Location, Outcome, SessionRow, Storage, UniqueKey, UserRow, Verdict, Write,
};
use majordomo_actors::supervision::{Limits, Plan, SupervisorMessage, spawn_supervisor};
use majordomo_model::{
    Actor, CommandId, Context, Envelope, FlowId, FlowKind, Identifier, IdentifierKind, Lane, LoginMethod,
    PasswordCause, Personal, SCHEMA_VERSION, SessionId, Signal, SignalId, Timestamp, UserId, Username,
};
use measure::{Failure, world};
use ractor::ActorRef;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Storage alone, over a store of its own.
#[derive(Debug)]
pub struct Alone {
    /// Its handle.
    pub storage: Storage,
    root: ActorRef<SupervisorMessage>,
    ended: tokio::task::JoinHandle<()>,
}

impl Alone {
    pub async fn open(path: &Path) -> Result<Self, Failure> {
        let keys = Keyring::open_or_create(&world::key_path(path), false)?;
        let hook = Arc::new(|_: &Committed<'_>| ());
        let place = Location::File(path.to_owned());
        let storage = Storage::open(place, StorageSettings::default(), &keys, Clock::system(), hook)?;
        let (root, ended) = spawn_supervisor(Plan::new(Limits::default()), None).await?;
        storage.start(root.get_cell()).await?;
        Ok(Self { storage, root, ended })
    }

    pub async fn close(self) -> Result<(), Failure> {
        self.root.stop(None);
        self.ended.await?;
        self.storage.close();
        self.storage.release();
        Ok(())
    }
}

/// Commits a batch, or fails.
pub async fn commit(storage: &Storage, batch: Batch) -> Result<(), Failure> {
    match storage.commit(batch).await {
        Ok(Verdict::Committed(_)) => Ok(()),
        other => Err(format!("not committed: {other:?}").into()),
    }
}

/// What differs from commit to commit, as the keys hold it.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    pub user: UserId,
    pub command: CommandId,
    pub session: SessionId,
    pub number: u64,
}

impl Names {
    pub fn new(user: UserId, number: u64) -> Self {
        Self { user, command: CommandId::new(), session: SessionId::new(), number }
    }

    /// The key that the session lies under: the time, and what cannot be guessed.
    fn session_key(&self) -> [u8; 32] {
        let parts = [self.session.as_bytes(), self.command.as_bytes()];
        let mut bytes = parts.into_iter().flatten().copied();
        std::array::from_fn(|_| bytes.next().unwrap_or_default())
    }

    /// A username that looks like nothing but itself: of the letters a to h.
    pub fn username(&self) -> String {
        let digit = |place: u32| char::from(b'a' + u8::try_from((self.number >> (3 * place)) & 7).unwrap_or_default());
        (0..16).rev().map(digit).collect()
    }

    /// The session's key first: it begins with the session's name.
    pub fn of_login(&self) -> Vec<Vec<u8>> {
        let ids = [self.session.as_bytes(), self.user.as_bytes(), self.command.as_bytes()];
        std::iter::once(self.session_key().to_vec()).chain(ids.map(|id| id.to_vec())).collect()
    }

    pub fn of_registration(&self) -> Vec<Vec<u8>> {
        vec![self.user.as_bytes().to_vec(), self.command.as_bytes().to_vec(), self.username().into_bytes()]
    }
}

fn now() -> Timestamp {
    Clock::system().now()
}

fn told(flow: FlowId, lane: Lane, signals: Vec<Signal>) -> Vec<Envelope> {
    let envelope = |signal: Signal| Envelope {
        seq: None,
        id: SignalId::new(),
        flow,
        cause: None,
        lane,
        at: now(),
        sender: signal.kind().sender(),
        actor: Actor::Anonymous,
        path: Vec::new(),
        context: Context::new(),
        schema: SCHEMA_VERSION,
        signal,
    };
    signals.into_iter().map(envelope).collect()
}

fn outcome(kind: FlowKind, names: &Names, answer: usize) -> Option<Outcome> {
    Some(Outcome {
        command: names.command,
        kind,
        fingerprint: [200; 32],
        settled: true,
        answer: vec![200; answer],
        renew: false,
        keep: DAY,
        at: now(),
    })
}

/// What a login of this user hands over.
pub fn login(names: &Names, username: &str) -> Result<Batch, Failure> {
    let (flow, user, identifier) = (FlowId::new(), names.user, Username::parse(username)?);
    let session = SessionRow {
        id: names.session,
        user,
        epoch: 1,
        created_at: now(),
        last_seen_at: now(),
        expires_at: now().plus(30 * DAY),
        context: Context::new(),
    };
    let shown = Personal::unmatched("***", [200; 32]);
    let signals = vec![
        Signal::UserAuthenticationStarted { identifier_kind: IdentifierKind::Username, identifier: shown },
        Signal::UserPasswordChecked { user, success: true, needs_rehash: false },
        Signal::UserAuthenticated { user, method: LoginMethod::Password, session: Some(session.id), failures: None },
    ];
    let owned = Check::Owner(UniqueKey::identifier(&Identifier::Username(identifier)), Some(user));
    Ok(Batch {
        flow,
        outcome: outcome(FlowKind::Authenticate, names, 49),
        checks: vec![Check::Epoch(user, 1), owned, Check::SessionsAtMost(user, 49)],
        writes: vec![
            Write::RecordLogin(user, now()),
            Write::ClearFailures([200; 32]),
            Write::PutSession(names.session_key(), Box::new(session)),
        ],
        signals: told(flow, Lane::User(user), signals),
    })
}

/// What a registration by a username alone hands over, made from the row and the credential of another user.
pub fn registration(names: &Names, like: &UserRow, credential: &CredentialRow) -> Result<Batch, Failure> {
    let (flow, name, user) = (FlowId::new(), Username::parse(&names.username())?, names.user);
    let mut row = like.clone();
    row.id = user;
    if let Some(username) = &mut row.username {
        username.canonical = name.canonical().to_owned();
        username.original = name.original().to_owned();
        username.skeleton = name.skeleton().to_owned();
    }
    let (shown, mut known) =
        (|| Some(Personal::unmatched("***", [200; 32])), Personal::known("a***", name.canonical()));
    known.set_sealed(vec![200; name.canonical().len() + 41]);
    let groups = row.groups.iter().cloned().collect();
    let signals = vec![
        Signal::UserRegistrationStarted { username: shown(), email: None, phone: None },
        Signal::UserPreRegister { username: shown(), email: None, phone: None },
        Signal::UserPasswordSet { user, cause: PasswordCause::Registration, scheme: "argon2id".to_owned() },
        Signal::UserRegistered { user, username: Some(known), addresses: Vec::new(), groups },
    ];
    let keys = [UniqueKey::username(name.canonical()), UniqueKey::skeleton(name.skeleton())];
    let mut writes = vec![Write::PutUser(Box::new(row)), Write::PutCredential(user, credential.clone())];
    writes.extend(keys.iter().map(|key| Write::PutOwner(key.clone(), user)));
    Ok(Batch {
        flow,
        outcome: outcome(FlowKind::Register, names, 62),
        checks: keys.into_iter().map(|key| Check::Owner(key, None)).collect(),
        writes,
        signals: told(flow, Lane::User(user), signals),
    })
}
