//! The rules of the house, read off the sources: who may import whom, how long a file is, how it opens.

#![allow(clippy::unwrap_used, reason = "a test may fail, in its helping functions too")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Which rooms of the engine room a room may import. A room that is not listed fails the test.
const ROOMS: &[(&str, &[&str])] = &[
    ("address", &[]),
    ("auditor", &["subscriber", "clock"]),
    ("breach", &["breaker", "host", "http"]),
    ("breaker", &[]),
    ("bytes", &[]),
    ("clock", &[]),
    ("delivery_end", &["storage"]),
    ("device", &["keys"]),
    ("fuzzing", &["auditor", "hasher", "keys", "session_secret", "storage", "token"]),
    ("gauge", &[]),
    ("guard", &["breaker", "gauge", "host"]),
    ("hasher", &["gauge", "priority", "telemetry"]),
    ("host", &["priority"]),
    ("http", &[]),
    ("keys", &[]),
    ("live", &[]),
    ("notifier", &["subscriber", "clock", "http"]),
    (
        "outbox",
        &[
            "gauge",
            "host",
            "delivery_end",
            "storage",
            "subscriber",
            "token",
            "clock",
            "stamp",
            "supervision",
            "live",
            "bytes",
            "telemetry",
        ],
    ),
    ("priority", &[]),
    ("seal", &[]),
    ("session_secret", &[]),
    ("stamp", &["seal"]),
    ("storage", &["address", "bytes", "clock", "gauge", "keys", "seal", "stamp", "telemetry", "token"]),
    ("subscriber", &[]),
    ("supervision", &["address", "clock", "gauge"]),
    (
        "supervisor",
        &[
            "address",
            "breach",
            "clock",
            "gauge",
            "guard",
            "hasher",
            "keys",
            "live",
            "outbox",
            "storage",
            "supervision",
            "token",
            "user_manager",
        ],
    ),
    ("telemetry", &[]),
    ("token", &["keys"]),
    (
        "user_manager",
        &[
            "address",
            "breach",
            "bytes",
            "clock",
            "gauge",
            "delivery_end",
            "device",
            "guard",
            "hasher",
            "keys",
            "live",
            "session_secret",
            "stamp",
            "storage",
            "telemetry",
            "token",
        ],
    ),
];

/// What the files of `user_manager/` may share; every other file there is a flow and imports none of its siblings.
const SHARED_BY_FLOWS: &[&str] = &[
    "authority",
    "beat",
    "breaches",
    "budget",
    "common_budget",
    "contacts",
    "epoch",
    "fault",
    "fixture",
    "flow",
    "fresh_token",
    "guarding",
    "hashing",
    "known_device",
    "lapse",
    "limits",
    "lock",
    "message_budget",
    "mod",
    "new_password",
    "newcomer",
    "places",
    "policy",
    "proof",
    "proven",
    "rehash",
    "reseal",
    "services",
    "session",
    "source",
    "text_breaker",
    "throttle",
    "undelivered",
    "undo",
    "verification",
    "verification_request",
];

/// Crates that one room alone may name.
const ALONE: &[(&str, &str)] = &[
    ("argon2", "actors/hasher/"),
    ("argon2_rust", "actors/hasher/simd.rs"),
    ("redb", "actors/storage/redb/"),
    ("minijinja", "actors/notifier/"),
    ("lettre", "actors/notifier/email"),
    ("chacha20poly1305", "actors/seal.rs"),
    ("metrics", "actors/telemetry.rs"),
    ("ed25519_dalek", "actors/auditor/"),
    ("reqwest", "actors/http/"),
    ("rustls", "actors/http/"),
];

const FILE_LIMIT: usize = 450;

struct Source {
    path: String,
    code: String,
}

/// Every source of the library, without its tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "actors"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 40, "the sources were not found");
    files.into_iter().map(|file| read(root, &file)).filter(|source| !is_test(&source.path)).collect()
}

fn read(root: &Path, file: &Path) -> Source {
    let path = file.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    let text = std::fs::read_to_string(file).unwrap();
    let is_for_tests = |line: &str| line.starts_with("#[cfg(") && line.contains("test") && !line.contains("feature");
    let is_module = |next: &str| next.contains("mod ") && next.ends_with('{');
    let tests = text.lines().zip(text.lines().skip(1)).position(|(line, next)| is_for_tests(line) && is_module(next));
    let code = text.lines().take(tests.unwrap_or(usize::MAX)).fold(String::new(), |code, line| code + line + "\n");
    Source { path, code }
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.ends_with("/fixture.rs")
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The first word behind each occurrence of a path prefix, outside comments.
fn names_behind<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut names = BTreeSet::new();
    for line in lines {
        for (place, _) in line.match_indices(prefix) {
            let boundary = line[..place].chars().next_back().is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
            let rest = &line[place + prefix.len()..];
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            if boundary && end > 0 {
                names.insert(&rest[..end]);
            }
        }
    }
    names
}

fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("actors/")?;
    if inside.starts_with("model/") || inside == "lib.rs" {
        return None;
    }
    let room = inside.split('/').next()?;
    Some(room.strip_suffix(".rs").unwrap_or(room))
}

#[test]
fn arrows_between_rooms_go_down_only() {
    let rules: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    let mut breaches = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(room) = room_of(&source.path) else { continue };
        seen.insert(room.to_owned());
        let Some(allowed) = rules.get(room) else {
            breaches.push(format!("{}: the room {room} has no rule", source.path));
            continue;
        };
        for name in names_behind(&source.code, "crate::") {
            if name != room && !allowed.contains(&name) {
                breaches.push(format!("{}: {room} may not import {name}", source.path));
            }
        }
    }
    let gone = ROOMS.iter().filter(|(room, _)| !seen.contains(*room));
    breaches.extend(gone.map(|(room, _)| format!("the room {room} has a rule and does not exist")));
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_words_import_neither_the_engine_room_nor_a_runtime() {
    for source in sources().iter().filter(|source| source.path.starts_with("actors/model/")) {
        for foreign in ["majordomo_actors", "majordomo::", "tokio::", "ractor::", "std::fs", "std::net::Tcp"] {
            assert!(!source.code.contains(foreign), "{} names {foreign}", source.path);
        }
    }
}

#[test]
fn nobody_below_names_the_front_of_the_house() {
    for source in sources().iter().filter(|source| source.path.starts_with("actors/")) {
        assert!(names_behind(&source.code, "majordomo::").is_empty(), "{} names majordomo", source.path);
    }
}

#[test]
fn flows_do_not_import_each_other() {
    for source in sources() {
        let Some(file) = source.path.strip_prefix("actors/user_manager/") else { continue };
        let flow = file.trim_end_matches(".rs");
        if SHARED_BY_FLOWS.contains(&flow) {
            continue;
        }
        for sibling in names_behind(&source.code, "super::") {
            let shared = SHARED_BY_FLOWS.contains(&sibling);
            assert!(shared || sibling == "super", "{}: a flow may not import {sibling}", source.path);
        }
    }
}

#[test]
fn heavy_crates_have_one_home() {
    for source in sources() {
        for (name, home) in ALONE {
            let named = !names_behind(&source.code, &format!("{name}::")).is_empty()
                || source.code.contains(&format!("use {name};"));
            // A module of ours may have the same name as the crate it wraps.
            let own =
                source.code.contains(&format!("self::{name}::")) || source.code.contains(&format!("super::{name}::"));
            assert!(!named || own || source.path.starts_with(home), "{} names {name}", source.path);
        }
    }
}

#[test]
fn every_file_opens_with_a_sentence_and_is_short() {
    for source in sources() {
        let first = source.code.lines().next().unwrap_or_default();
        let opens = first.starts_with("//! ") && first.ends_with(['.', ':']);
        assert!(opens, "{} opens with {first:?}", source.path);
        let length = source.code.lines().count();
        assert!(length <= FILE_LIMIT, "{} has {length} lines outside its tests", source.path);
    }
}

#[test]
fn nothing_can_panic_outside_tests() {
    let forbidden = [".unwrap()", ".expect(\"", "todo!(", "unimplemented!(", "dbg!("];
    for source in sources() {
        for line in source.code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            assert!(!forbidden.iter().any(|word| line.contains(word)), "{}: {line}", source.path);
        }
    }
}

/// The one block that the compiler does not vouch for, and its leave to be there, have one home in the whole project.
#[test]
fn unsafe_code_has_one_home() {
    const HOME: &str = "actors/hasher/huge_pages.rs";
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "actors", "tests", "benches", "examples"] {
        collect(&root.join(folder), &mut files);
    }
    let word = ["un", "safe"].concat();
    let mut at_home = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("tests/house.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text.lines().filter(|line| line.split("//").next().unwrap_or_default().contains(&word)) {
            assert!(file.ends_with(HOME), "{}: {line}", file.display());
            at_home.push(line.trim().to_owned());
        }
    }
    let [leave, block] = at_home.as_slice() else { panic!("{HOME} has {at_home:?}") };
    assert!(leave.starts_with("#[expect(") && block.contains(&format!("{word} {{ rustix::mm::madvise(")));
}

#[test]
fn names_are_words() {
    let forbidden = ["util", "utils", "helper", "helpers", "common", "misc", "ctx", "cfg", "mgr"];
    for source in sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            assert!(!forbidden.contains(&part), "{} is no name for a file", source.path);
        }
    }
}

#[test]
fn the_code_map_names_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Code map").nth(1).unwrap().split("\n## ").next().unwrap();
    let places: Vec<&str> = map.lines().filter_map(|line| line.split('|').nth(1)).collect();
    let is_named = |room: &str| {
        let names = [format!("{room}.rs`"), format!("{room}/`")];
        names.iter().any(|name| places.iter().any(|place| place.contains(name)))
    };
    let missing: Vec<_> = ROOMS.iter().map(|(room, _)| *room).filter(|room| !is_named(room)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not say what {missing:?} are");
}

/// A documentation test sees the dependencies of the crate; an app that copies the lines has only its own.
#[test]
fn the_readme_needs_no_crate_but_those_that_it_names() {
    let text = include_str!("../README.md");
    assert!(!text.contains("#[ractor::"), "ractor's macros name a crate that an app does not depend on");
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_test_that_the_security_document_names_is_where_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let (mut named, mut found) = (Vec::new(), 0);
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let shown_by = line.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default();
        for word in quoted(shown_by) {
            if !word.ends_with(".rs") {
                named.push(word);
                continue;
            }
            let code = std::fs::read_to_string(root.join(word)).unwrap_or_else(|_| panic!("{word} is not there"));
            for test in named.drain(..) {
                assert!(code.contains(&format!("fn {test}(")), "{test} is not in {word}");
                found += 1;
            }
        }
        assert!(named.is_empty(), "no file is named for {named:?}");
    }
    assert!(found > 200, "{found} tests are named");
}
