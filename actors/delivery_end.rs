//! The ends of deliveries, purely: which signal tells that the message of a token was sent, or never will be, and what changes.

use majordomo_model::{Channel, Contact, Email, ErrorType, Failure, Personal, Phone, Signal, TokenPurpose, UserId};

use crate::storage::{DeliveryState, TextEvent, TokenEnd, TokenRow, Write};

/// The region of numbers that no plan places: one that ISO 3166-1 leaves to its users.
const NOWHERE: &str = "ZZ";

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

/// What changes by the end of a delivery. Of a text message that was never sent nobody expects an answer; if its link or
/// code was used, it was sent after all.
pub(crate) fn writes(token: &TokenRow, state: DeliveryState) -> Vec<Write> {
    let is_unsent = state == DeliveryState::Failed && token.end != Some(TokenEnd::Used);
    let unsent = is_unsent.then(|| count_text(token, TextEvent::Unsent)).flatten();
    std::iter::once(Write::EndDelivery(token.id, state)).chain(unsent).collect()
}

/// Counts what happened to the text message that a token goes with, if one does.
pub(crate) fn count_text(token: &TokenRow, event: TextEvent) -> Option<Write> {
    let is_text = channel(token.purpose) == Some(Channel::Phone);
    is_text.then(|| Write::CountText(region(&token.address), token.created_at, event))
}

/// Where a number belongs: an ISO 3166-1 code.
pub(crate) fn region(canonical: &str) -> String {
    Phone::parse(canonical).ok().and_then(|phone| phone.region()).unwrap_or_else(|| NOWHERE.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_their_region_and_those_of_none_have_one_too() {
        let regions = ["+447400123456", "+33612345678", "+12015550123", "no number", ""].map(region);
        assert_eq!(regions, ["GB", "FR", "US", "ZZ", "ZZ"]);
    }
}
