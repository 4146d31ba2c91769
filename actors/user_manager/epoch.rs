//! The end of a credential epoch: what dies with a new password, a disabling or a deletion.

use majordomo_model::{PasswordCause, RevocationCause, SessionId, Signal, Timestamp, TokenPurpose, UserId};

use super::flow::Told;
use super::policy::{Policy, ended_sessions, revoked, supersede};
use super::session::{count, exactly, is_live};
use crate::storage::{
    Check, ContactRow, CredentialRow, Lookup, ReadError, ReadView, SessionRow, TokenRow, UserRow, Write,
};

/// The purposes of tokens that are bound to an epoch.
pub(super) const RESETS: [TokenPurpose; 2] = [TokenPurpose::ResetByEmail, TokenPurpose::ResetByPhone];

/// What is bound to a user's epoch: every session, and every reset token that has not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound {
    pub(super) sessions: Vec<([u8; 32], SessionRow)>,
    pub(super) resets: Vec<TokenRow>,
}

impl Bound {
    pub(super) fn read(view: &ReadView, user: UserId) -> Result<Self, ReadError> {
        let mut resets = Vec::new();
        for purpose in RESETS {
            resets.extend(view.open_tokens(user, purpose, None)?);
        }
        Ok(Self { sessions: view.sessions_of(user)?, resets })
    }

    /// Ends the epoch of a user. The session to keep moves into the next one, if it is live. An address that waits to
    /// take the place of another is given up: whoever asked for it may be the one who is shut out now.
    pub(super) fn end(
        &self,
        user: &UserRow,
        keep: Option<SessionId>,
        cause: RevocationCause,
        now: Timestamp,
        policy: &Policy,
    ) -> Ending {
        let pending = |contact: &ContactRow| contact.replaces.is_some();
        let (pending, contacts): (Vec<_>, Vec<_>) = user.contacts.iter().cloned().partition(pending);
        let (version, epoch) = (user.version.saturating_add(1), user.epoch.saturating_add(1));
        let next = UserRow { version, epoch, contacts, ..user.clone() };
        let live = |session: &SessionRow| is_live(session, user, now, policy);
        let kept = self.sessions.iter().find(|(_, session)| Some(session.id) == keep && live(session));
        let keep = kept.map(|(_, session)| session.id);
        let mut ended = ended_sessions(&self.sessions, keep);
        ended.retain(|session| live(session));

        let mut checks = vec![Check::UserVersion(user.id, user.version)];
        checks.extend(exactly(user.id, &self.sessions));
        for purpose in RESETS {
            checks.push(open_tokens(user.id, purpose, &self.resets));
        }
        let mut writes = vec![Write::RemoveSessionsOf(user.id, keep)];
        if let Some((hash, session)) = kept {
            writes.push(Write::PutSession(*hash, Box::new(SessionRow { epoch: next.epoch, ..session.clone() })));
        }
        writes.extend(supersede(&self.resets));
        let claim = |contact: ContactRow| Write::RemoveClaim(contact.channel, contact.canonical, user.id);
        writes.extend(pending.into_iter().map(claim));
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
        credential: Option<&CredentialRow>,
        phc: &str,
        cause: PasswordCause,
        now: Timestamp,
    ) -> Self {
        let (user, revision) = (self.user.id, credential.map(|credential| credential.revision));
        let row = CredentialRow {
            phc: phc.to_owned(),
            revision: revision.unwrap_or_default().saturating_add(1),
            set_at: now,
        };
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
        ChangePassword, Channel, Delete, Disable, Error, Password, RequestPasswordReset, ResetPassword,
        ResetPasswordReason,
    };
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, OTHER_PASSWORD, PASSWORD, any_sessions, any_user};
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
            let bound = Bound { sessions: sessions.clone(), resets: Vec::new() };
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
