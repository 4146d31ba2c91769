//! Guards: code of the app that is asked before a registration, login, update or deletion is committed.

mod panel;
mod request;
mod station;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use majordomo_model::{DenialCode, FlowKind, GuardFailure};
use serde::{Deserialize, Serialize};

pub use self::panel::Panel;
pub(crate) use self::panel::{Cut, Lapse, Outcome, Verdict};
pub use self::request::{Amendment, GUARDED_FLOWS, GuardRequest, Proposal};
use crate::gauge::GaugeReading;
use crate::host::{Guest, guest};

/// The longest name of a guard, in bytes.
const NAME_LIMIT: usize = 64;
/// The longest deadline or pause.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How many threads a guard may block before it is asked no more.
const BLOCKED_THREADS: usize = 4;

/// Is asked before a flow is committed, and may deny it or amend what it stores.
///
/// A guard is asked once the flow has succeeded but for the commit: never about a request that is refused anyway, so
/// never after a wrong password. What it sees is a snapshot; if that changes before the commit, it is asked again, so a
/// guard must bear being asked about what is never committed. Deny for a login tells the caller that the password was
/// right.
///
/// It runs on a thread of its own. Blocking there blocks this guard only, and ends at its deadline as far as the flow is
/// concerned. It cannot ask the system for a flow in turn, which is refused with
/// [`Error::CalledFromGuard`](majordomo_model::Error::CalledFromGuard); reading a snapshot is permitted. A guard that
/// keeps a handle of the system keeps the system alive, too.
///
/// A crash of the process before the ruling, or between the ruling and the commit, leaves nothing of the flow; after the
/// commit all of it is there. A ruling is never stored by itself: the same command sent again is judged again, unless
/// it was done.
///
/// ```
/// use majordomo_actors::guard::{Amendment, Guard, GuardRequest, Proposal, Ruling};
///
/// /// Only who was invited registers, and starts on the free plan.
/// struct Invited {
///     addresses: Vec<String>,
/// }
///
/// impl Guard for Invited {
///     async fn check(&self, request: &GuardRequest) -> Ruling {
///         match &request.proposal {
///             Proposal::Register { email: Some(email), .. }
///                 if self.addresses.iter().any(|address| address == email.canonical()) =>
///             {
///                 Ruling::Amend(Amendment::new().attribute("plan", Some("free".into())))
///             }
///             Proposal::Register { .. } => Ruling::deny("invite_required"),
///             _ => Ruling::Allow,
///         }
///     }
/// }
/// ```
pub trait Guard: Send + Sync + 'static {
    /// Judges what is about to be committed. A panic is a failure of the guard, not of the flow.
    fn check(&self, request: &GuardRequest) -> impl Future<Output = Ruling> + Send;
}

/// What a guard says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Ruling {
    /// It may be committed.
    Allow,
    /// It may not, for this reason; the caller is told the code.
    Deny(DenialCode),
    /// It may be committed, changed so. An amendment of nothing is `Allow`.
    Amend(Amendment),
}

impl Ruling {
    /// A denial with this code, in the form that is [fitted](DenialCode::fitted) if it is none.
    #[must_use]
    pub fn deny(code: &str) -> Self {
        Self::Deny(DenialCode::fitted(code))
    }
}

/// What becomes of a flow when its guard gives no ruling: it panics, is late, is overloaded, or is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailMode {
    /// The flow goes on; a signal tells so. For guards that are a convenience.
    Open,
    /// The flow ends with [`Error::GuardUnavailable`](majordomo_model::Error::GuardUnavailable). For guards that are a
    /// protection: whoever can break them must not get past them.
    Closed,
}

/// A guard with its settings, for the builder.
#[derive(Clone)]
pub struct GuardRegistration {
    name: String,
    guard: BoxedGuard,
    flows: Vec<FlowKind>,
    on_failure: FailMode,
    shadow: bool,
    deadline: Duration,
    failures: u32,
    cool_down: Duration,
    concurrency: usize,
}

impl GuardRegistration {
    /// A guard of these flows, of [`GUARDED_FLOWS`]. There is no default for what happens when it fails: either may be
    /// the wrong one, so it must be said.
    pub fn new(
        name: impl Into<String>,
        flows: impl IntoIterator<Item = FlowKind>,
        on_failure: FailMode,
        guard: impl Guard,
    ) -> Self {
        Self {
            name: name.into(),
            guard: Arc::new(guard),
            flows: flows.into_iter().collect(),
            on_failure,
            shadow: false,
            deadline: Duration::from_secs(1),
            failures: 5,
            cool_down: Duration::from_secs(10),
            concurrency: 64,
        }
    }

    /// It is asked and not waited for, and what it says changes nothing: what it would have denied is counted, and told
    /// once a second as `guard_would_deny`. For trying a guard out. Default: no.
    #[must_use]
    pub const fn shadow(mut self) -> Self {
        self.shadow = true;
        self
    }

    /// How long one check may take. Default 1 second: somebody is waiting. The flow's own deadline holds besides.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// After how many failures in a row (panics and missed deadlines) it is left alone, and for how long, until one
    /// flow tries it again. Default 5 and 10 seconds: a guard that is down costs a few callers its deadline, not all.
    #[must_use]
    pub const fn breaker(mut self, failures: u32, cool_down: Duration) -> Self {
        self.failures = failures;
        self.cool_down = cool_down;
        self
    }

    /// How many checks may be under way at once; one more fails at once. Default 64: what a guard holds is bounded.
    #[must_use]
    pub const fn concurrency(mut self, checks: usize) -> Self {
        self.concurrency = checks;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every fault of these settings, as sentences for whoever wrote them.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |holds: bool, what: &str| {
            if !holds {
                faults.push(format!("guard {:?}: {what}", self.name));
            }
        };
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        let is_name = (1..=NAME_LIMIT).contains(&self.name.len()) && self.name.bytes().all(fits);
        fault(is_name, "the name has 1 to 64 of a-z 0-9 _ . -");
        let is_guarded = |flow: &FlowKind| GUARDED_FLOWS.contains(flow);
        fault(
            !self.flows.is_empty() && self.flows.iter().all(is_guarded),
            "the flows are some of register, authenticate, update, delete",
        );
        let is_wait = |span: Duration| !span.is_zero() && span <= LONGEST_WAIT;
        fault(is_wait(self.deadline), "the deadline is longer than nothing, and an hour at most");
        let is_breaker = self.failures > 0 && is_wait(self.cool_down);
        fault(
            is_breaker,
            "the breaker opens after 1 failure at the earliest, for more than nothing and an hour at most",
        );
        fault((1..=10_000).contains(&self.concurrency), "1 to 10,000 checks at once");
        faults
    }
}

impl fmt::Debug for GuardRegistration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GuardRegistration")
            .field("name", &self.name)
            .field("flows", &self.flows)
            .field("on_failure", &self.on_failure)
            .field("shadow", &self.shadow)
            .finish_non_exhaustive()
    }
}

/// How a guard is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GuardState {
    /// Its name.
    pub name: String,
    /// The flows it guards.
    pub flows: Vec<FlowKind>,
    /// What becomes of a flow when it fails.
    pub on_failure: FailMode,
    /// Whether what it says changes nothing.
    pub shadow: bool,
    /// How many checks were begun since the system was started.
    pub asked: u64,
    /// How many it allowed.
    pub allowed: u64,
    /// How many it denied; in shadow mode, would have denied.
    pub denied: u64,
    /// How many it amended; in shadow mode, would have amended.
    pub amended: u64,
    /// How often it gave no ruling that holds, whether or not it was asked.
    pub failed: u64,
    /// Whether its circuit breaker is open: it is being left alone, or on trial.
    pub open: bool,
    /// How many checks are under way.
    pub in_hand: usize,
    /// How many threads it blocks that were given up; with 4 of them it is asked no more until one comes back.
    pub threads_abandoned: usize,
    /// Whether it has blocked all the threads it may.
    pub out_of_service: bool,
    /// The last failure.
    pub last_failure: Option<GuardFailure>,
    /// How long its checks took, up to the deadline.
    pub gauge: GaugeReading,
}

/// Whether the calling thread belongs to a guard, which must not wait for what may wait for it.
pub(crate) fn is_asking() -> bool {
    guest() == Some(Guest::Guard)
}

/// A guard of any type.
type BoxedGuard = Arc<dyn ErasedGuard>;

/// [`Guard`] in a form that can be boxed.
trait ErasedGuard: Send + Sync + 'static {
    fn check<'a>(&'a self, request: &'a GuardRequest) -> Pin<Box<dyn Future<Output = Ruling> + Send + 'a>>;
}

impl<G: Guard> ErasedGuard for G {
    fn check<'a>(&'a self, request: &'a GuardRequest) -> Pin<Box<dyn Future<Output = Ruling> + Send + 'a>> {
        Box::pin(Guard::check(self, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Anyone;

    impl Guard for Anyone {
        async fn check(&self, _request: &GuardRequest) -> Ruling {
            Ruling::Allow
        }
    }

    #[test]
    fn settings_that_cannot_be_used_are_named_all_at_once() {
        let new =
            |name: &str, flows: &[FlowKind]| GuardRegistration::new(name, flows.to_vec(), FailMode::Closed, Anyone);
        assert_eq!(new("invites", &GUARDED_FLOWS).faults(), Vec::<String>::new());
        assert_eq!(new("no name", &[]).faults().len(), 2);
        assert_eq!(new("", &[FlowKind::LogOut]).faults().len(), 2);
        let nothing = new("x", &GUARDED_FLOWS).deadline(Duration::ZERO).breaker(0, Duration::ZERO).concurrency(0);
        assert_eq!(nothing.faults().len(), 3);
    }

    #[test]
    fn a_code_is_fitted_rather_than_refused() {
        assert_eq!(Ruling::deny("Invite required"), Ruling::Deny(DenialCode::parse("invite_required").unwrap()));
    }
}
