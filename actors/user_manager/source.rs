//! The source of a request: where it came from, as far as the host tells, in the one form that limits count by.

use std::net::IpAddr;

use majordomo_model::Context;

/// Where a request came from: an IPv4 address, an IPv6 network of 64 bits, or nowhere told.
///
/// Whoever is given an IPv6 network of 64 bits, as everybody is (RFC 6177), may use each of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Untold,
    V4(u32),
    V6(u64),
}

impl Source {
    pub(super) fn of(context: &Context) -> Self {
        match context.told_client_ip().map(|address| address.to_canonical()) {
            None => Self::Untold,
            Some(IpAddr::V4(address)) => Self::V4(address.to_bits()),
            Some(IpAddr::V6(address)) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or_default()),
        }
    }

    /// The IPv6 network of 48 bits around it, as whole sites are given (RFC 6177).
    pub(super) const fn network(self) -> Option<u64> {
        match self {
            Self::V6(bits) => Some(bits >> 16),
            Self::Untold | Self::V4(_) => None,
        }
    }

    /// Whether it was told.
    pub(super) const fn is_told(self) -> bool {
        !matches!(self, Self::Untold)
    }

    /// A text that no other source has.
    pub(super) fn text(self) -> String {
        match self {
            Self::Untold => "untold".to_owned(),
            Self::V4(bits) => format!("v4/{bits:08x}"),
            Self::V6(bits) => format!("v6/{bits:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Source {
        Source::of(&Context::new().client_ip(address.parse().unwrap()))
    }

    #[test]
    fn every_spelling_of_an_address_is_one_source_and_so_is_a_network_of_64_bits() {
        assert_eq!(from("::ffff:1.2.3.4"), from("1.2.3.4"));
        assert_eq!(from("2001:db8::1"), from("2001:0DB8:0:0:ffff:ffff:ffff:ffff"));
        assert_ne!(from("2001:db8::1"), from("2001:db8:0:1::1"));
        assert_eq!(from("2001:db8::1").network(), from("2001:db8:0:ffff::1").network());
        assert_ne!(from("2001:db8::1").network(), from("2001:db8:1::1").network());
        assert_eq!((from("1.2.3.4").network(), Source::of(&Context::new())), (None, Source::Untold));
    }

    #[test]
    fn no_two_sources_share_a_text() {
        let all = [Source::Untold, from("0.0.0.1"), from("0.0.0.2"), from("0:0:0:1::"), from("0:0:0:2::")];
        let texts: std::collections::BTreeSet<_> = all.iter().map(|source| source.text()).collect();
        assert_eq!(texts.len(), all.len());
    }
}
