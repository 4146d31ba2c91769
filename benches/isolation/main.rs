//! Isolation: what subscribers of every kind do to the latency of a login, as ratios within one run.
//!
//! `cargo bench --bench isolation`. `LOG=n` is how many signals the log holds for the subscriber that catches up
//! (100,000), `ROUNDS=n` how often every arm has its turn (15), `EACH=1` gives each hostile subscriber a turn of its own,
//! `QUICK=1` only shows that it works, as does
//! `QUICK=1 cargo test --bench isolation` without a build of its own.
//!
//! The arms take turns on one system and one file, so that what the machine does beside hits all alike; the first of
//! them stands there twice, and how far it differs from itself is what a ratio can tell at best.

#![allow(clippy::print_stdout, clippy::panic, reason = "it reports, and one of its subscribers panics")]

mod guests;

use std::fmt::Write;
use std::time::{Duration, Instant};

use majordomo::{Accounts, Authenticate, Change, Password, Register, Update, UserId};
use measure::arrivals::closed_loop;
use measure::pairs::median;
use measure::{Failure, is_quick, setting};
use tokio::task::JoinSet;

use guests::{Arm, Deed, FLOOD, HOSTILE, Puppet};

const PASSWORD: &str = "nine lanterns over a quiet harbour";
/// Who signs in, each at a pace of their own.
const CALLERS: usize = 4;
/// How much of what the hashing threads can do is asked of them.
const LOAD: f64 = 0.35;
/// Who changes names as fast as they are answered, where commits are counted.
const WRITERS: usize = 16;
/// How much longer the slowest login in a hundred may take.
const AIM: f64 = 1.05;

struct Settings {
    log: u64,
    rounds: usize,
    turn: Duration,
    each: bool,
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let quick = is_quick();
        Ok(Self {
            log: setting("LOG", 100_000, 2_000)?,
            rounds: usize::try_from(setting("ROUNDS", 15, 1)?)?,
            turn: Duration::from_millis(if quick { 400 } else { 3_000 }),
            each: std::env::var_os("EACH").is_some(),
        })
    }
}

async fn sign_in(accounts: &Accounts, number: usize) -> Result<Duration, Failure> {
    let login = Authenticate { identifier: format!("user{number}"), password: Password::new(PASSWORD) };
    let begun = Instant::now();
    accounts.authenticate(login).await?;
    Ok(begun.elapsed())
}

/// How long logins take, of several callers that each begin one every `pace`.
async fn logins(accounts: &Accounts, turn: Duration, pace: Duration) -> Result<Vec<Duration>, Failure> {
    let until = Instant::now() + turn;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let accounts = accounts.clone();
        callers.spawn(async move {
            let (mut took, mut turn) = (Vec::new(), 0_u32);
            let mut next = Instant::now() + pace.mul_f64(caller as f64 / CALLERS as f64);
            while next < until {
                tokio::time::sleep_until(next.into()).await;
                took.push(sign_in(&accounts, caller).await?);
                // Not in step with anything: a step of the golden ratio spreads evenly.
                turn += 1;
                let share = (f64::from(turn) * 0.618_033_988_75).fract();
                next = Instant::now().max(next + pace.mul_f64(0.5 + share));
            }
            Ok::<_, Failure>(took)
        });
    }
    let mut all = Vec::new();
    for took in callers.join_all().await {
        all.extend(took?);
    }
    Ok(all)
}

/// How many changes of name are committed a second.
async fn commits(accounts: &Accounts, users: &[UserId], turn: Duration) -> Result<f64, Failure> {
    let (accounts, users) = (accounts.clone(), users.to_vec());
    let change = move |writer: usize, count| {
        let (accounts, user) = (accounts.clone(), users.get(writer).copied());
        async move { rename(&accounts, user.ok_or("a writer has no user")?, &format!("Name {count}")).await }
    };
    closed_loop(WRITERS, turn, change).await
}

async fn rename(accounts: &Accounts, user: UserId, name: &str) -> Result<(), Failure> {
    accounts.update(Update { display_name: Change::Set(name.to_owned()), ..Update::new(user) }).await?;
    Ok(())
}

async fn head(accounts: &Accounts) -> u64 {
    accounts.tree().await.subscriptions().first().map_or(0, |state| state.head)
}

/// Fills the log by two subscribers that answer each signal with many, and the other's too.
async fn fill(accounts: &Accounts, user: UserId, log: u64) -> Result<(), Failure> {
    const FILLERS: [&str; 2] = ["filler-0", "filler-1"];
    for name in FILLERS {
        accounts.add(Puppet::new(Deed::Flood).subscription(name).batch(FLOOD)).await?;
    }
    while head(accounts).await < log {
        rename(accounts, user, &format!("Name {}", head(accounts).await)).await?;
        accounts.drain().await;
    }
    for name in FILLERS {
        accounts.detach(name).await?;
        accounts.forget_subscription(name).await?;
    }
    Ok(())
}

/// What an arm came to.
struct Measured {
    arm: Arm,
    took: Vec<Duration>,
    handled: u64,
}

impl Measured {
    /// In milliseconds.
    fn percentile(&self, share: f64) -> f64 {
        let last = self.took.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        self.took.get(place).map_or(f64::NAN, |took| took.as_secs_f64() * 1_000.0)
    }
}

async fn measure(accounts: &Accounts, settings: &Settings) -> Result<Vec<Measured>, Failure> {
    let mut arms = vec![Arm::Nobody, Arm::Good, Arm::Hostile, Arm::NobodyAgain, Arm::CatchingUp];
    if settings.each {
        arms.extend(HOSTILE.map(Arm::One));
    }
    let mut alone = Vec::new();
    for number in 0..20 {
        alone.push(sign_in(accounts, number % CALLERS).await?);
    }
    alone.sort();
    let usual = alone.get(10).copied().unwrap_or_default();
    let threads = std::thread::available_parallelism()?.get();
    let pace = usual.mul_f64(CALLERS as f64 / (LOAD * threads as f64));
    println!("a login alone takes {usual:.1?}; {CALLERS} callers begin one every {pace:.1?} each");
    let mut all: Vec<_> = arms.iter().map(|arm| Measured { arm: *arm, took: Vec::new(), handled: 0 }).collect();
    for round in 0..settings.rounds {
        let count = all.len();
        for turn in 0..count {
            // Everybody follows everybody in turn.
            let Some(measured) = all.get_mut((turn * (1 + round % 2 * (count - 2)) + round) % count) else { continue };
            let guests = measured.arm.attach(accounts).await?;
            measured.took.extend(logins(accounts, settings.turn, pace).await?);
            measured.handled += guests.handled();
            guests.detach(accounts).await?;
        }
    }
    all.iter_mut().for_each(|measured| measured.took.sort());
    Ok(all)
}

/// The table, and whether the aim is met.
fn table(all: &[Measured]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{:<18} {:>7} {:>8} {:>8} {:>8} {:>8}   {:>6} {:>6} {:>6}  {:>9}",
        "subscribers", "logins", "p50 ms", "p90 ms", "p99 ms", "max ms", "p50", "p90", "p99", "handled"
    )?;
    let Some(base) = all.first() else { return Ok(text) };
    for measured in all {
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| measured.percentile(share));
        let [r50, r90, r99] = [0.5, 0.9, 0.99].map(|share| measured.percentile(share) / base.percentile(share));
        let (name, logins, handled) = (measured.arm.name(), measured.took.len(), measured.handled);
        writeln!(
            text,
            "{name:<18} {logins:>7} {p50:>8.1} {p90:>8.1} {p99:>8.1} {max:>8.1}   {r50:>6.3} {r90:>6.3} {r99:>6.3}  {handled:>9}"
        )?;
    }
    for measured in all.iter().filter(|measured| !matches!(measured.arm, Arm::Nobody | Arm::NobodyAgain)) {
        let ratio = measured.percentile(0.99) / base.percentile(0.99);
        let verdict = if ratio <= AIM { "met" } else { "not met" };
        writeln!(text, "aim: p99 within 5 % with {}: {verdict} ({ratio:.3})", measured.arm.name())?;
    }
    Ok(text)
}

/// Commits a second with and without a subscriber that catches up, in turns.
async fn throughput(accounts: &Accounts, users: &[UserId], settings: &Settings) -> Result<(), Failure> {
    let (mut without, mut with, mut caught_up) = (Vec::new(), Vec::new(), 0.0);
    for round in 0..settings.rounds {
        for turn in 0..2 {
            let arm = if (turn + round) % 2 == 0 { Arm::Nobody } else { Arm::CatchingUp };
            let guests = arm.attach(accounts).await?;
            let begun = Instant::now();
            let rate = commits(accounts, users, settings.turn / 2).await?;
            if arm == Arm::CatchingUp {
                caught_up += guests.handled() as f64 / begun.elapsed().as_secs_f64();
                with.push(rate);
            } else {
                without.push(rate);
            }
            guests.detach(accounts).await?;
        }
    }
    let (without, with) = (median(&without), median(&with));
    println!(
        "commits a second by {WRITERS} callers, median: {without:.0} alone, {with:.0} with a subscriber that catches up at \
         {:.0} signals a second: {:.3}",
        caught_up / settings.rounds as f64,
        with / without
    );
    Ok(())
}

async fn run(settings: Settings) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let accounts = Accounts::builder().file(folder.path().join("accounts.redb")).spawn().await?;
    let mut users = Vec::new();
    for number in 0..WRITERS {
        let register = Register { username: Some(format!("user{number}")), ..Register::new(PASSWORD) };
        users.push(accounts.register(register).await?.user);
    }
    let begun = Instant::now();
    fill(&accounts, *users.first().ok_or("nobody is registered")?, settings.log).await?;
    println!("the log holds {} signals, written in {:.1?}", head(&accounts).await, begun.elapsed());
    let all = measure(&accounts, &settings).await?;
    print!("{}", table(&all)?);
    throughput(&accounts, &users, &settings).await?;
    if accounts.shutdown().await { Ok(()) } else { Err("the system did not shut down in time".into()) }
}

fn main() -> Result<(), Failure> {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let here = std::thread::current();
        if !here.name().is_some_and(|name| name.starts_with("majordomo-isolation")) {
            usual(panic);
        }
    }));
    tokio::runtime::Runtime::new()?.block_on(run(Settings::read()?))
}
