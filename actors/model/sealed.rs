//! Sealed text: read back only when somebody asks for it, so that who is not interested does not pay for it.

use std::fmt;
use std::sync::Arc;

/// Reads back what is sealed in one signal, under the key of its user.
pub trait Unseal: Send + Sync {
    /// The full form of personal data, or `None` if it was not sealed under this key for this signal.
    fn personal(&self, sealed: &[u8]) -> Option<String>;

    /// What is personal in the signal's context, or `None` as above.
    fn context(&self, sealed: &[u8]) -> Option<String>;
}

/// What reads sealed text back. Shows nothing.
#[derive(Clone)]
pub(crate) struct Opener(pub(crate) Arc<dyn Unseal>);

impl fmt::Debug for Opener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Opener")
    }
}
