//! Contestants: what each is to be able to do, and the process that has one do it.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use measure::Failure;
use measure::arrivals::{Arrival, Draws, open_loop};
use measure::pairs::{percentile, sorted};
use measure::process;
use measure::world::PASSWORD;
use tokio::task::JoinSet;

use crate::protocol::{Ask, Reply, Tally};

/// Nobody's.
const WRONG: &str = "ten lanterns over a noisy harbour";

/// How many requests are under way at a time in closed-loop rounds: two a core.
///
/// # Errors
/// The machine does not tell its cores.
pub fn callers() -> Result<usize, Failure> {
    Ok(std::thread::available_parallelism()?.get() * 2)
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Good,
    Denied,
    Overloaded,
}

/// Accounts of some make, over a durable file of their own.
pub trait Contestant: Clone + Send + Sync + 'static {
    /// What it is, with versions.
    fn describe(&self) -> String;

    /// Registers a user of that number, with [`PASSWORD`].
    fn register(&self, number: u64) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Signs that user in: a session is stored when this is answered.
    fn login(&self, number: u64, password: &'static str) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Hashes a password as it does for a registration, and stores nothing.
    fn hash(&self) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// The hash of the first user's password as it is stored.
    fn stored_hash(&self) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Ends when nothing that it left to be done later is still to be done.
    fn settle(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Closes what is open.
    fn close(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Does what the lines of the standard input ask, until there are no more.
///
/// # Errors
/// The pipe is gone. What the contestant fails with is told through it.
pub async fn serve<C: Contestant>(contestant: C) -> Result<(), Failure> {
    answer(&Reply::Ready(contestant.describe()))?;
    let mut stand = Stand { contestant, users: 0, registered: 0 };
    for line in std::io::stdin().lock().lines() {
        let reply = stand.perform(serde_json::from_str(&line?)?).await;
        answer(&reply.unwrap_or_else(|failure| Reply::Failure(failure.to_string())))?;
    }
    stand.contestant.close().await;
    Ok(())
}

fn answer(reply: &Reply) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(reply)?)?;
    Ok(out.flush()?)
}

struct Stand<C> {
    contestant: C,
    /// Of the seed.
    users: u64,
    /// The seed and everybody since.
    registered: u64,
}

impl<C: Contestant> Stand<C> {
    async fn perform(&mut self, ask: Ask) -> Result<Reply, Failure> {
        process::reset_peak()?;
        let (begun, used, contestant) = (Instant::now(), process::processor_time(), self.contestant.clone());
        let until = move |seconds| {
            let end = begun + Duration::from_secs_f64(seconds);
            move |_: u64| Instant::now() < end
        };
        let arrivals = match ask {
            Ask::Seed { users } => {
                closed_loop(move |number| number < users, move |number| register(contestant.clone(), number)).await?;
                (self.users, self.registered) = (users, users);
                let stored = self.contestant.stored_hash().await?;
                let costs = stored.split('$').take(4).collect::<Vec<_>>().join("$");
                return Ok(Reply::Seeded(costs));
            }
            Ask::Hash { seconds } => {
                closed_loop(until(seconds), move |_| {
                    let contestant = contestant.clone();
                    async move { contestant.hash().await }
                })
                .await?
            }
            Ask::Register { seconds } => {
                let first = self.registered;
                let done =
                    closed_loop(until(seconds), move |number| register(contestant.clone(), first + number)).await?;
                self.registered += u64::try_from(done.len())?;
                done
            }
            Ask::Login { seconds, wrong, draw } => {
                let users = self.users;
                closed_loop(until(seconds), move |number| {
                    login(contestant.clone(), draw.wrapping_mul(1 << 32) + number, users, wrong)
                })
                .await?
            }
            Ask::Flood { seconds, rate } => {
                let users = self.users;
                let begin = move |number| login(contestant.clone(), number, users, false);
                let arrivals = open_loop(rate, Duration::from_secs_f64(seconds), 1, begin).await;
                arrivals.into_iter().map(outcome_of).collect::<Result<_, _>>()?
            }
        };
        self.contestant.settle().await;
        tally(&arrivals, begun, used).map(Reply::Tally)
    }
}

fn outcome_of(arrival: Arrival<Result<Answer, Failure>>) -> Result<Arrival<Answer>, Failure> {
    Ok(Arrival { seconds: arrival.seconds, outcome: arrival.outcome? })
}

async fn register<C: Contestant>(contestant: C, number: u64) -> Result<Answer, Failure> {
    match contestant.register(number).await? {
        Answer::Good => Ok(Answer::Good),
        other => Err(format!("the registration of user {number} came to {other:?}").into()),
    }
}

async fn login<C: Contestant>(contestant: C, seed: u64, users: u64, wrong: bool) -> Result<Answer, Failure> {
    let mut draws = Draws::new(seed);
    let (number, is_wrong) = (draws.below(users), wrong && draws.below(10) == 0);
    let answer = contestant.login(number, if is_wrong { WRONG } else { PASSWORD }).await?;
    match (answer, is_wrong) {
        (Answer::Good, false) | (Answer::Denied, true) | (Answer::Overloaded, _) => Ok(answer),
        _ => Err(format!("a login of user {number}, the password wrong: {is_wrong}, came to {answer:?}").into()),
    }
}

/// Has as many callers as [`callers`] make one request after the other, while `goes_on` says so of its number.
async fn closed_loop<F>(
    goes_on: impl Fn(u64) -> bool + Clone + Send + 'static,
    next: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<Vec<Arrival<Answer>>, Failure>
where
    F: Future<Output = Result<Answer, Failure>> + Send,
{
    let numbers = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..self::callers()? {
        let (goes_on, next, numbers) = (goes_on.clone(), next.clone(), numbers.clone());
        callers.spawn(async move {
            let mut arrivals = Vec::new();
            loop {
                let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if !goes_on(number) {
                    return Ok::<_, Failure>(arrivals);
                }
                let begun = Instant::now();
                let outcome = next(number).await?;
                arrivals.push(Arrival { seconds: begun.elapsed().as_secs_f64(), outcome });
            }
        });
    }
    let mut arrivals = Vec::new();
    while let Some(of_caller) = callers.join_next().await {
        arrivals.extend(of_caller??);
    }
    Ok(arrivals)
}

fn tally(arrivals: &[Arrival<Answer>], begun: Instant, used: Duration) -> Result<Tally, Failure> {
    let count = |answer| arrivals.iter().filter(|arrival| arrival.outcome == answer).count() as u64;
    let good = arrivals.iter().filter(|arrival| arrival.outcome == Answer::Good);
    let times = sorted(good.map(|arrival| arrival.seconds).collect());
    let status = process::status()?;
    Ok(Tally {
        good: count(Answer::Good),
        denied: count(Answer::Denied),
        overloaded: count(Answer::Overloaded),
        in_time: times.iter().filter(|seconds| **seconds <= Tally::IN_TIME).count() as u64,
        seconds: begun.elapsed().as_secs_f64(),
        processor: (process::processor_time() - used).as_secs_f64(),
        high: percentile(&times, 0.99),
        resident: status.resident,
        peak: status.peak,
    })
}
