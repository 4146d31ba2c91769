//! Steps that tests of people's accounts have in common.

use majordomo::testing::TestAccounts;
use majordomo::{
    Accounts, Answer, Authenticate, Channel, ConfirmEmail, ConfirmPhone, OneTimeCode, Password, Proof, Register,
    Signal, TokenId, UserId,
};

/// A password that breaks no rule.
pub(crate) const PASSWORD: &str = "nine lanterns over a quiet harbour";
/// Another one.
pub(crate) const OTHER_PASSWORD: &str = "seventeen purple elephants on ice";

/// A registration with the password that is used everywhere.
pub(crate) fn registration(username: Option<&str>, email: Option<&str>, phone: Option<&str>) -> Register {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Register { username: owned(username), email: owned(email), phone: owned(phone), ..Register::new(PASSWORD) }
}

/// A user with proven addresses.
pub(crate) async fn proven(test: &TestAccounts, username: &str, email: Option<&str>, phone: Option<&str>) -> UserId {
    let accepted = test.register(registration(Some(username), email, phone)).await.unwrap();
    test.drain().await;
    for message in due(test).into_iter().filter(|message| message.user == accepted.user) {
        confirm(test, &message).await.unwrap();
    }
    test.drain().await;
    assert!(test.user(accepted.user).unwrap().unwrap().is_verified());
    accepted.user
}

/// A login.
pub(crate) async fn log_in(accounts: &Accounts, identifier: &str, password: &str) -> Answer<Authenticate> {
    let (identifier, password) = (identifier.to_owned(), Password::new(password));
    accounts.authenticate(Authenticate { identifier, password }).await
}

/// A verification message that was sent.
#[derive(Clone, Debug)]
pub(crate) struct Verification {
    pub(crate) user: UserId,
    pub(crate) channel: Channel,
    pub(crate) token: TokenId,
    pub(crate) to: String,
    pub(crate) proof: Proof,
}

/// Every verification message that was sent, oldest first: an e-mail with its link, a text message with its code.
pub(crate) fn due(test: &TestAccounts) -> Vec<Verification> {
    let recorded = test.recorded();
    let sent = test.messages().messages().into_iter().filter_map(|message| {
        let (user, token) =
            recorded.iter().find(|envelope| envelope.id == message.id).and_then(|envelope| match &envelope.signal {
                Signal::VerifyEmail { user, token, .. } | Signal::VerifyPhone { user, token, .. } => {
                    Some((*user, *token))
                }
                _ => None,
            })?;
        let proof = match message.channel {
            Channel::Email => Proof::from_link(message.link().unwrap()).unwrap(),
            Channel::Phone => Proof::Code { challenge: token, code: OneTimeCode::new(message.code().unwrap()) },
        };
        Some(Verification { user, channel: message.channel, token, to: message.to.clone(), proof })
    });
    sent.collect()
}

/// Presents the proof of a verification message; the name of the reason where it is refused.
pub(crate) async fn confirm(accounts: &Accounts, message: &Verification) -> Result<UserId, &'static str> {
    let proof = message.proof.clone();
    match message.channel {
        Channel::Email => {
            let confirmed = accounts.confirm_email(ConfirmEmail { proof }).await;
            confirmed.map(|confirmed| confirmed.user).map_err(|error| error.as_str())
        }
        Channel::Phone => {
            let confirmed = accounts.confirm_phone(ConfirmPhone { proof }).await;
            confirmed.map(|confirmed| confirmed.user).map_err(|error| error.as_str())
        }
    }
}
