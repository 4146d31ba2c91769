//! The tables of the store, and keys whose byte order is the order of their fields.

use std::ops::Deref;

/// One ordered table of byte keys and byte values.
///
/// The layer above gives every table its key layout and row format. A name, once released, is never given to
/// another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// Facts about the store itself: schema version, next place in the signal log.
    Meta,
    /// One row a user.
    Users,
    /// What proves a user: password hashes, sealed.
    Credentials,
    /// When a user last did what, written without raising the user's version; behind it the user's sessions, so that a
    /// login writes both on one page.
    Activity,
    /// Normalised names and proven addresses, each owned by one user.
    Unique,
    /// Addresses asked for and not proven; many users may claim one.
    Claims,
    /// One-time tokens and codes, without their secrets.
    Tokens,
    /// The tokens of a user, those that have not ended first.
    TokensByUser,
    /// What ends when, ordered by time.
    Expiry,
    /// Sessions, by the hash of their secret.
    Sessions,
    /// Empty: the sessions of a user, up to version 3.
    SessionsByUser,
    /// Failed attempts, for locks and delays.
    Attempts,
    /// The signals, by their place in the log.
    SignalLog,
    /// How far each subscription has come.
    Cursors,
    /// What subscribers store together with their progress.
    Projections,
    /// Outcomes of commands already applied, by command.
    Applied,
    /// The signals that subscriptions gave up.
    DeadLetters,
    /// How many bytes of signals were written up to certain places of the log.
    LogMarks,
    /// Changes of users that can be undone.
    Changes,
    /// Addresses that are kept for whoever gave them up.
    Reservations,
    /// Which subscription is sending the message that a signal asks for, and which messages are settled.
    Dispatches,
    /// What is remembered of messages that were asked for.
    Messages,
    /// How far budgets of attempts are spent.
    Limits,
    /// How many credentials there are, by the key that seals them and by what their hashes cost.
    CredentialCounts,
    /// How many text messages to each region were started and answered.
    Texts,
}

impl Table {
    /// How many tables there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Every table, in the order of declaration.
    pub(crate) const ALL: [Self; 25] = [
        Self::Meta,
        Self::Users,
        Self::Credentials,
        Self::Activity,
        Self::Unique,
        Self::Claims,
        Self::Tokens,
        Self::TokensByUser,
        Self::Expiry,
        Self::Sessions,
        Self::SessionsByUser,
        Self::Attempts,
        Self::SignalLog,
        Self::Cursors,
        Self::Projections,
        Self::Applied,
        Self::DeadLetters,
        Self::LogMarks,
        Self::Changes,
        Self::Reservations,
        Self::Dispatches,
        Self::Messages,
        Self::Limits,
        Self::CredentialCounts,
        Self::Texts,
    ];

    /// The name in the file: stable, snake_case.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Users => "users",
            Self::Credentials => "credentials",
            Self::Activity => "activity",
            Self::Unique => "unique",
            Self::Claims => "claims",
            Self::Tokens => "tokens",
            Self::TokensByUser => "tokens_by_user",
            Self::Expiry => "expiry",
            Self::Sessions => "sessions",
            Self::SessionsByUser => "sessions_by_user",
            Self::Attempts => "attempts",
            Self::SignalLog => "signal_log",
            Self::Cursors => "cursors",
            Self::Projections => "projections",
            Self::Applied => "applied",
            Self::DeadLetters => "dead_letters",
            Self::LogMarks => "log_marks",
            Self::Changes => "changes",
            Self::Reservations => "reservations",
            Self::Dispatches => "dispatches",
            Self::Messages => "messages",
            Self::Limits => "limits",
            Self::CredentialCounts => "credential_counts",
            Self::Texts => "texts",
        }
    }
}

/// A text with a NUL in it, which would end its field early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a text in a key may not contain NUL")]
pub(crate) struct NulInText;

/// Stored bytes that are no key of the layout asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stored key does not have the layout of its table")]
pub(crate) struct MalformedKey;

/// A key under construction: fields one after the other, compared as a tuple of them would be.
///
/// Every field but the last has a fixed width or an end mark, so no two tuples of one layout make the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// A key without fields, which is also the prefix of every key.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends one byte.
    pub(crate) fn u8(self, field: u8) -> Self {
        self.fixed(&[field])
    }

    /// Appends eight bytes, most significant first.
    pub(crate) fn u64(self, field: u64) -> Self {
        self.fixed(&field.to_be_bytes())
    }

    /// Appends eight bytes with the sign bit flipped, so that negative numbers come first.
    pub(crate) fn i64(self, field: i64) -> Self {
        self.u64(field.cast_unsigned() ^ SIGN_BIT)
    }

    /// Appends bytes whose number the layout fixes: an identifier, a hash.
    pub(crate) fn fixed<const WIDTH: usize>(mut self, field: &[u8; WIDTH]) -> Self {
        self.0.extend_from_slice(field);
        self
    }

    /// Appends a text and its end mark, so that other fields may follow.
    ///
    /// # Errors
    /// A text that contains NUL is refused.
    pub(crate) fn text(mut self, field: &str) -> Result<Self, NulInText> {
        if field.bytes().any(|byte| byte == TEXT_END) {
            return Err(NulInText);
        }
        self.0.extend_from_slice(field.as_bytes());
        self.0.push(TEXT_END);
        Ok(self)
    }

    /// Appends a text as the last field: it may hold anything, and the key takes no more.
    pub(crate) fn last_text(mut self, field: &str) -> Vec<u8> {
        self.0.extend_from_slice(field.as_bytes());
        self.0
    }

    /// The finished bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

const SIGN_BIT: u64 = 1 << 63;
const TEXT_END: u8 = 0;

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Splits a stored key into its fields again, in the order in which [`Key`] wrote them.
///
/// Each method answers [`MalformedKey`] where the bytes hold no such field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyReader<'key>(&'key [u8]);

impl<'key> KeyReader<'key> {
    /// Reads `key` from its start; a key without a common prefix is passed without it.
    pub(crate) const fn new(key: &'key [u8]) -> Self {
        Self(key)
    }

    /// Reads what [`Key::u8`] wrote.
    pub(crate) fn u8(&mut self) -> Result<u8, MalformedKey> {
        self.fixed().map(u8::from_be_bytes)
    }

    /// Reads what [`Key::u64`] wrote.
    pub(crate) fn u64(&mut self) -> Result<u64, MalformedKey> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// Reads what [`Key::i64`] wrote.
    pub(crate) fn i64(&mut self) -> Result<i64, MalformedKey> {
        self.u64().map(|field| (field ^ SIGN_BIT).cast_signed())
    }

    /// Reads what [`Key::fixed`] wrote.
    pub(crate) fn fixed<const WIDTH: usize>(&mut self) -> Result<[u8; WIDTH], MalformedKey> {
        let (field, rest) = self.0.split_first_chunk::<WIDTH>().ok_or(MalformedKey)?;
        self.0 = rest;
        Ok(*field)
    }
}

/// The first key after every key that starts with `prefix`; `None` where no such key can be, so the range is open.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    type Fields = (u8, i64, String, u64, [u8; 16]);

    fn fields() -> impl Strategy<Value = Fields> {
        // Narrow alphabets, so that fields are often equal and the later ones decide.
        let byte = prop_oneof![Just(0), Just(1), any::<u8>()];
        let signed = prop_oneof![Just(0), Just(-1), Just(i64::MIN), Just(i64::MAX), any::<i64>()];
        let text = prop_oneof!["[a-c\u{1}]{0,3}", "[^\u{0}]{0,6}"];
        (byte, signed, text, any::<u64>(), any::<[u8; 16]>())
    }

    fn key(fields: &Fields) -> Key {
        let (byte, signed, text, long, id) = fields;
        Key::new().u8(*byte).i64(*signed).text(text).unwrap().u64(*long).fixed(id)
    }

    proptest! {
        #[test]
        fn keys_sort_as_their_fields(left in fields(), right in fields()) {
            prop_assert_eq!(key(&left).cmp(&key(&right)), left.cmp(&right));
        }

        #[test]
        fn a_key_is_read_as_it_was_written(byte: u8, signed: i64, long: u64, id: [u8; 16]) {
            let key = Key::new().u8(byte).i64(signed).u64(long).fixed(&id);
            let mut reader = KeyReader::new(&key);
            prop_assert_eq!(reader.u8(), Ok(byte));
            prop_assert_eq!(reader.i64(), Ok(signed));
            prop_assert_eq!(reader.u64(), Ok(long));
            prop_assert_eq!(reader.fixed(), Ok(id));
            prop_assert_eq!(reader.u8(), Err(MalformedKey));
        }

        #[test]
        fn a_reader_survives_any_bytes(bytes: Vec<u8>, steps in prop::collection::vec(0_u8..4, 0..12)) {
            let mut reader = KeyReader::new(&bytes);
            for step in steps {
                match step {
                    0 => drop(reader.u8()),
                    1 => drop(reader.i64()),
                    2 => drop(reader.u64()),
                    _ => drop(reader.fixed::<32>()),
                }
            }
        }

        #[test]
        fn a_prefix_range_holds_exactly_what_starts_with_it(prefix: Vec<u8>, key: Vec<u8>, suffix: Vec<u8>) {
            let end = prefix_end(&prefix);
            let within = |key: &[u8]| key >= prefix.as_slice() && end.as_deref().is_none_or(|end| key < end);
            prop_assert_eq!(within(&key), key.starts_with(&prefix));
            prop_assert!(within(&[prefix.as_slice(), suffix.as_slice()].concat()));
        }
    }

    #[test]
    fn a_text_with_nul_is_refused_unless_it_is_last() {
        assert_eq!(Key::new().text("a\0b"), Err(NulInText));
        assert_eq!(Key::new().u8(7).last_text("a\0b"), b"\x07a\0b");
    }

    #[test]
    fn an_open_prefix_has_no_end() {
        assert_eq!(prefix_end(&[]), None);
        assert_eq!(prefix_end(&[0xff, 0xff]), None);
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
    }

    #[test]
    fn tables_are_listed_once_each_at_their_own_place() {
        let names: BTreeSet<_> = Table::ALL.iter().map(|table| table.name()).collect();
        assert_eq!(names.len(), Table::COUNT);
        for (place, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(place, table as usize);
        }
    }
}
