//! Flows: what a login and a registration cost of the processors beside the hash, and who spends it.
//!
//! `cargo bench --bench flows`. `EACH=n` is how many of a kind each of the 256 callers asks for in a round (40), `ROUNDS=n`
//! how many rounds (5), `USERS=n` how many users the store holds (10,000). Two systems take turns, each on a store of its
//! own: one without any subscription, and the whole, whose auditor has caught up before its time is taken. Hashes cost
//! next to nothing here, and what one costs by itself is subtracted.

#![allow(clippy::print_stdout, reason = "it reports")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use majordomo::{Accounts, Config};
use majordomo_actors::supervisor::System;
use majordomo_model::{Authenticate, Command, Register};
use measure::report::{Figure, Report};
use measure::{Failure, is_quick, pairs, process, setting, world};
use tokio::task::JoinSet;

/// What a flow may cost beside its hash, in microseconds: a login of the processors, a registration of time.
const LOGIN_AIM: f64 = 50.0;
const REGISTRATION_AIM: f64 = 200.0;

/// Who is asked.
#[derive(Clone)]
enum Site {
    /// A system without subscriptions.
    Bare(System),
    /// The system that an app has.
    Whole(Accounts),
}

/// What is asked for.
#[derive(Clone, Copy)]
enum Deed {
    Login,
    Registration,
}

/// What is asked for, made before any time is taken.
enum Asked {
    Login(Authenticate),
    Registration(Register),
}

impl Site {
    async fn ask(&self, asked: Asked) -> Result<(), Failure> {
        match (self, asked) {
            (Self::Bare(system), Asked::Login(login)) => drop(system.ask(Command::new(login)).await?),
            (Self::Whole(accounts), Asked::Login(login)) => drop(accounts.authenticate(login).await?),
            (Self::Bare(system), Asked::Registration(message)) => drop(system.ask(Command::new(message)).await?),
            (Self::Whole(accounts), Asked::Registration(message)) => drop(accounts.register(message).await?),
        }
        Ok(())
    }

    /// Waits for what is left to do once everybody was answered.
    async fn settle(&self) {
        match self {
            Self::Bare(system) => system.drained().await,
            Self::Whole(accounts) => accounts.drain().await,
        }
    }

    async fn shutdown(&self) {
        match self {
            Self::Bare(system) => system.shutdown(Duration::from_secs(60)).await,
            Self::Whole(accounts) => accounts.shutdown().await,
        };
    }
}

/// What one of many took, in microseconds: of time until all were answered, and of processors until all was settled.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    all: f64,
    flow: f64,
    commit: f64,
    hashing: f64,
}

/// What a round asks for.
#[derive(Clone, Copy)]
struct Load {
    deed: Deed,
    callers: u64,
    each: u64,
    users: u64,
    /// The number of the first; no two registrations have the same.
    from: u64,
}

impl Load {
    /// What a caller asks for, one after the other.
    fn of(&self, caller: u64) -> Vec<Asked> {
        let from = self.from + caller * self.each;
        let asked = |number: u64| match self.deed {
            Deed::Login => Asked::Login(world::login(number % self.users)),
            Deed::Registration => Asked::Registration(world::registration(format!("new{number}"))),
        };
        (from..from + self.each).map(asked).collect()
    }
}

async fn cost(site: &Site, load: Load) -> Result<Cost, Failure> {
    let all: Vec<_> = (0..load.callers).map(|caller| load.of(caller)).collect();
    let (mut under_way, begun) = (JoinSet::new(), Instant::now());
    let (used, threads) = (process::processor_time(), process::thread_times()?);
    for each in all {
        let site = site.clone();
        under_way.spawn(async move {
            for asked in each {
                site.ask(asked).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    let wall = begun.elapsed();
    site.settle().await;
    let (all, now) = (process::processor_time() - used, process::thread_times()?);
    let each = |time: Duration| time.as_secs_f64() * 1e6 / (load.callers * load.each) as f64;
    let of = |name: &str| {
        let spent = |times: &std::collections::BTreeMap<String, Duration>| {
            times.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, time)| *time).sum::<Duration>()
        };
        each(spent(&now).saturating_sub(spent(&threads)))
    };
    let hashing = of("majordomo-hash");
    Ok(Cost { wall: each(wall), all: each(all), flow: of(FLOW), commit: of(COMMIT), hashing })
}

/// What one hash costs by itself, in microseconds.
fn bare_hash(config: &Config) -> Result<f64, Failure> {
    let cost = config.hashing.parameters;
    let parameters = argon2::Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32));
    let parameters = parameters.map_err(|error| error.to_string())?;
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters);
    let mut memory = vec![argon2::Block::new(); argon2.params().block_count()];
    let (mut tag, count) = ([0; 32], if is_quick() { 200 } else { 10_000 });
    let used = process::processor_time();
    for _ in 0..count {
        let hashed = argon2.hash_password_into_with_memory(world::PASSWORD.as_bytes(), &[7; 16], &mut tag, &mut memory);
        hashed.map_err(|error| error.to_string())?;
    }
    Ok((process::processor_time() - used).as_secs_f64() * 1e6 / f64::from(count))
}

/// The figures of one kind of flow by so many callers.
fn report(report: &mut Report, (deed, callers): (Deed, u64), bare: &[Cost], whole: &[Cost], hash: f64) {
    let what = match deed {
        Deed::Login => "login",
        Deed::Registration => "registration",
    };
    let middle = |costs: &[Cost], part: fn(&Cost) -> f64| pairs::median(&costs.iter().map(part).collect::<Vec<_>>());
    let title = |part: &str| format!("{what}, {callers} at a time: {part}");
    let all = middle(bare, |cost| cost.all) - hash;
    let total = Figure::new(title("processor, all but the hash and the auditor"), all, "us");
    report.add(if matches!(deed, Deed::Login) && callers > 1 { total.at_most(LOGIN_AIM) } else { total });
    for (part, value) in [
        ("processor of the flow", middle(bare, |cost| cost.flow)),
        ("processor of the transaction", middle(bare, |cost| cost.commit)),
        ("processor around the hash", middle(bare, |cost| cost.hashing) - hash),
        ("processor of the auditor, when it has caught up", middle(whole, |cost| cost.all) - all - hash),
    ] {
        report.add(Figure::new(title(part), value, "us"));
    }
    let wall = Figure::new(title("time, the hash included"), middle(whole, |cost| cost.wall), "us");
    let timed = matches!(deed, Deed::Registration) && callers > 1;
    report.add(if timed { wall.at_most(REGISTRATION_AIM) } else { wall });
}

async fn run() -> Result<(), Failure> {
    let mut figures = Report::new("flows");
    let (folder, config) = (tempfile::tempdir()?, world::without_hashing());
    let users = setting("USERS", 10_000, 100)?;
    let (each, rounds) = (setting("EACH", 40, 2)?, setting("ROUNDS", 5, 1)?);
    let (first, second) = (folder.path().join("bare.redb"), folder.path().join("whole.redb"));
    world::seed(&first, users, &config).await?;
    world::seed(&second, users, &config).await?;
    let hash = bare_hash(&config)?;
    figures.add(Figure::new("a hash by itself", hash, "us"));
    let bare = Site::Bare(world::bare(&first, config.clone()).await?);
    let sites = [bare, Site::Whole(world::open(&second, config).await?)];
    let mut from = 0;
    for (deed, callers) in [(Deed::Login, 256), (Deed::Registration, 256), (Deed::Login, 1), (Deed::Registration, 1)] {
        let each = if callers == 1 { each * 5 } else { each };
        let mut costs = [Vec::new(), Vec::new()];
        // The first round warms up.
        for round in 0..=rounds {
            for (site, costs) in sites.iter().zip(&mut costs) {
                let taken = cost(site, Load { deed, callers, each, users, from }).await?;
                if round > 0 {
                    costs.push(taken);
                }
            }
            from += callers * each;
        }
        let [bare, whole] = &costs;
        report(&mut figures, (deed, callers), bare, whole, hash);
    }
    for site in sites {
        site.shutdown().await;
    }
    figures.finish()
}

/// The names of the threads that run flows, and of those that run transactions.
const FLOW: &str = "flow";
const COMMIT: &str = "commit";

fn main() -> Result<(), Failure> {
    let (workers, started) = (std::thread::available_parallelism()?.get(), Arc::new(AtomicUsize::new(0)));
    // A runtime starts its workers first; who comes later is there for what blocks.
    let name = move || if started.fetch_add(1, Ordering::Relaxed) < workers { FLOW } else { COMMIT }.to_owned();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name_fn(name)
        .thread_keep_alive(Duration::from_secs(3600))
        .enable_all()
        .build()?;
    runtime.block_on(runtime.spawn(run()))?
}
