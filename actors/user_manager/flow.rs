//! The flow: one run from admission to answer, with exactly one start and one end, whatever happens between.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use majordomo_model::{
    BreachCheckFailure, Command, Envelope, Error, Failure, Flow, FlowId, Lane, LimitedAction, Reason, Signal,
    SignalClass, SignalId, Timestamp, UserId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

pub(crate) use super::fault::Fault;
use super::lock;
pub(crate) use super::services::Services;
use super::throttle::{self, Counted, Reservation};
use crate::guard::{Amendment, Proposal};
use crate::hasher::Place;
use crate::stamp::{self, SealKey, Stamp};
use crate::storage::{AppliedRow, Batch, Check, Outcome, ReadError, ReadView, Unreadable, UserRow, Verdict, Write};
use crate::telemetry;

/// How often a flow decides again because others changed what it had read.
pub(super) const DECISIONS: usize = 1_000;

/// What the caller of a flow gets.
pub type Answer<F> = Result<<F as Flow>::Reply, Error<<F as Flow>::Reason>>;

/// A flow's own part: its signals, and what it does between them.
pub(crate) trait Perform: Flow {
    /// The signal that starts it.
    fn started(&self, services: &Services) -> Signal;

    /// The signal that ends it when it could not decide: a panic, an outage, a deadline.
    fn failed(&self, services: &Services, why: Failure) -> Signal;

    /// What it counts as, before any work is spent on it.
    fn counted(&self) -> Vec<Counted<'_>> {
        Vec::new()
    }

    /// Whether what it came to uses up the place that it had; otherwise that is given back.
    fn counts(_action: LimitedAction, _answer: &Answer<Self>) -> bool {
        false
    }

    /// Whether this answer is given at a fixed instant, since by its time it could tell whether somebody exists.
    fn is_discreet(_answer: &Answer<Self>) -> bool {
        false
    }

    /// The place in the hasher's line that it is to have, if it needs one; or what it is refused with, counted, before it
    /// starts anything: turning away a flood must cost next to nothing.
    fn admit(_services: &Services, _reservation: Option<&Reservation>) -> Result<Option<Place>, Error<Self::Reason>> {
        Ok(None)
    }

    /// What the guards are asked about before this decision is committed; nothing in a flow that is not guarded.
    fn proposal(&self, _decision: &Decision<Self>) -> Option<Proposal> {
        None
    }

    /// What is told when a guard stops what was decided: the signals that hold all the same, and the end.
    fn stopped(&self, services: &Services, _decision: &Decision<Self>, why: Failure) -> (Vec<Told>, Signal) {
        (Vec::new(), self.failed(services, why))
    }

    /// Gathers facts, hashes, decides and settles.
    fn perform(&self, run: &Run<'_, Self>) -> impl Future<Output = Result<Answer<Self>, Fault>> + Send;

    /// The answer as it is remembered, without secrets; nothing if a repeated command is to be done anew.
    fn remember(answer: &Result<Self::Reply, Self::Reason>) -> Vec<u8>;

    /// The answer that was remembered, if that is an answer to a repeated command.
    fn recall(remembered: &[u8]) -> Option<Result<Self::Reply, Self::Reason>>;
}

/// Remembers an answer that holds no secret.
pub(crate) fn remember<T: Serialize, R: Reason>(answer: &Result<T, R>) -> Vec<u8> {
    rmp_serde::to_vec_named(answer).unwrap_or_default()
}

/// Recalls what [`remember`] made.
pub(crate) fn recall<T: DeserializeOwned, R: Reason>(remembered: &[u8]) -> Option<Result<T, R>> {
    rmp_serde::from_slice(remembered).ok()
}

/// What a flow decided: a pure function of facts. It has one end by construction.
pub(crate) struct Decision<F: Flow> {
    /// What must hold when it is committed.
    pub(crate) checks: Vec<Check>,
    /// What changes.
    pub(crate) writes: Vec<Write>,
    /// The signals between start and end, in order.
    pub(crate) told: Vec<Told>,
    /// The signal that ends the flow.
    pub(crate) end: Signal,
    /// Whose lane its signals are in, and the key that personal data is sealed under.
    pub(crate) subject: Option<(UserId, SealKey)>,
    /// What the caller gets.
    pub(crate) answer: Answer<F>,
}

/// A signal between start and end.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The signal.
    pub(crate) signal: Signal,
    /// The delivery flow that it belongs to, if it starts or ends one.
    pub(crate) delivery: Option<FlowId>,
}

impl From<Signal> for Told {
    fn from(signal: Signal) -> Self {
        Self { signal, delivery: None }
    }
}

impl Told {
    /// A signal that starts a delivery flow, or ends one.
    pub(crate) const fn of(signal: Signal, delivery: FlowId) -> Self {
        Self { signal, delivery: Some(delivery) }
    }
}

impl<F: Flow> Decision<F> {
    /// A refusal that changes nothing.
    pub(crate) fn refuse(reason: F::Reason, end: Signal) -> Self {
        Self {
            checks: Vec::new(),
            writes: Vec::new(),
            told: Vec::new(),
            end,
            subject: None,
            answer: Err(Error::Refused(reason)),
        }
    }

    /// The user as the decision would leave them, if it writes one.
    pub(crate) fn user_after(&self) -> Option<&UserRow> {
        self.writes.iter().find_map(|write| match write {
            Write::PutUser(row) => Some(&**row),
            _ => None,
        })
    }

    /// In the lane of this user.
    pub(crate) fn about(mut self, user: UserId, key: SealKey) -> Self {
        self.subject = Some((user, key));
        self
    }

    /// Adds the check that its user still exists, unless it makes that user or expects something of their row anyway:
    /// nothing is told in the lane of somebody who was deleted meanwhile.
    fn guard(&mut self) {
        let Some((subject, _)) = self.subject else { return };
        let is_first = |write: &Write| matches!(write, Write::PutUser(row) if row.version == 1);
        let is_expected = |check: &Check| match check {
            Check::UserExists(user) | Check::UserVersion(user, _) | Check::Epoch(user, _) => *user == subject,
            _ => false,
        };
        if !self.writes.iter().any(is_first) && !self.checks.iter().any(is_expected) {
            self.checks.push(Check::UserExists(subject));
        }
    }
}

/// One run of a flow.
pub(crate) struct Run<'a, F: Perform> {
    /// What it works with.
    pub(crate) services: &'a Services,
    /// The command that started it.
    pub(crate) command: &'a Command<F>,
    /// When the caller stops waiting.
    pub(crate) deadline: Option<Instant>,
    /// The outcome that the same command had before, if it is to be done anew.
    pub(crate) earlier: Option<AppliedRow>,
    flow: FlowId,
    fingerprint: [u8; 32],
    /// The start, told once and stored with the end: the same signal both times.
    start: (SignalId, Timestamp, Signal),
    /// Its places in the budgets that it counts against, until it has ended.
    pub(super) reservation: Option<Reservation>,
    /// The signal that is told just before the commit, and stored with it: the same name and time both times.
    announced: OnceLock<(SignalId, Timestamp)>,
    /// The place in the hasher's line that is kept for it.
    pub(super) place: Mutex<Option<Place>>,
    /// Why it was not found out whether the new password is known from a breach, if it was asked.
    pub(super) breach_check_failure: OnceLock<BreachCheckFailure>,
    /// How long the hasher took, in microseconds.
    pub(super) hashing_micros: AtomicU64,
    ended: AtomicBool,
}

/// Runs a command to its end. A panic of what a flow says of itself, which is before its start or instead of its end,
/// is answered as well; nothing is stored of such a run. It is one `tracing` span, in the asker's if that has one.
pub(crate) async fn run<F: Perform>(services: &Services, command: &Command<F>, deadline: Option<Instant>) -> Answer<F> {
    let (flow, kind, begun) = (FlowId::new(), F::KIND.as_str(), Instant::now());
    let span = tracing::info_span!("flow", kind, %flow, user = field::Empty, outcome = field::Empty);
    let ran = AssertUnwindSafe(run_caught(services, command, flow, deadline)).catch_unwind();
    let answer = ran.instrument(span.clone()).await.unwrap_or_else(|_| {
        tracing::error!(parent: &span, kind, "a flow panicked outside of its part");
        Err(Fault::Panicked.error())
    });
    let outcome = answer.as_ref().err().map_or("ok", Error::as_str);
    span.record("outcome", outcome);
    telemetry::flow(kind, outcome, begun.elapsed());
    answer
}

async fn run_caught<F: Perform>(
    services: &Services,
    command: &Command<F>,
    flow: FlowId,
    deadline: Option<Instant>,
) -> Answer<F> {
    let earlier = match services.reader.applied(command.id) {
        Ok(earlier) => earlier,
        Err(Unreadable) => return Err(services.refused_without_storage()),
    };
    if let Some(earlier) = &earlier {
        if earlier.kind != F::KIND || earlier.fingerprint.0 != fingerprint(services, command) {
            return Err(Error::CommandIdReused);
        }
        if earlier.settled
            && let Some(answer) = F::recall(&earlier.outcome)
        {
            return answer.map_err(Error::Refused);
        }
    }
    let reservation = throttle::admit(services, command, deadline).await?;
    let place = F::admit(services, reservation.as_ref())?;
    let run = Run { place: Mutex::new(place), reservation, ..Run::new(services, command, flow, deadline, earlier) };
    run.publish(&run.start_envelope(run.stamp(None)));
    let performed = AssertUnwindSafe(command.message.perform(&run)).catch_unwind().await;
    let fault = match performed {
        Ok(Ok(answer)) => return answer,
        Ok(Err(Fault::Storage)) if services.storage.is_released() => Fault::Stopped,
        Ok(Err(fault)) => fault,
        Err(_) => Fault::Panicked,
    };
    run.end(fault).await;
    Err(fault.error())
}

fn fingerprint<F: Flow>(services: &Services, command: &Command<F>) -> [u8; 32] {
    services.keys.fingerprint(&[F::KIND.as_str().as_bytes(), command.message.visible().as_bytes()])
}

impl<'a, F: Perform> Run<'a, F> {
    pub(super) fn new(
        services: &'a Services,
        command: &'a Command<F>,
        flow: FlowId,
        deadline: Option<Instant>,
        earlier: Option<AppliedRow>,
    ) -> Self {
        let start = (SignalId::new(), services.clock.now(), command.message.started(services));
        Self {
            services,
            command,
            deadline,
            earlier,
            flow,
            fingerprint: fingerprint(services, command),
            start,
            reservation: None,
            announced: OnceLock::new(),
            place: Mutex::default(),
            breach_check_failure: OnceLock::new(),
            hashing_micros: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Reads facts, decides and commits, and decides again on fresh facts if they had changed: without hashing again.
    pub(crate) async fn settle(
        &self,
        decide: impl Fn(&ReadView, Timestamp) -> Result<Decision<F>, ReadError> + Send + Sync,
    ) -> Result<Answer<F>, Fault> {
        self.settle_amended(|view, now, _| decide(view, now)).await
    }

    /// As [`Run::settle`], with what the guards amended.
    pub(crate) async fn settle_amended(
        &self,
        decide: impl Fn(&ReadView, Timestamp, &Amendment) -> Result<Decision<F>, ReadError> + Send + Sync,
    ) -> Result<Answer<F>, Fault> {
        let (mut admitted, mut heard) = (None, None);
        let decide = |view: &ReadView, now, amendment: &Amendment| {
            lock::completed(self, view, decide(view, now, amendment)?, now)
        };
        for attempt in 0..DECISIONS {
            let (mut decision, now) = self.decide_guarded(&mut heard, &decide).await?;
            self.spend(&mut decision, now);
            Span::current().record("user", decision.subject.map(|(user, _)| field::display(user)));
            // A failure counts once against its source, however often it is decided.
            if decision.is_mere_failure() && admitted != Some(true) {
                let admits = || self.services.budget.admits_failure(&self.command.context, now);
                if !*admitted.get_or_insert_with(admits) {
                    if self.store_counts(self.flow, &decision).await? {
                        return Ok(self.end_uncommitted(decision, now));
                    }
                    continue;
                }
            }
            let (batch, answer) = self.batch(decision, now);
            if attempt == 0 {
                // Live subscribers hear of what starts before it is stored.
                let starts = |told: &&Envelope| told.signal.kind().class() == SignalClass::Start;
                batch.signals.iter().skip(1).filter(starts).for_each(|told| self.publish(told));
            }
            // Who has to decide again has waited for company once.
            let patience = if attempt == 0 { self.patience() } else { Duration::ZERO };
            match self.services.storage.commit_within(batch, patience).await? {
                Verdict::Committed(_) => {
                    self.ended.store(true, Ordering::Relaxed);
                    return Ok(answer);
                }
                Verdict::AlreadyApplied(_) => return Err(Fault::CommandIdReused),
                Verdict::Conflict if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                    return Err(Fault::Deadline);
                }
                Verdict::Conflict => {}
            }
        }
        Err(Fault::Contended)
    }

    /// Ends the run with a fault: committed if storage works, else told live and kept until it does.
    async fn end(&self, fault: Fault) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let end = self.command.message.failed(self.services, fault.failure());
        let subject = end.user().and_then(|user| self.services.reader.user_row(user).ok().flatten());
        self.end_with(fault, end, subject.map(|row| (row.id, super::policy::seal_key(&row)))).await;
    }

    async fn end_with(&self, fault: Fault, end: Signal, subject: Option<(UserId, SealKey)>) {
        let now = self.services.clock.now();
        let decision = |subject| Decision {
            checks: Vec::new(),
            writes: Vec::new(),
            told: Vec::new(),
            end: end.clone(),
            subject,
            answer: Err(fault.error()),
        };
        let (mut batch, _) = self.batch(decision(subject), now);
        match self.services.storage.commit(batch.clone()).await {
            Ok(Verdict::Committed(_)) => return,
            // The user was deleted meanwhile, or the command is another run's: this run still has an end of its own.
            Ok(Verdict::Conflict | Verdict::AlreadyApplied(_)) => {
                batch = Batch { outcome: None, ..self.batch(decision(None), now).0 };
                stamp::withhold_unsealed(&mut batch.signals);
                if self.services.storage.commit(batch.clone()).await.is_ok() {
                    return;
                }
            }
            Err(_) => {}
        }
        batch.signals.iter().skip(1).for_each(|envelope| self.publish(envelope));
        stamp::withhold_unsealed(&mut batch.signals);
        self.services.storage.commit_with_next(batch);
    }

    /// Ends the run live only, counted: its source has used up its budget of failures that are told one by one.
    fn end_uncommitted(&self, decision: Decision<F>, now: Timestamp) -> Answer<F> {
        self.services.budget.aggregate(F::KIND);
        let (batch, answer) = self.batch(decision, now);
        batch.signals.iter().skip(1).for_each(|envelope| self.publish(envelope));
        self.ended.store(true, Ordering::Relaxed);
        answer
    }

    /// What is committed of a decision, and what the caller gets then.
    fn batch(&self, mut decision: Decision<F>, now: Timestamp) -> (Batch, Answer<F>) {
        decision.guard();
        let (user, key) = decision.subject.unzip();
        decision.told.extend(self.breach_check_failed(user));
        let stamp = self.stamp(user);
        let mut start = self.start_envelope(stamp.clone());
        // What was typed stays a redaction; where it was typed is known to be about the user by now.
        stamp::seal_context(&mut start, key);
        let mut signals = Vec::with_capacity(decision.told.len() + 2);
        signals.push(start);
        for told in decision.told {
            let stamp = match told.delivery {
                Some(delivery) => Stamp { flow: delivery, cause: Some(self.flow), ..stamp.clone() },
                None => stamp.clone(),
            };
            let (id, at) = match told.signal.kind().class() {
                SignalClass::Start => *self.announced.get_or_init(|| (SignalId::new(), now)),
                _ => (SignalId::new(), now),
            };
            signals.push(stamp.envelope(id, at, told.signal, key));
        }
        signals.push(stamp.envelope(SignalId::new(), now, decision.end, key));
        let outcome = Some(self.outcome(&decision.answer, now));
        let batch = Batch { flow: self.flow, outcome, checks: decision.checks, writes: decision.writes, signals };
        (batch, decision.answer)
    }

    /// A refusal is an outcome; what could not be decided is remembered only so that it ends once.
    fn outcome(&self, answer: &Answer<F>, at: Timestamp) -> Outcome {
        let settled = match answer {
            Ok(reply) => Some(Ok(reply.clone())),
            Err(Error::Refused(reason)) => Some(Err(*reason)),
            Err(_) => None,
        };
        Outcome {
            command: self.command.id,
            kind: F::KIND,
            fingerprint: self.fingerprint,
            settled: settled.is_some(),
            answer: settled.map(|answer| F::remember(&answer)).unwrap_or_default(),
            renew: self.earlier.is_some(),
            keep: self.services.policy.outcome_keep,
            at,
        }
    }

    fn stamp(&self, user: Option<UserId>) -> Stamp {
        Stamp {
            flow: self.flow,
            cause: None,
            lane: user.map_or(Lane::Flow(self.flow), Lane::User),
            actor: self.command.actor.clone(),
            context: self.command.context.clone(),
        }
    }

    fn start_envelope(&self, stamp: Stamp) -> Envelope {
        let (id, at, signal) = &self.start;
        stamp.envelope(*id, *at, signal.clone(), None)
    }

    fn publish(&self, envelope: &Envelope) {
        if !self.services.live.is_empty() {
            self.services.live.publish(&[Arc::new(envelope.clone())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{Changed, Delete, Enable, EnableReason, FlowKind};

    use super::super::fixture::Fixture;
    use super::*;

    /// A message that panics at one of the places where a flow is asked what it is.
    struct Panics(&'static str);

    impl Panics {
        fn at(&self, place: &str) {
            assert_ne!(self.0, place, "on purpose");
        }
    }

    impl Flow for Panics {
        const KIND: FlowKind = FlowKind::Enable;
        type Reply = Changed;
        type Reason = EnableReason;

        fn visible(&self) -> String {
            self.at("visible");
            String::new()
        }
    }

    impl Perform for Panics {
        fn started(&self, _services: &Services) -> Signal {
            self.at("started");
            Signal::UserEnableStarted { user: UserId::new() }
        }

        fn failed(&self, _services: &Services, reason: Failure) -> Signal {
            self.at("failed");
            Signal::UserEnableFailed { user: UserId::new(), reason }
        }

        async fn perform(&self, _run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
            Err(Fault::Contended)
        }

        fn remember(answer: &Result<Changed, EnableReason>) -> Vec<u8> {
            remember(answer)
        }

        fn recall(remembered: &[u8]) -> Option<Result<Changed, EnableReason>> {
            recall(remembered)
        }
    }

    #[tokio::test]
    async fn a_flow_that_panics_where_it_says_what_it_is_is_answered() {
        let fixture = Fixture::new().await;
        for place in ["visible", "started", "failed"] {
            assert_eq!(fixture.run(Panics(place)).await, Err(Error::Unexpected), "{place}");
            assert_eq!(fixture.head(), 0, "{place}");
        }
        assert_eq!(fixture.run(Panics("nowhere")).await, Err(Error::Overloaded));
        assert_eq!(fixture.head(), 2, "a start and an end");
    }

    #[tokio::test]
    async fn a_run_that_cannot_decide_has_its_end_even_if_its_user_goes_or_its_command_is_taken() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", None, None).await;
        let key = super::super::policy::seal_key(&fixture.user(user));
        fixture.run(Delete::new(user)).await.unwrap();
        let taken = Command::new(Delete::new(UserId::new()));
        fixture.run(taken.clone()).await.unwrap_err();
        let again = Command::new(Enable { user }).id(taken.id);
        for (command, subject) in [(Command::new(Enable { user }), Some((user, key))), (again, None)] {
            let run = Run::new(&fixture.services, &command, FlowId::new(), None, None);
            let head = fixture.head();
            run.end_with(
                Fault::Deadline,
                command.message.failed(&fixture.services, Failure::DeadlineExceeded),
                subject,
            )
            .await;
            let told = fixture.services.reader.signals_after(head, 9).unwrap();
            assert_eq!(told.len(), 2, "a start and an end");
            assert!(told.iter().all(|told| told.flow == run.flow && told.lane == Lane::Flow(run.flow)));
        }
    }
}
