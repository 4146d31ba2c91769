//! Authority: what shows that the person at the keyboard may change how the account is reached.

use crate::secret::{Password, SessionToken};

/// The current password, or a session opened a short while ago (ten minutes unless configured). ASVS 7.5.1.
#[derive(Clone)]
pub enum Authority {
    /// The password in force.
    Password(Password),
    /// The token of a recent session of the same user.
    RecentSession(SessionToken),
}

super::name_only_debug! { Authority }
