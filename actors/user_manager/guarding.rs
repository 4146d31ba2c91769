//! Guarding: how a run asks the guards about what it has decided, and what it commits then.

use majordomo_model::{Error, Failure, Signal, Timestamp, User};

use super::flow::{DECISIONS, Decision, Fault, Perform, Run, Told};
use crate::guard::{Amendment, Cut, GuardRequest, Lapse, Outcome, Verdict};
use crate::storage::{Lookup, ReadError, ReadView};

/// What was heard about a request.
pub(super) struct Hearing {
    request: GuardRequest,
    verdict: Verdict,
}

/// What one look at the store led to.
enum Look<F: Perform> {
    Decided(Decision<F>),
    Ask(GuardRequest),
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
                    return Ok(Look::Decided(decision));
                }
                let Some(proposal) = self.command.message.proposal(&decision) else {
                    return Ok(Look::Decided(decision));
                };
                let user = known_user(view, &decision)?;
                let hearing = heard.as_ref().filter(|hearing| hearing.request.is_about(&proposal, user.as_ref()));
                let Some(Hearing { verdict, .. }) = hearing else {
                    let (actor, context) = (self.command.actor.clone(), self.command.context.clone());
                    return Ok(Look::Ask(GuardRequest::new(proposal, user, actor, context, now)));
                };
                match &verdict.outcome {
                    Outcome::Passed(amendment) if amendment.is_empty() => Ok(decision),
                    Outcome::Passed(amendment) => decide(view, now, amendment),
                    stopped => Ok(self.stopped(&decision, user.as_ref(), stopped)),
                }
                .map(|decision| Look::Decided(told_lapses::<F>(decision, user.as_ref(), &verdict.lapses)))
            })?;
            match look {
                Look::Decided(decision) => return Ok((decision, now)),
                Look::Ask(request) => {
                    let asked = self.services.guards.ask(request.clone(), self.deadline).await;
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
