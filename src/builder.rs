//! The builder: where the data lies, who sends messages, who listens, and then `spawn()`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use majordomo_actors::auditor::{AuditSigner, Auditor};
use majordomo_actors::breach::BreachCheck;
use majordomo_actors::clock::Clock;
use majordomo_actors::guard::GuardRegistration;
use majordomo_actors::keys::{KeyError, Keyring};
use majordomo_actors::notifier::{
    BoxedTransport, Notifier, NotifierFault, Route, Templates, Transport, TransportTerms,
};
use majordomo_actors::outbox::{Subscription, SubscriptionSettings};
use majordomo_actors::storage::Location;
use majordomo_actors::subscriber::{Capability, Subscriber};
use majordomo_actors::supervisor::{Setup, SpawnError, System};
use majordomo_model::{Filter, OnFailure, Phone, RetryPolicy, Start};

use crate::accounts::Accounts;
use crate::config::Config;

/// The name that the auditor's subscription and trail go under.
pub(crate) const AUDITOR: &str = "auditor";
/// The name that the notifier's subscription goes under.
const NOTIFIER: &str = "notifier";
/// How many users' messages are under way at once: as many connections as a mail server or gateway usually grants one
/// client, and enough that one which hangs until its deadline leaves others a way.
const LANES: usize = 16;

/// Puts an account system together. Made by [`Accounts::builder`].
#[must_use = "a builder does nothing until it is spawned"]
pub struct Builder {
    place: Place,
    config: Config,
    keys: Option<Keyring>,
    clock: Clock,
    templates: Templates,
    transports: Vec<(BoxedTransport, TransportTerms)>,
    route: Route,
    subscriptions: Vec<Subscription>,
    guards: Vec<GuardRegistration>,
    breaches: Option<BreachCheck>,
}

enum Place {
    Nowhere,
    File(PathBuf),
    Given(Location),
}

/// Why no account system was spawned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The configuration cannot be used; every fault is named.
    #[error("the configuration cannot be used: {}", .0.join("; "))]
    Configuration(Vec<String>),
    /// The master keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The store could not be opened, or an actor did not start.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            place: Place::Nowhere,
            config: Config::default(),
            keys: None,
            clock: Clock::system(),
            templates: Templates::embedded(),
            transports: Vec::new(),
            route: Route::default(),
            subscriptions: Vec::new(),
            guards: Vec::new(),
            breaches: None,
        }
    }

    /// Keeps everything in this file, which is made if it is not there; its folder must be.
    ///
    /// The master keys lie beside it, in a file of the same name with `.keys` at the end, unless [`Builder::keys`]
    /// gives them. They are made with the file, readable by its owner only, and never made again: without them the
    /// file is refused. A backup of the database should not lie with a backup of the keys.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Place::File(path.into());
        self
    }

    /// Keeps everything in memory, gone with the system. For tests and trials.
    pub fn in_memory(mut self) -> Self {
        self.place = Place::Given(Location::Memory(majordomo_actors::storage::MemoryDisk::new()));
        self
    }

    /// Keeps everything on a disk of the caller's own making.
    #[cfg(feature = "testing")]
    pub(crate) fn location(mut self, location: Location) -> Self {
        self.place = Place::Given(location);
        self
    }

    /// Behaves so.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Behaves as the default, changed so.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Uses these master keys instead of a key file, such as keys from a secret store.
    pub fn keys(mut self, keys: Keyring) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Takes time from this clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sends messages by this transport; given several of a channel, they are asked in this order: the next one if those
    /// before are out, or refuse a message for good.
    ///
    /// Without any transport no notifier is spawned, and messages that are due wait in the log for one. With transports
    /// of one channel only, those of the other are left to another notifier that has a subscription of its own; where
    /// there is none, [`Health`](crate::Health) tells so, and they end as expired.
    pub fn transport(self, transport: impl Transport) -> Self {
        self.transport_with(transport, TransportTerms::default())
    }

    /// As [`Builder::transport`], on terms of its own: a name, a rate, when it is left alone.
    pub fn transport_with(mut self, transport: impl Transport, terms: TransportTerms) -> Self {
        self.transports.push((Arc::new(transport), terms));
        self
    }

    /// Says it in these words instead of the built-in ones.
    pub fn templates(mut self, templates: Templates) -> Self {
        self.templates = templates;
        self
    }

    /// Feeds signals that pass `filter` to a subscriber of this name, from its own cursor, from `start` on the first time.
    pub fn subscriber(
        mut self,
        name: impl Into<String>,
        filter: Filter,
        start: Start,
        subscriber: impl Subscriber,
    ) -> Self {
        self.subscriptions.push(registration(name, filter, start, subscriber));
        self
    }

    /// Feeds a subscription, on terms of its own.
    pub fn subscription(mut self, subscription: Subscription) -> Self {
        self.subscriptions.push(subscription);
        self
    }

    /// Asks a guard before its flows are committed; several are asked in the order in which they are given.
    ///
    /// Deletions of accounts that were never verified in time are maintenance, and not guarded.
    pub fn guard(mut self, registration: GuardRegistration) -> Self {
        self.guards.push(registration);
        self
    }

    /// Asks this service, once every other rule is kept, whether a new password is known from a breach, and refuses one that
    /// is. Nobody is asked by default.
    ///
    /// If it is not found out, the password passes, and the signal `breach_check_failed` says why.
    pub fn breached_passwords(mut self, check: BreachCheck) -> Self {
        self.breaches = Some(check);
        self
    }

    /// Opens the store and spawns every actor; once it answers, requests are served.
    ///
    /// # Errors
    /// [`BuildError`]; nothing is left running then.
    pub async fn spawn(mut self) -> Result<Accounts, BuildError> {
        let mut subscriptions = self.registrations().map_err(BuildError::Configuration)?;
        let (location, keys) = match self.place {
            Place::Given(location) => {
                let keys = self.keys.map_or_else(Keyring::ephemeral, Ok)?;
                (location, keys)
            }
            Place::File(path) => {
                let keys = self.keys.map_or_else(|| Keyring::open_or_create(&key_path(&path), !path.exists()), Ok)?;
                (Location::File(path), keys)
            }
            Place::Nowhere => return Err(BuildError::Configuration(vec![NOWHERE.to_owned()])),
        };
        let signer = Arc::new(audit_signer(&keys));
        let auditor = Auditor::new(Arc::clone(&signer)).checkpoint_every(self.config.audit_checkpoint_every);
        subscriptions.insert(0, auditing(auditor));
        // The first number costs the library's tables; nobody waits for them.
        tokio::task::spawn_blocking(Phone::warm_up);
        let shutdown_within = self.config.shutdown_within;
        let mut policy = self.config.policy;
        if let Some(messages) = &self.config.messages {
            policy.passwords.words = policy.passwords.words.and(&messages.app_name);
        }
        let setup = Setup {
            location,
            storage: self.config.storage,
            hashing: self.config.hashing,
            policy,
            places: self.config.requests,
            patience: self.config.patience,
            keys,
            clock: self.clock,
            subscriptions,
            guards: self.guards,
            breaches: self.breaches,
        };
        // On the heap: it is large, and so would be the future of every caller.
        let system = Box::pin(System::spawn(setup)).await?;
        Ok(Accounts::new(system, shutdown_within, signer, self.route))
    }

    /// Every subscription of the system but the auditor's, or every fault of the configuration.
    fn registrations(&mut self) -> Result<Vec<Subscription>, Vec<String>> {
        let mut faults = self.config.faults();
        match &self.place {
            Place::Nowhere => faults.push(NOWHERE.to_owned()),
            Place::File(path) => faults.extend(path_fault(path)),
            Place::Given(_) => {}
        }
        let mut all = Vec::new();
        let transports = std::mem::take(&mut self.transports);
        let templates = std::mem::replace(&mut self.templates, Templates::embedded());
        if !transports.is_empty() {
            match self.config.messages.clone().map(|settings| Notifier::new(settings, templates)) {
                Some(Ok(notifier)) => {
                    let added = transports.into_iter().try_fold(notifier, |notifier, (transport, terms)| {
                        notifier.with_transport_on(transport, terms)
                    });
                    match added {
                        Ok(notifier) => {
                            self.route = notifier.route();
                            all.push(notifying(notifier, patient()));
                        }
                        Err(fault) => faults.push(format!("transport_with: {fault}")),
                    }
                }
                Some(Err(NotifierFault::Templates(fault))) => faults.push(format!("messages: {fault}")),
                // Told by the configuration itself.
                Some(Err(_)) => {}
                None => faults.push("messages: a transport needs to know the app's name and base URL".to_owned()),
            }
        }
        all.append(&mut self.subscriptions);
        for (place, registration) in all.iter().enumerate() {
            let mut taken = all.iter().take(place).map(Subscription::name).chain([AUDITOR]);
            if taken.any(|name| name == registration.name()) {
                faults.push(format!("subscriber {:?}: the name is taken", registration.name()));
            }
        }
        faults.extend(self.breaches.iter().flat_map(BreachCheck::faults));
        for (place, guard) in self.guards.iter().enumerate() {
            faults.extend(guard.faults());
            if self.guards.iter().take(place).any(|earlier| earlier.name() == guard.name()) {
                faults.push(format!("guard {:?}: the name is taken", guard.name()));
            }
        }
        if faults.is_empty() { Ok(all) } else { Err(faults) }
    }
}

/// Neither auditor nor notifier may give a signal up: the trail would have a hole, and the notifier ends what it cannot
/// deliver itself.
fn patient() -> SubscriptionSettings {
    SubscriptionSettings { retry: RetryPolicy::endless(), quarantine_after: 0, ..SubscriptionSettings::default() }
}

/// The auditor is handed everything in the order of the log, many signals at once, for which it lingers, and what it
/// left is never rebuilt.
fn auditing(auditor: Auditor) -> Subscription {
    let (batch, linger) = (64, Duration::from_millis(100));
    let settings =
        SubscriptionSettings { batch, linger, on_failure: OnFailure::StallAll, keep_projection: true, ..patient() };
    registration(AUDITOR, Filter::all(), Start::Beginning, auditor).settings(settings)
}

fn audit_signer(keys: &Keyring) -> AuditSigner {
    let ((id, seed), earlier) = keys.audit_seeds();
    let signer = AuditSigner::new(*id.as_bytes(), seed.expose());
    earlier.iter().fold(signer, |signer, (id, seed)| signer.earlier(*id.as_bytes(), seed.expose()))
}

/// The notifier's subscription.
fn notifying(notifier: Notifier, patient: SubscriptionSettings) -> Subscription {
    let settings = SubscriptionSettings { concurrency: LANES, deadline: notifier.patience(), ..patient };
    let notifier = registration(NOTIFIER, notifier.filter(), Start::Beginning, notifier);
    notifier.capability(Capability::Deliver).settings(settings)
}

const NOWHERE: &str = "place: say where the data lies, with file(path) or in_memory()";

/// Why no database can lie there: said before keys are made beside it.
fn path_fault(path: &Path) -> Option<String> {
    if path.file_name().is_none() {
        return Some(format!("place: the path {path:?} names no file"));
    }
    if path.is_dir() {
        return Some(format!("place: {} is a folder", path.display()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    (!folder.is_dir()).then(|| format!("place: the folder {} is not there or cannot be reached", folder.display()))
}

pub(crate) fn registration(
    name: impl Into<String>,
    filter: Filter,
    start: Start,
    subscriber: impl Subscriber,
) -> Subscription {
    Subscription::new(name, subscriber).filter(filter).start(start)
}

fn key_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".keys");
    PathBuf::from(name)
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}
