//! The hash threads: each takes a job, computes it in memory of its own, and answers it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant as StdInstant};

use subtle::ConstantTimeEq;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;
use zeroize::Zeroizing;

use super::foreign::ForeignHash;
use super::kernel::{HashKernel, Input, Kernel, Refused};
use super::pace::Pace;
use super::parameters::{Ceiling, HashParameters};
use super::phc::{PhcString, Recipe, SALT_BYTES, StoredHash, TAG_BYTES};
use super::queue::Queue;
use super::{HashError, Verified};
use crate::gauge::Gauge;
use crate::priority::step_back;
use crate::telemetry;

/// How far the hash threads step back behind the threads that serve requests.
const NICENESS: i32 = 10;

pub(super) type Reply<T> = oneshot::Sender<Result<T, HashError>>;

/// One computation that somebody waits for.
pub(super) struct Job {
    pub(super) deadline: Option<Instant>,
    pub(super) task: Task,
    /// Shows the job as a part of what it is for.
    pub(super) span: Span,
    /// When it was put in line.
    pub(super) since: Instant,
}

pub(super) enum Task {
    Hash { password: Zeroizing<Vec<u8>>, reply: Reply<PhcString> },
    Verify { claim: Claim, reply: Reply<Verified> },
}

impl Task {
    /// What figures and spans call it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Hash { .. } => "hash",
            Self::Verify { .. } => "verify",
        }
    }
}

/// A password that is to be compared.
#[derive(Clone)]
pub(crate) struct Presented {
    /// In the form that is hashed here. The empty one matches nothing.
    pub(crate) normalised: Zeroizing<Vec<u8>>,
    /// As it was typed, where that differs: what another system would have hashed.
    pub(crate) typed: Option<Zeroizing<Vec<u8>>>,
}

impl Presented {
    fn as_typed(&self) -> &[u8] {
        self.typed.as_ref().unwrap_or(&self.normalised)
    }
}

/// A password, and what it is checked against.
pub(crate) struct Claim {
    pub(crate) password: Presented,
    pub(crate) stored: Option<Zeroizing<String>>,
    pub(crate) decoy: [u8; 32],
    /// What the decoy costs, as a class of stored costs; like a new hash if it is none that can be computed here.
    pub(crate) class: Option<String>,
}

impl Job {
    /// Answers without computing.
    pub(super) fn refuse(self, error: HashError) {
        match self.task {
            Task::Hash { reply, .. } => send(reply, Err(error)),
            Task::Verify { reply, .. } => send(reply, Err(error)),
        }
    }

    fn is_abandoned(&self) -> bool {
        match &self.task {
            Task::Hash { reply, .. } => reply.is_closed(),
            Task::Verify { reply, .. } => reply.is_closed(),
        }
    }

    fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// Sends an answer; a caller who has left is not missed.
fn send<T>(reply: Reply<T>, outcome: Result<T, HashError>) {
    let _ = reply.send(outcome);
}

/// What callers, threads and every incarnation of the actor share.
pub(super) struct Shared {
    pub(super) parameters: HashParameters,
    pub(super) ceiling: Ceiling,
    pub(super) workers: usize,
    pub(super) kernel: HashKernel,
    pub(super) queue: Queue<Job>,
    /// Bounds the queue, where the settings do not.
    pub(super) pace: Option<Pace>,
    pub(super) counters: Counters,
    pub(super) gauge: Gauge,
    /// How many of the next jobs panic.
    #[cfg(any(test, feature = "testing"))]
    pub(super) faults: AtomicU64,
    /// How many hashes were computed with which parameters.
    #[cfg(any(test, feature = "testing"))]
    pub(super) computed: std::sync::Mutex<Vec<(HashParameters, u64)>>,
}

#[cfg(any(test, feature = "testing"))]
impl Shared {
    fn note_computed(&self, parameters: HashParameters) {
        let mut computed = self.computed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match computed.iter_mut().find(|(known, _)| *known == parameters) {
            Some((_, count)) => *count += 1,
            None => computed.push((parameters, 1)),
        }
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) workers: AtomicU64,
    pub(super) memory_bytes: AtomicU64,
    pub(super) jobs_done: AtomicU64,
    pub(super) jobs_skipped: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) panics: AtomicU64,
    /// How long the job that was taken up last had waited, in microseconds.
    pub(super) waited_micros: AtomicU64,
}

/// Adds one to a counter.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::SeqCst);
}

/// The threads of one incarnation. Dropping it sends them home: each finishes the job in its hands, and what waits
/// in the queue stays for the next incarnation.
pub(super) struct Crew {
    shared: Arc<Shared>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts every thread. Deadlines are read on the clock of `runtime`.
    pub(super) fn muster(shared: &Arc<Shared>, runtime: &Handle) -> io::Result<Self> {
        let mut crew = Self { shared: Arc::clone(shared), ended: Arc::default(), threads: Vec::new() };
        for number in 0..shared.workers {
            let (shared, ended, runtime) = (Arc::clone(shared), Arc::clone(&crew.ended), runtime.clone());
            let thread = Builder::new().name(format!("majordomo-hash-{number}")).spawn(move || {
                let _runtime = runtime.enter();
                step_back(NICENESS);
                Worker::new(&shared).work(&ended);
            })?;
            crew.threads.push(thread);
        }
        Ok(crew)
    }

    /// Sends the threads home and hands them over to be joined, which may last as long as one hash.
    pub(super) fn dismiss(&mut self) -> Vec<JoinHandle<()>> {
        self.shared.queue.dismiss(&self.ended);
        std::mem::take(&mut self.threads)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        drop(self.dismiss());
    }
}

/// One thread's hands: its memory, and its part of the counters.
struct Worker<'a> {
    shared: &'a Shared,
    kernel: Kernel,
    counted_bytes: u64,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        count(&shared.counters.workers);
        let mut worker = Self { shared, kernel: Kernel::new(shared.kernel, &shared.parameters), counted_bytes: 0 };
        if worker.kernel.reserve().is_err() {
            tracing::warn!("no memory for a hash thread yet, the next job asks again");
        }
        worker.count_memory();
        worker
    }

    fn work(mut self, ended: &AtomicBool) {
        while let Some(job) = self.next_job(ended) {
            if job.is_abandoned() {
                count(&self.shared.counters.jobs_skipped);
            } else if job.is_overdue() {
                count(&self.shared.counters.jobs_skipped);
                job.refuse(HashError::DeadlineExceeded);
            } else {
                let (kind, waited, begun) = (job.task.kind(), job.since.elapsed(), StdInstant::now());
                let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
                self.shared.counters.waited_micros.store(micros, Ordering::Relaxed);
                job.span.in_scope(|| self.answer(job.task));
                telemetry::hashed(kind, waited, begun.elapsed());
            }
        }
    }

    /// The next job. Before it waits for one its memory is wiped: while there is a next one at once, that overwrites what
    /// the last one left, and nobody waits for the wiping.
    fn next_job(&mut self, ended: &AtomicBool) -> Option<Job> {
        self.shared.queue.take_at_once(ended).or_else(|| {
            self.kernel.wipe();
            self.shared.queue.take(ended)
        })
    }

    fn answer(&mut self, task: Task) {
        match task {
            Task::Hash { password, reply } => {
                let outcome = self.isolated(|worker| worker.hash(&password));
                send(reply, outcome);
            }
            Task::Verify { claim, reply } => {
                let outcome = self.isolated(|worker| worker.verify(&claim));
                send(reply, outcome);
            }
        }
    }

    /// Runs one job; its panic is its own. The kernel's memory is overwritten from the start by every job, so no job
    /// can leave it broken for the next.
    fn isolated<T>(&mut self, job: impl FnOnce(&mut Self) -> Result<T, Refused>) -> Result<T, HashError> {
        let handling = self.shared.gauge.begin();
        let outcome = catch_unwind(AssertUnwindSafe(|| job(self)));
        drop(handling);
        self.count_memory();
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Refused)) => {
                tracing::error!("a hash was refused by the machine");
                Err(HashError::Failed)
            }
            Err(_) => {
                count(&self.shared.counters.panics);
                tracing::error!("a hash job panicked");
                Err(HashError::Failed)
            }
        }
    }

    fn hash(&mut self, password: &[u8]) -> Result<PhcString, Refused> {
        let recipe = Recipe::current(self.shared.parameters);
        let mut fresh = StoredHash { recipe, salt: vec![0; SALT_BYTES], tag: vec![0; TAG_BYTES] };
        getrandom::fill(&mut fresh.salt).map_err(|_| Refused)?;
        self.compute(&recipe, password, &fresh.salt, &mut fresh.tag)?;
        Ok(fresh.to_phc())
    }

    /// Checks a claim. Without a stored hash that can be checked, the decoy takes its place and the same work is done.
    fn verify(&mut self, claim: &Claim) -> Result<Verified, Refused> {
        let Some(text) = claim.stored.as_deref() else { return self.check_decoy(claim).map(|()| Verified::Decoy) };
        if let Some(stored) = StoredHash::parse(text, &self.shared.ceiling) {
            let equal = self.matches(&stored, &claim.password.normalised)?;
            let needs_rehash = !stored.is_current(&self.shared.parameters);
            return Ok(if equal { Verified::Match { needs_rehash } } else { Verified::Mismatch });
        }
        match ForeignHash::parse(text, &self.shared.ceiling) {
            Ok(foreign) => self.verify_foreign(&foreign, claim),
            Err(_) => self.check_decoy(claim).map(|()| Verified::Malformed),
        }
    }

    /// Checks a claim against what another system made. One of another family costs the decoy as well, so that a cheap
    /// one is not told from a user who is not there. It does so whether or not it matches: who is locked or disabled gets
    /// one answer, and by its time alone would be told that the last guess was right.
    fn verify_foreign(&mut self, foreign: &ForeignHash, claim: &Claim) -> Result<Verified, Refused> {
        let typed = claim.password.as_typed();
        // Elsewhere an empty password may have been set; here it stands for what is no password at all.
        let equal = match foreign {
            ForeignHash::Argon2(stored) => self.matches(stored, typed)? && !typed.is_empty(),
            #[cfg(feature = "foreign-hashes")]
            ForeignHash::Other(other) => {
                let equal = other.matches(typed)?;
                self.check_decoy(claim)?;
                equal && !typed.is_empty()
            }
        };
        Ok(if equal { Verified::Match { needs_rehash: true } } else { Verified::Mismatch })
    }

    fn check_decoy(&mut self, claim: &Claim) -> Result<(), Refused> {
        let drawn = claim.class.as_deref().and_then(|class| Recipe::of_class(class, &self.shared.ceiling));
        let recipe = drawn.unwrap_or(Recipe::current(self.shared.parameters));
        let salt = claim.decoy.iter().copied().take(SALT_BYTES).collect();
        let decoy = StoredHash { recipe, salt, tag: claim.decoy.to_vec() };
        self.matches(&decoy, &claim.password.normalised).map(drop)
    }

    fn matches(&mut self, stored: &StoredHash, password: &[u8]) -> Result<bool, Refused> {
        let mut tag = Zeroizing::new(vec![0; stored.tag.len()]);
        self.compute(&stored.recipe, password, &stored.salt, &mut tag)?;
        Ok(std::hint::black_box(tag.ct_eq(&stored.tag)).into())
    }

    fn compute(&mut self, recipe: &Recipe, password: &[u8], salt: &[u8], tag: &mut [u8]) -> Result<(), Refused> {
        #[cfg(any(test, feature = "testing"))]
        self.inject_fault();
        let begun = StdInstant::now();
        self.kernel.compute(&Input::new(recipe, password, salt), tag)?;
        if *recipe == Recipe::current(self.shared.parameters) {
            self.note_pace(begun.elapsed());
        }
        count(&self.shared.counters.jobs_done);
        #[cfg(any(test, feature = "testing"))]
        self.shared.note_computed(recipe.parameters);
        Ok(())
    }

    fn note_pace(&self, lasted: Duration) {
        if let Some(bound) = self.shared.pace.as_ref().and_then(|pace| pace.measured_bound(lasted)) {
            self.shared.queue.set_bound(bound);
        }
    }

    #[cfg(any(test, feature = "testing"))]
    #[allow(clippy::panic, reason = "the fault that tests ask for")]
    fn inject_fault(&self) {
        let one_less = |faults: u64| faults.checked_sub(1);
        if self.shared.faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            panic!("injected fault");
        }
    }

    fn count_memory(&mut self) {
        let memory = &self.shared.counters.memory_bytes;
        let held = self.kernel.resident_bytes();
        memory.fetch_add(held.saturating_sub(self.counted_bytes), Ordering::SeqCst);
        self.counted_bytes = held;
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.shared.counters.memory_bytes.fetch_sub(self.counted_bytes, Ordering::SeqCst);
        self.shared.counters.workers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Hasher;
    use super::super::parameters::HasherSettings;
    use super::super::queue::{Priority, Rank};
    use super::*;

    #[test]
    fn a_thread_that_has_nothing_to_do_keeps_nothing_of_the_last_password() {
        let settings = HasherSettings { parameters: HashParameters::cheap_for_tests(), ..HasherSettings::default() };
        let hasher = Hasher::with_kernel(&settings, HashKernel::Argon2);
        let mut worker = Worker::new(&hasher.shared);
        let is_clean = |worker: &Worker<'_>| matches!(&worker.kernel, Kernel::Plain(plain) if plain.is_clean());
        let ended = AtomicBool::new(false);
        for _ in 0..2 {
            let (reply, _answer) = oneshot::channel();
            let task = Task::Hash { password: Zeroizing::new(b"password".to_vec()), reply };
            let job = Job { deadline: None, task, span: Span::none(), since: Instant::now() };
            assert!(hasher.shared.queue.push(Priority::Login(Rank::FIRST), job, false).is_none());
        }
        for _ in 0..2 {
            let job = worker.next_job(&ended).unwrap();
            worker.answer(job.task);
            assert!(!is_clean(&worker), "what is overwritten at once is not wiped before");
        }
        ended.store(true, Ordering::SeqCst);
        assert!(worker.next_job(&ended).is_none() && is_clean(&worker));
    }
}
