//! The test kit: an account system in memory, with cheap hashes, captured messages, a clock to advance and faults.
//!
//! ```
//! use majordomo::testing::TestAccounts;
//! use majordomo::{Authenticate, Password, Proof, Register};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let test = TestAccounts::start().await;
//! let password = "nine lanterns over a quiet harbour";
//! test.register(Register { email: Some("ada@example.com".into()), ..Register::new(password) }).await?;
//! test.drain().await;
//! let link = test.messages().last_to("ada@example.com").unwrap().link().unwrap().to_owned();
//! test.confirm_email(majordomo::ConfirmEmail { proof: Proof::from_link(&link).unwrap() }).await?;
//! let identifier = "ada@example.com".to_owned();
//! test.authenticate(Authenticate { identifier, password: Password::new(password) }).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! # Ok::<(), std::io::Error>(())
//! ```

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use majordomo_actors::clock::Clock;
use majordomo_actors::hasher::{HashParameters, HasherState};
use majordomo_actors::keys::Keyring;
use majordomo_actors::notifier::{CapturedOutbox, NotifierSettings};
use majordomo_actors::storage::{Disk, Location, MemoryDisk, StorageState};
use majordomo_model::{Channel, Envelope, SignalKind, Timestamp, UserId};

pub use majordomo_actors::storage::{Counts, FaultyDisk, Operation};

use crate::accounts::Accounts;
use crate::builder::{BuildError, Builder};
use crate::config::Config;

/// When the clock of a test stands at first: 2027-01-15T08:00:00Z.
pub const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
/// Where the links of a test lead.
pub const BASE_URL: &str = "https://accounts.example.com";

/// An account system for tests. It derefs to [`Accounts`].
pub struct TestAccounts {
    accounts: Accounts,
    outbox: CapturedOutbox,
    clock: Clock,
    keys: Keyring,
    disk: FaultyDisk,
    config: Config,
}

impl TestAccounts {
    /// A fresh system with the default policy.
    ///
    /// # Panics
    /// If it cannot be spawned.
    pub async fn start() -> Self {
        Self::configured(|_| {}).await
    }

    /// A fresh system whose default configuration was changed so.
    ///
    /// # Panics
    /// If it cannot be spawned.
    pub async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.hashing.parameters = HashParameters::cheap_for_tests();
        config.hashing.queue = Some(10_000);
        config.messages = Some(NotifierSettings::new("Example", BASE_URL));
        change(&mut config);
        Self::with(config, |builder| builder).await
    }

    /// A fresh system with this configuration, the builder being changed so before it is spawned.
    ///
    /// # Panics
    /// If it cannot be spawned.
    pub async fn with(config: Config, change: impl FnOnce(Builder) -> Builder) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let disk = must(FaultyDisk::new(disk));
        let (outbox, clock) = (CapturedOutbox::new(), Clock::manual(START));
        let keys = must(Keyring::ephemeral());
        let builder = change(builder(&config, &outbox, &clock, &keys, &disk));
        let accounts = must(Box::pin(builder.spawn()).await);
        Self { accounts, outbox, clock, keys, disk, config }
    }

    /// The same system again: shut down, and spawned over what its disk holds, with the same keys, clock and messages.
    ///
    /// # Errors
    /// [`BuildError`], such as while the disk still fails.
    pub async fn restart(self) -> Result<Self, BuildError> {
        self.restart_with(|builder| builder).await
    }

    /// As [`TestAccounts::restart`], the builder being changed so, such as with subscribers.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn restart_with(mut self, change: impl FnOnce(Builder) -> Builder) -> Result<Self, BuildError> {
        self.accounts.shutdown().await;
        let builder = change(builder(&self.config, &self.outbox, &self.clock, &self.keys, &self.disk));
        self.accounts = Box::pin(builder.spawn()).await?;
        Ok(self)
    }

    /// The system as it would come up after a power cut at this moment: a second one over what
    /// [`FaultyDisk::crash`] leaves, with the same keys, clock and messages. This one goes on.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn crashed(&self, seed: u64) -> Result<Self, BuildError> {
        let left: Arc<dyn Disk> = Arc::new(must(self.disk.crash(seed)));
        let disk = must(FaultyDisk::new(left));
        let builder = builder(&self.config, &self.outbox, &self.clock, &self.keys, &disk);
        let accounts = Box::pin(builder.spawn()).await?;
        let (outbox, clock, keys) = (self.outbox.clone(), self.clock.clone(), self.keys.clone());
        Ok(Self { accounts, outbox, clock, keys, disk, config: self.config.clone() })
    }

    /// The handle, to be cloned into tasks and actors.
    #[must_use]
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The messages that were sent; see also [`Accounts::drain`].
    #[must_use]
    pub const fn messages(&self) -> &CapturedOutbox {
        &self.outbox
    }

    /// Lets time pass.
    pub fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// The disk, to make it fail.
    #[must_use]
    pub const fn disk(&self) -> &FaultyDisk {
        &self.disk
    }

    /// Every signal in the log, in order.
    ///
    /// # Panics
    /// While storage is out.
    #[must_use]
    pub fn recorded(&self) -> Vec<Envelope> {
        must(self.accounts.system().reader().signals_after(0, usize::MAX))
    }

    /// The kinds of the signals behind a place of the log.
    ///
    /// # Panics
    /// While storage is out.
    #[must_use]
    pub fn kinds_after(&self, seq: u64) -> Vec<SignalKind> {
        let after = must(self.accounts.system().reader().signals_after(seq, usize::MAX));
        after.iter().map(|envelope| envelope.signal.kind()).collect()
    }

    /// The kinds of the signals that speak of a user.
    ///
    /// # Panics
    /// While storage is out.
    #[must_use]
    pub fn kinds_of(&self, user: UserId) -> Vec<SignalKind> {
        let of_user = |envelope: &&Envelope| envelope.signal.user() == Some(user);
        self.recorded().iter().filter(of_user).map(|envelope| envelope.signal.kind()).collect()
    }

    /// The place of the last signal.
    ///
    /// # Panics
    /// While storage is out.
    #[must_use]
    pub fn head(&self) -> u64 {
        must(self.accounts.system().reader().head())
    }

    /// What storage has done: transactions, batches, conflicts, reopenings.
    #[must_use]
    pub fn storage_state(&self) -> StorageState {
        self.accounts.system().storage().observe()
    }

    /// What the hasher has done: jobs, refusals.
    #[must_use]
    pub fn hasher_state(&self) -> HasherState {
        self.accounts.system().hasher().observe()
    }

    /// Kills an actor of the tree, such as `"storage"`, `"hasher"`, `"user_manager"` or a subscription by its name, as a
    /// crash would: it is restarted after a pause. One that is being restarted is waited for. More than five kills of
    /// one actor within a minute end the system, as more than five crashes do.
    ///
    /// # Panics
    /// If no actor of that name runs within ten seconds.
    pub async fn kill(&self, actor: &str) {
        let killing = async {
            while !self.accounts.system().kill(actor).await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        must(tokio::time::timeout(Duration::from_secs(10), killing).await);
    }

    /// Makes the next hashing jobs panic.
    pub fn fail_hashing(&self, jobs: u64) {
        self.accounts.system().hasher().fail_next(jobs);
    }

    /// Holds the hasher's threads still, or lets them go on.
    pub fn hold_hashing(&self, held: bool) {
        self.accounts.system().hasher().hold(held);
    }

    /// Holds back passwords that are to be hashed anew behind their logins, or lets them go on.
    pub fn hold_rehashing(&self, held: bool) {
        self.accounts.system().hasher().hold_rehashes(held);
    }
}

impl Deref for TestAccounts {
    type Target = Accounts;

    fn deref(&self) -> &Accounts {
        &self.accounts
    }
}

impl std::fmt::Debug for TestAccounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TestAccounts").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

fn builder(config: &Config, outbox: &CapturedOutbox, clock: &Clock, keys: &Keyring, disk: &FaultyDisk) -> Builder {
    Accounts::builder()
        .location(Location::Disk(Arc::new(disk.clone())))
        .config(config.clone())
        .keys(keys.clone())
        .clock(clock.clone())
        .transport(outbox.transport(Channel::Email))
        .transport(outbox.transport(Channel::Phone))
}

/// A test kit has nobody to report to but the test.
#[allow(clippy::panic, reason = "a failure of the kit is a failure of the test")]
fn must<T, E: std::fmt::Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("the test kit failed: {error}"))
}
