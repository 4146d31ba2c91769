//! Credentials: sealed whatever writes them, read whoever wrote them, and counted.

use proptest::prelude::*;

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

fn opened(stored: &StoredCredential, keys: &Keyring, user: UserId) -> Option<String> {
    stored.open(keys, user).map(|phc| phc.to_string())
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
        assert_eq!(opened(&stored, &keys, user), expected);
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
    assert_eq!(opened(&earlier, &keys(7), user_id(3)), Some(hash(OLD)));
    store.write(vec![put(user_id(3), NEW, 2), put(user_id(9), NEW, 2), Write::RemoveCredential(user_id(4))]).await;
    assert_eq!(classes(&store), counts(&[(OLD, 7), (NEW, 2)]));
    assert_eq!(store.storage.reader().census().outdated(keys(7).current()), 7);
    let sealed = store.look(|view| view.credential(user_id(3))).unwrap();
    assert_eq!(opened(&sealed, &keys(7), user_id(3)), Some(hash(NEW)));
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
async fn a_row_that_cannot_be_read_stands_in_the_way_of_no_other_and_not_of_what_takes_its_place() {
    let store = Store::new().await;
    let [ada, bob, eve] = [1, 2, 3].map(user_id);
    let users = [ada, bob].map(|user| put_user(user_row(user)));
    store.write(users.into_iter().chain([ada, bob].map(|user| put(user, OLD, 1))).collect()).await;
    let damaged = store.storage.shared.engine.write(|view| {
        view.put(Table::Users, bob.as_bytes(), b"\xff")?;
        view.put(Table::Credentials, eve.as_bytes(), b"\xff")
    });
    damaged.map_err(|_| "not written").unwrap();
    let read = store.storage.reader().credentials_after(None, 10).unwrap();
    let read: Vec<_> = read.iter().map(|read| (read.user, read.epoch.is_some(), read.stored.is_some())).collect();
    assert_eq!(read, [(ada, true, true), (bob, false, true), (eve, false, false)]);
    store.write(vec![put(eve, NEW, 1), put(bob, NEW, 2)]).await;
    assert_eq!(classes(&store), counts(&[(OLD, 1), (NEW, 2)]));
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
        (&format!("argon2{}", hash(OLD)), OLD),
        ("argon2$argon2i$m=8,t=1,p=1$c29tZXNhbHQ$eP4eyR", "argon2i$m=8,t=1,p=1"),
        ("$argon2id$v=019$m=8,t=1,p=1$c29tZXNhbHQ$eP4eyR", ""),
        ("$argon2id$v=19$m=8,t=1,p=1,data=c2VjcmV0$c29tZXNhbHQ$eP4eyR", ""),
        ("$argon2id$v=19$m=4294967296,t=1,p=1$c29tZXNhbHQ$eP4eyR", ""),
        ("$argon2id$v=19$m=+8,t=1,p=1$c29tZXNhbHQ$eP4eyR", ""),
        ("$argon2x$v=19$m=8,t=1,p=1$c29tZXNhbHQ$eP4eyR", ""),
        ("$2b$12$EXRkfkdmXn2gzds2SSitu.MW9.gAVqa9eLS1//RYtYCmB1eLHg.9q", ""),
        ("pbkdf2_sha256$600000$12345678$aGFzaA==", ""),
        ("$scrypt$ln=17,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E", ""),
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

/// Texts of every family, with this salt and this hash where the family has them.
fn texts(salt: &[u8; 16], tag: &[u8; 32], digits: bool) -> Vec<String> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

    let word = |bytes: &[u8], length: usize| -> String {
        let alphabet: &[u8] = if digits { b"0123456789" } else { b"./0123456789ABCDEFabcdef" };
        bytes
            .iter()
            .cycle()
            .take(length)
            .map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()]))
            .collect()
    };
    let (salted, hashed) = if digits {
        (word(salt, 16), word(tag, 32))
    } else {
        (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(tag))
    };
    let padded = |bytes: &[u8]| STANDARD.encode(bytes);
    let costs = "argon2id$v=19$m=64,t=1,p=1";
    let (salt_8, tag_22, tag_43) = (word(salt, 8), word(tag, 22), word(tag, 43));
    let aspnet = [&[1, 0, 0, 0, 1, 0, 0, 39, 16, 0, 0, 0, 16][..], salt, tag].concat();
    vec![
        format!("${costs}${salted}${hashed}"),
        format!("argon2${costs}${salted}${hashed}"),
        format!("$scrypt$ln=10,r=1,p=1${}${}", padded(salt), padded(tag)),
        format!("scrypt$1024${salted}$8$5${hashed}"),
        format!("$firebase-scrypt$ln=14,r=8${}$Bw==${}${}", padded(salt), padded(tag), padded(tag)),
        format!("$pbkdf2-sha256$1000${}${}", padded(salt), padded(tag)),
        format!("pbkdf2_sha256$1000${salt_8}${}", padded(tag)),
        format!("pbkdf2_sha256$1000${salt_8}=${hashed}"),
        format!("$2b$05${}u{}", word(salt, 21), word(tag, 31)),
        format!("bcrypt_sha256$$2b$05${}u{}", word(salt, 21), word(tag, 31)),
        format!("{{TRUNCATE72}}$2b$05${}u{}", word(salt, 21), word(tag, 31)),
        format!("$5${salt_8}${tag_43}"),
        format!("$5$rounds=1000${salt_8}=${tag_43}"),
        format!("$6$rounds=1000${salt_8}${}", word(tag, 86)),
        format!("$1${salt_8}${tag_22}"),
        format!("$P$9{salt_8}{tag_22}"),
        format!("{{SSHA256}}{}", padded(&[&tag[..], salt].concat())),
        padded(&aspnet),
    ]
}

proptest! {
    /// The class lies in the open: it has to be the same whatever the salt and the hash are.
    #[test]
    fn neither_salt_nor_hash_of_any_family_is_in_a_class(
        salt in any::<[u8; 16]>(),
        tag in any::<[u8; 32]>(),
        digits in any::<bool>(),
    ) {
        let hasher = crate::hasher::Hasher::new(&crate::hasher::HasherSettings::default()).unwrap();
        for text in texts(&salt, &tag, digits) {
            let is_argon2 = text.contains("argon2");
            if is_argon2 || cfg!(feature = "foreign-hashes") {
                prop_assert!(hasher.take_in(&text).is_ok(), "{}", text);
            }
            prop_assert_eq!(class_of(&text), if is_argon2 { "argon2id$v=19$m=64,t=1,p=1" } else { "" }, "{}", text);
        }
    }

    #[test]
    fn a_class_holds_a_scheme_and_its_numbers_whatever_the_text(
        text in "(argon2)?\\$argon2(id|i|d|)(\\$[vmtp]=[0-9=,$mtpA]{0,12}){0,4}(\\$[0-9A-Za-z+/=]{0,24}){0,3}",
    ) {
        let class = class_of(&text);
        let mut words = class.split(['$', ',']);
        let is_scheme = words.next().is_some_and(|scheme| ["", "argon2d", "argon2i", "argon2id"].contains(&scheme));
        let is_cost = |word: &str| word.split_once('=').is_some_and(|(name, number)| {
            ["v", "m", "t", "p"].contains(&name) && number.parse::<u32>().is_ok()
        });
        prop_assert!(is_scheme && words.all(is_cost), "{}", class);
    }
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
