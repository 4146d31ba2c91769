//! Faults: why a gateway cannot be built of its description and secrets.

use crate::http::{HttpFault, Unreached};

/// What is wrong with a [`GatewayDescription`](super::GatewayDescription), or missing beside it. It never shows a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayFault {
    /// The name is empty, too long or has other characters.
    #[error("the name must have 1 to 32 characters of a to z, 0 to 9, _ and -")]
    Name,
    /// A placeholder that there is not, or not for this kind of message.
    #[error("there is no placeholder {0:?} for this kind of message")]
    UnknownPlaceholder(String),
    /// A `{{` without its `}}`.
    #[error("a placeholder is opened and not closed in {0:?}")]
    OpenPlaceholder(String),
    /// A placeholder where none can stand: before the path of a URL, in the name of a member or field, in a header if
    /// it may be more than ASCII.
    #[error("a placeholder cannot stand in {0:?}")]
    MisplacedPlaceholder(String),
    /// A secret that is referred to was not handed over.
    #[error("the secret {0:?} was not given")]
    MissingSecret(String),
    /// A secret is empty, or has control characters, such as the line break at the end of a file.
    #[error("the secret {0:?} is empty or has control characters")]
    InvalidSecret(String),
    /// The URL is malformed, or may not be called under these settings.
    #[error("the URL cannot be called: {0}")]
    Url(Unreached),
    /// A header has a malformed name or value, is there twice, or is not for a description to set.
    #[error("the header {0:?} cannot be sent")]
    Header(String),
    /// Credentials are written into the description instead of being referred to.
    #[error("credentials are secrets: refer to them by name")]
    CredentialInClear,
    /// The user of basic authorization has a `:` or is empty.
    #[error("the user of basic authorization is empty or has a colon")]
    User,
    /// A JSON pointer that does not start with `/`.
    #[error("{0:?} is no JSON pointer")]
    Pointer(String),
    /// A rule that fits nothing or everything: values without a pointer, or neither status nor pointer.
    #[error("a rule needs a status or a pointer, and values need a pointer")]
    Rule,
    /// The settings of HTTP.
    #[error(transparent)]
    Http(#[from] HttpFault),
}

impl GatewayFault {
    /// The stable name, in `snake_case`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::UnknownPlaceholder(_) => "unknown_placeholder",
            Self::OpenPlaceholder(_) => "open_placeholder",
            Self::MisplacedPlaceholder(_) => "misplaced_placeholder",
            Self::MissingSecret(_) => "missing_secret",
            Self::InvalidSecret(_) => "invalid_secret",
            Self::Url(_) => "url",
            Self::Header(_) => "header",
            Self::CredentialInClear => "credential_in_clear",
            Self::User => "user",
            Self::Pointer(_) => "pointer",
            Self::Rule => "rule",
            Self::Http(_) => "http",
        }
    }
}
