//! The lookout: asks the service on a thread of its own, at most so long, and compares what it answers here.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha1::{Digest, Sha1};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use zeroize::{Zeroize, Zeroizing};

use super::{BreachCheck, BreachCheckFailure, BreachedSuffix, HashPrefix, PREFIX_DIGITS, SUFFIX_DIGITS};
use crate::breaker::{Admission, Breaker, Terms};
use crate::host::{Guest, Host};

/// What new passwords are held against, if the host gave something.
#[derive(Clone, Default)]
pub struct Lookout(Option<Arc<Post>>);

struct Post {
    check: BreachCheck,
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    /// Where the service runs; started when first needed.
    host: Option<Host>,
}

impl fmt::Debug for Lookout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Lookout").field(&self.0.as_ref().map(|post| &post.check)).finish()
    }
}

impl Lookout {
    /// Asks on these terms.
    pub fn new(check: BreachCheck) -> Self {
        let terms = Terms { failures: check.failures, cool_down: check.cool_down };
        let places = Arc::new(Semaphore::new(check.concurrency));
        let state = Mutex::new(State { breaker: Breaker::new(terms), host: None });
        Self(Some(Arc::new(Post { check, places, state })))
    }

    /// Whether there is anybody to ask.
    pub(crate) const fn is_manned(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the password is known from a breach; nobody's is if there is nobody to ask. Waits at most until the check's
    /// deadline, and the caller's.
    pub(crate) async fn is_breached(
        &self,
        password: &[u8],
        until: Option<Instant>,
    ) -> Result<bool, BreachCheckFailure> {
        let Some(post) = &self.0 else { return Ok(false) };
        let (prefix, suffix) = digits(password);
        let known = Question::begin(post, prefix)?.finish(until).await?;
        Ok(known.iter().any(|known| known.count > 0 && known.suffix == *suffix))
    }
}

impl Post {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question under way. Dropped before its end, it is ended on the service's thread, as far as that listens.
struct Question<'a> {
    post: &'a Post,
    task: JoinHandle<Result<Vec<BreachedSuffix>, BreachCheckFailure>>,
    admission: Option<Admission>,
    until: Instant,
}

impl<'a> Question<'a> {
    fn begin(post: &'a Post, prefix: HashPrefix) -> Result<Self, BreachCheckFailure> {
        let now = Instant::now();
        let mut state = post.state();
        let admission = state.breaker.admit(now).ok_or(BreachCheckFailure::Suspended)?;
        let Ok(place) = Arc::clone(&post.places).try_acquire_owned() else {
            // It says nothing of the service's health.
            state.breaker.abandoned(admission, now);
            return Err(BreachCheckFailure::Overloaded);
        };
        if state.host.is_none() {
            state.host = Host::start("breaches", Guest::Guard)
                .inspect_err(|error| tracing::error!(%error, "no thread for the check of breached passwords"))
                .ok();
        }
        let Some(host) = &state.host else {
            state.breaker.failed(admission, now);
            return Err(BreachCheckFailure::OutOfService);
        };
        let service = Arc::clone(&post.check.service);
        let task = host.spawn(async move {
            let _place = place;
            service.range(prefix).await
        });
        let until = now.checked_add(post.check.deadline).unwrap_or(now);
        Ok(Self { post, task, admission: Some(admission), until })
    }

    async fn finish(mut self, until: Option<Instant>) -> Result<Vec<BreachedSuffix>, BreachCheckFailure> {
        let limit = until.map_or(self.until, |until| until.min(self.until));
        let answer = match timeout_at(limit, &mut self.task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.is_panic() => Err(BreachCheckFailure::Panicked),
            Ok(Err(_)) => Err(BreachCheckFailure::OutOfService),
            // The caller waits no longer, which says nothing of the service.
            Err(_) if limit < self.until => return Err(BreachCheckFailure::DeadlineExceeded),
            Err(_) => Err(BreachCheckFailure::DeadlineExceeded),
        };
        self.note(answer.as_ref().err());
        answer
    }

    fn note(&mut self, failure: Option<&BreachCheckFailure>) {
        let Some(admission) = self.admission.take() else { return };
        let mut state = self.post.state();
        let Some(failure) = failure else { return state.breaker.answered(admission) };
        let was_open = state.breaker.is_open();
        state.breaker.failed(admission, Instant::now());
        if state.breaker.is_open() && !was_open {
            tracing::warn!(failure = failure.as_str(), "the check of breached passwords failed too often and rests");
        }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.post.state().breaker.abandoned(admission, Instant::now());
        }
        self.task.abort();
    }
}

/// The hexadecimal digits of the password's SHA-1: those that are given away, and the others.
fn digits(password: &[u8]) -> (HashPrefix, Zeroizing<[u8; SUFFIX_DIGITS]>) {
    let mut hash = Sha1::digest(password);
    let (mut prefix, mut suffix) = ([0; PREFIX_DIGITS], Zeroizing::new([0; SUFFIX_DIGITS]));
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let places = prefix.iter_mut().chain(suffix.iter_mut());
    places
        .zip(nibbles)
        .for_each(|(place, nibble)| *place = if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 });
    hash.as_mut_slice().zeroize();
    (HashPrefix(prefix), suffix)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::super::BreachedPasswords;
    use super::*;

    /// The SHA-1 of `password`, which is as well known.
    const SUFFIX: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";

    type Answer = Result<Vec<BreachedSuffix>, BreachCheckFailure>;

    struct Service<F> {
        asked: Arc<AtomicUsize>,
        answer: F,
    }

    impl<F: Fn() -> Option<Answer> + Send + Sync + 'static> BreachedPasswords for Service<F> {
        async fn range(&self, prefix: HashPrefix) -> Answer {
            assert_eq!(prefix.as_str(), "5BAA6");
            self.asked.fetch_add(1, Ordering::SeqCst);
            match (self.answer)() {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    fn check(answer: impl Fn() -> Option<Answer> + Send + Sync + 'static) -> (BreachCheck, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        (BreachCheck::new(Service { asked: Arc::clone(&asked), answer }), asked)
    }

    async fn ask(lookout: &Lookout) -> Result<bool, BreachCheckFailure> {
        lookout.is_breached(b"password", None).await
    }

    #[tokio::test]
    async fn nobody_is_asked_where_nobody_is_given() {
        assert_eq!(ask(&Lookout::default()).await, Ok(false));
    }

    #[tokio::test]
    async fn what_fits_whole_and_was_seen_is_breached() {
        let other = SUFFIX.replace("D8", "D9");
        for (known, breached) in [(vec![(SUFFIX, 1)], true), (vec![(&other, 9)], false), (vec![(SUFFIX, 0)], false)] {
            let known: Vec<_> = known.into_iter().map(|(it, count)| BreachedSuffix::new(it, count).unwrap()).collect();
            let (check, _) = check(move || Some(Ok(known.clone())));
            assert_eq!(ask(&Lookout::new(check)).await, Ok(breached));
        }
    }

    #[tokio::test]
    async fn a_panic_and_an_error_are_the_checks_own() {
        let (panicking, _) = check(|| panic!("on purpose"));
        assert_eq!(ask(&Lookout::new(panicking)).await, Err(BreachCheckFailure::Panicked));
        let (failing, _) = check(|| Some(Err(BreachCheckFailure::Unreachable)));
        assert_eq!(ask(&Lookout::new(failing)).await, Err(BreachCheckFailure::Unreachable));
    }

    #[tokio::test]
    async fn after_failures_in_a_row_it_rests_and_is_tried_once() {
        let (check, asked) = check(|| Some(Err(BreachCheckFailure::Unreachable)));
        let lookout = Lookout::new(check.breaker(2, Duration::from_nanos(1)));
        for failure in [BreachCheckFailure::Unreachable; 3] {
            assert_eq!(ask(&lookout).await, Err(failure));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3, "a pause of a nanosecond is over at once");
        let lookout = {
            let (check, _) = self::check(|| Some(Err(BreachCheckFailure::Unreachable)));
            Lookout::new(check.breaker(1, Duration::from_secs(60)))
        };
        assert_eq!(ask(&lookout).await, Err(BreachCheckFailure::Unreachable));
        assert_eq!(ask(&lookout).await, Err(BreachCheckFailure::Suspended));
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait_and_the_callers_own_says_nothing_of_the_service() {
        let (check, _) = check(|| None);
        let lookout = Lookout::new(check.deadline(Duration::from_millis(1)).breaker(1, Duration::from_secs(60)));
        let past = Some(Instant::now());
        for _ in 0..2 {
            assert_eq!(lookout.is_breached(b"password", past).await, Err(BreachCheckFailure::DeadlineExceeded));
        }
        assert_eq!(ask(&lookout).await, Err(BreachCheckFailure::DeadlineExceeded));
        assert_eq!(ask(&lookout).await, Err(BreachCheckFailure::Suspended));
    }

    #[tokio::test]
    async fn no_more_are_asked_at_once_than_may_be() {
        let (check, asked) = check(|| None);
        let lookout = Lookout::new(check.concurrency(1).deadline(Duration::from_secs(60)));
        let waiting = lookout.clone();
        let first = tokio::spawn(async move { waiting.is_breached(b"password", None).await });
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&lookout).await, Err(BreachCheckFailure::Overloaded));
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
    }
}
