//! Soak: hostile input at nine times what the hash permits, for long, and what it leaves behind.
//!
//! `cargo bench --bench soak` lasts 30 seconds; `MINUTES=10` is the long run. Signals, outcomes and failures are kept for
//! five seconds instead of days, so that what is swept and pruned in days is swept here all the time. The audit trail,
//! which only grows, is counted apart.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use majordomo::{
    Accounts, Authenticate, Channel, Command, Config, ConfirmEmail, Context, OneTimeCode, Password, Proof, Register,
    RequestPasswordReset, ResetPassword, SessionToken, TokenId,
};
use measure::arrivals::{Draws, open_loop};
use measure::pairs::median;
use measure::report::{Figure, Report};
use measure::{Failure, process, setting, world};

const USERS: u64 = 200;
const KEEP: Duration = Duration::from_secs(5);
/// How many requests a second are offered; most of them ask for a hash.
const RATE: u64 = 1_000;

/// Text that nobody asked for: of any length up to ten thousand characters, some of them of no alphabet.
fn garbage(draws: &mut Draws) -> String {
    let length = draws.below(100) * draws.below(100);
    (0..length).filter_map(|_| char::from_u32(u32::try_from(draws.below(0x3_0000)).ok()?)).collect()
}

/// An answer that nobody looks at.
fn whatever<T>(_answer: T) {}

fn somewhere(draws: &mut Draws) -> Context {
    let address = u32::try_from(draws.below(1 << 32)).unwrap_or_default();
    Context::new().client_ip(IpAddr::V4(Ipv4Addr::from_bits(address)))
}

/// One request of somebody who means no good, or of somebody who does.
async fn ask(accounts: Accounts, number: u64) {
    let draws = &mut Draws::new(number);
    let (known, typed) = (world::username(draws.below(USERS)), garbage(draws));
    let guess = Password::new(typed.clone());
    let code = || Proof::Code { challenge: TokenId::new(), code: OneTimeCode::new("12345678") };
    let context = somewhere(draws);
    match draws.below(10) {
        0 | 1 => whatever(accounts.authenticate(world::login(draws.below(USERS))).await),
        2 | 3 => {
            let login = Authenticate { identifier: known, password: guess };
            whatever(accounts.authenticate(Command::new(login).context(context)).await);
        }
        4 => {
            let login = Authenticate { identifier: garbage(draws), password: guess };
            whatever(accounts.authenticate(Command::new(login).context(context)).await);
        }
        5 => {
            let register =
                Register { username: Some(garbage(draws)), email: Some(garbage(draws)), ..Register::new(typed) };
            whatever(accounts.register(Command::new(register).context(context)).await);
        }
        6 => {
            let register = Register { username: Some(known), ..Register::new(world::PASSWORD) };
            whatever(accounts.register(Command::new(register).context(context)).await);
        }
        7 => {
            let identifier = if draws.below(2) == 0 { known } else { garbage(draws) };
            let request = RequestPasswordReset { identifier, channel: Channel::Email };
            whatever(accounts.request_password_reset(Command::new(request).context(context)).await);
        }
        8 => whatever(accounts.reset_password(ResetPassword { proof: code(), new: guess }).await),
        _ => {
            whatever(accounts.confirm_email(ConfirmEmail { proof: code() }).await);
            whatever(accounts.check_session(&SessionToken::new(garbage(draws))));
        }
    }
}

/// What there was at some moment.
struct Sample {
    resident: f64,
    threads: f64,
    tasks: f64,
    file: f64,
    log: f64,
    audited: f64,
}

async fn sample(accounts: &Accounts) -> Result<Sample, Failure> {
    let (status, tree) = (process::status()?, accounts.tree().await);
    let storage = tree.storage().ok_or("storage is out")?;
    Ok(Sample {
        resident: process::mebibytes(status.resident),
        threads: status.threads as f64,
        tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() as f64,
        file: process::mebibytes(storage.size_bytes),
        log: process::mebibytes(storage.log.bytes),
        audited: storage.log.head as f64,
    })
}

/// A figure of a sample: its name, itself, its unit.
type Part = (&'static str, fn(&Sample) -> f64, &'static str);

fn tell(report: &mut Report, samples: &[Sample]) {
    let third = samples.len().div_ceil(3);
    let parts = [samples.iter().skip(third).take(third), samples.iter().skip(samples.len() - third).take(third)];
    let of = |figure: fn(&Sample) -> f64| parts.clone().map(|part| median(&part.map(figure).collect::<Vec<_>>()));
    let all: [Part; 5] = [
        ("memory", |sample| sample.resident, "MiB"),
        ("threads", |sample| sample.threads, ""),
        ("tasks", |sample| sample.tasks, ""),
        ("signals that are kept", |sample| sample.log, "MiB"),
        ("file", |sample| sample.file, "MiB"),
    ];
    for (what, figure, unit) in all {
        let [middle, last] = of(figure);
        report.add(Figure::new(format!("{what}, second third"), middle, unit));
        report.add(Figure::new(format!("{what}, last third"), last, unit));
    }
    let [middle, last] = of(|sample| sample.audited);
    report.add(Figure::new("links of the audit trail, second third", middle, ""));
    report.add(Figure::new("links of the audit trail, last third", last, ""));
}

async fn run() -> Result<(), Failure> {
    let mut report = Report::new("soak");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("accounts.redb");
    let mut config = Config::default();
    config.storage.keep_signals = KEEP;
    config.policy.outcome_keep = KEEP;
    config.policy.failures_keep = KEEP;
    world::seed(&path, USERS, &config).await?;
    let accounts = world::open(&path, config).await?;
    let span = Duration::from_secs(setting("MINUTES", 0, 0)? * 60).max(Duration::from_secs(setting("SECONDS", 30, 3)?));
    let slice = (span / 30).clamp(Duration::from_millis(500), Duration::from_secs(10));
    let (begun, mut samples, mut number) = (Instant::now(), Vec::new(), 0);
    while begun.elapsed() < span {
        let (asked, first) = (accounts.clone(), number);
        let answered = open_loop(RATE as f64, slice, first, move |place| ask(asked.clone(), first + place)).await;
        number += answered.len() as u64;
        accounts.sweep().await;
        let seen = sample(&accounts).await?;
        println!(
            "{:>5.0} s: {} asked, {:.1} MiB of memory, {} threads, {} tasks, file {:.1} MiB, signals {:.1} MiB, {} links",
            begun.elapsed().as_secs_f64(),
            answered.len(),
            seen.resident,
            seen.threads,
            seen.tasks,
            seen.file,
            seen.log,
            seen.audited
        );
        samples.push(seen);
    }
    tell(&mut report, &samples);
    if !accounts.shutdown().await {
        return Err("the system did not shut down".into());
    }
    report.finish()
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(run())
}
