//! Ours: majordomo as an app spawns it, with its defaults: auditor, signals, a durable file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use majordomo::{Accounts, AuthenticateReason, Error, HasherSettings, Reason};
use majordomo_actors::hasher::Hasher;
use majordomo_actors::supervision::{Limits, Plan, spawn_supervisor};
use measure::Failure;
use measure::world::{self, PASSWORD, username};
use tokio::sync::OnceCell;

use crate::contestant::{Answer, Contestant};

/// An account system over a file, and a hasher without one.
#[derive(Clone)]
pub struct Ours {
    accounts: Accounts,
    folder: PathBuf,
    hasher: Arc<OnceCell<Hasher>>,
}

impl Ours {
    /// A system over a new file in a folder.
    ///
    /// # Errors
    /// It cannot be spawned.
    pub async fn open(folder: &Path) -> Result<Self, Failure> {
        let accounts = Accounts::builder().file(folder.join("accounts.redb")).spawn().await?;
        Ok(Self { accounts, folder: folder.to_owned(), hasher: Arc::default() })
    }
}

fn answer_of<T, R: Reason + 'static>(answer: Result<T, Error<R>>) -> Result<Answer, Failure> {
    match answer {
        Ok(_) => Ok(Answer::Good),
        Err(Error::Overloaded) => Ok(Answer::Overloaded),
        Err(error) => Err(error.into()),
    }
}

async fn start_hasher() -> Result<Hasher, Failure> {
    let (root, _) = spawn_supervisor(Plan::new(Limits::default()), None).await?;
    let hasher = Hasher::new(&HasherSettings::default())?;
    hasher.start(Some(root.get_cell())).await?;
    Ok(hasher)
}

impl Contestant for Ours {
    fn describe(&self) -> String {
        format!("majordomo {}", crate::versions::locked("majordomo"))
    }

    async fn register(&self, number: u64) -> Result<Answer, Failure> {
        answer_of(self.accounts.register(world::registration(username(number))).await)
    }

    async fn login(&self, number: u64, password: &'static str) -> Result<Answer, Failure> {
        let request = majordomo::Authenticate { password: majordomo::Password::new(password), ..world::login(number) };
        match self.accounts.authenticate(request).await {
            Err(Error::Refused(AuthenticateReason::InvalidCredentials)) => Ok(Answer::Denied),
            other => answer_of(other),
        }
    }

    async fn hash(&self) -> Result<Answer, Failure> {
        let hasher = self.hasher.get_or_try_init(start_hasher).await?;
        hasher.hash(PASSWORD.as_bytes().to_vec().into(), None).await?;
        Ok(Answer::Good)
    }

    /// The file is ours alone to read, but a backup holds the string as it is stored.
    async fn stored_hash(&self) -> Result<String, Failure> {
        const BEGINS: &[u8] = b"$argon2";
        let copy = self.folder.join("backup.redb");
        self.accounts.backup(&copy).await?;
        let bytes = std::fs::read(&copy)?;
        std::fs::remove_file(copy)?;
        let found = bytes.windows(BEGINS.len()).position(|window| window == BEGINS);
        let text = bytes.get(found.ok_or("no hash is stored")?..).unwrap_or_default();
        Ok(text.iter().take_while(|byte| byte.is_ascii_graphic()).copied().map(char::from).collect())
    }

    /// The auditor has recorded everything.
    async fn settle(&self) {
        self.accounts.drain().await;
    }

    async fn close(&self) {
        self.accounts.shutdown().await;
    }
}
