//! The throttle: an attempt has its place in every budget that it counts against before any work is spent on it.
//!
//! Places are reserved in memory and spent in the commit that fails; a success gives its place back. So any number of
//! guesses at once are judged as often as the budget allows, and right passwords at once all pass: whoever finds every
//! place taken by others that may yet give theirs back waits for that, and is refused only once nothing is left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use majordomo_model::{
    Authority, Command, Error, Flow, FlowId, Identifier, LimitScope, LimitedAction, Proof, Signal, Timestamp, UserId,
};
use tokio::time::Instant;

use super::flow::{Decision, Fault, Perform, Run, Told};
use super::known_device::{KnownDevice, known_device};
use super::limits::{Left, Limit};
use super::lock::Failures;
use super::places::{Held, Places, Waiting};
use super::services::Services;
use super::source::Source;
use crate::hasher::{Place, Rank};
use crate::storage::{Batch, Lookup, Unreadable, Verdict, Write};

/// How many logins of one user go first for their known devices at a time: whoever has an account has as many devices
/// that are known to it as they like.
const PRECEDING: u32 = 2;
/// What who finds nobody's place free soon is told to wait.
const SOON: Duration = Duration::from_secs(1);

/// What an attempt counts as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'a> {
    pub(super) action: LimitedAction,
    /// Whom it is about, if it names anybody.
    pub(super) subject: Option<Subject<'a>>,
}

impl<'a> Counted<'a> {
    /// An attempt that is about nobody in particular.
    pub(super) const fn of(action: LimitedAction) -> Self {
        Self { action, subject: None }
    }

    /// A password that is compared with somebody's.
    pub(super) const fn login(subject: Subject<'a>) -> Self {
        Self { action: LimitedAction::Login, subject: Some(subject) }
    }

    /// A link or a code.
    pub(super) const fn by_proof(proof: &Proof) -> Self {
        Self::of(match proof {
            Proof::Link { .. } => LimitedAction::Verify,
            Proof::Code { .. } => LimitedAction::Code,
        })
    }

    /// A password that is asked for before something else, and that; nothing is guessed at by a session.
    pub(super) fn by_authority(user: UserId, authority: &Authority, then: Option<LimitedAction>) -> Vec<Self> {
        let login = matches!(authority, Authority::Password(_)).then(|| Self::login(Subject::User(user)));
        login.into_iter().chain(then.map(Self::of)).collect()
    }
}

/// Whom an attempt is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject<'a> {
    /// Whoever has this name or address.
    Named(&'a str),
    /// This user.
    User(UserId),
}

/// A budget that an attempt counts against.
#[derive(Clone, Copy, Debug)]
struct Budget {
    action: LimitedAction,
    key: [u8; 32],
    scope: LimitScope,
    limit: Limit,
}

/// Why an attempt has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// A budget is spent; how long until it is not.
    Throttled(Duration),
    /// Storage is out.
    Unreadable,
}

/// The places in budgets that are reserved.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    places: Places,
}

/// A budget in which an attempt has a place.
#[derive(Debug)]
struct Reserved {
    budget: Budget,
    /// Whether no other place was left when it was taken.
    is_last: bool,
    /// Whether this attempt tells of that, once it has asked.
    tells: OnceLock<bool>,
}

/// A place in each budget.
#[derive(Debug)]
pub(super) struct Reservation {
    places: Places,
    _held: Vec<Held>,
    budgets: Vec<Reserved>,
    /// The device that the attempt comes from, if it is known.
    device: Option<KnownDevice>,
    /// Whether so much has failed from the device meanwhile that it is known no longer.
    is_device_spent: AtomicBool,
    /// The place among the wrong passwords that the account bears.
    guess: Mutex<Option<Held>>,
    /// Whether it goes before those of strangers: one of the few of that user that do.
    pub(super) precedence: Option<Held>,
    /// Where it stands among logins.
    pub(super) rank: Rank,
}

impl Throttle {
    /// Reserves a place in every budget that a command counts against.
    pub(super) async fn reserve<F: Flow>(
        &self,
        services: &Services,
        command: &Command<F>,
        counted: &[Counted<'_>],
        deadline: Option<Instant>,
    ) -> Result<Reservation, NoPlace> {
        let device = known_device(services, command, counted.iter().find_map(|counted| counted.subject))?;
        let budgets: Vec<_> = counted.iter().flat_map(|counted| budgets(services, command, *counted, device)).collect();
        let mut turn: Option<Waiting> = None;
        loop {
            match self.attempt(services, &budgets, &mut turn)? {
                Attempted::Reserved(held, free) => {
                    turn.map(Waiting::served).unwrap_or_default();
                    let rank = rank(&budgets, &free);
                    let reserved = |(budget, free)| Reserved { budget, is_last: free == 1, tells: OnceLock::new() };
                    let budgets = budgets.into_iter().zip(free).map(reserved).collect();
                    let precedence = device.and_then(|device| self.precede(services, device));
                    return Ok(Reservation {
                        places: self.places.clone(),
                        _held: held,
                        budgets,
                        device,
                        is_device_spent: AtomicBool::default(),
                        guess: Mutex::default(),
                        precedence,
                        rank,
                    });
                }
                Attempted::Full(waiting) => {
                    let waiting = turn.insert(waiting);
                    if !waiting.until_freed(deadline).await {
                        return Err(NoPlace::Throttled(SOON));
                    }
                }
            }
        }
    }

    /// What was reserved is read before what is stored, and a place is given back only after its spending is stored: so
    /// a place may count twice for a moment, and never not at all.
    fn attempt(
        &self,
        services: &Services,
        budgets: &[Budget],
        turn: &mut Option<Waiting>,
    ) -> Result<Attempted, NoPlace> {
        if budgets.is_empty() {
            return Ok(Attempted::Reserved(Vec::new(), Vec::new()));
        }
        let mut places = self.places.lock();
        let rows = services.reader.snapshot(|view| budgets.iter().map(|budget| view.limit(&budget.key)).collect());
        let rows: Vec<_> = rows?;
        let now = services.clock.now();
        let mut free = Vec::with_capacity(budgets.len());
        let mut refused = None;
        for (budget, row) in budgets.iter().zip(rows) {
            match budget.limit.left(row, now) {
                Left::Some(left) => free.push(places.free(&budget.key, left, turn.is_some())),
                Left::Nothing(wait) => refused = refused.max(Some(wait)),
            }
        }
        if let Some(wait) = refused {
            return Err(NoPlace::Throttled(wait));
        }
        if let Some((full, _)) = budgets.iter().zip(&free).find(|(_, free)| **free == 0) {
            return places.line_up(full.key, turn).map(Attempted::Full).ok_or(NoPlace::Throttled(SOON));
        }
        for (budget, _) in budgets.iter().zip(&free).filter(|(_, free)| **free > 1) {
            places.has_more(&budget.key);
        }
        let held = budgets.iter().map(|budget| places.hold(budget.key)).collect();
        Ok(Attempted::Reserved(held, free))
    }

    /// A place among the logins that go first, if the device's user has one left.
    fn precede(&self, services: &Services, device: KnownDevice) -> Option<Held> {
        let key = precedence_key(services, device);
        let mut places = self.places.lock();
        (places.free(&key, PRECEDING, true) > 0).then(|| places.hold(key))
    }

    /// A place among the wrong passwords that an account bears before it is locked, or a device before it is unknown;
    /// nothing where it is.
    fn guess(
        &self,
        services: &Services,
        (subject, is_somebody): ([u8; 32], bool),
        turn: &mut Option<Waiting>,
    ) -> Result<Guessing, NoPlace> {
        let mut places = self.places.lock();
        let failures = services.reader.snapshot(|view| Failures::read(view, subject))?;
        let Some(left) = failures.left(is_somebody, services.clock.now(), &services.policy) else {
            return Ok(Guessing::Locked);
        };
        let free = places.free(&subject, left, turn.is_some());
        if free > 1 {
            places.has_more(&subject);
        }
        if free > 0 {
            return Ok(Guessing::Held(places.hold(subject)));
        }
        places.line_up(subject, turn).map(Guessing::Full).ok_or(NoPlace::Throttled(SOON))
    }
}

enum Attempted {
    /// A place in each budget, and how many were free there.
    Reserved(Vec<Held>, Vec<u32>),
    Full(Waiting),
}

enum Guessing {
    Held(Held),
    Locked,
    Full(Waiting),
}

impl From<NoPlace> for Fault {
    fn from(why: NoPlace) -> Self {
        match why {
            NoPlace::Throttled(_) => Self::Overloaded,
            NoPlace::Unreadable => Self::Storage,
        }
    }
}

impl Reservation {
    /// What is stored of the actions that an attempt counts as, and what is told of budgets that it spends altogether.
    fn spend(&self, counts: impl Fn(LimitedAction) -> bool, now: Timestamp) -> (Vec<Write>, Vec<Signal>) {
        let write = |Budget { key, limit, .. }: Budget| {
            let (cost, most) = (limit.cost(), limit.most());
            Write::Spend { key, at: now, cost, most }
        };
        let spent = || self.budgets.iter().filter(|reserved| counts(reserved.budget.action));
        let reached = |budget: &Budget| Signal::LimitReached { action: budget.action, scope: budget.scope };
        let told = spent().filter(|reserved| self.tells(reserved)).map(|reserved| reached(&reserved.budget)).collect();
        (spent().map(|reserved| write(reserved.budget)).collect(), told)
    }

    /// Whether it tells that the last place is taken. While a place counts twice, two may have found theirs the last:
    /// then the first of them that fails tells, however often it is decided.
    fn tells(&self, reserved: &Reserved) -> bool {
        reserved.is_last && *reserved.tells.get_or_init(|| self.places.tell(&reserved.budget.key))
    }
}

impl From<Unreadable> for NoPlace {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// Where an attempt stands that found so many places free in its budgets: by that of its source or else its network, of
/// which more is taken by failures or by attempts under way. What is guessed at an account puts nobody back who signs in.
fn rank(budgets: &[Budget], free: &[u32]) -> Rank {
    let of_origin = |budget: &Budget| matches!(budget.scope, LimitScope::Source | LimitScope::Network);
    let origin = budgets.iter().zip(free).filter(|(budget, _)| of_origin(budget));
    let taken = origin.map(|(budget, free)| budget.limit.attempts.saturating_sub(*free));
    Rank::of(taken.max().unwrap_or_default())
}

/// What the logins of a user's known devices are counted under, whichever device it is.
fn precedence_key(services: &Services, device: KnownDevice) -> [u8; 32] {
    services.keys.identifier_hash("precedence", &device.user().to_string())
}

/// The places of a command in the budgets that it counts against, or what it is refused with.
pub(super) async fn admit<F: Perform>(
    services: &Services,
    command: &Command<F>,
    deadline: Option<Instant>,
) -> Result<Option<Reservation>, Error<F::Reason>> {
    let counted = command.message.counted();
    if counted.is_empty() {
        return Ok(None);
    }
    let reserved = services.throttle.reserve(services, command, &counted, deadline).await;
    reserved.map(Some).map_err(|why| services.refused_without_budget(why))
}

impl<F: Perform> Run<'_, F> {
    /// The device that it comes from, if it is known to whom it is about.
    pub(super) fn known_device(&self) -> Option<KnownDevice> {
        let reservation = self.reservation.as_ref()?;
        reservation.device.filter(|_| !reservation.is_device_spent.load(Ordering::Relaxed))
    }

    /// Takes a place among the wrong passwords that an account bears before it is locked: so no more of them are under
    /// way, from wherever, than may still fail. A known device needs one among its own, and is as good as unknown where
    /// it bears no more.
    pub(super) async fn take_guess(&self, subject: [u8; 32], is_somebody: bool) -> Result<(), Fault> {
        let Some(reservation) = &self.reservation else { return Ok(()) };
        if let Some(device) = self.known_device() {
            if self.take_guess_of(reservation, device.subject(&self.services.keys), false).await? {
                return Ok(());
            }
            reservation.is_device_spent.store(true, Ordering::Relaxed);
        }
        self.take_guess_of(reservation, subject, is_somebody).await.map(drop)
    }

    /// Whether there is a place, now or once others have ended.
    async fn take_guess_of(
        &self,
        reservation: &Reservation,
        subject: [u8; 32],
        is_somebody: bool,
    ) -> Result<bool, Fault> {
        let mut turn: Option<Waiting> = None;
        loop {
            match self.services.throttle.guess(self.services, (subject, is_somebody), &mut turn)? {
                Guessing::Locked => return Ok(false),
                Guessing::Held(held) => {
                    turn.take().map(Waiting::served).unwrap_or_default();
                    *reservation.guess.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
                    return Ok(true);
                }
                Guessing::Full(waiting) => {
                    // Who waits here keeps nobody from a hash.
                    self.keep(None);
                    let waiting = turn.insert(waiting);
                    if !waiting.until_freed(self.deadline).await {
                        return Err(Fault::Deadline);
                    }
                    self.keep(F::admit(self.services, Some(reservation)).map_err(|_| Fault::Overloaded)?);
                }
            }
        }
    }

    /// Gives that place back: the password was right, and cannot fail any more.
    pub(super) fn give_back_guess(&self) {
        let Some(reservation) = &self.reservation else { return };
        reservation.guess.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn keep(&self, place: Option<Place>) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Counts the attempt against its budgets, as far as what it came to counts.
    pub(super) fn spend(&self, decision: &mut Decision<F>, now: Timestamp) {
        let Some(reservation) = &self.reservation else { return };
        let (writes, told) = reservation.spend(|action| F::counts(action, &decision.answer), now);
        decision.writes.extend(writes);
        decision.told.extend(told.into_iter().map(Told::from));
    }

    /// Stores what a failure counts, by itself: its signals are not stored. `false` if it has to be decided again.
    pub(super) async fn store_counts(&self, flow: FlowId, decision: &Decision<F>) -> Result<bool, Fault> {
        if decision.writes.is_empty() {
            return Ok(true);
        }
        let (checks, writes) = (decision.checks.clone(), decision.writes.clone());
        let batch = Batch { flow, outcome: None, checks, writes, signals: Vec::new() };
        Ok(!matches!(self.services.storage.commit(batch).await?, Verdict::Conflict))
    }
}

impl<F: Flow> Decision<F> {
    /// Whether it only tells of a failure, so that it may be counted instead of recorded when failures flood.
    pub(super) fn is_mere_failure(&self) -> bool {
        let counts = |write: &Write| matches!(write, Write::RecordFailure(..) | Write::Spend { .. });
        let is_news = |told: &Told| matches!(told.signal, Signal::LimitReached { .. });
        self.answer.is_err() && self.writes.iter().all(counts) && !self.told.iter().any(is_news)
    }
}

/// The budgets that an attempt counts against: none on behalf of an operator or of the system.
fn budgets<F: Flow>(
    services: &Services,
    command: &Command<F>,
    counted: Counted<'_>,
    device: Option<KnownDevice>,
) -> Vec<Budget> {
    use majordomo_model::Actor::{Anonymous, User};

    if !matches!(command.actor, Anonymous | User(_)) {
        return Vec::new();
    }
    let limits = services.policy.limits.of(counted.action);
    let source = Source::of(&command.context);
    // A known device is a source of its own where the password of its user is asked for, by whichever name.
    let device = device.filter(|_| counted.subject.is_some());
    let named = counted.subject.map(|subject| match device {
        Some(device) => device.text(),
        None => [source.text(), subject.text()].join("/"),
    });
    // It is spared what others did from where it is.
    let is_stranger = device.is_none();
    let elsewhere = Some(source).filter(|source| is_stranger && source.is_told());
    let network = elsewhere.and_then(Source::network).map(|bits| format!("{bits:012x}"));
    let texts = [
        (LimitScope::AccountAndSource, limits.account_and_source, named),
        (LimitScope::Source, limits.source, elsewhere.map(Source::text)),
        (LimitScope::Network, limits.network, network),
        (LimitScope::Global, limits.global, is_stranger.then(String::new)),
    ];
    let budget = |(scope, limit, text): (LimitScope, Option<Limit>, Option<String>)| {
        let (limit, text) = (limit?, text?);
        let kind = ["limit", counted.action.as_str(), scope.as_str()].join("/");
        Some(Budget { action: counted.action, key: services.keys.identifier_hash(&kind, &text), scope, limit })
    };
    texts.into_iter().filter_map(budget).collect()
}

impl Subject<'_> {
    /// A text that no other subject has: of a name its canonical form, so that spellings do not multiply attempts.
    fn text(self) -> String {
        match self {
            Self::User(user) => format!("user/{user}"),
            Self::Named(typed) => match Identifier::guess(typed) {
                Ok(identifier) => [identifier.kind().as_str(), identifier.canonical()].join("/"),
                Err(_) => format!("text/{typed}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use majordomo_model::{Authenticate, Context, Password};

    use super::super::Policy;
    use super::super::fixture::{Fixture, PASSWORD};
    use super::*;
    use crate::keys::Keyring;
    use crate::storage::{Location, MemoryDisk};

    fn guess(address: &str) -> Command<Authenticate> {
        let message = Authenticate { identifier: "ada".to_owned(), password: Password::new("wrong") };
        Command::new(message).context(Context::new().client_ip(address.parse().unwrap()))
    }

    fn places(fixture: &Fixture) -> usize {
        fixture.services.throttle.places.keys()
    }

    async fn reserve(fixture: &Fixture, deadline: Option<Instant>) -> Result<Reservation, NoPlace> {
        let command = guess("192.0.2.1");
        let counted = [Counted::login(Subject::Named("ada"))];
        fixture.services.throttle.reserve(&fixture.services, &command, &counted, deadline).await
    }

    #[tokio::test]
    async fn a_place_is_kept_until_it_is_dropped_and_nothing_is_remembered_of_it_then() {
        let fixture = Fixture::new().await;
        let mut kept = Vec::new();
        for _ in 0..5 {
            kept.push(reserve(&fixture, None).await.unwrap());
        }
        assert_eq!(places(&fixture), 2, "a budget for name and source, one for the source");
        let now = Instant::now();
        assert_eq!(reserve(&fixture, Some(now)).await.unwrap_err(), NoPlace::Throttled(SOON), "by then nobody left");
        let waiting = reserve(&fixture, None);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        kept.pop();
        drop(waiting.await.unwrap());
        kept.clear();
        assert_eq!(places(&fixture), 0);
    }

    #[tokio::test]
    async fn who_waits_is_refused_once_the_others_have_failed_and_the_line_is_bounded() {
        let fixture = Fixture::new().await;
        let mut kept = Vec::new();
        for _ in 0..5 {
            kept.push(reserve(&fixture, None).await.unwrap());
        }
        let mut line: Vec<_> = (0..128).map(|_| Box::pin(reserve(&fixture, None))).collect();
        for waiting in &mut line {
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        assert_eq!(reserve(&fixture, None).await.unwrap_err(), NoPlace::Throttled(SOON));
        for reservation in kept {
            let (writes, told) = reservation.spend(|_| true, fixture.clock.now());
            assert_eq!(writes.len(), 2);
            assert!(told.len() <= 1);
            fixture.write(Vec::new(), writes).await;
        }
        for waiting in line {
            assert_eq!(waiting.await.unwrap_err(), NoPlace::Throttled(Duration::from_secs(120)));
        }
        assert_eq!(places(&fixture), 0);
    }

    #[tokio::test]
    async fn places_that_came_back_with_time_are_taken_by_who_waits_and_not_one_by_one() {
        let fixture = Fixture::new().await;
        for _ in 0..4 {
            let (writes, _) = reserve(&fixture, None).await.unwrap().spend(|_| true, fixture.clock.now());
            fixture.write(Vec::new(), writes).await;
        }
        let kept = reserve(&fixture, None).await.unwrap();
        let mut line: Vec<_> = (0..4).map(|_| Box::pin(reserve(&fixture, None))).collect();
        for waiting in &mut line {
            assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        }
        fixture.pass(Duration::from_secs(240));
        drop(kept);
        let polled: Vec<_> = line.iter_mut().map(|waiting| waiting.as_mut().now_or_never()).collect();
        let served = polled.iter().map(|polled| polled.as_ref().is_some_and(Result::is_ok));
        assert_eq!(served.collect::<Vec<_>>(), [true, true, true, false]);
        drop((line, polled));
        assert_eq!(places(&fixture), 0);
    }

    #[tokio::test]
    async fn who_has_spent_several_budgets_is_told_of_the_one_that_takes_longest() {
        let limit = |seconds| Some(Limit { attempts: 1, per: Duration::from_secs(seconds) });
        for (name, source) in [(60, 3_600), (3_600, 60)] {
            let mut policy = Policy::default();
            (policy.limits.login.account_and_source, policy.limits.login.source) = (limit(name), limit(source));
            let fixture = Fixture::with(policy).await;
            let (writes, _) = reserve(&fixture, None).await.unwrap().spend(|_| true, fixture.clock.now());
            fixture.write(Vec::new(), writes).await;
            let wait = Duration::from_secs(3_600);
            assert_eq!(reserve(&fixture, None).await.unwrap_err(), NoPlace::Throttled(wait));
        }
    }

    #[tokio::test]
    async fn what_everybody_has_spent_together_shuts_out_no_known_device() {
        let mut policy = Policy::default();
        policy.limits.login.global = Some(Limit { attempts: 1, per: Duration::from_secs(3_600) });
        let fixture = Fixture::with(policy).await;
        fixture.register_proven("ada", None, None).await;
        let device = fixture.sign_in("ada").await.unwrap().device;
        let (writes, _) = reserve(&fixture, None).await.unwrap().spend(|_| true, fixture.clock.now());
        fixture.write(Vec::new(), writes).await;
        assert!(reserve(&fixture, None).await.is_err());
        let (command, counted) = (guess("192.0.2.1").device(device), [Counted::login(Subject::Named("ada"))]);
        fixture.services.throttle.reserve(&fixture.services, &command, &counted, None).await.unwrap();
    }

    #[tokio::test]
    async fn who_acts_for_themselves_is_limited_and_who_runs_the_system_is_not() {
        use majordomo_model::Actor;

        let fixture = Fixture::new().await;
        let users = [(Actor::Anonymous, 2), (Actor::User(UserId::new()), 2)];
        for (actor, budgets) in users.into_iter().chain([(Actor::Admin("desk".to_owned()), 0), (Actor::System, 0)]) {
            let (command, counted) = (guess("192.0.2.1").actor(actor), [Counted::login(Subject::Named("ada"))]);
            let reserved = fixture.services.throttle.reserve(&fixture.services, &command, &counted, None).await;
            assert_eq!(reserved.unwrap().budgets.len(), budgets);
        }
    }

    #[tokio::test]
    async fn two_logins_of_a_user_go_first_for_their_devices_however_many_those_are() {
        let fixture = Fixture::new().await;
        fixture.register_proven("ada", None, None).await;
        let mut kept = Vec::new();
        for expected in [true, true, false] {
            let device = fixture.sign_in_with("ada", PASSWORD).await.unwrap().device;
            let command = guess("192.0.2.1").device(device);
            let counted = [Counted::login(Subject::Named("ada"))];
            let reserved =
                fixture.services.throttle.reserve(&fixture.services, &command, &counted, None).await.unwrap();
            assert!(reserved.device.is_some());
            assert_eq!(reserved.precedence.is_some(), expected);
            kept.push(reserved);
        }
        kept.clear();
        assert_eq!(places(&fixture), 0);
        assert!(reserve(&fixture, None).await.unwrap().precedence.is_none(), "a stranger's");
    }

    #[tokio::test]
    async fn whose_budgets_are_fuller_stands_further_back_and_what_all_share_moves_nobody() {
        let mut policy = Policy::default();
        policy.limits.login.global = policy.limits.login.source;
        let fixture = Fixture::over(Location::Memory(MemoryDisk::new()), Keyring::ephemeral().unwrap(), policy).await;
        let reserve = async |address: &str, name: &str| {
            let (command, counted) = (guess(address), [Counted::login(Subject::Named(name))]);
            fixture.services.throttle.reserve(&fixture.services, &command, &counted, None).await.unwrap()
        };
        let mut kept = Vec::new();
        for attempts in 0..4 {
            let name = format!("user{attempts}");
            kept.push(reserve("2001:db8:1:1::1", &name).await);
            assert_eq!(kept.last().unwrap().rank, Rank::of(attempts), "under way");
        }
        let in_network = reserve("2001:db8:1:2::1", "ada").await;
        assert_eq!((in_network.rank, reserve("192.0.2.1", "ada").await.rank), (Rank::of(4), Rank::FIRST));
        for reservation in kept.drain(1..) {
            fixture.write(Vec::new(), reservation.spend(|_| true, fixture.clock.now()).0).await;
        }
        drop((kept, in_network));
        let (untold, counted) = (Command::new(guess("192.0.2.1").message), [Counted::login(Subject::Named("ada"))]);
        for _ in 0..3 {
            let reserving = fixture.services.throttle.reserve(&fixture.services, &untold, &counted, None);
            let reserved = reserving.await.unwrap();
            assert_eq!(reserved.rank, Rank::FIRST, "nobody knows where it comes from");
            fixture.write(Vec::new(), reserved.spend(|_| true, fixture.clock.now()).0).await;
        }
        assert_eq!(reserve("2001:db8:1:1::2", "ada").await.rank, Rank::of(3), "what failed stands, what succeeded not");
        fixture.clock.advance(Duration::from_secs(36));
        assert_eq!(reserve("2001:db8:1:1::2", "ada").await.rank, Rank::FIRST, "one attempt comes back in 12 seconds");
    }

    #[tokio::test]
    async fn of_several_actions_that_alone_is_spent_which_what_it_came_to_counts_as() {
        let fixture = Fixture::new().await;
        let command = guess("192.0.2.1");
        let counted = [Counted::login(Subject::Named("ada")), Counted::of(LimitedAction::Resend)];
        let reserving = fixture.services.throttle.reserve(&fixture.services, &command, &counted, None);
        let reservation = reserving.await.unwrap();
        let spent = |counts: fn(LimitedAction) -> bool| reservation.spend(counts, fixture.clock.now()).0.len();
        let is_resend = |action| action == LimitedAction::Resend;
        assert_eq!([spent(|_| true), spent(is_resend), spent(|_| false)], [3, 1, 0]);
    }

    #[tokio::test]
    async fn that_the_last_place_is_taken_is_told_once_also_while_a_place_counts_twice() {
        let fixture = Fixture::new().await;
        let now = fixture.clock.now();
        let mut kept = Vec::new();
        for _ in 0..3 {
            kept.push(reserve(&fixture, None).await.unwrap());
        }
        // Spent, and not given back yet: two of five places are left, and one is found.
        let (writes, told) = kept[0].spend(|_| true, now);
        assert_eq!(told, []);
        fixture.write(Vec::new(), writes).await;
        let fourth = reserve(&fixture, None).await.unwrap();
        kept.remove(0);
        let fifth = reserve(&fixture, None).await.unwrap();
        let told = |reservation: &Reservation| reservation.spend(|_| true, now).1.len();
        assert_eq!([told(&fifth), told(&fourth), told(&fifth)], [1, 0, 1], "by the first that fails, again if it must");
        // Once there are places again, it is told again.
        drop((kept, fourth, fifth));
        let mut again = Vec::new();
        for _ in 0..4 {
            again.push(reserve(&fixture, None).await.unwrap());
        }
        assert_eq!(again.iter().map(told).collect::<Vec<_>>(), [0, 0, 0, 1]);
    }

    #[tokio::test]
    async fn what_is_stored_of_a_budget_shows_neither_a_name_nor_an_address() {
        let disk = MemoryDisk::new();
        let keys = Keyring::ephemeral().unwrap();
        let fixture = Fixture::over(Location::Memory(disk.clone()), keys, Policy::default()).await;
        let (v4, v6) = ([203_u8, 0, 113, 77], 0x2001_0db8_cafe_0bee_u64.to_be_bytes());
        let mut stored = 0;
        for address in ["203.0.113.77", "2001:db8:cafe:bee::1"] {
            let counted = [Counted::login(Subject::Named("canary.name"))];
            let command = guess(address);
            let reserving = fixture.services.throttle.reserve(&fixture.services, &command, &counted, None);
            let (writes, _) = reserving.await.unwrap().spend(|_| true, fixture.clock.now());
            stored += writes.len();
            fixture.write(Vec::new(), writes).await;
        }
        assert_eq!(stored, 5, "of either source, of its guesses at the name, and of the one network");
        let bytes = disk.to_bytes();
        let texts = ["203.0.113.77", "cb00714d", "2001:db8", "20010db8cafe", "canary.name"].map(str::as_bytes);
        for mark in texts.into_iter().chain([v4.as_slice(), &v6[..6]]) {
            assert!(!bytes.windows(mark.len()).any(|part| part == mark), "{}", mark.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_panic_and_a_fault_give_the_place_back() {
        let fixture = Fixture::new().await;
        fixture.register_proven("ada", None, None).await;
        for _ in 0..9 {
            fixture.services.hasher.fail_next(1);
            assert_eq!(fixture.run(guess("192.0.2.1")).await.unwrap_err(), Error::Unexpected);
        }
        assert_eq!(places(&fixture), 0);
        fixture.sign_in_with("ada", PASSWORD).await.unwrap();
    }

    #[test]
    fn subjects_are_told_apart_and_spellings_are_not() {
        let texts = ["ada", "ADA", "ada@example.com", "Ada@Example.com", "+447911123456", "+44 7911 123456", "no name"];
        let all: Vec<_> = texts.iter().map(|typed| Subject::Named(typed).text()).collect();
        assert!(all[0] == all[1] && all[2] == all[3] && all[4] == all[5], "{all:?}");
        let apart: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(apart.len(), 4);
    }
}
