//! Written by hand: rusqlite, argon2 and `spawn_blocking`, as an afternoon's work of somebody who knows all three.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use measure::Failure;
use measure::world::{PASSWORD, username};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::contestant::{Answer, Contestant};

const SCHEMA: &str = "
    CREATE TABLE users (
        id INTEGER PRIMARY KEY, username TEXT NOT NULL UNIQUE, phc TEXT NOT NULL, created_at INTEGER NOT NULL);
    CREATE TABLE sessions (
        token BLOB PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users (id), expires_at INTEGER NOT NULL);
    CREATE INDEX sessions_of_user ON sessions (user_id);
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY, kind TEXT NOT NULL, user_id INTEGER NOT NULL, at INTEGER NOT NULL);";

/// What may differ.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    /// Whether a row of audit goes with each change, in its transaction, and each failed login is one too.
    pub audits: bool,
    /// Whether as many passwords are hashed at a time as there are cores, and no more.
    pub bounded: bool,
}

/// Accounts in SQLite.
#[derive(Clone)]
pub struct Plain {
    make: Make,
    writer: Arc<Mutex<Connection>>,
    reader: Arc<Mutex<Connection>>,
    hashing: Arc<Semaphore>,
}

impl Plain {
    /// Accounts in a new file in a folder.
    ///
    /// # Errors
    /// It cannot be made, or would not be durable.
    pub fn open(folder: &Path, make: Make) -> Result<Self, Failure> {
        let path = folder.join("accounts.sqlite");
        let writer = connect(&path)?;
        writer.execute_batch(SCHEMA)?;
        let reader = connect(&path)?;
        let permits = if make.bounded { std::thread::available_parallelism()?.get() } else { Semaphore::MAX_PERMITS };
        Ok(Self {
            make,
            writer: Arc::new(Mutex::new(writer)),
            reader: Arc::new(Mutex::new(reader)),
            hashing: Arc::new(Semaphore::new(permits)),
        })
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let _permit = self.hashing.acquire().await?;
        spawn_blocking(work).await?
    }

    async fn write(
        &self,
        kind: &'static str,
        change: impl FnOnce(&Connection) -> Result<i64, Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let (writer, audits) = (self.writer.clone(), self.make.audits);
        spawn_blocking(move || {
            let mut connection = hold(&writer);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let user = change(&transaction)?;
            if audits {
                let sql = "INSERT INTO audit (kind, user_id, at) VALUES (?1, ?2, unixepoch())";
                transaction.prepare_cached(sql)?.execute((kind, user))?;
            }
            Ok(transaction.commit()?)
        })
        .await?
    }

    async fn find(&self, name: String) -> Result<Option<(i64, String)>, Failure> {
        let reader = self.reader.clone();
        spawn_blocking(move || {
            let connection = hold(&reader);
            let mut select = connection.prepare_cached("SELECT id, phc FROM users WHERE username = ?1")?;
            Ok(select.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        })
        .await?
    }
}

fn hold(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
    let journal: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0))?;
    if journal == "wal" && synchronous == 2 { Ok(connection) } else { Err("SQLite would not be durable".into()) }
}

/// Argon2 with the crate's defaults, which are 19,456 KiB, 2 passes, 1 lane.
fn hash(password: &str) -> Result<String, Failure> {
    let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes())?;
    Ok(hash.to_string())
}

fn verify(password: &str, phc: &str) -> Result<bool, Failure> {
    let stored = PasswordHash::new(phc)?;
    match Argon2::default().verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Contestant for Plain {
    fn describe(&self) -> String {
        let (rusqlite, argon2) = (crate::versions::locked("rusqlite"), crate::versions::locked("argon2"));
        format!("{:?}: rusqlite {rusqlite}, SQLite {}, argon2 {argon2}", self.make, rusqlite::version())
    }

    async fn register(&self, number: u64) -> Result<Answer, Failure> {
        let phc = self.compute(|| hash(PASSWORD)).await?;
        self.write("user_registered", move |connection| {
            let sql = "INSERT INTO users (username, phc, created_at) VALUES (?1, ?2, unixepoch())";
            Ok(connection.prepare_cached(sql)?.insert((username(number), phc))?)
        })
        .await?;
        Ok(Answer::Good)
    }

    async fn login(&self, number: u64, password: &'static str) -> Result<Answer, Failure> {
        let (user, phc) = self.find(username(number)).await?.ok_or("an unknown user")?;
        if !self.compute(move || verify(password, &phc)).await? {
            if self.make.audits {
                self.write("login_failed", move |_| Ok(user)).await?;
            }
            return Ok(Answer::Denied);
        }
        let mut token = [0; 32];
        getrandom::fill(&mut token)?;
        let stored = Sha256::digest(token);
        self.write("login", move |connection| {
            let sql = "INSERT INTO sessions (token, user_id, expires_at) VALUES (?1, ?2, unixepoch() + 1209600)";
            connection.prepare_cached(sql)?.execute((stored.as_slice(), user))?;
            Ok(user)
        })
        .await?;
        Ok(Answer::Good)
    }

    async fn hash(&self) -> Result<Answer, Failure> {
        self.compute(|| hash(PASSWORD)).await?;
        Ok(Answer::Good)
    }

    async fn stored_hash(&self) -> Result<String, Failure> {
        Ok(self.find(username(0)).await?.ok_or("nobody is registered")?.1)
    }
}
