//! Commits: what group commit costs beside a bare redb transaction that writes the same rows.
//!
//! `cargo bench --bench commit`. One caller: how long a login's batch takes to be durable, and how long its rows take in a
//! transaction of their own. 256 callers: how many batches of logins and of registrations a second become durable, how many
//! registrations by the system with cheap hashes, and how many of a loop that commits all that waits in one transaction. `USERS=n` is how many users
//! the stores hold (10,000), `ROUNDS=n` how many turns each takes (12; a hundred times as many for one caller).
//!
//! The rows are those that one commit left in a store; keys are renewed from commit to commit, so that each goes where
//! it would go.

#![allow(clippy::print_stdout, reason = "it reports")]

mod batches;
mod rows;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use majordomo_actors::storage::{Batch, CredentialRow, UserRow};
use majordomo_actors::supervisor::System;
use majordomo_model::{Command, UserId};
use measure::pairs::{Ratio, alternate, median};
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, process, setting, world};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use batches::{Alone, Names, commit};
use rows::{Bare, Loop, Rows};

/// How much longer one caller may wait, and how much of the throughput has to be left.
const LATENCY_AIM: f64 = 1.15;
const THROUGHPUT_AIM: f64 = 0.8;
/// How many ask at a time.
const CALLERS: usize = 256;

/// How long the one caller waits before each commit, so that nothing of the one before is left to do.
const PAUSE: Duration = Duration::from_millis(2);

/// How many commits a second callers get who ask again as soon as they are answered, and what one costs of the
/// processors, in microseconds, the callers included.
async fn throughput<F>(turn: Duration, commit: impl Fn() -> F + Clone + Send + 'static) -> Result<(f64, f64), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let (mut callers, begun, used) = (JoinSet::new(), Instant::now(), process::processor_time());
    for _ in 0..CALLERS {
        let commit = commit.clone();
        callers.spawn(async move {
            let mut count = 0_u64;
            while begun.elapsed() < turn {
                commit().await?;
                count += 1;
            }
            Ok::<_, Failure>(count)
        });
    }
    let mut all = 0;
    while let Some(count) = callers.join_next().await {
        all += count??;
    }
    let count = all as f64;
    let spent = (process::processor_time() - used).as_secs_f64() * 1e6;
    Ok((count / begun.elapsed().as_secs_f64(), spent / count))
}

/// The seeded store, from which every store of the benchmark is copied.
struct Seeded {
    path: PathBuf,
    folder: PathBuf,
    users: Vec<(UserId, String)>,
    like: UserRow,
    credential: CredentialRow,
    drawn: AtomicU64,
}

impl Seeded {
    async fn new(folder: &Path, users: u64) -> Result<Self, Failure> {
        let path = folder.join("seeded.redb");
        world::seed(&path, users, &world::without_hashing()).await?;
        let alone = Alone::open(&path).await?;
        let all = alone.storage.reader().users_after(None, usize::MAX)?;
        let first = all.first().ok_or("the store is empty")?.id;
        let like = alone.storage.reader().user_row(first)?.ok_or("the first user is gone")?;
        alone.close().await?;
        let users = all.into_iter().filter_map(|user| Some((user.id, user.username?.canonical().to_owned()))).collect();
        // As long as the real one.
        let phc = format!("$argon2id$v=19$m=64,t=1,p=1${}${}", "s".repeat(22), "t".repeat(43));
        let credential = CredentialRow::new(phc, 1, like.created_at);
        Ok(Self { path, folder: folder.to_owned(), users, like, credential, drawn: AtomicU64::new(0) })
    }

    fn copy(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.folder.join(name);
        std::fs::copy(&self.path, &path)?;
        std::fs::copy(world::key_path(&self.path), world::key_path(&path))?;
        Ok(path)
    }

    /// A login of a user who does not stand beside the last one.
    fn login(&self) -> Result<(Names, &str), Failure> {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let place = usize::try_from(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20)?;
        let (user, username) = self.users.get(place % self.users.len().max(1)).ok_or("there are no users")?;
        Ok((Names::new(*user, number), username))
    }

    fn registration(&self) -> Names {
        Names::new(UserId::new(), self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

async fn register(system: System, name: String) -> Result<(), Failure> {
    system.ask(Command::new(world::registration(name))).await?;
    Ok(())
}

/// What a commit leaves in a store that another was made in before, as it was found when that one was closed.
async fn recorded(seeded: &Seeded, deed: Deed) -> Result<Rows, Failure> {
    let path = seeded.copy("recorded.redb")?;
    let (mut contents, mut names) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let alone = Alone::open(&path).await?;
        let (batch, named) = match deed {
            Deed::Registration => {
                let names = seeded.registration();
                (batches::registration(&names, &seeded.like, &seeded.credential)?, names.of_registration())
            }
            Deed::Login => {
                let (names, username) = seeded.login()?;
                (batches::login(&names, username)?, names.of_login())
            }
        };
        commit(&alone.storage, batch).await?;
        alone.close().await?;
        contents.push(rows::content(&path)?);
        names = named;
    }
    let [before, after]: [_; 2] = contents.try_into().map_err(|_| "two commits")?;
    Rows::between(&before, after, names)
}

/// What a real registration leaves, for comparison.
async fn really_left(seeded: &Seeded) -> Result<Rows, Failure> {
    let path = seeded.copy("real.redb")?;
    let mut contents = Vec::new();
    for _ in 0..2 {
        let system = world::bare(&path, world::without_hashing()).await?;
        register(system.clone(), seeded.registration().username()).await?;
        system.shutdown(Duration::from_secs(60)).await;
        contents.push(rows::content(&path)?);
    }
    let [before, after]: [_; 2] = contents.try_into().map_err(|_| "two registrations")?;
    Rows::between(&before, after, Vec::new())
}

fn add(report: &mut Report, what: &str, (unit, scale): (&'static str, f64), pairs: &[(f64, f64)]) {
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    report.add(Figure::new(what, median(&ours) * scale, unit));
    report.add(Figure::new(format!("{what}: bare"), median(&theirs) * scale, unit));
}

fn add_size(report: &mut Report, what: &str, rows: &Rows) {
    let (count, bytes) = rows.size();
    report.add(Figure::new(format!("{what}: rows"), count as f64, ""));
    report.add(Figure::new(format!("{what}: bytes of keys and values"), bytes as f64, "B"));
}

/// One commit each in turn, since a device is seldom as fast as it was a moment ago.
fn one_caller(runtime: &Runtime, report: &mut Report, seeded: &Seeded, rounds: usize) -> Result<(), Failure> {
    let what = "a login's batch, one caller";
    let rows = runtime.block_on(recorded(seeded, Deed::Login))?;
    add_size(report, what, &rows);
    let alone = runtime.block_on(Alone::open(&seeded.copy("one-caller.redb")?))?;
    let bare = Bare::open(&seeded.copy("one-caller-bare.redb")?, rows)?;
    let ours = || {
        let (names, username) = seeded.login()?;
        let (storage, batch) = (alone.storage.clone(), batches::login(&names, username)?);
        std::thread::sleep(PAUSE);
        // A task, as whoever serves a request is.
        runtime.block_on(runtime.spawn(async move {
            let begun = Instant::now();
            commit(&storage, batch).await?;
            Ok::<_, Failure>(begun.elapsed().as_secs_f64())
        }))?
    };
    let theirs = || {
        let rows = [bare.renewed(&seeded.login()?.0.of_login())];
        std::thread::sleep(PAUSE);
        let begun = Instant::now();
        bare.commit(&rows)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let pairs = alternate(rounds, ours, theirs)?;
    add(report, what, ("ms", 1e3), &pairs);
    report.add(Figure::ratio(format!("{what}: to bare"), Ratio::of(&pairs)).at_most(LATENCY_AIM));
    runtime.block_on(alone.close())
}

/// What is committed.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Login,
    Registration,
}

impl Deed {
    fn batch(self, seeded: &Seeded) -> Result<Batch, Failure> {
        match self {
            Self::Login => {
                let (names, username) = seeded.login()?;
                batches::login(&names, username)
            }
            Self::Registration => batches::registration(&seeded.registration(), &seeded.like, &seeded.credential),
        }
    }

    fn names(self, seeded: &Seeded) -> Result<Vec<Vec<u8>>, Failure> {
        match self {
            Self::Login => Ok(seeded.login()?.0.of_login()),
            Self::Registration => Ok(seeded.registration().of_registration()),
        }
    }
}

/// Runs a load against the bare loop in turns, and reports both.
fn compare<F>(
    (runtime, report): (&Runtime, &mut Report),
    (what, rounds): (&str, usize),
    ours: impl Fn() -> F + Clone + Send + 'static,
    (bare, names): (&Loop, impl Fn() -> Result<Vec<Vec<u8>>, Failure> + Clone + Send + 'static),
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let turn = Duration::from_millis(if is_quick() { 200 } else { 1_500 });
    let (spent, spent_bare) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let bare = bare.clone();
    let theirs = move || {
        let (bare, names) = (bare.clone(), names());
        async move { bare.commit(&names?).await }
    };
    let rate = |spent: &RefCell<Vec<f64>>, (rate, processor): (f64, f64)| {
        spent.borrow_mut().push(processor);
        rate
    };
    let pairs = alternate(
        rounds,
        || runtime.block_on(throughput(turn, ours.clone())).map(|taken| rate(&spent, taken)),
        || runtime.block_on(throughput(turn, theirs.clone())).map(|taken| rate(&spent_bare, taken)),
    )?;
    add(report, &format!("{what} a second"), ("/s", 1.0), &pairs);
    report.add(Figure::new(format!("{what}: processor"), median(&spent.into_inner()), "us"));
    report.add(Figure::new(format!("{what}: processor, bare"), median(&spent_bare.into_inner()), "us"));
    report.add(Figure::ratio(format!("{what} a second, to bare"), Ratio::of(&pairs)).at_least(THROUGHPUT_AIM));
    Ok(())
}

/// Batches of many callers, handed to storage itself.
fn storage_alone(
    (runtime, report): (&Runtime, &mut Report),
    (what, deed): (&str, Deed),
    seeded: &Arc<Seeded>,
    rounds: usize,
) -> Result<(), Failure> {
    let rows = runtime.block_on(recorded(seeded, deed))?;
    add_size(report, what, &rows);
    let alone = runtime.block_on(Alone::open(&seeded.copy(&format!("{deed:?}.redb"))?))?;
    let bare = Bare::open(&seeded.copy(&format!("{deed:?}-bare.redb"))?, rows)?;
    let bare = runtime.block_on(async { Loop::start(bare) });
    let (storage, store) = (alone.storage.clone(), Arc::clone(seeded));
    let ours = move || {
        let (storage, batch) = (storage.clone(), deed.batch(&store));
        async move { commit(&storage, batch?).await }
    };
    let store = Arc::clone(seeded);
    compare((runtime, report), (what, rounds), ours, (&bare, move || deed.names(&store)))?;
    runtime.block_on(alone.close())
}

/// Registrations of many callers, through the system.
fn whole_system(runtime: &Runtime, report: &mut Report, seeded: &Arc<Seeded>, rounds: usize) -> Result<(), Failure> {
    let what = "registrations, cheap hashes included";
    add_size(report, what, &runtime.block_on(really_left(seeded))?);
    let rows = runtime.block_on(recorded(seeded, Deed::Registration))?;
    let whole = runtime.block_on(world::bare(&seeded.copy("system.redb")?, world::without_hashing()))?;
    let bare = Bare::open(&seeded.copy("system-bare.redb")?, rows)?;
    let bare = runtime.block_on(async { Loop::start(bare) });
    let (running, store) = (whole.clone(), Arc::clone(seeded));
    let ours = move || register(running.clone(), store.registration().username());
    let store = Arc::clone(seeded);
    compare((runtime, report), (what, rounds), ours, (&bare, move || Deed::Registration.names(&store)))?;
    runtime.block_on(whole.shutdown(Duration::from_secs(60)));
    Ok(())
}

fn main() -> Result<(), Failure> {
    let (runtime, folder, mut report) = (Runtime::new()?, tempfile::tempdir()?, Report::new("commit"));
    let rounds = usize::try_from(setting("ROUNDS", 12, 1)?)?;
    let users = setting("USERS", 10_000, 200)?;
    let seeded = Arc::new(runtime.block_on(Seeded::new(folder.path(), users))?);
    one_caller(&runtime, &mut report, &seeded, rounds * 100)?;
    storage_alone((&runtime, &mut report), ("logins' batches, 256 callers", Deed::Login), &seeded, rounds)?;
    let registrations = ("registrations' batches, 256 callers", Deed::Registration);
    storage_alone((&runtime, &mut report), registrations, &seeded, rounds)?;
    whole_system(&runtime, &mut report, &seeded, rounds)?;
    report.finish()
}
