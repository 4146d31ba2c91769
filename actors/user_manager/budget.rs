//! Budgets: failures of one source beyond its budget, and refused requests, are counted instead of recorded one by one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use majordomo_model::{Context, FlowKind, RefusalCause, Signal, Timestamp};

use super::source::Source;
use crate::telemetry;

/// How many sources are told apart within a minute; the rest share one budget.
const SOURCES: usize = 16_384;
const MINUTE: i64 = 60_000_000;

/// Counts what is not recorded one by one, so that a flood of failures fills neither disk nor memory.
#[derive(Debug)]
pub(crate) struct Budget {
    per_source: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    minute: i64,
    failures: HashMap<Counted, u32>,
    refused: BTreeMap<&'static str, (RefusalCause, u64)>,
    aggregated: BTreeMap<&'static str, (FlowKind, u64)>,
}

/// Whose failures are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Counted {
    Of(Source),
    Others,
}

impl Budget {
    pub(crate) fn new(per_source: u32) -> Self {
        Self { per_source, state: Mutex::default() }
    }

    /// Whether a failure of this source may still be recorded by itself. A source that is not told has a budget ten
    /// times as large, since it stands for everybody.
    pub(crate) fn admits_failure(&self, context: &Context, now: Timestamp) -> bool {
        let mut state = self.state();
        let minute = now.as_micros().div_euclid(MINUTE);
        if state.minute != minute {
            state.minute = minute;
            state.failures.clear();
        }
        let told = Source::of(context);
        let mut source = Counted::Of(told);
        if state.failures.len() >= SOURCES && !state.failures.contains_key(&source) {
            source = Counted::Others;
        }
        let shared = !told.is_told() || source == Counted::Others;
        let limit = if shared { self.per_source.saturating_mul(10) } else { self.per_source };
        let count = state.failures.entry(source).or_default();
        *count = count.saturating_add(1);
        *count <= limit
    }

    /// Counts a failure that is not recorded by itself.
    pub(crate) fn aggregate(&self, flow: FlowKind) {
        self.state().aggregated.entry(flow.as_str()).or_insert((flow, 0)).1 += 1;
    }

    /// Counts a request that was refused at admission.
    pub(crate) fn refused(&self, cause: RefusalCause) {
        telemetry::refused(cause.as_str());
        self.state().refused.entry(cause.as_str()).or_insert((cause, 0)).1 += 1;
    }

    /// The signals that tell what was counted since the last call.
    pub(crate) fn take(&self) -> Vec<Signal> {
        let mut state = self.state();
        let refused = std::mem::take(&mut state.refused).into_values();
        let aggregated = std::mem::take(&mut state.aggregated).into_values();
        let refused = refused.map(|(reason, count)| Signal::RequestsRefused { reason, count });
        refused.chain(aggregated.map(|(flow, count)| Signal::FailuresAggregated { flow, count })).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Context {
        Context::new().client_ip(address.parse().unwrap())
    }

    #[test]
    fn a_source_has_its_budget_a_minute_and_a_network_is_one_source() {
        let budget = Budget::new(2);
        let now = Timestamp::from_micros(0);
        let admitted = |address: &str| budget.admits_failure(&from(address), now);
        assert_eq!([admitted("2001:db8::1"), admitted("2001:db8::2"), admitted("2001:db8::3")], [true, true, false]);
        assert_eq!([admitted("192.0.2.1"), admitted("::ffff:192.0.2.1"), admitted("192.0.2.1")], [true, true, false]);
        assert!(budget.admits_failure(&from("192.0.2.1"), Timestamp::from_micros(MINUTE)));
        assert!((0..20).all(|_| budget.admits_failure(&Context::new(), now)));
        assert!(!budget.admits_failure(&Context::new(), now));
    }

    #[test]
    fn sources_are_told_apart_in_bounded_memory() {
        let budget = Budget::new(1);
        for number in 0..u32::try_from(SOURCES).unwrap() + 100 {
            let address = std::net::IpAddr::V4(std::net::Ipv4Addr::from_bits(number));
            budget.admits_failure(&Context::new().client_ip(address), Timestamp::from_micros(0));
        }
        assert!(budget.state().failures.len() <= SOURCES + 1);
    }

    #[test]
    fn what_was_counted_is_told_once() {
        let budget = Budget::new(1);
        budget.refused(RefusalCause::Overloaded);
        budget.refused(RefusalCause::Overloaded);
        budget.aggregate(FlowKind::Authenticate);
        assert_eq!(
            budget.take(),
            [
                Signal::RequestsRefused { reason: RefusalCause::Overloaded, count: 2 },
                Signal::FailuresAggregated { flow: FlowKind::Authenticate, count: 1 },
            ]
        );
        assert_eq!(budget.take(), []);
    }
}
