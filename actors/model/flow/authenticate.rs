//! Authenticate: an identifier and a password become a session.

use super::flow;
use crate::id::{SessionId, UserId};
use crate::reason::reasons;
use crate::secret::{DeviceToken, Password, SessionToken};
use crate::time::Timestamp;

/// Signs a user in by username, proven e-mail address or proven phone number.
///
/// When the reply comes, the session is durable. Unknown user, wrong password, disabled user: one answer, one hashing
/// job, one commit. After too many failures it is refused at once ([`Error::Throttled`](crate::Error::Throttled)). Sent again under the same command id it is a new login, which ends the session of the first.
#[derive(Clone)]
pub struct Authenticate {
    /// The username, e-mail address or phone number, as typed.
    pub identifier: String,
    /// The password.
    pub password: Password,
}

/// A user is signed in.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// Who.
    pub user: UserId,
    /// The secret that opens the session: 256 random bits. Only its hash is stored; it is shown this once.
    pub token: SessionToken,
    /// The session's public name.
    pub session: SessionId,
    /// When the session ends, however much it is used.
    pub expires_at: Timestamp,
    /// What the client may keep, in a cookie of its own that outlives the session, and hand in with its next login
    /// ([`Command::device`](crate::Command::device)): then neither a lock on the account nor the failures of others from
    /// the same address keep it out. It ends with the next new password.
    pub device: DeviceToken,
}

reasons! {
    /// Why a login was refused, as far as the caller may know.
    AuthenticateReason {
        InvalidCredentials = "invalid_credentials": "the identifier or the password is wrong",
        EmailNotVerified = "email_not_verified": "no address of the user is verified yet (told after the right password only)",
    }
}

flow!(Authenticate, Authenticate, LoggedIn, AuthenticateReason, |m| &m.identifier);
