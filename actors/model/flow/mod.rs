//! The messages of the user manager: a file a flow, each with its fields, its reply and its reasons.

mod add_contact;
mod authenticate;
mod authority;
mod change_contact;
mod change_groups;
mod change_password;
mod confirm_email;
mod confirm_phone;
mod delete;
mod disable;
mod enable;
mod end_sessions;
mod import;
mod log_out;
mod make_primary;
mod proof;
mod register;
mod remove_contact;
mod request_email_verification;
mod request_password_reset;
mod request_phone_verification;
mod reset_password;
mod undo_change;
mod unlock;
mod update;

#[cfg(test)]
mod tests;

pub use add_contact::{AddContact, AddContactReason, ContactClaim, ContactClaimed};
pub use authenticate::{Authenticate, AuthenticateReason, LoggedIn};
pub use authority::Authority;
pub use change_contact::{ChangeContact, ChangeContactReason};
pub use change_groups::{ChangeGroups, ChangeGroupsReason};
pub use change_password::{ChangePassword, ChangePasswordReason, PasswordReplaced};
pub use confirm_email::{ConfirmEmail, ConfirmEmailReason, Confirmed};
pub use confirm_phone::{ConfirmPhone, ConfirmPhoneReason};
pub use delete::{Delete, DeleteReason, Deleted};
pub use disable::{Disable, DisableReason};
pub use enable::{Enable, EnableReason};
pub use end_sessions::{EndSessions, EndSessionsReason, SessionsEnded, SessionsToEnd};
pub use import::{Import, ImportReason, ImportedAddress};
pub use log_out::{LogOut, LogOutReason, LoggedOut};
pub use make_primary::{MakePrimary, MakePrimaryReason};
pub use proof::Proof;
pub use register::{Accepted, Register, RegisterReason};
pub use remove_contact::{RemoveContact, RemoveContactReason};
pub use request_email_verification::{
    Claimant, RequestEmailVerification, RequestEmailVerificationReason, VerificationRequested,
};
pub use request_password_reset::{RequestPasswordReset, RequestPasswordResetReason, ResetRequested};
pub use request_phone_verification::{RequestPhoneVerification, RequestPhoneVerificationReason};
pub use reset_password::{ResetPassword, ResetPasswordReason};
pub use undo_change::{UndoChange, UndoChangeReason, Undone};
pub use unlock::{Unlock, UnlockReason, Unlocked};
pub use update::{Change, Changed, Update, UpdateReason};

/// Gives a message a `Debug` that shows its name only: its fields are personal or secret.
macro_rules! name_only_debug {
    ($($name:ident)+) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+};
}

/// Ties a message to its kind, reply, reasons and visible fields.
macro_rules! flow {
    ($message:ident, $kind:ident, $reply:ty, $reason:ty, |$this:ident| $visible:expr) => {
        impl $crate::request::Flow for $message {
            const KIND: $crate::signal::FlowKind = $crate::signal::FlowKind::$kind;
            type Reply = $reply;
            type Reason = $reason;

            fn visible(&self) -> String {
                let $this = self;
                format!("{:?}", $visible)
            }
        }
        $crate::flow::name_only_debug! { $message }
    };
}

use {flow, name_only_debug};
