//! Overload: what logins come to at once, three times and nine times as many as the hash permits, open-loop.
//!
//! `cargo bench --bench overload`. `SECONDS=n` is how long each load is offered (10), `ROUNDS=n` how often (4). Latency is
//! taken from the instant at which a login was meant to begin. The hasher alone, over the same threads and the same
//! kernel, has its turn between the loads; its rate is what is called capacity.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use majordomo::{Accounts, Config, Error};
use majordomo_actors::hasher::Hasher;
use measure::arrivals::{Arrival, Draws, closed_loop, open_loop};
use measure::pairs::{Ratio, median, percentile, sorted};
use measure::plot::{Axes, draw};
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, process, report, setting, world};

/// How many users there are.
const USERS: u64 = 1_000;
/// The loads, in parts of the capacity.
const LOADS: [f64; 5] = [0.5, 0.8, 1.0, 3.0, 9.0];

/// How many callers there are for each core where each waits for an answer before it asks again: as many as keep the
/// cores busy, and as many as make a line.
const CALLERS: [usize; 2] = [2, 32];

/// What a load came to.
struct Served {
    /// Logins that succeeded, a second.
    goodput: f64,
    /// The time from the meant beginning to the answer of those that succeeded, in milliseconds, sorted.
    took: Vec<f64>,
    /// How many durable transactions there were for each.
    transactions: f64,
}

/// How many hashes a second the hasher computes that is asked for more all the time.
async fn capacity(hasher: &Hasher, phc: &str, span: Duration) -> Result<f64, Failure> {
    let (hasher, phc) = (hasher.clone(), phc.to_owned());
    let verify = move |_, _| {
        let (hasher, phc) = (hasher.clone(), phc.clone());
        async move {
            let password = world::PASSWORD.as_bytes().to_vec().into();
            Ok(hasher.verify(password, Some(phc), [0; 32], None).await.map(drop)?)
        }
    };
    closed_loop(cores()? * 2, span, verify).await
}

/// How many logins a second there are of so many callers that each begin the next when one is answered: a load of just 1.
/// Who finds the line full, which on a slow machine is shorter than that, asks again.
async fn logins(accounts: &Accounts, callers: usize, span: Duration) -> Result<f64, Failure> {
    let accounts = accounts.clone();
    let log_in = move |caller: usize, turn| {
        let (accounts, user) = (accounts.clone(), Draws::new(caller as u64 + turn * 64).below(USERS));
        async move {
            loop {
                match accounts.authenticate(world::login(user)).await {
                    Err(Error::Overloaded) => tokio::time::sleep(Duration::from_millis(1)).await,
                    answer => return Ok(answer.map(drop)?),
                }
            }
        }
    };
    closed_loop(callers, span, log_in).await
}

fn cores() -> Result<usize, Failure> {
    Ok(std::thread::available_parallelism()?.get())
}

/// How late a timer of a millisecond is while logins are offered, in milliseconds, sorted. Its thousand wake-ups a second
/// are a load too, so goodput is not taken meanwhile.
async fn timer(accounts: &Accounts, rate: f64, span: Duration, seed: u64) -> Result<Vec<f64>, Failure> {
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let watched = tokio::spawn(async move {
        let mut late = Vec::new();
        while !ended.load(Ordering::Relaxed) {
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            late.push(begun.elapsed().as_secs_f64() * 1e3 - 1.0);
        }
        late
    });
    offer(accounts, rate, span, seed).await?;
    over.store(true, Ordering::Relaxed);
    Ok(sorted(watched.await?))
}

async fn transactions(accounts: &Accounts) -> Result<u64, Failure> {
    Ok(accounts.tree().await.storage().ok_or("there is no storage")?.transactions)
}

async fn offer(accounts: &Accounts, rate: f64, span: Duration, seed: u64) -> Result<Served, Failure> {
    let (before, begun) = (transactions(accounts).await?, Instant::now());
    let arrivals = open_loop(rate, span, seed, |number| {
        let (accounts, user) = (accounts.clone(), Draws::new(number).below(USERS));
        async move { accounts.authenticate(world::login(user)).await.map(drop) }
    });
    let arrivals = arrivals.await;
    let elapsed = begun.elapsed().as_secs_f64();
    let transactions = transactions(accounts).await? - before;
    let is_unexpected = |arrival: &&Arrival<_>| !matches!(arrival.outcome, Ok(()) | Err(Error::Overloaded));
    if let Some(arrival) = arrivals.iter().find(is_unexpected) {
        return Err(format!("a login came to {:?}", arrival.outcome).into());
    }
    let took: Vec<_> =
        arrivals.iter().filter(|arrival| arrival.outcome.is_ok()).map(|arrival| arrival.seconds * 1e3).collect();
    let served = took.len() as f64;
    Ok(Served { goodput: served / elapsed, took: sorted(took), transactions: transactions as f64 / served.max(1.0) })
}

/// What the loads of one kind came to.
#[derive(Default)]
struct Row {
    pairs: Vec<(f64, f64)>,
    took: Vec<f64>,
    transactions: Vec<f64>,
    timer: Vec<f64>,
}

/// The pairs of each number of callers, and what each load came to.
type Measured = (Vec<Vec<(f64, f64)>>, Vec<Row>);

async fn measured(accounts: &Accounts, hasher: &Hasher, phc: &str) -> Result<Measured, Failure> {
    let span = Duration::from_millis(setting("SECONDS", 10, 0)?.saturating_mul(1_000).max(500));
    let (mut closed, mut rows) = (vec![Vec::new(); CALLERS.len()], LOADS.map(|_| Row::default()));
    for round in 0..setting("ROUNDS", 4, 1)? {
        for (callers, pairs) in CALLERS.into_iter().zip(&mut closed) {
            let before = capacity(hasher, phc, span / 2).await?;
            let goodput = logins(accounts, callers * cores()?, span).await?;
            pairs.push((goodput, before.midpoint(capacity(hasher, phc, span / 2).await?)));
        }
        for (place, row) in rows.iter_mut().enumerate() {
            let Some(load) = LOADS.get(place) else { continue };
            let before = capacity(hasher, phc, span / 2).await?;
            let seed = round * 100 + place as u64;
            let served = offer(accounts, before * load, span, seed).await?;
            let after = capacity(hasher, phc, span / 2).await?;
            row.pairs.push((served.goodput, before.midpoint(after)));
            row.took.extend(served.took);
            row.transactions.push(served.transactions);
            row.timer.extend(timer(accounts, before * load, span / 4, seed).await?);
        }
    }
    Ok((closed, rows.into_iter().collect()))
}

fn tell(report: &mut Report, (closed, rows): Measured, patience: Duration) -> Result<(), Failure> {
    let all: Vec<_> = rows.iter().flat_map(|row| row.pairs.iter().map(|(_, capacity)| *capacity)).collect();
    report.add(Figure::new("capacity: the hasher alone, logins a second", median(&all), "/s"));
    for (callers, pairs) in CALLERS.into_iter().zip(&closed) {
        let name = format!("closed loop, {callers} callers a core: goodput / capacity");
        report.add(Figure::ratio(name, Ratio::of(pairs)).at_least(0.99));
    }
    let (mut goodputs, mut middles, mut slowest) = (Vec::new(), Vec::new(), Vec::new());
    for (load, row) in LOADS.into_iter().zip(rows) {
        let (goodput, took, timer) = (Ratio::of(&row.pairs), sorted(row.took), sorted(row.timer));
        let name = |what: &str| format!("{load} x capacity: {what}");
        let figure = Figure::ratio(name("goodput / capacity"), goodput);
        report.add(if load > 1.0 { figure.at_least(0.95) } else { figure });
        let (p50, p99) = (percentile(&took, 0.5), percentile(&took, 0.99));
        report.add(Figure::new(name("p50 of the served"), p50, "ms"));
        report.add(Figure::new(name("p99 of the served"), p99, "ms").at_most(patience.as_secs_f64() * 1e3));
        report.add(Figure::new(name("durable transactions a login"), median(&row.transactions), ""));
        report.add(Figure::new(name("lateness of a 1 ms timer, p99"), percentile(&timer, 0.99), "ms").at_most(5.0));
        goodputs.push((load, goodput.value));
        middles.push((load, p50));
        slowest.push((load, p99));
    }
    let folder = report::folder()?;
    let axes =
        Axes { title: "Logins served", across: "offered / capacity", up: "served / capacity", logarithmic: false };
    draw(&folder.join("overload-goodput.svg"), axes, &[("goodput", goodputs)])?;
    let axes = Axes { title: "Time to the answer", up: "ms from the intended start", ..axes };
    draw(&folder.join("overload-latency.svg"), axes, &[("p50", middles), ("p99", slowest)])
}

async fn run() -> Result<(), Failure> {
    let mut report = Report::new("overload");
    let config = Config::default();
    let folder = tempfile::tempdir_in(report::folder()?)?;
    let path = folder.path().join("accounts.redb");
    world::seed(&path, USERS, &config).await?;
    let accounts = world::open(&path, config.clone()).await?;
    let hasher = Hasher::new(&config.hashing)?;
    hasher.start(None).await?;
    let phc = hasher.hash(world::PASSWORD.as_bytes().to_vec().into(), None).await?.into_string();
    process::reset_peak()?;
    let measured = measured(&accounts, &hasher, &phc).await?;
    tell(&mut report, measured, config.hashing.patience)?;
    let (status, cache) = (process::status()?, process::mebibytes(config.storage.engine.cache_bytes as u64));
    let peak = process::mebibytes(status.peak.saturating_sub(hasher.observe().memory_bytes));
    let what = format!("memory at most, of that {cache:.0} MiB page cache, without the second hasher");
    report.add(Figure::new(what, peak, "MiB").at_most(64.0 + cache));
    report.add(Figure::new("threads", status.threads as f64, ""));
    if !accounts.shutdown().await {
        return Err("the system did not shut down".into());
    }
    report.finish()
}

fn main() -> Result<(), Failure> {
    if is_quick() {
        println!("only to show that it works");
    }
    tokio::runtime::Runtime::new()?.block_on(run())
}
