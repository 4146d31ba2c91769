//! Bytes of a fixed number, encoded as such and never printed.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many bytes: a key or a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bytes<const WIDTH: usize>(pub [u8; WIDTH]);

impl<const WIDTH: usize> fmt::Debug for Bytes<WIDTH> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Bytes<{WIDTH}>")
    }
}

impl<const WIDTH: usize> Serialize for Bytes<WIDTH> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const WIDTH: usize> Deserialize<'de> for Bytes<WIDTH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = buffer::deserialize(deserializer)?;
        let width = bytes.len();
        let bytes = bytes.try_into().map_err(|_| de::Error::invalid_length(width, &"another number of bytes"))?;
        Ok(Self(bytes))
    }
}

/// Encodes a `Vec<u8>` as bytes, not as a list of numbers.
pub mod buffer {
    use super::{Deserializer, SeqAccess, Serializer, Visitor, fmt};

    /// Writes them.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_byte_buf(BufferVisitor)
    }

    struct BufferVisitor;

    impl<'de> Visitor<'de> for BufferVisitor {
        type Value = Vec<u8>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = sequence.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}
