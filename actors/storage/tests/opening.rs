//! Opening: whose store it is, what outlives a restart, and what a copy holds.

use super::*;
use std::time::Duration;

fn open(location: &Location, seed: u8) -> Result<Storage, OpenError> {
    let hook: CommitHook = Arc::new(|_| {});
    Storage::open(location.clone(), StorageSettings::default(), &keys(seed), Clock::manual(at(0)), hook)
}

/// Changes a closed store beneath the storage layer.
fn tamper(location: &Location, change: impl FnOnce(&mut redb::WriteView<'_>) -> Result<(), EngineError>) {
    let engine = Engine::open(location, &EngineSettings::default()).unwrap();
    engine.write(change).unwrap();
    engine.close().unwrap();
}

#[test]
fn other_keys_do_not_open_it() {
    let location = Location::Memory(MemoryDisk::new());
    open(&location, 7).unwrap().release();
    assert!(matches!(open(&location, 8), Err(OpenError::ForeignKeys)));
    open(&location, 7).unwrap().release();
    let rotated = Keyring::from_keys(vec![[7; 32], [8; 32]]).unwrap();
    let hook: CommitHook = Arc::new(|_| {});
    Storage::open(location, StorageSettings::default(), &rotated, Clock::manual(at(0)), hook).unwrap();
}

#[test]
fn a_store_whose_proof_is_gone_is_not_adopted_by_whoever_comes() {
    for name in [KEY_PROOF, DATABASE, SCHEMA_NAME] {
        let location = Location::Memory(MemoryDisk::new());
        open(&location, 7).unwrap().release();
        tamper(&location, |view| view.remove(Table::Meta, name.as_bytes()).map(|_| ()));
        assert!(matches!(open(&location, 8), Err(OpenError::ForeignKeys)), "{name}");
    }
}

#[test]
fn rows_without_any_mark_are_somebody_elses() {
    let location = Location::Memory(MemoryDisk::new());
    tamper(&location, |view| view.put(Table::Users, b"key", b"value"));
    assert!(matches!(open(&location, 7), Err(OpenError::NotADatabase)));
    let fresh = Location::Memory(MemoryDisk::new());
    tamper(&fresh, |_| Ok(()));
    open(&fresh, 7).unwrap();
}

#[test]
fn a_store_of_a_newer_build_is_refused_whatever_else_it_holds() {
    let location = Location::Memory(MemoryDisk::new());
    open(&location, 7).unwrap().release();
    tamper(&location, |view| {
        view.remove(Table::Meta, KEY_PROOF.as_bytes())?;
        view.put(Table::Meta, SCHEMA_NAME.as_bytes(), &table::Key::new().u64(SCHEMA + 1))
    });
    assert!(matches!(open(&location, 7), Err(OpenError::NewerSchema { found, known: SCHEMA }) if found == SCHEMA + 1));
}

#[tokio::test]
async fn a_store_of_version_1_is_brought_up_to_this_build() {
    let location = Location::Memory(MemoryDisk::new());
    open(&location, 7).unwrap().release();
    // Keys of zeros are where old and new layout meet; 2,500 are more than is rewritten at a time.
    let zeros = (0..7).map(|length| vec![0; length]);
    let others = [vec![1], vec![0, 1], vec![0, 0, 0, 0, 1], vec![0, 0, 0, 0, 0, 0, 0, 0, 1], vec![255; 512]];
    let many = (0..2_500_u64).map(|number| [b"x".as_slice(), &number.to_be_bytes()].concat());
    let mut keys: Vec<Vec<u8>> = zeros.chain(others).chain(many).collect();
    keys.sort();
    tamper(&location, |view| {
        view.put(Table::Meta, SCHEMA_NAME.as_bytes(), &table::Key::new().u64(1))?;
        for name in ["audit", "audit2"] {
            for key in &keys {
                let old = [name.as_bytes(), &[0], key].concat();
                view.put(Table::Projections, &old, &[name.as_bytes(), key].concat())?;
            }
        }
        // { floor: 70000, created_at: -1 s }, as version 1 wrote it.
        let cursor = b"\x01\x82\xa5floor\xce\x00\x01\x11\x70\xaacreated_at\xd2\xff\xf0\xbd\xc0";
        view.put(Table::Cursors, b"audit", cursor)
    });
    for _ in 0..2 {
        let store = Store::on(location.clone()).await;
        let reader = store.storage.reader();
        assert_eq!(store.look(|view| view.meta_u64(SCHEMA_NAME)), Some(SCHEMA));
        for name in ["audit", "audit2"] {
            let range = ProjectionRange { prefix: &[], from: &[], until: None, newest_first: false, limit: usize::MAX };
            let values = reader.projection(name, range).unwrap();
            assert!(values.iter().map(|(key, _)| key).eq(&keys), "{name}: every key is there once");
            assert!(values.iter().all(|(key, value)| *value == [name.as_bytes(), key].concat()));
            assert_eq!(reader.projected(name, &[0, 1]).unwrap(), Some([name.as_bytes(), &[0, 1]].concat()));
        }
        let cursor = reader.cursor("audit").unwrap().unwrap();
        let expected = CursorRow { taken: 70_000, created_at: at(-1), ..CursorRow::default() };
        assert_eq!((cursor.floor(), cursor), (70_000, expected));
        store.close().await;
    }
}

#[tokio::test]
async fn sessions_of_version_3_are_found_where_this_build_looks() {
    let location = Location::Memory(MemoryDisk::new());
    let (ada, eve) = (user_id(1), user_id(2));
    let store = Store::on(location.clone()).await;
    // 1,500 are more than is moved at a time.
    let sessions = (0..1_500_u32).map(|number| {
        let mut hash = [7; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        let row = SessionRow { id: SessionId::from_bytes(hash[..16].try_into().unwrap()), ..session_row(1, ada) };
        Write::PutSession(hash, Box::new(row))
    });
    store.write(sessions.chain([put_session(9, eve), Write::RecordLogin(ada, at(1))]).collect()).await;
    let listed = |store: &Store| [ada, eve].map(|user| store.storage.reader().sessions_of(user).unwrap());
    let before = listed(&store);
    store.close().await;
    tamper(&location, |view| {
        let rows = view.range(Table::Activity, &[], None)?;
        let rows = rows.map(|row| row.map(|row| (row.key().to_vec(), row.value().to_vec())));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        for (key, value) in rows.into_iter().filter(|(key, _)| key.len() == 32) {
            view.remove(Table::Activity, &key)?;
            view.put(Table::SessionsByUser, &key, &value)?;
        }
        view.put(Table::Meta, SCHEMA_NAME.as_bytes(), &table::Key::new().u64(3))
    });
    let store = Store::on(location).await;
    assert_eq!(listed(&store), before);
    assert_eq!((before[0].len(), store.count(Table::SessionsByUser)), (1_500, 0));
    assert_eq!(store.look(|view| view.activity(ada)).map(|row| row.logins), Some(1));
}

#[test]
fn an_older_store_is_not_touched_before_its_keys_are_recognised() {
    let location = Location::Memory(MemoryDisk::new());
    open(&location, 7).unwrap().release();
    let old = [b"audit".as_slice(), &[0], b"key"].concat();
    tamper(&location, |view| {
        view.put(Table::Meta, SCHEMA_NAME.as_bytes(), &table::Key::new().u64(1))?;
        view.put(Table::Projections, &old, b"value")
    });
    let before = |location: &Location| {
        let engine = Engine::open(location, &EngineSettings::default()).unwrap();
        let rows = rows_of(&engine);
        engine.close().unwrap();
        rows
    };
    let rows = before(&location);
    assert!(matches!(open(&location, 8), Err(OpenError::ForeignKeys)));
    assert_eq!(before(&location), rows);
}

#[test]
fn a_migration_that_fails_leaves_the_store_as_it_was() {
    let location = Location::Memory(MemoryDisk::new());
    open(&location, 7).unwrap().release();
    tamper(&location, |view| {
        view.put(Table::Meta, SCHEMA_NAME.as_bytes(), &table::Key::new().u64(1))?;
        view.put(Table::Projections, b"audit\0key", b"value")?;
        view.put(Table::Projections, b"no end of the name", b"value")
    });
    assert!(matches!(open(&location, 7), Err(OpenError::Failed(_))));
    let engine = Engine::open(&location, &EngineSettings::default()).unwrap();
    let rows = rows_of(&engine);
    assert!(rows.iter().any(|(_, key, _)| key == b"audit\0key"));
    assert!(rows.contains(&(Table::Meta, SCHEMA_NAME.as_bytes().to_vec(), table::Key::new().u64(1).into_bytes())));
}

#[test]
fn a_store_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    for location in [Location::Memory(MemoryDisk::new()), Location::File(folder.path().join("store"))] {
        let first = open(&location, 7).unwrap();
        assert!(matches!(open(&location, 7), Err(OpenError::AlreadyOpen)));
        assert!(first.observe().available && first.observe().size_bytes > 0);
        first.release();
        assert!(!first.observe().available && first.observe().size_bytes == 0);
        open(&location, 7).unwrap();
    }
    std::fs::write(folder.path().join("other"), "something else").unwrap();
    assert!(matches!(open(&Location::File(folder.path().join("other")), 7), Err(OpenError::NotADatabase)));
}

#[test]
fn a_closed_file_can_be_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    assert!(matches!(check_integrity(&path), Err(OpenError::Failed(_))));
    assert!(!path.exists());
    let storage = open(&Location::File(path.clone()), 7).unwrap();
    assert!(matches!(check_integrity(&path), Err(OpenError::AlreadyOpen)));
    storage.release();
    assert_eq!(check_integrity(&path).unwrap(), Integrity::Sound);
}

#[tokio::test]
async fn time_does_not_fall_behind_what_was_committed() {
    let disk = MemoryDisk::new();
    let clock = Clock::manual(at(1_000));
    let hook: CommitHook = Arc::new(|_| {});
    let location = Location::Memory(disk.clone());
    let opened = Storage::open(location.clone(), StorageSettings::default(), &keys(7), clock.clone(), hook.clone());
    let store = Store::start(opened.unwrap(), Arc::default()).await;
    store.commit(telling()).await;
    clock.advance(Duration::from_secs(500));
    // No signal, but an instant that rows may carry.
    store.write(vec![Write::RecordLogin(user_id(1), clock.now())]).await;
    store.close().await;
    let set_back = Clock::manual(at(10));
    let _opened = Storage::open(location, StorageSettings::default(), &keys(7), set_back.clone(), hook).unwrap();
    assert_eq!(set_back.now(), at(1_500));
}

#[tokio::test]
async fn a_backup_opens_and_equals() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("backup");
    let store = Store::new().await;
    store.write(vec![put_user(user_row(user_id(1))), put_session(2, user_id(1))]).await;
    store.commit(telling()).await;
    store.storage.backup(target.clone()).await.unwrap();
    assert!(store.storage.backup(target.clone()).await.unwrap_err().contains("exists"));
    let original = store.rows();
    store.commit(telling()).await;

    assert!(matches!(open(&Location::File(target.clone()), 8), Err(OpenError::ForeignKeys)));
    let copy = Store::on(Location::File(target)).await;
    assert_eq!(copy.rows(), original);
    assert_eq!(copy.commit(telling()).await, 2);
}

#[tokio::test]
async fn personal_data_is_read_in_full_while_its_user_lives() {
    let store = Store::new().await;
    let user = UserId::new();
    let stamp = Stamp {
        flow: FlowId::new(),
        cause: None,
        lane: Lane::User(user),
        actor: OnBehalf::System,
        context: Context::new(),
    };
    let address = majordomo_model::Personal::known("a***@e***.com", "ada@example.com");
    let told = Signal::UserEmailVerified { user, address, via: majordomo_model::ProofMethod::Link, undo: None };
    let key = crate::stamp::SealKey(user_row(user).seal_key.0);
    let told = stamp.envelope(SignalId::new(), at(1), told, Some(key));
    store.commit(Batch { writes: vec![put_user(user_row(user))], signals: vec![told], ..batch() }).await;
    let address = || {
        let mut found = store.storage.reader().signals_after(0, 1).unwrap();
        let mut full = None;
        found[0].signal.visit_personal(&mut |personal| full = personal.expose().map(str::to_owned));
        full
    };
    assert_eq!(address().as_deref(), Some("ada@example.com"));
    assert_eq!(store.tables_with(b"ada@example.com"), []);
    store.write(vec![Write::RemoveUser(user)]).await;
    assert_eq!(address(), None);
    assert_eq!(store.log(), [1], "the signal stays");
}
