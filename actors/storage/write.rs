//! The changes of rows, one by one, with the indexes that go with them.

use majordomo_model::{CommandId, SessionId, SignalId, Timestamp, TokenId, UserId};
use serde::Serialize;

use super::batch::Write;
use super::change::{self, ChangeRow};
use super::lookup::{Lookup, ReadError, UniqueKey, claim_key, indexed_token, projection_key, token_index};
use super::message::MessagesRow;
use super::redb::{View, WriteView};
use super::row::{ActivityRow, AppliedRow, DeliveryState, SessionRow, TokenRow, UserRow, encode};
use super::table::{Key, KeyReader, Table, prefix_end};
use super::{credential, dispatch, letter, limit, texts};
use crate::keys::Keyring;

/// How long a token's row outlives the token, so that a second click on a used link can be told so.
const TOKEN_REMEMBERED: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// What kind of row an entry of the expiry table is about; part of the file, never renumbered.
///
/// It comes first in the key: what waits for its flow (accounts that were never verified) must not stand in the way of
/// what the sweeper removes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiring {
    Token = 1,
    Session = 2,
    Attempt = 3,
    Applied = 4,
    Verification = 5,
    Dispatch = 6,
    Messages = 7,
    Change = 8,
    Limit = 9,
}

/// Marks the entries that lead from a user to the time of their [`Expiring::Verification`] entry.
const VERIFICATION_OF: u8 = 128;

pub(super) fn apply(transaction: &mut WriteView<'_>, write: &Write, keys: &Keyring) -> Result<(), ReadError> {
    match write {
        Write::PutUser(row) => put(transaction, Table::Users, row.id.as_bytes(), row),
        Write::RemoveUser(user) => remove_user(transaction, *user),
        Write::PutCredential(user, row) => credential::put(transaction, keys, *user, row),
        Write::RemoveCredential(user) => credential::remove(transaction, *user),
        Write::PutOwner(key, user) => Ok(transaction.put(Table::Unique, key.bytes(), user.as_bytes())?),
        Write::RemoveOwner(key) => remove(transaction, Table::Unique, key.bytes()),
        Write::PutClaim(channel, address, user) => {
            Ok(transaction.put(Table::Claims, &claim_key(*channel, address, *user)?, &[])?)
        }
        Write::RemoveClaim(channel, address, user) => {
            remove(transaction, Table::Claims, &claim_key(*channel, address, *user)?)
        }
        Write::ExpectVerification(user, at) => expect_verification(transaction, *user, *at),
        Write::ForgetVerification(user) => forget_verification(transaction, *user),
        Write::PutChange(row) => put_change(transaction, row),
        Write::RemoveChange(user, version) => remove_change(transaction, *user, *version),
        Write::PutToken(row) => put_token(transaction, row),
        Write::EndToken(token, end) => change_token(transaction, *token, |row| row.end = Some(*end)),
        Write::CountAttempt(token) => {
            change_token(transaction, *token, |row| row.attempts = row.attempts.saturating_add(1))
        }
        Write::EndDelivery(token, state) => change_token(transaction, *token, |row| row.delivered = *state),
        Write::PutMessages(subject, row) => put_messages(transaction, subject, row),
        Write::PutSession(hash, row) => put_session(transaction, hash, row),
        Write::RemoveSession(hash) => remove_session(transaction, hash),
        Write::RemoveSessionsOf(user, keep) => remove_sessions(transaction, *user, *keep),
        Write::TouchSession(hash, at) => touch_session(transaction, hash, *at),
        Write::RecordLogin(user, at) => record_login(transaction, *user, *at),
        Write::RecordFailure(subject, at, keep) => limit::record_failure(transaction, subject, *at, at.plus(*keep)),
        Write::PutAttempts(subject, row) => limit::put_attempts(transaction, subject, row),
        Write::ClearFailures(subject) => limit::clear_failures(transaction, subject),
        Write::Spend { key, at, cost, most } => limit::spend(transaction, key, *at, *cost, *most),
        Write::CountText(region, at, event) => texts::count(transaction, region, *at, *event),
        Write::PutTexts(region, row) => texts::put(transaction, region, row),
        Write::PutCursor(subscription, row) => put(transaction, Table::Cursors, subscription.as_bytes(), row),
        Write::RemoveCursor(subscription) => remove(transaction, Table::Cursors, subscription.as_bytes()),
        Write::PutProjection(subscription, generation, key, value) => {
            Ok(transaction.put(Table::Projections, &projection_key(subscription, *generation, key)?, value)?)
        }
        Write::RemoveProjection(subscription, generation, key) => {
            remove(transaction, Table::Projections, &projection_key(subscription, *generation, key)?)
        }
        Write::DropProjection(subscription, generation, limit) => {
            let space = projection_key(subscription, *generation, &[])?;
            remove_range(transaction, Table::Projections, &space, prefix_end(&space).as_deref(), *limit)
        }
        Write::PutLetter(subscription, seq, row) => letter::put(transaction, subscription, *seq, row),
        Write::RemoveLetter(subscription, seq) => letter::remove(transaction, subscription, *seq),
        Write::PutDispatch(signal, row) => dispatch::put(transaction, *signal, row),
        Write::Sweep(now, limit) => sweep(transaction, *now, *limit),
        Write::PruneLog(seq, limit) => super::log::prune(transaction, *seq, *limit),
    }
}

/// Stores the outcome of a command, in the place of an earlier one.
pub(super) fn remember(
    transaction: &mut WriteView<'_>,
    command: CommandId,
    earlier: Option<&AppliedRow>,
    row: &AppliedRow,
) -> Result<(), ReadError> {
    if let Some(earlier) = earlier {
        forget(transaction, earlier.expires_at, Expiring::Applied, command.as_bytes())?;
    }
    expire(transaction, row.expires_at, Expiring::Applied, command.as_bytes())?;
    put(transaction, Table::Applied, command.as_bytes(), row)
}

fn put<T: Serialize>(transaction: &mut WriteView<'_>, table: Table, key: &[u8], row: &T) -> Result<(), ReadError> {
    Ok(transaction.put(table, key, &encode(row)?)?)
}

fn remove(transaction: &mut WriteView<'_>, table: Table, key: &[u8]) -> Result<(), ReadError> {
    transaction.remove(table, key)?;
    Ok(())
}

fn expiry_key(at: Timestamp, kind: Expiring, id: &[u8]) -> Vec<u8> {
    let mut key = Key::new().u8(kind as u8).i64(at.as_micros()).into_bytes();
    key.extend_from_slice(id);
    key
}

/// Notes that what a row is about ends at this time.
pub(super) fn expire(
    transaction: &mut WriteView<'_>,
    at: Timestamp,
    kind: Expiring,
    id: &[u8],
) -> Result<(), ReadError> {
    Ok(transaction.put(Table::Expiry, &expiry_key(at, kind, id), &[])?)
}

/// Takes the note back.
pub(super) fn forget(
    transaction: &mut WriteView<'_>,
    at: Timestamp,
    kind: Expiring,
    id: &[u8],
) -> Result<(), ReadError> {
    remove(transaction, Table::Expiry, &expiry_key(at, kind, id))
}

/// The keys that start with a prefix, read before anything is removed.
fn keys_under(transaction: &WriteView<'_>, table: Table, prefix: &[u8]) -> Result<Vec<Vec<u8>>, ReadError> {
    transaction.prefix(table, prefix)?.map(|row| Ok(row?.key().to_vec())).collect()
}

fn verification_index(user: UserId) -> Key {
    Key::new().u8(VERIFICATION_OF).fixed(user.as_bytes())
}

fn expect_verification(transaction: &mut WriteView<'_>, user: UserId, at: Timestamp) -> Result<(), ReadError> {
    forget_verification(transaction, user)?;
    transaction.put(Table::Expiry, &verification_index(user), &Key::new().i64(at.as_micros()))?;
    expire(transaction, at, Expiring::Verification, user.as_bytes())
}

fn forget_verification(transaction: &mut WriteView<'_>, user: UserId) -> Result<(), ReadError> {
    let index = verification_index(user);
    let at = transaction.get(Table::Expiry, &index)?.map(|at| KeyReader::new(&at).i64()).transpose()?;
    let Some(at) = at else { return Ok(()) };
    forget(transaction, Timestamp::from_micros(at), Expiring::Verification, user.as_bytes())?;
    remove(transaction, Table::Expiry, &index)
}

/// Frees what is unique to a user, as far as it still is theirs, and their claims.
fn remove_names(transaction: &mut WriteView<'_>, row: &UserRow) -> Result<(), ReadError> {
    let mut names = Vec::new();
    if let Some(username) = &row.username {
        names.push(UniqueKey::username(&username.canonical));
        names.push(UniqueKey::skeleton(&username.skeleton));
    }
    for contact in &row.contacts {
        names.push(UniqueKey::address(contact.channel, &contact.canonical));
        remove(transaction, Table::Claims, &claim_key(contact.channel, &contact.canonical, row.id)?)?;
    }
    for name in names {
        if transaction.owner(&name)? == Some(row.id) {
            remove(transaction, Table::Unique, name.bytes())?;
        }
    }
    Ok(())
}

fn remove_user(transaction: &mut WriteView<'_>, user: UserId) -> Result<(), ReadError> {
    if let Some(row) = transaction.user(user)? {
        remove_names(transaction, &row)?;
    }
    forget_verification(transaction, user)?;
    for key in keys_under(transaction, Table::TokensByUser, user.as_bytes())? {
        let id = indexed_token(user, &key)?;
        if let Some(token) = transaction.token(id)? {
            forget(transaction, token.expires_at.plus(TOKEN_REMEMBERED), Expiring::Token, id.as_bytes())?;
        }
        remove(transaction, Table::Tokens, id.as_bytes())?;
        remove(transaction, Table::TokensByUser, &key)?;
    }
    for row in transaction.changes_of(user)? {
        remove_change(transaction, user, row.version)?;
    }
    remove_sessions(transaction, user, None)?;
    credential::remove(transaction, user)?;
    remove(transaction, Table::Activity, user.as_bytes())?;
    remove(transaction, Table::Users, user.as_bytes())
}

fn put_change(transaction: &mut WriteView<'_>, row: &ChangeRow) -> Result<(), ReadError> {
    expire(transaction, row.expires_at, Expiring::Change, &row.subject())?;
    change::put(transaction, row)
}

fn remove_change(transaction: &mut WriteView<'_>, user: UserId, version: u64) -> Result<(), ReadError> {
    let Some(row) = change::remove(transaction, user, version)? else { return Ok(()) };
    forget(transaction, row.expires_at, Expiring::Change, &row.subject())
}

fn put_token(transaction: &mut WriteView<'_>, row: &TokenRow) -> Result<(), ReadError> {
    if let Some(earlier) = transaction.token(row.id)? {
        move_in_index(transaction, &earlier, row)?;
    } else if let Some(key) = token_index(row) {
        transaction.put(Table::TokensByUser, &key, &[])?;
    }
    expire(transaction, row.expires_at.plus(TOKEN_REMEMBERED), Expiring::Token, row.id.as_bytes())?;
    put(transaction, Table::Tokens, row.id.as_bytes(), row)
}

fn change_token(
    transaction: &mut WriteView<'_>,
    token: TokenId,
    change: impl FnOnce(&mut TokenRow),
) -> Result<(), ReadError> {
    let Some(before) = transaction.token(token)? else { return Ok(()) };
    let mut row = before.clone();
    change(&mut row);
    move_in_index(transaction, &before, &row)?;
    put(transaction, Table::Tokens, token.as_bytes(), &row)
}

/// Keeps the index of a user's tokens in the order of their stages.
fn move_in_index(transaction: &mut WriteView<'_>, before: &TokenRow, after: &TokenRow) -> Result<(), ReadError> {
    let (old, new) = (token_index(before), token_index(after));
    if old == new {
        return Ok(());
    }
    if let Some(old) = old {
        remove(transaction, Table::TokensByUser, &old)?;
    }
    new.map_or(Ok(()), |new| Ok(transaction.put(Table::TokensByUser, &new, &[])?))
}

fn remove_token(transaction: &mut WriteView<'_>, token: TokenId) -> Result<(), ReadError> {
    if let Some(key) = transaction.token(token)?.as_ref().and_then(token_index) {
        remove(transaction, Table::TokensByUser, &key)?;
    }
    remove(transaction, Table::Tokens, token.as_bytes())
}

fn session_index(user: UserId, session: SessionId) -> Key {
    Key::new().fixed(user.as_bytes()).fixed(session.as_bytes())
}

fn put_session(transaction: &mut WriteView<'_>, hash: &[u8; 32], row: &SessionRow) -> Result<(), ReadError> {
    transaction.put(Table::Activity, &session_index(row.user, row.id), hash)?;
    expire(transaction, row.expires_at, Expiring::Session, hash)?;
    put(transaction, Table::Sessions, hash, row)
}

fn remove_session(transaction: &mut WriteView<'_>, hash: &[u8; 32]) -> Result<(), ReadError> {
    let Some(row) = transaction.session(hash)? else { return Ok(()) };
    remove(transaction, Table::Activity, &session_index(row.user, row.id))?;
    forget(transaction, row.expires_at, Expiring::Session, hash)?;
    remove(transaction, Table::Sessions, hash)
}

fn remove_sessions(transaction: &mut WriteView<'_>, user: UserId, keep: Option<SessionId>) -> Result<(), ReadError> {
    for (hash, session) in transaction.sessions_of(user)? {
        if Some(session.id) != keep {
            remove_session(transaction, &hash)?;
        }
    }
    Ok(())
}

fn touch_session(transaction: &mut WriteView<'_>, hash: &[u8; 32], at: Timestamp) -> Result<(), ReadError> {
    let Some(mut row) = transaction.session(hash)? else { return Ok(()) };
    row.last_seen_at = row.last_seen_at.max(at);
    put(transaction, Table::Sessions, hash, &row)
}

fn record_login(transaction: &mut WriteView<'_>, user: UserId, at: Timestamp) -> Result<(), ReadError> {
    let earlier = transaction.activity(user)?.unwrap_or_default();
    let row =
        ActivityRow { last_login_at: earlier.last_login_at.max(Some(at)), logins: earlier.logins.saturating_add(1) };
    put(transaction, Table::Activity, user.as_bytes(), &row)
}

fn put_messages(transaction: &mut WriteView<'_>, subject: &[u8; 32], row: &MessagesRow) -> Result<(), ReadError> {
    if let Some(earlier) = transaction.messages(subject)? {
        forget(transaction, earlier.expires_at, Expiring::Messages, subject)?;
    }
    expire(transaction, row.expires_at, Expiring::Messages, subject)?;
    put(transaction, Table::Messages, subject, row)
}

/// The entries of a kind whose time is over, the earliest first, at most so many: each with its time and key.
fn due<V: View>(
    view: &V,
    kind: Expiring,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, Vec<u8>)>, ReadError> {
    let from = Key::new().u8(kind as u8);
    let end = Key::new().u8(kind as u8).i64(now.as_micros());
    let mut due = Vec::new();
    for row in view.range(Table::Expiry, &from, Some(&*end))?.take(limit) {
        let row = row?;
        let mut reader = KeyReader::new(row.key());
        reader.u8()?;
        due.push((Timestamp::from_micros(reader.i64()?), row.key().to_vec()));
    }
    Ok(due)
}

/// What an entry of the expiry table is about.
fn subject<const WIDTH: usize>(key: &[u8]) -> Result<[u8; WIDTH], ReadError> {
    let mut reader = KeyReader::new(key);
    reader.u8()?;
    reader.i64()?;
    Ok(reader.fixed()?)
}

/// Removes what has ended. Accounts that were never verified are left for their flow, and tokens whose message is
/// still due for whoever ends their delivery: there are signals to tell.
fn sweep(transaction: &mut WriteView<'_>, now: Timestamp, limit: usize) -> Result<(), ReadError> {
    use Expiring::{Applied, Attempt, Change, Dispatch, Limit, Messages, Session, Token, Verification};

    let (mut left, oldest) = (limit, super::log::oldest(transaction)?);
    for kind in [Token, Session, Attempt, Applied, Dispatch, Messages, Change, Limit] {
        for (_, key) in due(transaction, kind, now, left)? {
            match kind {
                Token if due_token(transaction, &key)?.is_some() => continue,
                Token => remove_token(transaction, TokenId::from_bytes(subject(&key)?))?,
                Session => remove_session(transaction, &subject(&key)?)?,
                Attempt => remove(transaction, Table::Attempts, &subject::<32>(&key)?)?,
                Applied => remove(transaction, Table::Applied, &subject::<16>(&key)?)?,
                Change => {
                    let (user, version) = change::named(&subject::<24>(&key)?)?;
                    change::remove(transaction, user, version)?;
                }
                Dispatch => {
                    dispatch::sweep(transaction, SignalId::from_bytes(subject(&key)?), oldest, now)?;
                }
                Messages => remove(transaction, Table::Messages, &subject::<32>(&key)?)?,
                Limit => limit::sweep(transaction, &subject::<32>(&key)?, now)?,
                Verification => continue,
            }
            remove(transaction, Table::Expiry, &key)?;
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

/// The token that an entry is about, if its message is neither sent nor given up.
fn due_token<V: View>(view: &V, key: &[u8]) -> Result<Option<TokenRow>, ReadError> {
    let token = view.token(TokenId::from_bytes(subject(key)?))?;
    Ok(token.filter(|row| row.user.is_some() && row.delivered == DeliveryState::Pending))
}

/// Tokens whose row would go by now, were it not that their message is neither sent nor given up.
pub(super) fn undelivered<V: View>(view: &V, now: Timestamp, limit: usize) -> Result<Vec<TokenRow>, ReadError> {
    let entries = due(view, Expiring::Token, now, limit)?;
    entries.iter().filter_map(|(_, key)| due_token(view, key).transpose()).collect()
}

/// Removes the rows from `from` to before `end`, at most so many.
fn remove_range(
    transaction: &mut WriteView<'_>,
    table: Table,
    from: &[u8],
    end: Option<&[u8]>,
    limit: usize,
) -> Result<(), ReadError> {
    let keys: Vec<Vec<u8>> = transaction
        .range(table, from, end)?
        .take(limit)
        .map(|row| Ok::<_, ReadError>(row?.key().to_vec()))
        .collect::<Result<_, _>>()?;
    for key in keys {
        remove(transaction, table, &key)?;
    }
    Ok(())
}

/// Accounts whose time to verify an address is over, which their flow deletes.
pub(super) fn never_verified<V: View>(
    view: &V,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(UserId, Timestamp)>, ReadError> {
    let entries = due(view, Expiring::Verification, now, limit)?;
    entries.into_iter().map(|(at, key)| Ok((UserId::from_bytes(subject(&key)?), at))).collect()
}
