//! Reseal: credentials under an earlier master key, or none, are sealed under the current one without a login.

use futures_util::future::join_all;
use majordomo_model::{FlowId, UserId};

use super::flow::Services;
use crate::storage::{Batch, Check, CredentialRow, ReadCredential, Write};

/// How many credentials are looked at, and sealed, at once.
const CHUNK: usize = 256;
/// How many times so many one sweep looks at: 65,536 credentials.
const CHUNKS: usize = 256;

/// How far the credentials were looked through, from sweep to sweep.
#[derive(Debug, Default)]
pub(super) struct Resealing {
    after: Option<UserId>,
}

impl Resealing {
    /// Seals what is not sealed under the current key, in the order of users, until this sweep has done its part or
    /// `stop` says so. Nothing is told: the password is as it was, and so is the credential's revision, so that no flow
    /// which has read it decides again.
    pub(super) async fn go_on(&mut self, services: &Services, stop: impl Fn() -> bool) {
        for _ in 0..CHUNKS {
            // From memory: as a rule there is nothing to do.
            if services.reader.census().outdated(services.keys.current()) == 0 || stop() {
                return;
            }
            let chunk = match services.reader.credentials_after(self.after, CHUNK) {
                Ok(chunk) => chunk,
                Err(error) => return tracing::debug!(%error, "credentials are sealed anew later"),
            };
            let batches = chunk.iter().filter_map(|read| batch(services, read));
            let sealed = join_all(batches.map(|batch| services.storage.commit(batch))).await;
            if let Some(error) = sealed.into_iter().find_map(Result::err) {
                return tracing::debug!(?error, "credentials are sealed anew later");
            }
            self.after = chunk.last().map(|read| read.user);
            if self.after.is_none() {
                // Once through. What is left was written meanwhile behind this place, or no key opens it.
                return;
            }
        }
    }
}

/// The same credential for storage to seal; nothing if it is sealed well, or nobody can open it.
fn batch(services: &Services, read: &ReadCredential) -> Option<Batch> {
    let (user, stored) = (read.user, read.stored.as_ref()?);
    if stored.is_sealed_under(services.keys.current()) {
        return None;
    }
    let phc = stored.open(&services.keys, user)?;
    let row = CredentialRow { phc, revision: stored.revision, set_at: stored.set_at, norm: stored.norm };
    let mut checks = vec![Check::CredentialRevision(user, Some(stored.revision))];
    // Where a credential was removed, revisions begin anew, and epochs never do.
    checks.extend(read.epoch.map(|epoch| Check::Epoch(user, epoch)));
    Some(Batch {
        flow: FlowId::new(),
        outcome: None,
        checks,
        writes: vec![Write::PutCredential(user, row)],
        signals: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use majordomo_model::{AuthenticateReason, ChangePassword, Error, Import, Password};

    use super::super::Policy;
    use super::super::fixture::{Fixture, OTHER_PASSWORD, PASSWORD};
    use super::*;
    use crate::keys::Keyring;
    use crate::storage::{Location, Lookup, MemoryDisk, StoredCredential, UserRow, Verdict};

    /// Of `password`, as passlib's own tests have it.
    const IMPORTED: &str = "$argon2i$v=19$m=256,t=1,p=1$c29tZXNhbHQ$AJFIsNZTMKTAewB4+ETN1A";

    fn keys(newest_first: &[u8]) -> Keyring {
        Keyring::from_keys(newest_first.iter().map(|key| [*key; 32]).collect()).unwrap()
    }

    async fn over(location: &Location, newest_first: &[u8]) -> Fixture {
        Fixture::over(location.clone(), keys(newest_first), Policy::default()).await
    }

    fn stored(fixture: &Fixture, user: UserId) -> StoredCredential {
        fixture.services.reader.snapshot(|view| view.credential(user)).unwrap().unwrap()
    }

    fn outdated(fixture: &Fixture) -> u64 {
        fixture.services.reader.census().outdated(fixture.services.keys.current())
    }

    /// Ten thousand credentials of users who are not there.
    async fn fill(fixture: &Fixture) {
        let row = |number: u64| {
            let row = CredentialRow::new(format!("$argon2id$m=8${number}"), 3, fixture.clock.now());
            Write::PutCredential(UserId::from_bytes((u128::from(number) << 64).to_be_bytes()), row)
        };
        fixture.write(Vec::new(), (0..10_000).map(row).collect()).await;
    }

    #[tokio::test]
    async fn after_a_rotation_every_credential_is_sealed_anew_without_a_login_a_signal_or_a_new_revision() {
        let location = Location::Memory(MemoryDisk::new());
        let fixture = over(&location, &[1]).await;
        let user = fixture.register("ada", None, None).await.user;
        fill(&fixture).await;
        let before = stored(&fixture, user);
        fixture.services.storage.release();

        let fixture = over(&location, &[2, 1]).await;
        fixture.session("ada").await;
        let head = fixture.head();
        assert_eq!(outdated(&fixture), 10_001);
        let (transactions, batches) =
            (|| fixture.services.storage.observe().transactions, || fixture.services.storage.observe().batches);
        let (had_transactions, had_batches) = (transactions(), batches());
        let mut resealing = Resealing::default();
        // Told to stop after ten chunks.
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == 10;
        resealing.go_on(&fixture.services, stop).await;
        assert_eq!(outdated(&fixture), 10_001 - 10 * CHUNK as u64);
        resealing.go_on(&fixture.services, || false).await;
        assert_eq!((outdated(&fixture), batches() - had_batches), (0, 10_001), "each is written once");
        assert!(transactions() - had_transactions >= 40, "in chunks");
        resealing.go_on(&fixture.services, || false).await;
        assert_eq!((batches() - had_batches, fixture.head()), (10_001, head));
        let after = stored(&fixture, user);
        assert!(after.is_sealed_under(fixture.services.keys.current()) && after != before);
        assert_eq!((after.revision, after.set_at), (before.revision, before.set_at));
        fixture.session("ada").await;
        fixture.services.storage.release();

        // The earlier key opens nothing any more.
        assert_eq!(after.open(&keys(&[1]), user), None);
        assert!(after.open(&keys(&[2]), user).is_some_and(|phc| phc.starts_with("$argon2id$")));
    }

    #[tokio::test]
    async fn a_password_that_is_changed_meanwhile_stays_and_a_change_that_began_before_goes_on() {
        let location = Location::Memory(MemoryDisk::new());
        let user = {
            let fixture = over(&location, &[1]).await;
            let user = fixture.register("ada", None, None).await.user;
            fixture.services.storage.release();
            user
        };
        let fixture = over(&location, &[2, 1]).await;
        let current = fixture.services.keys.current();
        let sealing = sealing(&fixture);
        let (current_password, new) = (Password::new(PASSWORD), Password::new(OTHER_PASSWORD));
        fixture.run(ChangePassword { user, current: current_password, new, keep: None }).await.unwrap();
        let conflicts = || fixture.services.storage.observe().conflicts;
        let before = conflicts();
        fixture.services.storage.commit(sealing).await.unwrap();
        assert_eq!(conflicts() - before, 1);
        assert!(stored(&fixture, user).is_sealed_under(current));
        fixture.sign_in_with("ada", OTHER_PASSWORD).await.unwrap();
        // What was read before a sealing is still what it was.
        let read = stored(&fixture, user);
        let again = CredentialRow {
            phc: read.open(&fixture.services.keys, user).unwrap(),
            revision: read.revision,
            set_at: read.set_at,
            norm: read.norm,
        };
        fixture.write(Vec::new(), vec![Write::PutCredential(user, again)]).await;
        fixture.write(vec![Check::CredentialRevision(user, Some(read.revision))], Vec::new()).await;
    }

    /// What seals the one credential that there is.
    fn sealing(fixture: &Fixture) -> Batch {
        let [read] = fixture.services.reader.credentials_after(None, CHUNK).unwrap().try_into().ok().unwrap();
        batch(&fixture.services, &read).unwrap()
    }

    /// A rehash leaves the epoch, and what it replaced may be of a weak family.
    #[tokio::test]
    async fn a_password_that_is_hashed_anew_meanwhile_does_not_become_the_old_hash_again() {
        let location = Location::Memory(MemoryDisk::new());
        let user = {
            let fixture = over(&location, &[1]).await;
            let import = Import { username: Some("ada".to_owned()), ..Import::new(IMPORTED) };
            let user = fixture.run(import).await.unwrap().user;
            fixture.services.storage.release();
            user
        };
        let fixture = over(&location, &[2, 1]).await;
        let sealing = sealing(&fixture);
        fixture.sign_in_with("ada", "password").await.unwrap();
        fixture.rehash().await;
        let anew = stored(&fixture, user);
        assert_eq!(anew.revision, 2);
        assert!(matches!(fixture.services.storage.commit(sealing).await, Ok(Verdict::Conflict)));
        assert!(stored(&fixture, user) == anew);
    }

    /// As after an undone change, which removes the credential: the next one has the revision of the first again.
    #[tokio::test]
    async fn a_password_that_is_set_in_a_later_epoch_stays_though_its_revision_is_the_same() {
        let location = Location::Memory(MemoryDisk::new());
        let user = {
            let fixture = over(&location, &[1]).await;
            let user = fixture.register("ada", None, None).await.user;
            fixture.services.storage.release();
            user
        };
        let fixture = over(&location, &[2, 1]).await;
        let sealing = sealing(&fixture);
        let row = fixture.user(user);
        let later = UserRow { version: row.version + 1, epoch: row.epoch + 1, ..row };
        let new = CredentialRow::new("another hash", 1, fixture.clock.now());
        let writes = vec![Write::PutUser(Box::new(later)), Write::PutCredential(user, new)];
        fixture.write(Vec::new(), writes).await;
        let set = stored(&fixture, user);
        assert!(matches!(fixture.services.storage.commit(sealing).await, Ok(Verdict::Conflict)));
        assert!(stored(&fixture, user) == set);
    }

    #[tokio::test]
    async fn what_no_key_opens_is_malformed_to_whoever_signs_in_and_holds_up_nobody_else() {
        let location = Location::Memory(MemoryDisk::new());
        let fixture = over(&location, &[2, 1]).await;
        let eve = fixture.register("eve", None, None).await.user;
        fixture.services.storage.release();
        // The database is recognised by the key that made it; the one that sealed the credential is gone.
        let fixture = over(&location, &[3, 2]).await;
        assert!(stored(&fixture, eve).open(&fixture.services.keys, eve).is_some());
        fixture.services.storage.release();
        let mut fixture = over(&location, &[3, 2]).await;
        fixture.services.keys = keys(&[3]);
        let head = fixture.head();
        let refused = fixture.sign_in("eve").await.unwrap_err();
        assert_eq!(refused, Error::Refused(AuthenticateReason::InvalidCredentials));
        let told = fixture.services.reader.signals_after(head, 10).unwrap();
        let is_malformed = |signal: &majordomo_model::Signal| {
            let reason = majordomo_model::Failure::MalformedHash;
            *signal == majordomo_model::Signal::UserPasswordCheckFailed { user: eve, reason }
        };
        assert!(told.iter().any(|told| is_malformed(&told.signal)));
        let mut resealing = Resealing::default();
        for _ in 0..3 {
            resealing.go_on(&fixture.services, || false).await;
        }
        assert_eq!(outdated(&fixture), 1, "it is left as it is");
    }
}
