//! Rows: the bytes of version 1 for ever, fields that come and go, and bytes that are none.

use std::fmt::Debug;
use std::time::Duration;

use majordomo_model::{Envelope, MaxLag};

use majordomo_model::{ChangeKind, Username};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;
use crate::storage::limit::{AttemptRow, LimitRow};
use crate::storage::progress::{FailureRow, OpenRow, OpenState, ProjectionRow};
use crate::storage::row::{decode, decode_signal, encode};
use crate::storage::{ChangeRow, TextSlot, TextsRow};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).map(char::from).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The stored form is exactly this, and reads back. Whoever must change one of these literals has to keep reading it.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq>(row: &T, stored: &str) {
    let encoded = hex(&encode(row).unwrap());
    assert!(decode::<T>(&bytes(stored)).is_ok_and(|found| found == *row), "cannot be read; now it is {encoded}");
    assert_eq!(encoded, hex(&bytes(stored)));
}

fn full_user() -> UserRow {
    let name = Username::parse("Ada").unwrap();
    let profile = Profile { given_name: Some("Ada".to_owned()), ..Profile::default() };
    let proven = ContactRow {
        proven_at: Some(at(3)),
        primary: true,
        replaces: Some(id(ContactId::from_bytes, 3)),
        ..contact_row(2, "ada@example.com")
    };
    UserRow {
        username: Some(UsernameRow::from(&name)),
        contacts: vec![proven],
        profile,
        groups: ["staff".to_owned()].into(),
        status: UserStatus::Disabled,
        verify_by: Some(at(8)),
        ..user_row(user_id(1))
    }
}

fn full_token() -> TokenRow {
    let contact = id(ContactId::from_bytes, 2);
    TokenRow {
        binding: Binding::ContactRevision { contact, revision: 4 },
        attempts: 2,
        end: Some(TokenEnd::Superseded),
        delivered: DeliveryState::Sent,
        ..token_row(6, Some(user_id(1)))
    }
}

fn full_session() -> SessionRow {
    let context = Context::new().request_id("r").client_ip([192, 0, 2, 7].into()).user_agent("a");
    SessionRow { context, ..session_row(8, user_id(1)) }
}

fn applied_row() -> AppliedRow {
    AppliedRow {
        kind: FlowKind::Register,
        flow: id(FlowId::from_bytes, 4),
        fingerprint: Bytes([3; 32]),
        settled: true,
        outcome: b"answer".to_vec(),
        first_seq: 17,
        expires_at: at(9),
    }
}

fn full_cursor() -> CursorRow {
    let failure = FailureRow { at: at(4), failure: "refused".to_owned() };
    let open = OpenRow {
        seq: 65_000,
        attempts: 3,
        first_at: Some(at(2)),
        not_before: Some(at(5)),
        deferred: true,
        state: OpenState::Held,
        failures: vec![failure],
    };
    CursorRow {
        set_aside: Vec::new(),
        revision: 12,
        taken: 70_000,
        open: vec![open],
        leased: 70_003,
        lapsed_at: Some(at(3)),
        keeps_projection: false,
        max_lag: MaxLag { age: Some(Duration::from_secs(60)), bytes: Some(1 << 30) },
        projection: ProjectionRow { written: 2, served: 1, kept_from: 1, rebuild_from: 1, rebuild_to: 70_000 },
        halted: None,
        created_at: at(-1),
    }
}

fn letter_row() -> LetterRow {
    LetterRow {
        envelope: vec![1, 2, 3],
        reason: "exhausted".to_owned(),
        attempts: 20,
        tries: 2,
        failures: vec![FailureRow { at: at(4), failure: "refused".to_owned() }],
        dead_at: at(6),
        state: LetterState::Due,
    }
}

fn full_change() -> ChangeRow {
    let contact = full_user().contacts.remove(0);
    ChangeRow {
        user: user_id(1),
        version: 5,
        kind: ChangeKind::ContactReplaced,
        at: at(1),
        expires_at: at(9),
        contacts: vec![contact.clone()],
        told: contact,
        token: id(TokenId::from_bytes, 6),
    }
}

fn unsealed(hash: &str) -> StoredCredential {
    StoredCredential::unsealed(&CredentialRow::new(hash.to_owned(), 3, at(2)))
}

fn sealed() -> StoredCredential {
    StoredCredential::sealed(KeyId::from_bytes([5; 8]), "argon2id$m=8", vec![1, 2, 3], 3, at(2))
}

fn envelope() -> Envelope {
    let fixed = |mut envelope: Envelope| {
        envelope.id = id(SignalId::from_bytes, 10);
        envelope.flow = id(FlowId::from_bytes, 11);
        envelope
    };
    fixed(signal(user_id(1)))
}

#[test]
fn version_1_is_read_for_ever() {
    golden(
        &full_user(),
        "018ba26964c41001244b6e95b8df02294c7396bde0072aa776657273696f6e01aa637265617465645f6174ce000f4240a673 \
         7461747573a864697361626c6564a8757365726e616d6583a963616e6f6e6963616ca3616461a86f726967696e616ca34164 \
         61a8736b656c65746f6ea3616461a8636f6e74616374739189a26964c4100227486d96bbdc012a4f7095bee30429a7636861 \
         6e6e656ca5656d61696ca963616e6f6e6963616caf616461406578616d706c652e636f6da86f726967696e616caf61646140 \
         6578616d706c652e636f6da87265766973696f6e01a970726f76656e5f6174ce002dc6c0a77072696d617279c3a861646465 \
         645f6174ce000f4240a87265706c61636573c4100326496c97badd002b4e7194bfe20528a770726f66696c6581aa67697665 \
         6e5f6e616d65a3416461a667726f75707391a57374616666a565706f636801a97665726966795f6279ce007a1200a8736561 \
         6c5f6b6579c4200909090909090909090909090909090909090909090909090909090909090909",
    );
    golden(
        &unsealed("$argon2id$v=19$"),
        "0184a3706863af246172676f6e32696424763d313924a87265766973696f6e03a67365745f6174ce001e8480a46e6f726d01",
    );
    golden(
        &ActivityRow { last_login_at: Some(at(5)), logins: 300 },
        "0182ad6c6173745f6c6f67696e5f6174ce004c4b40a66c6f67696e73cd012c",
    );
    golden(
        &AttemptRow { failures: 4, last_at: at(5), expires_at: at(6), locked_until: None },
        "0183a86661696c7572657304a76c6173745f6174ce004c4b40aa657870697265735f6174ce005b8d80",
    );
    golden(
        &full_token(),
        "018ca26964c41006234c6992bfd8052e4b7491bae7002da7707572706f7365ae72657365745f62795f656d61696ca4757365 \
         72c41001244b6e95b8df02294c7396bde0072aa761646472657373af616461406578616d706c652e636f6da762696e64696e \
         6781b0636f6e746163745f7265766973696f6e82a7636f6e74616374c4100227486d96bbdc012a4f7095bee30429a8726576 \
         6973696f6e04a36b6579980505050505050505aa637265617465645f6174ce000f4240aa657870697265735f6174ce05f5e1 \
         00a8617474656d70747302a3656e64aa73757065727365646564a864656c6976657279c41006234c6992bfd8052e4b7491ba \
         e7002da964656c697665726564a473656e74",
    );
    golden(
        &full_session(),
        "0187a26964c410082d42679cb1d60b20457a9fb4e90e23a475736572c41001244b6e95b8df02294c7396bde0072aa565706f \
         636801aa637265617465645f6174ce000f4240ac6c6173745f7365656e5f6174ce000f4240aa657870697265735f6174ce05 \
         f5e100a7636f6e7465787483aa726571756573745f6964a172a9636c69656e745f697081a2563494ccc0000207aa75736572 \
         5f6167656e74a161",
    );
    golden(
        &applied_row(),
        "0187a46b696e64a87265676973746572a4666c6f77c41004214e6b90bdda072c497693b8e5022fab66696e6765727072696e \
         74c4200303030303030303030303030303030303030303030303030303030303030303a7736574746c6564c3a76f7574636f \
         6d65c406616e73776572a966697273745f73657111aa657870697265735f6174ce00895440",
    );
    golden(
        &envelope(),
        "0188a26964c4100a2f40659eb3d4092247789db6eb0c21a4666c6f77c4100b2e41649fb2d5082346799cb7ea0d20a46c616e \
         6581a475736572c41001244b6e95b8df02294c7396bde0072aa26174ce000f4240a673656e646572ac757365725f6d616e61 \
         676572a56163746f72a673797374656da6736368656d6101a67369676e616c82a474797065b4757365725f64697361626c65 \
         5f73746172746564a46461746181a475736572c41001244b6e95b8df02294c7396bde0072a",
    );
}

#[test]
fn version_3_of_what_is_remembered_of_messages_is_read_for_ever() {
    let challenge = id(TokenId::from_bytes, 6);
    let answered = Answered { at: at(1), challenge, expires_at: at(4), code_expires_at: at(3) };
    golden(
        &MessagesRow { answered: Some(answered), started: vec![at(1), at(2)], expires_at: at(5) },
        "0183a8616e73776572656484a26174ce000f4240a96368616c6c656e6765c41006234c6992bfd8052e4b7491bae7002daa65 \
         7870697265735f6174ce003d0900af636f64655f657870697265735f6174ce002dc6c0a77374617274656492ce000f4240ce \
         001e8480aa657870697265735f6174ce004c4b40",
    );
}

fn full_texts() -> TextsRow {
    TextsRow { slots: vec![TextSlot { from: at(1), started: 2, answered: 1 }], opened_at: Some(at(3)) }
}

#[test]
fn version_5_of_what_is_known_of_text_messages_is_read_for_ever() {
    golden(
        &full_texts(),
        "0182a5736c6f74739183a466726f6dce000f4240a77374617274656402a8616e73776572656401a96f70656e65645f6174ce002dc6c0",
    );
}

#[test]
fn version_2_of_a_subscriptions_rows_is_read_for_ever() {
    golden(
        &full_cursor(),
        "0188a87265766973696f6e0ca574616b656ece00011170a46f70656e9187a3736571cdfde8a8617474656d707473 \
         03a866697273745f6174ce001e8480aa6e6f745f6265666f7265ce004c4b40a86465666572726564c3a57374617465 \
         a468656c64a86661696c757265739182a26174ce003d0900a76661696c757265a772656675736564a66c6561736564 \
         ce00011173a96c61707365645f6174ce002dc6c0a76d61785f6c616782a361676582a4736563733ca56e616e6f7300 \
         a56279746573ce40000000aa70726f6a656374696f6e85a77772697474656e02a673657276656401a96b6570745f66 \
         726f6d01ac72656275696c645f66726f6d01aa72656275696c645f746fce00011170aa637265617465645f6174d2ff \
         f0bdc0",
    );
    golden(
        &letter_row(),
        "0187a8656e76656c6f7065c403010203a6726561736f6ea9657868617573746564a8617474656d70747314a5747269657302a86661696c7572 \
         65739182a26174ce003d0900a76661696c757265a772656675736564a7646561645f6174ce005b8d80a57374617465a36475 \
         65",
    );
}

#[test]
fn version_3_of_a_change_is_read_for_ever() {
    golden(
        &full_change(),
        "0188a475736572c41001244b6e95b8df02294c7396bde0072aa776657273696f6e05a46b696e64b0636f6e746163745f7265706c \
         61636564a26174ce000f4240aa657870697265735f6174ce00895440a8636f6e74616374739189a26964c4100227486d96bbdc01 \
         2a4f7095bee30429a76368616e6e656ca5656d61696ca963616e6f6e6963616caf616461406578616d706c652e636f6da86f7269 \
         67696e616caf616461406578616d706c652e636f6da87265766973696f6e01a970726f76656e5f6174ce002dc6c0a77072696d61 \
         7279c3a861646465645f6174ce000f4240a87265706c61636573c4100326496c97badd002b4e7194bfe20528a4746f6c6489a269 \
         64c4100227486d96bbdc012a4f7095bee30429a76368616e6e656ca5656d61696ca963616e6f6e6963616caf616461406578616d \
         706c652e636f6da86f726967696e616caf616461406578616d706c652e636f6da87265766973696f6e01a970726f76656e5f6174 \
         ce002dc6c0a77072696d617279c3a861646465645f6174ce000f4240a87265706c61636573c4100326496c97badd002b4e7194bf \
         e20528a5746f6b656ec41006234c6992bfd8052e4b7491bae7002d",
    );
}

#[test]
fn version_5_of_a_credential_is_read_for_ever() {
    golden(
        &sealed(),
        "0184a67365616c656483a36b6579980505050505050505a5636c617373ac6172676f6e326964246d3d38a468617368c403010203a87265766973696f6e \
         03a67365745f6174ce001e8480a46e6f726d01",
    );
}

#[test]
fn a_signal_gets_its_place_from_its_key() {
    let stored = encode(&envelope()).unwrap();
    assert_eq!(decode_signal(42, &stored).unwrap(), Envelope { seq: Some(42), ..envelope() });
}

/// The same row as a later build might write it: with a field that this one does not know.
#[derive(Serialize)]
struct Later<'a, T> {
    #[serde(flatten)]
    row: &'a T,
    added_later: Vec<u8>,
}

/// The same row as an earlier build wrote it: without the field, which here has the value that is its default.
fn without(encoded: &[u8], field: &str, value: &impl Serialize) -> Vec<u8> {
    let entry = [rmp_serde::to_vec_named(field).unwrap(), rmp_serde::to_vec_named(value).unwrap()].concat();
    let place = encoded.windows(entry.len()).position(|window| window == entry).expect("the field and its default");
    let mut shorter = [&encoded[..place], &encoded[place + entry.len()..]].concat();
    // The map of at most 15 fields that follows the format byte has its length in the low half of its first byte.
    assert_eq!(shorter[1] >> 4, 8);
    shorter[1] -= 1;
    shorter
}

#[track_caller]
fn reads_later<T: Serialize + DeserializeOwned + PartialEq>(row: &T) {
    let later = encode(&Later { row, added_later: vec![1, 2] }).unwrap();
    assert!(later.len() > encode(row).unwrap().len() + "added_later".len());
    assert!(decode::<T>(&later).is_ok_and(|found| found == *row), "{}", std::any::type_name::<T>());
}

#[test]
fn a_field_that_a_later_build_added_is_skipped() {
    reads_later(&full_user());
    reads_later(&full_user().contacts[0]);
    reads_later(&unsealed(""));
    reads_later(&sealed());
    reads_later(&ActivityRow::default());
    reads_later(&AttemptRow::default());
    reads_later(&LimitRow::default());
    reads_later(&full_texts());
    reads_later(&full_texts().slots[0]);
    reads_later(&full_token());
    reads_later(&full_session());
    reads_later(&applied_row());
    reads_later(&full_cursor());
    reads_later(&full_cursor().open[0]);
    reads_later(&full_cursor().projection);
    reads_later(&letter_row());
    reads_later(&full_change());
    reads_later(&envelope());
}

#[test]
fn a_field_that_an_earlier_build_did_not_know_gets_its_default() {
    let user = user_row(user_id(1));
    let stored = without(&encode(&user).unwrap(), "profile", &Profile::default());
    let stored = without(&stored, "groups", &user.groups);
    assert!(decode::<UserRow>(&stored).unwrap() == user);
    let contact = contact_row(2, "ada@example.com");
    let stored = without(&encode(&contact).unwrap(), "replaces", &None::<ContactId>);
    assert!(decode::<ContactRow>(&stored).unwrap() == contact);
    let session = session_row(8, user_id(1));
    let stored = without(&encode(&session).unwrap(), "context", &Context::new());
    assert_eq!(decode::<SessionRow>(&stored).unwrap(), session);
    let credential = unsealed("$argon2id$v=19$");
    let stored = bytes("0183a3706863af246172676f6e32696424763d313924a87265766973696f6e03a67365745f6174ce001e8480");
    assert!(
        decode::<StoredCredential>(&stored).unwrap() == credential && credential.norm == 1,
        "as the first build wrote it"
    );
    // As the first build wrote it.
    let cursor = CursorRow { taken: 70_000, created_at: at(-1), ..CursorRow::default() };
    let stored = bytes("0182a5666c6f6f72ce00011170aa637265617465645f6174d2fff0bdc0");
    assert_eq!(decode::<CursorRow>(&stored).unwrap(), cursor);
    // A field without a default is not invented.
    let stored = without(&encode(&user).unwrap(), "epoch", &1);
    assert!(decode::<UserRow>(&stored).is_err());
}

#[test]
fn another_format_is_refused_by_name() {
    let mut stored = encode(&full_user()).unwrap();
    stored[0] = 2;
    let refused = decode::<UserRow>(&stored).unwrap_err().to_string();
    assert_eq!(refused, "a stored UserRow cannot be decoded: unknown format 2");
    assert!(decode::<UserRow>(&[]).unwrap_err().to_string().ends_with("no bytes"));
    assert!(decode::<TokenRow>(&encode(&full_user()).unwrap()).is_err());
}

#[test]
fn rows_show_nothing_of_their_content() {
    let user = full_user();
    let shown = format!(
        "{user:?} {:?} {:?} {:?} {:?}",
        full_change(),
        user.username,
        user.contacts,
        (CredentialRow::new("ada", 1, at(1)), unsealed("ada"))
    );
    assert!(!shown.to_lowercase().contains("ada"), "{shown}");
    assert!(!format!("{:?}", UniqueKey::username("ada")).contains("ada"));
}

fn survive<T: DeserializeOwned + Debug>(bytes: &[u8]) {
    let _ = decode::<T>(bytes);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(mut bytes: Vec<u8>, format in prop::bool::weighted(0.9)) {
        if format {
            bytes.insert(0, 1);
        }
        survive::<UserRow>(&bytes);
        survive::<TokenRow>(&bytes);
        survive::<SessionRow>(&bytes);
        survive::<AppliedRow>(&bytes);
        survive::<CursorRow>(&bytes);
        survive::<LetterRow>(&bytes);
        survive::<ChangeRow>(&bytes);
        let _ = decode_signal(1, &bytes);
    }

    #[test]
    fn no_damage_makes_the_decoder_panic(place: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        let (user, token) = (encode(&full_user()).unwrap(), encode(&full_token()).unwrap());
        let (session, signal) = (encode(&full_session()).unwrap(), encode(&envelope()).unwrap());
        for mut stored in [user, token, session, signal] {
            let place = place.index(stored.len());
            stored[place] = value;
            stored.truncate(cut.index(stored.len()) + 1);
            survive::<UserRow>(&stored);
            survive::<TokenRow>(&stored);
            survive::<SessionRow>(&stored);
            let _ = decode_signal(1, &stored);
        }
    }
}
