//! Breaches: a service that knows passwords from breaches, asked about a new one by the first digits of its hash alone.

mod lookout;
#[cfg(feature = "webhook")]
mod pwned;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use majordomo_model::BreachCheckFailure;

pub use self::lookout::Lookout;
#[cfg(feature = "webhook")]
pub use self::pwned::{PwnedFault, PwnedPasswords, PwnedSettings};
#[cfg(feature = "webhook")]
pub use crate::http::{HttpFault, HttpSettings};

/// Digits of a SHA-1 in hexadecimal that are given away.
const PREFIX_DIGITS: usize = 5;
/// Those that are not.
const SUFFIX_DIGITS: usize = 35;
/// The longest deadline or pause.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Knows passwords from breaches.
///
/// It is asked about a new password, at a registration, a change or a reset, once every other rule is kept and before the
/// password is hashed; whether an address is taken makes no difference. It learns five hexadecimal digits of the password's
/// SHA-1, which one in a million passwords shares, and answers with all that it knows that begin so (k-anonymity). What fits
/// is refused as `password_breached`.
///
/// It runs on a thread of its own. A panic, an error or a missed deadline is a failure of the check: the flow goes on as if
/// nothing was known, and `breach_check_failed` is told in its commit.
///
/// ```
/// use majordomo_actors::breach::{BreachCheckFailure, BreachedPasswords, BreachedSuffix, HashPrefix};
///
/// /// A copy of a list, of which this is all.
/// struct Copy(Vec<(String, u64)>);
///
/// impl BreachedPasswords for Copy {
///     async fn range(&self, prefix: HashPrefix) -> Result<Vec<BreachedSuffix>, BreachCheckFailure> {
///         let of_prefix = |(hash, count): &(String, u64)| Some((hash.strip_prefix(prefix.as_str())?.to_owned(), *count));
///         let known = self.0.iter().filter_map(of_prefix);
///         known.map(|(suffix, count)| BreachedSuffix::new(&suffix, count).ok_or(BreachCheckFailure::Malformed)).collect()
///     }
/// }
/// ```
pub trait BreachedPasswords: Send + Sync + 'static {
    /// What is known of passwords whose SHA-1 begins with these digits.
    ///
    /// # Errors
    /// Why nothing was found out; the word is told in the signal.
    fn range(&self, prefix: HashPrefix)
    -> impl Future<Output = Result<Vec<BreachedSuffix>, BreachCheckFailure>> + Send;
}

/// The first five hexadecimal digits of a SHA-1, in capitals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashPrefix([u8; PREFIX_DIGITS]);

impl HashPrefix {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The other 35 digits of a SHA-1 that is known, and how often it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BreachedSuffix {
    suffix: [u8; SUFFIX_DIGITS],
    count: u64,
}

impl BreachedSuffix {
    /// Of 35 hexadecimal digits, in capitals or not; nothing of any other text. A count of 0 says that it is padding, which
    /// hides from listeners how much is known, and fits no password.
    #[must_use]
    pub fn new(suffix: &str, count: u64) -> Option<Self> {
        let mut suffix: [u8; SUFFIX_DIGITS] = suffix.as_bytes().try_into().ok()?;
        suffix.make_ascii_uppercase();
        suffix.iter().all(u8::is_ascii_hexdigit).then_some(Self { suffix, count })
    }

    /// How often it was seen.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }
}

/// A service to ask, with the terms on which it is asked. For the builder.
#[derive(Clone)]
pub struct BreachCheck {
    service: Arc<dyn ErasedService>,
    deadline: Duration,
    failures: u32,
    cool_down: Duration,
    concurrency: usize,
}

impl BreachCheck {
    /// Asks this service.
    pub fn new(service: impl BreachedPasswords) -> Self {
        Self {
            service: Arc::new(service),
            deadline: Duration::from_secs(2),
            failures: 5,
            cool_down: Duration::from_secs(10),
            concurrency: 64,
        }
    }

    /// How long an answer is waited for. Default 2 seconds, at most 60: somebody is waiting. The flow's own deadline holds
    /// besides.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// After how many failures in a row it is left alone, and for how long, until one flow tries it again. Default 5 and 10
    /// seconds: a service that is out costs a few callers its deadline, not all.
    #[must_use]
    pub const fn breaker(mut self, failures: u32, cool_down: Duration) -> Self {
        self.failures = failures;
        self.cool_down = cool_down;
        self
    }

    /// How many questions may be under way at once; one more fails at once. Default 64.
    #[must_use]
    pub const fn concurrency(mut self, questions: usize) -> Self {
        self.concurrency = questions;
        self
    }

    /// Every fault of these terms, as sentences for whoever wrote them.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let is_wait = |span: Duration| !span.is_zero() && span <= LONGEST_WAIT;
        let mut faults = Vec::new();
        if !is_wait(self.deadline) {
            faults.push("breached_passwords: the deadline is longer than nothing, and a minute at most".to_owned());
        }
        if self.failures == 0 || !is_wait(self.cool_down) {
            faults.push(
                "breached_passwords: the breaker opens after 1 failure at the earliest, for more than nothing and a \
                 minute at most"
                    .to_owned(),
            );
        }
        if !(1..=10_000).contains(&self.concurrency) {
            faults.push("breached_passwords: 1 to 10,000 questions at once".to_owned());
        }
        faults
    }
}

impl fmt::Debug for BreachCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BreachCheck").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

type Ranged<'a> = Pin<Box<dyn Future<Output = Result<Vec<BreachedSuffix>, BreachCheckFailure>> + Send + 'a>>;

/// [`BreachedPasswords`] in a form that can be boxed.
trait ErasedService: Send + Sync + 'static {
    fn range(&self, prefix: HashPrefix) -> Ranged<'_>;
}

impl<S: BreachedPasswords> ErasedService for S {
    fn range(&self, prefix: HashPrefix) -> Ranged<'_> {
        Box::pin(BreachedPasswords::range(self, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_is_35_hexadecimal_digits_and_nothing_else() {
        let text = "1e4c9b93f3f0682250b6cf8331b7ee68fd8";
        let suffix = BreachedSuffix::new(text, 7).unwrap();
        assert_eq!(BreachedSuffix::new(&text.to_uppercase(), 7), Some(suffix));
        assert_eq!(suffix.count(), 7);
        for other in ["", &text[1..], &format!("{text}0"), &text.replace('e', "g"), &text.replace("1e", "\u{e9}")] {
            assert_eq!(BreachedSuffix::new(other, 7), None, "{other}");
        }
    }

    #[test]
    fn terms_that_would_not_do_are_named() {
        struct Nobody;
        impl BreachedPasswords for Nobody {
            async fn range(&self, _prefix: HashPrefix) -> Result<Vec<BreachedSuffix>, BreachCheckFailure> {
                Ok(Vec::new())
            }
        }
        let check = BreachCheck::new(Nobody);
        assert_eq!(check.faults(), Vec::<String>::new());
        let check = check.deadline(Duration::from_secs(61)).breaker(0, Duration::from_secs(1)).concurrency(0);
        assert_eq!(check.faults().len(), 3);
    }
}
