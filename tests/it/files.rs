//! Files and the life of a system: restarts, crashes, second openings, keys, backups, shutdown, neighbours, retention.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use majordomo::notifier::{CapturedOutbox, NotifierSettings};
use majordomo::ractor::{self, Actor, ActorProcessingErr, ActorRef};
use majordomo::testing::{BASE_URL, TestAccounts};
use majordomo::{
    Accounts, Answer, AuditQuery, Authenticate, BuildError, Builder, Channel, Config, ConfirmEmail, Envelope, Error,
    Filter, HashParameters, KeyError, Keyring, Live, LoggedIn, OnFailure, OpenError, Outcome, PAGE_LIMIT, Password,
    Proof, Register, RegisterReason, RetryPolicy, SpawnError, Start, Subscriber, SubscriberContext, Subscription, User,
    UserId,
};

use crate::faults::{assert_lawful, told_users, until};

const PASSWORD: &str = "nine lanterns over a quiet harbour";
/// Longer than anything here takes; a test that reaches it hangs.
const PATIENCE: Duration = Duration::from_secs(180);
/// Names the database that this very binary, run as another process, is to open.
const CHILD_OPENS: &str = "MAJORDOMO_TEST_CHILD_OPENS";

fn config() -> Config {
    let mut config = Config::default();
    config.hashing.parameters = HashParameters::cheap_for_tests();
    config.messages = Some(NotifierSettings::new("Example", BASE_URL));
    config
}

/// A place for a database, in a folder that goes with the test.
struct Place {
    folder: tempfile::TempDir,
    messages: CapturedOutbox,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), messages: CapturedOutbox::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn database(&self) -> PathBuf {
        self.path("accounts.redb")
    }

    fn keys(&self) -> PathBuf {
        self.path("accounts.redb.keys")
    }

    fn builder(&self) -> Builder {
        Accounts::builder()
            .file(self.database())
            .config(config())
            .transport(self.messages.transport(Channel::Email))
            .transport(self.messages.transport(Channel::Phone))
    }

    async fn spawn(&self) -> Accounts {
        self.builder().spawn().await.unwrap()
    }

    /// The names of what lies in the folder.
    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A database with one user, closed.
    async fn with_a_user(&self) -> UserId {
        let accounts = self.spawn().await;
        let user = register(&accounts, "ada").await.unwrap();
        assert!(shut_down(&accounts).await);
        user
    }
}

async fn register(accounts: &Accounts, name: &str) -> Result<UserId, Error<RegisterReason>> {
    let register = Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
    accounts.register(register).await.map(|accepted| accepted.user)
}

async fn sign_in(accounts: &Accounts, name: &str) -> Answer<Authenticate> {
    accounts.authenticate(Authenticate { identifier: name.to_owned(), password: Password::new(PASSWORD) }).await
}

async fn shut_down(accounts: &Accounts) -> bool {
    tokio::time::timeout(PATIENCE, accounts.shutdown()).await.expect("the shutdown is bounded")
}

async fn drained(accounts: &Accounts) {
    tokio::time::timeout(PATIENCE, accounts.drain()).await.expect("the subscribers never came to an end");
}

/// The whole log.
async fn log(accounts: &Accounts) -> Vec<Envelope> {
    let mut log: Vec<Envelope> = Vec::new();
    loop {
        let after = log.last().and_then(|envelope| envelope.seq).unwrap_or(0);
        let page = accounts.signals(after, PAGE_LIMIT).await.unwrap();
        if page.is_empty() {
            return log;
        }
        log.extend(page);
    }
}

fn json(value: &[Envelope]) -> String {
    serde_json::to_string(value).unwrap()
}

async fn users(accounts: &Accounts) -> Vec<User> {
    accounts.users(None, PAGE_LIMIT).await.unwrap()
}

fn ids(users: &[User]) -> BTreeSet<UserId> {
    users.iter().map(|user| user.id).collect()
}

/// The error of a spawn that is refused.
async fn refusal(builder: Builder) -> BuildError {
    builder.spawn().await.map(|accounts| format!("{accounts:?}")).expect_err("it was to be refused")
}

fn is_already_open(error: &BuildError) -> bool {
    matches!(error, BuildError::Spawn(SpawnError::Open(OpenError::AlreadyOpen)))
}

/// Keeps the places that it was handed.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<u64>>>);

impl Collector {
    fn seen(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }
}

impl Subscriber for Collector {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        self.0.lock().unwrap().push(envelope.seq.unwrap());
        Outcome::done()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_the_same_users_sessions_signals_cursors_and_trail() {
    let place = Place::new();
    let collector = Collector::default();
    let with_collector = || place.builder().subscriber("collector", Filter::all(), Start::Beginning, collector.clone());
    let accounts = with_collector().spawn().await.unwrap();
    let email = Register { email: Some("grace@example.com".into()), ..Register::new(PASSWORD) };
    register(&accounts, "ada").await.unwrap();
    accounts.register(email).await.unwrap();
    let login = sign_in(&accounts, "ada").await.unwrap();
    sign_in(&accounts, "nobody").await.unwrap_err();
    drained(&accounts).await;
    let link = place.messages.last_to("grace@example.com").unwrap().link().unwrap().to_owned();
    accounts.confirm_email(ConfirmEmail { proof: Proof::from_link(&link).unwrap() }).await.unwrap();
    drained(&accounts).await;

    let session = accounts.check_session(&login.token).unwrap().unwrap();
    let (people, signals) = (users(&accounts).await, log(&accounts).await);
    let everything = AuditQuery { limit: 1_000, newest_first: false, ..AuditQuery::default() };
    let trail = accounts.audit(everything.clone()).await.unwrap();
    let sent = place.messages.messages().len();
    assert!(collector.seen().into_iter().eq(1..=signals.len() as u64));
    assert!(shut_down(&accounts).await);
    drop(accounts);

    let accounts = with_collector().spawn().await.unwrap();
    drained(&accounts).await;
    assert_eq!(users(&accounts).await, people);
    assert_eq!(accounts.check_session(&login.token).unwrap().unwrap(), session);
    assert_eq!(json(&log(&accounts).await), json(&signals));
    assert!(accounts.audit(everything).await.unwrap() == trail, "the trail has changed");
    assert_eq!(trail.records.len(), signals.len(), "what is drained is in the trail");
    assert!(collector.seen().into_iter().eq(1..=signals.len() as u64), "a signal was handed over twice");
    assert_eq!(place.messages.messages().len(), sent, "a message was sent twice");

    sign_in(&accounts, "ada").await.unwrap();
    drained(&accounts).await;
    let head = log(&accounts).await.len() as u64;
    assert!(head > signals.len() as u64 && collector.seen().into_iter().eq(1..=head));
    assert!(shut_down(&accounts).await);
}

/// What was answered with `Ok` under load.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<Vec<(UserId, LoggedIn)>>>);

impl Answered {
    fn now(&self) -> Vec<(UserId, LoggedIn)> {
        self.0.lock().unwrap().clone()
    }
}

/// Registers and signs in under fresh names, several at a time, until told to stop.
fn load(accounts: &Accounts, answered: &Answered, stop: &Arc<AtomicBool>) -> tokio::task::JoinSet<()> {
    let mut load = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (accounts, answered, stop) = (accounts.clone(), answered.clone(), Arc::clone(stop));
        load.spawn(async move {
            for number in 0_u32.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let name = format!("user.{task}.{number}");
                let user = register(&accounts, &name).await.unwrap();
                let login = sign_in(&accounts, &name).await.unwrap();
                answered.0.lock().unwrap().push((user, login));
            }
        });
    }
    load
}

/// Everything in `answered` is there, and rows and signals tell the same.
async fn assert_holds(accounts: &Accounts, answered: &[(UserId, LoggedIn)]) {
    for (user, login) in answered {
        assert!(accounts.user(*user).unwrap().is_some(), "a user is lost");
        assert!(accounts.check_session(&login.token).unwrap().is_some(), "a session is lost");
    }
    let signals = log(accounts).await;
    assert_lawful(&signals);
    let mut found = BTreeSet::new();
    loop {
        let page = accounts.users(found.last().copied(), PAGE_LIMIT).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(ids(&page));
    }
    assert_eq!(found, told_users(&signals));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_under_load_leaves_holds_everything_answered() {
    let test = TestAccounts::start().await;
    let (answered, stop) = (Answered::default(), Arc::new(AtomicBool::new(false)));
    let load = load(test.accounts(), &answered, &stop);
    let mut crashes = Vec::new();
    for seed in 0..20 {
        until("one more answer", async || (answered.now().len() > crashes.len()).then_some(())).await;
        let before = answered.now();
        crashes.push((before, test.crashed(seed).await.unwrap()));
    }
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    for (before, found) in crashes {
        assert_holds(found.accounts(), &before).await;
        drained(found.accounts()).await;
        assert!(register(found.accounts(), "late").await.is_ok());
        assert!(shut_down(found.accounts()).await);
    }
    assert_holds(test.accounts(), &answered.now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_every_handle_without_a_shutdown_loses_nothing_answered() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let (answered, stop) = (Answered::default(), Arc::new(AtomicBool::new(false)));
    let load = load(&accounts, &answered, &stop);
    drop(accounts);
    until("some answers", async || (answered.now().len() > 50).then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    let accounts = until("the file is let go of", async || match place.builder().spawn().await {
        Ok(accounts) => Some(accounts),
        Err(error) => {
            assert!(is_already_open(&error), "{error}");
            None
        }
    })
    .await;
    assert_holds(&accounts, &answered.now()).await;
    assert!(shut_down(&accounts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opening_in_the_same_process_is_refused_and_harms_nobody() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let user = register(&accounts, "ada").await.unwrap();
    for _ in 0..3 {
        let error = refusal(place.builder()).await;
        assert!(is_already_open(&error), "{error:?}");
        assert!(error.to_string().contains("open already"), "{error}");
    }
    assert!(accounts.user(user).unwrap().is_some() && sign_in(&accounts, "ada").await.is_ok());
    assert!(shut_down(&accounts).await);
    let accounts = place.spawn().await;
    assert!(accounts.user(user).unwrap().is_some());
    assert!(shut_down(&accounts).await);
}

/// Not a test by itself: what the next one runs as another process.
#[tokio::test(flavor = "multi_thread")]
async fn as_another_process_the_database_is_open_already() {
    let Some(path) = std::env::var_os(CHILD_OPENS) else { return };
    let keys = Keyring::ephemeral().unwrap();
    let with_its_keys = Accounts::builder().file(&path).config(Config { messages: None, ..config() });
    let with_others = Accounts::builder().file(&path).config(Config { messages: None, ..config() }).keys(keys);
    for builder in [with_its_keys, with_others] {
        let error = refusal(builder).await;
        assert!(is_already_open(&error), "{error:?}");
    }
}

/// Waits for a process, which is ended when patience is.
async fn exit_of(mut child: Child) -> ExitStatus {
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if let Ok(status) = ended.await {
        return status;
    }
    child.kill().unwrap();
    child.wait().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opening_in_another_process_is_refused() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let user = register(&accounts, "ada").await.unwrap();
    let as_child = |name: &str| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD_OPENS, place.database())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let child = "files::as_another_process_the_database_is_open_already";
    assert!(exit_of(as_child(child)).await.success());
    assert!(sign_in(&accounts, "ada").await.is_ok());
    assert!(shut_down(&accounts).await);
    // Let go of, the other process has it: so it was the other process that spoke before.
    assert!(!exit_of(as_child(child)).await.success());
    let accounts = place.spawn().await;
    assert!(accounts.user(user).unwrap().is_some());
    assert!(shut_down(&accounts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_keys_are_missing_is_refused_and_no_keys_are_made() {
    let place = Place::new();
    let user = place.with_a_user().await;
    fs::rename(place.keys(), place.path("elsewhere")).unwrap();
    let before = fs::read(place.database()).unwrap();
    for _ in 0..2 {
        let error = refusal(place.builder()).await;
        assert!(matches!(&error, BuildError::Keys(KeyError::Missing { path }) if *path == place.keys()), "{error:?}");
        assert!(!place.keys().exists() && fs::read(place.database()).unwrap() == before);
    }
    fs::rename(place.path("elsewhere"), place.keys()).unwrap();
    let accounts = place.spawn().await;
    assert!(accounts.user(user).unwrap().is_some() && sign_in(&accounts, "ada").await.is_ok());
    assert!(shut_down(&accounts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_another_database_are_refused() {
    let (place, other) = (Place::new(), Place::new());
    let user = place.with_a_user().await;
    other.with_a_user().await;
    fs::rename(place.keys(), place.path("elsewhere")).unwrap();
    fs::copy(other.keys(), place.keys()).unwrap();
    let foreign = fs::read(place.keys()).unwrap();
    for builder in [place.builder(), place.builder().keys(Keyring::ephemeral().unwrap())] {
        let error = refusal(builder).await;
        assert!(matches!(error, BuildError::Spawn(SpawnError::Open(OpenError::ForeignKeys))), "{error:?}");
    }
    assert_eq!(fs::read(place.keys()).unwrap(), foreign);
    fs::rename(place.path("elsewhere"), place.keys()).unwrap();
    let accounts = place.spawn().await;
    assert!(accounts.user(user).unwrap().is_some());
    assert!(shut_down(&accounts).await);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn database_keys_and_backup_are_readable_by_their_owner_only_and_wide_keys_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let place = Place::new();
    let accounts = place.spawn().await;
    accounts.backup(place.path("backup.redb")).await.unwrap();
    assert_eq!([place.database(), place.keys(), place.path("backup.redb")].map(|path| mode(&path)), [0o600; 3]);
    assert_eq!(place.names().len(), 3, "{:?}", place.names());
    assert!(shut_down(&accounts).await);
    fs::set_permissions(place.keys(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = refusal(place.builder()).await;
    assert!(matches!(error, BuildError::Keys(KeyError::TooOpen { mode: 0o644, .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_from_before_a_rotation_of_the_keys_work_after_it() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let claim = |address: &str| Register { email: Some(address.to_owned()), ..Register::new(PASSWORD) };
    accounts.register(claim("ada@example.com")).await.unwrap();
    register(&accounts, "mary").await.unwrap();
    let login = sign_in(&accounts, "mary").await.unwrap();
    drained(&accounts).await;
    assert!(shut_down(&accounts).await);
    let (first, rotated) =
        (Keyring::open_or_create(&place.keys(), false).unwrap(), Keyring::rotate(&place.keys()).unwrap());
    assert_ne!(first.current(), rotated.current());

    let accounts = place.spawn().await;
    accounts.register(claim("grace@example.com")).await.unwrap();
    drained(&accounts).await;
    assert!(shut_down(&accounts).await);
    Keyring::rotate(&place.keys()).unwrap();

    let accounts = place.spawn().await;
    assert!(accounts.check_session(&login.token).unwrap().is_some());
    for address in ["ada@example.com", "grace@example.com"] {
        let link = place.messages.last_to(address).unwrap().link().unwrap().to_owned();
        accounts.confirm_email(ConfirmEmail { proof: Proof::from_link(&link).unwrap() }).await.unwrap();
        assert!(sign_in(&accounts, address).await.is_ok());
    }
    assert!(shut_down(&accounts).await);
    // The keys of before the rotation are no longer enough, and they are the same database's.
    let accounts = place.builder().keys(first).spawn().await.unwrap();
    assert!(sign_in(&accounts, "ada@example.com").await.is_ok());
    assert!(shut_down(&accounts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_shows_no_hash_and_logins_outlive_restarts_and_rotations_of_the_keys_that_seal_them() {
    let place = Place::new();
    let mut accounts = place.spawn().await;
    for number in 0..20 {
        register(&accounts, &format!("user.{number}")).await.unwrap();
    }
    for rotation in 0..3 {
        accounts.sweep().await;
        sign_in(&accounts, "user.0").await.unwrap();
        assert!(shut_down(&accounts).await);
        let bytes = fs::read(place.database()).unwrap();
        let shows = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(shows("user.19") && shows("argon2id$v=19"), "the scan finds names, and what hashes cost");
        assert!(!shows("$argon2"), "rotation {rotation}");
        Keyring::rotate(&place.keys()).unwrap();
        accounts = place.spawn().await;
        // Sealed under the key before.
        sign_in(&accounts, "user.19").await.unwrap();
    }
    assert!(shut_down(&accounts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let garbage: [(&str, Vec<u8>); 4] = [
        ("text", b"these are my notes\n".repeat(1_000)),
        ("zeros", vec![0; 100_000]),
        ("short", b"r".to_vec()),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in garbage {
        let place = Place::new();
        fs::write(place.database(), &bytes).unwrap();
        // Without keys beside it, it is taken for a database whose keys are missing.
        let error = refusal(place.builder()).await;
        assert!(matches!(error, BuildError::Keys(KeyError::Missing { .. })), "{name}: {error:?}");
        let error = refusal(place.builder().keys(Keyring::ephemeral().unwrap())).await;
        assert!(matches!(error, BuildError::Spawn(SpawnError::Open(OpenError::NotADatabase))), "{name}: {error:?}");
        assert_eq!(fs::read(place.database()).unwrap(), bytes, "{name}");
        assert_eq!(place.names().len(), 1, "{name}: {:?}", place.names());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_cut_short_is_refused() {
    for part in [2, 3, 10] {
        let place = Place::new();
        place.with_a_user().await;
        let bytes = fs::read(place.database()).unwrap();
        fs::write(place.database(), &bytes[..bytes.len() / part]).unwrap();
        let error = refusal(place.builder()).await;
        assert!(matches!(error, BuildError::Spawn(SpawnError::Open(_))), "{error:?}");
        assert!(!is_already_open(&error), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_cannot_be_is_refused_in_words_and_nothing_is_made() {
    let place = Place::new();
    let missing = place.path("no such folder").join("accounts.redb");
    let folder = place.path("folder");
    fs::create_dir(&folder).unwrap();
    for (path, words) in [(missing, "is not there"), (folder, "is a folder"), (PathBuf::new(), "names no file")] {
        let without_keys = || Accounts::builder().file(&path).config(Config { messages: None, ..config() });
        for builder in [without_keys(), without_keys().keys(Keyring::ephemeral().unwrap())] {
            let error = refusal(builder).await;
            assert!(matches!(&error, BuildError::Configuration(faults) if faults.len() == 1), "{error:?}");
            assert!(error.to_string().contains(words), "{path:?}: {error}");
        }
    }
    assert!(!Path::new(".keys").exists() && !Path::new(".tmp").exists(), "something was made in the working folder");
    assert_eq!(place.names(), BTreeSet::from(["folder".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_a_consistent_prefix_that_opens_with_the_same_keys() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let (answered, stop) = (Answered::default(), Arc::new(AtomicBool::new(false)));
    let load = load(&accounts, &answered, &stop);
    let mut backups = Vec::new();
    for number in 0..4 {
        until("some more answers", async || (answered.now().len() > number * 10).then_some(())).await;
        let (before, target) = (answered.now(), place.path(&format!("backup.{number}.redb")));
        accounts.backup(&target).await.unwrap();
        backups.push((before, target));
    }
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    let signals = log(&accounts).await;
    for (before, target) in backups {
        let keys = Keyring::open_or_create(&place.keys(), false).unwrap();
        let copy = Accounts::builder().file(&target).config(config()).keys(keys).spawn().await.unwrap();
        let copied = log(&copy).await;
        assert_eq!(json(&copied), json(&signals[..copied.len()]));
        assert_holds(&copy, &before).await;
        drained(&copy).await;
        assert!(register(&copy, "late").await.is_ok(), "a backup is a database");
        assert!(shut_down(&copy).await);
        assert_eq!(majordomo::check_integrity(&target).unwrap(), majordomo::Integrity::Sound);
    }
    assert!(majordomo::check_integrity(place.database()).is_err(), "it is open");
    assert_eq!(json(&log(&accounts).await), json(&signals), "the backups were apart");
    assert!(shut_down(&accounts).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_replaces_no_file_and_says_why_not() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let user = register(&accounts, "ada").await.unwrap();
    fs::write(place.path("taken"), "mine").unwrap();
    for target in [place.path("taken"), place.database(), place.keys()] {
        let before = fs::read(&target).unwrap().len();
        let refused = accounts.backup(&target).await.unwrap_err();
        assert!(refused.contains("exists"), "{refused}");
        assert_eq!(fs::read(&target).unwrap().len(), before);
    }
    assert_eq!(fs::read_to_string(place.path("taken")).unwrap(), "mine");
    for target in [place.path("no such folder").join("backup"), place.folder.path().to_owned(), PathBuf::new()] {
        assert!(!accounts.backup(target).await.unwrap_err().is_empty());
    }
    assert_eq!(place.names().len(), 3, "{:?}", place.names());
    assert!(accounts.user(user).unwrap().is_some() && sign_in(&accounts, "ada").await.is_ok());
    assert!(shut_down(&accounts).await);
    assert!(!accounts.backup(place.path("late")).await.unwrap_err().is_empty());
    assert!(!place.path("late").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_drains_the_flows_under_way_and_loses_none() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let accounts = accounts.clone();
        calls.spawn(async move { register(&accounts, &format!("user.{number}")).await });
    }
    until("a flow is under way, or was", async || {
        let under_way = accounts.tree().await.user_manager().is_some_and(|manager| manager.under_way > 0);
        (under_way || !users(&accounts).await.is_empty()).then_some(())
    })
    .await;
    let (first, second) = tokio::join!(shut_down(&accounts), shut_down(&accounts));
    assert!(first && second);
    let mut registered = BTreeSet::new();
    for answer in tokio::time::timeout(PATIENCE, calls.join_all()).await.unwrap() {
        match answer {
            Ok(user) => assert!(registered.insert(user)),
            Err(error) => assert_eq!(error, Error::Stopped),
        }
    }
    let again = place.spawn().await;
    assert_eq!(ids(&users(&again).await), registered, "what was answered, and nothing else");
    assert_lawful(&log(&again).await);
    assert!(shut_down(&again).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_shutdown_calls_are_answered_stopped_and_another_shutdown_is_harmless() {
    let place = Place::new();
    let accounts = place.spawn().await;
    let user = register(&accounts, "ada").await.unwrap();
    assert!(shut_down(&accounts).await);
    assert_eq!(register(&accounts, "grace").await.unwrap_err(), Error::Stopped);
    assert_eq!(sign_in(&accounts, "ada").await.unwrap_err(), Error::Stopped);
    assert_eq!(accounts.tell(majordomo::Delete::new(user)).unwrap_err(), Error::Stopped);
    assert!(accounts.user(user).is_err() && accounts.find_user("ada").is_err());
    let late = accounts.subscribe("late", Filter::all(), Start::Now, Collector::default());
    assert!(tokio::time::timeout(PATIENCE, late).await.unwrap().is_err());
    drained(&accounts).await;
    tokio::time::timeout(PATIENCE, accounts.sweep()).await.unwrap();
    tokio::time::timeout(PATIENCE, accounts.tree()).await.unwrap();
    assert!(shut_down(&accounts).await);

    // The old handle does not disturb who opens the file next, in dropping neither.
    let again = place.spawn().await;
    assert!(shut_down(&accounts).await);
    drop(accounts);
    assert!(again.user(user).unwrap().is_some() && sign_in(&again, "ada").await.is_ok());
    assert!(shut_down(&again).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_bounded_when_hashing_never_ends_and_the_callers_are_answered() {
    let test = TestAccounts::configured(|config| config.shutdown_within = Duration::from_millis(200)).await;
    let ada = register(test.accounts(), "ada").await.unwrap();
    test.hold_hashing(true);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..20 {
        let accounts = test.accounts().clone();
        calls.spawn(async move { register(&accounts, &format!("user.{number}")).await });
    }
    until("the flows are under way", async || {
        (test.tree().await.user_manager().map(|manager| manager.under_way) == Some(20)).then_some(())
    })
    .await;
    assert!(!shut_down(test.accounts()).await, "it cannot have been done in time");
    for answer in tokio::time::timeout(PATIENCE, calls.join_all()).await.expect("every caller is answered") {
        assert!(matches!(answer, Err(Error::Stopped | Error::Interrupted)), "{answer:?}");
    }
    let test = test.restart().await.unwrap();
    assert_eq!(ids(&users(test.accounts()).await), BTreeSet::from([ada]));
    assert_lawful(&test.recorded());
}

/// A live subscriber that keeps the users that it hears of.
struct Ear;

type Heard = Arc<Mutex<BTreeSet<UserId>>>;

#[ractor::actor(message = Live, state = Heard, arguments = Heard)]
impl Ear {
    async fn pre_start(&self, _myself: ActorRef<Live>, heard: Heard) -> Result<Heard, ActorProcessingErr> {
        Ok(heard)
    }

    async fn handle(&self, _myself: ActorRef<Live>, live: Live, heard: &mut Heard) -> Result<(), ActorProcessingErr> {
        heard.lock().unwrap().extend(live.envelope.signal.user());
        Ok(())
    }
}

/// A durable subscriber that keeps the users that it hears of.
struct Listener(Heard);

impl Subscriber for Listener {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        self.0.lock().unwrap().extend(envelope.signal.user());
        Outcome::done()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_systems_in_one_process_do_not_hear_each_other() {
    let places = [Place::new(), Place::new()];
    let mut sides = Vec::new();
    for place in &places {
        let (live, durable) = (Heard::default(), Heard::default());
        let listener = Listener(Arc::clone(&durable));
        let builder = place.builder().subscriber("listener", Filter::all(), Start::Beginning, listener);
        let accounts = builder.spawn().await.unwrap();
        let (ear, _) = Actor::spawn(None, Ear, Arc::clone(&live)).await.unwrap();
        accounts.listen(&ear, Filter::all(), 10_000);
        let user = register(&accounts, "ada").await.unwrap();
        sides.push((accounts, ear, live, durable, BTreeSet::from([user])));
    }
    for number in 0..5 {
        for (accounts, _, _, _, known) in &mut sides {
            known.insert(register(accounts, &format!("user.{number}")).await.unwrap());
        }
    }
    for (accounts, ear, live, durable, known) in &sides {
        drained(accounts).await;
        ear.drain_and_wait(Some(PATIENCE)).await.unwrap();
        assert_eq!(*live.lock().unwrap(), *known);
        assert_eq!(*durable.lock().unwrap(), *known);
        assert_eq!(ids(&users(accounts).await), *known);
    }
    let [one, other] = sides.as_slice() else { panic!("two sides") };
    assert!(one.4.is_disjoint(&other.4));
    assert_ne!(one.0.tree().await.system, other.0.tree().await.system);
    let login = sign_in(&one.0, "ada").await.unwrap();
    assert!(other.0.check_session(&login.token).unwrap().is_none());
    assert!(shut_down(&one.0).await);
    assert!(sign_in(&other.0, "ada").await.is_ok(), "one shutdown does not stop the other");
    assert!(shut_down(&other.0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_in_memory_is_one_call_and_shares_nothing_with_the_next() {
    let cheap = |config: &mut Config| config.hashing.parameters = HashParameters::cheap_for_tests();
    let one = Accounts::builder().in_memory().configure(cheap).spawn().await.unwrap();
    let other = Accounts::builder().in_memory().configure(cheap).spawn().await.unwrap();
    register(&one, "ada").await.unwrap();
    assert!(one.find_user("ada").unwrap().is_some() && other.find_user("ada").unwrap().is_none());
    assert!(shut_down(&one).await && shut_down(&other).await);
}

/// Refuses everything until let loose, then collects.
#[derive(Clone, Default)]
struct Stubborn {
    loose: Arc<AtomicBool>,
    collector: Collector,
}

impl Subscriber for Stubborn {
    async fn handle(&self, envelope: &Envelope, context: &SubscriberContext) -> Outcome {
        if self.loose.load(Ordering::Relaxed) {
            self.collector.handle(envelope, context).await
        } else {
            Outcome::retry("not yet")
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_signals_go_once_everybody_handled_them_and_nobody_loses_their_place() {
    let day = Duration::from_secs(24 * 3_600);
    let (collector, stubborn) = (Collector::default(), Stubborn::default());
    let mut settings = config();
    settings.storage.keep_signals = day;
    let test = TestAccounts::with(settings, |builder| {
        let stubborn = Subscription::new("stubborn", stubborn.clone()).start(Start::Beginning);
        builder
            .subscriber("collector", Filter::all(), Start::Beginning, collector.clone())
            .subscription(stubborn.on_failure(OnFailure::StallAll).retry(RetryPolicy::endless()))
    })
    .await;
    for number in 0..5 {
        register(test.accounts(), &format!("user.{number}")).await.unwrap();
    }
    let old = test.head();
    until("the others have them", async || (collector.seen().len() as u64 == old).then_some(())).await;
    test.sweep().await;
    assert_eq!(test.recorded().len() as u64, old, "nothing is old yet");
    test.advance(2 * day);
    test.sweep().await;
    assert_eq!(test.recorded().len() as u64, old, "one subscriber has handled nothing yet");

    stubborn.loose.store(true, Ordering::Relaxed);
    drained(test.accounts()).await;
    register(test.accounts(), "late").await.unwrap();
    drained(test.accounts()).await;
    let head = test.head();
    let before = json(&test.recorded()[old as usize..]);
    test.sweep().await;
    assert_eq!(json(&test.recorded()), before, "what is young stays as it was");
    assert_eq!((test.recorded()[0].seq, test.head()), (Some(old + 1), head));

    // With the whole log gone, places and cursors go on where they were, after a restart too.
    test.advance(2 * day);
    test.sweep().await;
    assert_eq!((test.recorded().len(), test.head()), (0, head));
    let (again, newcomer) = (collector.clone(), Collector::default());
    let test = test
        .restart_with(|builder| {
            builder.subscriber("collector", Filter::all(), Start::Beginning, again).subscriber(
                "newcomer",
                Filter::all(),
                Start::Beginning,
                newcomer.clone(),
            )
        })
        .await
        .unwrap();
    assert_eq!(test.head(), head);
    register(test.accounts(), "later").await.unwrap();
    drained(test.accounts()).await;
    let latest = test.head();
    assert_eq!(test.recorded()[0].seq, Some(head + 1));
    assert!(collector.seen().into_iter().eq(1..=latest));
    assert!(stubborn.collector.seen().into_iter().eq(1..=head));
    assert!(newcomer.seen().into_iter().eq(head + 1..=latest));
    assert_eq!(users(test.accounts()).await.len(), 7);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_nearly_full_lets_users_in_and_registers_nobody() {
    let place = Place::new();
    let register = |name: &str| Register { username: Some(name.to_owned()), ..Register::new(PASSWORD) };
    let accounts = place.builder().spawn().await.unwrap();
    let ada = accounts.register(register("ada")).await.unwrap().user;
    assert!(!accounts.tree().await.storage().unwrap().low_space);
    assert!(accounts.shutdown().await);
    // No disk has so much.
    let accounts = place.builder().configure(|config| config.storage.reserve_bytes = u64::MAX).spawn().await.unwrap();
    let head = accounts.tree().await.storage().unwrap().log.head;
    assert_eq!(accounts.register(register("eve")).await.unwrap_err(), Error::StorageUnavailable);
    let storage = *accounts.tree().await.storage().unwrap();
    assert_eq!((storage.low_space, storage.available, storage.log.head), (true, true, head), "it cost no signal");
    let login = Authenticate { identifier: "ada".to_owned(), password: Password::new(PASSWORD) };
    assert_eq!(accounts.authenticate(login).await.unwrap().user, ada);
    assert!(accounts.shutdown().await);
}
