//! Names: the keys of usernames follow the tables of Unicode that this build has, and no user loses a name to another.

use std::sync::LazyLock;

use majordomo_model::{UserId, Username};
use sha2::{Digest, Sha256};

use super::lookup::{Lookup, ReadError, UniqueKey};
use super::redb::{CommitError, Engine, View, WriteView};
use super::row::{UserRow, UsernameRow, decode, encode};
use super::table::{KeyReader, Table};

/// Under which name the meta table has the hash of the tables that the keys were made with.
pub(super) const NAME_TABLES: &str = "name_tables";

/// What it has while keys are being made anew: no hash, so whichever build opens the store next begins again.
const UNDER_WAY: &[u8] = &[];

/// Users read at a time, and changed in one transaction.
const CHUNK: usize = 1_000;

/// The hash of this build's tables; making it takes about 0.1 s optimised, 0.5 s not, once a process.
static TABLES: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut hash = Sha256::new_with_prefix("majordomo/v1/name_tables");
    Username::tables(|piece| hash.update(piece));
    hash.finalize().into()
});

/// Under which name the meta table has the program whose tables they are, so that it need not look at all of them again.
const NAME_TABLES_OF: &str = "name_tables_of";

/// What tells this program from another one that has these tables: its file as it is now, and some of the tables, since
/// they may come with a library of its own. `None` where the file cannot be looked at.
pub(super) fn program(tables: &[u8]) -> Option<[u8; 32]> {
    let path = std::env::current_exe().ok()?;
    let file = std::fs::metadata(&path).ok()?;
    let changed = file.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let mut hash = Sha256::new_with_prefix("majordomo/v1/name_tables_of");
    hash.update(tables);
    hash.update(path.as_os_str().as_encoded_bytes());
    hash.update(file.len().to_be_bytes());
    hash.update(changed.as_nanos().to_be_bytes());
    Username::some_tables(|piece| hash.update(piece));
    Some(hash.finalize().into())
}

/// Marks a store whose keys this build makes from the start.
pub(super) fn mark(transaction: &mut WriteView<'_>) -> Result<(), super::redb::EngineError> {
    transaction.put(
        Table::Meta,
        NAME_TABLES_OF.as_bytes(),
        program(TABLES.as_slice()).unwrap_or_default().as_slice(),
    )?;
    transaction.put(Table::Meta, NAME_TABLES.as_bytes(), TABLES.as_slice())
}

/// Makes the keys of usernames anew if other tables made them, in time proportional to the number of users.
///
/// Nobody's key is taken away: a user whose new key belongs to somebody else keeps the old one, and is named in the log.
/// Of two users who come to share a key that neither has, the one who registered first gets it. A row always names the
/// keys that its user owns, so that giving up a name frees no one else's.
pub(super) fn follow_tables(engine: &Engine) -> Result<(), ReadError> {
    let meta = |name: &str| {
        engine.read(|view| Ok::<_, ReadError>(view.get(Table::Meta, name.as_bytes())?.map(|bytes| bytes.to_vec())))
    };
    let (found, of) = (meta(NAME_TABLES)?, meta(NAME_TABLES_OF)?);
    let same = found.as_deref().filter(|found| *found != UNDER_WAY).and_then(program);
    if same.is_some_and(|program| of.as_deref() == Some(program.as_slice())) {
        return Ok(());
    }
    if found.as_deref() == Some(TABLES.as_slice()) {
        return written(engine.write(mark));
    }
    tracing::info!("the keys of usernames were made with other tables of Unicode and are made anew");
    written(engine.write(|transaction| transaction.put(Table::Meta, NAME_TABLES.as_bytes(), UNDER_WAY)))?;
    loop {
        let pass = walk(engine)?;
        // Whoever moved may have left the key that somebody else was waiting for.
        if pass.moved > 0 && !pass.kept.is_empty() {
            continue;
        }
        for user in pass.unreadable {
            tracing::warn!(%user, "a user cannot be read, and a username that there may be keeps its old key");
        }
        for user in pass.kept {
            tracing::warn!(%user, "a username is no longer told apart as it was, and keeps its old key; rename the user");
        }
        return written(engine.write(mark));
    }
}

/// What one walk over all users did.
#[derive(Default)]
struct Pass {
    moved: usize,
    /// Who has keys that these tables would not make.
    kept: Vec<UserId>,
    /// Whose row cannot be read. It keeps nobody else out, and its keys stay its own.
    unreadable: Vec<UserId>,
}

/// What was read of the next users.
#[derive(Default)]
struct Page {
    /// The key of the last of them.
    last: Option<Vec<u8>>,
    /// Those whose name has other forms now.
    outdated: Vec<UserRow>,
    unreadable: Vec<UserId>,
}

fn walk(engine: &Engine) -> Result<Pass, ReadError> {
    let mut pass = Pass::default();
    let mut from = Vec::new();
    loop {
        let Page { last, outdated, unreadable } = engine.read(|view| page(view, &from))?;
        let Some(last) = last else { return Ok(pass) };
        from = [last.as_slice(), &[0]].concat();
        pass.unreadable.extend(unreadable);
        if outdated.is_empty() {
            continue;
        }
        let moved = engine.write(|transaction| {
            let mut done = Pass::default();
            for row in &outdated {
                let (moved, settled) = move_keys(transaction, row)?;
                done.moved = done.moved.saturating_add(usize::from(moved));
                done.kept.extend((!settled).then_some(row.id));
            }
            Ok(done)
        });
        let done = moved.map_err(|error| match error {
            CommitError::Aborted(error) => error,
            CommitError::Failed(error) => ReadError::from(error),
        })?;
        pass.moved = pass.moved.saturating_add(done.moved);
        pass.kept.extend(done.kept);
    }
}

fn page<V: View>(view: &V, from: &[u8]) -> Result<Page, ReadError> {
    let mut page = Page::default();
    for row in view.range(Table::Users, from, None)?.take(CHUNK) {
        let row = row?;
        page.last = Some(row.key().to_vec());
        match decode::<UserRow>(row.value()) {
            Ok(user) => {
                let is_current = user.username.as_ref().is_none_or(|name| forms(name).as_ref() == Some(name));
                page.outdated.extend((!is_current).then_some(user));
            }
            Err(_) => page.unreadable.push(UserId::from_bytes(KeyReader::new(row.key()).fixed()?)),
        }
    }
    Ok(page)
}

/// The name as these tables have it; nothing if they refuse it.
fn forms(name: &UsernameRow) -> Option<UsernameRow> {
    Username::parse(&name.original).ok().map(|name| UsernameRow::from(&name))
}

/// Moves the keys of a user that are free to be moved. Answers whether any was, and whether all are where they belong.
fn move_keys(transaction: &mut WriteView<'_>, user: &UserRow) -> Result<(bool, bool), ReadError> {
    let Some(before) = &user.username else { return Ok((false, true)) };
    let Some(now) = forms(before) else { return Ok((false, false)) };
    let mut name = before.clone();
    if take_key(transaction, user.id, (&UniqueKey::username(&before.canonical), &UniqueKey::username(&now.canonical)))?
    {
        name.canonical.clone_from(&now.canonical);
    }
    if take_key(transaction, user.id, (&UniqueKey::skeleton(&before.skeleton), &UniqueKey::skeleton(&now.skeleton)))? {
        name.skeleton.clone_from(&now.skeleton);
    }
    let (moved, settled) = (name != *before, name == now);
    if moved {
        let row = UserRow { username: Some(name), ..user.clone() };
        transaction.put(Table::Users, user.id.as_bytes(), &encode(&row)?)?;
    }
    Ok((moved, settled))
}

/// Gives a user one key for another, unless somebody else has it.
fn take_key(
    transaction: &mut WriteView<'_>,
    user: UserId,
    (old, new): (&UniqueKey, &UniqueKey),
) -> Result<bool, ReadError> {
    if transaction.owner(new)?.is_some_and(|owner| owner != user) {
        return Ok(false);
    }
    if transaction.owner(old)? == Some(user) {
        transaction.remove(Table::Unique, old.bytes())?;
    }
    transaction.put(Table::Unique, new.bytes(), user.as_bytes())?;
    Ok(true)
}

fn written<T>(outcome: Result<T, CommitError<super::redb::EngineError>>) -> Result<T, ReadError> {
    outcome.map_err(|error| match error {
        CommitError::Aborted(error) | CommitError::Failed(error) => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// What a new version of a library changes here, stores follow when they are opened: see `follow_tables`. Then pin
    /// the new hash, and say so in the changelog.
    #[test]
    fn the_tables_are_those_that_were_released_last() {
        let hash = TABLES.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        assert_eq!(hash, "4b8955f98d774c93612c7e8f4dd1cec0b287e027b433e89c25aea999ee66774d");
    }
}
