//! Documents that are made from the code: each is what would be made now.
//!
//! After a change of the catalogue, `MAJORDOMO_BLESS=1 cargo test --test it generated` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

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

/// The text with what lies between the marks of this name replaced.
fn with_generated_part(text: &str, name: &str, part: &str) -> String {
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let (before, rest) = text.split_once(&begin).expect("the mark at the beginning");
    let (_, after) = rest.split_once(&end).expect("the mark at the end");
    format!("{before}{begin}{part}{end}{after}")
}

#[test]
fn the_table_of_signals_is_up_to_date() {
    let path = document("README.md");
    let text = fs::read_to_string(&path).unwrap();
    assert_up_to_date(&path, &with_generated_part(&text, "signals", &majordomo_model::catalogue_table()));
}

#[test]
fn the_table_of_metrics_is_up_to_date() {
    let path = document("docs/METRICS.md");
    let text = fs::read_to_string(&path).unwrap();
    assert_up_to_date(&path, &with_generated_part(&text, "metrics", &majordomo::metrics_table()));
}

#[test]
fn the_schema_is_up_to_date() {
    assert_up_to_date(&document("docs/signals.schema.json"), &majordomo_model::json_schema());
}

#[test]
fn only_what_lies_between_the_marks_is_generated() {
    let text = |part: &str| format!("before\n<!-- x:begin -->\n{part}<!-- x:end -->\nafter\n");
    assert_eq!(with_generated_part(&text("old\n"), "x", "new\n"), text("new\n"));
}
