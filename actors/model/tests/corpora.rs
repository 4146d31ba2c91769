//! Names and addresses against what others have collected: see `data/README.md` for the sources.

#![allow(clippy::unwrap_used, reason = "a test may fail, in its helping functions too")]

use std::collections::{BTreeMap, BTreeSet};

use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;
use majordomo_model::{Email, Identifier, InvalidIdentifier, Phone, Username};

/// What the corpus of e-mail addresses takes by its own rules and we do not, or the other way round.
const EMAIL_DEVIATIONS: &[(&str, &str)] = &[
    ("me@bad.tld-2", "a last label is refused if it is all digits (RFC 3696, section 2), not for a digit in it"),
    ("me@anything.arpa", SPECIAL_USE),
    ("me@valid.invalid", SPECIAL_USE),
    ("me@link.local", SPECIAL_USE),
    ("me@host.localhost", SPECIAL_USE),
    ("me@onion.onion.onion", SPECIAL_USE),
    ("me@test.test.test", SPECIAL_USE),
];

const SPECIAL_USE: &str = "names of special use are names: whether mail gets there is for whoever sends it to find out";

/// Numbers of the corpus that we refuse, or whose kind or region is another by our plans.
///
/// The one is a company's number of six digits in Iran; no phone of a person is shorter than seven.
const PHONE_DEVIATIONS: &[(&str, &str)] = &[("+989601", "not_e164")];

/// Pairs that look alike by the corpus and not by UTS 39 as we have it.
///
/// The corpus is of an older version of the table; ours, of Unicode 18, compares one of each with something else, such as
/// U+04CF with `l`.
const CONFUSABLE_DEVIATIONS: &[&str] = &[
    "0066+0326 0192",
    "0069 04CF",
    "00E5 0227",
    "0123 01F5",
    "0309 302C",
    "0439 045D",
    "0D0E+0D46 0D10",
    "1660 A4ED",
    "90CE 90DE",
    "96B7 96B8",
];

/// An address of the corpus.
#[derive(serde::Deserialize)]
struct EmailCase {
    /// What the corpus says: `valid`, `refused`, or the option under which it is valid.
    class: String,
    address: String,
    /// Our canonical form, or our reason.
    ours: String,
}

fn answer(parsed: &Result<Email, InvalidIdentifier>) -> String {
    match parsed {
        Ok(email) => email.canonical().to_owned(),
        Err(reason) => reason.as_str().to_owned(),
    }
}

#[test]
fn every_email_address_of_the_corpus_is_canonical_or_refused_for_its_reason() {
    let deviations: BTreeMap<_, _> = EMAIL_DEVIATIONS.iter().copied().collect();
    let (mut accepted, mut seen) = (0, BTreeSet::new());
    for line in include_str!("data/email_syntax.jsonl").lines() {
        let EmailCase { class, address, ours } = serde_json::from_str(line).unwrap();
        let parsed = Email::parse(&address);
        assert_eq!(answer(&parsed), ours, "{address:?}");
        let deviates = deviations.contains_key(address.as_str());
        assert_eq!(parsed.is_ok() == (class == "valid"), !deviates, "{class} {address:?}");
        if let Ok(email) = &parsed {
            assert_eq!(answer(&Email::parse(email.canonical())), ours);
            assert_eq!(&Email::parse(&email.deliverable()).unwrap(), email);
            accepted += 1;
        }
        seen.insert(address);
    }
    assert!(deviations.keys().all(|address| seen.contains(*address)));
    assert_eq!((seen.len(), accepted), (312, 26));
}

#[test]
fn one_domain_has_many_spellings_and_look_alikes_are_others() {
    for (canonical, spellings) in [
        (
            "ada@xn--bcher-kva.example",
            ["ada@bücher.example", "ADA@BÜCHER.EXAMPLE", "ada@XN--BCHER-KVA.example"].as_slice(),
        ),
        (
            "ada@xn--bcher-kva.example",
            &["ada@bu\u{308}cher．example", "ada@ｂüｃｈｅｒ。example", "ada@BU\u{308}CHER.EXAMPLE"],
        ),
        // Not what IDNA 2003 made of them: each is another domain than `fass.de` and the one with a round sigma.
        ("ada@xn--fa-hia.de", &["ada@faß.de", "ada@FAẞ.de", "ada@xn--fa-hia.de"]),
        ("ada@xn--nxasmm1c.com", &["ada@βόλος.com", "ada@xn--nxasmm1c.com"]),
        ("ada@office.example", &["ada@oﬃce.example", "ada@OFFICE.example"]),
    ] {
        for spelling in spellings {
            assert_eq!(answer(&Email::parse(spelling)), canonical, "{spelling}");
        }
    }
    let domains = ["fass.de", "faß.de", "βολοσ.com", "βολος.com", "paypal.com", "p\u{430}ypal.com"];
    let emails: BTreeSet<_> = domains.iter().map(|domain| answer(&Email::parse(&format!("ada@{domain}")))).collect();
    assert_eq!(emails.len(), domains.len(), "{emails:?}");
    for (address, reason) in [
        ("m\u{131}ke@example.org", InvalidIdentifier::NotAsciiLocalPart),
        ("\u{430}dmin@example.org", InvalidIdentifier::NotAsciiLocalPart),
        ("ada\u{200b}@example.org", InvalidIdentifier::NotAsciiLocalPart),
        ("ﬁ@example.org", InvalidIdentifier::NotAsciiLocalPart),
        ("ada@example\u{202e}.org", InvalidIdentifier::InvalidDomain),
        // What shows nothing, and what UTS 46 drops.
        ("ada@exam\u{200b}ple.org", InvalidIdentifier::InvalidDomain),
        ("ada@exam\u{ad}ple.org", InvalidIdentifier::InvalidDomain),
        ("ada@exam\u{feff}ple.org", InvalidIdentifier::InvalidDomain),
        ("ada@b\u{fe0f}ücher.example", InvalidIdentifier::InvalidDomain),
        ("ada@xn--fass-hia.de-.com", InvalidIdentifier::InvalidDomain),
        ("ada@example.org\u{3002}", InvalidIdentifier::InvalidDomain),
        ("ada@xn--BCHER-KVA-.example", InvalidIdentifier::InvalidDomain),
    ] {
        assert_eq!(Email::parse(address).unwrap_err(), reason, "{address}");
    }
}

#[test]
fn every_example_of_every_plan_is_canonical_and_of_its_kind() {
    let deviations: BTreeMap<_, _> = PHONE_DEVIATIONS.iter().copied().collect();
    let mut kinds = BTreeMap::new();
    for line in include_str!("data/phone_examples.txt").lines() {
        let [region, kind, number] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let found = Phone::parse(number).map(|phone| {
            assert_eq!((phone.canonical(), phone.original()), (number, number));
            let spelled = format!("{} ({}) {}", &number[..3], &number[3..5], &number[5..]);
            assert_eq!(Phone::parse(&spelled).as_ref(), Ok(&phone), "{spelled}");
            *kinds.entry(phone.kind().as_str()).or_insert(0) += 1;
            format!("{} {}", phone.region().unwrap_or_default(), phone.kind().as_str())
        });
        let found = found.unwrap_or_else(|reason| reason.as_str().to_owned());
        let expected = deviations.get(number).map_or_else(|| format!("{region} {kind}"), |ours| (*ours).to_owned());
        assert_eq!(found, expected, "{number}");
    }
    let expected = [
        ("fixed_line", 228),
        ("fixed_line_or_mobile", 19),
        ("mobile", 230),
        ("pager", 21),
        ("personal", 31),
        ("premium_rate", 118),
        ("shared_cost", 50),
        ("toll_free", 151),
        ("universal_access", 57),
        ("voicemail", 14),
        ("voip", 88),
    ];
    assert_eq!(kinds, BTreeMap::from(expected));
}

/// A text of code points in hexadecimal, with `+` between them.
fn text(points: &str) -> String {
    points.split('+').map(|point| char::from_u32(u32::from_str_radix(point, 16).unwrap()).unwrap()).collect()
}

#[test]
fn what_looks_alike_has_one_skeleton() {
    let mut compared = 0;
    for line in include_str!("data/confusable_pairs.txt").lines() {
        let (left, right) = line.split_once(' ').unwrap();
        let name = |points: &str| Username::parse(&text(points)).ok().map(|name| name.skeleton().to_owned());
        let (Some(left), Some(right)) = (name(left), name(right)) else { continue };
        assert_eq!(left == right, !CONFUSABLE_DEVIATIONS.contains(&line), "{line}: {left} {right}");
        compared += 1;
    }
    assert_eq!(compared, 664);
}

#[test]
fn naughty_usernames_are_canonical_or_refused_for_a_reason() {
    let mut reasons = BTreeMap::new();
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for naughty in naughty_strings::BLNS {
        match Username::parse(naughty) {
            Ok(name) => {
                let again = Username::parse(name.canonical()).unwrap();
                assert_eq!((again.canonical(), again.skeleton()), (name.canonical(), name.skeleton()));
                let kind = Identifier::guess(naughty).unwrap().kind();
                assert_eq!(kind.as_str(), "username", "{naughty:?}");
                names.entry(name.skeleton().to_owned()).or_default().insert(name.canonical().to_owned());
                *reasons.entry("accepted").or_insert(0) += 1;
            }
            Err(reason) => *reasons.entry(reason.as_str()).or_insert(0) += 1,
        }
    }
    // Of each of these, one user at most has one.
    let alike: Vec<Vec<_>> = names.into_values().filter(|names| names.len() > 1).map(Vec::from_iter).collect();
    assert_eq!(alike, [["\"", "''"], ["\"\"", "'\"'"]]);
    let expected = [
        ("accepted", 190),
        ("disallowed_character", 289),
        ("empty", 1),
        ("looks_like_email", 2),
        ("looks_like_phone", 24),
        ("too_long", 9),
    ];
    assert_eq!(reasons, BTreeMap::from(expected));
}

/// Every code point that has no character, so that a later version of Unicode may give it one.
fn unassigned() -> Vec<char> {
    let category = CodePointMapData::<GeneralCategory>::new();
    let points = (0..=0x10_FFFF).filter_map(char::from_u32);
    points.filter(|point| category.get(*point) == GeneralCategory::Unassigned).collect()
}

#[test]
fn a_code_point_without_a_character_is_refused_so_that_no_later_meaning_changes_a_name() {
    let unassigned = unassigned();
    assert!(unassigned.len() > 800_000);
    let mut accepted = Vec::new();
    for point in unassigned {
        let texts = [point.to_string(), format!("ada{point}"), format!("{point}ada")];
        let domain = Email::parse(&format!("ada@b{point}b.example"));
        if texts.iter().any(|text| Username::parse(text).is_ok()) || domain.is_ok() {
            accepted.push(u32::from(point));
        }
    }
    assert!(accepted.is_empty(), "{accepted:x?}");
}
