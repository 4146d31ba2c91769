//! Documents that are made from the code: each is what would be made now.
//!
//! After a change of the catalogue, `MAJORDOMO_BLESS=1 cargo test --test it generated` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- signals:begin -->\n";
const END: &str = "<!-- signals:end -->";

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares a document with what it should be, or writes it.
fn assert_up_to_date(path: &Path, expected: &str) {
    if std::env::var_os("MAJORDOMO_BLESS").is_some_and(|value| value == "1") {
        fs::write(path, expected).unwrap();
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "{} is out of date: run the tests with MAJORDOMO_BLESS=1", path.display());
}

/// The text with what lies between its marks replaced.
fn with_generated_part(text: &str, part: &str) -> String {
    let (before, rest) = text.split_once(BEGIN).expect("the mark at the beginning");
    let (_, after) = rest.split_once(END).expect("the mark at the end");
    format!("{before}{BEGIN}{part}{END}{after}")
}

#[test]
fn the_table_of_signals_is_up_to_date() {
    let path = document("README.md");
    let text = fs::read_to_string(&path).unwrap();
    assert_up_to_date(&path, &with_generated_part(&text, &majordomo_model::catalogue_table()));
}

#[test]
fn the_schema_is_up_to_date() {
    assert_up_to_date(&document("docs/signals.schema.json"), &majordomo_model::json_schema());
}

#[test]
fn only_what_lies_between_the_marks_is_generated() {
    let text = format!("before\n{BEGIN}old\n{END}\nafter\n");
    assert_eq!(with_generated_part(&text, "new\n"), format!("before\n{BEGIN}new\n{END}\nafter\n"));
}
