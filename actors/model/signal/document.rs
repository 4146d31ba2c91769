//! The catalogue as documents: a table to read, and a JSON Schema to check signals by.

use std::fmt::Write;

use super::kind::FlowKind;
use super::{SignalClass, SignalKind};

/// The catalogue as a Markdown table, one row a signal, with a line on every class below it.
#[must_use]
pub fn catalogue_table() -> String {
    let mut table = String::from(
        "| # | signal | class | starts | ends | fields | what it tells |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for kind in SignalKind::ALL {
        // Writing to a `String` does not fail.
        let _ = writeln!(
            table,
            "| {} | `{}` | {} | {} | {} | {} | {} |",
            kind.number(),
            kind.as_str(),
            kind.class().as_str(),
            listed(kind.starts().iter().copied().map(FlowKind::as_str)),
            listed(kind.ends().iter().copied().map(FlowKind::as_str)),
            listed(kind.fields().iter().copied()),
            kind.summary(),
        );
    }
    table.push_str("\nWhen a signal is written, by its class:\n\n");
    for class in SignalClass::ALL {
        let _ = writeln!(table, "- *{}*: {class}", class.as_str());
    }
    table
}

fn listed(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The JSON Schema (draft 2020-12) of [`Envelope`](crate::Envelope) as `serde` writes it, pretty, its keys sorted.
#[cfg(feature = "schema")]
#[must_use]
pub fn json_schema() -> String {
    let mut schema = schemars::schema_for!(crate::Envelope);
    schema.insert("$id".to_owned(), "majordomo-signal-v1".into());
    schema.insert("title".to_owned(), "A signal of majordomo, in its envelope".into());
    // Alternate, a JSON value prints itself pretty.
    format!("{:#}\n", sorted(schema.to_value()))
}

/// The same value with the keys of every object in order, whichever map the JSON library was built with.
#[cfg(feature = "schema")]
fn sorted(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Array(values) => values.into_iter().map(sorted).collect(),
        Value::Object(fields) => {
            let fields: std::collections::BTreeMap<_, _> = fields.into_iter().collect();
            Value::Object(fields.into_iter().map(|(name, value)| (name, sorted(value))).collect())
        }
        value => value,
    }
}
