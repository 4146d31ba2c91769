//! A station: one guard with its thread, its circuit breaker and its figures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use majordomo_model::{DenialCode, FlowKind, GuardFailure, Signal};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout_at};

use super::{Amendment, BLOCKED_THREADS, FailMode, GuardRegistration, GuardRequest, GuardState, Ruling};
use crate::breaker::{Admission, Breaker, Terms};
use crate::gauge::{Gauge, Handling};
use crate::host::{Guest, Host};

/// What a guard said, judged.
#[derive(Debug)]
pub(super) enum Heard {
    Allowed,
    Denied(DenialCode),
    /// With the request as it is amended.
    Amended(Amendment, Arc<GuardRequest>),
}

/// Why nothing was heard that holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unheard {
    Failed(GuardFailure),
    /// The flow's own deadline came first.
    Cut,
}

pub(super) struct Station {
    registration: GuardRegistration,
    gauge: Gauge,
    state: Mutex<State>,
}

struct State {
    breaker: Breaker,
    /// Where it runs; started when first needed.
    seat: Option<Seat>,
    /// What was left behind on threads that are blocked still.
    abandoned: Vec<GivenUp>,
    figures: Figures,
    /// What shadow mode would have denied since it was last told.
    would_deny: BTreeMap<&'static str, (FlowKind, u64)>,
}

#[derive(Default)]
struct Figures {
    asked: u64,
    allowed: u64,
    denied: u64,
    amended: u64,
    failed: u64,
    last_failure: Option<GuardFailure>,
}

/// A thread that checks run on.
struct Seat {
    host: Host,
    places: Arc<Semaphore>,
    given_up: GivenUp,
}

/// The checks of one thread that nobody waits for any more. One that does not end tells that the thread is blocked.
#[derive(Clone, Default)]
struct GivenUp(Arc<Mutex<Vec<AbortHandle>>>);

impl GivenUp {
    fn push(&self, check: AbortHandle) {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checks.retain(|check| !check.is_finished());
        checks.push(check);
    }

    fn is_blocked(&self) -> bool {
        let checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().any(|check| !check.is_finished())
    }
}

/// A check under way. Dropped before its end, it is ended on the guard's thread, as far as that listens.
struct Check {
    station: Arc<Station>,
    request: Arc<GuardRequest>,
    task: JoinHandle<Ruling>,
    given_up: GivenUp,
    admission: Option<Admission>,
    until: Instant,
    _handling: Handling,
}

impl Station {
    pub(super) fn new(registration: GuardRegistration) -> Self {
        let terms = Terms { failures: registration.failures, cool_down: registration.cool_down };
        let state = State {
            breaker: Breaker::new(terms),
            seat: None,
            abandoned: Vec::new(),
            figures: Figures::default(),
            would_deny: BTreeMap::new(),
        };
        Self { registration, gauge: Gauge::new(), state: Mutex::new(state) }
    }

    pub(super) fn name(&self) -> &str {
        &self.registration.name
    }

    pub(super) fn guards(&self, flow: FlowKind) -> bool {
        self.registration.flows.contains(&flow)
    }

    pub(super) const fn is_shadow(&self) -> bool {
        self.registration.shadow
    }

    pub(super) fn fails_open(&self) -> bool {
        self.registration.on_failure == FailMode::Open
    }

    /// Asks the guard and waits, at most until its deadline and the flow's.
    pub(super) async fn ask(
        self: &Arc<Self>,
        request: &Arc<GuardRequest>,
        until: Option<Instant>,
    ) -> Result<Heard, Unheard> {
        self.begin(request).map_err(Unheard::Failed)?.finish(until).await
    }

    /// Asks the guard and waits for nothing: what it says is counted only.
    pub(super) fn ask_in_shadow(self: &Arc<Self>, request: &Arc<GuardRequest>) {
        let Ok(check) = self.begin(request) else { return };
        let (station, flow) = (Arc::clone(self), request.flow());
        tokio::spawn(async move {
            if let Ok(Heard::Denied(_)) = check.finish(None).await {
                station.state().would_deny.entry(flow.as_str()).or_insert((flow, 0)).1 += 1;
            }
        });
    }

    fn begin(self: &Arc<Self>, request: &Arc<GuardRequest>) -> Result<Check, GuardFailure> {
        let now = Instant::now();
        let mut state = self.state();
        let begun = state.begin(&self.registration, request, now);
        match begun {
            Ok((task, given_up, admission)) => {
                state.figures.asked += 1;
                drop(state);
                let (station, request) = (Arc::clone(self), Arc::clone(request));
                let until = now.checked_add(self.registration.deadline).unwrap_or(now);
                let (admission, handling) = (Some(admission), self.gauge.begin());
                Ok(Check { station, request, task, given_up, admission, until, _handling: handling })
            }
            Err(failure) => {
                state.figures.fail(failure);
                Err(failure)
            }
        }
    }

    /// The signals that tell what shadow mode would have denied since the last call.
    pub(super) fn take_would_deny(&self) -> Vec<Signal> {
        let counted = std::mem::take(&mut self.state().would_deny).into_values();
        counted.map(|(flow, count)| Signal::GuardWouldDeny { guard: self.name().to_owned(), flow, count }).collect()
    }

    pub(super) fn observe(&self) -> GuardState {
        let mut state = self.state();
        let threads_abandoned = state.blocked_threads();
        let in_hand = state
            .seat
            .as_ref()
            .map_or(0, |seat| self.registration.concurrency.saturating_sub(seat.places.available_permits()));
        self.gauge.set_queue_depth(in_hand);
        GuardState {
            name: self.name().to_owned(),
            flows: self.registration.flows.clone(),
            on_failure: self.registration.on_failure,
            shadow: self.registration.shadow,
            asked: state.figures.asked,
            allowed: state.figures.allowed,
            denied: state.figures.denied,
            amended: state.figures.amended,
            failed: state.figures.failed,
            open: state.breaker.is_open(),
            in_hand,
            threads_abandoned,
            out_of_service: threads_abandoned >= BLOCKED_THREADS,
            last_failure: state.figures.last_failure,
            gauge: self.gauge.reading(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn begin(
        &mut self,
        registration: &GuardRegistration,
        request: &Arc<GuardRequest>,
        now: Instant,
    ) -> Result<(JoinHandle<Ruling>, GivenUp, Admission), GuardFailure> {
        let admission = self.breaker.admit(now).ok_or(GuardFailure::Suspended)?;
        let seat = match self.seat(registration, admission) {
            Ok(seat) => seat,
            Err(failure) => {
                self.breaker.failed(admission, now);
                return Err(failure);
            }
        };
        let Ok(place) = Arc::clone(&seat.places).try_acquire_owned() else {
            // It says nothing of the guard's health, so a burst opens no breaker.
            self.breaker.abandoned(admission, now);
            return Err(GuardFailure::Overloaded);
        };
        let (guard, request) = (Arc::clone(&registration.guard), Arc::clone(request));
        let task = seat.host.spawn(async move {
            let _place = place;
            guard.check(&request).await
        });
        Ok((task, seat.given_up.clone(), admission))
    }

    /// The thread to run on. The breaker's probe gets a fresh one if the last is blocked, as long as there is one left.
    fn seat(&mut self, registration: &GuardRegistration, admission: Admission) -> Result<&mut Seat, GuardFailure> {
        if admission == Admission::Probe
            && let Some(blocked) = self.seat.take_if(|seat| seat.given_up.is_blocked())
        {
            self.abandoned.push(blocked.given_up);
        }
        if self.seat.is_none() {
            if self.blocked_threads() >= BLOCKED_THREADS {
                return Err(GuardFailure::OutOfService);
            }
            let started = Host::start(&registration.name, Guest::Guard);
            let host = started.inspect_err(|error| tracing::error!(guard = registration.name, %error, "no thread"));
            let host = host.map_err(|_| GuardFailure::OutOfService)?;
            let places = Arc::new(Semaphore::new(registration.concurrency));
            self.seat = Some(Seat { host, places, given_up: GivenUp::default() });
        }
        self.seat.as_mut().ok_or(GuardFailure::OutOfService)
    }

    /// How many of the threads that were given up are blocked still.
    fn blocked_threads(&mut self) -> usize {
        self.abandoned.retain(GivenUp::is_blocked);
        self.abandoned.len()
    }
}

impl Figures {
    const fn fail(&mut self, failure: GuardFailure) {
        self.failed += 1;
        self.last_failure = Some(failure);
    }
}

impl Check {
    async fn finish(mut self, until: Option<Instant>) -> Result<Heard, Unheard> {
        let own = self.until;
        let limit = until.map_or(own, |until| until.min(own));
        let ruling = match timeout_at(limit, &mut self.task).await {
            Ok(Ok(ruling)) => Ok(ruling),
            Ok(Err(error)) if error.is_panic() => Err(GuardFailure::Panicked),
            Ok(Err(_)) => Err(GuardFailure::OutOfService),
            Err(_) if limit < own => return Err(Unheard::Cut),
            Err(_) => Err(GuardFailure::DeadlineExceeded),
        };
        let heard = ruling.and_then(|ruling| judge(ruling, &self.request));
        self.note(&heard);
        heard.map_err(Unheard::Failed)
    }

    fn note(&mut self, heard: &Result<Heard, GuardFailure>) {
        let Some(admission) = self.admission.take() else { return };
        let mut state = self.station.state();
        match heard {
            // Whoever amends badly has answered all the same.
            Ok(_) | Err(GuardFailure::InvalidAmendment) => state.breaker.answered(admission),
            Err(failure) => {
                let was_open = state.breaker.is_open();
                state.breaker.failed(admission, Instant::now());
                if state.breaker.is_open() && !was_open {
                    tracing::warn!(guard = self.station.name(), %failure, "a guard failed too often and is left alone");
                }
            }
        }
        match heard {
            Ok(Heard::Allowed) => state.figures.allowed += 1,
            Ok(Heard::Denied(_)) => state.figures.denied += 1,
            Ok(Heard::Amended(..)) => state.figures.amended += 1,
            Err(failure) => state.figures.fail(*failure),
        }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            self.station.state().breaker.abandoned(admission, Instant::now());
        }
        if !self.task.is_finished() {
            self.task.abort();
            self.given_up.push(self.task.abort_handle());
        }
    }
}

fn judge(ruling: Ruling, request: &GuardRequest) -> Result<Heard, GuardFailure> {
    match ruling {
        Ruling::Allow => Ok(Heard::Allowed),
        Ruling::Deny(code) => Ok(Heard::Denied(code)),
        Ruling::Amend(amendment) if amendment.is_empty() => Ok(Heard::Allowed),
        Ruling::Amend(amendment) => {
            let amended = request.amended(&amendment).ok_or(GuardFailure::InvalidAmendment)?;
            Ok(Heard::Amended(amendment, Arc::new(amended)))
        }
    }
}
