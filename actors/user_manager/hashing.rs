//! Hashing: how a run asks the hasher, and how long its commit may wait for company after that.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::flow::{Perform, Run};
use crate::hasher::{Claim, HashError, PhcString, Place, Presented, Verified};

/// What part of the time in line a commit may wait beyond it.
const PART: u32 = 10;
/// How long a commit waits at most.
const LIMIT: Duration = Duration::from_millis(100);

impl<F: Perform> Run<'_, F> {
    /// Asks for a new hash.
    pub(super) async fn hash(&self, password: Zeroizing<Vec<u8>>) -> Result<PhcString, HashError> {
        self.timed(self.services.hasher.hash_at(self.place(), password, self.deadline)).await
    }

    /// Asks for a new hash that nobody waits for.
    pub(super) async fn rehash(&self, password: Zeroizing<Vec<u8>>) -> Result<PhcString, HashError> {
        self.timed(self.services.hasher.rehash_at(self.place(), password, self.deadline)).await
    }

    /// Has a password compared with a stored hash, or with a decoy, which costs what the seed draws from the costs of
    /// stored hashes: always the same, as long as their shares are.
    pub(super) async fn verify(
        &self,
        password: Presented,
        stored: Option<Zeroizing<String>>,
        decoy: [u8; 32],
    ) -> Result<Verified, HashError> {
        let class = self.services.reader.census().draw(&decoy).map(str::to_owned);
        let claim = Claim { password, stored, decoy, class };
        self.timed(self.services.hasher.verify_at(self.place(), claim, self.deadline)).await
    }

    fn place(&self) -> Option<Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn timed<T>(&self, asked: impl Future<Output = Result<T, HashError>>) -> Result<T, HashError> {
        let begun = Instant::now();
        let answer = asked.await?;
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.hashing_micros.fetch_add(micros, Ordering::Relaxed);
        Ok(answer)
    }

    /// How long the commit may wait for those that are about to come: not at all but for who was in a line at the
    /// hasher, where others stand behind. Each transaction that they share is time for a part of another hash.
    pub(super) fn patience(&self) -> Duration {
        let took = Duration::from_micros(self.hashing_micros.load(Ordering::Relaxed));
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        patience(took, self.services.hasher.last_wait(), left)
    }
}

/// A small part of what the hasher took, if those behind wait as long, and no deadline is near. Below what timers tell
/// apart it is none.
fn patience(took: Duration, line: Duration, left: Option<Duration>) -> Duration {
    let patience = (took.min(line) / PART).min(LIMIT);
    let is_close = left.is_some_and(|left| left < patience * 2);
    if is_close || patience < Duration::from_millis(1) { Duration::ZERO } else { patience }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use majordomo_model::{
        Authenticate, ChangePassword, Delete, Import, ImportedAddress, LogOut, Password, Register, ResetPassword,
        TokenPurpose, UndoChange, UserId,
    };

    use super::super::Policy;
    use super::super::fixture::{Fixture, NOW, OTHER_PASSWORD, PASSWORD};
    use super::super::reseal::Resealing;
    use super::*;
    use crate::hasher::HashParameters;
    use crate::keys::Keyring;
    use crate::storage::{Census, CredentialRow, Location, Lookup, MemoryDisk, Write};

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_commit_waits_a_small_part_of_what_its_run_waited_in_line() {
        let whole = |took: u64, line: u64| patience(millis(took), millis(line), None).as_millis();
        assert_eq!([0, 9, 10, 400, 1_000, 60_000].map(|took| whole(took, 60_000)), [0, 0, 1, 40, 100, 100]);
        assert_eq!([0, 9, 10, 400, 1_000].map(|line| whole(60_000, line)), [0, 0, 1, 40, 100], "the line is gone");
        let near = |left| patience(millis(1_000), millis(1_000), Some(millis(left)));
        assert_eq!([near(199), near(200)], [Duration::ZERO, millis(100)], "the caller would not wait for it");
    }

    fn log_in() -> Authenticate {
        Authenticate { identifier: "ada".to_owned(), password: Password::new(PASSWORD) }
    }

    fn until(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
        let yielding = async move {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        async { tokio::time::timeout(Duration::from_secs(3_600), yielding).await.unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn runs_that_stood_in_line_share_a_transaction_and_what_never_hashed_ends_their_wait() {
        let fixture = Arc::new(Fixture::new().await);
        fixture.register("ada", None, None).await;
        let open = fixture.run(log_in()).await.unwrap();
        // As long as it is busy, the clock stands still.
        let (release, busy) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || busy.recv());
        let transactions = || fixture.services.storage.observe().transactions;
        for round in 0..2 {
            fixture.services.hasher.hold(true);
            let mut runs = tokio::task::JoinSet::new();
            for _ in 0..4 {
                let fixture = Arc::clone(&fixture);
                runs.spawn(async move { fixture.run(log_in()).await.is_ok() });
            }
            let register = Register { username: Some(format!("user{round}")), ..Register::new(PASSWORD) };
            let registering = Arc::clone(&fixture);
            runs.spawn(async move { registering.run(register).await.is_ok() });
            until(|| fixture.services.hasher.observe().queued == 5).await;
            tokio::time::advance(millis(1_000)).await;
            let before = transactions();
            fixture.services.hasher.hold(false);
            until(|| fixture.services.storage.observe().queued == 5).await;
            assert_eq!(transactions(), before, "they wait");
            if round == 0 {
                tokio::time::advance(LIMIT).await;
            } else {
                fixture.run(LogOut { token: open.token.clone() }).await.unwrap();
            }
            assert!(runs.join_all().await.into_iter().all(|went_well| went_well));
            assert_eq!(transactions(), before + 1);
        }
        drop(release);
        busy.await.unwrap().unwrap_err();
    }

    const OLD: HashParameters = HashParameters { memory_kib: 72, passes: 1, lanes: 1 };

    fn credential(number: u8, parameters: HashParameters, revision: u64) -> Write {
        credential_of(UserId::from_bytes([number; 16]), parameters, revision)
    }

    fn credential_of(user: UserId, parameters: HashParameters, revision: u64) -> Write {
        let HashParameters { memory_kib, passes, lanes } = parameters;
        let tag = "c29tZXNhbHRzb21lc2FsdA$eP4eyR+zqlZX1y5xCFTkw9m5GYx0L5YWwvCFvtlbLow";
        let phc = format!("$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${tag}");
        let row = CredentialRow::new(phc, revision, NOW);
        Write::PutCredential(user, row)
    }

    /// How many hashes were computed with these parameters.
    fn computed(fixture: &Fixture, parameters: HashParameters) -> u64 {
        fixture
            .services
            .hasher
            .computed()
            .into_iter()
            .find(|(known, _)| *known == parameters)
            .map_or(0, |(_, count)| count)
    }

    async fn knock(fixture: &Fixture, name: &str) -> bool {
        let before = (computed(fixture, OLD), computed(fixture, HashParameters::cheap_for_tests()));
        fixture.sign_in_with(name, "a password that is wrong").await.unwrap_err();
        let after = (computed(fixture, OLD), computed(fixture, HashParameters::cheap_for_tests()));
        assert_eq!(after.0 + after.1, before.0 + before.1 + 1, "one job, under parameters that are stored");
        after.0 > before.0
    }

    #[tokio::test]
    async fn decoys_cost_what_stored_hashes_cost_in_their_shares_and_one_name_always_the_same() {
        let new = HashParameters::cheap_for_tests();
        let (location, keys) = (Location::Memory(MemoryDisk::new()), Keyring::from_keys(vec![[1; 32]]).unwrap());
        let fixture = Fixture::over(location, keys, Policy::default()).await;
        assert!(!knock(&fixture, "nobody").await, "there is nothing to be like: as a new hash");
        fixture.write(Vec::new(), (0..100).map(|number| credential(number, new, 1)).collect()).await;
        assert!(!knock(&fixture, "nobody").await, "all are alike");
        fixture.write(Vec::new(), (0..70).map(|number| credential(number, OLD, 2)).collect()).await;
        let names: Vec<_> = (0..1_000).map(|number| format!("nobody.{number}")).collect();
        let mut drawn = Vec::new();
        for name in &names {
            drawn.push(knock(&fixture, name).await);
        }
        // 1,000 draws of 70 %: four standard deviations of 14.5 to each side. With these keys it is always the same.
        let old = drawn.iter().filter(|old| **old).count();
        assert!((642..=758).contains(&old), "{old} of 1,000");
        for (name, old) in names.iter().zip(&drawn).take(100) {
            assert_eq!(knock(&fixture, name).await, *old, "{name}");
        }
        // Who signs in and is hashed anew, and who goes, moves the shares: nobody is as before who was new.
        fixture.write(Vec::new(), (0..40).map(|number| credential(number, new, 3)).collect()).await;
        let is_gone = |number: u8| Write::RemoveCredential(UserId::from_bytes([number; 16]));
        fixture.write(Vec::new(), (40..70).map(is_gone).collect()).await;
        for name in names.iter().take(50) {
            assert!(!knock(&fixture, name).await);
        }
    }

    /// Of `password`, at costs of its own.
    fn argon2_of_another_system(parameters: HashParameters) -> String {
        use argon2::{Algorithm, Argon2, Params, Version};

        let HashParameters { memory_kib, passes, lanes } = parameters;
        let (params, mut tag) = (Params::new(memory_kib, passes, lanes, None).unwrap(), [0; 32]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(b"password", &[7; 16], &mut tag).unwrap();
        let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, bytes);
        let costs = format!("m={memory_kib},t={passes},p={lanes}");
        format!("$argon2id$v=19${costs}${}${}", encode(&[7; 16]), encode(&tag))
    }

    #[tokio::test]
    async fn decoys_cost_what_imported_argon2_costs_in_its_share() {
        let (location, keys) = (Location::Memory(MemoryDisk::new()), Keyring::from_keys(vec![[1; 32]]).unwrap());
        let fixture = Fixture::over(location, keys, Policy::default()).await;
        let text = argon2_of_another_system(OLD);
        for number in 0..70 {
            // As it comes from most systems, and as Django stores it.
            let hash = if number % 2 == 0 { text.clone() } else { format!("argon2{text}") };
            let import = Import { username: Some(format!("imported.{number}")), ..Import::new(hash) };
            fixture.run(import).await.unwrap();
        }
        assert!(knock(&fixture, "imported.7").await && knock(&fixture, "nobody").await, "all are of these costs");
        let new = HashParameters::cheap_for_tests();
        fixture.write(Vec::new(), (0..30).map(|number| credential(number, new, 1)).collect()).await;
        assert!(knock(&fixture, "imported.7").await);
        let mut old = 0;
        for number in 0..1_000 {
            old += u32::from(knock(&fixture, &format!("nobody.{number}")).await);
        }
        // As above.
        assert!((642..=758).contains(&old), "{old} of 1,000");
        // The first login puts a hash of ours in its place, and moves the shares.
        let of_old = |fixture: &Fixture| fixture.services.reader.census().classes().first().map(|class| class.1);
        assert_eq!(of_old(&fixture), Some(30));
        fixture.sign_in_with("imported.7", "password").await.unwrap();
        fixture.rehash().await;
        assert_eq!(of_old(&fixture), Some(31));
    }

    #[cfg(feature = "foreign-hashes")]
    #[tokio::test]
    async fn a_right_password_that_lets_nobody_in_costs_what_a_wrong_one_costs_whatever_the_hash() {
        // Of `test` and of `password`, as passlib's own tests have them.
        let sha_crypt = ("$5$rounds=11858$WH1ABM5sKhxbkgCK$aTQsjPkz0rBsH3lQlJxw9HDTDXPKBxC0LlVeV69P.t1", "test");
        let argon2 = ("$argon2i$v=19$m=256,t=1,p=1$c29tZXNhbHQ$AJFIsNZTMKTAewB4+ETN1A", "password");
        for (hash, right) in [sha_crypt, argon2] {
            let fixture = Fixture::with(Policy { lock_after: 1, ..Policy::default() }).await;
            let import = |name: &str| Import { username: Some(name.to_owned()), ..Import::new(hash) };
            let locked = fixture.run(import("locked")).await.unwrap().user;
            let disabled = fixture.run(import("disabled")).await.unwrap().user;
            fixture.sign_in_with("locked", "wrong").await.unwrap_err();
            fixture.disable(disabled).await;
            let computed = || fixture.services.hasher.computed().into_iter().map(|(_, count)| count).sum::<u64>();
            let mut costs = Vec::new();
            for (name, user) in [("locked", locked), ("disabled", disabled)] {
                for password in ["wrong", right] {
                    let before = computed();
                    fixture.sign_in_with(name, password).await.unwrap_err();
                    let current = Password::new(password);
                    let change = ChangePassword { user, current, new: Password::new(PASSWORD), keep: None };
                    fixture.run(change).await.unwrap_err();
                    fixture.rehash().await;
                    costs.push(computed() - before);
                }
            }
            assert_eq!(costs, [2; 4], "{hash}");
        }
    }

    #[tokio::test]
    async fn a_name_that_is_nobody_s_costs_the_same_in_every_spelling() {
        let new = HashParameters::cheap_for_tests();
        let (location, keys) = (Location::Memory(MemoryDisk::new()), Keyring::from_keys(vec![[1; 32]]).unwrap());
        let fixture = Fixture::over(location, keys, Policy::default()).await;
        fixture.write(Vec::new(), (0..100).map(|number| credential(number, new, 1)).collect()).await;
        fixture.write(Vec::new(), (0..50).map(|number| credential(number, OLD, 2)).collect()).await;
        let mut drawn = Vec::new();
        for number in 0..20 {
            let spellings = [format!("nobody.{number}@example.com"), format!("Nobody.{number}@EXAMPLE.com")];
            let costs = [knock(&fixture, &spellings[0]).await, knock(&fixture, &spellings[1]).await];
            assert_eq!(costs[0], costs[1], "{spellings:?}");
            drawn.push(costs[0]);
        }
        assert!(drawn.contains(&true) && drawn.contains(&false), "with these keys");
    }

    /// Numbers from a seed.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    /// Does one thing to one user, whatever comes of it.
    async fn act(fixture: &Fixture, draw: &mut Draw, step: usize) {
        let name = format!("user{}", draw.below(4));
        let email = format!("{name}@example.com");
        let owned = |reader: &crate::storage::Reader| {
            let identifier = majordomo_model::Identifier::guess(&name).unwrap();
            reader.snapshot(|view| view.user_named(&identifier)).unwrap()
        };
        let Some(user) = owned(&fixture.services.reader) else {
            if draw.below(2) == 0 {
                fixture.register_proven(&name, Some(&email), None).await;
            } else {
                let email = Some(ImportedAddress::Proven(email));
                let hash = argon2_of_another_system(OLD);
                fixture.run(Import { username: Some(name), email, ..Import::new(hash) }).await.unwrap();
            }
            return;
        };
        let id = user.id;
        let passwords = [PASSWORD, OTHER_PASSWORD, "password"];
        let typed = passwords[usize::try_from(draw.below(3)).unwrap()];
        let new = || Password::new(format!("a new one for step {step} of many"));
        match draw.below(9) {
            0..=2 => drop(fixture.sign_in_with(&name, typed).await),
            3 => {
                let (current, new) = (Password::new(typed), Password::new(OTHER_PASSWORD));
                let _ = fixture.run(ChangePassword { user: id, current, new, keep: None }).await;
            }
            4 => {
                fixture.pass(Policy::default().messages.cool_down);
                let token = fixture.reset_token(&email).await;
                let row = fixture.services.reader.token(token).unwrap();
                if row.is_some_and(|row| row.user.is_some()) {
                    let _ = fixture.run(ResetPassword { proof: fixture.link(token), new: new() }).await;
                }
            }
            5 => {
                let open =
                    fixture.services.reader.snapshot(|view| view.open_tokens(id, TokenPurpose::UndoChange, None));
                if let Some(token) = open.unwrap().into_iter().map(|token| token.id).max() {
                    let _ = fixture.run(UndoChange { proof: fixture.link(token) }).await;
                }
            }
            6 => fixture.rehash().await,
            7 => {
                // One that a login left, and one that changes hands meanwhile.
                fixture.write(Vec::new(), vec![credential_of(id, OLD, draw.below(3))]).await;
            }
            _ => drop(fixture.run(Delete::new(id)).await),
        }
    }

    #[tokio::test]
    async fn whatever_happens_to_users_the_counts_are_those_of_who_counts_anew() {
        for seed in 0..3 {
            let location = Location::Memory(MemoryDisk::new());
            let mut draw = Draw(seed);
            let mut had = 0;
            for generation in 1..=3_u8 {
                // Each time with a new master key, and the earlier ones.
                let keys = Keyring::from_keys((1..=generation).rev().map(|key| [key; 32]).collect()).unwrap();
                let current = keys.current();
                let fixture = Fixture::over(location.clone(), keys, Policy::default()).await;
                let reader = &fixture.services.reader;
                let mut resealing = Resealing::default();
                for step in 0..60 {
                    act(&fixture, &mut draw, step).await;
                    if draw.below(20) == 0 {
                        resealing.go_on(&fixture.services, || false).await;
                        assert_eq!(reader.census().outdated(current), 0, "{seed} {generation} {step}");
                    }
                    let counted = reader.snapshot(Census::recount).unwrap();
                    assert_eq!(*reader.census(), counted, "{seed} {generation} {step}");
                    had = had.max(counted.classes().len());
                }
                fixture.services.storage.release();
            }
            assert!(had >= 2, "{seed}: there were old hashes and new ones");
        }
    }

    #[tokio::test]
    async fn a_user_without_a_usable_hash_costs_what_a_name_that_is_unknown_costs() {
        let fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        // Dear beyond the ceiling, or of a scheme that is not computed here: as a new hash.
        for phc in ["no hash at all", "$2b$12$EXRkfkdmXn2gzds2SSitu"] {
            let row = CredentialRow::new(phc.to_owned(), 1, NOW);
            fixture.write(Vec::new(), vec![Write::PutCredential(user, row)]).await;
            assert_eq!(fixture.services.reader.census().classes(), [("", 1)]);
            assert!(!knock(&fixture, "ada").await && !knock(&fixture, "nobody").await);
        }
        fixture.write(Vec::new(), (1..100).map(|number| credential(number, OLD, 1)).collect()).await;
        fixture.write(Vec::new(), vec![Write::RemoveCredential(user)]).await;
        assert!(knock(&fixture, "ada").await && knock(&fixture, "nobody").await);
    }
}
