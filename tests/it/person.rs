//! What people do with an account system, and with the messages that it sends them.

use std::time::Duration;

use majordomo::breach::{BreachedPasswords, BreachedSuffix, HashPrefix};
use majordomo::notifier::NotifierSettings;
use majordomo::testing::{BASE_URL, TestAccounts};
use majordomo::{
    Accepted, Answer, Authenticate, Authority, BreachCheckFailure, Channel, Config, ConfirmEmail, ConfirmPhone,
    ContactId, HashParameters, LoggedIn, OneTimeCode, Password, Proof, Register, RequestPasswordReset, ResetPassword,
    ResetRequested, TokenId, UserId,
};
use sha1::Digest;

pub const PASSWORD: &str = "nine lanterns over a quiet harbour";
pub const NEW_PASSWORD: &str = "seventeen purple elephants";
pub const EMAIL: &str = "ada@example.com";
pub const PHONE: &str = "+447911123456";
pub const MICROSECOND: Duration = Duration::from_micros(1);

/// Bounds what could otherwise wait for ever.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(180), what).await.expect("it takes too long")
}

/// The default configuration with cheap hashes, for a builder that is to be changed.
pub fn cheap() -> Config {
    let mut config = Config::default();
    config.hashing.parameters = HashParameters::cheap_for_tests();
    config.hashing.queue = Some(10_000);
    config.messages = Some(NotifierSettings::new("Example", BASE_URL));
    config
}

pub fn password(text: &str) -> Password {
    Password::new(text)
}

pub fn by_password(text: &str) -> Authority {
    Authority::Password(password(text))
}

/// Registers, and waits until the messages are here.
pub async fn register(
    test: &TestAccounts,
    username: Option<&str>,
    email: Option<&str>,
    phone: Option<&str>,
) -> Accepted {
    let own = |text: &str| text.to_owned();
    let request = Register {
        username: username.map(own),
        email: email.map(own),
        phone: phone.map(own),
        ..Register::new(PASSWORD)
    };
    let accepted = test.register(request).await.unwrap();
    soon(test.drain()).await;
    accepted
}

/// Registers, and proves every address.
pub async fn proven(test: &TestAccounts, username: Option<&str>, email: Option<&str>, phone: Option<&str>) -> UserId {
    let accepted = register(test, username, email, phone).await;
    if let Some(email) = email {
        test.confirm_email(ConfirmEmail { proof: link_proof(&link_to(test, email)) }).await.unwrap();
    }
    if let (Some(phone), Some(challenge)) = (phone, accepted.phone_challenge) {
        test.confirm_phone(ConfirmPhone { proof: code_proof(challenge, &code_to(test, phone)) }).await.unwrap();
    }
    soon(test.drain()).await;
    accepted.user
}

/// Ada, with a username, an e-mail address and a phone number, all of it proven.
pub async fn ada(test: &TestAccounts) -> UserId {
    proven(test, Some("ada"), Some(EMAIL), Some(PHONE)).await
}

pub fn link_to(test: &TestAccounts, address: &str) -> String {
    let message = test.messages().last_to(address).unwrap_or_else(|| panic!("no message to {address}"));
    message.link().expect("a link in the message").to_owned()
}

pub fn code_to(test: &TestAccounts, address: &str) -> String {
    let message = test.messages().last_to(address).unwrap_or_else(|| panic!("no message to {address}"));
    message.code().expect("a code in the message").to_owned()
}

pub fn link_proof(link: &str) -> Proof {
    Proof::from_link(link).expect("a link")
}

pub fn code_proof(challenge: TokenId, code: &str) -> Proof {
    Proof::Code { challenge, code: OneTimeCode::new(code) }
}

/// A code that is not this one.
pub fn wrong_code(right: &str) -> String {
    let other = |digit: char| if digit == '0' { '1' } else { '0' };
    right.chars().map(other).collect()
}

pub async fn sign_in(test: &TestAccounts, identifier: &str, text: &str) -> Answer<Authenticate> {
    test.authenticate(Authenticate { identifier: identifier.to_owned(), password: password(text) }).await
}

/// Whether the session opens anything now.
pub fn is_open(test: &TestAccounts, session: &LoggedIn) -> bool {
    test.check_session(&session.token).unwrap().is_some()
}

/// Asks for a reset, and waits until the message is here.
pub async fn request_reset(test: &TestAccounts, identifier: &str, channel: Channel) -> ResetRequested {
    let request = RequestPasswordReset { identifier: identifier.to_owned(), channel };
    let requested = test.request_password_reset(request).await.unwrap();
    soon(test.drain()).await;
    requested
}

pub async fn reset(test: &TestAccounts, proof: Proof, new: &str) -> Answer<ResetPassword> {
    test.reset_password(ResetPassword { proof, new: password(new) }).await
}

/// The contact of a user that has this address.
pub fn contact(test: &TestAccounts, user: UserId, address: &str) -> ContactId {
    let user = test.user(user).unwrap().expect("the user");
    let found = user.contacts.iter().find(|contact| contact.address.canonical() == address);
    found.unwrap_or_else(|| panic!("no contact {address}")).id
}

/// A password that only [`Known`] speaks against.
pub const BREACHED: &str = "seven breached umbrellas";

/// The digits of a password's SHA-1, in capitals.
pub fn sha1(text: &str) -> String {
    sha1::Sha1::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Knows one password from a breach.
pub struct Known(pub &'static str);

impl BreachedPasswords for Known {
    async fn range(&self, prefix: HashPrefix) -> Result<Vec<BreachedSuffix>, BreachCheckFailure> {
        let hash = sha1(self.0);
        let known = hash.strip_prefix(prefix.as_str()).map(|suffix| BreachedSuffix::new(suffix, 3).unwrap());
        Ok(known.into_iter().collect())
    }
}
