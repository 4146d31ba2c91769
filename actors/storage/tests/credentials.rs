//! Credentials: sealed whatever writes them, read whoever wrote them, and counted.

use super::*;
use crate::storage::census::class_of;
use crate::storage::redb::WriteView;
use crate::storage::row::encode;

const OLD: &str = "argon2id$v=19$m=64,t=1,p=1";
const NEW: &str = "argon2id$v=19$m=72,t=2,p=1";

fn hash(class: &str) -> String {
    format!("${class}$c29tZXNhbHRzb21lc2FsdA$eP4eyR+zqlZX1y5xCFTkw9m5GYx0L5YWwvCFvtlbLow")
}

fn row(class: &str, revision: u64) -> CredentialRow {
    CredentialRow::new(hash(class), revision, at(2))
}

fn put(user: UserId, class: &str, revision: u64) -> Write {
    Write::PutCredential(user, row(class, revision))
}

fn rotated() -> Keyring {
    Keyring::from_keys(vec![[8; 32], [7; 32]]).unwrap()
}

fn classes(store: &Store) -> Vec<(String, u64)> {
    let census = store.storage.reader().census();
    assert_eq!(*census, store.look(Census::read), "memory knows what the table says");
    census.classes().into_iter().map(|(class, count)| (class.to_owned(), count)).collect()
}

fn counts(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(class, count)| ((*class).to_owned(), *count)).collect()
}

/// A store whose credentials an earlier build wrote.
fn before_version_5(location: &Location, users: u8, class: impl Fn(u8) -> String) {
    let engine = Engine::open(location, &EngineSettings::default()).unwrap();
    let earlier = |view: &mut WriteView<'_>| {
        for user in 0..users {
            let row = StoredCredential::unsealed(&CredentialRow::new(class(user), 1, at(2)));
            view.put(Table::Credentials, user_id(user).as_bytes(), &encode(&row).unwrap())?;
        }
        view.put(Table::Meta, SCHEMA_NAME.as_bytes(), &table::Key::new().u64(4))
    };
    engine.write(earlier).unwrap();
    engine.close().unwrap();
}

#[tokio::test]
async fn a_hash_is_stored_sealed_and_opens_for_its_user_and_keys_alone() {
    let store = Store::new().await;
    let (ada, eve) = (user_id(1), user_id(2));
    store.write(vec![put(ada, OLD, 1)]).await;
    for part in ["$argon2", "c29tZXNhbHRzb21lc2FsdA", "eP4eyR+zqlZX1y5xCFTkw9m5GYx0L5YWwvCFvtlbLow"] {
        assert_eq!(store.tables_with(part.as_bytes()), [], "{part}");
    }
    let stored = store.look(|view| view.credential(ada)).unwrap();
    assert_eq!((stored.revision, stored.set_at), (1, at(2)));
    let foreign = Keyring::from_keys(vec![[8; 32]]).unwrap();
    for (keys, user, expected) in
        [(keys(7), ada, Some(hash(OLD))), (rotated(), ada, Some(hash(OLD))), (keys(7), eve, None), (foreign, ada, None)]
    {
        assert_eq!(stored.open(&keys, user), expected);
    }
    assert!(stored.is_sealed_under(keys(7).current()) && !stored.is_sealed_under(rotated().current()));
    let again = {
        store.write(vec![put(ada, OLD, 1)]).await;
        store.look(|view| view.credential(ada)).unwrap()
    };
    assert!(again != stored, "each time under a nonce of its own");
}

#[tokio::test]
async fn what_an_earlier_build_wrote_is_read_counted_once_and_sealed_when_it_is_written_next() {
    let location = Location::Memory(MemoryDisk::new());
    Store::on(location.clone()).await.close().await;
    before_version_5(&location, 10, |user| if user == 9 { "no hash".to_owned() } else { hash(OLD) });
    let store = Store::on(location).await;
    assert_eq!(classes(&store), counts(&[("", 1), (OLD, 9)]));
    assert_eq!(store.storage.reader().census().outdated(keys(7).current()), 10);
    let earlier = store.look(|view| view.credential(user_id(3))).unwrap();
    assert_eq!(earlier.open(&keys(7), user_id(3)), Some(hash(OLD)));
    store.write(vec![put(user_id(3), NEW, 2), put(user_id(9), NEW, 2), Write::RemoveCredential(user_id(4))]).await;
    assert_eq!(classes(&store), counts(&[(OLD, 7), (NEW, 2)]));
    assert_eq!(store.storage.reader().census().outdated(keys(7).current()), 7);
    assert_eq!(store.look(|view| view.credential(user_id(3))).unwrap().open(&keys(7), user_id(3)), Some(hash(NEW)));
}

#[tokio::test]
async fn each_change_of_a_credential_moves_the_counts_and_a_restart_finds_them() {
    let location = Location::Memory(MemoryDisk::new());
    let store = Store::on(location.clone()).await;
    let users: Vec<_> = (0..10).map(user_id).collect();
    store.write(users.iter().map(|user| put_user(user_row(*user))).collect()).await;
    store.write(users.iter().map(|user| put(*user, OLD, 1)).collect()).await;
    assert_eq!(classes(&store), counts(&[(OLD, 10)]));
    store.write(vec![put(users[0], NEW, 2), put(users[1], NEW, 2), put(users[1], NEW, 3)]).await;
    assert_eq!(classes(&store), counts(&[(OLD, 8), (NEW, 2)]));
    store.write(vec![Write::RemoveUser(users[0]), Write::RemoveCredential(users[2])]).await;
    store.write(vec![Write::RemoveUser(users[0]), Write::RemoveCredential(users[2])]).await;
    assert_eq!(classes(&store), counts(&[(OLD, 7), (NEW, 1)]));
    let refused = Batch {
        checks: vec![Check::CredentialRevision(users[5], Some(2))],
        writes: vec![Write::RemoveCredential(users[5])],
        ..batch()
    };
    assert!(matches!(store.storage.commit(refused).await, Ok(Verdict::Conflict)));
    assert_eq!(classes(&store), counts(&[(OLD, 7), (NEW, 1)]));
    store.close().await;
    let store = Store::on(location).await;
    assert_eq!(classes(&store), counts(&[(OLD, 7), (NEW, 1)]));
    store.write(users.iter().map(|user| Write::RemoveCredential(*user)).collect()).await;
    assert_eq!((classes(&store), store.count(Table::CredentialCounts)), (Vec::new(), 0));
}

#[tokio::test]
async fn classes_are_bounded_and_those_beyond_are_counted_together() {
    let class = |user: u8| format!("argon2id$v=19$m={},t=1,p=1", 64 + u32::from(user));
    for migrated in [true, false] {
        let location = Location::Memory(MemoryDisk::new());
        Store::on(location.clone()).await.close().await;
        if migrated {
            before_version_5(&location, 100, |user| hash(&class(user)));
        }
        let store = Store::on(location).await;
        if !migrated {
            store.write((0..100).map(|user| put(user_id(user), &class(user), 1)).collect()).await;
        }
        let counted = classes(&store);
        assert_eq!((counted.len(), counted[0].0.as_str()), (65, ""));
        assert_eq!(counted.iter().map(|(_, count)| count).sum::<u64>(), 100);
        store.write((0..100).map(|user| Write::RemoveCredential(user_id(user))).collect()).await;
        assert_eq!(classes(&store), []);
    }
}

#[test]
fn a_class_is_what_a_hash_costs_and_nothing_of_what_it_hides() {
    for (text, class) in [
        (hash(OLD).as_str(), OLD),
        ("$argon2i$m=8,t=1,p=1$c29tZXNhbHQ$eP4eyR", "argon2i$m=8,t=1,p=1"),
        ("$2b$12$EXRkfkdmXn2gzds2SSitu.MW9.gAVqa9eLS1//RYtYCmB1eLHg.9q", "2b$12"),
        ("pbkdf2_sha256$600000$salt$aGFzaA==", "pbkdf2_sha256$600000"),
        (
            "$scrypt$ln=17,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
            "scrypt$ln=17,r=8,p=1",
        ),
        ("", ""),
        ("!", ""),
        ("password", ""),
        ("$$$", ""),
        ("my secret$12$x", ""),
    ] {
        assert_eq!(class_of(text), class, "{text}");
    }
    assert_eq!(class_of(&format!("$argon2id$m={}$a$b", "1".repeat(64))), "");
}

#[tokio::test]
async fn a_class_is_drawn_by_its_share_whatever_the_seed() {
    let store = Store::new().await;
    let draw = |seed: [u8; 32]| store.storage.reader().census().draw(&seed).map(str::to_owned);
    assert_eq!(draw([255; 32]), None);
    store.write((0..4).map(|user| put(user_id(user), if user == 0 { NEW } else { OLD }, 1)).collect()).await;
    let seed = |part: u64| {
        let mut seed = [9; 32];
        seed[24..].copy_from_slice(&part.to_be_bytes());
        seed
    };
    // In the order of classes: three parts of the old one, then one of the new.
    let boundary = 3 << 62;
    for (part, class) in [(0, OLD), (boundary - 1, OLD), (boundary, NEW), (u64::MAX, NEW)] {
        assert_eq!(draw(seed(part)).as_deref(), Some(class));
    }
}
