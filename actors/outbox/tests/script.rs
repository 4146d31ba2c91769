//! Scripts left to chance: subscribers that fail, actors that are killed, disks that fail, operators that interfere.

use super::*;
use std::sync::atomic::AtomicBool;

const NAME: &str = "script";
const STEPS: u64 = 24;

/// A sequence of numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// How many signals of a lane were folded, and a number that depends upon their order.
fn fold((count, order): (u64, u64), seq: u64) -> (u64, u64) {
    (count + 1, order.wrapping_mul(31).wrapping_add(seq))
}

fn written((count, order): (u64, u64)) -> Vec<u8> {
    [count.to_be_bytes(), order.to_be_bytes()].concat()
}

fn read(bytes: Option<Vec<u8>>) -> (u64, u64) {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    bytes.map_or((0, 0), |bytes| (number(&bytes[..8]), number(&bytes[8..])))
}

fn key(user: UserId) -> Vec<u8> {
    user.to_string().into_bytes()
}

/// Folds what it is handed by lane, if it does not fail as chance has it; it does not once it is calm.
fn moody(seed: u64, calm: Arc<AtomicBool>) -> (Subscription, Told) {
    let calls = AtomicU64::new(0);
    let (registration, told) = scripted(NAME, updates(), move |envelope, context| {
        let user = envelope.signal.user().unwrap();
        let Ok(value) = context.projection(&key(user)) else { return Act::Answer(Outcome::retry("unread")) };
        let value = written(fold(read(value), envelope.seq.unwrap()));
        let folded = Act::Answer(Outcome::Done(vec![Effect::Project { key: key(user), value }]));
        let mut dice = Dice(seed ^ calls.fetch_add(1, Ordering::SeqCst).rotate_left(20));
        match dice.below(if calm.load(Ordering::SeqCst) { 1 } else { 12 }) {
            0..=6 => folded,
            7 | 8 => Act::Answer(Outcome::retry("not yet")),
            9 => Act::Answer(Outcome::Defer { until: NOW }),
            10 => Act::Answer(Outcome::Reject { reason: "never".into() }),
            _ => Act::Panic,
        }
    });
    let mut settings = registration.settings.clone();
    settings.quarantine_after = 0;
    settings.retry.attempts = Some(4);
    settings.concurrency = 1 + usize::try_from(seed % 3).unwrap();
    (registration.settings(settings), told)
}

struct Script {
    system: System,
    disk: FaultyDisk,
    subscription: usize,
    users: Vec<UserId>,
    dice: Dice,
    discarded: Vec<u64>,
}

impl Script {
    /// Heals the disk, and waits for what was out.
    async fn recover(&self) {
        self.disk.heal();
        until(|| self.system.storage.observe().available).await;
    }

    async fn step(&mut self) {
        let system = &self.system;
        match self.dice.below(12) {
            0..=5 => {
                let told = (0..=self.dice.below(4)).map(|_| {
                    let user = self.users[usize::try_from(self.dice.below(4)).unwrap()];
                    stamped(user, Signal::UserUpdateStarted { user, fields: vec![] })
                });
                let told = batch(vec![], told.collect());
                // Whether it was committed the log tells.
                drop(system.storage.commit(told).await);
            }
            6 | 7 => system.kill(self.subscription).await,
            8 => system.kill(0).await,
            9 => {
                self.disk.cut_power_after(self.dice.below(12));
                let told = batch(vec![], vec![deletion()]);
                tokio::select! {
                    _ = system.storage.commit(told) => {}
                    () = until(|| !system.storage.observe().available) => {}
                }
                self.recover().await;
            }
            10 => drop(system.outbox.retry_dead_letters(NAME, Actor::System).await),
            _ => self.discard().await,
        }
    }

    async fn discard(&mut self) {
        let outbox = &self.system.outbox;
        let Ok(letters) = outbox.dead_letters(NAME, None, 100) else { return };
        let Some(dead) = letters.iter().find(|letter| letter.state == LetterState::Dead) else { return };
        if outbox.discard_dead_letter(NAME, dead.place, Actor::System).await.is_ok() {
            self.discarded.push(dead.place);
        }
    }

    /// What each lane comes to, were each signal handled once and in order.
    fn expected(&self, counts: impl Fn(u64) -> bool) -> BTreeMap<UserId, (u64, u64)> {
        let mut lanes: BTreeMap<UserId, (u64, u64)> = self.users.iter().map(|user| (*user, (0, 0))).collect();
        for told in self.system.log().iter().filter(|told| told.signal.kind() == SignalKind::UserUpdateStarted) {
            let (seq, lane) = (told.seq.unwrap(), lanes.get_mut(&told.signal.user().unwrap()).unwrap());
            *lane = if counts(seq) { fold(*lane, seq) } else { *lane };
        }
        lanes
    }

    fn projected(&self) -> BTreeMap<UserId, (u64, u64)> {
        let reader = self.system.storage.reader();
        self.users.iter().map(|user| (*user, read(reader.projected(NAME, &key(*user)).unwrap()))).collect()
    }

    /// Waits until the projection is as it should be: a batch that was left for later and lost is left again after a
    /// while. More than it should be it must never be.
    async fn comes_to(&self, is_right: impl Fn(BTreeMap<UserId, (u64, u64)>) -> bool, what: &str) {
        soon(self.system.storage.flush()).await;
        let wait = until(|| is_right(self.projected()));
        let came = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(came.is_ok(), "{what}: {:?}, of {:?}", self.projected(), self.expected(|_| true));
    }

    /// The first time that each was handled, lanes were in order.
    fn assert_order(&self, heard: &[(u64, u32)]) {
        let log = self.system.log();
        let mut last: BTreeMap<UserId, u64> = BTreeMap::new();
        for (seq, _) in heard {
            let user = log[usize::try_from(*seq).unwrap() - 1].signal.user().unwrap();
            let lane = last.entry(user).or_default();
            let between =
                |told: &Envelope| told.signal.user() == Some(user) && (*lane + 1..*seq).contains(&told.seq.unwrap());
            let updates = log.iter().filter(|told| told.signal.kind() == SignalKind::UserUpdateStarted);
            assert_eq!(updates.filter(|told| between(told)).count(), 0, "{seq} was handled before what precedes it");
            *lane = (*lane).max(*seq);
        }
    }
}

async fn play(seed: u64) {
    let disk = FaultyDisk::new(Arc::new(MemoryDisk::new())).unwrap();
    let mut system = System::on(Location::Disk(Arc::new(disk.clone())), &Keyring::ephemeral().unwrap()).await;
    let calm = Arc::new(AtomicBool::new(false));
    let (registration, mut told) = moody(seed, Arc::clone(&calm));
    let subscription = system.subscribe(registration).await;
    let users = (0..4).map(|_| UserId::new()).collect();
    let mut script = Script { system, disk, subscription, users, dice: Dice(seed), discarded: Vec::new() };
    for _ in 0..STEPS {
        soon(script.step()).await;
    }
    calm.store(true, Ordering::SeqCst);
    script.recover().await;
    let outbox = script.system.outbox.clone();
    soon(outbox.drained(0)).await.unwrap();
    let heard = heard_now(&mut told);
    script.assert_order(&heard);
    let dead: Vec<_> = outbox.dead_letters(NAME, None, 100).unwrap().iter().map(|letter| letter.place).collect();
    let lost = |seq: &u64| dead.contains(seq) || script.discarded.contains(seq);
    let counts = |lanes: BTreeMap<UserId, (u64, u64)>| lanes.into_values().map(|(count, _)| count).collect::<Vec<_>>();
    let expected = counts(script.expected(|seq| !lost(&seq)));
    script.comes_to(|lanes| counts(lanes) == expected, "exactly once").await;

    outbox.retry_dead_letters(NAME, Actor::System).await.unwrap();
    soon(outbox.drained(0)).await.unwrap();
    assert_eq!(outbox.dead_letter_count(NAME).unwrap(), 0, "seed {seed}");
    let kept = |seq| !script.discarded.contains(&seq);
    let expected = counts(script.expected(kept));
    script.comes_to(|lanes| counts(lanes) == expected, "with its letters").await;

    let place = 1 + script.dice.below(script.system.storage.reader().head().unwrap());
    outbox.move_to(NAME, Start::Seq(place), Actor::System).await.unwrap();
    soon(outbox.drained(0)).await.unwrap();
    outbox.rebuild(NAME, Actor::System).await.unwrap();
    soon(outbox.drained(0)).await.unwrap();
    until(|| script.system.named(NAME).rebuild.is_none()).await;
    let expected = script.expected(|_| true);
    script.comes_to(|lanes| lanes == expected, "rebuilt").await;
    script.system.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_each_signal_is_handled_counted_once_and_in_the_order_of_its_lane() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20);
    for seed in 0..seeds {
        play(seed).await;
    }
}
