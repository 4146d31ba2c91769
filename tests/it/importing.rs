//! Imports: whoever had a password in another system signs in with it, and has a hash of ours from then on.

use std::time::Duration;

use majordomo::testing::TestAccounts;
use majordomo::{
    Actor, AddContact, Authenticate, AuthenticateReason, Authority, ChangePassword, Command, CommandId, ContactClaim,
    Error, Import, ImportReason, ImportedAddress, Password, PasswordCause, Policy, Signal, SignalKind, UserId,
};

use crate::laws::assert_laws;

/// Of `test`, as passlib's own tests have it.
const SHA_CRYPT: &str = "$5$rounds=11858$WH1ABM5sKhxbkgCK$aTQsjPkz0rBsH3lQlJxw9HDTDXPKBxC0LlVeV69P.t1";
/// Of `password`, as Django's own tests have it.
const ARGON2: &str = "argon2$argon2i$v=19$m=256,t=1,p=1$c29tZXNhbHQ$AJFIsNZTMKTAewB4+ETN1A";
/// Of the empty password, as passlib's own tests have it.
const OF_NOTHING: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy";
/// Of [`DECOMPOSED_PASSWORD`], its bytes as they stand: made by `openssl passwd -6 -salt nfd`.
const DECOMPOSED: &str =
    "$6$nfd$dluy/6hHCyOxLBq9x11cIv4VDZTZs2hZQE83mgJ40Um/1UhgsJC2BwDE0w.oM7xf6HLawhTylv8XBO2mJ2p5E.";
const DECOMPOSED_PASSWORD: &str = "caf\u{65}\u{301} and th\u{e9}";

fn named(username: &str, hash: &str) -> Import {
    Import { username: Some(username.to_owned()), ..Import::new(hash) }
}

fn login(identifier: &str, password: &str) -> Authenticate {
    Authenticate { identifier: identifier.to_owned(), password: Password::new(password) }
}

async fn imported(test: &TestAccounts, import: Import) -> UserId {
    test.import(Command::new(import).actor(Actor::Admin("import".to_owned()))).await.unwrap().user
}

/// Why each password credential of a user was stored, in order.
fn causes(test: &TestAccounts, user: UserId) -> Vec<(PasswordCause, String)> {
    let recorded = test.recorded();
    let of_user = recorded.into_iter().filter_map(|told| match told.signal {
        Signal::UserPasswordSet { user: told, cause, scheme } if told == user => Some((cause, scheme)),
        _ => None,
    });
    of_user.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_password_opens_the_door_and_is_hashed_anew_once() {
    let test = TestAccounts::start().await;
    for (username, hash, password, scheme) in
        [("ada", SHA_CRYPT, "test", "sha256-crypt"), ("bob", ARGON2, "password", "argon2")]
    {
        let user = imported(&test, named(username, hash)).await;
        assert_eq!(test.hasher_state().jobs_done, if username == "ada" { 0 } else { 5 }, "an import hashes nothing");
        let wrong = test.authenticate(login(username, "Test")).await.unwrap_err();
        assert_eq!(wrong, Error::Refused(AuthenticateReason::InvalidCredentials));
        assert_eq!(causes(&test, user).len(), 1, "a wrong password changes nothing");
        for _ in 0..2 {
            assert_eq!(test.authenticate(login(username, password)).await.unwrap().user, user);
            test.drain().await;
        }
        let expected = [(PasswordCause::Import, scheme), (PasswordCause::Rehash, "argon2id")];
        assert_eq!(causes(&test, user), expected.map(|(cause, scheme)| (cause, scheme.to_owned())));
        let wrong = test.authenticate(login(username, "Test")).await.unwrap_err();
        assert_eq!(wrong, Error::Refused(AuthenticateReason::InvalidCredentials));
        let told = serde_json::to_string(&test.recorded()).unwrap();
        let secret = hash.rsplit('$').next().unwrap();
        assert!(!told.contains(secret) && told.contains(scheme), "no signal shows the hash");
    }
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_first_logins_all_get_in_and_rehash_once() {
    let test = TestAccounts::start().await;
    let user = imported(&test, named("ada", SHA_CRYPT)).await;
    test.hold_hashing(true);
    let logins: Vec<_> = (0..16).map(|_| test.tell(login("ada", "test")).unwrap()).collect();
    test.hold_hashing(false);
    for login in logins {
        assert_eq!(login.await.unwrap().unwrap().user, user);
    }
    test.drain().await;
    let causes: Vec<_> = causes(&test, user).into_iter().map(|(cause, _)| cause).collect();
    assert_eq!(causes, [PasswordCause::Import, PasswordCause::Rehash]);
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_costs_as_many_jobs_against_a_foreign_hash_as_against_nobody() {
    let test = TestAccounts::start().await;
    imported(&test, named("ada", SHA_CRYPT)).await;
    for identifier in ["ada", "nobody"] {
        let before = test.hasher_state().jobs_done;
        test.authenticate(login(identifier, "wrong")).await.unwrap_err();
        assert_eq!(
            test.hasher_state().jobs_done - before,
            1,
            "{identifier}: the decoy, which a cheap hash costs as well"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_and_one_that_is_too_long_match_no_hash_of_nothing() {
    let test = TestAccounts::start().await;
    let user = imported(&test, named("ada", OF_NOTHING)).await;
    for password in [String::new(), "x".repeat(2_000)] {
        let refused = test.authenticate(login("ada", &password)).await.unwrap_err();
        assert_eq!(refused, Error::Refused(AuthenticateReason::InvalidCredentials));
    }
    assert_eq!(causes(&test, user).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_is_compared_elsewhere_and_its_normal_form_here() {
    let test = TestAccounts::start().await;
    imported(&test, named("ada", DECOMPOSED)).await;
    let composed = "caf\u{e9} and th\u{e9}";
    test.authenticate(login("ada", composed)).await.unwrap_err();
    test.authenticate(login("ada", DECOMPOSED_PASSWORD)).await.unwrap();
    test.drain().await;
    // From then on either form is the password.
    test.authenticate(login("ada", composed)).await.unwrap();
    test.authenticate(login("ada", DECOMPOSED_PASSWORD)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_password_permits_what_a_password_permits() {
    let test = TestAccounts::start().await;
    let user = imported(&test, named("ada", SHA_CRYPT)).await;
    let authority = |password: &str| Authority::Password(Password::new(password));
    let address = || ContactClaim::Email("ada@example.com".to_owned());
    test.add_contact(AddContact { user, address: address(), authority: authority("wrong") }).await.unwrap_err();
    test.add_contact(AddContact { user, address: address(), authority: authority("test") }).await.unwrap();
    let new = "nine lanterns over a quiet harbour";
    let change =
        |current: &str| ChangePassword { user, current: Password::new(current), new: Password::new(new), keep: None };
    test.change_password(change("wrong")).await.unwrap_err();
    test.change_password(change("test")).await.unwrap();
    test.authenticate(login("ada", "test")).await.unwrap_err();
    test.authenticate(login("ada", new)).await.unwrap();
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proven_address_is_owned_at_once_and_an_unproven_one_must_be_proven() {
    let test = TestAccounts::start().await;
    let address = "ada@example.com".to_owned();
    let claimed = Import { email: Some(ImportedAddress::Claimed(address.clone())), ..named("ada", SHA_CRYPT) };
    let claimant = imported(&test, claimed).await;
    let refused = test.authenticate(login("ada", "test")).await.unwrap_err();
    assert_eq!(refused, Error::Refused(AuthenticateReason::EmailNotVerified));
    test.drain().await;
    assert_eq!(test.messages().messages().len(), 1);

    let proven = Import { email: Some(ImportedAddress::Proven(address.clone())), ..named("bob", SHA_CRYPT) };
    let owner = imported(&test, proven.clone()).await;
    test.drain().await;
    assert_eq!(test.messages().messages().len(), 1, "a proven address is sent nothing");
    assert_eq!(test.authenticate(login(&address, "test")).await.unwrap().user, owner);
    let again = Import { username: Some("eve".to_owned()), ..proven };
    assert_eq!(test.import(again).await.unwrap_err(), Error::Refused(ImportReason::EmailTaken));

    test.advance(Policy::default().unverified_lifetime + Duration::from_secs(1));
    test.sweep().await;
    assert_eq!(test.user(claimant).unwrap(), None, "nobody proved it in time");
    assert!(test.user(owner).unwrap().is_some());
    assert_laws(&test);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_repeated_is_done_once() {
    let test = TestAccounts::start().await;
    let command = Command::new(named("ada", SHA_CRYPT)).id(CommandId::new());
    let first = test.import(command.clone()).await.unwrap();
    assert_eq!(test.import(command).await.unwrap(), first);
    let told = test.recorded();
    assert_eq!(told.iter().filter(|told| told.signal.kind() == SignalKind::UserImported).count(), 1);
}
