//! Changes that can be undone: what they keep, for how long, and what goes with them.

use majordomo_model::ChangeKind;

use super::*;
use crate::storage::ChangeRow;

/// The change that made a version of a user, and took an address from them unless it was one of the password.
pub(super) fn change_row(user: UserId, version: u64, kind: ChangeKind, address: &str, seconds: i64) -> ChangeRow {
    let told = ContactRow { proven_at: Some(at(1)), ..contact_row(2, address) };
    let token = id(TokenId::from_bytes, 6);
    ChangeRow { user, version, kind, at: at(1), expires_at: at(seconds), contacts: vec![told.clone()], told, token }
}

fn removed(user: UserId, version: u64, address: &str, seconds: i64) -> Write {
    Write::PutChange(Box::new(change_row(user, version, ChangeKind::ContactRemoved, address, seconds)))
}

fn address(canonical: &str) -> UniqueKey {
    UniqueKey::address(Channel::Email, canonical)
}

#[tokio::test]
async fn an_address_that_was_given_up_is_kept_to_the_instant_however_late_the_sweeper_is() {
    let store = Store::new().await;
    let (ada, eve, given_up) = (user_id(1), user_id(2), address("ada@example.com"));
    store.write(vec![removed(ada, 3, "ada@example.com", 100)]).await;
    let holder = |key: &UniqueKey, now| store.look(|view| view.holder(key, now));
    let last = Timestamp::from_micros(at(100).as_micros() - 1);
    assert_eq!((holder(&given_up, last), holder(&given_up, at(100))), (Some(ada), None));
    assert!(store.holds(Check::Holder(given_up.clone(), Some(ada), last)).await);
    assert!(!store.holds(Check::Holder(given_up.clone(), None, last)).await);
    assert!(store.holds(Check::Holder(given_up.clone(), None, at(100))).await);
    assert!(store.holds(Check::Owner(given_up.clone(), None)).await, "nobody can sign in with it");
    for other in ["ada@example.co", "ada@example.comx", "ada@example.com.example"] {
        assert_eq!(holder(&address(other), at(2)), None, "{other}");
    }
    let phone = UniqueKey::address(Channel::Phone, "ada@example.com");
    assert_eq!(holder(&phone, at(2)), None);
    store.write(vec![Write::PutOwner(given_up.clone(), eve)]).await;
    assert_eq!(holder(&given_up, last), Some(eve), "an owner comes first");
}

#[tokio::test]
async fn an_address_is_kept_as_long_as_the_last_change_that_took_it() {
    let store = Store::new().await;
    let (ada, given_up) = (user_id(1), address("ada@example.com"));
    let changed = change_row(ada, 4, ChangeKind::PasswordChanged, "ada@example.com", 900);
    let mut writes = vec![removed(ada, 3, "ada@example.com", 100), removed(ada, 9, "ada@example.com", 300)];
    writes.push(Write::PutChange(Box::new(changed)));
    store.write(writes).await;
    let holder = |now| store.look(|view| view.holder(&given_up, now));
    assert_eq!((holder(at(99)), holder(at(200)), holder(at(300))), (Some(ada), Some(ada), None));
    let versions = store.look(|view| view.changes_of(ada)).iter().map(|change| change.version).collect::<Vec<_>>();
    assert_eq!(versions, [3, 4, 9]);
    store.write(vec![Write::RemoveChange(ada, 9)]).await;
    assert_eq!((holder(at(99)), holder(at(200))), (Some(ada), None));
    store.write(vec![Write::RemoveChange(ada, 9), Write::Sweep(at(101), 100)]).await;
    assert_eq!(store.look(|view| view.changes_of(ada)).len(), 1, "the password's can be undone still");
    store.write(vec![Write::Sweep(at(901), 100)]).await;
    let tables = [Table::Changes, Table::Reservations, Table::Expiry];
    assert_eq!(tables.map(|table| store.count(table)), [0, 0, 0]);
}
