//! Guarding: how a run asks the guards about what it has decided, and what it commits then.

use std::ops::ControlFlow;
use std::sync::Arc;

use majordomo_model::{Error, Failure, Signal, Timestamp, User};
use tracing::Instrument;

use super::flow::{DECISIONS, Decision, Fault, Perform, Run, Told};
use crate::guard::{Amendment, Cut, GuardRequest, Lapse, Outcome, Verdict};
use crate::storage::{Lookup, ReadError, ReadView};

/// What was heard about a request.
pub(super) struct Hearing {
    request: Arc<GuardRequest>,
    verdict: Verdict,
}

impl<F: Perform> Run<'_, F> {
    /// Decides. What would change anything and is guarded is put before the guards first, and decided again on fresh
    /// facts then: a ruling takes time, and holds for what it was about only.
    pub(super) async fn decide_guarded(
        &self,
        heard: &mut Option<Hearing>,
        decide: &(impl Fn(&ReadView, Timestamp, &Amendment) -> Result<Decision<F>, ReadError> + Send + Sync),
    ) -> Result<(Decision<F>, Timestamp), Fault> {
        let is_guarded = self.services.guards.guards(F::KIND);
        for _ in 0..DECISIONS {
            let now = self.services.clock.now();
            let look = self.services.reader.snapshot(|view| {
                let decision = decide(view, now, &Amendment::default())?;
                if !is_guarded || decision.answer.is_err() {
                    return Ok(ControlFlow::Break(decision));
                }
                let Some(proposal) = self.command.message.proposal(&decision) else {
                    return Ok(ControlFlow::Break(decision));
                };
                let user = known_user(view, &decision)?;
                let hearing = heard.as_ref().filter(|hearing| hearing.request.is_about(&proposal, user.as_ref()));
                let Some(Hearing { verdict, .. }) = hearing else {
                    let (actor, context) = (self.command.actor.clone(), self.command.context.clone());
                    return Ok(ControlFlow::Continue(Arc::new(GuardRequest::new(proposal, user, actor, context, now))));
                };
                match &verdict.outcome {
                    Outcome::Passed(amendment) if amendment.is_empty() => Ok(decision),
                    Outcome::Passed(amendment) => decide(view, now, amendment),
                    stopped => Ok(self.stopped(&decision, user.as_ref(), stopped)),
                }
                .map(|decision| ControlFlow::Break(told_lapses::<F>(decision, user.as_ref(), &verdict.lapses)))
            })?;
            match look {
                ControlFlow::Break(decision) => return Ok((decision, now)),
                ControlFlow::Continue(request) => {
                    let asked = self.services.guards.ask(&request, self.deadline);
                    let asked = asked.instrument(tracing::debug_span!("guards")).await;
                    let verdict = asked.map_err(|Cut| Fault::Deadline)?;
                    *heard = Some(Hearing { request, verdict });
                }
            }
        }
        Err(Fault::Contended)
    }

    /// What the run commits instead of what a guard stopped: nothing but its end, and what holds all the same.
    fn stopped(&self, decision: &Decision<F>, user: Option<&User>, outcome: &Outcome) -> Decision<F> {
        let (why, answer) = match outcome {
            Outcome::Denied(_, code) => (Failure::DeniedByGuard, Error::Denied(*code)),
            _ => (Failure::GuardUnavailable, Error::GuardUnavailable),
        };
        let (mut told, end) = self.command.message.stopped(self.services, decision, why);
        if let Outcome::Denied(guard, code) = outcome {
            let (guard, user) = (guard.clone(), user.map(|user| user.id));
            told.push(Signal::GuardDenied { guard, flow: F::KIND, code: *code, user }.into());
        }
        // Who registers is nobody yet.
        let subject = decision.subject.filter(|_| user.is_some());
        Decision { checks: Vec::new(), writes: Vec::new(), told, end, subject, answer: Err(answer) }
    }
}

/// The user that a decision is about, unless it makes that user.
fn known_user<F: Perform>(view: &ReadView, decision: &Decision<F>) -> Result<Option<User>, ReadError> {
    let Some((user, _)) = decision.subject else { return Ok(None) };
    let Some(row) = view.user(user)? else { return Ok(None) };
    Ok(Some(row.view(view.activity(user)?.as_ref())))
}

fn told_lapses<F: Perform>(mut decision: Decision<F>, user: Option<&User>, lapses: &[Lapse]) -> Decision<F> {
    let told = |lapse: &Lapse| {
        let (guard, user) = (lapse.guard.clone(), user.map(|user| user.id));
        let (failure, allowed) = (lapse.failure, lapse.allowed);
        Told::from(Signal::GuardFailed { guard, flow: F::KIND, failure, allowed, user })
    };
    decision.told.extend(lapses.iter().map(told));
    decision
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use majordomo_model::{
        Authenticate, Change, Command, Context, Delete, DeletionCause, Error, Flow, FlowKind, Password, Register,
        SignalKind, Update,
    };
    use tokio::sync::Semaphore;
    use tokio::time::Instant;

    use super::super::fixture::{Fixture, PASSWORD};
    use super::super::flow::run;
    use super::super::{Manager, Policy};
    use super::*;
    use crate::guard::{FailMode, GUARDED_FLOWS, Guard, GuardRegistration, Panel, Ruling};
    use crate::storage::{Check, Write};

    /// Waits for a permit, notes what it saw, and says this.
    #[derive(Clone)]
    struct Gatekeeper {
        permits: Arc<Semaphore>,
        seen: Arc<Mutex<Vec<GuardRequest>>>,
        asked: Arc<Semaphore>,
        ruling: Ruling,
    }

    impl Gatekeeper {
        fn new(permits: usize, ruling: Ruling) -> Self {
            let (permits, asked) = (Arc::new(Semaphore::new(permits)), Arc::new(Semaphore::new(0)));
            Self { permits, seen: Arc::default(), asked, ruling }
        }

        /// The versions of the users that it was shown.
        fn versions(&self) -> Vec<Option<u64>> {
            self.seen.lock().unwrap().iter().map(|request| request.user.as_ref().map(|user| user.version)).collect()
        }

        async fn is_asked(&self) {
            tokio::time::timeout(Duration::from_secs(30), self.asked.acquire()).await.unwrap().unwrap().forget();
        }

        fn panel(&self, mode: FailMode) -> Panel {
            let registration = GuardRegistration::new("gatekeeper", GUARDED_FLOWS, mode, self.clone());
            Panel::new(vec![registration.deadline(Duration::from_secs(60))])
        }
    }

    impl Guard for Gatekeeper {
        async fn check(&self, request: &GuardRequest) -> Ruling {
            self.seen.lock().unwrap().push(request.clone());
            self.asked.add_permits(1);
            self.permits.acquire().await.unwrap().forget();
            self.ruling.clone()
        }
    }

    async fn guarded(policy: Policy, gatekeeper: &Gatekeeper) -> Fixture {
        let mut fixture = Fixture::with(policy).await;
        fixture.services.guards = gatekeeper.panel(FailMode::Closed);
        fixture
    }

    fn renaming(user: majordomo_model::UserId) -> Update {
        Update { display_name: Change::Set("Ada".to_owned()), ..Update::new(user) }
    }

    fn login() -> Authenticate {
        Authenticate { identifier: "ada".to_owned(), password: Password::new(PASSWORD) }
    }

    #[tokio::test]
    async fn it_is_asked_again_if_what_it_saw_has_changed_and_not_for_a_login_beside_it() {
        let gatekeeper = Gatekeeper::new(1, Ruling::Allow);
        let fixture = guarded(Policy::default(), &gatekeeper).await;
        let user = fixture.register("ada", None, None).await.user;
        gatekeeper.is_asked().await;
        let update = fixture.run(renaming(user));
        let meanwhile = async {
            gatekeeper.is_asked().await;
            let mut row = fixture.user(user);
            let check = Check::UserVersion(user, row.version);
            row.version += 1;
            fixture.write(vec![check], vec![Write::PutUser(Box::new(row))]).await;
            gatekeeper.permits.add_permits(1);
            gatekeeper.is_asked().await;
            fixture.write(Vec::new(), vec![Write::RecordLogin(user, fixture.clock.now())]).await;
            gatekeeper.permits.add_permits(1);
        };
        let (updated, ()) = tokio::join!(update, meanwhile);
        assert_eq!(updated.unwrap().version, 3);
        assert_eq!(gatekeeper.versions(), [None, Some(1), Some(2)]);
    }

    #[tokio::test]
    async fn who_was_shut_out_while_a_guard_was_asked_does_not_enter() {
        let gatekeeper = Gatekeeper::new(1, Ruling::Allow);
        let fixture = guarded(Policy::default(), &gatekeeper).await;
        let user = fixture.register("ada", None, None).await.user;
        gatekeeper.is_asked().await;
        let meanwhile = async {
            gatekeeper.is_asked().await;
            fixture.disable(user).await;
            gatekeeper.permits.add_permits(1);
        };
        let (answer, ()) = tokio::join!(fixture.run(login()), meanwhile);
        assert!(matches!(answer, Err(Error::Refused(_))));
        assert!(fixture.services.reader.sessions_of(user).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_denial_of_somebody_who_is_gone_by_then_is_a_refusal() {
        let gatekeeper = Gatekeeper::new(1, Ruling::deny("no"));
        let mut fixture = guarded(Policy::default(), &gatekeeper).await;
        fixture.services.guards = Panel::default();
        let user = fixture.register("ada", None, None).await.user;
        fixture.services.guards = gatekeeper.panel(FailMode::Closed);
        gatekeeper.permits.forget_permits(1);
        let head = fixture.head();
        let meanwhile = async {
            gatekeeper.is_asked().await;
            fixture.write(Vec::new(), vec![Write::RemoveUser(user)]).await;
            gatekeeper.permits.add_permits(1);
        };
        let (answer, ()) = tokio::join!(fixture.run(renaming(user)), meanwhile);
        assert!(matches!(answer, Err(Error::Refused(_))), "{answer:?}");
        assert_eq!(fixture.kinds_after(head), [SignalKind::UserUpdateStarted, SignalKind::UserUpdateFailed]);
    }

    #[tokio::test]
    async fn a_denial_is_one_commit_that_writes_no_row() {
        let gatekeeper = Gatekeeper::new(9, Ruling::deny("no"));
        let mut fixture = Fixture::new().await;
        let user = fixture.register("ada", None, None).await.user;
        fixture.services.guards = gatekeeper.panel(FailMode::Closed);
        let (row, commits) = (fixture.user(user), fixture.services.storage.observe().batches);
        assert!(matches!(fixture.run(renaming(user)).await, Err(Error::Denied(_))));
        assert!(matches!(fixture.run(Delete::new(user)).await, Err(Error::Denied(_))));
        assert!(matches!(fixture.run(login()).await, Err(Error::Denied(_))));
        assert_eq!(fixture.services.storage.observe().batches - commits, 3);
        assert!(fixture.user(user) == row);
        let shown = fixture.services.reader.user(user).unwrap().unwrap();
        assert_eq!((shown.last_login_at, fixture.services.reader.sessions_of(user).unwrap().len()), (None, 0));
    }

    #[tokio::test]
    async fn denials_beyond_the_budget_of_their_source_are_counted_and_not_written() {
        let gatekeeper = Gatekeeper::new(99, Ruling::deny("no"));
        let fixture = guarded(Policy { failures_per_source: 2, ..Policy::default() }, &gatekeeper).await;
        let commits = fixture.services.storage.observe().batches;
        for number in 0..5 {
            let message = Register { username: Some(format!("user{number}")), ..Register::new(PASSWORD) };
            let context = Context::new().client_ip("192.0.2.1".parse().unwrap());
            let answer = fixture.run(Command::new(message).context(context)).await;
            assert!(matches!(answer, Err(Error::Denied(_))));
        }
        assert_eq!(fixture.services.storage.observe().batches - commits, 2);
        let counted = fixture.services.budget.take();
        assert_eq!(counted, [Signal::FailuresAggregated { flow: FlowKind::Register, count: 3 }]);
    }

    #[tokio::test]
    async fn the_sweep_asks_nobody() {
        let gatekeeper = Gatekeeper::new(0, Ruling::deny("stay"));
        let mut fixture = Fixture::new().await;
        let user = fixture.register("ada", Some("ada@example.com"), None).await.user;
        fixture.services.guards = gatekeeper.panel(FailMode::Closed);
        fixture.pass(Duration::from_secs(8 * 24 * 3600));
        let manager = Manager::new(Arc::new(fixture.services));
        manager.sweep().await;
        assert!(manager.services.reader.user(user).unwrap().is_none());
        assert_eq!(gatekeeper.versions(), []);
    }

    #[tokio::test]
    async fn a_flow_whose_time_is_over_ends_without_the_ruling() {
        let gatekeeper = Gatekeeper::new(0, Ruling::Allow);
        let fixture = guarded(Policy::default(), &gatekeeper).await;
        let command = Command::new(Register { username: Some("ada".to_owned()), ..Register::new(PASSWORD) });
        let deadline = Instant::now() + Duration::from_secs(1);
        let answer = run(&fixture.services, &command, Some(deadline)).await;
        assert_eq!(answer, Err(Error::DeadlineExceeded));
        assert_eq!(fixture.kinds_after(0), [SignalKind::UserRegistrationStarted, SignalKind::UserRegistrationFailed]);
    }

    #[tokio::test]
    async fn a_proposal_is_made_in_guarded_flows_only_and_for_no_maintenance() {
        assert!(
            GUARDED_FLOWS
                .iter()
                .all(|flow| [Register::KIND, Authenticate::KIND, Update::KIND, Delete::KIND].contains(flow))
        );
        let user = majordomo_model::UserId::new();
        let decision = || Decision::<Delete>::refuse(majordomo_model::DeleteReason::UserNotFound, end(user));
        assert!(Delete::new(user).proposal(&decision()).is_some());
        assert!(Delete { user, cause: DeletionCause::NeverVerified }.proposal(&decision()).is_none());
    }

    fn end(user: majordomo_model::UserId) -> Signal {
        Signal::UserDeletionStarted { user }
    }
}
