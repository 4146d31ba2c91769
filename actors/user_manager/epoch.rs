//! The end of a credential epoch: what dies with a new password, a disabling or a deletion.

use majordomo_model::{PasswordCause, RevocationCause, SessionId, Signal, Timestamp, TokenPurpose, UserId};

use super::flow::Told;
use super::fresh_token::supersede;
use super::policy::{Policy, ended_sessions, revoked};
use super::session::{count, exactly, is_live};
use crate::storage::{
    Check, ContactRow, CredentialRow, Lookup, ReadError, ReadView, SessionRow, StoredCredential, TokenRow, UserRow,
    Write,
};

/// The purposes of tokens that are bound to an epoch.
pub(super) const RESETS: [TokenPurpose; 2] = [TokenPurpose::ResetByEmail, TokenPurpose::ResetByPhone];

/// The purposes of tokens that prove an address.
const PROOFS: [TokenPurpose; 2] = [TokenPurpose::VerifyEmail, TokenPurpose::VerifyPhone];

/// What is bound to a user's epoch: every session, every reset token that has not ended, and what was asked for with
/// the old password and is not proven yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound {
    pub(super) sessions: Vec<([u8; 32], SessionRow)>,
    pub(super) resets: Vec<TokenRow>,
    pub(super) proofs: Vec<TokenRow>,
}

/// Whether a claim dies with the epoch: whoever had the password until now could have made it, and would reset the next
/// one by it once it is proven (A15, A16). The addresses that a user registered with stay until one of them is proven.
fn is_doubtful(contact: &ContactRow, user: &UserRow) -> bool {
    contact.proven_at.is_none() && (contact.replaces.is_some() || user.is_verified())
}

impl Bound {
    pub(super) fn read(view: &ReadView, user: UserId) -> Result<Self, ReadError> {
        let open = |[one, other]: [TokenPurpose; 2]| {
            let mut open = view.open_tokens(user, one, None)?;
            open.extend(view.open_tokens(user, other, None)?);
            Ok::<_, ReadError>(open)
        };
        Ok(Self { sessions: view.sessions_of(user)?, resets: open(RESETS)?, proofs: open(PROOFS)? })
    }

    /// Ends the epoch of a user. The session to keep moves into the next one, if it is live.
    pub(super) fn end(
        &self,
        user: &UserRow,
        keep: Option<SessionId>,
        cause: RevocationCause,
        now: Timestamp,
        policy: &Policy,
    ) -> Ending {
        let (doubtful, contacts): (Vec<_>, Vec<_>) =
            user.contacts.iter().cloned().partition(|contact| is_doubtful(contact, user));
        let (version, epoch) = (user.version.saturating_add(1), user.epoch.saturating_add(1));
        let next = UserRow { version, epoch, contacts, ..user.clone() };
        let live = |session: &SessionRow| is_live(session, user, now, policy);
        let kept = self.sessions.iter().find(|(_, session)| Some(session.id) == keep && live(session));
        let keep = kept.map(|(_, session)| session.id);
        let mut ended = ended_sessions(&self.sessions, keep);
        ended.retain(|session| live(session));

        let mut checks = vec![Check::UserVersion(user.id, user.version)];
        checks.extend(exactly(user.id, &self.sessions));
        checks.extend(RESETS.map(|purpose| open_tokens(user.id, purpose, &self.resets)));
        checks.extend(PROOFS.map(|purpose| open_tokens(user.id, purpose, &self.proofs)));
        let mut writes = vec![Write::RemoveSessionsOf(user.id, keep)];
        if let Some((hash, session)) = kept {
            writes.push(Write::PutSession(*hash, Box::new(SessionRow { epoch: next.epoch, ..session.clone() })));
        }
        writes.extend(supersede(&self.resets));
        let claim = |contact: &ContactRow| Write::RemoveClaim(contact.channel, contact.canonical.clone(), user.id);
        writes.extend(doubtful.iter().map(claim));
        let of_doubtful = |token: &&TokenRow| doubtful.iter().any(|gone| token.binding.contact() == Some(gone.id));
        writes.extend(supersede(&self.proofs.iter().filter(of_doubtful).cloned().collect::<Vec<_>>()));
        let sessions_revoked = count(&ended);
        let told = revoked(ended, cause).into_iter().map(Told::from).collect();
        Ending { user: next, checks, writes, told, sessions_revoked }
    }
}

/// The check that the open tokens of a purpose are those of this list, which may hold others beside.
pub(super) fn open_tokens(user: UserId, purpose: TokenPurpose, tokens: &[TokenRow]) -> Check {
    let of_purpose = tokens.iter().filter(|token| token.purpose == purpose);
    Check::OpenTokens(user, purpose, of_purpose.map(|token| token.id).collect())
}

/// How an epoch ends. The flow stores the user itself, for it may change more.
pub(super) struct Ending {
    /// The user in the next epoch and version.
    pub(super) user: UserRow,
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    pub(super) told: Vec<Told>,
    /// How many live sessions end with it.
    pub(super) sessions_revoked: u32,
}

impl Ending {
    /// With a new password, which is told before the sessions that it ends.
    pub(super) fn with_password(
        mut self,
        credential: Option<&StoredCredential>,
        phc: &str,
        cause: PasswordCause,
        now: Timestamp,
    ) -> Self {
        let (user, revision) = (self.user.id, credential.map(|credential| credential.revision));
        let row = CredentialRow::new(phc, revision.unwrap_or_default().saturating_add(1), now);
        self.checks.push(Check::CredentialRevision(user, revision));
        self.writes.push(Write::PutUser(Box::new(self.user.clone())));
        self.writes.push(Write::PutCredential(user, row));
        let set = Signal::UserPasswordSet { user, cause, scheme: "argon2id".to_owned() };
        self.told.insert(0, set.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{
        AddContact, ChangeContact, ChangePassword, Channel, ConfirmEmail, ContactClaim, Delete, Disable, Error,
        Password, RequestPasswordReset, ResetPassword, ResetPasswordReason,
    };
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, OTHER_PASSWORD, PASSWORD, any_sessions, any_user, authority};
    use super::super::session::check;
    use super::*;

    #[tokio::test]
    async fn old_password_sessions_and_reset_tokens_die_with_a_reset_a_change_a_disabling_and_a_deletion() {
        for how in ["reset", "change", "disable", "delete"] {
            let fixture = Fixture::new().await;
            let user = fixture.register_proven("ada", Some("ada@example.com"), Some("+447911123456")).await;
            let opened = [fixture.session("ada").await, fixture.session("ada").await];
            let by_phone = RequestPasswordReset { identifier: "ada".to_owned(), channel: Channel::Phone };
            let by_phone = fixture.run(by_phone).await.unwrap().challenge;
            let by_email = fixture.reset_token("ada").await;
            let (mut links, codes) = (vec![fixture.link(by_phone)], [fixture.code(by_phone), fixture.code(by_email)]);
            let (proof, new) = (fixture.link(by_email), Password::new(OTHER_PASSWORD));
            match how {
                "reset" => drop(fixture.run(ResetPassword { proof: proof.clone(), new }).await.unwrap()),
                "change" => {
                    let message = ChangePassword { user, current: Password::new(PASSWORD), new, keep: None };
                    fixture.run(message).await.unwrap();
                }
                "disable" => drop(fixture.run(Disable { user }).await.unwrap()),
                _ => drop(fixture.run(Delete::new(user)).await.unwrap()),
            }
            links.push(proof);
            for opened in opened {
                assert_eq!(check(&fixture.services, &opened.token).unwrap(), None, "{how}");
            }
            assert!(fixture.sign_in("ada").await.is_err(), "{how}");
            for proof in links.into_iter().chain(codes) {
                let again = ResetPassword { proof, new: Password::new("a third password, 1 more time") };
                let refused = fixture.run(again).await.unwrap_err();
                assert_eq!(refused, Error::Refused(ResetPasswordReason::InvalidToken), "{how}");
            }
        }
    }

    #[tokio::test]
    async fn a_pending_address_dies_with_a_reset_and_a_change_and_its_link_proves_nothing() {
        for how in ["reset", "change"] {
            let fixture = Fixture::new().await;
            let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
            let old = fixture.contact(user, "ada@example.com").id;
            let replacing = ContactClaim::Email("evil@example.com".to_owned());
            let replacing = ChangeContact { user, contact: old, address: replacing, authority: authority() };
            let replacing = fixture.run(replacing).await.unwrap().challenge;
            let further = ContactClaim::Email("more@example.com".to_owned());
            let further = AddContact { user, address: further, authority: authority() };
            let further = fixture.run(further).await.unwrap().challenge;
            let links = [fixture.link(replacing), fixture.link(further), fixture.code(replacing)];
            let new = Password::new(OTHER_PASSWORD);
            if how == "reset" {
                let proof = fixture.link(fixture.reset_token("ada").await);
                fixture.run(ResetPassword { proof, new }).await.unwrap();
            } else {
                let current = Password::new(PASSWORD);
                fixture.run(ChangePassword { user, current, new, keep: None }).await.unwrap();
            }
            for proof in links {
                assert!(fixture.run(ConfirmEmail { proof }).await.is_err(), "{how}");
            }
            let left: Vec<_> = fixture.user(user).contacts.iter().map(|contact| contact.id).collect();
            assert_eq!(left, [old], "{how}");
            for address in ["evil@example.com", "more@example.com"] {
                let claimant = fixture.services.reader.snapshot(|view| view.newest_claimant(Channel::Email, address));
                assert_eq!(claimant.unwrap(), None, "{how}");
            }
            for token in [replacing, further] {
                let end = fixture.services.reader.token(token).unwrap().unwrap().end;
                assert_eq!(end, Some(crate::storage::TokenEnd::Superseded), "{how}");
            }
        }
    }

    #[tokio::test]
    async fn a_user_who_has_proven_nothing_keeps_what_there_is_to_prove() {
        let fixture = Fixture::new().await;
        let accepted = fixture.register("ada", Some("ada@example.com"), None).await;
        let (user, current, new) = (accepted.user, Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
        fixture.run(ChangePassword { user, current, new, keep: None }).await.unwrap();
        let proof = fixture.link(accepted.email_challenge.unwrap());
        fixture.run(ConfirmEmail { proof }).await.unwrap();
    }

    /// A token that was asked for while the epoch ended is left open by the row, and dead by the epoch.
    #[tokio::test]
    async fn a_token_of_an_older_epoch_is_dead_even_if_its_row_is_open() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let token = fixture.reset_token("ada").await;
        let open = fixture.services.reader.token(token).unwrap().unwrap();
        let proof = fixture.link(token);
        let new = Password::new(OTHER_PASSWORD);
        fixture
            .run(ChangePassword { user, current: Password::new(PASSWORD), new: new.clone(), keep: None })
            .await
            .unwrap();
        fixture.write(Vec::new(), vec![Write::PutToken(Box::new(open))]).await;
        let refused = fixture.run(ResetPassword { proof, new }).await.unwrap_err();
        assert_eq!(refused, Error::Refused(ResetPasswordReason::InvalidToken));
    }

    proptest! {
        #[test]
        fn the_next_epoch_holds_the_kept_session_alone_and_only_if_it_was_live(
            user in any_user(),
            sessions in any_sessions(),
            keep in prop::option::of(0_u8..3),
        ) {
            let keep = keep.map(|number| SessionId::from_bytes([number; 16]));
            let bound = Bound { sessions: sessions.clone(), ..Bound::default() };
            let policy = Policy::default();
            let ending = bound.end(&user, keep, RevocationCause::PasswordChange, NOW, &policy);
            prop_assert_eq!((ending.user.epoch, ending.user.version), (user.epoch + 1, user.version + 1));
            let live = |session: &SessionRow| is_live(session, &user, NOW, &policy);
            let kept: Vec<_> = ending.writes.iter().filter_map(|write| match write {
                Write::PutSession(_, session) => Some((**session).clone()),
                _ => None,
            }).collect();
            let meant = |session: &&SessionRow| Some(session.id) == keep && live(session);
            let expected: Vec<_> = sessions.iter().map(|(_, session)| session).filter(meant).collect();
            prop_assert_eq!(kept.len(), expected.len());
            prop_assert!(kept.iter().all(|session| is_live(session, &ending.user, NOW, &policy)));
            let alive = sessions.iter().filter(|(_, session)| live(session)).count();
            prop_assert_eq!(ending.told.len() + kept.len(), alive);
            let pinned = |check: &&Check| matches!(check, Check::Session(..) | Check::SessionCount(..));
            prop_assert_eq!(ending.checks.iter().filter(pinned).count(), sessions.len() + 1);
            prop_assert_eq!(usize::try_from(ending.sessions_revoked).unwrap(), ending.told.len());
        }
    }
}
