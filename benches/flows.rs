//! Flows: what a login and a registration cost beside the hash.
//!
//! `cargo bench --bench flows`. `CALLERS=n` is how many requests are under way at a time (256).

#![allow(clippy::print_stdout, reason = "it reports")]

use std::time::Instant;

use majordomo::Accounts;
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, process, setting, world};
use tokio::task::JoinSet;

async fn many<F>(
    accounts: &Accounts,
    callers: u64,
    each: u64,
    ask: impl Fn(Accounts, u64) -> F,
) -> Result<(f64, f64), Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let (mut under_way, begun, used) = (JoinSet::new(), Instant::now(), process::processor_time());
    for number in 0..callers {
        let mut asked = Vec::new();
        for turn in 0..each {
            asked.push(ask(accounts.clone(), number * each + turn));
        }
        under_way.spawn(async move {
            for ask in asked {
                ask.await?;
            }
            Ok::<_, Failure>(())
        });
    }
    for done in under_way.join_all().await {
        done?;
    }
    let count = (callers * each) as f64;
    let elapsed = begun.elapsed().as_secs_f64();
    Ok(((process::processor_time() - used).as_secs_f64() * 1e6 / count, elapsed * 1e6 / count))
}

async fn run() -> Result<(), Failure> {
    let mut report = Report::new("flows");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("accounts.redb");
    let users = if is_quick() { 100 } else { 10_000 };
    let callers = setting("CALLERS", 256, 8)?;
    world::seed(&path, users, &world::without_hashing()).await?;
    let accounts = world::open(&path, world::without_hashing()).await?;
    let each = if is_quick() { 4 } else { setting("EACH", 40, 40)? };
    for round in 0..3 {
        let (cpu, wall) = many(&accounts, callers, each, move |accounts, number| async move {
            accounts.authenticate(world::login(number % users)).await?;
            Ok(())
        })
        .await?;
        println!("round {round}");
        report.add(Figure::new("authenticate: processor", cpu, "us"));
        report.add(Figure::new("authenticate: wall", wall, "us"));
        let (cpu, wall) = many(&accounts, callers, each, move |accounts, number| async move {
            accounts.register(world::registration(format!("new{round}x{number}"))).await?;
            Ok(())
        })
        .await?;
        report.add(Figure::new("register: processor", cpu, "us"));
        report.add(Figure::new("register: wall", wall, "us"));
        let begun = Instant::now();
        accounts.drain().await;
        println!("drained in {:?}", begun.elapsed());
    }
    accounts.shutdown().await;
    report.finish()
}

fn main() -> Result<(), Failure> {
    tokio::runtime::Runtime::new()?.block_on(run())
}
