//! Dead letters: found by stage, paged by place, counted whatever happens to them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::storage::row::encode_signal;
use crate::storage::{LetterRow, LetterState};

fn letter(state: LetterState) -> LetterRow {
    LetterRow {
        envelope: encode_signal(&signal(user_id(1))).unwrap(),
        reason: "refused".to_owned(),
        tries: 0,
        attempts: 3,
        failures: vec![FailureRow { at: at(2), failure: "refused".to_owned() }],
        dead_at: at(3),
        state,
    }
}

fn put_letter(subscription: &str, seq: u64, state: LetterState) -> Write {
    Write::PutLetter(subscription.to_owned(), seq, Box::new(letter(state)))
}

fn places(letters: Vec<(u64, LetterRow)>) -> Vec<u64> {
    letters.into_iter().map(|(seq, _)| seq).collect()
}

#[tokio::test]
async fn letters_are_found_by_stage_and_paged_by_place() {
    use LetterState::{Dead, Due, InHand};
    let store = Store::new().await;
    let reader = store.storage.reader();
    let states = [(9, Dead), (2, Due), (u64::MAX, Dead), (300, InHand), (5, Dead)];
    store.write(states.map(|(seq, state)| put_letter("mail", seq, state)).to_vec()).await;
    // A name that begins like it, and one that would with another end mark.
    store.write(vec![put_letter("mail2", 1, Dead), put_letter("mai", 1, Due)]).await;

    assert_eq!(places(reader.due_letters("mail", 10).unwrap()), [2, 300]);
    assert_eq!(places(reader.due_letters("mail", 1).unwrap()), [2]);
    assert_eq!(places(reader.given_up("mail", Some(5), 10).unwrap()), [9, u64::MAX]);
    assert_eq!(places(reader.letters("mail", None, 10).unwrap()), [2, 5, 9, 300, u64::MAX]);
    assert_eq!(places(reader.letters("mail", Some(2), 2).unwrap()), [5, 9]);
    assert_eq!(places(reader.letters("mail", Some(u64::MAX), 2).unwrap()), [0; 0]);
    assert_eq!(reader.letter_count("mail").unwrap(), 5);
    assert_eq!((reader.letter_count("mail2").unwrap(), reader.letter_count("m").unwrap()), (1, 0));
    assert_eq!(reader.letter("mail", 300).unwrap().unwrap().state, InHand);
    assert!(reader.letter("mail2", 300).unwrap().is_none());
    assert!(store.holds(Check::Letter("mail".to_owned(), 2, Some(Due))).await);
    assert!(!store.holds(Check::Letter("mail".to_owned(), 2, Some(Dead))).await);
    assert!(store.holds(Check::Letter("mail".to_owned(), 3, None)).await);

    store.write(vec![put_letter("mail", 2, Dead), put_letter("mail", 9, Due)]).await;
    assert_eq!(places(reader.due_letters("mail", 10).unwrap()), [9, 300]);
    assert_eq!(reader.letter_count("mail").unwrap(), 5);

    let all = [2, 5, 9, 300, u64::MAX, 7].map(|seq| Write::RemoveLetter("mail".to_owned(), seq));
    store.write(all.to_vec()).await;
    store.write(vec![Write::RemoveLetter("mail2".to_owned(), 1), Write::RemoveLetter("mai".to_owned(), 1)]).await;
    assert_eq!(store.count(Table::DeadLetters), 0, "the counters went with the last letter");
}

#[tokio::test]
async fn a_letters_personal_data_is_read_in_full_while_its_user_lives() {
    let store = Store::new().await;
    let user = user_id(1);
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
    let row = LetterRow { envelope: encode_signal(&told).unwrap(), ..letter(LetterState::Dead) };
    store.write(vec![put_user(user_row(user)), Write::PutLetter("mail".to_owned(), 4, Box::new(row))]).await;
    let reader = store.storage.reader();
    let open = || {
        let row = reader.letter("mail", 4).unwrap().unwrap();
        let mut envelope = reader.open_letter(&row, 4).unwrap();
        let mut full = None;
        envelope.signal.visit_personal(&mut |personal| full = personal.expose().map(str::to_owned));
        (envelope.seq, envelope.id, full)
    };
    assert_eq!(open(), (Some(4), told.id, Some("ada@example.com".to_owned())));
    assert_eq!(store.tables_with(b"ada@example.com"), []);
    store.write(vec![Write::RemoveUser(user)]).await;
    assert_eq!(open(), (Some(4), told.id, None));
}

#[tokio::test]
async fn subscriptions_and_the_generations_of_their_projections_are_listed() {
    let store = Store::new().await;
    let reader = store.storage.reader();
    let cursor = |taken| CursorRow { taken, created_at: at(1), ..CursorRow::default() };
    let value = |generation| Write::PutProjection("mail".to_owned(), generation, vec![0, 7], vec![1]);
    store
        .write(vec![
            Write::PutCursor("mail".to_owned(), cursor(4)),
            Write::PutCursor("audit".to_owned(), cursor(9)),
            Write::PutProjection("mai".to_owned(), 0, vec![1], vec![1]),
            value(3),
            value(2),
        ])
        .await;
    let listed = reader.cursors().unwrap();
    assert_eq!(listed, [("audit".to_owned(), cursor(9)), ("mail".to_owned(), cursor(4))]);
    let drop_oldest = |generation| vec![Write::DropProjection("mail".to_owned(), generation, 10)];
    assert_eq!(reader.oldest_generation("mail").unwrap(), Some(2));
    store.write(drop_oldest(2)).await;
    assert_eq!(reader.oldest_generation("mail").unwrap(), Some(3));
    store.write(drop_oldest(3)).await;
    assert_eq!(reader.oldest_generation("mail").unwrap(), None);
    assert_eq!(reader.oldest_generation("mai").unwrap(), Some(0));
}

fn state() -> impl Strategy<Value = Option<LetterState>> {
    use LetterState::{Dead, Due, InHand};
    prop_oneof![Just(None), Just(Some(Dead)), Just(Some(Due)), Just(Some(InHand))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is put and removed, and however it is spread over transactions.
    #[test]
    fn the_counter_and_the_stages_follow_every_change(
        groups in prop::collection::vec(prop::collection::vec((0_u8..2, 0_u64..4, state()), 1..6), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let store = Store::new().await;
            let reader = store.storage.reader();
            let mut model = BTreeMap::new();
            for group in groups {
                let mut writes = Vec::new();
                for (name, seq, state) in group {
                    let name = ["mail", "audit"][usize::from(name)];
                    writes.push(match state {
                        Some(state) => {
                            model.insert((name, seq), state);
                            put_letter(name, seq, state)
                        }
                        None => {
                            model.remove(&(name, seq));
                            Write::RemoveLetter(name.to_owned(), seq)
                        }
                    });
                }
                store.write(writes).await;
                for name in ["mail", "audit"] {
                    let of: Vec<_> = model.iter().filter(|((of, _), _)| *of == name).collect();
                    let all: Vec<_> = of.iter().map(|((_, seq), state)| (*seq, **state)).collect();
                    let found = reader.letters(name, None, 10).unwrap();
                    let found: Vec<_> = found.into_iter().map(|(seq, letter)| (seq, letter.state)).collect();
                    assert_eq!(found, all);
                    assert_eq!(reader.letter_count(name).unwrap(), all.len() as u64);
                    let dead = |state: LetterState| state == LetterState::Dead;
                    let at_stage = |wanted: bool| -> Vec<u64> {
                        all.iter().filter(|(_, state)| dead(*state) == wanted).map(|(seq, _)| *seq).collect()
                    };
                    assert_eq!(places(reader.given_up(name, None, 10).unwrap()), at_stage(true));
                    assert_eq!(places(reader.due_letters(name, 10).unwrap()), at_stage(false));
                }
            }
        });
    }
}
