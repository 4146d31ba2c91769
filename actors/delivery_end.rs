//! The ends of deliveries, purely: which signal tells that the message of a token was sent, or never will be.

use majordomo_model::{Channel, Contact, Email, ErrorType, Failure, Personal, Phone, Signal, TokenPurpose, UserId};

use crate::storage::TokenRow;

/// The way that the message of a token travels; `None` for a purpose that sends none.
pub(crate) const fn channel(purpose: TokenPurpose) -> Option<Channel> {
    match purpose {
        TokenPurpose::VerifyEmail | TokenPurpose::ResetByEmail => Some(Channel::Email),
        TokenPurpose::VerifyPhone | TokenPurpose::ResetByPhone => Some(Channel::Phone),
        _ => None,
    }
}

/// What tells that the transport accepted the message. `None` for nobody's token, which no message is sent for.
pub(crate) fn sent(token: &TokenRow) -> Option<Signal> {
    let (user, address, channel, delivery) = facts(token)?;
    Some(match token.purpose {
        TokenPurpose::VerifyEmail => Signal::UserEmailVerificationInitiated { user, address, delivery },
        TokenPurpose::VerifyPhone => Signal::UserPhoneVerificationInitiated { user, address, delivery },
        _ => Signal::PasswordResetRequestProcessed { user, address, channel, delivery },
    })
}

/// What tells that the message will not be sent. `None` for nobody's token, which no message is sent for.
pub(crate) fn failed(token: &TokenRow, error_type: ErrorType, reason: Failure) -> Option<Signal> {
    let (user, address, channel, _) = facts(token)?;
    let (user, name) = (Some(user), Some(token.id));
    Some(match token.purpose {
        TokenPurpose::VerifyEmail => {
            Signal::UserEmailVerificationFailed { user, address: Some(address), token: name, reason }
        }
        TokenPurpose::VerifyPhone => {
            Signal::UserPhoneVerificationFailed { user, address: Some(address), token: name, reason }
        }
        _ => Signal::PasswordResetRequestFailed { user, channel, identifier: address, error_type, reason },
    })
}

fn facts(token: &TokenRow) -> Option<(UserId, Personal, Channel, majordomo_model::FlowId)> {
    let channel = channel(token.purpose)?;
    let (canonical, original) = (token.address.clone(), token.address.clone());
    let address = match channel {
        Channel::Email => Contact::Email(Email::from_stored(canonical, original)),
        Channel::Phone => Contact::Phone(Phone::from_stored(canonical, original)),
    };
    Some((token.user?, Personal::known(address.redacted(), token.address.clone()), channel, token.delivery))
}
