//! Hash: how many passwords a second the hasher hashes on all cores, beside crate `argon2` as it is.
//!
//! `cargo bench --bench hash`, and the same with `--features argon2-simd`. `ROUNDS=n` is how many pairs are measured (16),
//! `SPAN=n` how many milliseconds each side of a pair lasts (800).

#![allow(clippy::print_stdout, reason = "it reports")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use majordomo::HashParameters;
use majordomo_actors::hasher::{Hasher, HasherSettings};
use measure::pairs::{Ratio, alternate, median};
use measure::report::{Figure, Report};
use measure::{Failure, process, setting, world};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// What the hash threads of the system are set to, and so whoever is measured beside them.
const NICENESS: i32 = 10;

/// How many hashes for each thread are not counted.
const WARM: u64 = 2;

/// How many callers there are for each thread of the hasher: enough that none ever waits for a job.
const CALLERS: usize = 8;

/// What a span came to.
struct Pace {
    /// Hashes a second.
    rate: f64,
    /// Hashes in a second that a processor was at work: what else the machine does touches it less.
    rate_of_processor: f64,
}

/// Counts hashes for a span, once every thread is warm. At both ends each thread is in the midst of one.
fn measure(threads: usize, span: Duration, done: impl Fn() -> u64, ended: impl Fn() -> bool) -> Pace {
    let warm = done() + WARM * threads as u64;
    while done() < warm && !ended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (before, begun, used) = (done(), Instant::now(), process::processor_time());
    std::thread::sleep(span);
    let (hashes, elapsed, used) = (done() - before, begun.elapsed(), process::processor_time() - used);
    let per = |span: Duration| hashes as f64 / span.as_secs_f64();
    Pace { rate: per(elapsed), rate_of_processor: per(used) }
}

/// What crate `argon2` offers first: memory of its own for every hash.
fn as_it_is() -> Result<impl FnMut() -> Result<(), Failure>, Failure> {
    let HashParameters { memory_kib, passes, lanes } = HashParameters::default();
    let parameters = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters);
    Ok(move || {
        let mut tag = [0; 32];
        let hashed = argon2.hash_password_into(world::PASSWORD.as_bytes(), &[7; 16], &mut tag);
        Ok(hashed.map_err(|error| error.to_string())?)
    })
}

/// So many threads of nobody's, each with what `make` gives it.
fn on_threads<F>(threads: usize, span: Duration, make: impl Fn() -> Result<F, Failure> + Sync) -> Result<Pace, Failure>
where
    F: FnMut() -> Result<(), Failure>,
{
    let (ended, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let work = || {
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS)?;
        let mut hash = make()?;
        while !ended.load(Ordering::Relaxed) {
            hash()?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), Failure>(())
    };
    let work = || work().inspect_err(|_| ended.store(true, Ordering::Relaxed));
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let pace = measure(threads, span, || done.load(Ordering::Relaxed), || ended.load(Ordering::Relaxed));
        ended.store(true, Ordering::Relaxed);
        for thread in working {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(pace)
    })
}

/// The hasher, while more callers ask than it has threads.
fn through_the_hasher(runtime: &Runtime, hasher: &Hasher, threads: usize, span: Duration) -> Result<Pace, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..threads * CALLERS {
        let (hasher, ended) = (hasher.clone(), Arc::clone(&ended));
        let call = async move {
            while !ended.load(Ordering::Relaxed) {
                let hashed = hasher.hash(world::PASSWORD.as_bytes().to_vec().into(), None).await;
                hashed.inspect_err(|_| ended.store(true, Ordering::Relaxed))?;
            }
            Ok::<(), Failure>(())
        };
        callers.spawn_on(call, runtime.handle());
    }
    let pace = measure(threads, span, || hasher.observe().jobs_done, || ended.load(Ordering::Relaxed));
    ended.store(true, Ordering::Relaxed);
    runtime.block_on(callers.join_all()).into_iter().collect::<Result<(), _>>()?;
    Ok(pace)
}

/// Measures both in turns, and tells what came of it.
fn compare(
    report: &mut Report,
    (theirs, aim): (&str, Option<f64>),
    rounds: usize,
    mut hasher: impl FnMut() -> Result<Pace, Failure>,
    mut other: impl FnMut() -> Result<Pace, Failure>,
) -> Result<(), Failure> {
    let (mut our_processor, mut their_processor) = (Vec::new(), Vec::new());
    let ours = || {
        let pace = hasher()?;
        our_processor.push(pace.rate_of_processor);
        Ok::<_, Failure>(pace.rate)
    };
    let others = || {
        let pace = other()?;
        their_processor.push(pace.rate_of_processor);
        Ok(pace.rate)
    };
    let pairs = alternate(rounds, ours, others)?;
    let (one, two): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
    report.add(Figure::new("hasher", median(&one), "/s"));
    report.add(Figure::new(theirs, median(&two), "/s"));
    let ratio = Figure::ratio(format!("hasher / {theirs}"), Ratio::of(&pairs));
    report.add(if let Some(aim) = aim { ratio.at_least(aim) } else { ratio });
    let pairs: Vec<_> = our_processor.into_iter().zip(their_processor).collect();
    report.add(Figure::ratio(format!("hasher / {theirs}, by processor time"), Ratio::of(&pairs)));
    Ok(())
}

fn main() -> Result<(), Failure> {
    let rounds = usize::try_from(setting("ROUNDS", 16, 2)?)?;
    let span = Duration::from_millis(setting("SPAN", 800, 150)?);
    let threads = std::thread::available_parallelism()?.get();
    let runtime = Runtime::new()?;
    let begun = Instant::now();
    let hasher = Hasher::new(&HasherSettings { queue: Some(threads * CALLERS), ..HasherSettings::default() })?;
    let made = begun.elapsed().as_secs_f64();
    runtime.block_on(hasher.start(None))?;
    let (name, aim) = if cfg!(feature = "argon2-simd") { ("hash-simd", 2.2) } else { ("hash", 1.2) };
    println!("{threads} threads, kernel {:?}", hasher.observe().kernel);
    let mut report = Report::new(name);
    report.add(Figure::new("making the hasher, its self-test included", made * 1e6, "us"));
    let ours = || through_the_hasher(&runtime, &hasher, threads, span);
    let as_it_is = || on_threads(threads, span, as_it_is);
    compare(&mut report, ("crate argon2 as it is", Some(aim)), rounds, ours, as_it_is)?;
    let bare = || {
        let mut hash = hasher.bare_kernel();
        Ok(move || Ok::<(), Failure>(hash()?))
    };
    let bare = || on_threads(threads, span, bare);
    compare(&mut report, ("its kernel without the queue", None), rounds, ours, bare)?;
    let held = process::mebibytes(hasher.observe().memory_bytes) / threads as f64;
    report.add(Figure::new("argon2 memory a thread holds", held, "MiB"));
    report.finish()
}
