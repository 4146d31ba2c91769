//! Checks and changes of rows, one by one, with the indexes that go with them.

use majordomo_model::Username;
use std::time::Duration;

use majordomo_model::ChangeKind;

use super::changes::change_row;
use super::*;
use crate::storage::lookup::Stage;
use crate::storage::reader::ProjectionRange;

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one case a check")]
async fn a_check_holds_for_what_was_read_and_for_nothing_else() {
    let store = Store::new().await;
    let (ada, nobody) = (user_id(1), user_id(2));
    let token = token_row(6, Some(ada));
    let (name, free) = (UniqueKey::username("ada"), UniqueKey::username("eve"));
    store
        .write(vec![
            put_user(UserRow { version: 3, epoch: 4, ..user_row(ada) }),
            Write::PutCredential(ada, CredentialRow::new("", 5, at(1))),
            Write::PutOwner(name.clone(), ada),
            Write::PutToken(Box::new(token.clone())),
            Write::CountAttempt(token.id),
            put_session(8, ada),
            Write::PutCursor(
                "mail".to_owned(),
                CursorRow { revision: 7, taken: 7, created_at: at(1), ..CursorRow::default() },
            ),
        ])
        .await;
    let session = session_row(8, ada).id;
    let table = [
        (Check::UserVersion(ada, 3), true),
        (Check::UserVersion(ada, 2), false),
        (Check::UserVersion(nobody, 3), false),
        (Check::Epoch(ada, 4), true),
        (Check::Epoch(ada, 3), false),
        (Check::Epoch(nobody, 4), false),
        (Check::CredentialRevision(ada, Some(5)), true),
        (Check::CredentialRevision(ada, Some(4)), false),
        (Check::CredentialRevision(ada, None), false),
        (Check::CredentialRevision(nobody, None), true),
        (Check::CredentialRevision(nobody, Some(5)), false),
        (Check::Owner(name.clone(), Some(ada)), true),
        (Check::Owner(name.clone(), Some(nobody)), false),
        (Check::Owner(name, None), false),
        (Check::Owner(free.clone(), None), true),
        (Check::Owner(free, Some(ada)), false),
        (Check::TokenOpen(token.id, 1), true),
        (Check::TokenOpen(token.id, 0), false),
        (Check::TokenOpen(id(TokenId::from_bytes, 9), 0), false),
        (Check::DeliveryPending(token.id), true),
        (Check::DeliveryPending(id(TokenId::from_bytes, 9)), false),
        (Check::SessionCount(ada, 1), true),
        (Check::SessionCount(ada, 0), false),
        (Check::SessionCount(ada, 2), false),
        (Check::SessionCount(nobody, 0), true),
        (Check::Session([8; 32], session), true),
        (Check::Session([8; 32], id(SessionId::from_bytes, 9)), false),
        (Check::Session([9; 32], session), false),
        (Check::Cursor("mail".to_owned(), 7), true),
        (Check::Cursor("mail".to_owned(), 6), false),
        (Check::Cursor("audit".to_owned(), 0), false),
    ];
    for (check, holds) in table {
        assert_eq!(store.holds(check.clone()).await, holds, "{check:?}");
    }
    store.write(vec![Write::EndToken(token.id, TokenEnd::Used)]).await;
    assert!(!store.holds(Check::TokenOpen(token.id, 1)).await);
    assert!(store.holds(Check::DeliveryPending(token.id)).await);
    for state in [DeliveryState::Sent, DeliveryState::Failed] {
        store.write(vec![Write::EndDelivery(token.id, state)]).await;
        assert!(!store.holds(Check::DeliveryPending(token.id)).await);
    }
}

#[tokio::test]
async fn a_check_of_what_a_user_has_holds_for_as_much_and_no_more() {
    let store = Store::new().await;
    let (ada, nobody) = (user_id(1), user_id(2));
    let token = token_row(6, Some(ada));
    store.write(vec![put_user(user_row(ada)), Write::PutToken(Box::new(token.clone())), put_session(8, ada)]).await;
    for (check, holds) in [
        (Check::UserExists(ada), true),
        (Check::UserExists(nobody), false),
        (Check::SessionsAtMost(ada, 2), true),
        (Check::SessionsAtMost(ada, 1), true),
        (Check::SessionsAtMost(ada, 0), false),
        (Check::SessionsAtMost(nobody, 0), true),
        (Check::DueTokens(ada, vec![token.id]), true),
        (Check::DueTokens(ada, Vec::new()), false),
        (Check::DueTokens(nobody, Vec::new()), true),
    ] {
        assert_eq!(store.holds(check.clone()).await, holds, "{check:?}");
    }
}

#[tokio::test]
async fn ended_tokens_are_not_met_by_who_looks_for_open_ones_and_go_with_their_user() {
    let store = Store::new().await;
    let (ada, eve) = (user_id(1), user_id(2));
    let rows = (1..=5).map(|seed| token_row(seed, Some(ada))).chain([token_row(9, Some(eve))]);
    store.write(rows.map(|row| Write::PutToken(Box::new(row))).collect()).await;
    let [first, second, third, fourth] = [1, 2, 3, 4].map(|seed| id(TokenId::from_bytes, seed));
    store
        .write(vec![
            Write::EndToken(first, TokenEnd::Superseded),
            Write::EndToken(second, TokenEnd::Used),
            Write::EndDelivery(second, DeliveryState::Sent),
            Write::EndDelivery(third, DeliveryState::Failed),
            Write::EndToken(third, TokenEnd::Used),
            Write::EndDelivery(fourth, DeliveryState::Sent),
            Write::CountAttempt(fourth),
        ])
        .await;
    let seeds = |rows: Vec<TokenRow>| rows.iter().map(|row| row.id.as_bytes()[0]).collect::<Vec<_>>();
    let at_stage = |stage| seeds(store.look(|view| view.tokens_at(ada, stage)));
    assert_eq!([Stage::Open, Stage::Due, Stage::Over].map(at_stage), [vec![4, 5], vec![1], vec![2, 3]]);
    assert_eq!(seeds(store.look(|view| view.open_tokens(ada, TokenPurpose::ResetByEmail, None))), [4, 5]);
    assert_eq!(seeds(store.look(|view| view.due_tokens(ada))), [5, 1]);
    store.write(vec![put_user(user_row(ada)), Write::RemoveUser(ada)]).await;
    assert_eq!(store.tables_with(ada.as_bytes()), []);
    let tables = [Table::Tokens, Table::TokensByUser, Table::Expiry];
    assert_eq!(tables.map(|table| store.count(table)), [1, 1, 1]);
}

#[tokio::test]
async fn of_two_hundred_who_want_a_name_one_gets_it() {
    let store = Store::new().await;
    let name = UniqueKey::address(Channel::Email, "ada@example.com");
    let claims = (0..200).map(|_| {
        let (storage, user, name) = (store.storage.clone(), UserId::new(), name.clone());
        let checks = vec![Check::Owner(name.clone(), None)];
        let writes = vec![Write::PutOwner(name, user), put_user(user_row(user))];
        tokio::spawn(async move {
            let verdict = storage.commit(Batch { checks, writes, ..batch() }).await.unwrap();
            matches!(verdict, Verdict::Committed(_)).then_some(user)
        })
    });
    let mut winners = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        winners.extend(claim.await.unwrap());
    }
    let owner = store.look(|view| view.owner(&name));
    assert_eq!(winners, [owner.unwrap()]);
    assert_eq!((store.count(Table::Users), store.storage.observe().conflicts), (1, 199));
}

#[tokio::test]
async fn sessions_are_ended_one_by_one_all_or_all_but_one() {
    let store = Store::new().await;
    let (ada, eve) = (user_id(1), user_id(2));
    store.write((1..=4).map(|seed| put_session(seed, ada)).chain([put_session(9, eve)]).collect()).await;
    store.write(vec![Write::RemoveSession([1; 32]), Write::RemoveSession([77; 32])]).await;
    let left = |user| store.look(|view| view.sessions_of(user)).iter().map(|(hash, _)| hash[0]).collect::<Vec<_>>();
    let mut all = left(ada);
    all.sort_unstable();
    assert_eq!(all, [2, 3, 4]);
    store.write(vec![Write::RemoveSessionsOf(ada, Some(session_row(3, ada).id))]).await;
    assert_eq!(left(ada), [3]);
    store.write(vec![Write::TouchSession([3; 32], at(9)), Write::TouchSession([3; 32], at(5))]).await;
    assert_eq!(store.look(|view| view.session(&[3; 32])).unwrap().last_seen_at, at(9));
    store.write(vec![Write::RemoveSessionsOf(ada, None), Write::TouchSession([3; 32], at(10))]).await;
    assert_eq!((left(ada), left(eve)), (vec![], vec![9]));
    let tables = [Table::Sessions, Table::Activity, Table::Expiry];
    assert_eq!(tables.map(|table| store.count(table)), [1, 1, 1]);
}

#[tokio::test]
async fn failures_add_up_until_they_are_cleared_or_forgotten() {
    let store = Store::new().await;
    let failures = || store.look(|view| view.attempts(&[4; 32])).map(|row| row.failures);
    let keep = Duration::from_secs(10);
    let fail = |seconds| vec![Write::RecordFailure([4; 32], at(seconds), keep)];
    store.write(fail(1)).await;
    store.write(fail(5)).await;
    assert_eq!(failures(), Some(2));
    // Each failure renews the term, so that one ends at 15 only.
    store.write(fail(14)).await;
    assert_eq!(failures(), Some(3));
    store.write(fail(24)).await;
    assert_eq!(failures(), Some(1), "expired, though nobody has swept");
    assert_eq!(store.count(Table::Expiry), 1);
    store.write(vec![Write::ClearFailures([4; 32]), Write::ClearFailures([5; 32])]).await;
    assert_eq!((failures(), store.count(Table::Expiry)), (None, 0));
    store.write(vec![Write::RecordLogin(user_id(1), at(9)), Write::RecordLogin(user_id(1), at(3))]).await;
    let activity = store.look(|view| view.activity(user_id(1))).unwrap();
    assert_eq!(activity, ActivityRow { last_login_at: Some(at(9)), logins: 2 });
}

#[tokio::test]
async fn what_is_remembered_of_messages_is_changed_only_by_whoever_knows_it_and_expires_once() {
    let store = Store::new().await;
    let row = |started: &[i64], end| MessagesRow {
        started: started.iter().map(|seconds| at(*seconds)).collect(),
        expires_at: at(end),
        ..MessagesRow::default()
    };
    let put = |row: &MessagesRow| Write::PutMessages([4; 32], Box::new(row.clone()));
    let check = |row: Option<&MessagesRow>| Check::Messages([4; 32], row.cloned());
    let (first, second) = (row(&[1], 9), row(&[1, 2], 10));
    assert!(store.holds(check(None)).await);
    store.write(vec![put(&first)]).await;
    assert!(store.holds(check(Some(&first))).await && store.holds(Check::Messages([5; 32], None)).await);
    assert!(!store.holds(check(None)).await && !store.holds(check(Some(&second))).await);
    store.write(vec![put(&first), put(&second)]).await;
    assert!(store.holds(check(Some(&second))).await && !store.holds(check(Some(&first))).await);
    assert_eq!((store.count(Table::Messages), store.count(Table::Expiry)), (1, 1));
    store.write(vec![Write::Sweep(at(10), 9)]).await;
    assert_eq!(store.count(Table::Messages), 1, "its last moment is not over");
    store.write(vec![Write::Sweep(at(11), 9)]).await;
    assert_eq!((store.count(Table::Messages), store.count(Table::Expiry)), (0, 0));
}

#[tokio::test]
async fn the_sweeper_removes_what_has_ended_with_its_indexes_and_nothing_else() {
    let store = Store::new().await;
    let ada = user_id(1);
    let applied = |seconds| {
        let outcome = Outcome { at: at(seconds), keep: Duration::from_secs(1), ..outcome(CommandId::new()) };
        Batch { outcome: Some(outcome), ..batch() }
    };
    let mut ending = vec![put_session(1, ada), put_session(2, ada)];
    let sent = TokenRow { delivered: DeliveryState::Sent, ..token_row(3, Some(ada)) };
    ending.push(Write::PutToken(Box::new(sent)));
    ending.push(Write::PutToken(Box::new(token_row(4, None))));
    ending.push(Write::RecordFailure([5; 32], at(1), Duration::from_secs(9)));
    ending.push(Write::ExpectVerification(ada, at(2)));
    store.write(ending).await;
    store.commit(applied(1)).await;
    let lasting = SessionRow { expires_at: at(5_000_000), ..session_row(9, ada) };
    let token = TokenRow { expires_at: at(5_000_000), ..token_row(9, Some(ada)) };
    store
        .write(vec![
            Write::PutSession([9; 32], Box::new(lasting)),
            Write::PutToken(Box::new(token)),
            Write::RecordFailure([9; 32], at(4_000_000), Duration::from_secs(9_000_000)),
        ])
        .await;
    store.commit(applied(5_000_000)).await;

    let tables =
        [Table::Sessions, Table::Activity, Table::Tokens, Table::TokensByUser, Table::Attempts, Table::Applied];
    let counts = || tables.map(|table| store.count(table));
    assert_eq!(counts(), [3, 3, 3, 2, 2, 2]);
    // A token is remembered for a week after its end, so that a late click can be told what happened.
    store.write(vec![Write::Sweep(at(1_000), 100)]).await;
    assert_eq!(counts(), [1, 1, 3, 2, 1, 1]);
    let week = 7 * 24 * 3_600;
    store.write(vec![Write::Sweep(at(100 + week), 100)]).await;
    assert_eq!(counts()[2], 3, "its last moment is not over");
    store.write(vec![Write::Sweep(at(101 + week), 100)]).await;
    assert_eq!(counts(), [1; 6]);
    assert_eq!(store.storage.reader().never_verified(at(1_000), 10).unwrap(), [(ada, at(2))]);
    // The four that last, and the verification's two.
    assert_eq!(store.count(Table::Expiry), 6);
}

#[tokio::test]
async fn a_token_whose_message_is_due_stays_until_its_delivery_has_ended() {
    let store = Store::new().await;
    let token = token_row(3, Some(user_id(1)));
    let superseded = TokenRow { end: Some(TokenEnd::Superseded), ..token_row(4, Some(user_id(1))) };
    let nobodys = token_row(5, None);
    let rows = [&token, &superseded, &nobodys].map(|row| Write::PutToken(Box::new(row.clone())));
    store.write(rows.into()).await;
    let late = at(101 + 7 * 24 * 3_600);
    assert_eq!(store.storage.reader().undelivered(at(101), 9).unwrap(), []);
    store.write(vec![Write::Sweep(late, 100)]).await;
    assert_eq!(store.storage.reader().undelivered(late, 9).unwrap(), [token.clone(), superseded.clone()]);
    let ends = [token.id, superseded.id].map(|token| Write::EndDelivery(token, DeliveryState::Failed));
    store.write(ends.into()).await;
    store.write(vec![Write::Sweep(late, 100)]).await;
    assert_eq!([Table::Tokens, Table::TokensByUser, Table::Expiry].map(|table| store.count(table)), [0; 3]);
}

#[tokio::test]
async fn a_sweep_is_bounded_and_unverified_accounts_do_not_stop_it() {
    let store = Store::new().await;
    let users: Vec<_> = (0..20).map(user_id).collect();
    store.write(users.iter().map(|user| Write::ExpectVerification(*user, at(0))).collect()).await;
    store.write((1..=10).map(|seed| put_session(seed, user_id(1))).collect()).await;
    store.write(vec![Write::Sweep(at(1_000), 4)]).await;
    assert_eq!((store.count(Table::Sessions), store.count(Table::Activity)), (6, 6));
    store.write(vec![Write::Sweep(at(1_000), 40)]).await;
    assert_eq!(store.count(Table::Sessions), 0);
    let reader = store.storage.reader();
    assert_eq!(reader.never_verified(at(1), 100).unwrap().len(), 20);
    assert_eq!(reader.never_verified(at(1), 3).unwrap().len(), 3);
    assert_eq!(reader.never_verified(at(0), 100).unwrap(), []);
    assert_eq!(reader.never_verified(at(1), 0).unwrap(), []);
    store.write(vec![Write::ExpectVerification(users[0], at(50)), Write::ForgetVerification(users[1])]).await;
    assert_eq!(reader.never_verified(at(1), 100).unwrap().len(), 18);
    assert_eq!(store.count(Table::Expiry), 2 * 19);
}

#[tokio::test]
async fn pruning_is_bounded_and_no_place_is_given_twice() {
    let disk = MemoryDisk::new();
    let store = Store::on(Location::Memory(disk.clone())).await;
    store.commit(Batch { signals: (0..10).map(|_| signal(user_id(1))).collect(), ..batch() }).await;
    store.write(vec![Write::PruneLog(7, 3)]).await;
    assert_eq!(store.log(), (4..=10).collect::<Vec<_>>());
    store.write(vec![Write::PruneLog(7, 100)]).await;
    assert_eq!(store.log(), [8, 9, 10]);
    store.write(vec![Write::PruneLog(u64::MAX, 100)]).await;
    assert_eq!((store.log(), store.storage.reader().head().unwrap()), (vec![], 10));
    store.close().await;
    let store = Store::on(Location::Memory(disk)).await;
    assert_eq!(store.commit(telling()).await, 11);
}

#[tokio::test]
async fn a_removed_user_leaves_no_row_anywhere() {
    let store = Store::new().await;
    let (ada, eve) = (user_id(1), user_id(2));
    let name = Username::parse("Ada").unwrap();
    let contacts = vec![
        ContactRow { proven_at: Some(at(2)), ..contact_row(1, "ada@example.com") },
        contact_row(2, "ada@example.org"),
        ContactRow { channel: Channel::Phone, ..contact_row(3, "+441234567890") },
    ];
    let row = UserRow { username: Some(UsernameRow::from(&name)), contacts, ..user_row(ada) };
    let taken = UniqueKey::address(Channel::Email, "ada@example.org");
    let mut writes = vec![
        Write::PutCredential(ada, CredentialRow::new("p", 1, at(1))),
        Write::PutOwner(UniqueKey::username(name.canonical()), ada),
        Write::PutOwner(UniqueKey::skeleton(name.skeleton()), ada),
        Write::PutOwner(UniqueKey::address(Channel::Email, "ada@example.com"), ada),
        Write::PutOwner(taken.clone(), eve),
        Write::ExpectVerification(ada, at(90)),
        Write::PutToken(Box::new(token_row(6, Some(ada)))),
        Write::PutToken(Box::new(token_row(7, Some(ada)))),
        Write::RecordLogin(ada, at(3)),
        put_session(8, ada),
        put_session(9, ada),
        put_session(10, eve),
        Write::PutChange(Box::new(change_row(ada, 4, ChangeKind::ContactRemoved, "ada@example.net", 95))),
        Write::PutClaim(Channel::Email, "ada@example.org".to_owned(), eve),
    ];
    for contact in &row.contacts {
        writes.push(Write::PutClaim(contact.channel, contact.canonical.clone(), ada));
    }
    writes.push(put_user(row));
    store.write(writes).await;
    assert_eq!(store.tables_with(ada.as_bytes()).len(), 22);

    let expiring = store.count(Table::Expiry);
    store.write(vec![Write::RemoveUser(ada)]).await;
    assert_eq!(store.tables_with(ada.as_bytes()), []);
    assert_eq!(expiring - store.count(Table::Expiry), 7, "two tokens, two sessions, the verification's two, a change");
    assert_eq!(store.look(|view| view.owner(&taken)), Some(eve), "what has become another's stays theirs");
    assert_eq!(store.look(|view| view.newest_claimant(Channel::Email, "ada@example.org")), Some(eve));
    assert!(store.look(|view| view.session(&[10; 32])).is_some());
    store.write(vec![Write::RemoveUser(ada)]).await;
}

#[tokio::test]
async fn the_newest_claim_is_found_and_addresses_do_not_mix() {
    let store = Store::new().await;
    let (first, second) = (UserId::new(), UserId::new());
    let claim = |address: &str, user| Write::PutClaim(Channel::Email, address.to_owned(), user);
    store.write(vec![claim("a@b.example", second), claim("a@b.example", first), claim("a@b.examples", first)]).await;
    let newest = |address| store.look(|view| view.newest_claimant(Channel::Email, address));
    assert_eq!(
        (newest("a@b.example"), newest("a@b.examples"), newest("a@b.exampl")),
        (Some(second), Some(first), None)
    );
    store.write(vec![Write::RemoveClaim(Channel::Email, "a@b.example".to_owned(), second)]).await;
    assert_eq!(newest("a@b.example"), Some(first));
}

#[tokio::test]
async fn open_tokens_are_those_of_the_purpose_and_contact_that_have_not_ended() {
    let store = Store::new().await;
    let (ada, contact) = (user_id(1), id(ContactId::from_bytes, 2));
    let verify = TokenRow {
        purpose: TokenPurpose::VerifyEmail,
        binding: Binding::ContactRevision { contact, revision: 1 },
        ..token_row(1, Some(ada))
    };
    let tokens = [verify, token_row(2, Some(ada)), token_row(3, Some(ada)), token_row(4, Some(user_id(2)))];
    store.write(tokens.iter().map(|row| Write::PutToken(Box::new(row.clone()))).collect()).await;
    store.write(vec![Write::EndToken(tokens[2].id, TokenEnd::Used)]).await;
    let open = |purpose, contact| {
        store.look(|view| view.open_tokens(ada, purpose, contact)).into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(open(TokenPurpose::ResetByEmail, None), [tokens[1].id]);
    assert_eq!(open(TokenPurpose::VerifyEmail, Some(contact)), [tokens[0].id]);
    assert_eq!(open(TokenPurpose::VerifyEmail, Some(id(ContactId::from_bytes, 9))), []);
    assert_eq!(open(TokenPurpose::VerifyPhone, None), []);
}

#[tokio::test]
async fn a_projection_is_read_by_prefix_in_either_direction() {
    let store = Store::new().await;
    let put = |name: &str, key: &[u8]| Write::PutProjection(name.to_owned(), 0, key.to_vec(), key.to_vec());
    store.write(vec![put("a", b"x1"), put("a", b"x2"), put("a", b"x3"), put("a", b"y"), put("ab", b"x2")]).await;
    let keys = |prefix: &[u8], from: &[u8], newest_first, limit| {
        let range = ProjectionRange { prefix, from, until: None, newest_first, limit };
        let found = store.storage.reader().projection("a", range).unwrap();
        assert!(found.iter().all(|(key, value)| key == value));
        found.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(keys(b"x", b"", false, 9), ["x1", "x2", "x3"]);
    assert_eq!(keys(b"x", b"x2", false, 9), ["x2", "x3"]);
    assert_eq!(keys(b"x", b"", true, 2), ["x3", "x2"]);
    assert_eq!(keys(b"", b"", false, 9), ["x1", "x2", "x3", "y"]);
    assert_eq!(keys(b"x", b"y", false, 9), [""; 0]);
}

#[tokio::test]
async fn users_are_paged_in_the_order_of_registration() {
    let store = Store::new().await;
    let users: Vec<_> = (0..5).map(|_| UserId::new()).collect();
    store.write(users.iter().rev().map(|user| put_user(user_row(*user))).collect()).await;
    let page = |after, limit| {
        let found = store.storage.reader().users_after(after, limit).unwrap();
        found.into_iter().map(|user| user.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), users[..2]);
    assert_eq!(page(Some(users[1]), 9), users[2..]);
    assert_eq!(page(Some(users[4]), 9), []);
}

#[tokio::test]
async fn the_last_place_of_a_budget_is_given_to_one_and_what_costs_nothing_takes_none() {
    let store = Store::new().await;
    let (cost, most) = (Duration::from_secs(20), Duration::from_secs(60));
    let room = |seconds| Check::Room { key: [4; 32], at: at(seconds), cost, most };
    let spend = |seconds, cost| Write::Spend { key: [4; 32], at: at(seconds), cost, most };
    for _ in 0..3 {
        assert!(store.holds(room(100)).await);
        store.write(vec![spend(100, Duration::ZERO), spend(100, cost)]).await;
    }
    assert!(!store.holds(room(100)).await && !store.holds(room(119)).await && store.holds(room(120)).await);
    assert!(!store.holds(room(99)).await, "a clock that was set back waits no longer than it was set back");
    store.write(vec![spend(500, cost); 3]).await;
    assert!(!store.holds(room(0)).await && store.holds(room(520)).await);
}

#[tokio::test]
async fn a_budget_is_swept_once_it_is_whole_and_not_before() {
    let store = Store::new().await;
    let (cost, most) = (Duration::from_secs(20), Duration::from_secs(60));
    let room = |seconds| Check::Room { key: [4; 32], at: at(seconds), cost, most };
    store.write(vec![Write::Spend { key: [4; 32], at: at(100), cost, most }; 3]).await;
    for (seconds, left) in [(130, 1), (160, 1), (161, 0)] {
        store.write(vec![Write::Sweep(at(seconds), 9)]).await;
        assert_eq!([Table::Limits, Table::Expiry].map(|table| store.count(table)), [left; 2], "{seconds}");
        assert_eq!(store.holds(room(119)).await, left == 0, "{seconds}");
    }
}

#[tokio::test]
async fn a_budget_that_was_spent_by_a_clock_that_was_ahead_is_whole_a_span_after_it_is_spent_again() {
    let store = Store::new().await;
    let (cost, most) = (Duration::from_secs(20), Duration::from_secs(60));
    let spend = |seconds| Write::Spend { key: [4; 32], at: at(seconds), cost, most };
    let room = |seconds| Check::Room { key: [4; 32], at: at(seconds), cost, most };
    store.write(vec![spend(9_000_000), spend(100)]).await;
    assert!(!store.holds(room(139)).await && store.holds(room(140)).await);
}

#[tokio::test]
async fn text_messages_are_counted_by_region_and_pass_until_they_are_withheld() {
    use crate::storage::{TextEvent, TextSlot, TextsRow};

    let store = Store::new().await;
    let count = |region: &str, seconds, event| Write::CountText(region.to_owned(), at(seconds), event);
    let passes = |region: &str| Check::TextsPass(region.to_owned());
    assert!(store.holds(passes("GB")).await && store.holds(Check::Texts("GB".to_owned(), None)).await);
    let started = TextEvent::Started(10);
    let counted = vec![count("GB", 1, started), count("GB", 9, started), count("GB", 301, started)];
    store.write(counted).await;
    store.write(vec![count("GB", 9, TextEvent::Answered), count("FR", 9, TextEvent::None)]).await;
    let slots =
        vec![TextSlot { from: at(0), started: 2, answered: 1 }, TextSlot { from: at(300), started: 1, answered: 0 }];
    let row = TextsRow { slots, opened_at: None };
    assert!(store.holds(Check::Texts("GB".to_owned(), Some(row.clone()))).await && store.holds(passes("GB")).await);
    assert!(store.holds(Check::Texts("FR".to_owned(), Some(TextsRow::default()))).await);
    let open = TextsRow { opened_at: Some(at(302)), ..TextsRow::default() };
    store.write(vec![Write::PutTexts("GB".to_owned(), Box::new(open))]).await;
    assert!(!store.holds(passes("GB")).await && store.holds(passes("FR")).await);
    assert!(!store.holds(Check::Texts("GB".to_owned(), Some(row))).await);
    assert_eq!(store.count(Table::Texts), 2);
}
