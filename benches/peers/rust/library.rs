//! A library's: torii over its own SQLite storage. It hashes by argon2 as the crate's defaults say, which are our parameters.

use std::path::Path;
use std::sync::Arc;

use measure::Failure;
use measure::world::{PASSWORD, username};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use torii::Torii;
use torii::sqlite::SqliteRepositoryProvider;

use crate::contestant::{Answer, Contestant, callers};
use crate::versions::locked;

/// Accounts of torii.
#[derive(Clone)]
pub struct Library {
    torii: Arc<Torii<SqliteRepositoryProvider>>,
    pool: SqlitePool,
}

impl Library {
    /// Accounts in a new file in a folder.
    ///
    /// # Errors
    /// It cannot be made, or would not be durable.
    pub async fn open(folder: &Path) -> Result<Self, Failure> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("accounts.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let connections = u32::try_from(callers()?)?;
        let pool = SqlitePoolOptions::new().max_connections(connections).connect_with(options).await?;
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&pool).await?;
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&pool).await?;
        if journal != "wal" || synchronous != 2 {
            return Err("SQLite would not be durable".into());
        }
        let torii = Torii::new(Arc::new(SqliteRepositoryProvider::new(pool.clone())));
        torii.migrate().await?;
        Ok(Self { torii: Arc::new(torii), pool })
    }
}

/// It knows users by their address.
fn address(number: u64) -> String {
    format!("{}@example.com", username(number))
}

impl Contestant for Library {
    fn describe(&self) -> String {
        let (torii, sqlx, hash) = (locked("torii"), locked("sqlx"), locked("password-auth"));
        format!("torii {torii}, sqlx {sqlx}, SQLite {}, password-auth {hash}", rusqlite::version())
    }

    async fn register(&self, number: u64) -> Result<Answer, Failure> {
        self.torii.password().register(&address(number), PASSWORD).await?;
        Ok(Answer::Good)
    }

    async fn login(&self, number: u64, password: &'static str) -> Result<Answer, Failure> {
        match self.torii.password().authenticate(&address(number), password, None, None).await {
            Ok(_) => Ok(Answer::Good),
            Err(torii::ToriiError::AuthError(text)) if text.to_lowercase().contains("credentials") => {
                Ok(Answer::Denied)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// As it does, on the thread that asks.
    async fn hash(&self) -> Result<Answer, Failure> {
        password_auth::generate_hash(PASSWORD);
        Ok(Answer::Good)
    }

    async fn stored_hash(&self) -> Result<String, Failure> {
        let select = sqlx::query_scalar("SELECT password_hash FROM users WHERE email = ?1");
        Ok(select.bind(address(0)).fetch_one(&self.pool).await?)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
