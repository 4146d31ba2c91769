//! Limits: how often what costs something, or gives something away, may be asked for or failed at.

use std::time::Duration;

use majordomo_model::{LimitScope, LimitedAction, Timestamp};
use serde::{Deserialize, Serialize};

use crate::storage::LimitRow;

const UNLIMITED: ActionLimits = ActionLimits { account_and_source: None, source: None, network: None, global: None };
/// The longest span that a limit may have.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A budget of attempts: so many at once, and as many again in each span, one by one.
///
/// In any span there are fewer than twice as many: a whole budget at its beginning, and what has come back by its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many at once; 1 to 1,000,000.
    pub attempts: u32,
    /// How long until a budget that was spent altogether is whole again; up to 30 days.
    pub per: Duration,
}

/// The limits on one action. `None` means that this is not limited.
///
/// A request that no source is told of ([`Context::client_ip`](majordomo_model::Context::client_ip)) counts for its account
/// and for everybody; all such requests are one source to an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ActionLimits {
    /// For one account or name, from one source; a known device is a source of its own.
    pub account_and_source: Option<Limit>,
    /// For one source: an IPv4 address, or an IPv6 network of 64 bits.
    pub source: Option<Limit>,
    /// For one IPv6 network of 48 bits.
    pub network: Option<Limit>,
    /// For everybody together. None by default: whoever reaches it shuts out everybody else.
    pub global: Option<Limit>,
}

/// How often what costs something, or gives something away, may be asked for or failed at.
///
/// Wrong passwords, links and codes count, right ones do not; registrations and requests for messages count each. What is
/// beyond a limit is refused at once with `Error::Throttled`, which tells how long to wait; no flow begins. What is done on
/// behalf of an operator or of the system ([`Actor`](majordomo_model::Actor)) is not limited. Counts are stored with the
/// outcomes that they count, and outlive a restart.
///
/// Messages to one address have limits of their own ([`MessageLimits`](super::MessageLimits)), and so has each code
/// (`Policy::code_attempts`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// Wrong passwords. Default: 5 in 10 minutes for an account and source, 50 for a source, 200 for a network.
    pub login: ActionLimits,
    /// Registrations. Default: 20 an hour for a source, 60 for a network.
    pub register: ActionLimits,
    /// Requests for a message that permits a new password. Default: 20 an hour for a source, 60 for a network.
    pub reset: ActionLimits,
    /// Requests for a message that proves an address, and addresses that are added. Default: as for resets.
    pub resend: ActionLimits,
    /// Links that are worth nothing. Default: 50 in 10 minutes for a source, 200 for a network.
    pub verify: ActionLimits,
    /// Codes that are worth nothing. Default: as for links.
    pub code: ActionLimits,
}

impl Default for Limits {
    fn default() -> Self {
        let (minutes, hour) = (Duration::from_secs(600), Duration::from_secs(3_600));
        let limits = |source, network, per| ActionLimits {
            source: Some(Limit { attempts: source, per }),
            network: Some(Limit { attempts: network, per }),
            ..ActionLimits::default()
        };
        let (guesses, messages) = (limits(50, 200, minutes), limits(20, 60, hour));
        let account_and_source = Some(Limit { attempts: 5, per: minutes });
        Self {
            login: ActionLimits { account_and_source, ..guesses },
            register: messages,
            reset: messages,
            resend: messages,
            verify: guesses,
            code: guesses,
        }
    }
}

impl Limits {
    /// No limits at all, for an app that has its own in front.
    #[must_use]
    pub fn none() -> Self {
        let none = UNLIMITED;
        Self { login: none, register: none, reset: none, resend: none, verify: none, code: none }
    }

    /// The limits on an action.
    pub(super) const fn of(&self, action: LimitedAction) -> &ActionLimits {
        match action {
            LimitedAction::Login => &self.login,
            LimitedAction::Register => &self.register,
            LimitedAction::Reset => &self.reset,
            LimitedAction::Resend => &self.resend,
            LimitedAction::Verify => &self.verify,
            LimitedAction::Code => &self.code,
            _ => &UNLIMITED,
        }
    }

    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for action in LimitedAction::ALL {
            for (scope, limit) in self.of(*action).scopes() {
                let fits = |limit: Limit| {
                    (1..=1_000_000).contains(&limit.attempts) && !limit.per.is_zero() && limit.per <= LONGEST
                };
                if !limit.is_none_or(fits) {
                    let (action, scope) = (action.as_str(), scope.as_str());
                    faults.push(format!("policy.limits.{action}.{scope}: 1 to 1000000 in up to 30 days"));
                }
            }
        }
        faults
    }
}

impl ActionLimits {
    /// Each scope with its limit.
    const fn scopes(&self) -> [(LimitScope, Option<Limit>); 4] {
        [
            (LimitScope::AccountAndSource, self.account_and_source),
            (LimitScope::Source, self.source),
            (LimitScope::Network, self.network),
            (LimitScope::Global, self.global),
        ]
    }
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// So many attempts, at least one.
    Some(u32),
    /// Nothing, for so long.
    Nothing(Duration),
}

impl Limit {
    /// How long it takes until one attempt is there again, in whole microseconds, as instants are stored.
    pub(super) fn cost(self) -> Duration {
        let micros = u64::try_from((self.per / self.attempts.max(1)).as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros.max(1))
    }

    /// How long it takes until all are there again.
    pub(super) fn most(self) -> Duration {
        self.cost() * self.attempts
    }

    /// What is left at this time.
    pub(super) fn left(self, row: Option<LimitRow>, now: Timestamp) -> Left {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let (cost, most) = (micros(self.cost()), micros(self.most()));
        let ahead = row.map_or(0, |row| row.whole_at.as_micros().saturating_sub(now.as_micros()));
        // What lies beyond that was written by a clock that was ahead.
        let spent = u64::try_from(ahead).unwrap_or(0).min(most);
        match u32::try_from((most - spent) / cost).unwrap_or(u32::MAX) {
            0 => Left::Nothing(Duration::from_micros((spent + cost).saturating_sub(most))),
            left => Left::Some(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
    const FIVE: Limit = Limit { attempts: 5, per: Duration::from_secs(600) };

    fn after(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    /// Spends as storage does.
    fn spend(limit: Limit, row: Option<LimitRow>, now: Timestamp) -> LimitRow {
        let from = row.map_or(now, |row| row.whole_at.max(now).min(now.plus(limit.most())));
        LimitRow { whole_at: from.plus(limit.cost()) }
    }

    #[test]
    fn five_at_once_and_one_more_every_two_minutes() {
        let mut row = None;
        for left in (1..=5).rev() {
            assert_eq!(FIVE.left(row, START), Left::Some(left));
            row = Some(spend(FIVE, row, START));
        }
        assert_eq!(FIVE.left(row, START), Left::Nothing(Duration::from_secs(120)));
        assert_eq!(FIVE.left(row, after(119)), Left::Nothing(Duration::from_secs(1)));
        assert_eq!([120, 239, 240, 600].map(|at| FIVE.left(row, after(at))), [1, 1, 2, 5].map(Left::Some));
    }

    #[test]
    fn a_budget_that_is_whole_has_its_attempts_and_no_more_however_short_it_is() {
        let limits = [(1_000_000, 1_500), (600_000, 1_000), (7, 600_000), (1, 1), (1_000_000, 1)];
        for (attempts, millis) in limits {
            let limit = Limit { attempts, per: Duration::from_millis(millis) };
            assert_eq!(limit.left(None, START), Left::Some(attempts));
        }
    }

    #[test]
    fn a_clock_that_was_ahead_locks_nobody_out_for_longer_than_a_span() {
        let row = spend(FIVE, None, after(10 * 365 * 24 * 3_600));
        assert_eq!(FIVE.left(Some(row), START), Left::Nothing(Duration::from_secs(120)));
        let row = spend(FIVE, Some(row), START);
        assert_eq!(FIVE.left(Some(row), after(720)), Left::Some(5));
    }

    #[test]
    fn faults_are_named_and_the_defaults_have_none() {
        assert_eq!(Limits::default().faults(), Vec::<String>::new());
        let wrong = Some(Limit { attempts: 0, per: Duration::from_secs(1) });
        let endless = Some(Limit { attempts: 1, per: Duration::MAX });
        let login = ActionLimits { source: wrong, global: endless, ..ActionLimits::default() };
        let faults = Limits { login, ..Limits::default() }.faults();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("policy.limits.login.source:")), "{faults:?}");
    }

    proptest! {
        #[test]
        fn however_it_is_spent_no_span_holds_twice_its_attempts(
            gaps in prop::collection::vec(0_u64..400, 1..120),
            attempts in 1_u32..9,
        ) {
            let limit = Limit { attempts, ..FIVE };
            let (mut row, mut now, mut granted) = (None, START, Vec::new());
            for gap in gaps {
                now = now.plus(Duration::from_secs(gap));
                if let Left::Some(_) = limit.left(row, now) {
                    row = Some(spend(limit, row, now));
                    granted.push(now);
                    let within = granted.iter().filter(|at| now < at.plus(limit.per)).count();
                    prop_assert!(within < 2 * attempts as usize, "{within} in {:?}", limit.per);
                } else {
                    let within = granted.iter().filter(|at| now < at.plus(limit.per)).count();
                    prop_assert!(within >= attempts as usize, "refused after {within}");
                }
            }
        }
    }
}
