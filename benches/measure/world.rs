//! Worlds: stores on disk with as many users as wanted, and systems over them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use majordomo::{
    Accounts, Authenticate, Clock, Config, Context, EngineSettings, HashParameters, Identifier, Keyring, Password,
    Policy, Register, SessionId, SessionToken, StorageSettings, UserId,
};
use majordomo_actors::hasher::Hasher;
use majordomo_actors::storage::{
    Batch, Committed, CredentialRow, Location, SessionRow, Storage, UniqueKey, UserRow, Verdict, Write,
};
use majordomo_actors::supervision::{Limits, Plan, spawn_supervisor};
use majordomo_actors::supervisor::{Setup, System};
use majordomo_model::{FlowId, Username};

use crate::Failure;
use crate::arrivals::Draws;

/// Everybody's.
pub const PASSWORD: &str = "nine lanterns over a quiet harbour";

/// How many users one batch of the bulk load makes, and how many batches wait at a time.
const BATCH: u64 = 500;
const BATCHES: usize = 4;

/// A configuration in which a hash costs next to nothing, so that everything else is what is measured.
#[must_use]
pub fn without_hashing() -> Config {
    let mut config = Config::default();
    config.hashing.parameters = HashParameters::cheap_for_tests();
    config.hashing.queue = Some(100_000);
    config
}

/// The name of a user of a seeded store.
#[must_use]
pub fn username(number: u64) -> String {
    format!("user{number}")
}

/// A login of that user.
#[must_use]
pub fn login(number: u64) -> Authenticate {
    Authenticate { identifier: username(number), password: Password::new(PASSWORD) }
}

/// A registration by a name alone.
#[must_use]
pub fn registration(name: String) -> Register {
    Register { username: Some(name), ..Register::new(PASSWORD) }
}

/// The path of a store of so many users among the figures, made there unless it is.
///
/// # Errors
/// It cannot be made.
pub async fn kept(users: u64, config: &Config) -> Result<PathBuf, Failure> {
    let path = crate::report::folder()?.join(format!("users-{users}.redb"));
    seed(&path, users, config).await?;
    Ok(path)
}

/// Makes a store with `users` users, `user0` and so on, each with a session and with [`PASSWORD`] hashed as `config` says, unless it is there
/// already. The first is registered as every user is; the others are copies of what that left.
///
/// # Errors
/// It cannot be made.
pub async fn seed(path: &Path, users: u64, config: &Config) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    let draft = path.with_extension("draft");
    for left in [draft.clone(), key_path(&draft)] {
        if left.exists() {
            std::fs::remove_file(left)?;
        }
    }
    let accounts = Accounts::builder().config(config.clone()).file(&draft).spawn().await?;
    let first = accounts.register(registration(username(0))).await?.user;
    if !accounts.shutdown().await {
        return Err("the first user's system did not shut down".into());
    }
    copy(&draft, first, users, config).await?;
    std::fs::rename(key_path(&draft), key_path(path))?;
    Ok(std::fs::rename(&draft, path)?)
}

async fn copy(path: &Path, first: UserId, users: u64, config: &Config) -> Result<(), Failure> {
    let keys = Keyring::open_or_create(&key_path(path), false)?;
    let settings = StorageSettings { engine: EngineSettings::default(), ..config.storage.clone() };
    let hook = Arc::new(|_: &Committed<'_>| ());
    let storage = Storage::open(Location::File(path.to_owned()), settings, &keys, Clock::system(), hook)?;
    let (root, ended) = spawn_supervisor(Plan::new(Limits::default()), None).await?;
    storage.start(root.get_cell()).await?;
    let user = storage.reader().user_row(first)?.ok_or("the first user is not there")?;
    let hasher = Hasher::new(&config.hashing)?;
    hasher.start(Some(root.get_cell())).await?;
    let phc = hasher.hash(PASSWORD.as_bytes().to_vec().into(), None).await?.into_string();
    let credential = CredentialRow::new(phc, 1, user.created_at);
    let mut draws = Draws::new(users);
    let mut numbers = (1..users).collect::<std::collections::VecDeque<_>>();
    while !numbers.is_empty() {
        let mut committing = Vec::new();
        for _ in 0..BATCHES {
            let some = numbers.len().min(usize::try_from(BATCH)?);
            let mut writes = Vec::new();
            for number in numbers.drain(..some) {
                writes.extend(copied(&user, &credential, number, &mut draws)?);
            }
            let batch = Batch { flow: FlowId::new(), outcome: None, checks: Vec::new(), writes, signals: Vec::new() };
            let storage = storage.clone();
            committing.push(tokio::spawn(async move { storage.commit(batch).await }));
        }
        for committed in committing {
            match committed.await? {
                Ok(Verdict::Committed(_)) => {}
                other => return Err(format!("users were not made: {other:?}").into()),
            }
        }
    }
    storage.release();
    root.stop(None);
    ended.await?;
    storage.close();
    Ok(())
}

fn copied(user: &UserRow, credential: &CredentialRow, number: u64, draws: &mut Draws) -> Result<[Write; 5], Failure> {
    let (id, name) = (UserId::new(), Username::parse(&username(number))?);
    let mut row = user.clone();
    row.id = id;
    if let Some(username) = &mut row.username {
        username.canonical = name.canonical().to_owned();
        username.original = name.original().to_owned();
        username.skeleton = name.skeleton().to_owned();
    }
    let session = SessionRow {
        id: SessionId::new(),
        user: id,
        epoch: row.epoch,
        created_at: row.created_at,
        last_seen_at: row.created_at,
        expires_at: row.created_at.plus(Policy::default().session_lifetime),
        context: Context::new(),
    };
    let mut hash = [0; 32];
    hash.chunks_mut(8).for_each(|part| part.copy_from_slice(&draws.next().to_le_bytes()));
    // As what is stored of a real one, it begins with its time.
    let milliseconds = (row.created_at.as_micros() / 1_000).cast_unsigned().saturating_add(number).to_be_bytes();
    hash.iter_mut().zip(milliseconds.iter().skip(2)).for_each(|(byte, time)| *byte = *time);
    Ok([
        Write::PutSession(hash, Box::new(session)),
        Write::PutUser(Box::new(row)),
        Write::PutCredential(id, credential.clone()),
        Write::PutOwner(UniqueKey::identifier(&Identifier::Username(name.clone())), id),
        Write::PutOwner(UniqueKey::skeleton(name.skeleton()), id),
    ])
}

/// The path of the keys of a store.
#[must_use]
pub fn key_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".keys");
    PathBuf::from(name)
}

/// A system over a store.
///
/// # Errors
/// It cannot be spawned.
pub async fn open(path: &Path, config: Config) -> Result<Accounts, Failure> {
    Ok(Accounts::builder().config(config).file(path).spawn().await?)
}

/// A system over a store to which nobody subscribes, not even the auditor.
///
/// # Errors
/// It cannot be spawned.
pub async fn bare(path: &Path, config: Config) -> Result<System, Failure> {
    let setup = Setup {
        location: Location::File(path.to_owned()),
        storage: config.storage,
        hashing: config.hashing,
        policy: config.policy,
        places: config.requests,
        patience: config.patience,
        keys: Keyring::open_or_create(&key_path(path), false)?,
        clock: Clock::system(),
        subscriptions: Vec::new(),
        guards: Vec::new(),
        breaches: None,
    };
    Ok(System::spawn(setup).await?)
}

/// Signs users in, `many` at a time, and returns their sessions.
///
/// # Errors
/// A login failed.
pub async fn sessions(
    accounts: &Accounts,
    users: impl Iterator<Item = u64>,
    many: usize,
) -> Result<Vec<SessionToken>, Failure> {
    let (mut tokens, mut under_way) = (Vec::new(), tokio::task::JoinSet::new());
    for user in users {
        if under_way.len() >= many
            && let Some(token) = under_way.join_next().await
        {
            tokens.push(token??);
        }
        let accounts = accounts.clone();
        under_way.spawn(async move { Ok::<_, Failure>(accounts.authenticate(login(user)).await?.token) });
    }
    while let Some(token) = under_way.join_next().await {
        tokens.push(token??);
    }
    Ok(tokens)
}
