//! The catalogue: every signal, its fields, its class, and the flows that it starts or ends.

use serde::{Deserialize, Serialize};

use crate::denial_code::DenialCode;
use crate::envelope::Sender;
use crate::id::{ContactId, FlowId, SessionId, SignalId, TokenId, UserId};
use crate::personal::Personal;
use crate::reason::{
    BreachCheckFailure, ChangeKind, DeletionCause, ErrorType, Failure, GuardFailure, LimitScope, LimitedAction,
    LoginMethod, MessageKind, PasswordCause, ProofMethod, RefusalCause, RevocationCause,
};
use crate::time::Timestamp;
use crate::{Channel, IdentifierKind};

use super::define::{catalogue, meaning};
use super::field::SignalField;
use super::kind::{FlowKind, SignalClass};

catalogue! {
    1 UserPasswordSet "user_password_set" Fact USER [] []
        "A password credential was stored."
        { user: UserId, cause: PasswordCause, scheme: String }
    2 UserPasswordSetFailed "user_password_set_failed" Attempt USER [] []
        "A password could not be stored because hashing failed."
        { user: Option<UserId>, reason: Failure }
    3 UserPasswordChecked "user_password_checked" Attempt USER [] []
        "A password was compared with the hash of a real user."
        { user: UserId, success: bool, needs_rehash: bool }
    4 UserPasswordCheckFailed "user_password_check_failed" Attempt USER [] []
        "A password could not be compared."
        { user: UserId, reason: Failure }
    5 UserEmailVerificationTokenGenerated "user_email_verification_token_generated" Fact USER [] []
        "A token that proves an e-mail address was recorded."
        { user: UserId, address: Personal, token: TokenId, expires_at: Timestamp, supersedes: Option<TokenId> }
    6 UserEmailVerified "user_email_verified" Fact USER [] []
        "An e-mail address was proven."
        { user: UserId, address: Personal, via: ProofMethod, undo: Option<TokenId> }
    7 UserEmailVerificationFailed "user_email_verification_failed" Attempt USER []
        [RequestEmailVerification ConfirmEmail Delivery]
        "An e-mail address was not proven, or its message was refused or given up."
        { user: Option<UserId>, address: Option<Personal>, token: Option<TokenId>, reason: Failure }
    8 UserRegistrationStarted "user_registration_started" Start USER_MANAGER [Register] []
        "A registration began; nothing is validated yet."
        { username: Option<Personal>, email: Option<Personal>, phone: Option<Personal> }
    9 UserPreRegister "user_pre_register" Start USER_MANAGER [] []
        "A registration is valid and hashed, and about to be committed."
        { username: Option<Personal>, email: Option<Personal>, phone: Option<Personal> }
    10 UserRegistered "user_registered" Fact USER_MANAGER [] [Register]
        "A user exists."
        { user: UserId, username: Option<Personal>, addresses: Vec<Personal>, groups: Vec<String> }
    11 UserEmailVerificationInitiated "user_email_verification_initiated" Delivery USER_MANAGER [] [Delivery]
        "The mail server accepted the message that verifies an e-mail address."
        { user: UserId, address: Personal, delivery: FlowId }
    12 UserRegistrationFailed "user_registration_failed" Attempt USER_MANAGER [] [Register]
        "A registration failed."
        { username: Option<Personal>, email: Option<Personal>, phone: Option<Personal>, error_type: ErrorType, reason: Failure, fields: Vec<String> }
    13 UserAuthenticationStarted "user_authentication_started" Start USER_MANAGER [Authenticate] []
        "A login began."
        { identifier_kind: IdentifierKind, identifier: Personal }
    14 UserAuthenticated "user_authenticated" Fact USER_MANAGER [] [Authenticate]
        "A user signed in."
        { user: UserId, method: LoginMethod, session: Option<SessionId>, failures: Option<u64> }
    15 UserAuthenticationFailed "user_authentication_failed" Attempt USER_MANAGER [] [Authenticate]
        "A login failed; the caller was told less than this."
        { identifier: Personal, user: Option<UserId>, reason: Failure }
    16 UserEmailVerificationSuccessful "user_email_verification_successful" Fact USER_MANAGER [] [ConfirmEmail]
        "The confirmation of an e-mail address succeeded."
        { user: UserId, address: Personal, reason: Option<Failure> }
    17 UserUpdateStarted "user_update_started" Start USER_MANAGER [Update] []
        "An update began."
        { user: UserId, fields: Vec<String> }
    18 UserUpdated "user_updated" Fact USER_MANAGER [] [Update]
        "A user changed; every unique index was enforced."
        { user: UserId, version: u64, fields: Vec<String> }
    19 UserUpdateFailed "user_update_failed" Attempt USER_MANAGER [] [Update]
        "An update failed."
        { user: UserId, fields: Vec<String>, error_type: ErrorType, reason: Failure }
    20 UserDeletionStarted "user_deletion_started" Start USER_MANAGER [Delete] []
        "A deletion began."
        { user: UserId }
    21 UserDeleted "user_deleted" Fact USER_MANAGER [] [Delete]
        "A user is gone, with indexes, tokens and sessions."
        { user: UserId, username: Option<Personal>, sessions_revoked: u32, cause: DeletionCause }
    22 UserDeletionFailed "user_deletion_failed" Attempt USER_MANAGER [] [Delete]
        "A deletion failed."
        { user: UserId, username: Option<Personal>, error_type: ErrorType, reason: Failure }
    23 PasswordResetRequestStarted "password_reset_request_started" Start USER_MANAGER [RequestPasswordReset] []
        "A password reset was asked for."
        { channel: Channel, identifier: Personal }
    24 PasswordResetRequestProcessed "password_reset_request_processed" Delivery USER_MANAGER [] [Delivery]
        "The server accepted the message that resets a password."
        { user: UserId, address: Personal, channel: Channel, delivery: FlowId }
    25 PasswordResetRequestFailed "password_reset_request_failed" Attempt USER_MANAGER [] [RequestPasswordReset Delivery]
        "A password reset was asked for in vain, or its message was given up; the caller was told \"accepted\"."
        { user: Option<UserId>, channel: Channel, identifier: Personal, error_type: ErrorType, reason: Failure }
    26 PasswordResetStarted "password_reset_started" Start USER_MANAGER [ResetPassword] []
        "A new password was offered for a token or code."
        { token: Option<TokenId> }
    27 PasswordResetSuccessful "password_reset_successful" Fact USER_MANAGER [] [ResetPassword]
        "A token or code bought a new password."
        { user: UserId, token: TokenId, sessions_revoked: u32, undo: Option<TokenId> }
    28 PasswordResetFailed "password_reset_failed" Attempt USER_MANAGER [] [ResetPassword]
        "A password reset failed."
        { token: Option<TokenId>, user: Option<UserId>, error_type: ErrorType, reason: Failure }
    29 ResetPasswordEmail "reset_password_email" Fact USER_MANAGER [Delivery] []
        "An e-mail that resets a password is due."
        { user: UserId, address: Personal, token: TokenId }
    30 ResetPasswordPhone "reset_password_phone" Fact USER_MANAGER [Delivery] []
        "A text message that resets a password is due."
        { user: UserId, phone: Personal, token: TokenId }
    31 VerifyEmail "verify_email" Fact USER_MANAGER [Delivery] []
        "An e-mail that verifies its address is due."
        { user: UserId, address: Personal, token: TokenId }
    32 VerifyPhone "verify_phone" Fact USER_MANAGER [Delivery] []
        "A text message that verifies its number is due."
        { user: UserId, phone: Personal, token: TokenId }

    101 UserEmailVerificationRequested "user_email_verification_requested" Start USER_MANAGER [RequestEmailVerification] []
        "A message that verifies an e-mail address was asked for."
        { user: Option<UserId>, identifier: Option<Personal> }
    102 UserEmailVerificationRequestAccepted "user_email_verification_request_accepted" Fact USER_MANAGER [] [RequestEmailVerification]
        "A message that verifies an e-mail address is on its way."
        { user: UserId, address: Personal, token: TokenId }
    103 UserEmailVerificationStarted "user_email_verification_started" Start USER_MANAGER [ConfirmEmail] []
        "A proof of an e-mail address was presented."
        { token: Option<TokenId> }
    104 UserPhoneVerificationRequested "user_phone_verification_requested" Start USER_MANAGER [RequestPhoneVerification] []
        "A message that verifies a phone number was asked for."
        { user: Option<UserId>, identifier: Option<Personal> }
    105 UserPhoneVerificationRequestAccepted "user_phone_verification_request_accepted" Fact USER_MANAGER [] [RequestPhoneVerification]
        "A message that verifies a phone number is on its way."
        { user: UserId, address: Personal, token: TokenId }
    106 UserPhoneVerificationStarted "user_phone_verification_started" Start USER_MANAGER [ConfirmPhone] []
        "A proof of a phone number was presented."
        { token: Option<TokenId> }
    107 UserPhoneVerificationTokenGenerated "user_phone_verification_token_generated" Fact USER [] []
        "A token that proves a phone number was recorded."
        { user: UserId, address: Personal, token: TokenId, expires_at: Timestamp, supersedes: Option<TokenId> }
    108 UserPhoneVerified "user_phone_verified" Fact USER [] []
        "A phone number was proven."
        { user: UserId, address: Personal, via: ProofMethod, undo: Option<TokenId> }
    109 UserPhoneVerificationInitiated "user_phone_verification_initiated" Delivery USER_MANAGER [] [Delivery]
        "The gateway accepted the message that verifies a phone number."
        { user: UserId, address: Personal, delivery: FlowId }
    110 UserPhoneVerificationSuccessful "user_phone_verification_successful" Fact USER_MANAGER [] [ConfirmPhone]
        "The confirmation of a phone number succeeded."
        { user: UserId, address: Personal, reason: Option<Failure> }
    111 UserPhoneVerificationFailed "user_phone_verification_failed" Attempt USER [] [RequestPhoneVerification ConfirmPhone Delivery]
        "A phone number was not proven, or its message was refused or given up."
        { user: Option<UserId>, address: Option<Personal>, token: Option<TokenId>, reason: Failure }
    112 PasswordResetRequestAccepted "password_reset_request_accepted" Fact USER_MANAGER [] [RequestPasswordReset]
        "A message that resets a password is on its way."
        { user: UserId, channel: Channel, token: TokenId }
    113 PasswordChangeStarted "password_change_started" Start USER_MANAGER [ChangePassword] []
        "A change of password began."
        { user: UserId }
    114 PasswordChanged "password_changed" Fact USER_MANAGER [] [ChangePassword]
        "The password changed; every other session and every reset token ended with it."
        { user: UserId, sessions_revoked: u32, undo: Option<TokenId> }
    115 PasswordChangeFailed "password_change_failed" Attempt USER_MANAGER [] [ChangePassword]
        "A change of password failed."
        { user: UserId, error_type: ErrorType, reason: Failure }
    116 UserLogoutStarted "user_logout_started" Start USER_MANAGER [LogOut] []
        "A logout began."
        { session: Option<SessionId> }
    117 UserLoggedOut "user_logged_out" Fact USER_MANAGER [] [LogOut]
        "A user logged out."
        { user: UserId, session: SessionId }
    118 UserLogoutFailed "user_logout_failed" Attempt USER_MANAGER [] [LogOut]
        "A logout failed."
        { user: Option<UserId>, reason: Failure }
    119 SessionRevoked "session_revoked" Fact USER_MANAGER [] []
        "A session ended before its time."
        { user: UserId, session: SessionId, cause: RevocationCause }
    120 SessionsEndStarted "sessions_end_started" Start USER_MANAGER [EndSessions] []
        "An ending of sessions began."
        { user: UserId }
    121 SessionsEnded "sessions_ended" Fact USER_MANAGER [] [EndSessions]
        "Sessions were ended."
        { user: UserId, count: u32 }
    122 SessionsEndFailed "sessions_end_failed" Attempt USER_MANAGER [] [EndSessions]
        "An ending of sessions failed."
        { user: UserId, reason: Failure }
    123 UserDisableStarted "user_disable_started" Start USER_MANAGER [Disable] []
        "A disabling began."
        { user: UserId }
    124 UserDisabled "user_disabled" Fact USER_MANAGER [] [Disable]
        "A user was shut out; their sessions and reset tokens ended."
        { user: UserId, version: u64, sessions_revoked: u32 }
    125 UserDisableFailed "user_disable_failed" Attempt USER_MANAGER [] [Disable]
        "A disabling failed."
        { user: UserId, reason: Failure }
    126 UserEnableStarted "user_enable_started" Start USER_MANAGER [Enable] []
        "An enabling began."
        { user: UserId }
    127 UserEnabled "user_enabled" Fact USER_MANAGER [] [Enable]
        "A user was let in again."
        { user: UserId, version: u64 }
    128 UserEnableFailed "user_enable_failed" Attempt USER_MANAGER [] [Enable]
        "An enabling failed."
        { user: UserId, reason: Failure }
    129 GroupsChangeStarted "groups_change_started" Start USER_MANAGER [ChangeGroups] []
        "A change of groups began."
        { user: UserId }
    130 GroupsChanged "groups_changed" Fact USER_MANAGER [] [ChangeGroups]
        "A user joined or left groups."
        { user: UserId, version: u64, groups: Vec<String> }
    131 GroupsChangeFailed "groups_change_failed" Attempt USER_MANAGER [] [ChangeGroups]
        "A change of groups failed."
        { user: UserId, reason: Failure }
    132 ContactAddStarted "contact_add_started" Start USER_MANAGER [AddContact] []
        "An adding of an address began."
        { user: UserId, address: Personal }
    133 ContactAdded "contact_added" Fact USER_MANAGER [] [AddContact]
        "A user claims a further address, not proven yet."
        { user: UserId, version: u64, contact: ContactId, address: Personal }
    134 ContactAddFailed "contact_add_failed" Attempt USER_MANAGER [] [AddContact]
        "An adding of an address failed."
        { user: UserId, address: Personal, reason: Failure }
    135 ContactChangeStarted "contact_change_started" Start USER_MANAGER [ChangeContact] []
        "A replacing of an address began."
        { user: UserId, address: Personal }
    136 ContactChangeAccepted "contact_change_accepted" Fact USER_MANAGER [] [ChangeContact]
        "An address will replace another one as soon as it is proven."
        { user: UserId, version: u64, contact: ContactId, address: Personal, previous: Personal }
    137 ContactChangeFailed "contact_change_failed" Attempt USER_MANAGER [] [ChangeContact]
        "A replacing of an address failed."
        { user: UserId, address: Personal, reason: Failure }
    138 ContactChanged "contact_changed" Fact USER_MANAGER [] []
        "A proven address replaced another one."
        { user: UserId, contact: ContactId, address: Personal, previous: Personal, channel: Channel, undo: Option<TokenId> }
    139 ContactRemoveStarted "contact_remove_started" Start USER_MANAGER [RemoveContact] []
        "A removing of an address began."
        { user: UserId }
    140 ContactRemoved "contact_removed" Fact USER_MANAGER [] [RemoveContact]
        "A user gave up an address."
        { user: UserId, version: u64, contact: ContactId, address: Personal, undo: Option<TokenId> }
    141 ContactRemoveFailed "contact_remove_failed" Attempt USER_MANAGER [] [RemoveContact]
        "A removing of an address failed."
        { user: UserId, reason: Failure }
    142 ContactPrimaryStarted "contact_primary_started" Start USER_MANAGER [MakePrimary] []
        "A choice of the first address began."
        { user: UserId }
    143 ContactPrimaryChanged "contact_primary_changed" Fact USER_MANAGER [] [MakePrimary]
        "An address became the first of its channel."
        { user: UserId, version: u64, contact: ContactId, address: Personal }
    144 ContactPrimaryFailed "contact_primary_failed" Attempt USER_MANAGER [] [MakePrimary]
        "A choice of the first address failed."
        { user: UserId, reason: Failure }
    145 AddressTaken "address_taken" Fact USER_MANAGER [] []
        "Somebody claimed an address that a user has proven; its owner is told."
        { owner: UserId, address: Personal, channel: Channel }
    146 NotificationFailed "notification_failed" Delivery USER_MANAGER [] []
        "A message was given up."
        { user: UserId, message: MessageKind, signal: SignalId, reason: Failure }
    147 SubscriberRestarted "subscriber_restarted" Operation SYSTEM [] []
        "A subscriber failed on a signal and was started again."
        { subscriber: String, signal: SignalId, failure: String }
    148 RequestsRefused "requests_refused" Operation SYSTEM [] []
        "Requests were refused at admission; no flow began for them."
        { reason: RefusalCause, count: u64 }
    149 FailuresAggregated "failures_aggregated" Operation SYSTEM [] []
        "Flows of one source failed beyond its budget; their ends were told live and are counted here."
        { flow: FlowKind, count: u64 }
    150 SignalsLost "signals_lost" Operation SYSTEM [] []
        "Ends of flows that failed while storage was out did not fit the buffer."
        { count: u64 }
    151 SubscriberDeadLetter "subscriber_dead_letter" Operation SYSTEM [] []
        "A subscription gave a signal up; it is kept as a dead letter."
        { subscriber: String, signal: SignalId, place: u64, attempts: u32, failure: String }
    152 DeadLetterRetried "dead_letter_retried" Operation SYSTEM [] []
        "An operator had a dead letter tried again."
        { subscriber: String, signal: SignalId, place: u64 }
    153 DeadLetterDiscarded "dead_letter_discarded" Operation SYSTEM [] []
        "An operator discarded a dead letter."
        { subscriber: String, signal: SignalId, place: u64 }
    154 SubscriberQuarantined "subscriber_quarantined" Operation SYSTEM [] []
        "A subscriber failed too often and is handed nothing more until it is released; its cursor waits."
        { subscriber: String, failure: String }
    155 SubscriberReleased "subscriber_released" Operation SYSTEM [] []
        "An operator released a subscriber from quarantine."
        { subscriber: String }
    156 SubscriberLapsed "subscriber_lapsed" Operation SYSTEM [] []
        "A subscription lies too far behind and no longer keeps the log from being pruned."
        { subscriber: String, place: u64, count: u64, bytes: u64 }
    157 SubscriberMissed "subscriber_missed" Operation SYSTEM [] []
        "Signals were pruned before a subscription came to them; its subscriber is told which."
        { subscriber: String, from: u64, to: u64 }
    158 SubscriptionMoved "subscription_moved" Operation SYSTEM [] []
        "An operator moved a subscription to another place of the log."
        { subscriber: String, from: u64, to: u64 }
    159 ProjectionRebuildStarted "projection_rebuild_started" Operation SYSTEM [] []
        "A projection is being built anew; the one before it is read meanwhile."
        { subscriber: String, from: u64, to: u64 }
    160 ProjectionRebuilt "projection_rebuilt" Operation SYSTEM [] []
        "A projection was built anew and took the place of the one before it."
        { subscriber: String, place: u64 }

    161 GuardDenied "guard_denied" Attempt USER_MANAGER [] []
        "A guard denied what its flow had decided; the flow ends with that."
        { guard: String, flow: FlowKind, code: DenialCode, user: Option<UserId> }
    162 GuardFailed "guard_failed" Attempt USER_MANAGER [] []
        "A guard gave no ruling that holds; its flow went on without, or ended, as the guard's settings say."
        { guard: String, flow: FlowKind, failure: GuardFailure, allowed: bool, user: Option<UserId> }
    163 GuardWouldDeny "guard_would_deny" Operation SYSTEM [] []
        "A guard in shadow mode would have denied flows that went on."
        { guard: String, flow: FlowKind, count: u64 }

    164 UserLocked "user_locked" Fact USER_MANAGER [] []
        "Nobody can sign in to an account for a while, but from a known device, after too many failed attempts."
        { user: UserId, until: Timestamp, unlock: Option<TokenId> }
    165 UserUnlocked "user_unlocked" Fact USER_MANAGER [] []
        "An account that was locked can be signed in to again."
        { user: UserId }

    170 UndoStarted "undo_started" Start USER_MANAGER [UndoChange] []
        "A link that takes a change back was presented."
        { token: Option<TokenId> }
    171 ChangeUndone "change_undone" Fact USER_MANAGER [] [UndoChange]
        "A change of how a user is reached or signs in was taken back, with all such changes that followed it."
        { user: UserId, version: u64, change: Option<ChangeKind>, sessions_revoked: u32, reset: Option<TokenId>, reason: Option<Failure> }
    172 UndoFailed "undo_failed" Attempt USER_MANAGER [] [UndoChange]
        "A change was not taken back."
        { token: Option<TokenId>, user: Option<UserId>, reason: Failure }
    173 ContactRestored "contact_restored" Fact USER_MANAGER [] []
        "An address is the user's again, as it was before a change that was taken back."
        { user: UserId, contact: ContactId, address: Personal, channel: Channel }
    174 ContactRevoked "contact_revoked" Fact USER_MANAGER [] []
        "An address that came with or after a change that was taken back is not the user's any more."
        { user: UserId, contact: ContactId, address: Personal, channel: Channel }
    175 UserPasswordRemoved "user_password_removed" Fact USER_MANAGER [] []
        "A password credential was removed because a change was taken back; nobody signs in until it is reset."
        { user: UserId }

    180 UserImportStarted "user_import_started" Start USER_MANAGER [Import] []
        "An import of a user began; nothing is validated yet."
        { username: Option<Personal>, email: Option<Personal>, phone: Option<Personal> }
    181 UserImported "user_imported" Fact USER_MANAGER [] [Import]
        "A user of another system exists here, with the password hash from there."
        { user: UserId, username: Option<Personal>, addresses: Vec<Personal>, groups: Vec<String> }
    182 UserImportFailed "user_import_failed" Attempt USER_MANAGER [] [Import]
        "An import of a user failed."
        { username: Option<Personal>, email: Option<Personal>, phone: Option<Personal>, error_type: ErrorType, reason: Failure, fields: Vec<String> }
    190 PasswordRehashStarted "password_rehash_started" Start USER_MANAGER [Rehash] []
        "A right password is to be hashed anew: the parameters are others than when it was set."
        { user: UserId }
    191 PasswordRehashed "password_rehashed" Fact USER_MANAGER [] [Rehash]
        "The same password is stored under the present parameters."
        { user: UserId }
    192 PasswordRehashFailed "password_rehash_failed" Attempt USER_MANAGER [] [Rehash]
        "A password was not hashed anew; the next login tries again."
        { user: UserId, reason: Failure }
    200 BreachCheckFailed "breach_check_failed" Attempt USER_MANAGER [] []
        "It was not found out whether a new password is known from a breach; its flow went on without."
        { flow: FlowKind, failure: BreachCheckFailure, user: Option<UserId> }
    210 LimitReached "limit_reached" Attempt USER_MANAGER [] []
        "The last attempt was used up that a limit allows for now; further ones are refused at once."
        { action: LimitedAction, scope: LimitScope }
    211 UserUnlockStarted "user_unlock_started" Start USER_MANAGER [Unlock] []
        "A lock on an account is to be lifted."
        { user: Option<UserId>, token: Option<TokenId> }
    212 UserUnlockSuccessful "user_unlock_successful" Fact USER_MANAGER [] [Unlock]
        "There is no lock on the account any more."
        { user: UserId, reason: Option<Failure> }
    213 UserUnlockFailed "user_unlock_failed" Attempt USER_MANAGER [] [Unlock]
        "A lock was not lifted."
        { user: Option<UserId>, token: Option<TokenId>, reason: Failure }
    220 MessageBreakerOpened "message_breaker_opened" Attempt USER_MANAGER [] []
        "Too few text messages to a region were answered; further ones are withheld until some that are let through are."
        { region: String, started: u32, answered: u32 }
    221 MessageBreakerClosed "message_breaker_closed" Attempt USER_MANAGER [] []
        "Enough text messages to a region were answered again; they are sent as ever."
        { region: String, started: u32, answered: u32 }
}
