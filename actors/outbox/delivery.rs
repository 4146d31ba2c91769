//! Deliveries, purely: how the token of a message stands, and what tells that its delivery ended.

use majordomo_model::{ErrorType, Failure, Signal, Timestamp, UserId};

use crate::delivery_end::{self, channel};
use crate::storage::{ChangeRow, Check, ContactRow, DeliveryState, TokenEnd, TokenRow, UserRow, Write};
use crate::token::Binding;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// The transport accepted it.
    Sent,
    /// It was given up.
    GaveUp(Failure),
}

/// The end of a delivery, to be committed whole.
#[derive(Debug)]
pub(super) struct End {
    /// That it has not ended before.
    pub(super) checks: Vec<Check>,
    /// The mark on the token's row.
    pub(super) writes: Vec<Write>,
    /// What ends the delivery's flow.
    pub(super) signal: Signal,
}

/// How the token of a message stands.
#[derive(Clone, Copy)]
pub(super) enum Standing<'row> {
    /// The message is to be sent to this contact.
    Live(&'row ContactRow),
    /// A newer token took its place, or what it was for is gone.
    Superseded,
    /// It was used.
    Used,
    /// It ended by time.
    Expired,
    /// The delivery ended before.
    Ended,
}

/// What ends a delivery. `None` for nobody's token, which no message is sent for.
pub(super) fn end(token: &TokenRow, sending: Sending) -> Option<End> {
    let state = match sending {
        Sending::Sent => DeliveryState::Sent,
        Sending::GaveUp(_) => DeliveryState::Failed,
    };
    Some(End {
        checks: vec![Check::DeliveryPending(token.id)],
        writes: delivery_end::writes(token, state),
        signal: ending(token, sending)?,
    })
}

fn ending(token: &TokenRow, sending: Sending) -> Option<Signal> {
    match sending {
        Sending::Sent => delivery_end::sent(token),
        Sending::GaveUp(reason) if token.purpose.is_reset() => {
            delivery_end::failed(token, ErrorType::EmailSendFailed, reason)
        }
        Sending::GaveUp(_) => delivery_end::failed(token, ErrorType::EmailSendFailed, Failure::EmailSendFailed),
    }
}

/// What a token is bound to, as the store has it now.
#[derive(Clone, Copy, Default)]
pub(super) struct Bound<'row> {
    /// Its user.
    pub(super) user: Option<&'row UserRow>,
    /// Whom its address is kept for, if it proves one.
    pub(super) holder: Option<UserId>,
    /// The change that it undoes, if it is for that.
    pub(super) change: Option<&'row ChangeRow>,
}

/// How a token stands.
pub(super) fn standing<'row>(token: &TokenRow, bound: Bound<'row>, now: Timestamp) -> Standing<'row> {
    match token.end {
        Some(TokenEnd::Used) => return Standing::Used,
        Some(TokenEnd::Superseded) => return Standing::Superseded,
        None => {}
    }
    if token.expires_at <= now {
        return Standing::Expired;
    }
    match token.delivered {
        DeliveryState::Pending | DeliveryState::Enclosed => {}
        DeliveryState::Sent | DeliveryState::Failed | DeliveryState::Withheld => return Standing::Ended,
    }
    bound_contact(token, bound).map_or(Standing::Superseded, Standing::Live)
}

/// The contact that the message goes to, as long as the token is good for anything.
fn bound_contact<'row>(token: &TokenRow, bound: Bound<'row>) -> Option<&'row ContactRow> {
    let user = bound.user?;
    // The address from before a change is told of it whether or not it is still the user's.
    if let Binding::Change(version) = token.binding {
        return bound.change.filter(|change| change.version == version).map(|change| &change.told);
    }
    // Whichever address of the user it is.
    if token.purpose == majordomo_model::TokenPurpose::Unlock {
        let is_bound = token.binding == Binding::CredentialEpoch(user.epoch);
        let told = |contact: &&ContactRow| contact.canonical == token.address && contact.proven_at.is_some();
        return user.contacts.iter().filter(|_| is_bound).find(told);
    }
    let channel = channel(token.purpose)?;
    match token.binding {
        Binding::CredentialEpoch(epoch) if epoch == user.epoch => user.contact_at(channel, &token.address),
        Binding::CredentialEpoch(_) | Binding::Change(_) => None,
        Binding::ContactRevision { contact, revision } => user.contact(contact).filter(|contact| {
            contact.channel == channel
                && contact.canonical == token.address
                && contact.revision == revision
                && contact.proven_at.is_none()
                && bound.holder.is_none_or(|holder| holder == user.id)
        }),
    }
}

#[cfg(test)]
mod tests {

    use std::time::Duration;

    use majordomo_model::{Channel, ContactId, FlowId, TokenId, TokenPurpose};

    use super::*;

    use crate::storage::TextEvent;
    use crate::token::KeyId;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000);

    fn user(channel: Channel, canonical: &str) -> UserRow {
        let contact = ContactRow {
            id: ContactId::new(),
            channel,
            canonical: canonical.into(),
            original: canonical.into(),
            revision: 3,
            proven_at: None,
            primary: true,
            added_at: NOW,
            replaces: None,
        };
        UserRow { contacts: vec![contact], epoch: 5, ..UserRow::unknown(UserId::new(), NOW) }
    }

    fn token(user: &UserRow, purpose: TokenPurpose) -> TokenRow {
        let contact = &user.contacts[0];
        let binding = if purpose.is_reset() {
            Binding::CredentialEpoch(user.epoch)
        } else {
            Binding::ContactRevision { contact: contact.id, revision: contact.revision }
        };
        TokenRow {
            id: TokenId::new(),
            purpose,
            user: Some(user.id),
            address: contact.canonical.clone(),
            binding,
            key: KeyId::from_bytes([1; 8]),
            created_at: NOW,
            expires_at: NOW.plus(Duration::from_secs(60)),
            attempts: 0,
            end: None,
            delivery: FlowId::new(),
            delivered: DeliveryState::Pending,
            code_only: false,
        }
    }

    #[test]
    fn every_purpose_has_its_two_ends() {
        for (purpose, channel, address, sent, failed) in [
            (
                TokenPurpose::VerifyEmail,
                Channel::Email,
                "ada@example.com",
                "user_email_verification_initiated",
                "user_email_verification_failed",
            ),
            (
                TokenPurpose::VerifyPhone,
                Channel::Phone,
                "+447911123412",
                "user_phone_verification_initiated",
                "user_phone_verification_failed",
            ),
            (
                TokenPurpose::ResetByEmail,
                Channel::Email,
                "ada@example.com",
                "password_reset_request_processed",
                "password_reset_request_failed",
            ),
            (
                TokenPurpose::ResetByPhone,
                Channel::Phone,
                "+447911123412",
                "password_reset_request_processed",
                "password_reset_request_failed",
            ),
        ] {
            let user = user(channel, address);
            let token = token(&user, purpose);
            for (sending, name, state) in [
                (Sending::Sent, sent, DeliveryState::Sent),
                (Sending::GaveUp(Failure::Expired), failed, DeliveryState::Failed),
            ] {
                let mut end = end(&token, sending).unwrap();
                assert_eq!((end.signal.kind().as_str(), end.signal.user()), (name, Some(user.id)));
                assert!(end.signal.kind().ends().contains(&majordomo_model::FlowKind::Delivery));
                assert!(matches!(end.checks.as_slice(), [Check::DeliveryPending(id)] if *id == token.id));
                let [Write::EndDelivery(id, to), unsent @ ..] = end.writes.as_slice() else { panic!("{end:?}") };
                assert_eq!((*id, *to), (token.id, state));
                let is_unsent = matches!(unsent, [Write::CountText(region, at, TextEvent::Unsent)] if region == "GG" && *at == token.created_at);
                assert_eq!(is_unsent, channel == Channel::Phone && state == DeliveryState::Failed, "{unsent:?}");
                assert!(is_unsent || unsent.is_empty());
                let shown = serde_json::to_value(&end.signal).unwrap()["data"].to_string();
                assert!(!shown.contains(address) && !shown.contains("ada@"), "{shown}");
                assert_eq!(shown.contains("email_send_failed"), sending != Sending::Sent, "{shown}");
                end.signal.visit_personal(&mut |personal| assert_eq!(personal.expose(), Some(address)));
            }
            let used = TokenRow { end: Some(TokenEnd::Used), ..token.clone() };
            let writes = end(&used, Sending::GaveUp(Failure::Expired)).unwrap().writes;
            assert_eq!(writes.len(), 1, "what was used had been sent: {writes:?}");
            assert!(end(&TokenRow { user: None, ..token }, Sending::Sent).is_none());
        }
    }

    #[test]
    fn a_token_is_live_only_as_long_as_everything_fits() {
        let user = user(Channel::Email, "ada@example.com");
        let (proof, reset) = (token(&user, TokenPurpose::VerifyEmail), token(&user, TokenPurpose::ResetByEmail));
        let name = |token: &TokenRow, user: Option<&UserRow>, holder, now| match standing(
            token,
            Bound { user, holder, change: None },
            now,
        ) {
            Standing::Live(contact) => contact.canonical.clone(),
            Standing::Superseded => "superseded".into(),
            Standing::Used => "used".into(),
            Standing::Expired => "expired".into(),
            Standing::Ended => "ended".into(),
        };
        let stands = |token: &TokenRow, user: &UserRow| name(token, Some(user), None, NOW);
        for token in [&proof, &reset] {
            assert_eq!(stands(token, &user), "ada@example.com");
            assert_eq!(name(token, None, None, NOW), "superseded");
            assert_eq!(name(token, Some(&user), None, token.expires_at), "expired");
            for (end, expected) in [(TokenEnd::Used, "used"), (TokenEnd::Superseded, "superseded")] {
                let ended = TokenRow { end: Some(end), ..token.clone() };
                assert_eq!(name(&ended, Some(&user), None, token.expires_at), expected);
            }
            for delivered in [DeliveryState::Sent, DeliveryState::Failed, DeliveryState::Withheld] {
                assert_eq!(stands(&TokenRow { delivered, ..token.clone() }, &user), "ended");
            }
            let mut gone = user.clone();
            gone.contacts.clear();
            assert_eq!(stands(token, &gone), "superseded");
        }
        let changed = |change: fn(&mut UserRow)| {
            let mut row = user.clone();
            change(&mut row);
            (stands(&proof, &row), stands(&reset, &row))
        };
        let (live, superseded) = ("ada@example.com".to_owned(), "superseded".to_owned());
        assert_eq!(changed(|row| row.epoch += 1), (live.clone(), superseded.clone()));
        assert_eq!(changed(|row| row.contacts[0].revision += 1), (superseded.clone(), live.clone()));
        assert_eq!(changed(|row| row.contacts[0].proven_at = Some(NOW)), (superseded.clone(), live.clone()));
        assert_eq!(changed(|row| row.contacts[0].canonical.push('x')), (superseded.clone(), superseded.clone()));
        assert_eq!(name(&proof, Some(&user), Some(UserId::new()), NOW), superseded);
        assert_eq!(name(&proof, Some(&user), Some(user.id), NOW), live);
    }
}
