//! Dispatches: a claim is taken on what was read, goes when its time is over, and stays as long as its signal if settled.

use super::*;

fn claimed(place: u64, seconds: i64) -> DispatchRow {
    DispatchRow { place, holder: "mail".to_owned(), until: at(seconds), settled: false }
}

#[tokio::test]
async fn a_claim_is_taken_on_what_was_read() {
    let store = Store::new().await;
    let signal = id(SignalId::from_bytes, 1);
    assert!(store.holds(Check::Dispatch(signal, None)).await);
    store.write(vec![Write::PutDispatch(signal, claimed(1, 10))]).await;
    assert!(!store.holds(Check::Dispatch(signal, None)).await);
    assert!(!store.holds(Check::Dispatch(signal, Some(claimed(1, 11)))).await);
    assert!(store.holds(Check::Dispatch(signal, Some(claimed(1, 10)))).await);
}

#[tokio::test]
async fn a_claim_goes_when_its_time_is_over_and_a_settled_one_with_its_signal() {
    let store = Store::new().await;
    let (open, settled) = (id(SignalId::from_bytes, 1), id(SignalId::from_bytes, 2));
    let place = store.commit(telling()).await;
    store
        .write(vec![Write::PutDispatch(open, claimed(place, 10)), Write::PutDispatch(settled, claimed(place, 10))])
        .await;
    // In the place of the claim, whose own end counts no more.
    store.write(vec![Write::PutDispatch(settled, DispatchRow::settled(place, "mail", at(5)))]).await;
    let found = |signal| store.storage.reader().dispatch(signal).unwrap();
    store.write(vec![Write::Sweep(at(10), 100)]).await;
    assert!(found(open).is_some(), "its time is not over");
    store.write(vec![Write::Sweep(at(11), 100)]).await;
    assert!(found(open).is_none() && found(settled).is_some());
    assert_eq!(store.count(Table::Expiry), 1);
    // Long after: as long as its signal is in the log, a subscription may be set back to it.
    let year = 365 * 86_400;
    store.write(vec![Write::Sweep(at(year), 100)]).await;
    assert_eq!(found(settled).map(|row| row.settled), Some(true));
    store.write(vec![Write::PruneLog(place, 100), Write::Sweep(at(2 * year), 100)]).await;
    assert!(found(settled).is_none());
    assert_eq!((store.count(Table::Dispatches), store.count(Table::Expiry)), (0, 0));
}

#[tokio::test]
async fn a_sweep_of_claims_is_bounded() {
    let store = Store::new().await;
    let place = store.commit(telling()).await;
    let settle = |seed| Write::PutDispatch(id(SignalId::from_bytes, seed), DispatchRow::settled(place, "mail", at(0)));
    store.write((0..10).map(settle).collect()).await;
    let year = at(365 * 86_400);
    store.write(vec![Write::Sweep(year, 4)]).await;
    let moved = (0..10).filter(|seed| {
        let row = store.storage.reader().dispatch(id(SignalId::from_bytes, *seed)).unwrap().unwrap();
        row.until > year
    });
    assert_eq!(moved.count(), 4);
}
