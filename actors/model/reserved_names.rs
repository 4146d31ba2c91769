//! Reserved names: usernames that nobody may take, nor anything that looks like them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Username;

/// The names that are reserved by default.
///
/// Those of RFC 2142 (mailbox names for common services, roles and functions), of RFC 5321 (`postmaster`, and the
/// `mailer-daemon` of its implementations) and of the Baseline Requirements of the CA/Browser Forum, 3.2.2.4.4 (whoever
/// reads the mail of these gets a certificate for the domain); then words that people take for the operator, hosts of
/// most domains, and texts that programs write for nothing.
const BUILT_IN: [&str; 56] = [
    // RFC 2142.
    "abuse",
    "ftp",
    "hostmaster",
    "info",
    "marketing",
    "news",
    "noc",
    "postmaster",
    "sales",
    "security",
    "support",
    "usenet",
    "uucp",
    "webmaster",
    "www",
    // RFC 5321, and the Baseline Requirements.
    "admin",
    "administrator",
    "mailer-daemon",
    // Who is taken for the operator.
    "daemon",
    "help",
    "helpdesk",
    "moderator",
    "nobody",
    "noreply",
    "no-reply",
    "official",
    "operator",
    "root",
    "staff",
    "superuser",
    "sysadmin",
    "system",
    // Hosts and paths.
    "api",
    "autoconfig",
    "autodiscover",
    "imap",
    "localhost",
    "login",
    "logout",
    "mail",
    "me",
    "pop",
    "pop3",
    "register",
    "settings",
    "signin",
    "signup",
    "smtp",
    "status",
    "wpad",
    // What programs write for nothing.
    "false",
    "nil",
    "none",
    "null",
    "true",
    "undefined",
];

/// Usernames that nobody may take, compared by what they look like.
///
/// Written in a configuration as `{ built_in, further }`; what is left out is the default: the built-in names and no
/// further ones. The built-in names are those of RFC 2142 and RFC 5321, such as `postmaster`, of the mailboxes that
/// certificates are issued for, such as `admin`, and others that are taken for the operator of an app or for nobody,
/// such as `root`, `support`, `api` and `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Given", into = "Given")]
pub struct ReservedNames {
    given: Given,
    skeletons: BTreeSet<String>,
}

/// What was configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    built_in: bool,
    further: BTreeSet<String>,
}

impl Default for Given {
    fn default() -> Self {
        Self { built_in: true, further: BTreeSet::new() }
    }
}

impl ReservedNames {
    /// No name at all, to which names can be added.
    #[must_use]
    pub fn none() -> Self {
        Given { built_in: false, further: BTreeSet::new() }.into()
    }

    /// These names and further ones.
    #[must_use]
    pub fn and(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let Self { mut given, .. } = self;
        given.further.extend(names.into_iter().map(Into::into));
        given.into()
    }

    /// Whether a username is one of them, or looks like one: whatever [`Username::skeleton`] takes for the same.
    #[must_use]
    pub fn hold(&self, username: &Username) -> bool {
        self.skeletons.contains(username.skeleton())
    }

    /// The configured names that are no usernames, so that nobody could take them anyway.
    #[must_use]
    pub fn unfit(&self) -> Vec<&str> {
        self.given.further.iter().map(String::as_str).filter(|name| Username::parse(name).is_err()).collect()
    }
}

impl Default for ReservedNames {
    fn default() -> Self {
        Given::default().into()
    }
}

impl From<Given> for ReservedNames {
    fn from(given: Given) -> Self {
        let built_in = BUILT_IN.into_iter().filter(|_| given.built_in);
        let names = built_in.chain(given.further.iter().map(String::as_str));
        let skeletons = names.filter_map(|name| Some(Username::parse(name).ok()?.skeleton().to_owned())).collect();
        Self { given, skeletons }
    }
}

impl From<ReservedNames> for Given {
    fn from(names: ReservedNames) -> Self {
        names.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    #[test]
    fn every_built_in_name_is_reserved_however_it_is_written() {
        let reserved = ReservedNames::default();
        for built_in in BUILT_IN {
            assert_eq!(name(built_in).canonical(), built_in);
            assert!(reserved.hold(&name(built_in)) && reserved.hold(&name(&built_in.to_uppercase())), "{built_in}");
        }
        assert_eq!(BUILT_IN.into_iter().collect::<BTreeSet<_>>().len(), BUILT_IN.len());
        // Cyrillic, full width, mathematics, digits and letters that run together.
        for look_alike in
            ["аdmin", "ａｄｍｉｎ", "adrnin", "r00t", "rооt", "nu11", "suppοrt", "аpi", "p\u{3bf}stmaster"]
        {
            assert!(reserved.hold(&name(look_alike)), "{look_alike}");
        }
        // A dot above a letter that has one, or has lost it.
        for dotted in ["admi\u{307}n", "ADMİN", "adm\u{131}\u{307}n", "adm\u{456}\u{307}n"] {
            assert!(reserved.hold(&name(dotted)), "{dotted}");
        }
        for free in ["ada", "admin1", "administrate", "supporter", "newsome", "rooti"] {
            assert!(!reserved.hold(&name(free)), "{free}");
        }
    }

    #[test]
    fn names_are_added_and_replaced() {
        let reserved = ReservedNames::default().and(["Majordomo", "two words"]);
        assert!(reserved.hold(&name("maj\u{43e}rdomo")) && reserved.hold(&name("root")));
        assert_eq!(reserved.unfit(), ["two words"]);
        let alone = ReservedNames::none().and(["Majordomo"]);
        assert!(alone.hold(&name("majordomo")) && !alone.hold(&name("root")));
    }

    #[test]
    fn a_configuration_says_what_it_adds() {
        let read = |text: &str| serde_json::from_str::<ReservedNames>(text).unwrap();
        assert_eq!(read("{}"), ReservedNames::default());
        assert_eq!(read(r#"{"further":["acme"]}"#), ReservedNames::default().and(["acme"]));
        assert_eq!(read(r#"{"built_in":false,"further":["acme"]}"#), ReservedNames::none().and(["acme"]));
        let written = serde_json::to_string(&ReservedNames::none().and(["acme"])).unwrap();
        assert_eq!(read(&written), ReservedNames::none().and(["acme"]));
        assert!(serde_json::from_str::<ReservedNames>(r#"{"names":[]}"#).is_err());
    }
}
