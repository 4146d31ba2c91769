//! Signals: how fast subscribers are fed, what catching up takes, and what a signal costs the flow that emits it.
//!
//! `cargo bench --bench signals`. `LOG=n` is how many signals the log holds (200,000; the long run is `LOG=1000000`),
//! `CACHE=n` the page cache in MiB (32), `LOGINS=n` how many are committed in a turn where their cost is measured (2,000),
//! `CALLERS=n` of them at a time (64),
//! `AUDITED=n` how many signals the auditor is fed (30,000), `ROUNDS=n` how often turns are taken (5). `ONLY=catch_up`, `flow` or `audit` leaves the others
//! out.
//!
//! It runs storage and outbox without the rest of a system: nobody else is fed, and nothing but signals is committed. The
//! log is filled by another process, so that what catching up adds to this one's memory is seen.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use majordomo::ractor::ActorRef;
use majordomo::{
    Clock, Envelope, Keyring, OnFailure, Outcome, Start, StorageSettings, Subscriber, SubscriberContext, Subscription,
    SubscriptionSettings,
};
use majordomo_actors::auditor::{AuditSigner, Auditor};
use majordomo_actors::outbox::{Doorbell, Outbox};
use majordomo_actors::stamp::{SealKey, Stamp};
use majordomo_actors::storage::{Batch, Committed, Location, Storage, UserRow, Verdict};
use majordomo_actors::supervision::{Limits, Plan, SupervisorMessage, spawn_supervisor};
use majordomo_actors::token::Tokens;
use majordomo_model::{
    Actor, Context, FlowId, IdentifierKind, Lane, LoginMethod, Personal, SessionId, Signal, SignalId, SystemId,
};
use measure::pairs::{Ratio, median};
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, process, setting, world};
use tokio::task::JoinSet;

/// Who signs in.
const USERS: u64 = 1_000;
/// The signals of a login.
const SIGNALS: u64 = 3;
/// How many logins are committed in one batch where only the log matters.
const FILLED: u64 = 500;
/// What a signal may cost a flow for each subscriber, in microseconds.
const AIM: f64 = 0.3;
/// Set for the process that fills the log.
const FILL: &str = "SIGNALS_FILL";

/// Storage and outbox of one store.
struct Room {
    storage: Storage,
    outbox: Outbox,
    users: Vec<UserRow>,
    keys: Keyring,
    /// How long the bell was rung for, in nanoseconds.
    rung: Arc<AtomicU64>,
    root: ActorRef<SupervisorMessage>,
    ended: tokio::task::JoinHandle<()>,
}

/// Subscriptions, and who watches over them.
struct Fed {
    names: Vec<String>,
    root: ActorRef<SupervisorMessage>,
    ended: tokio::task::JoinHandle<()>,
}

impl Room {
    async fn open(path: &Path, cache_bytes: usize) -> Result<Self, Failure> {
        let keys = Keyring::open_or_create(&world::key_path(path), false)?;
        let mut settings = StorageSettings::default();
        settings.engine.cache_bytes = cache_bytes;
        let (bell, rung) = (Doorbell::new(SystemId::new()), Arc::new(AtomicU64::new(0)));
        let (ringing, spent) = (bell.clone(), Arc::clone(&rung));
        let hook = Arc::new(move |_: &Committed<'_>| {
            let begun = Instant::now();
            ringing.ring();
            spent.fetch_add(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        });
        let storage = Storage::open(Location::File(path.to_owned()), settings, &keys, Clock::system(), hook)?;
        let (root, ended) = spawn_supervisor(Plan::new(Limits::default()), None).await?;
        storage.start(root.get_cell()).await?;
        let tokens = Tokens::new(keys.clone());
        let outbox = Outbox::new(storage.clone(), tokens, Clock::system(), bell, Duration::from_secs(600));
        let mut users = Vec::new();
        for user in storage.reader().users_after(None, usize::try_from(USERS)?)? {
            users.extend(storage.reader().user_row(user.id)?);
        }
        Ok(Self { storage, outbox, users, keys, rung, root, ended })
    }

    async fn close(self) -> Result<(), Failure> {
        self.storage.flush().await;
        self.storage.release();
        self.root.stop(None);
        self.ended.await?;
        self.storage.close();
        Ok(())
    }

    fn head(&self) -> u64 {
        self.storage.observe().log.head
    }

    async fn attach(&self, subscriptions: Vec<Subscription>) -> Result<Fed, Failure> {
        let (mut plan, mut names) = (Plan::new(Limits::default()), Vec::new());
        for subscription in subscriptions {
            names.push(subscription.name().to_owned());
            plan = plan.child(self.outbox.register(subscription)?);
        }
        let (root, ended) = spawn_supervisor(plan, None).await?;
        Ok(Fed { names, root, ended })
    }

    async fn detach(&self, fed: Fed) -> Result<(), Failure> {
        fed.root.stop(None);
        fed.ended.await?;
        for name in &fed.names {
            self.outbox.withdraw(name);
        }
        Ok(())
    }

    /// Waits until everything is handled and progress is durable, and sees that it is.
    async fn settled(&self, fed: &Fed) -> Result<(), Failure> {
        self.outbox.drained(self.head()).await?;
        self.storage.flush().await;
        for name in &fed.names {
            let row = self.storage.reader().cursor(name)?.ok_or("there is no cursor")?;
            if row.taken < self.head() || !row.open.is_empty() {
                return Err(format!("{name} is at {} of {}", row.taken, self.head()).into());
            }
        }
        Ok(())
    }

    /// The signals of a login, as the user manager stamps them; of every other one the request behind it is known.
    fn login(&self, number: u64) -> Vec<Envelope> {
        let Some(user) = self.users.get(usize::try_from(number).unwrap_or(0) % self.users.len().max(1)) else {
            return Vec::new();
        };
        let context = if number.is_multiple_of(2) {
            Context::new()
        } else {
            let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
            Context::new().request_id(&format!("r-{number}")).client_ip([192, 0, 2, 7].into()).user_agent(agent)
        };
        let (flow, id) = (FlowId::new(), user.id);
        let stamp = Stamp { flow, cause: None, lane: Lane::User(id), actor: Actor::Anonymous, context };
        let identifier = Personal::known("u***", world::username(number));
        let signals: [Signal; SIGNALS as usize] = [
            Signal::UserAuthenticationStarted { identifier_kind: IdentifierKind::Username, identifier },
            Signal::UserPasswordChecked { user: id, success: true, needs_rehash: false },
            Signal::UserAuthenticated {
                user: id,
                method: LoginMethod::Password,
                session: Some(SessionId::new()),
                failures: None,
            },
        ];
        let key = Some(SealKey(user.seal_key.0));
        let now = Clock::system().now();
        signals.into_iter().map(|signal| stamp.envelope(SignalId::new(), now, signal, key)).collect()
    }
}

async fn commit(storage: Storage, signals: Vec<Envelope>) -> Result<(), Failure> {
    let (outcome, checks, writes) = (None, Vec::new(), Vec::new());
    match storage.commit(Batch { flow: FlowId::new(), outcome, checks, writes, signals }).await {
        Ok(Verdict::Committed(_)) => Ok(()),
        other => Err(format!("signals were not committed: {other:?}").into()),
    }
}

/// Fills the log of a store that is there already.
async fn fill(path: &Path, log: u64) -> Result<(), Failure> {
    let room = Room::open(path, 64 << 20).await?;
    let (mut committing, mut number) = (JoinSet::new(), 0);
    while number < log / SIGNALS {
        let some = FILLED.min(log / SIGNALS - number);
        let signals = (number..number + some).flat_map(|number| room.login(number)).collect();
        number += some;
        committing.spawn(commit(room.storage.clone(), signals));
        if committing.len() >= 4
            && let Some(committed) = committing.join_next().await
        {
            committed??;
        }
    }
    while let Some(committed) = committing.join_next().await {
        committed??;
    }
    room.close().await
}

/// Does nothing with what it is handed.
#[derive(Clone, Default)]
struct Idle;

impl Subscriber for Idle {
    async fn handle(&self, _envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        Outcome::done()
    }
}

/// Reads the log as subscribers see it, and nothing else; signals a second.
fn scan(room: &Room) -> Result<f64, Failure> {
    let (begun, mut last) = (Instant::now(), 0);
    loop {
        let page = room.storage.reader().signals_after(last, 256)?;
        let Some(envelope) = page.last() else { break };
        last = envelope.seq.unwrap_or(u64::MAX);
    }
    Ok(last as f64 / begun.elapsed().as_secs_f64())
}

/// Feeds the whole log to one subscriber; signals a second.
async fn feed(room: &Room, name: String, batch: usize) -> Result<f64, Failure> {
    let begun = Instant::now();
    let fed = room.attach(vec![Subscription::new(name, Idle).start(Start::Beginning).batch(batch)]).await?;
    room.settled(&fed).await?;
    let took = begun.elapsed();
    room.detach(fed).await?;
    Ok(room.head() as f64 / took.as_secs_f64())
}

async fn catch_up(report: &mut Report, path: &Path, cache: usize, rounds: u64) -> Result<(), Failure> {
    process::reset_peak()?;
    let before = process::status()?.resident;
    let room = Room::open(path, cache).await?;
    let (begun, used) = (Instant::now(), process::processor_time());
    let first = feed(&room, "first".to_owned(), 1).await?;
    let head = room.head() as f64;
    let used = (process::processor_time() - used).as_secs_f64() * 1e6 / head;
    let grown = process::status()?.peak.saturating_sub(before);
    println!("the log holds {head} signals in {} bytes", room.storage.observe().log.bytes);
    report.add(Figure::new("catching up from the beginning", begun.elapsed().as_secs_f64(), "s").at_most(5e-6 * head));
    let what = format!("memory that it adds, of which {} is the page cache", process::mebibytes(cache as u64));
    report.add(Figure::new(what, process::mebibytes(grown), "MiB").at_most(64.0));
    report.add(Figure::new("delivery, one at a time, cold", first, "1/s").at_least(300_000.0));
    report.add(Figure::new("delivery, one at a time, cold: processor", used, "us").at_most(1e6 / 300_000.0));
    let (mut single, mut batched, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let scanned = scan(&room)?;
        single.push(feed(&room, format!("single-{round}"), 1).await?);
        batched.push(feed(&room, format!("batched-{round}"), 64).await?);
        pairs.push((single.last().copied().unwrap_or(f64::NAN), scanned));
    }
    let scanned: Vec<f64> = pairs.iter().map(|(_, scanned)| *scanned).collect();
    report.add(Figure::new("reading the log, and nothing else", median(&scanned), "1/s"));
    report.add(Figure::new("delivery, one at a time", median(&single), "1/s").at_least(300_000.0));
    report.add(Figure::new("delivery, 64 at a time", median(&batched), "1/s").at_least(300_000.0));
    report.add(Figure::ratio("delivery, one at a time, to reading the log", Ratio::of(&pairs)));
    room.close().await
}

/// What a turn of logins cost, in microseconds a signal.
#[derive(Clone, Copy)]
struct Cost {
    /// Until the last was answered.
    wall: f64,
    /// Of it, ringing.
    ringing: f64,
    /// Of processors, until all subscribers had handled everything.
    processor: f64,
}

async fn turn(room: &Arc<Room>, subscribers: usize, logins: u64, name: &str) -> Result<Cost, Failure> {
    let subscription = |number| Subscription::new(format!("{name}-{number}"), Idle);
    let fed = room.attach((0..subscribers).map(subscription).collect()).await?;
    room.settled(&fed).await?;
    let (rung, used, begun) = (room.rung.load(Ordering::Relaxed), process::processor_time(), Instant::now());
    let (mut callers, count) = (JoinSet::new(), setting("CALLERS", 64, 64)?);
    for caller in 0..count {
        let room = Arc::clone(room);
        callers.spawn(async move {
            for number in (caller..logins).step_by(usize::try_from(count)?) {
                commit(room.storage.clone(), room.login(number)).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    let wall = begun.elapsed();
    room.settled(&fed).await?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (logins * SIGNALS) as f64;
    let ringing = Duration::from_nanos(room.rung.load(Ordering::Relaxed) - rung);
    let cost = Cost { wall: each(wall), ringing: each(ringing), processor: each(process::processor_time() - used) };
    room.detach(fed).await?;
    Ok(cost)
}

async fn flow(report: &mut Report, path: &Path, cache: usize, rounds: u64) -> Result<(), Failure> {
    const ARMS: [usize; 3] = [0, 3, 100];
    let room = Arc::new(Room::open(path, cache).await?);
    let logins = setting("LOGINS", 2_000, 128)?;
    let mut costs: [Vec<Cost>; 3] = Default::default();
    for round in 0..rounds {
        for place in 0..ARMS.len() {
            let arm = if round.is_multiple_of(2) { place } else { ARMS.len() - 1 - place };
            let (Some(subscribers), Some(costs)) = (ARMS.get(arm), costs.get_mut(arm)) else { continue };
            costs.push(turn(&room, *subscribers, logins, &format!("flow-{round}-{arm}")).await?);
        }
    }
    let [alone, ..] = &costs;
    let of = |costs: &[Cost], what: fn(&Cost) -> f64| median(&costs.iter().map(what).collect::<Vec<_>>());
    for (subscribers, arm) in ARMS.iter().zip(&costs) {
        let each = |value: f64| value / (*subscribers).max(1) as f64;
        let (wall, ringing) = (of(arm, |cost| cost.wall), of(arm, |cost| cost.ringing));
        report.add(Figure::new(format!("{subscribers} subscribers: a signal takes"), wall, "us"));
        report.add(Figure::new(format!("{subscribers} subscribers: of it, ringing"), ringing, "us"));
        let processor = of(arm, |cost| cost.processor);
        report.add(Figure::new(format!("{subscribers} subscribers: processor until handled"), processor, "us"));
        if *subscribers > 0 {
            let path = Figure::new(
                format!("{subscribers} subscribers: each adds to the path by ringing"),
                each(ringing),
                "us",
            );
            report.add(path.at_most(AIM));
            let added = each(processor - of(alone, |cost| cost.processor));
            report.add(Figure::new(format!("{subscribers} subscribers: each adds of processors"), added, "us"));
            let pairs: Vec<_> = arm.iter().zip(alone).map(|(with, without)| (with.wall, without.wall)).collect();
            report.add(Figure::ratio(format!("{subscribers} subscribers: time to without"), Ratio::of(&pairs)));
        }
    }
    Arc::into_inner(room).ok_or("the room is still in use")?.close().await
}

/// As the system has its own.
fn auditing(keys: &Keyring, from: u64) -> Subscription {
    let ((id, seed), _) = keys.audit_seeds();
    let auditor = Auditor::new(Arc::new(AuditSigner::new(*id.as_bytes(), seed.expose())));
    let (on_failure, keep_projection) = (OnFailure::StallAll, true);
    let settings = SubscriptionSettings { on_failure, batch: 64, keep_projection, ..SubscriptionSettings::default() };
    Subscription::new("audited", auditor).start(Start::Seq(from)).settings(settings)
}

async fn audit(report: &mut Report, path: &Path, cache: usize) -> Result<(), Failure> {
    let room = Room::open(path, cache).await?;
    let head = room.head();
    let signals = setting("AUDITED", 30_000, 1_000)?.min(head);
    let transactions = room.storage.observe().transactions;
    let (begun, used) = (Instant::now(), process::processor_time());
    let fed = room.attach(vec![auditing(&room.keys, head - signals + 1)]).await?;
    room.settled(&fed).await?;
    let (took, used) = (begun.elapsed().as_secs_f64(), process::processor_time() - used);
    report.add(Figure::new("the auditor: signals, catching up", signals as f64 / took, "1/s"));
    report.add(Figure::new("the auditor: processor a signal", used.as_secs_f64() * 1e6 / signals as f64, "us"));
    println!("in {} transactions", room.storage.observe().transactions - transactions);
    room.detach(fed).await?;
    room.close().await
}

async fn run() -> Result<(), Failure> {
    let mut report = Report::new("signals");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("accounts.redb");
    let log = setting("LOG", 200_000, 3_000)?;
    filled(&path, log)?;
    let cache = usize::try_from(setting("CACHE", 32, 32)?)? << 20;
    let rounds = setting("ROUNDS", 5, 1)?;
    let only = std::env::var("ONLY").ok();
    let is_on = |name: &str| only.as_deref().is_none_or(|only| only == name);
    if is_on("catch_up") {
        catch_up(&mut report, &path, cache, rounds).await?;
    }
    if is_on("flow") {
        flow(&mut report, &path, cache, rounds).await?;
    }
    if is_on("audit") {
        audit(&mut report, &path, cache).await?;
    }
    report.finish()
}

/// Has another process make the store and fill its log.
fn filled(path: &Path, log: u64) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut filler = std::process::Command::new(std::env::current_exe()?);
    if !filler.env(FILL, path).env("LOG", log.to_string()).status()?.success() {
        return Err("the log was not filled".into());
    }
    println!("the log was filled in {:.1?}", begun.elapsed());
    Ok(())
}

async fn filler(path: PathBuf) -> Result<(), Failure> {
    let users = if is_quick() { 50 } else { USERS };
    world::seed(&path, users, &world::without_hashing()).await?;
    fill(&path, setting("LOG", 0, 0)?).await
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    match std::env::var_os(FILL) {
        Some(path) => runtime.block_on(filler(path.into())),
        None => runtime.block_on(run()),
    }
}
