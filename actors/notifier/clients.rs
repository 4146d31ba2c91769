//! Clients: from where a user signs in, remembered as digests, and told in words of the notifier's own.

use std::net::{IpAddr, Ipv6Addr};

use majordomo_model::{Context, UserId};
use sha2::{Digest, Sha256};

/// How many clients of a user are remembered; the oldest is forgotten first.
const REMEMBERED: usize = 16;
const DIGEST_BYTES: usize = 16;
/// The key of a user's clients in the projection starts with this.
const CLIENTS: &[u8] = b"clients/";

/// Programs by what their user agent holds, the more particular first: each claims to be those below it.
const PROGRAMS: [(&str, &str); 7] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
];
const SYSTEMS: [(&str, &str); 7] = [
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Mac OS", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
];

/// From where a user signed in, as far as the app told.
pub(super) struct Client {
    /// What it is in words: `Firefox on Windows`. The user agent is whatever the client says, so none of it is shown: only
    /// what it is recognised as.
    pub(super) device: Option<String>,
    /// The network that the address belongs to: `203.0.113.*`.
    pub(super) network: Option<String>,
    /// The user agent without its numbers, or every update would make a client a new one.
    agent: String,
}

impl Client {
    /// The client that a context tells of; `None` if it tells neither an address nor a user agent.
    pub(super) fn of(context: &Context) -> Option<Self> {
        let (address, agent) = (context.told_client_ip(), context.told_user_agent().unwrap_or_default());
        if address.is_none() && agent.is_empty() {
            return None;
        }
        let unnumbered = |character: &char| !character.is_ascii_digit() && !matches!(character, '.' | '_');
        Some(Self {
            device: device(agent),
            network: address.map(network),
            agent: agent.chars().filter(unnumbered).collect(),
        })
    }

    /// What it is remembered by, for this user.
    fn digest(&self, user: UserId) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(user.as_bytes());
        for text in [self.network.as_deref().unwrap_or_default(), &self.agent] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        hash.finalize().into_iter().take(DIGEST_BYTES).collect()
    }
}

/// Whether a user has signed in from a client before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Acquaintance {
    /// From this one.
    Known,
    /// From others; these are remembered from now on.
    New(Vec<u8>),
    /// From none that is remembered; these are from now on.
    First(Vec<u8>),
}

/// The key of what is remembered of a user.
pub(super) fn key(user: UserId) -> Vec<u8> {
    [CLIENTS, user.as_bytes()].concat()
}

/// Looks for a client among those that are remembered.
pub(super) fn meet(stored: Option<Vec<u8>>, client: &Client, user: UserId) -> Acquaintance {
    let digest = client.digest(user);
    let Some(stored) = stored else { return Acquaintance::First(digest) };
    if stored.chunks(DIGEST_BYTES).any(|known| known == digest) {
        return Acquaintance::Known;
    }
    let mut kept: Vec<&[u8]> = stored.chunks(DIGEST_BYTES).rev().take(REMEMBERED - 1).collect();
    kept.reverse();
    kept.push(&digest);
    Acquaintance::New(kept.concat())
}

/// The first 24 bits of an IPv4 address, the first 48 of an IPv6 one.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            format!("{first}.{second}.{third}.*")
        }
        IpAddr::V6(address) => {
            let [first, second, third, ..] = address.segments();
            format!("{}/48", Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0))
        }
    }
}

fn device(agent: &str) -> Option<String> {
    let find =
        |words: &[(&str, &'static str)]| words.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name);
    match (find(&PROGRAMS), find(&SYSTEMS)) {
        (Some(program), Some(system)) => Some(format!("{program} on {system}")),
        (program, system) => program.or(system).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:139.0) Gecko/20100101 Firefox/139.0";

    fn client(address: &str, agent: &str) -> Client {
        let context = address.parse().map_or(Context::new(), |address| Context::new().client_ip(address));
        Client::of(&context.user_agent(agent)).unwrap()
    }

    #[test]
    fn a_client_is_told_in_words_of_our_own() {
        for (agent, device) in [
            (FIREFOX, Some("Firefox on Windows")),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.4 Safari/605.1.15",
                Some("Safari on macOS"),
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) AppleWebKit/605.1.15 Version/18.4 Mobile Safari/604.1",
                Some("Safari on iPhone"),
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/136.0.0.0 Safari/537.36 Edg/136.0.0.0",
                Some("Edge on Windows"),
            ),
            ("Mozilla/5.0 (Linux; Android 15) Chrome/136.0.0.0 Mobile Safari/537.36", Some("Chrome on Android")),
            ("https://evil.example/ <b>call +44 7911 123456</b> Firefox", Some("Firefox")),
            ("http://evil.example/login", None),
        ] {
            assert_eq!(client("", agent).device.as_deref(), device, "{agent}");
        }
        for (address, network) in [
            ("203.0.113.77", "203.0.113.*"),
            ("::ffff:203.0.113.77", "203.0.113.*"),
            ("2001:db8:7:1:2:3:4:5", "2001:db8:7::/48"),
        ] {
            assert_eq!(client(address, "").network.as_deref(), Some(network));
        }
        assert!(Client::of(&Context::new().request_id("x")).is_none());
    }

    #[test]
    fn a_client_is_known_by_its_network_and_its_program_whatever_the_version() {
        let (ada, eve) = (UserId::new(), UserId::new());
        let home = client("203.0.113.77", FIREFOX);
        let Acquaintance::First(stored) = meet(None, &home, ada) else { panic!("the very first") };
        let again = |client: Client| meet(Some(stored.clone()), &client, ada);
        assert_eq!(again(client("203.0.113.1", &FIREFOX.replace("139", "140"))), Acquaintance::Known);
        for other in [client("203.0.114.77", FIREFOX), client("203.0.113.77", "curl/8"), client("", FIREFOX)] {
            assert!(matches!(again(other), Acquaintance::New(_)));
        }
        assert!(matches!(meet(Some(stored.clone()), &home, eve), Acquaintance::New(_)), "digests are a user's own");
    }

    #[test]
    fn the_oldest_is_forgotten_and_the_set_is_bounded() {
        let user = UserId::new();
        let from = |network: u8| client(&format!("198.51.{network}.1"), FIREFOX);
        let mut stored = None;
        for network in 0..40 {
            let (Acquaintance::First(next) | Acquaintance::New(next)) = meet(stored.take(), &from(network), user)
            else {
                panic!("{network} is known")
            };
            assert!(next.len() <= REMEMBERED * DIGEST_BYTES);
            stored = Some(next);
        }
        let known = (0..40).filter(|network| meet(stored.clone(), &from(*network), user) == Acquaintance::Known);
        assert_eq!(known.collect::<Vec<_>>(), (24..40).collect::<Vec<_>>());
    }
}
