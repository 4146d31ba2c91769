//! Versions: what the lock file says is being compared.

/// The locked version of a crate; the latest where there are several.
#[must_use]
pub fn locked(name: &str) -> &'static str {
    let entry = format!("name = \"{name}\"\nversion = \"");
    let rest = include_str!("Cargo.lock").rsplit_once(entry.as_str()).map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default()
}
