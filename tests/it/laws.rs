//! The laws of the log: what holds for whatever flows were run, and in whatever order.

use std::collections::{BTreeMap, HashSet};

use majordomo::testing::TestAccounts;
use majordomo::{Envelope, FlowId, FlowKind, SignalClass};

/// Asserts what holds of every log: places ascend without a gap; no name is used twice; every flow is in one lane and
/// has exactly one start, which comes first, and exactly one end of its own kind, which comes last. Only a delivery
/// may be open still.
pub(crate) fn assert_laws(test: &TestAccounts) {
    let recorded = test.recorded();
    let places: Vec<_> = recorded.iter().map(|envelope| envelope.seq.expect("a place in the log")).collect();
    assert!(places.windows(2).all(|pair| pair[0] + 1 == pair[1]), "the places have a gap: {places:?}");
    let mut names = HashSet::new();
    assert!(recorded.iter().all(|envelope| names.insert(envelope.id)), "the name of a signal is used twice");
    let mut flows = BTreeMap::<FlowId, Vec<&Envelope>>::new();
    for envelope in &recorded {
        flows.entry(envelope.flow).or_default().push(envelope);
    }
    for (flow, signals) in &flows {
        assert_flow(*flow, signals);
    }
}

fn assert_flow(flow: FlowId, signals: &[&Envelope]) {
    let kinds: Vec<_> = signals.iter().map(|envelope| envelope.signal.kind()).collect();
    assert!(signals.iter().all(|envelope| envelope.lane == signals[0].lane), "{flow} is in two lanes: {kinds:?}");
    let starts: Vec<_> = (0..).zip(&kinds).filter(|(_, kind)| !kind.starts().is_empty()).collect();
    let ends: Vec<_> = (1..).zip(&kinds).filter(|(_, kind)| !kind.ends().is_empty()).collect();
    if starts.is_empty() && ends.is_empty() {
        // What the system tells of itself, and what a subscriber adds to a signal, is in no flow of the table.
        let alone =
            |envelope: &&Envelope| envelope.signal.kind().class() == SignalClass::Operation || envelope.cause.is_some();
        assert!(signals.iter().all(alone), "{flow} has neither start nor end: {kinds:?}");
        return;
    }
    let &[(0, start)] = starts.as_slice() else { panic!("{flow} has not one start, at first: {kinds:?}") };
    let &[kind] = start.starts() else { panic!("{start:?} starts several kinds of flows") };
    match ends.as_slice() {
        [(last, end)] => {
            assert!(end.ends().contains(&kind), "{flow}: {end:?} ends no {kind:?}");
            assert_eq!(*last, kinds.len(), "{flow} goes on after its end: {kinds:?}");
        }
        [] => assert_eq!(kind, FlowKind::Delivery, "{flow} has no end: {kinds:?}"),
        _ => panic!("{flow} has several ends: {kinds:?}"),
    }
}
