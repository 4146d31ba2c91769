//! End sessions: sessions are ended from the list.

use serde::{Deserialize, Serialize};

use super::flow;
use crate::id::{SessionId, UserId};
use crate::reason::reasons;

/// Ends sessions of a user. When the reply comes, their tokens open nothing any more.
#[derive(Clone)]
pub struct EndSessions {
    /// Whose.
    pub user: UserId,
    /// Which.
    pub which: SessionsToEnd,
}

/// Which sessions to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionsToEnd {
    /// This one.
    One(SessionId),
    /// All of them.
    All,
    /// All but this one.
    AllExcept(SessionId),
}

/// Sessions were ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsEnded {
    /// How many.
    pub count: u32,
}

reasons! {
    /// Why sessions were not ended.
    EndSessionsReason {
        UserNotFound = "user_not_found": "there is no such user",
        SessionNotFound = "session_not_found": "the user has no such session",
    }
}

flow!(EndSessions, EndSessions, SessionsEnded, EndSessionsReason, |m| (m.user, m.which));
