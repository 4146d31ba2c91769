//! Sessions: what checking one costs, known and unknown to memory, by the number of users.
//!
//! `cargo bench --bench session` takes 10,000 and 100,000 users; `USERS=1000000` (or `10000000`, some 12 minutes and 12 GiB
//! of disk for the first time) takes those. Every user has a session. Stores are kept between runs.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::hint::black_box;
use std::time::Instant;

use majordomo::{Accounts, SessionToken};
use measure::arrivals::Draws;
use measure::pairs::{percentile, sorted};
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, setting, world};

/// How many of the users are checked: more than are kept in memory.
const KEPT: u64 = 16_384;

/// The time of each of many checks of sessions, in microseconds, sorted.
fn checks(accounts: &Accounts, tokens: &[SessionToken], times: usize, draws: &mut Draws) -> Result<Vec<f64>, Failure> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let place = usize::try_from(draws.below(tokens.len() as u64))?;
        let Some(token) = tokens.get(place) else { continue };
        let begun = Instant::now();
        let found = black_box(accounts.check_session(token)?);
        took.push(begun.elapsed().as_secs_f64() * 1e6);
        if found.is_none() {
            return Err("a session is lost".into());
        }
    }
    Ok(sorted(took))
}

async fn at(users: u64, report: &mut Report) -> Result<(), Failure> {
    let name = |what: &str| format!("{what}, {users} users");
    let path = world::kept(users, &world::without_hashing()).await?;
    let mut config = world::without_hashing();
    config.storage.engine.cache_bytes = usize::try_from(setting("CACHE", 256 << 20, 64 << 20)?)?;
    config.storage.sessions_kept = usize::try_from(KEPT)?;
    let accounts = world::open(&path, config).await?;
    let mut draws = Draws::new(users);
    let logins = (KEPT * 4).min(users);
    let strangers = (0..logins).map(|_| draws.below(users)).collect::<Vec<_>>();
    let tokens = world::sessions(&accounts, strangers.into_iter(), 256).await?;
    accounts.drain().await;
    let times = if is_quick() { 1_000 } else { 100_000 };
    // As many as surely find room; who is kept is not chosen by age alone.
    let few = tokens.get(..tokens.len().min(usize::try_from(KEPT / 2)?)).unwrap_or_default();
    for _ in 0..2 {
        checks(&accounts, few, times, &mut draws)?;
    }
    let known = checks(&accounts, few, times, &mut draws)?;
    report
        .add(Figure::new(name("check of a session known to memory, p50"), percentile(&known, 0.5), "us").at_most(2.0));
    report.add(Figure::new(name("check of a session known to memory, p99"), percentile(&known, 0.99), "us"));
    let looked_up = |tree: &majordomo::Tree| tree.storage().map_or(0, |storage| storage.sessions_looked_up);
    let shutdown = accounts.shutdown().await;
    if !shutdown {
        return Err("the system did not shut down".into());
    }
    // Nothing is kept, so that each is read from the store.
    let mut config = world::without_hashing();
    config.storage.engine.cache_bytes = usize::try_from(setting("CACHE", 256 << 20, 64 << 20)?)?;
    config.storage.sessions_kept = 0;
    let accounts = world::open(&path, config).await?;
    let before = looked_up(&accounts.tree().await);
    let read = checks(&accounts, &tokens, times, &mut draws)?;
    if looked_up(&accounts.tree().await) - before != times as u64 {
        return Err("memory answered".into());
    }
    report.add(
        Figure::new(name("check of a session read from the store, p50"), percentile(&read, 0.5), "us").at_most(20.0),
    );
    report.add(Figure::new(name("check of a session read from the store, p99"), percentile(&read, 0.99), "us"));
    if accounts.shutdown().await { Ok(()) } else { Err("the system did not shut down".into()) }
}

async fn run() -> Result<(), Failure> {
    let mut report = Report::new("session");
    let all = match std::env::var("USERS") {
        Ok(users) => vec![users.parse()?],
        Err(_) if is_quick() => vec![1_000],
        Err(_) => vec![10_000, 100_000],
    };
    for users in all {
        at(users, &mut report).await?;
    }
    report.finish()
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(run())
}
