//! The hasher: passwords in, argon2id hashes and verdicts out, at a bounded cost.
//!
//! A fixed set of threads, each with memory of its own for life, works off a bounded queue. The queue belongs to the
//! handle and outlives the actor, which starts and ends the threads; so a restart loses no job but those in the hands
//! of a thread, and these are finished.

mod actor;
mod crew;
mod foreign;
mod huge_pages;
mod kernel;
mod pace;
mod parameters;
mod phc;
mod place;
mod plain;
mod queue;
#[cfg(any(test, feature = "argon2-simd"))]
mod self_test;
#[cfg(feature = "argon2-simd")]
mod simd;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor::{ActorCell, ActorRef, SpawnErr};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;
use zeroize::Zeroizing;

pub use self::actor::HasherMessage;
pub(crate) use self::crew::{Claim, Presented};
use self::crew::{Counters, Job, Reply, Shared, Task, count};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::foreign::reads_as_taken_in;
pub(crate) use self::foreign::{HashProblem, TakenIn};
pub use self::kernel::HashKernel;
#[cfg(any(test, feature = "testing"))]
use self::kernel::{Input, Kernel};
use self::pace::Pace;
pub use self::parameters::{Ceiling, HashParameters, HasherSettings, HasherSettingsError};
pub use self::phc::PhcString;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::phc::reads_phc_as_written;
#[cfg(any(test, feature = "testing"))]
use self::phc::{Recipe, SALT_BYTES, TAG_BYTES};
pub(crate) use self::place::Place;
pub(crate) use self::queue::Rank;
use self::queue::{Priority, Queue};
use crate::gauge::{Gauge, GaugeReading};
use crate::telemetry;

/// The address of the hasher, stable across restarts of its actor. Cloning shares it.
///
/// Nothing is computed until [`Hasher::start`]; until then, and between two incarnations of the actor, jobs wait.
#[derive(Clone)]
pub struct Hasher {
    shared: Arc<Shared>,
}

impl Hasher {
    /// Checks `settings` and makes the queue. With the feature `argon2-simd` the faster kernel is put to its self-test,
    /// which lasts a few milliseconds.
    ///
    /// # Errors
    /// A setting breaks its rule.
    pub fn new(settings: &HasherSettings) -> Result<Self, HasherSettingsError> {
        settings.validate()?;
        Ok(Self::with_kernel(settings, HashKernel::choose()))
    }

    fn with_kernel(settings: &HasherSettings, kernel: HashKernel) -> Self {
        let workers = settings.worker_count();
        let pace = Pace::new(settings.patience, workers);
        let bound = settings.queue.unwrap_or_else(|| pace.assumed_bound(&settings.parameters));
        let shared = Shared {
            parameters: settings.parameters,
            ceiling: settings.ceiling,
            workers,
            kernel,
            queue: Queue::new(bound),
            pace: settings.queue.is_none().then_some(pace),
            counters: Counters::default(),
            gauge: Gauge::new(),
            #[cfg(any(test, feature = "testing"))]
            faults: AtomicU64::new(0),
            #[cfg(any(test, feature = "testing"))]
            computed: std::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts an incarnation of the actor and its threads, linked to `supervisor` if there is one. At most one
    /// incarnation may live at a time. A graceful stop closes the hasher, see [`Hasher::close`]; after a panic or a
    /// kill the queue keeps its jobs for the next incarnation.
    ///
    /// # Errors
    /// The machine refused a thread.
    pub async fn start(&self, supervisor: Option<ActorCell>) -> Result<ActorRef<HasherMessage>, SpawnErr> {
        actor::start(self.clone(), supervisor).await
    }

    /// Answers every waiting job with [`HashError::Stopped`], and every later one until an incarnation starts. For an
    /// owner who gives up restarting the actor.
    pub fn close(&self) {
        for job in self.shared.queue.close() {
            job.refuse(HashError::Stopped);
        }
    }

    /// How long the job that was taken up last had waited for its turn: how long the line is that those behind it are in.
    pub(crate) fn last_wait(&self) -> Duration {
        Duration::from_micros(self.shared.counters.waited_micros.load(Ordering::Relaxed))
    }

    /// Keeps room in the line for a login. Where there is none, that is counted as if it had asked.
    pub(crate) fn keep_place_for_login(&self, rank: Rank) -> Option<Place> {
        self.keep_place(Priority::Login(rank), "verify")
    }

    /// As [`Hasher::keep_place_for_login`], for one on a known device: in the room for these, before other logins, or
    /// among them where that is full.
    pub(crate) fn keep_place_for_known_device(&self, rank: Rank) -> Option<Place> {
        Place::keep(&self.shared, Priority::KnownDevice).or_else(|| self.keep_place_for_login(rank))
    }

    /// As [`Hasher::keep_place_for_login`], for a new hash.
    pub(crate) fn keep_place_for_new_hash(&self) -> Option<Place> {
        self.keep_place(Priority::Background, "hash")
    }

    /// As [`Hasher::keep_place_for_login`], for a new hash that nobody waits for.
    pub(crate) fn keep_place_for_rehash(&self) -> Option<Place> {
        self.keep_place(Priority::Rehash, "hash")
    }

    fn keep_place(&self, priority: Priority, kind: &'static str) -> Option<Place> {
        let place = Place::keep(&self.shared, priority);
        if place.is_none() {
            count(&self.shared.counters.refused);
            telemetry::hash_refused(kind);
        }
        place
    }

    /// Hashes `password` with the configured parameters and a fresh salt. Waits behind every login.
    ///
    /// # Errors
    /// See [`HashError`]; `deadline` is on the clock of the tokio runtime.
    pub async fn hash(&self, password: Zeroizing<Vec<u8>>, deadline: Option<Instant>) -> Result<PhcString, HashError> {
        self.hash_at(None, password, deadline).await
    }

    /// As [`Hasher::hash`], at a place that was kept.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn hash_at(
        &self,
        place: Option<Place>,
        password: Zeroizing<Vec<u8>>,
        deadline: Option<Instant>,
    ) -> Result<PhcString, HashError> {
        self.ask(Priority::Background, place, deadline, |reply| Task::Hash { password, reply }).await
    }

    /// As [`Hasher::hash_at`], behind whatever somebody waits for, and giving way to it.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn rehash_at(
        &self,
        place: Option<Place>,
        password: Zeroizing<Vec<u8>>,
        deadline: Option<Instant>,
    ) -> Result<PhcString, HashError> {
        self.ask(Priority::Rehash, place, deadline, |reply| Task::Hash { password, reply }).await
    }

    /// Checks `password` against `stored`, a PHC string or what [`crate::user_manager`] took in from another system.
    /// With `None` the same job runs against the decoy that the seed `decoy` stands for; so it does where `stored` is
    /// malformed or dearer than the ceiling. The seed should be a keyed hash of the identifier that the caller gave.
    ///
    /// # Errors
    /// See [`HashError`]; `deadline` is on the clock of the tokio runtime.
    pub async fn verify(
        &self,
        password: Zeroizing<Vec<u8>>,
        stored: Option<String>,
        decoy: [u8; 32],
        deadline: Option<Instant>,
    ) -> Result<Verified, HashError> {
        let password = Presented { normalised: password, typed: None };
        let stored = stored.map(Zeroizing::new);
        self.verify_at(None, Claim { password, stored, decoy, class: None }, deadline).await
    }

    /// As [`Hasher::verify`], at a place that was kept.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn verify_at(
        &self,
        place: Option<Place>,
        claim: Claim,
        deadline: Option<Instant>,
    ) -> Result<Verified, HashError> {
        let priority = match place.as_ref().map(Place::priority) {
            Some(kept @ (Priority::KnownDevice | Priority::Login(_))) => kept,
            _ => Priority::Login(Rank::FIRST),
        };
        self.ask(priority, place, deadline, |reply| Task::Verify { claim, reply }).await
    }

    /// Judges a hash that another system made, by its shape and its cost, and says what to store of it. It is no job.
    pub(crate) fn take_in(&self, text: &str) -> Result<TakenIn, HashProblem> {
        foreign::take_in(text, &self.shared.ceiling)
    }

    /// The present state, read without asking the actor.
    #[must_use]
    pub fn observe(&self) -> HasherState {
        let Shared { queue, counters, kernel, .. } = &*self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        HasherState {
            kernel: *kernel,
            queued: queue.len(),
            bound: queue.bound(),
            workers: read(&counters.workers),
            jobs_done: read(&counters.jobs_done),
            jobs_skipped: read(&counters.jobs_skipped),
            refused: read(&counters.refused),
            panics: read(&counters.panics),
            memory_bytes: read(&counters.memory_bytes),
        }
    }

    /// How many jobs wait, and how long a hash takes once a thread has begun it.
    #[must_use]
    pub fn gauge(&self) -> GaugeReading {
        self.shared.gauge.set_queue_depth(self.shared.queue.len());
        self.shared.gauge.reading()
    }

    /// Makes the next `jobs` computations panic.
    #[cfg(any(test, feature = "testing"))]
    pub fn fail_next(&self, jobs: u64) {
        self.shared.faults.store(jobs, Ordering::SeqCst);
    }

    /// How many hashes were computed with which parameters, decoys among them.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn computed(&self) -> Vec<(HashParameters, u64)> {
        self.shared.computed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// While `held`, no thread takes a job from the queue.
    #[cfg(any(test, feature = "testing"))]
    pub fn hold(&self, held: bool) {
        self.shared.queue.hold(held);
    }

    /// While `held`, no thread takes a rehash from the queue.
    #[cfg(any(test, feature = "testing"))]
    pub fn hold_rehashes(&self, held: bool) {
        self.shared.queue.hold_rehashes(held);
    }

    /// What a hash thread computes with, without the thread and the queue: each call computes one hash on the calling
    /// thread, in memory of its own. Beside it one sees what the queue costs.
    #[cfg(any(test, feature = "testing"))]
    pub fn bare_kernel(&self) -> impl FnMut() -> Result<(), HashError> + use<> {
        let recipe = Recipe::current(self.shared.parameters);
        let mut kernel = Kernel::new(self.shared.kernel, &recipe.parameters);
        move || {
            let input = Input::new(&recipe, b"password", &[0; SALT_BYTES]);
            kernel.compute(&input, &mut [0; TAG_BYTES]).map_err(|_| HashError::Failed)
        }
    }

    async fn ask<T>(
        &self,
        priority: Priority,
        place: Option<Place>,
        deadline: Option<Instant>,
        task: impl FnOnce(Reply<T>) -> Task,
    ) -> Result<T, HashError> {
        let (reply, answer) = oneshot::channel();
        let task = task(reply);
        // Idle while the job waits, busy while a thread computes it.
        let span = tracing::debug_span!("hash", job = task.kind());
        let job = Job { deadline, task, span: span.clone(), since: Instant::now() };
        let reserved = place.is_some_and(|place| place.give_to(priority));
        if let Some((turned_away, error)) = self.shared.queue.push(priority, job, reserved) {
            if error == HashError::Overloaded {
                count(&self.shared.counters.refused);
                telemetry::hash_refused(turned_away.task.kind());
            }
            turned_away.refuse(error);
        }
        let answer = async {
            match deadline {
                Some(deadline) => timeout_at(deadline, answer).await.map_err(|_| HashError::DeadlineExceeded),
                None => Ok(answer.await),
            }
        };
        answer.instrument(span).await?.unwrap_or(Err(HashError::Stopped))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Hasher").field(&self.observe()).finish()
    }
}

/// What came of checking a password. Everything but a match is the same "no" to whoever typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verified {
    /// The password is the stored one.
    Match {
        /// The stored hash was not made as a new one would be: variant, version, costs or lengths differ.
        needs_rehash: bool,
    },
    /// The password is not the stored one.
    Mismatch,
    /// The stored string is no hash that can be checked, or is dearer than its ceiling. A decoy was computed.
    Malformed,
    /// Nothing was stored. A decoy was computed.
    Decoy,
}

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HashError {
    /// The queue is full, or somebody of a higher priority took the place of this job.
    #[error("too many passwords wait to be hashed")]
    Overloaded,
    /// The deadline passed before the answer came.
    #[error("the deadline passed before the password was hashed")]
    DeadlineExceeded,
    /// The job panicked, or the machine refused memory or randomness.
    #[error("hashing the password failed")]
    Failed,
    /// The hasher was closed.
    #[error("the hasher has stopped")]
    Stopped,
}

impl HashError {
    /// The stable name of this error.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// Whether the same job may succeed a little later.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Overloaded | Self::DeadlineExceeded)
    }
}

/// What an operator or a test can see of the hasher. Every count runs since [`Hasher::new`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HasherState {
    /// What computes the hashes.
    pub kernel: HashKernel,
    /// Jobs that wait, those of known devices among them.
    pub queued: usize,
    /// Jobs that may wait, but for those of known devices, of which a quarter as many may. Where the settings do not say, it changes once: when the first hashes were timed.
    pub bound: usize,
    /// Threads that live.
    pub workers: u64,
    /// Hashes that were computed, decoys among them.
    pub jobs_done: u64,
    /// Jobs that a thread laid aside unhashed, because the caller had left or the deadline had passed.
    pub jobs_skipped: u64,
    /// Jobs that were turned away as overload.
    pub refused: u64,
    /// Jobs that panicked.
    pub panics: u64,
    /// Bytes of argon2 memory that the threads hold between two jobs.
    pub memory_bytes: u64,
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const DECOY: [u8; 32] = [9; 32];

    fn settings(workers: usize, queue: usize) -> HasherSettings {
        HasherSettings {
            workers: Some(workers),
            queue: Some(queue),
            parameters: HashParameters::cheap_for_tests(),
            ..HasherSettings::default()
        }
    }

    async fn running(workers: usize, queue: usize) -> (Hasher, ActorRef<HasherMessage>) {
        let hasher = Hasher::new(&settings(workers, queue)).unwrap();
        let actor = hasher.start(None).await.unwrap();
        (hasher, actor)
    }

    fn password(text: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(text.as_bytes().to_vec())
    }

    async fn hash(hasher: &Hasher, text: &str) -> Result<PhcString, HashError> {
        hasher.hash(password(text), None).await
    }

    async fn verify(hasher: &Hasher, text: &str, stored: Option<&str>) -> Result<Verified, HashError> {
        hasher.verify(password(text), stored.map(str::to_owned), DECOY, None).await
    }

    /// Starts a job and returns once it is in the queue.
    async fn enqueue<T: Send + 'static>(
        hasher: &Hasher,
        job: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let before = hasher.observe().queued;
        let task = tokio::spawn(job);
        while hasher.observe().queued == before {
            tokio::task::yield_now().await;
        }
        task
    }

    async fn enqueue_hash(
        hasher: &Hasher,
        text: &'static str,
    ) -> tokio::task::JoinHandle<Result<PhcString, HashError>> {
        let caller = hasher.clone();
        enqueue(hasher, async move { hash(&caller, text).await }).await
    }

    #[tokio::test]
    async fn a_hash_is_verified_by_its_password_and_no_other() {
        let (hasher, _actor) = running(2, 8).await;
        let stored = hash(&hasher, "correct horse").await.unwrap().into_string();
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        let current = Verified::Match { needs_rehash: false };
        assert_eq!(verify(&hasher, "correct horse", Some(&stored)).await, Ok(current));
        assert_eq!(verify(&hasher, "correct horsf", Some(&stored)).await, Ok(Verified::Mismatch));
        assert_eq!(verify(&hasher, "", Some(&stored)).await, Ok(Verified::Mismatch));
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let (hasher, _actor) = running(1, 8).await;
        assert_ne!(hash(&hasher, "same").await.unwrap(), hash(&hasher, "same").await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_made_otherwise_matches_and_asks_for_a_rehash() {
        let (hasher, _actor) = running(1, 8).await;
        let reference = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let outdated = Verified::Match { needs_rehash: true };
        assert_eq!(verify(&hasher, "password", Some(reference)).await, Ok(outdated));
        assert_eq!(verify(&hasher, "Password", Some(reference)).await, Ok(Verified::Mismatch));
    }

    /// It stands for one that is too long as well.
    #[tokio::test]
    async fn no_password_matches_no_hash_of_nothing_that_another_system_made() {
        let (hasher, _actor) = running(1, 8).await;
        for (text, verdict) in [("", Verified::Mismatch), ("x", Verified::Match { needs_rehash: true })] {
            let foreign = format!("argon2{}", hash(&hasher, text).await.unwrap().into_string());
            assert_eq!(verify(&hasher, text, Some(&foreign)).await, Ok(verdict), "{text}");
        }
    }

    #[tokio::test]
    async fn unknown_malformed_and_too_dear_cost_exactly_one_ordinary_hash() {
        let (hasher, _actor) = running(1, 8).await;
        let tag = "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        let four_gib = format!("$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ${tag}");
        let cases = [
            (None, Verified::Decoy),
            (Some(""), Verified::Malformed),
            (Some("$2b$12$abcdefghijklmnopqrstuv"), Verified::Malformed),
            (Some(four_gib.as_str()), Verified::Malformed),
        ];
        for (index, (stored, verdict)) in cases.into_iter().enumerate() {
            assert_eq!(verify(&hasher, "password", stored).await, Ok(verdict));
            let state = hasher.observe();
            assert_eq!(state.jobs_done, index as u64 + 1);
            assert_eq!(state.memory_bytes, 64 * 1_024);
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_serves_those_inside() {
        let (hasher, _actor) = running(2, 2).await;
        hasher.hold(true);
        let inside = [enqueue_hash(&hasher, "first").await, enqueue_hash(&hasher, "second").await];
        assert_eq!(hash(&hasher, "third").await, Err(HashError::Overloaded));
        assert_eq!((hasher.observe().refused, hasher.observe().queued), (1, 2));
        hasher.hold(false);
        for task in inside {
            assert!(task.await.unwrap().is_ok());
        }
    }

    #[tokio::test]
    async fn a_place_that_is_kept_is_there_when_its_job_comes_and_free_when_it_does_not() {
        let (hasher, _actor) = running(1, 1).await;
        hasher.hold(true);
        let given_up = hasher.keep_place_for_login(Rank::FIRST);
        assert!(given_up.is_some() && hasher.keep_place_for_new_hash().is_none());
        drop(given_up);
        let place = hasher.keep_place_for_login(Rank::FIRST);
        assert!(place.is_some() && hasher.keep_place_for_login(Rank::FIRST).is_none());
        assert_eq!(verify(&hasher, "without a place", None).await, Err(HashError::Overloaded));
        let (caller, password) = (hasher.clone(), Presented { normalised: password("let in"), typed: None });
        let claim = Claim { password, stored: None, decoy: DECOY, class: None };
        let login = enqueue(&hasher, async move { caller.verify_at(place, claim, None).await }).await;
        hasher.hold(false);
        assert_eq!(login.await.unwrap(), Ok(Verified::Decoy));
        assert_eq!(hasher.observe().refused, 3);
    }

    #[tokio::test]
    async fn a_login_passes_a_queue_full_of_registrations() {
        let (hasher, _actor) = running(1, 2).await;
        hasher.hold(true);
        let older = enqueue_hash(&hasher, "older").await;
        let younger = enqueue_hash(&hasher, "younger").await;
        let caller = hasher.clone();
        let login = tokio::spawn(async move { verify(&caller, "password", None).await });
        assert_eq!(younger.await.unwrap(), Err(HashError::Overloaded));
        hasher.hold(false);
        assert_eq!(login.await.unwrap(), Ok(Verified::Decoy));
        assert!(older.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_login_is_answered_before_an_earlier_registration() {
        let (hasher, _actor) = running(1, 8).await;
        hasher.hold(true);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (caller, seen) = (hasher.clone(), Arc::clone(&order));
        let registration = enqueue(&hasher, async move {
            hash(&caller, "password").await.unwrap();
            seen.lock().unwrap().push("registration");
        });
        let registration = registration.await;
        let (caller, seen) = (hasher.clone(), Arc::clone(&order));
        let login = enqueue(&hasher, async move {
            verify(&caller, "password", None).await.unwrap();
            seen.lock().unwrap().push("login");
        });
        let login = login.await;
        hasher.hold(false);
        login.await.unwrap();
        registration.await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["login", "registration"]);
    }

    #[tokio::test]
    async fn a_job_whose_caller_left_is_not_hashed() {
        let (hasher, _actor) = running(1, 8).await;
        hasher.hold(true);
        let caller = enqueue_hash(&hasher, "gone").await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        hasher.hold(false);
        hash(&hasher, "still here").await.unwrap();
        let state = hasher.observe();
        assert_eq!((state.jobs_skipped, state.jobs_done), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_whose_deadline_passed_is_not_hashed() {
        let (hasher, _actor) = running(1, 8).await;
        hasher.hold(true);
        let deadline = Instant::now() + Duration::from_secs(1);
        let late = hasher.hash(password("late"), Some(deadline)).await;
        assert_eq!(late, Err(HashError::DeadlineExceeded));
        hasher.hold(false);
        hash(&hasher, "in time").await.unwrap();
        let state = hasher.observe();
        assert_eq!((state.jobs_skipped, state.jobs_done), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_reads_deadlines_on_the_clock_of_the_runtime() {
        let (hasher, _actor) = running(1, 8).await;
        hasher.hold(true);
        let (reply, answer) = oneshot::channel();
        let task = Task::Hash { password: password("late"), reply };
        let deadline = Some(Instant::now() + Duration::from_secs(3_600));
        assert!(
            hasher
                .shared
                .queue
                .push(
                    Priority::Background,
                    Job { deadline, task, span: tracing::Span::none(), since: Instant::now() },
                    false
                )
                .is_none()
        );
        tokio::time::advance(Duration::from_secs(3_600)).await;
        hasher.hold(false);
        assert_eq!(answer.await.unwrap(), Err(HashError::DeadlineExceeded));
        assert_eq!(hasher.observe().jobs_skipped, 1);
    }

    #[tokio::test]
    async fn a_panic_costs_one_job_and_no_thread() {
        let (hasher, _actor) = running(1, 8).await;
        hasher.fail_next(1);
        assert_eq!(hash(&hasher, "unlucky").await, Err(HashError::Failed));
        assert!(hash(&hasher, "lucky").await.is_ok());
        hasher.fail_next(1);
        assert_eq!(verify(&hasher, "unlucky", None).await, Err(HashError::Failed));
        let state = hasher.observe();
        assert_eq!((state.panics, state.jobs_done, state.workers), (2, 1, 1));
        assert_eq!(state.memory_bytes, 64 * 1_024);
    }

    #[tokio::test]
    async fn waiting_jobs_survive_the_death_of_the_actor() {
        let (hasher, actor) = running(2, 8).await;
        hasher.hold(true);
        let waiting = [enqueue_hash(&hasher, "first").await, enqueue_hash(&hasher, "second").await];
        actor.kill();
        actor.wait(None).await.unwrap();
        while hasher.observe().workers != 0 {
            tokio::task::yield_now().await;
        }
        hasher.hold(false);
        assert_eq!(hasher.observe().memory_bytes, 0);
        assert_eq!(hasher.observe().queued, 2);
        let _next = hasher.start(None).await.unwrap();
        for task in waiting {
            assert!(task.await.unwrap().is_ok());
        }
        assert_eq!(hasher.observe().jobs_done, 2);
    }

    #[tokio::test]
    async fn a_graceful_stop_joins_the_threads_and_leaves_nobody_waiting() {
        let (hasher, actor) = running(2, 8).await;
        hasher.hold(true);
        let waiting = enqueue_hash(&hasher, "waiting").await;
        actor.stop(None);
        actor.wait(None).await.unwrap();
        assert_eq!((hasher.observe().workers, hasher.observe().memory_bytes), (0, 0));
        assert_eq!(waiting.await.unwrap(), Err(HashError::Stopped));
        assert_eq!(hash(&hasher, "late").await, Err(HashError::Stopped));
        hasher.hold(false);
        let _next = hasher.start(None).await.unwrap();
        assert!(hash(&hasher, "again").await.is_ok());
    }

    #[tokio::test]
    async fn the_actor_answers_with_what_the_handle_shows() {
        let (hasher, actor) = running(2, 8).await;
        hash(&hasher, "password").await.unwrap();
        let told = ractor::call!(actor, HasherMessage::Observe).unwrap();
        assert_eq!((told.jobs_done, told.bound, told.queued), (1, 8, 0));
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<HasherState>(&text).unwrap(), told);
    }

    #[tokio::test]
    async fn without_a_given_bound_the_first_hashes_set_it() {
        let hasher = Hasher::new(&HasherSettings { queue: None, ..settings(3, 1) }).unwrap();
        let assumed = hasher.observe().bound;
        assert_eq!(assumed, 3 * 12_500);
        let _actor = hasher.start(None).await.unwrap();
        let dearer = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        for _ in 0..pace::TIMED {
            verify(&hasher, "password", Some(dearer)).await.unwrap();
        }
        for _ in 1..pace::TIMED {
            hash(&hasher, "password").await.unwrap();
        }
        assert_eq!(hasher.observe().bound, assumed);
        hash(&hasher, "password").await.unwrap();
        let pace = hasher.shared.pace.as_ref().unwrap();
        assert!(pace.measured_bound(Duration::from_secs(1)).is_some(), "the first ones were timed");
        assert!(hasher.observe().bound > 3);
    }

    #[tokio::test]
    async fn without_patience_as_many_wait_as_there_are_workers() {
        let impatient = HasherSettings { queue: None, patience: Duration::ZERO, ..settings(3, 1) };
        let hasher = Hasher::new(&impatient).unwrap();
        let _actor = hasher.start(None).await.unwrap();
        for _ in 0..=pace::TIMED {
            assert_eq!(hasher.observe().bound, 3);
            hash(&hasher, "password").await.unwrap();
        }
    }

    #[cfg(feature = "argon2-simd")]
    #[tokio::test]
    async fn what_fails_its_self_test_hashes_no_password_and_the_state_tells() {
        let fallen_back = HashKernel::judge(&mut |_, _| Err(kernel::Refused));
        let plain = Hasher::with_kernel(&settings(1, 8), fallen_back);
        assert_eq!(plain.observe().kernel, HashKernel::Argon2);
        let (simd, _actor) = running(1, 8).await;
        assert_eq!(simd.observe().kernel, HashKernel::Argon2Simd);
        let _actor = plain.start(None).await.unwrap();
        let stored = hash(&plain, "password").await.unwrap().into_string();
        assert_eq!(verify(&simd, "password", Some(&stored)).await, Ok(Verified::Match { needs_rehash: false }));
    }

    #[test]
    fn broken_settings_make_no_hasher() {
        let broken = HasherSettings { workers: Some(0), ..settings(1, 1) };
        assert_eq!(Hasher::new(&broken).unwrap_err(), HasherSettingsError::NoWorkers);
    }
}
