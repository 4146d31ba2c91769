//! What a whole system tells of itself, where only its own store and counters can bring the cause about.

use majordomo_model::Timestamp;

use super::*;
use crate::hasher::{HashParameters, HasherSettings};
use crate::keys::Keyring;
use crate::storage::{Batch, CursorRow, LetterRow, LetterState, Location, MemoryDisk, StorageSettings, Write};

async fn system() -> System {
    let hashing = HasherSettings {
        workers: Some(1),
        queue: Some(8),
        parameters: HashParameters::cheap_for_tests(),
        ..HasherSettings::default()
    };
    let setup = Setup {
        location: Location::Memory(MemoryDisk::new()),
        storage: StorageSettings::default(),
        hashing,
        policy: Policy::default(),
        places: 8,
        patience: Duration::from_secs(5),
        keys: Keyring::ephemeral().unwrap(),
        clock: Clock::system(),
        guards: Vec::new(),
        breaches: None,
        subscriptions: Vec::new(),
    };
    System::spawn(setup).await.unwrap()
}

async fn faults(system: &System) -> Vec<&'static str> {
    system.health().await.faults.iter().map(HealthFault::as_str).collect()
}

async fn write(system: &System, writes: Vec<Write>) {
    let flow = majordomo_model::FlowId::new();
    let batch = Batch { flow, outcome: None, checks: Vec::new(), writes, signals: Vec::new() };
    system.storage().commit(batch).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_counted_until_they_are_gone_whether_or_not_their_subscription_is_attached() {
    let system = system().await;
    assert_eq!(faults(&system).await, ["no_notifier", "no_notifier"]);
    let letter = LetterRow {
        tries: 0,
        envelope: Vec::new(),
        reason: "refused".to_owned(),
        attempts: 1,
        failures: Vec::new(),
        dead_at: Timestamp::from_micros(1),
        state: LetterState::Dead,
    };
    let put = |name: &str, seq| Write::PutLetter(name.to_owned(), seq, Box::new(letter.clone()));
    let cursor = |name: &str| Write::PutCursor(name.to_owned(), CursorRow { taken: 3, ..CursorRow::default() });
    let writes = vec![cursor("books"), cursor("booksellers"), put("books", 1), put("books", 2), put("booksellers", 3)];
    write(&system, writes).await;
    let told = system.health().await.faults;
    for (name, count) in [("books", 2), ("booksellers", 1)] {
        assert!(told.contains(&HealthFault::DeadLetters { name: name.to_owned(), count }), "{told:?}");
        assert!(told.contains(&HealthFault::SubscriptionUnattached { name: name.to_owned(), floor: 3, lag: 0 }));
    }
    let remove = |name: &str, seq| Write::RemoveLetter(name.to_owned(), seq);
    write(&system, vec![remove("books", 1), remove("books", 2), remove("booksellers", 3)]).await;
    assert!(!faults(&system).await.contains(&"dead_letters"));
    assert!(system.shutdown(CHILD_STOP).await);
}

#[tokio::test(start_paused = true)]
async fn lost_signals_are_a_fault_until_the_log_tells_of_them() {
    let system = system().await;
    system.storage().lose(2);
    system.storage().lose(1);
    assert!(system.health().await.faults.contains(&HealthFault::SignalsLost { count: 3 }));
    system.0.manager.tell();
    assert!(!faults(&system).await.contains(&"signals_lost"));
    system.storage().flush().await;
    assert_eq!(system.reader().head(), Ok(1));
    assert!(system.shutdown(CHILD_STOP).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_seen_in_time_and_by_one_thread() {
    let system = system().await;
    let hung = Arc::clone(&system.0.looking).lock_owned().await;
    for _ in 0..3 {
        let began = Instant::now();
        let tree = system.tree().await;
        assert_eq!(began.elapsed(), ANSWER_WITHIN, "on the paused clock");
        assert_eq!(tree.actor("storage").unwrap().status, ActorStatus::NotAnswering);
        assert_eq!(tree.actor("hasher").unwrap().status, ActorStatus::Running);
    }
    let health = system.health().await;
    assert!(health.live && !health.ready);
    let storage = || "storage".to_owned();
    let expected = [HealthFault::StorageUnavailable, HealthFault::ActorNotAnswering { name: storage() }];
    assert_eq!(health.faults, expected);
    drop(hung);
    assert!(system.health().await.ready);
    assert!(system.shutdown(CHILD_STOP).await);
}
