//! Operating subscriptions: those without a subscriber, moves, rebuilds, projections by the page, and who is told what.

use majordomo::testing::TestAccounts;
use majordomo::{
    Actor, Effect, Envelope, Filter, Moved, OperationError, Outcome, RebuildStarted, Signal, SignalKind, Start,
    Subscriber, SubscriberContext,
};

use crate::listening::{Recorder, register, soon};

fn admin() -> Actor {
    Actor::Admin("ada".to_owned())
}

fn registrations() -> Filter {
    Filter::kinds([SignalKind::UserRegistered])
}

async fn register_all(test: &TestAccounts, names: &[&str]) {
    for name in names {
        register(test, name).await;
    }
    soon(test.drain()).await;
}

/// The places of the signals that tell of a registration.
fn registered(test: &TestAccounts) -> Vec<u64> {
    let recorded = test.recorded();
    recorded.iter().filter(|envelope| registrations().passes(envelope)).filter_map(|envelope| envelope.seq).collect()
}

/// A system whose log has two registrations, which the subscription `mirror` has handled, and one more after its
/// subscriber was left out.
async fn without_mirror() -> TestAccounts {
    let test = TestAccounts::start().await;
    soon(test.subscribe("mirror", registrations(), Start::Beginning, Recorder::default())).await.unwrap();
    register_all(&test, &["ada", "bob"]).await;
    let test = soon(test.restart()).await.unwrap();
    register_all(&test, &["eve"]).await;
    test
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_attached_is_listed_and_goes_on_where_it_was() {
    let test = without_mirror().await;
    let listed = test.unattached_subscriptions().unwrap();
    let [mirror] = listed.as_slice() else { panic!("{listed:?}") };
    let places = registered(&test);
    assert_eq!((mirror.name.as_str(), mirror.dead_letters, mirror.lapsed_at), ("mirror", 0, None));
    assert!((places[1]..places[2]).contains(&mirror.floor));
    assert_eq!(mirror.lag, test.head() - mirror.floor);
    let recorder = Recorder::default();
    soon(test.subscribe("mirror", registrations(), Start::Now, recorder.clone())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(recorder.places(), places[2..]);
    assert_eq!(test.unattached_subscriptions().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_forgotten_only_while_it_is_not_attached_and_then_begins_anew() {
    let test = without_mirror().await;
    let recorder = Recorder::default();
    soon(test.forget_subscription("mirror")).await.unwrap();
    assert_eq!(test.unattached_subscriptions().unwrap(), []);
    assert_eq!(soon(test.forget_subscription("mirror")).await, Err(OperationError::UnknownSubscription));
    soon(test.subscribe("mirror", registrations(), Start::Beginning, recorder.clone())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!(recorder.places(), registered(&test));
    assert_eq!(soon(test.forget_subscription("mirror")).await, Err(OperationError::StillAttached));
    assert_eq!(test.dead_letter_count("mirror"), Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_subscription_reads_the_same_span_without_touching_the_first() {
    let test = TestAccounts::start().await;
    let (first, second) = (Recorder::default(), Recorder::default());
    soon(test.subscribe("first", registrations(), Start::Beginning, first.clone())).await.unwrap();
    register_all(&test, &["ada", "bob", "eve"]).await;
    let handled = first.places();
    soon(test.subscribe("second", registrations(), Start::Beginning, second.clone())).await.unwrap();
    soon(test.drain()).await;
    assert_eq!((first.places(), second.places()), (handled.clone(), handled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_stored_and_told_with_who_asked_for_it() {
    let test = without_mirror().await;
    let (head, floor) = (test.head(), test.unattached_subscriptions().unwrap()[0].floor);
    let moved = soon(test.move_subscription("mirror", Start::Now, admin())).await;
    assert_eq!(moved, Ok(Moved { from: floor + 1, to: head + 1 }));
    let told = test.signal_at(head + 1).unwrap().unwrap();
    let expected = Signal::SubscriptionMoved { subscriber: "mirror".to_owned(), from: floor + 1, to: head + 1 };
    assert_eq!((told.signal, told.actor), (expected, admin()));
    assert_eq!(test.unattached_subscriptions().unwrap()[0].floor, head);
    let bob = registered(&test)[1];
    let moved = soon(test.move_subscription("mirror", Start::Seq(bob), admin())).await;
    assert_eq!(moved, Ok(Moved { from: head + 1, to: bob }));
    let test = soon(test.restart()).await.unwrap();
    assert_eq!(test.unattached_subscriptions().unwrap()[0].floor, bob - 1, "it survives a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_stored_and_told_and_stands_in_the_way_of_a_move() {
    let test = without_mirror().await;
    let (head, floor) = (test.head(), test.unattached_subscriptions().unwrap()[0].floor);
    let started = soon(test.rebuild_projection("mirror", admin())).await;
    assert_eq!(started, Ok(RebuildStarted { from: 1, to: floor, complete: true }));
    let told = test.signal_at(head + 1).unwrap().unwrap();
    let expected = Signal::ProjectionRebuildStarted { subscriber: "mirror".to_owned(), from: 1, to: floor };
    assert_eq!((told.signal, told.actor), (expected, admin()));
    let moved = soon(test.move_subscription("mirror", Start::Now, admin())).await;
    assert_eq!(moved, Err(OperationError::Rebuilding));
    assert_eq!(soon(test.rebuild_projection("mirror", admin())).await, started, "it begins anew");
}

/// Projects each registration under its place.
struct Visits;

impl Subscriber for Visits {
    async fn handle(&self, envelope: &Envelope, _context: &SubscriberContext) -> Outcome {
        let place = envelope.seq.unwrap();
        let key = |kind: u8| [&[kind][..], &place.to_be_bytes()].concat();
        let project = |kind| Effect::Project { key: key(kind), value: place.to_string().into_bytes() };
        Outcome::Done(vec![project(b'a'), project(b'b')])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_read_by_pages_each_key_once() {
    let test = TestAccounts::start().await;
    soon(test.subscribe("visits", registrations(), Start::Beginning, Visits)).await.unwrap();
    register_all(&test, &["ada", "bob", "eve", "joe", "sue"]).await;
    let (mut after, mut found): (Option<Vec<u8>>, Vec<u64>) = (None, Vec::new());
    loop {
        let page = soon(test.projection_page("visits", b"a", after.as_deref(), 2)).await.unwrap();
        assert!(page.len() <= 2);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        found.extend(page.iter().map(|(_, value)| String::from_utf8_lossy(value).parse::<u64>().unwrap()));
    }
    assert_eq!(found, registered(&test));
    let all = soon(test.projection_page("visits", &[], None, usize::MAX)).await.unwrap();
    assert_eq!(all.len(), 10);
    assert_eq!(soon(test.projection_page("visit", &[], None, 10)).await.unwrap(), []);
    assert_eq!(soon(test.projection_page("visits", b"a", Some(b"b"), 10)).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_by_name_and_leaves_no_signal() {
    let test = without_mirror().await;
    let head = test.head();
    assert_eq!(soon(test.dead_letters("nobody", None, 10)).await, Err(OperationError::UnknownSubscription));
    assert_eq!(soon(test.retry_dead_letters("nobody", admin())).await, Err(OperationError::UnknownSubscription));
    assert_eq!(soon(test.discard_dead_letters("mirror", admin())).await, Ok(0));
    let missing = Err(OperationError::NoSuchLetter);
    assert_eq!(soon(test.retry_dead_letter("mirror", 1, admin())).await, missing);
    assert_eq!(soon(test.discard_dead_letter("mirror", 1, admin())).await, missing);
    assert_eq!(test.head(), head);
    assert_eq!((test.signal_at(0).unwrap(), test.signal_at(head + 1).unwrap()), (None, None));
    soon(test.shutdown()).await;
    assert_eq!(test.dead_letter_count("mirror"), Err(OperationError::Stopped));
    assert_eq!(soon(test.rebuild_projection("mirror", admin())).await, Err(OperationError::Stopped));
}
