//! A proof: the link or the code that a message carried, as it comes back.

use std::fmt;

use crate::id::TokenId;
use crate::secret::{OneTimeCode, OneTimeToken};

/// What somebody presents to show that they read the message.
#[derive(Clone)]
pub enum Proof {
    /// The link: both last segments of its path.
    Link {
        /// The segment that names the user.
        user: String,
        /// The segment that is the secret.
        token: OneTimeToken,
    },
    /// The code, together with the challenge that the request for it was answered with.
    Code {
        /// The challenge.
        challenge: TokenId,
        /// The digits.
        code: OneTimeCode,
    },
}

impl Proof {
    /// The proof in a link or in its path: its last two segments, the slash at the end being optional.
    ///
    /// `None` if there are no two segments; whether they are any good is for the flow to say.
    #[must_use]
    pub fn from_link(link: &str) -> Option<Self> {
        let mut segments = link.trim_end_matches('/').rsplit('/');
        let token = segments.next().filter(|segment| !segment.is_empty())?;
        let user = segments.next().filter(|segment| !segment.is_empty())?;
        Some(Self::Link { user: user.to_owned(), token: OneTimeToken::new(token) })
    }

    /// What tells one proof from another without being secret.
    pub(crate) fn visible(&self) -> String {
        match self {
            Self::Link { user, .. } => format!("link {user:?}"),
            Self::Code { challenge, .. } => format!("code {challenge}"),
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Link { .. } => "Link { .. }",
            Self::Code { .. } => "Code { .. }",
        })
    }
}
