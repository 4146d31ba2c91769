//! Tampering: whatever is done to an export, the library and an outsider's program both find it.

use std::io::BufReader;

use majordomo::testing::TestAccounts;
use majordomo::{
    Actor, AuditFlaw, AuditHead, AuditPublicKey, AuditQuery, AuditRange, GapCause, Keyring, Start, Timestamp,
    verify_audit,
};
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::auditing::{busy_day, exported};
use crate::listening::{register, soon};
use crate::person::cheap;

#[path = "../../examples/verify_audit.rs"]
#[allow(dead_code, reason = "its main function is not called here")]
mod outsider;

/// An export, what is held outside of it, and somebody else's export under the same names.
struct Case {
    lines: Vec<String>,
    keys: Vec<AuditPublicKey>,
    held: AuditHead,
    /// The same trail, exported before it had all its links.
    earlier: Vec<String>,
    /// A part of the same trail.
    part: Vec<String>,
    /// The trail of another store, signed under other keys and under the same ones.
    foreign: Vec<String>,
}

fn lines(export: &[u8]) -> Vec<String> {
    std::str::from_utf8(export).unwrap().lines().map(ToOwned::to_owned).collect()
}

fn joined(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
}

async fn system(keys: &Keyring) -> TestAccounts {
    let mut config = cheap();
    config.audit_checkpoint_every = 16;
    TestAccounts::with(config, |builder| builder.keys(keys.clone())).await
}

async fn case() -> Case {
    let keys = Keyring::from_keys(vec![[5; 32]]).unwrap();
    let test = system(&keys).await;
    busy_day(&test).await;
    let earlier = exported(&test, AuditRange::default()).await;
    // The auditor is not handed what tells about itself: a gap.
    soon(test.move_subscription("auditor", Start::Beginning, Actor::Admin("eve".to_owned()))).await.unwrap();
    for name in ["fay", "gil", "hal", "ida", "jon"] {
        register(&test, name).await;
    }
    soon(test.drain()).await;
    let export = exported(&test, AuditRange::default()).await;
    let part = exported(&test, AuditRange { from: Some(9), to: None }).await;
    let held = soon(test.audit_head()).await.unwrap();
    let gaps = soon(test.audit(AuditQuery { limit: 1_000, ..AuditQuery::default() })).await.unwrap().gaps;
    assert!(gaps.len() == 1 && gaps[0].cause == GapCause::NotHanded, "{gaps:?}");
    let other = system(&keys).await;
    busy_day(&other).await;
    let foreign = exported(&other, AuditRange::default()).await;
    Case {
        lines: lines(&export),
        keys: test.audit_keys(),
        held,
        earlier: lines(&earlier),
        part: lines(&part),
        foreign: lines(&foreign),
    }
}

fn fields(fields: &[&[u8]]) -> Vec<u8> {
    fields.iter().flat_map(|field| [&(field.len() as u64).to_be_bytes(), *field].concat()).collect()
}

fn hexadecimal(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same lines, numbers and hashes written anew from this link on, as whoever has no key can.
fn rechained(lines: &[String], from: usize) -> Vec<String> {
    let mut lines = lines.to_vec();
    let end = lines.iter().position(|line| line.starts_with("{\"head\":")).unwrap_or(lines.len());
    for index in from..end {
        let before: Value = serde_json::from_str(&lines[index - 1]).unwrap();
        let previous = before.get("hash").unwrap_or(&before["previous"]).as_str().unwrap().to_owned();
        let previous: Vec<u8> =
            (0..32).map(|at| u8::from_str_radix(&previous[at * 2..at * 2 + 2], 16).unwrap()).collect();
        let number = before["number"].as_u64().unwrap() + 1;
        let body = lines[index].split_once("\"body\":").unwrap().1.strip_suffix('}').unwrap().to_owned();
        let covered = [b"majordomo/v1/audit_link", &previous[..], &number.to_be_bytes(), body.as_bytes()];
        let hash = hexadecimal(Sha256::digest(fields(&covered)));
        lines[index] = format!("{{\"number\":{number},\"hash\":\"{hash}\",\"body\":{body}}}");
    }
    lines
}

/// A head as it is written.
fn written(head: &Value) -> String {
    serde_json::to_string(&serde_json::from_value::<AuditHead>(head.clone()).unwrap()).unwrap()
}

fn checkpoint_line(head: &Value) -> String {
    format!("{{\"number\":0,\"hash\":\"\",\"body\":{{\"checkpoint\":{}}}}}", written(head))
}

/// Signs a head as whoever has a key of his own can, under the name of ours.
fn forged(head: &Value) -> Value {
    use ed25519_dalek::{Signer, SigningKey};
    let bytes = |name: &str| {
        let digits = head[name].as_str().unwrap_or_default().replace('-', "");
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).unwrap()).collect::<Vec<_>>()
    };
    let number = |name: &str| head[name].as_u64().unwrap().to_be_bytes();
    let message = fields(&[
        b"majordomo/v1/audit_head",
        head["purpose"].as_str().unwrap().as_bytes(),
        &bytes("store"),
        &number("seq"),
        &number("number"),
        &bytes("hash"),
        &head["at"].as_i64().unwrap().to_be_bytes(),
        &bytes("key"),
        &bytes("header"),
    ]);
    let mut head = head.clone();
    head["signature"] = hexadecimal(SigningKey::from_bytes(&[66; 32]).sign(&message).to_bytes()).into();
    head
}

impl Case {
    /// The first line behind `after` that holds a text.
    fn find(&self, text: &str, after: usize) -> usize {
        let found = self.lines.iter().skip(after).position(|line| line.contains(text));
        after + found.unwrap_or_else(|| panic!("no line holds {text}"))
    }

    fn checkpoints(&self) -> Vec<usize> {
        (0..self.lines.len()).filter(|index| self.lines[*index].contains("\"body\":{\"checkpoint\"")).collect()
    }

    fn end(&self) -> usize {
        self.lines.len() - 1
    }

    fn altered(&self, index: usize, from: &str, to: &str) -> Vec<String> {
        let mut lines = self.lines.clone();
        assert!(lines[index].contains(from), "{from} in {}", lines[index]);
        lines[index] = lines[index].replacen(from, to, 1);
        lines
    }

    fn without(&self, index: usize) -> Vec<String> {
        let mut lines = self.lines.clone();
        lines.remove(index);
        lines
    }

    fn with(&self, index: usize, line: &str) -> Vec<String> {
        let mut lines = self.lines.clone();
        lines.insert(index, line.to_owned());
        lines
    }

    fn swapped(&self, one: usize, other: usize) -> Vec<String> {
        let mut lines = self.lines.clone();
        lines.swap(one, other);
        lines
    }

    fn library(&self, export: &[u8], held: Option<&AuditHead>) -> Result<u64, AuditFlaw> {
        verify_audit(export, &self.keys, held).map(|verified| verified.records)
    }

    fn outsider(&self, export: &[u8], held: Option<&AuditHead>) -> Result<String, String> {
        let held = held.map(|held| serde_json::to_string(held).unwrap());
        outsider::verify(BufReader::new(export), &serde_json::to_string(&self.keys).unwrap(), held.as_deref())
    }

    /// Neither takes the export for whole, even without a head held outside.
    #[track_caller]
    fn is_found(&self, what: &str, export: &[u8]) -> AuditFlaw {
        assert_ne!(export, joined(&self.lines), "{what}: nothing was changed");
        let outsider = self.outsider(export, None);
        assert!(outsider.is_err(), "{what}: the outsider says {outsider:?}");
        self.library(export, None).map(|records| panic!("{what}: the library verified {records} records")).unwrap_err()
    }

    /// Alterations of one value of a link or of the whole line.
    fn alterations(&self) -> Vec<(&'static str, Vec<String>)> {
        let (login, disabled) = (self.find("\"kind\":\"user_authenticated\"", 0), self.find("operator-7", 0));
        let failed = self.find("\"kind\":\"user_authentication_failed\"", 0);
        let gap = self.find("\"body\":{\"gap\"", 0);
        let checkpoint = self.checkpoints()[1];
        vec![
            (
                "the kind of a record",
                self.altered(failed, "\"kind\":\"user_authentication_failed\"", "\"kind\":\"user_authenticated\""),
            ),
            (
                "the type of a signal",
                self.altered(failed, "\"type\":\"user_authentication_failed\"", "\"type\":\"user_authenticated\""),
            ),
            ("the reason of a failure", self.altered(failed, "\"reason\":\"", "\"reason\":\"x")),
            ("the time of a record", self.altered(login, "\"at\":1", "\"at\":2")),
            ("the place of a record", self.altered(login, "\"seq\":", "\"seq\":9")),
            ("the id of a signal", self.altered(login, "\"id\":\"0", "\"id\":\"1")),
            ("the flow of a record", self.altered(login, "\"flow\":\"0", "\"flow\":\"1")),
            ("the user of a record", self.altered(login, "\"user\":\"0", "\"user\":\"1")),
            ("the actor of a record", self.altered(disabled, "operator-7", "operator-8")),
            ("the context of a record", self.altered(disabled, "\"request_id\":\"r-1\"", "\"request_id\":\"r-2\"")),
            ("the seal of a context", self.altered(disabled, "\"sealed\":\"A", "\"sealed\":\"B")),
            ("the sender of a record", self.altered(login, "\"sender\":\"user_manager\"", "\"sender\":\"user\"")),
            ("the event of a record", self.altered(failed, "authn_login_fail", "authn_login_success")),
            ("the schema of a record", self.altered(login, "\"schema\":1", "\"schema\":2")),
            ("the places of a gap", self.altered(gap, "\"from\":", "\"from\":1")),
            ("the cause of a gap", self.altered(gap, "not_handed", "pruned")),
            ("a hash alone", self.altered(login, "\"hash\":\"", "\"hash\":\"0")),
            ("a number alone", self.altered(login, "{\"number\":", "{\"number\":1")),
            ("the time of a checkpoint", self.altered(checkpoint, "\"at\":1", "\"at\":2")),
            (
                "the signature of a checkpoint",
                rechained(&self.altered(checkpoint, "\"signature\":\"", "\"signature\":\"00"), checkpoint),
            ),
            ("the case of a hash", {
                let mut lines = self.lines.clone();
                let hash = serde_json::from_str::<Value>(&lines[login]).unwrap()["hash"].as_str().unwrap().to_owned();
                lines[login] = lines[login].replace(&hash, &hash.to_uppercase());
                lines
            }),
            ("a blank in a body", self.altered(login, "\"body\":{", "\"body\":{ ")),
            ("a blank before a body", self.altered(login, "\"body\":", "\"body\": ")),
            ("a carriage return", self.altered(login, "\"body\":{", "\"body\":{\r")),
            ("the store in the header", self.altered(0, "\"store\":\"0", "\"store\":\"1")),
            ("the hash in the header", self.altered(0, "\"previous\":\"", "\"previous\":\"0")),
            ("the number in the header", self.altered(0, "\"number\":0", "\"number\":1")),
            ("the keys in the header", self.altered(0, "\"public\":\"", "\"public\":\"0")),
            ("the version in the header", self.altered(0, "\"majordomo_audit\":1", "\"majordomo_audit\":2")),
            ("the time in the end", self.altered(self.end(), "\"at\":1", "\"at\":2")),
            ("the purpose in the end", self.altered(self.end(), "\"export\"", "\"held\"")),
        ]
    }

    /// Lines that are taken away, added or moved.
    fn rearrangements(&self) -> Vec<(&'static str, Vec<String>)> {
        let (end, middle, checkpoints) = (self.end(), self.lines.len() / 2, self.checkpoints());
        let gap = self.find("\"body\":{\"gap\"", 0);
        let forged_record = self.lines[middle].replace("\"at\":1", "\"at\":2");
        let mut moved = self.lines.clone();
        let checkpoint = moved.remove(checkpoints[1]);
        moved.insert(checkpoints[0], checkpoint);
        let spliced =
            [&self.lines[..middle], &self.foreign[middle..self.foreign.len() - 1], &self.lines[end..]].concat();
        vec![
            ("no header", self.without(0)),
            ("two headers", self.with(0, &self.lines[0])),
            ("the first link is gone", self.without(1)),
            ("a link in the middle is gone", self.without(middle)),
            ("the last link is gone", self.without(end - 1)),
            ("ten links are gone", [&self.lines[..10], &self.lines[20..]].concat()),
            ("two links are swapped", self.swapped(middle, middle + 1)),
            ("the last links are swapped", self.swapped(end - 2, end - 1)),
            ("a link is there twice", self.with(middle, &self.lines[middle])),
            ("a link is there again at the end", self.with(end, &self.lines[middle])),
            ("a forged record is inserted", self.with(middle + 1, &forged_record)),
            (
                "a forged record is inserted and all hashes are written anew",
                rechained(&self.with(middle + 1, &forged_record), middle + 1),
            ),
            ("a record is removed and all hashes are written anew", rechained(&self.without(middle), middle)),
            ("the gap is removed", self.without(gap)),
            ("the gap is removed and all hashes are written anew", rechained(&self.without(gap), gap)),
            ("a checkpoint is dropped", self.without(checkpoints[1])),
            (
                "a checkpoint is dropped and all hashes are written anew",
                rechained(&self.without(checkpoints[1]), checkpoints[1]),
            ),
            ("checkpoints are reordered", self.swapped(checkpoints[0], checkpoints[1])),
            (
                "checkpoints are reordered and all hashes are written anew",
                rechained(&self.swapped(checkpoints[0], checkpoints[1]), checkpoints[0]),
            ),
            ("a checkpoint is put forward", moved.clone()),
            ("a checkpoint is put forward and all hashes are written anew", rechained(&moved, checkpoints[0])),
            ("another trail is spliced in", spliced.clone()),
            ("another trail is spliced in and all hashes are written anew", rechained(&spliced, middle)),
            ("cut off behind a checkpoint", self.lines[..=checkpoints[1]].to_vec()),
            ("cut off before a checkpoint", self.lines[..checkpoints[1]].to_vec()),
            ("cut off before the end", self.lines[..end].to_vec()),
            ("cut off, the end kept", [&self.lines[..middle], &self.lines[end..]].concat()),
            ("cut off behind the header", self.lines[..1].to_vec()),
            ("the end of a part", [&self.lines[..end], &self.part[self.part.len() - 1..]].concat()),
            ("the end of another store", [&self.lines[..end], &self.foreign[self.foreign.len() - 1..]].concat()),
            ("the header of another store", [&self.foreign[..1], &self.lines[1..]].concat()),
            ("the header of a part", [&self.part[..1], &self.lines[1..]].concat()),
            ("an empty line", self.with(middle, "")),
            ("garbage", self.with(middle, "{\"garbage\":true}")),
            ("garbage behind the end", self.with(end + 1, "{}")),
            ("a second end", self.with(end + 1, &self.lines[end])),
        ]
    }

    /// What is signed by somebody else, or for something else.
    fn forgeries(&self) -> Vec<(&'static str, Vec<String>)> {
        let (end, checkpoint) = (self.end(), self.checkpoints()[1]);
        let of_foreign = self.foreign.iter().filter(|line| line.contains("\"body\":{\"checkpoint\"")).nth(1).unwrap();
        let mut replayed = self.lines.clone();
        replayed[checkpoint] = of_foreign.clone();
        let link: Value = serde_json::from_str(&self.lines[checkpoint]).unwrap();
        let head = &link["body"]["checkpoint"];
        let with_head = |head: &Value| {
            let mut lines = self.lines.clone();
            lines[checkpoint] = checkpoint_line(head);
            rechained(&lines, checkpoint)
        };
        let stranger = {
            let mut head = head.clone();
            head["key"] = "0000000000000000".into();
            head
        };
        // A whole history of the forger's own, from the first record on, in which every head is signed anew.
        let mut history = rechained(&self.altered(1, "\"at\":1", "\"at\":2"), 1);
        for index in 1..history.len() {
            history = rechained(&history, index);
            let before: Value = serde_json::from_str(&history[index - 1]).unwrap();
            let mut line: Value = serde_json::from_str(&history[index]).unwrap();
            let head = if index == end { &mut line["head"] } else { &mut line["body"]["checkpoint"] };
            if !head.is_null() {
                head["hash"] = before["hash"].clone();
                *head = forged(head);
                history[index] =
                    if index == end { format!("{{\"head\":{}}}", written(head)) } else { checkpoint_line(head) };
            }
            if index < end {
                history = rechained(&history, index);
            }
        }
        let as_end = format!("{{\"head\":{}}}", written(head));
        vec![
            ("a checkpoint of another store", replayed.clone()),
            ("a checkpoint of another store, all hashes being written anew", rechained(&replayed, checkpoint)),
            ("a checkpoint under another key", with_head(&forged(head))),
            ("a checkpoint under a key that nobody knows", with_head(&stranger)),
            ("a history of its own", history),
            ("a checkpoint as the end", [&self.lines[..checkpoint], &[as_end]].concat()),
            ("a held head as the end", {
                let held = format!("{{\"head\":{}}}", serde_json::to_string(&self.held).unwrap());
                [&self.lines[..end], &[held]].concat()
            }),
        ]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_tampering_is_found_by_the_library_and_by_an_outsider() {
    let case = case().await;
    let whole = joined(&case.lines);
    for held in [None, Some(&case.held)] {
        assert!(case.library(&whole, held).unwrap() > 60);
        case.outsider(&whole, held).unwrap();
    }
    for sound in [&case.earlier, &case.part] {
        case.library(&joined(sound), None).unwrap();
        case.outsider(&joined(sound), None).unwrap();
    }
    assert!(case.checkpoints().len() >= 4);
    let kinds = [case.alterations(), case.rearrangements(), case.forgeries()].concat();
    assert!(kinds.len() >= 60);
    for (what, lines) in &kinds {
        case.is_found(what, &joined(lines));
    }
    let half = case.lines[case.lines.len() / 2].len() / 2;
    let cut = joined(&case.lines[..case.lines.len() / 2])
        .into_iter()
        .chain(case.lines[case.lines.len() / 2].bytes().take(half));
    for (what, export) in [
        ("a line is cut in half", cut.collect::<Vec<_>>()),
        ("the last line feed is gone", whole[..whole.len() - 1].to_vec()),
        ("a byte follows the end", [&whole[..], b"x"].concat()),
        ("a byte order mark", [b"\xef\xbb\xbf", &whole[..]].concat()),
        ("other line feeds", String::from_utf8(whole.clone()).unwrap().replace('\n', "\r\n").into_bytes()),
        ("no text", [&whole[..whole.len() / 2], &[0xff], &whole[whole.len() / 2..]].concat()),
        ("nothing", Vec::new()),
        ("a line without end", vec![b'{'; 1 << 20]),
    ] {
        case.is_found(what, &export);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_which_link_is_wrong() {
    let case = case().await;
    let (middle, checkpoint) = (case.lines.len() / 2, case.checkpoints()[1]);
    let number = |index: usize| index as u64;
    let flaw = |lines: &[String]| case.is_found("", &joined(lines));
    let record = (1..middle).rev().find(|index| case.lines[*index].contains("\"body\":{\"record\"")).unwrap();
    let seq = serde_json::from_str::<Value>(&case.lines[record]).unwrap()["body"]["record"]["seq"].as_u64().unwrap();
    let altered = flaw(&case.altered(record, "\"at\":1", "\"at\":2"));
    assert_eq!(altered, AuditFlaw::Altered { number: number(record), seq });
    let missing = AuditFlaw::Missing { expected: number(middle), found: number(middle) + 1 };
    assert_eq!(flaw(&case.without(middle)), missing);
    assert_eq!(flaw(&case.swapped(middle, middle + 1)), missing);
    let twice = flaw(&case.with(middle, &case.lines[middle]));
    assert_eq!(twice, AuditFlaw::OutOfOrder { expected: number(middle) + 1, found: number(middle) });
    let rewritten = flaw(&rechained(&case.altered(1, "\"at\":1", "\"at\":2"), 1));
    let first = number(case.checkpoints()[0]) - 1;
    assert_eq!(rewritten, AuditFlaw::HeadMismatch { number: first }, "the first signature behind it tells");
    let signed = flaw(&rechained(&case.altered(checkpoint, "\"seq\":", "\"seq\":1"), checkpoint));
    assert_eq!(signed, AuditFlaw::Forged { number: number(checkpoint) - 1 });
    assert_eq!(flaw(&case.lines[..middle]), AuditFlaw::CutOff { number: number(middle) - 1 });
    assert_eq!(flaw(&case.with(case.lines.len(), "{}")), AuditFlaw::BehindEnd { line: number(case.lines.len()) + 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_head_that_is_held_outside_tells_an_older_export_from_the_newest() {
    let case = case().await;
    let earlier = joined(&case.earlier);
    case.library(&earlier, None).unwrap();
    let truncated = case.library(&earlier, Some(&case.held)).unwrap_err();
    assert!(matches!(truncated, AuditFlaw::Truncated { .. }), "{truncated:?}");
    case.outsider(&earlier, Some(&case.held)).unwrap_err();
    let foreign = joined(&case.foreign);
    case.library(&foreign, None).unwrap();
    assert!(matches!(case.library(&foreign, Some(&case.held)), Err(AuditFlaw::ForeignStore { .. })));
    case.outsider(&foreign, Some(&case.held)).unwrap_err();
    let mut forged = case.held.clone();
    forged.at = Timestamp::from_micros(1);
    assert!(matches!(case.library(&joined(&case.lines), Some(&forged)), Err(AuditFlaw::Forged { .. })));
    case.outsider(&joined(&case.lines), Some(&forged)).unwrap_err();
}

#[test]
fn any_byte_that_is_changed_is_found() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let case = runtime.block_on(case());
    let whole = joined(&case.lines);
    let cases = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(cases, |(place: prop::sample::Index, by in 1..=255_u8)| {
        let mut changed = whole.clone();
        changed[place.index(whole.len())] ^= by;
        prop_assert!(case.library(&changed, None).is_err());
        prop_assert!(case.outsider(&changed, None).is_err());
    });
}
