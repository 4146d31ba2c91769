//! The vocabulary: what each signal is called in the OWASP Logging Vocabulary.
//!
//! The names and their arguments are those of OWASP's Application Logging Vocabulary Cheat Sheet. It knows security
//! events, not everything that a flow tells on its way: what it has no word for has none here.

use majordomo_model::{Actor, Failure, LimitedAction, Signal, SignalClass, SignalKind, UserId};

/// What a kind of signal is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// An event, with what stands behind the colon.
    Event(&'static str, Arguments),
    /// The vocabulary has no word for it.
    Nothing,
}

/// What stands behind an event's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// Nothing.
    Bare,
    /// The user concerned.
    User,
    /// The user concerned, and a word.
    With(&'static str),
    /// Who acts, and the user concerned.
    On,
    /// Who acts, the user concerned, and what of them.
    OnPart(&'static str),
    /// Who acts, the user concerned, and the fields that the signal names.
    OnFields,
    /// The fields that the signal names, and the user concerned.
    Fields,
    /// Who acts, and the name of the signal.
    Admin,
    /// The system, and the subscriber that the signal names.
    Monitor,
}

/// The word for a kind; `None` only for a kind that this build's list does not know, which a test rules out.
pub(super) const fn word(kind: SignalKind) -> Option<Word> {
    use Arguments::{Admin, Bare, Fields, Monitor, On, OnFields, OnPart, User, With};
    use SignalKind as Kind;
    let (name, arguments) = match kind {
        Kind::UserAuthenticated => ("authn_login_success", User),
        Kind::UserAuthenticationFailed => ("authn_login_fail", User),
        Kind::UserLocked => ("authn_login_lock", With("maxretries")),
        Kind::UserDisabled | Kind::UserPasswordRemoved => ("authn_login_lock", With("other")),
        Kind::PasswordChanged | Kind::PasswordResetSuccessful => ("authn_password_change", User),
        Kind::PasswordChangeFailed | Kind::PasswordResetFailed => ("authn_password_change_fail", User),
        Kind::UserEmailVerificationTokenGenerated => ("authn_token_created", With("verify_email")),
        Kind::UserPhoneVerificationTokenGenerated => ("authn_token_created", With("verify_phone")),
        Kind::PasswordResetRequestAccepted => ("authn_token_created", With("reset_password")),
        Kind::GuardDenied => ("authz_fail", User),
        Kind::GroupsChanged => ("authz_change", User),
        Kind::DeadLetterRetried
        | Kind::DeadLetterDiscarded
        | Kind::SubscriptionMoved
        | Kind::ProjectionRebuildStarted => ("authz_admin", Admin),
        Kind::RequestsRefused | Kind::FailuresAggregated | Kind::LimitReached | Kind::MessageBreakerOpened => {
            ("excess_rate_limit_exceeded", Bare)
        }
        Kind::UserRegistrationFailed | Kind::UserUpdateFailed | Kind::UserImportFailed => {
            ("input_validation_fail", Fields)
        }
        Kind::UserLoggedOut => ("session_expired", With("logout")),
        Kind::SessionRevoked | Kind::SessionsEnded => ("session_expired", With("revoked")),
        Kind::SignalsLost => ("sys_crash", With("signals_lost")),
        Kind::SubscriberRestarted => ("sys_restart", Monitor),
        Kind::SubscriberQuarantined | Kind::SubscriberLapsed => ("sys_monitor_disabled", Monitor),
        Kind::SubscriberReleased => ("sys_monitor_enabled", Monitor),
        Kind::UserRegistered | Kind::UserImported => ("user_created", On),
        Kind::UserUpdated => ("user_updated", OnFields),
        Kind::UserEnabled => ("user_updated", OnPart("status")),
        Kind::UserEmailVerified
        | Kind::UserPhoneVerified
        | Kind::ContactAdded
        | Kind::ContactChanged
        | Kind::ContactRemoved
        | Kind::ContactPrimaryChanged
        | Kind::ContactRestored
        | Kind::ContactRevoked
        | Kind::ChangeUndone => ("user_updated", OnPart("contact")),
        Kind::UserDeleted => ("user_deleted", On),
        kind => return if is_without_word(kind) { Some(Word::Nothing) } else { None },
    };
    Some(Word::Event(name, arguments))
}

/// The steps of flows and the doings of the system that the vocabulary has no word for. Each is named, so that a signal
/// that is added to the catalogue is not passed over.
const fn is_without_word(kind: SignalKind) -> bool {
    use SignalKind as Kind;
    // What starts a flow is told again by what ends it.
    matches!(kind.class(), SignalClass::Start)
        || matches!(
            kind,
            Kind::UserPasswordSet
                | Kind::UserPasswordSetFailed
                | Kind::UserPasswordChecked
                | Kind::UserPasswordCheckFailed
                | Kind::UserEmailVerificationFailed
                | Kind::UserEmailVerificationInitiated
                | Kind::UserEmailVerificationSuccessful
                | Kind::UserDeletionFailed
                | Kind::PasswordResetRequestProcessed
                | Kind::PasswordResetRequestFailed
                | Kind::ResetPasswordEmail
                | Kind::ResetPasswordPhone
                | Kind::VerifyEmail
                | Kind::VerifyPhone
                | Kind::UserEmailVerificationRequestAccepted
                | Kind::UserPhoneVerificationRequestAccepted
                | Kind::UserPhoneVerificationInitiated
                | Kind::UserPhoneVerificationSuccessful
                | Kind::UserPhoneVerificationFailed
                | Kind::UserLogoutFailed
                | Kind::SessionsEndFailed
                | Kind::UserDisableFailed
                | Kind::UserEnableFailed
                | Kind::GroupsChangeFailed
                | Kind::ContactAddFailed
                | Kind::ContactChangeAccepted
                | Kind::ContactChangeFailed
                | Kind::ContactRemoveFailed
                | Kind::ContactPrimaryFailed
                | Kind::AddressTaken
                | Kind::NotificationFailed
                | Kind::SubscriberDeadLetter
                | Kind::SubscriberMissed
                | Kind::ProjectionRebuilt
                | Kind::GuardFailed
                | Kind::BreachCheckFailed
                | Kind::GuardWouldDeny
                | Kind::MessageBreakerClosed
                | Kind::UserUnlocked
                | Kind::UserUnlockSuccessful
                | Kind::UserUnlockFailed
                | Kind::UndoFailed
                | Kind::PasswordRehashed
                | Kind::PasswordRehashFailed
        )
}

/// The event and its last argument, where it is not the kind of a signal that tells which one it is.
fn told_by_its_fields(signal: &Signal) -> Option<(&'static str, String)> {
    let reuse = |purpose: &str| Some(("authn_token_reuse", purpose.to_owned()));
    match signal {
        Signal::UserAuthenticated { failures: Some(failures), .. } => {
            Some(("authn_login_successafterfail", failures.to_string()))
        }
        Signal::UserEmailVerificationSuccessful { reason: Some(Failure::AlreadyVerified), .. } => reuse("verify_email"),
        Signal::UserPhoneVerificationSuccessful { reason: Some(Failure::AlreadyVerified), .. } => reuse("verify_phone"),
        Signal::LimitReached { action: LimitedAction::Login, scope } => {
            Some(("authn_login_fail_max", scope.as_str().to_owned()))
        }
        Signal::PasswordResetFailed { reason: Failure::TokenUsed, .. } => reuse("reset_password"),
        Signal::ChangeUndone { reason: Some(Failure::NothingToDo), .. } => reuse("undo_change"),
        _ => None,
    }
}

/// The event that a signal is, with its arguments: identifiers and words of the catalogue, no personal data.
pub(super) fn event(signal: &Signal, user: Option<UserId>, actor: &Actor) -> Option<String> {
    let user = user.map_or_else(|| "unknown".to_owned(), |user| user.to_string());
    if let Some((name, detail)) = told_by_its_fields(signal) {
        return Some(format!("{name}:{user},{detail}"));
    }
    let Some(Word::Event(name, arguments)) = word(signal.kind()) else { return None };
    let who = match actor {
        Actor::User(user) => user.to_string(),
        Actor::Admin(_) => "admin".to_owned(),
        Actor::Anonymous => "anonymous".to_owned(),
        Actor::System => "system".to_owned(),
    };
    let (subscriber, fields) = match signal {
        Signal::SubscriberRestarted { subscriber, .. }
        | Signal::SubscriberQuarantined { subscriber, .. }
        | Signal::SubscriberLapsed { subscriber, .. }
        | Signal::SubscriberReleased { subscriber } => (subscriber.as_str(), String::new()),
        Signal::UserUpdated { fields, .. }
        | Signal::UserUpdateFailed { fields, .. }
        | Signal::UserRegistrationFailed { fields, .. } => ("", fields.join(",")),
        _ => ("", String::new()),
    };
    Some(match arguments {
        Arguments::Bare => name.to_owned(),
        Arguments::User => format!("{name}:{user}"),
        Arguments::With(word) => format!("{name}:{user},{word}"),
        Arguments::On => format!("{name}:{who},{user}"),
        Arguments::OnPart(part) => format!("{name}:{who},{user},[{part}]"),
        Arguments::OnFields => format!("{name}:{who},{user},[{fields}]"),
        Arguments::Fields => format!("{name}:[{fields}],{user}"),
        Arguments::Admin => format!("{name}:{who},{}", signal.kind().as_str()),
        Arguments::Monitor => format!("{name}:system,{subscriber}"),
    })
}

#[cfg(test)]
mod tests {
    use majordomo_model::LoginMethod;

    use super::*;

    #[test]
    fn every_kind_of_signal_has_its_word_or_is_known_to_have_none() {
        for kind in SignalKind::ALL {
            assert!(word(*kind).is_some(), "{kind:?} is to be given a word of the vocabulary, or listed without one");
            let named = matches!(word(*kind), Some(Word::Event(..)));
            assert!(named != is_without_word(*kind), "{kind:?}");
        }
    }

    #[test]
    fn an_event_names_whom_it_concerns() {
        let user = UserId::from_bytes([7; 16]);
        let signed_in =
            Signal::UserAuthenticated { user, method: LoginMethod::Password, session: None, failures: None };
        assert_eq!(event(&signed_in, Some(user), &Actor::Anonymous), Some(format!("authn_login_success:{user}")));
        let after_failures =
            Signal::UserAuthenticated { user, method: LoginMethod::Password, session: None, failures: Some(3) };
        let told = event(&after_failures, Some(user), &Actor::Anonymous);
        assert_eq!(told, Some(format!("authn_login_successafterfail:{user},3")));
        let updated = Signal::UserUpdated { user, version: 2, fields: vec!["username".into(), "locale".into()] };
        let told = event(&updated, Some(user), &Actor::Admin("a,b".into()));
        assert_eq!(told, Some(format!("user_updated:admin,{user},[username,locale]")));
        let subscriber = "mailer".to_owned();
        let lapsed = Signal::SubscriberReleased { subscriber };
        assert_eq!(event(&lapsed, None, &Actor::System).as_deref(), Some("sys_monitor_enabled:system,mailer"));
        assert_eq!(event(&Signal::UserLogoutStarted { session: None }, None, &Actor::System), None);
    }
}
