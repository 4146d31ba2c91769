//! Instructions: how many the hot paths execute, counted by callgrind, beside those that `benches/instructions.json` holds.
//!
//! `cargo bench --bench instructions`; `BLESS=1` writes the file anew. Needs valgrind; without it, it says so and ends well.
//! Counts repeat to a few per cent whatever else the machine does: what differs are the widths of group commits and what was drawn.
//! Each path runs a few and many times in processes of their own, so that what a start costs falls out of the difference.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::path::{Path, PathBuf};
use std::process::Command;

use majordomo::{
    Accounts, AuthenticateReason, Change, Error, Filter, Outcome, Start, Subscriber, SubscriberContext, Update,
};
use majordomo_model::Envelope;
use measure::{Failure, is_quick, world};
use serde_json::{Map, Value, json};

const ROLE: &str = "INSTRUCTIONS_PATH";
const TIMES: &str = "INSTRUCTIONS_TIMES";
/// What is counted, and how often it runs in the two processes.
const PATHS: [(&str, u64, u64); 6] = [
    ("authenticate", 20, 120),
    ("register", 20, 120),
    ("refused login", 20, 120),
    ("session in memory", 1_000, 11_000),
    ("session in the store", 100, 1_100),
    ("update with a subscriber", 20, 120),
];

/// Handles everything, by doing nothing.
struct Idle;

impl Subscriber for Idle {
    async fn handle(&self, _signal: &Envelope, _context: &SubscriberContext) -> Outcome {
        Outcome::done()
    }
}

async fn child(path: &str, times: u64) -> Result<(), Failure> {
    let mut config = world::without_hashing();
    config.hashing.workers = Some(1);
    if path == "session in the store" {
        config.storage.sessions_kept = 0;
    }
    let accounts = Accounts::builder().config(config).in_memory().spawn().await?;
    let user = accounts.register(world::registration(world::username(0))).await?.user;
    let token = accounts.authenticate(world::login(0)).await?.token;
    for number in 0..times {
        match path {
            "authenticate" => drop(accounts.authenticate(world::login(0)).await?),
            "register" => drop(accounts.register(world::registration(format!("newcomer{number}"))).await?),
            "refused login" => {
                let refused = accounts.authenticate(world::login(number + 1)).await;
                if !matches!(refused, Err(Error::Refused(AuthenticateReason::InvalidCredentials))) {
                    return Err(format!("it was not refused: {refused:?}").into());
                }
            }
            "update with a subscriber" => {
                let display_name = Change::Set(format!("Name {number}"));
                accounts.update(Update { display_name, ..Update::new(user) }).await?;
            }
            _ => drop(accounts.check_session(&token)?.ok_or("the session is lost")?),
        }
    }
    if path == "update with a subscriber" {
        accounts.subscribe("idle", Filter::all(), Start::Beginning, Idle).await?;
    }
    accounts.drain().await;
    if accounts.shutdown().await { Ok(()) } else { Err("the system did not shut down".into()) }
}

/// The instructions that a process of this program executes.
fn counted(path: &str, times: u64) -> Result<f64, Failure> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe()?);
    command.env(ROLE, path).env(TIMES, times.to_string()).current_dir(folder.path());
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{path} did not go well: {text}").into());
    }
    let collected = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = collected.ok_or_else(|| format!("valgrind counted nothing: {text}"))?;
    Ok(count.trim().parse()?)
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

fn count_all() -> Result<(), Failure> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not there: nothing is counted");
        return Ok(());
    }
    let before: Map<String, Value> = match std::fs::read_to_string(kept()) {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => Map::new(),
    };
    let mut now = Map::new();
    for (path, few, many) in PATHS.into_iter().take(if is_quick() { 1 } else { PATHS.len() }) {
        let each = (counted(path, many)? - counted(path, few)?) / (many - few) as f64;
        let change = before.get(path).and_then(Value::as_f64).map_or_else(
            || "no figure is kept".to_owned(),
            |before| format!("{:+.1} % against {before:.0}", (each / before - 1.0) * 100.0),
        );
        println!("{path:<24} {each:>12.0} instructions each, {change}");
        now.insert(path.to_owned(), json!(each.round()));
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(kept(), serde_json::to_string_pretty(&now)? + "\n")?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let Ok(path) = std::env::var(ROLE) else { return count_all() };
    let times = std::env::var(TIMES)?.parse()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(child(&path, times))
}
