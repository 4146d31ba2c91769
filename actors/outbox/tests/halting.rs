//! What becomes of a subscriber that asks to be handed nothing more.

use super::*;

fn named_in(log: &[Envelope], kind: SignalKind) -> usize {
    log.iter().filter(|envelope| envelope.signal.kind() == kind).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_halts_is_handed_nothing_more_until_it_is_released_by_another_process_neither() {
    let (disk, keys) = (MemoryDisk::new(), Keyring::ephemeral().unwrap());
    let system = &mut System::on(Location::Memory(disk.clone()), &keys).await;
    let (halting, mut told) = scripted("hooks", updates(), |envelope, _| match envelope.seq {
        Some(2) => Act::Answer(Outcome::halt("gone: ".to_owned() + &"x".repeat(300))),
        _ => Act::Answer(Outcome::done()),
    });
    let (neighbour, mut neighbour_told) = scripted("neighbour", updates(), done);
    system.subscribe(halting).await;
    system.subscribe(neighbour).await;
    system.tell(vec![update(), update(), update()]).await;
    until(|| system.named("hooks").status == SubscriptionStatus::Quarantined).await;
    soon(system.outbox.drained(3)).await.unwrap();
    assert_eq!(heard_now(&mut told), [(1, 1), (2, 1)]);
    assert_eq!(heard_now(&mut neighbour_told), [(1, 1), (2, 1), (3, 1)]);
    let log = system.log();
    assert_eq!(named_in(&log, SignalKind::SubscriberQuarantined), 1);
    let failure = log.iter().find_map(|envelope| match &envelope.signal {
        Signal::SubscriberQuarantined { failure, .. } => Some(failure.clone()),
        _ => None,
    });
    let failure = failure.unwrap();
    assert!(failure.starts_with("gone: ") && failure.len() <= 200, "{failure}");
    let row = system.storage.reader().cursor("hooks").unwrap().unwrap();
    assert_eq!((row.floor(), row.halted.unwrap().failure), (1, failure.clone()));
    std::mem::replace(system, System::new().await).stop().await;

    // Another process hands it nothing either, and tells nothing twice.
    let mut system = System::on(Location::Memory(disk), &keys).await;
    let (again, mut told) = scripted("hooks", updates(), done);
    let actor = system.subscribe(again).await;
    let head = system.tell(vec![update()]).await;
    soon(system.outbox.drained(head)).await.unwrap();
    let state = system.named("hooks");
    assert_eq!((state.status, state.last_failure.unwrap().failure), (SubscriptionStatus::Quarantined, failure));
    // Nor does another incarnation, or one that has been moved.
    system.kill(actor).await;
    system.outbox.move_to("hooks", Start::Seq(1), Actor::System).await.unwrap();
    soon(system.outbox.drained(head)).await.unwrap();
    assert_eq!(heard_now(&mut told), []);
    assert_eq!(named_in(&system.log(), SignalKind::SubscriberQuarantined), 1);

    assert_eq!(soon(system.outbox.release("hooks")).await, Ok(true));
    assert_eq!(soon(system.outbox.release("hooks")).await, Ok(false));
    soon(system.outbox.drained(head)).await.unwrap();
    assert_eq!(heard_now(&mut told), [(1, 1), (2, 1), (3, 1), (head, 1)]);
    assert!(system.storage.reader().cursor("hooks").unwrap().unwrap().halted.is_none());
    assert_eq!(named_in(&system.log(), SignalKind::SubscriberReleased), 1);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handled_beside_a_halt_is_kept_and_no_attempt_is_lost_by_it() {
    let mut system = System::new().await;
    let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&open);
    let (halting, mut told) = scripted("hooks", updates(), move |envelope, context| {
        let (key, value) = (envelope.seq.unwrap().to_be_bytes().to_vec(), vec![1]);
        match (envelope.seq, asked.load(Ordering::SeqCst)) {
            (Some(2), false) if context.attempt() == 1 => Act::Answer(Outcome::retry("first")),
            (Some(2), false) => Act::Answer(Outcome::halt("then")),
            _ => Act::Answer(Outcome::Done(vec![Effect::Project { key, value }])),
        }
    });
    system.subscribe(halting.concurrency(4)).await;
    system.tell(vec![update(), update(), update()]).await;
    until(|| system.named("hooks").status == SubscriptionStatus::Quarantined).await;
    until(|| system.storage.reader().projected("hooks", &3_u64.to_be_bytes()).unwrap().is_some()).await;
    open.store(true, Ordering::SeqCst);
    assert_eq!(soon(system.outbox.release("hooks")).await, Ok(true));
    soon(system.outbox.drained(3)).await.unwrap();
    let mut heard = heard_now(&mut told);
    heard.sort_unstable();
    assert_eq!(heard, [(1, 1), (2, 1), (2, 2), (2, 2), (3, 1)]);
    system.stop().await;
}
