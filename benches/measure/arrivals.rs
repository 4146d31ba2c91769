//! Arrivals: load that is offered open-loop, by a Poisson process that waits for nobody, or closed-loop.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Failure;

/// Draws that repeat: SplitMix64.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// The same seed draws the same.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit.
    pub const fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    /// A share from 0, excluded, to 1.
    fn share(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }
}

/// What came of one arrival.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<T> {
    /// From the instant at which it was meant to begin, in seconds: waiting to be begun is not hidden.
    pub seconds: f64,
    /// What it came to.
    pub outcome: T,
}

/// How many a second are answered of `callers` that each ask again as soon as they are, for so long. `ask` is told by
/// whom, and how often that one asked before.
///
/// # Errors
/// The first that `ask` answers.
pub async fn closed_loop<F>(
    callers: usize,
    span: Duration,
    ask: impl Fn(usize, u64) -> F + Clone + Send + 'static,
) -> Result<f64, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send,
{
    let (begun, mut all) = (Instant::now(), JoinSet::new());
    for caller in 0..callers {
        let ask = ask.clone();
        all.spawn(async move {
            let mut count = 0_u64;
            while begun.elapsed() < span {
                ask(caller, count).await?;
                count += 1;
            }
            Ok::<_, Failure>(count)
        });
    }
    let mut answered = 0;
    for count in all.join_all().await {
        answered += count?;
    }
    Ok(answered as f64 / begun.elapsed().as_secs_f64())
}

/// Begins `rate` a second of what `begin` makes, at random instants, for so long, and returns what became of them all.
pub async fn open_loop<T, F>(rate: f64, span: Duration, seed: u64, begin: impl Fn(u64) -> F) -> Vec<Arrival<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (mut draws, mut number, mut under_way) = (Draws::new(seed), 0, JoinSet::new());
    let mut over = Vec::new();
    let (start, mut offset) = (Instant::now(), 0.0);
    loop {
        offset -= draws.share().ln() / rate;
        if offset >= span.as_secs_f64() {
            break;
        }
        let intended = start + Duration::from_secs_f64(offset);
        if intended > Instant::now() {
            tokio::time::sleep_until(intended.into()).await;
        }
        // A task takes memory until it is joined.
        while let Some(Ok(arrival)) = under_way.try_join_next() {
            over.push(arrival);
        }
        let work = begin(number);
        number += 1;
        under_way.spawn(async move {
            let outcome = work.await;
            Arrival { seconds: intended.elapsed().as_secs_f64(), outcome }
        });
    }
    over.extend(under_way.join_all().await);
    over
}
