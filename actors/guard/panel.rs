//! The panel: every guard of the system, asked in the order of their registration.

use std::fmt;
use std::sync::Arc;

use majordomo_model::{DenialCode, FlowKind, GuardFailure, Signal};
use tokio::time::Instant;

use super::station::{Heard, Station, Unheard};
use super::{Amendment, GuardRegistration, GuardRequest, GuardState};

/// Every guard. Cloning shares them.
#[derive(Clone, Default)]
pub struct Panel {
    stations: Arc<[Arc<Station>]>,
}

/// What the guards of a flow said.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The guards that gave no ruling, in order.
    pub(crate) lapses: Vec<Lapse>,
    /// What follows.
    pub(crate) outcome: Outcome,
}

/// What the rulings come to.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It may be committed, changed so.
    Passed(Amendment),
    /// A guard of this name denied it.
    Denied(String, DenialCode),
    /// A guard that must be heard gave no ruling: the last of the lapses.
    Unheard,
}

/// A guard that gave no ruling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lapse {
    pub(crate) guard: String,
    pub(crate) failure: GuardFailure,
    /// Whether its flow goes on all the same.
    pub(crate) allowed: bool,
}

/// The flow's deadline came before the rulings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut;

impl Panel {
    /// A panel of these guards. Their threads are started when they are first asked.
    #[must_use]
    pub fn new(registrations: Vec<GuardRegistration>) -> Self {
        Self { stations: registrations.into_iter().map(|registration| Arc::new(Station::new(registration))).collect() }
    }

    /// Whether any guard is to be asked about a flow.
    pub(crate) fn guards(&self, flow: FlowKind) -> bool {
        self.stations.iter().any(|station| station.guards(flow))
    }

    /// Asks the guards of a flow one after another: each sees what those before it amended, and the first denial ends it.
    pub(crate) async fn ask(&self, request: &Arc<GuardRequest>, until: Option<Instant>) -> Result<Verdict, Cut> {
        let flow = request.flow();
        let mut request = Arc::clone(request);
        let (mut lapses, mut amendment) = (Vec::new(), Amendment::new());
        for station in self.stations.iter().filter(|station| station.guards(flow)) {
            if station.is_shadow() {
                station.ask_in_shadow(&request);
                continue;
            }
            match station.ask(&request, until).await {
                Ok(Heard::Allowed) => {}
                Ok(Heard::Denied(code)) => {
                    return Ok(Verdict { lapses, outcome: Outcome::Denied(station.name().to_owned(), code) });
                }
                Ok(Heard::Amended(more, amended)) => {
                    amendment = amendment.then(more);
                    request = amended;
                }
                Err(Unheard::Cut) => return Err(Cut),
                Err(Unheard::Failed(failure)) => {
                    let allowed = station.fails_open();
                    lapses.push(Lapse { guard: station.name().to_owned(), failure, allowed });
                    if !allowed {
                        return Ok(Verdict { lapses, outcome: Outcome::Unheard });
                    }
                }
            }
        }
        Ok(Verdict { lapses, outcome: Outcome::Passed(amendment) })
    }

    /// The signals that tell what guards in shadow mode would have denied since the last call.
    pub(crate) fn take_would_deny(&self) -> Vec<Signal> {
        self.stations.iter().flat_map(|station| station.take_would_deny()).collect()
    }

    /// How the guards are, in the order of their registration.
    #[must_use]
    pub fn observe(&self) -> Vec<GuardState> {
        self.stations.iter().map(|station| station.observe()).collect()
    }
}

impl fmt::Debug for Panel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.stations.iter().map(|station| station.name())).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use majordomo_model::{Actor, Context, DeletionCause, Profile, Timestamp};
    use tokio::sync::Notify;

    use super::super::{FailMode, Guard, Proposal, Ruling};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SOON: Duration = Duration::from_millis(20);
    const WAIT: Duration = Duration::from_secs(30);

    /// What a guard does when it is asked.
    #[derive(Clone)]
    enum Deed {
        Rule(Ruling),
        Panic,
        Hang,
        /// Blocks its thread until the gate opens.
        Block,
    }

    /// A guard that does what it is told, and keeps what it saw.
    #[derive(Clone)]
    struct Puppet(Arc<Strings>);

    struct Strings {
        deed: Mutex<Deed>,
        seen: Mutex<Vec<GuardRequest>>,
        gate: (Mutex<bool>, Condvar),
        blocked: AtomicUsize,
        go_on: Notify,
    }

    impl Puppet {
        fn new(deed: Deed) -> Self {
            let (deed, gate) = (Mutex::new(deed), (Mutex::new(false), Condvar::new()));
            Self(Arc::new(Strings {
                deed,
                seen: Mutex::default(),
                gate,
                blocked: AtomicUsize::new(0),
                go_on: Notify::new(),
            }))
        }

        fn now(&self, deed: Deed) {
            *self.0.deed.lock().unwrap() = deed;
        }

        fn seen(&self) -> usize {
            self.0.seen.lock().unwrap().len()
        }

        fn blocked(&self) -> usize {
            self.0.blocked.load(Ordering::SeqCst)
        }

        fn block(&self) {
            self.0.blocked.fetch_add(1, Ordering::SeqCst);
            let (open, changed) = &self.0.gate;
            drop(changed.wait_timeout_while(open.lock().unwrap(), 2 * WAIT, |open| !*open));
            self.0.blocked.fetch_sub(1, Ordering::SeqCst);
        }

        fn open_gate(&self) {
            *self.0.gate.0.lock().unwrap() = true;
            self.0.gate.1.notify_all();
        }

        fn registration(&self, name: &str, on_failure: FailMode) -> GuardRegistration {
            let flows = [FlowKind::Register, FlowKind::Delete];
            GuardRegistration::new(name, flows, on_failure, self.clone()).deadline(WAIT).breaker(1_000, HOUR)
        }
    }

    impl Guard for Puppet {
        async fn check(&self, request: &GuardRequest) -> Ruling {
            self.0.seen.lock().unwrap().push(request.clone());
            let deed = self.0.deed.lock().unwrap().clone();
            match deed {
                Deed::Rule(ruling) => ruling,
                Deed::Panic => panic!("on purpose"),
                Deed::Hang => {
                    self.0.go_on.notified().await;
                    Ruling::Allow
                }
                Deed::Block => {
                    self.block();
                    Ruling::Allow
                }
            }
        }
    }

    fn request(proposal: Proposal) -> GuardRequest {
        GuardRequest::new(proposal, None, Actor::System, Context::new(), Timestamp::from_micros(0))
    }

    fn registering() -> GuardRequest {
        let (profile, groups) = (Box::<Profile>::default(), ["users".to_owned()].into());
        request(Proposal::Register { username: None, email: None, phone: None, profile, groups })
    }

    fn deleting() -> GuardRequest {
        request(Proposal::Delete { cause: DeletionCause::Requested })
    }

    fn panel(registration: GuardRegistration) -> Panel {
        Panel::new(vec![registration])
    }

    async fn ask(panel: &Panel, request: GuardRequest) -> Verdict {
        tokio::time::timeout(WAIT, panel.ask(&Arc::new(request), None)).await.unwrap().unwrap()
    }

    /// The failure of the one guard there is, if it failed.
    async fn failure(panel: &Panel) -> Option<GuardFailure> {
        ask(panel, deleting()).await.lapses.first().map(|lapse| lapse.failure)
    }

    fn state(panel: &Panel) -> GuardState {
        panel.observe().remove(0)
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT, waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }

    #[tokio::test]
    async fn guards_are_asked_in_order_see_what_was_amended_and_the_first_denial_ends_it() {
        let amends = |group| Puppet::new(Deed::Rule(Ruling::Amend(Amendment::new().join(group))));
        let (first, second, third) = (amends("one"), amends("two"), Puppet::new(Deed::Rule(Ruling::Allow)));
        let puppets = [("first", &first), ("second", &second), ("third", &third)];
        let panel =
            Panel::new(puppets.map(|(name, puppet)| puppet.registration(name, FailMode::Closed)).into_iter().collect());
        let verdict = ask(&panel, registering()).await;
        assert_eq!(verdict.outcome, Outcome::Passed(Amendment::new().join("one").join("two")));
        let seen = third.0.seen.lock().unwrap()[0].proposal.clone();
        let Proposal::Register { groups, .. } = seen else { panic!("{seen:?}") };
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), ["one", "two", "users"]);
        second.now(Deed::Rule(Ruling::deny("no")));
        let verdict = ask(&panel, registering()).await;
        assert_eq!(verdict.outcome, Outcome::Denied("second".into(), DenialCode::fitted("no")));
        assert_eq!([first.seen(), second.seen(), third.seen()], [2, 2, 1]);
        let counted: Vec<_> =
            panel.observe().iter().map(|guard| (guard.asked, guard.allowed, guard.denied, guard.amended)).collect();
        assert_eq!(counted, [(2, 0, 0, 2), (2, 0, 1, 1), (1, 1, 0, 0)]);
        assert!(panel.guards(FlowKind::Delete) && !panel.guards(FlowKind::Update));
    }

    #[tokio::test]
    async fn every_failure_has_its_name_and_the_mode_says_what_follows() {
        for (deed, expected) in [
            (Deed::Panic, GuardFailure::Panicked),
            (Deed::Hang, GuardFailure::DeadlineExceeded),
            (Deed::Block, GuardFailure::DeadlineExceeded),
            (Deed::Rule(Ruling::Amend(Amendment::new().join("staff"))), GuardFailure::InvalidAmendment),
        ] {
            for (mode, outcome) in
                [(FailMode::Open, Outcome::Passed(Amendment::new())), (FailMode::Closed, Outcome::Unheard)]
            {
                let (puppet, next) = (Puppet::new(deed.clone()), Puppet::new(Deed::Rule(Ruling::Allow)));
                let panel = Panel::new(vec![
                    puppet.registration("first", mode).deadline(if matches!(deed, Deed::Panic) { WAIT } else { SOON }),
                    next.registration("next", FailMode::Closed),
                ]);
                let verdict = ask(&panel, deleting()).await;
                assert_eq!(verdict.outcome, outcome);
                let allowed = mode == FailMode::Open;
                assert_eq!(verdict.lapses, [Lapse { guard: "first".into(), failure: expected, allowed }]);
                assert_eq!(next.seen(), usize::from(allowed), "whether the next one was asked");
                let state = state(&panel);
                assert_eq!((state.failed, state.last_failure), (1, Some(expected)));
                puppet.open_gate();
            }
        }
    }

    #[tokio::test]
    async fn the_breaker_spares_a_failing_guard_and_a_probe_closes_it() {
        let puppet = Puppet::new(Deed::Panic);
        let panel = panel(puppet.registration("guard", FailMode::Open).breaker(3, HOUR));
        for _ in 0..3 {
            assert_eq!(failure(&panel).await, Some(GuardFailure::Panicked));
        }
        puppet.now(Deed::Rule(Ruling::Allow));
        assert_eq!(failure(&panel).await, Some(GuardFailure::Suspended));
        assert!(state(&panel).open && puppet.seen() == 3);
        tokio::time::pause();
        tokio::time::advance(HOUR).await;
        tokio::time::resume();
        assert_eq!(failure(&panel).await, None);
        assert!(!state(&panel).open && puppet.seen() == 4);
    }

    #[tokio::test]
    async fn amending_badly_and_being_asked_too_much_do_not_open_the_breaker() {
        let puppet = Puppet::new(Deed::Rule(Ruling::Amend(Amendment::new().join("staff"))));
        let panel = panel(puppet.registration("guard", FailMode::Open).breaker(1, HOUR).concurrency(2));
        assert_eq!(failure(&panel).await, Some(GuardFailure::InvalidAmendment));
        puppet.now(Deed::Hang);
        let ask_too = || {
            let panel = panel.clone();
            tokio::spawn(async move { failure(&panel).await })
        };
        let others = [ask_too(), ask_too()];
        until("both are in hand", || puppet.seen() == 3).await;
        assert_eq!(failure(&panel).await, Some(GuardFailure::Overloaded));
        assert_eq!((state(&panel).in_hand, state(&panel).open), (2, false));
        puppet.0.go_on.notify_one();
        puppet.0.go_on.notify_one();
        for other in others {
            assert_eq!(other.await.unwrap(), None);
        }
        until("both are answered", || state(&panel).allowed == 2).await;
        until("the places are free", || state(&panel).in_hand == 0).await;
    }

    #[tokio::test]
    async fn a_blocked_thread_is_replaced_up_to_a_bound_and_comes_back_into_service() {
        let puppet = Puppet::new(Deed::Block);
        let registration = puppet.registration("guard", FailMode::Closed).deadline(SOON);
        let panel = panel(registration.breaker(1, Duration::from_millis(1)));
        let blocking = async {
            while !state(&panel).out_of_service {
                let failure = failure(&panel).await.unwrap();
                assert_ne!(failure, GuardFailure::Panicked);
            }
        };
        tokio::time::timeout(WAIT, blocking).await.unwrap();
        for _ in 0..100 {
            assert_ne!(failure(&panel).await, None);
            tokio::task::yield_now().await;
        }
        let state_now = state(&panel);
        assert_eq!((puppet.blocked(), puppet.seen(), state_now.threads_abandoned), (4, 4, 4));
        assert_eq!((state_now.asked, state_now.open), (4, true));
        puppet.now(Deed::Rule(Ruling::Allow));
        puppet.open_gate();
        let back = async {
            while failure(&panel).await.is_some() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WAIT, back).await.expect("it is asked again once its threads are back");
        until("every thread is back", || state(&panel).threads_abandoned == 0).await;
    }

    #[tokio::test]
    async fn a_flow_that_waits_no_longer_is_no_failure_of_the_guard_and_frees_its_place() {
        let puppet = Puppet::new(Deed::Hang);
        let panel = panel(puppet.registration("guard", FailMode::Closed).breaker(1, HOUR).concurrency(1));
        let cut = panel.ask(&Arc::new(deleting()), Some(Instant::now() + SOON)).await;
        assert_eq!(cut.unwrap_err(), Cut);
        until("the place is free", || state(&panel).in_hand == 0).await;
        assert_eq!((state(&panel).failed, state(&panel).open), (0, false));
        // A task that is dropped while it waits, too.
        let waiting = panel.clone();
        let task = tokio::spawn(async move { waiting.ask(&Arc::new(deleting()), None).await.is_ok() });
        until("it is asked", || puppet.seen() == 2).await;
        task.abort();
        until("the place is free again", || state(&panel).in_hand == 0).await;
        puppet.now(Deed::Rule(Ruling::Allow));
        assert_eq!(failure(&panel).await, None);
    }

    #[tokio::test]
    async fn a_probe_that_nobody_waits_for_is_followed_by_another() {
        let puppet = Puppet::new(Deed::Panic);
        let panel = panel(puppet.registration("guard", FailMode::Closed).breaker(1, HOUR));
        assert_eq!(failure(&panel).await, Some(GuardFailure::Panicked));
        tokio::time::pause();
        tokio::time::advance(HOUR).await;
        tokio::time::resume();
        puppet.now(Deed::Hang);
        assert_eq!(panel.ask(&Arc::new(deleting()), Some(Instant::now() + SOON)).await.unwrap_err(), Cut);
        assert!(state(&panel).open);
        puppet.now(Deed::Rule(Ruling::Allow));
        assert_eq!(failure(&panel).await, None);
        assert!(!state(&panel).open);
    }

    #[tokio::test]
    async fn a_shadow_changes_nothing_is_not_waited_for_and_is_counted() {
        let (shadow, real) = (Puppet::new(Deed::Rule(Ruling::deny("no"))), Puppet::new(Deed::Rule(Ruling::Allow)));
        let registration = shadow.registration("shadow", FailMode::Closed).shadow().concurrency(1);
        let panel = Panel::new(vec![registration, real.registration("real", FailMode::Closed)]);
        assert_eq!(ask(&panel, deleting()).await.outcome, Outcome::Passed(Amendment::new()));
        until("it is heard", || state(&panel).denied == 1).await;
        until("its place is free", || state(&panel).in_hand == 0).await;
        let told = Signal::GuardWouldDeny { guard: "shadow".into(), flow: FlowKind::Delete, count: 1 };
        assert_eq!([panel.take_would_deny(), panel.take_would_deny()], [vec![told], Vec::new()]);
        shadow.now(Deed::Hang);
        for _ in 0..5 {
            assert!(ask(&panel, deleting()).await.lapses.is_empty());
        }
        assert_eq!((state(&panel).last_failure, state(&panel).failed), (Some(GuardFailure::Overloaded), 4));
        shadow.0.go_on.notify_one();
        shadow.now(Deed::Rule(Ruling::Amend(Amendment::new().join("staff"))));
        until("its place is free", || state(&panel).in_hand == 0).await;
        assert_eq!(ask(&panel, registering()).await.outcome, Outcome::Passed(Amendment::new()));
        until("it is heard", || state(&panel).amended == 1).await;
        assert_eq!(real.seen(), 7);
    }
}
