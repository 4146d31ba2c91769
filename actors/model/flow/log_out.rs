//! Log out: a session's holder ends it.

use serde::{Deserialize, Serialize};

use super::flow;
use crate::id::{SessionId, UserId};
use crate::reason::reasons;
use crate::secret::SessionToken;

/// Ends the session that this token opens. When the reply comes, the token opens nothing any more.
#[derive(Clone)]
pub struct LogOut {
    /// The session's secret.
    pub token: SessionToken,
}

/// A session was ended by its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedOut {
    /// Whose session it was.
    pub user: UserId,
    /// Which session it was.
    pub session: SessionId,
}

reasons! {
    /// Why a logout was refused.
    LogOutReason {
        SessionNotFound = "session_not_found": "there is no such session (any more)",
    }
}

flow!(LogOut, LogOut, LoggedOut, LogOutReason, |_m| ());
