//! Growth: what the number of users changes: bytes on disk, memory, the start, a login, a registration.
//!
//! `cargo bench --bench growth` takes 1,000, 10,000 and 100,000 users; `USERS=1000000` (or `10000000`, some 12 minutes and
//! 12 GiB of disk for the first time) takes those too. Stores are kept between runs; each is copied before it is used.
//!
//! A start is that of a process of its own. One is killed with SIGKILL under load, and the start after that measured.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use majordomo::{Accounts, Change, Update, UserId};
use measure::arrivals::Draws;
use measure::pairs::{median, percentile, sorted};
use measure::plot::{Axes, draw};
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, process, report, world};

/// Tells a process of this program that it is the child, and what it does.
const ROLE: &str = "GROWTH_ROLE";
const STORE: &str = "GROWTH_STORE";

/// The child: spawns the system, tells how long that took and what memory it has, and then does as its role says.
async fn child(role: &str) -> Result<(), Failure> {
    let path = PathBuf::from(std::env::var(STORE)?);
    let begun = Instant::now();
    let accounts = world::open(&path, world::without_hashing()).await?;
    let ready = begun.elapsed();
    if !accounts.health().await.ready {
        return Err("it is not ready".into());
    }
    let user = accounts.find_user(&world::username(0))?.ok_or("the first user is not there")?.id;
    println!("{} {}", ready.as_secs_f64() * 1e3, process::status()?.resident);
    if role == "busy" {
        write_on(&accounts, user).await
    } else if accounts.shutdown().await {
        Ok(())
    } else {
        Err("it did not shut down".into())
    }
}

/// Commits until it is killed, telling of the first hundred.
async fn write_on(accounts: &Accounts, user: UserId) -> Result<(), Failure> {
    for number in 0_u64.. {
        let display_name = Change::Set(format!("Name {number}"));
        accounts.update(Update { display_name, ..Update::new(user) }).await?;
        if number == 100 {
            println!("busy");
        }
    }
    Ok(())
}

/// Ends a child that is still there when this is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the child on a store and returns how long its start took, in ms, and the memory it had then, in bytes.
fn start(store: &Path, role: &str) -> Result<(f64, f64), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, role).env(STORE, store).stdout(Stdio::piped());
    let mut child = Guarded(command.spawn()?);
    let mut lines = BufReader::new(child.0.stdout.take().ok_or("the child has no output")?).lines();
    let told = lines.next().ok_or("the child told nothing")??;
    let (ready, resident) = told.split_once(' ').ok_or("the child told something else")?;
    if role == "busy" {
        lines.next().ok_or("the child did nothing")??;
        child.0.kill()?;
    }
    child.0.wait()?;
    Ok((ready.parse()?, resident.parse()?))
}

fn copy(store: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join("accounts.redb");
    std::fs::copy(store, &path)?;
    std::fs::copy(world::key_path(store), world::key_path(&path))?;
    Ok(path)
}

/// The time of each of so many, one after the other, in microseconds, sorted.
async fn each<F>(times: u64, ask: impl Fn(u64) -> F) -> Result<Vec<f64>, Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut took = Vec::new();
    for number in 0..times {
        let begun = Instant::now();
        ask(number).await?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(sorted(took))
}

/// What is plotted against the number of users.
struct Point {
    users: f64,
    login: f64,
    register: f64,
}

async fn at(users: u64, report: &mut Report) -> Result<Point, Failure> {
    let name = |what: &str| format!("{users} users: {what}");
    let store = world::kept(users, &world::without_hashing()).await?;
    let folder = tempfile::tempdir_in(report::folder()?)?;
    let path = copy(&store, folder.path())?;
    let bytes = std::fs::metadata(&path)?.blocks() * 512;
    report.add(Figure::new(name("bytes on disk a user, with a session each"), bytes as f64 / users as f64, "B"));
    let rounds = if is_quick() { 1 } else { 7 };
    start(&path, "calm")?;
    let (mut clean, mut killed, mut resident) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (ready, memory) = start(&path, "calm")?;
        clean.push(ready);
        resident.push(memory);
        start(&path, "busy")?;
        killed.push(start(&path, "calm")?.0);
    }
    report.add(Figure::new(name("start until ready, clean, median"), median(&clean), "ms").at_most(50.0));
    report.add(Figure::new(name("start until ready, after kill -9, median"), median(&killed), "ms").at_most(100.0));
    report.add(Figure::new(name("memory once started"), process::mebibytes(median(&resident) as u64), "MiB"));
    let accounts = world::open(&path, world::without_hashing()).await?;
    let times = if is_quick() { 20 } else { 2_000 };
    let asked = &accounts;
    let logins = each(times, move |number| async move {
        let user = Draws::new(number).below(users);
        Ok(asked.authenticate(world::login(user)).await.map(drop)?)
    });
    let logins = logins.await?;
    let registrations = each(times, move |number| async move {
        Ok(asked.register(world::registration(format!("newcomer{number}"))).await.map(drop)?)
    });
    let registrations = registrations.await?;
    let (login, register) = (percentile(&logins, 0.5), percentile(&registrations, 0.5));
    report.add(Figure::new(name("login with a cheap hash, one caller, p50"), login, "us"));
    report.add(Figure::new(name("registration with a cheap hash, one caller, p50"), register, "us"));
    report.add(Figure::new(name("memory then"), process::mebibytes(process::status()?.resident), "MiB"));
    if !accounts.shutdown().await {
        return Err("the system did not shut down".into());
    }
    Ok(Point { users: users as f64, login, register })
}

async fn run() -> Result<(), Failure> {
    let mut report = Report::new("growth");
    let mut all = if is_quick() { vec![1_000] } else { vec![1_000, 10_000, 100_000] };
    if let Ok(users) = std::env::var("USERS") {
        all.push(users.parse()?);
    }
    let mut points = Vec::new();
    for users in all {
        points.push(at(users, &mut report).await?);
    }
    let curve = |of: fn(&Point) -> f64| points.iter().map(|point| (point.users, of(point))).collect::<Vec<_>>();
    let axes = Axes {
        title: "Cost by the number of users, without the hash",
        across: "users",
        up: "us, one caller, durable",
        logarithmic: true,
    };
    if points.len() > 1 {
        let curves = [("login", curve(|point| point.login)), ("registration", curve(|point| point.register))];
        draw(&report::folder()?.join("growth.svg"), axes, &curves)?;
    }
    report.finish()
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    match std::env::var(ROLE) {
        Ok(role) => runtime.block_on(child(&role)),
        Err(_) => runtime.block_on(run()),
    }
}
