//! Names: what becomes of keys that other tables of Unicode made.

use majordomo_model::Username;

use super::super::names::NAME_TABLES;
use super::*;

/// A user with a name whose forms are these.
fn named(seed: u16, original: &str, canonical: &str, skeleton: &str) -> UserRow {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&seed.to_be_bytes());
    let (canonical, original, skeleton) = (canonical.to_owned(), original.to_owned(), skeleton.to_owned());
    let username = Some(UsernameRow { canonical, original, skeleton });
    UserRow { username, ..user_row(UserId::from_bytes(bytes)) }
}

/// A user with a name as this build has it.
fn current(seed: u16, original: &str) -> UserRow {
    let name = Username::parse(original).unwrap();
    named(seed, original, name.canonical(), name.skeleton())
}

fn keys_of(name: &UsernameRow) -> [UniqueKey; 2] {
    [UniqueKey::username(&name.canonical), UniqueKey::skeleton(&name.skeleton)]
}

/// A closed store with these users and their keys, as a build with these tables left it.
async fn left(users: &[UserRow], tables: &[u8]) -> Location {
    let location = Location::Memory(MemoryDisk::new());
    let store = Store::on(location.clone()).await;
    for users in users.chunks(500) {
        let owners = |row: &UserRow| {
            let (id, keys) = (row.id, row.username.iter().flat_map(keys_of).collect::<Vec<_>>());
            keys.into_iter().map(move |key| Write::PutOwner(key, id))
        };
        let rows = users.iter().cloned().map(put_user);
        store.write(rows.chain(users.iter().flat_map(owners)).collect()).await;
    }
    store.close().await;
    tamper(&location, |view| view.put(Table::Meta, NAME_TABLES.as_bytes(), tables));
    location
}

fn tamper(location: &Location, change: impl FnOnce(&mut redb::WriteView<'_>) -> Result<(), EngineError>) {
    let engine = Engine::open(location, &EngineSettings::default()).unwrap();
    engine.write(change).unwrap();
    engine.close().unwrap();
}

fn name_of(store: &Store, row: &UserRow) -> UsernameRow {
    store.user(row.id).unwrap().username.unwrap()
}

/// Every user owns the keys that their row names, and the index holds no other.
fn assert_owned(store: &Store, users: &[UserRow]) {
    for row in users {
        for key in keys_of(&name_of(store, row)) {
            assert_eq!(store.look(|view| view.owner(&key)), Some(row.id));
        }
    }
    assert_eq!(store.count(Table::Unique), users.len() * 2);
}

#[tokio::test]
async fn names_that_other_tables_made_are_found_under_the_new_ones() {
    // 2,500 are more than is changed at a time.
    let users: Vec<_> = (0..2_500)
        .map(|seed| {
            let original = format!("Name.{seed}x");
            named(seed, &original, &format!("old canonical {seed}"), &format!("old skeleton {seed}"))
        })
        .collect();
    let store = Store::on(left(&users, b"other tables").await).await;
    for row in &users {
        let expected = current(0, &row.username.as_ref().unwrap().original).username.unwrap();
        assert!(name_of(&store, row) == expected);
        assert_eq!(store.user(row.id).unwrap().version, row.version);
    }
    assert_owned(&store, &users);
}

#[tokio::test]
async fn keys_of_the_same_tables_are_left_alone() {
    let location = left(&[], b"other tables").await;
    Store::on(location.clone()).await.close().await;
    let strange = named(1, "ada", "not ada", "not ada either");
    let store = Store::on(location.clone()).await;
    store.write(vec![put_user(strange.clone())]).await;
    store.close().await;
    let store = Store::on(location).await;
    assert!(store.user(strange.id).unwrap() == strange);
}

#[tokio::test]
async fn who_has_a_key_keeps_it_and_whoever_comes_to_share_it_keeps_their_own() {
    let cyrillic = "p\u{430}ypal";
    let users = [
        // Were told apart, and look alike now.
        current(1, "paypal"),
        named(2, cyrillic, cyrillic, "told apart"),
        // Their key is another's, who leaves it, but not before another one has.
        named(3, "Lovelace", "somebody", "somebody"),
        named(4, "hopper", "lovelace", "lovelace"),
        named(5, "grace", "hopper", "hopper"),
        // One name for two: who registered first has it.
        named(6, "Turing", "turing.1", "turing.1"),
        named(7, "turing", "turing.2", "turing.2"),
        // No name any more.
        named(8, "two words", "two words", "two words"),
    ];
    let store = Store::on(left(&users, b"other tables").await).await;
    assert_owned(&store, &users);
    let forms = |row: &UserRow| {
        let name = name_of(&store, row);
        (name.canonical, name.skeleton)
    };
    let expected = |original: &str| {
        let name = Username::parse(original).unwrap();
        (name.canonical().to_owned(), name.skeleton().to_owned())
    };
    let [paypal, alike, lovelace, hopper, grace, turing, second, words] = &users;
    assert_eq!(forms(paypal), expected("paypal"));
    assert_eq!(forms(alike), (cyrillic.to_owned(), "told apart".to_owned()));
    assert_eq!(forms(grace), expected("grace"));
    assert_eq!(forms(hopper), expected("hopper"));
    assert_eq!(forms(lovelace), expected("lovelace"));
    assert_eq!(forms(turing), expected("turing"));
    assert_eq!(forms(second), ("turing.2".to_owned(), "turing.2".to_owned()));
    assert_eq!(forms(words), ("two words".to_owned(), "two words".to_owned()));
    // Both of those who look alike are reached by what they type.
    for (typed, row) in [("PayPal", paypal), (cyrillic, alike)] {
        let found = store.look(|view| view.user_named(&Username::parse(typed).unwrap().into()));
        assert_eq!(found.map(|user| user.id), Some(row.id));
    }
}

#[tokio::test]
async fn a_user_who_cannot_be_read_is_named_and_keeps_nobody_out() {
    let users = [named(1, "ada", "old 1", "old 1"), named(3, "eve", "old 3", "old 3")];
    let location = left(&users, b"other tables").await;
    let unreadable = named(2, "bob", "old 2", "old 2");
    tamper(&location, |view| {
        view.put(Table::Users, unreadable.id.as_bytes(), b"\xff")?;
        view.put(Table::Unique, UniqueKey::username("old 2").bytes(), unreadable.id.as_bytes())
    });
    let warned = Warned::default();
    let store = {
        // With a second one tracing asks each time whether anybody listens.
        let _second = tracing::Dispatch::new(Warned::default());
        let _guard = tracing::subscriber::set_default(warned.clone());
        Store::on(location).await
    };
    for row in &users {
        assert!(name_of(&store, row) == current(0, &row.username.as_ref().unwrap().original).username.unwrap());
    }
    assert_eq!(store.look(|view| view.owner(&UniqueKey::username("old 2"))), Some(unreadable.id));
    assert_eq!(*warned.0.lock().unwrap(), [unreadable.id.to_string()]);
    let tables = store.look(|view| Ok(view.get(Table::Meta, NAME_TABLES.as_bytes())?.map(|bytes| bytes.len())));
    assert_eq!(tables, Some(32), "the next start reads none of it again");
}

/// The users whom warnings name.
#[derive(Clone, Default)]
struct Warned(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warned {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::Id {
        tracing::Id::from_u64(1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct User<'a>(&'a Warned);
        impl tracing::field::Visit for User<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                if field.name() == "user" {
                    self.0.0.lock().unwrap().push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut User(self));
    }

    fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
    fn enter(&self, _: &tracing::Id) {}
    fn exit(&self, _: &tracing::Id) {}
}

#[tokio::test]
async fn what_was_begun_is_finished_by_whichever_build_opens_the_store_next() {
    // The last of them is not in the part that is changed first.
    let users: Vec<_> = (0..1_200)
        .map(|seed| named(seed, &format!("name{seed}"), &format!("old {seed}"), &format!("old {seed}")))
        .collect();
    let location = left(&users, b"other tables").await;
    // No user is named by this.
    let unreadable = UniqueKey::username("name1199");
    tamper(&location, |view| view.put(Table::Unique, unreadable.bytes(), b"\xff"));
    let hook: CommitHook = Arc::new(|_| {});
    let opened = Storage::open(location.clone(), StorageSettings::default(), &keys(7), Clock::manual(at(0)), hook);
    assert!(matches!(opened, Err(OpenError::Failed(_))));
    drop(opened);
    let engine = Engine::open(&location, &EngineSettings::default()).unwrap();
    let (tables, owners) = engine
        .read(|view| {
            let owner = |name: &str| view.owner(&UniqueKey::username(name));
            let tables = view.get(Table::Meta, NAME_TABLES.as_bytes())?.unwrap().to_vec();
            Ok::<_, ReadError>((tables, [owner("name0")?, owner("old 1199")?]))
        })
        .unwrap();
    assert_eq!(tables, b"", "neither the old tables nor the new");
    assert_eq!(owners, [Some(users[0].id), Some(users[1_199].id)], "half of them were moved");
    engine.close().unwrap();
    tamper(&location, |view| view.remove(Table::Unique, unreadable.bytes()).map(|_| ()));
    let store = Store::on(location).await;
    assert_owned(&store, &users);
    assert!(name_of(&store, &users[1_199]) == current(0, "name1199").username.unwrap());
}

#[tokio::test]
async fn a_program_that_opens_its_store_again_looks_at_few_of_its_tables() {
    let store = Store::new().await;
    let meta = |name: &str| store.look(|view| Ok(view.get(Table::Meta, name.as_bytes())?.map(|bytes| bytes.to_vec())));
    let (tables, of) = (meta(NAME_TABLES).unwrap(), meta("name_tables_of").unwrap());
    assert_eq!((tables.len(), of.len()), (32, 32));
    assert_eq!(of, super::super::names::program(&tables).unwrap());
    assert_ne!(of, super::super::names::program(&of).unwrap(), "of these tables, not of others");
}
