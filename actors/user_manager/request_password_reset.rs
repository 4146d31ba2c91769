//! Request password reset: a message that permits a new password is asked for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use majordomo_model::{
    Channel, Contact, Failure, Identifier, LimitedAction, Personal, RequestPasswordReset, RequestPasswordResetReason,
    ResetRequested, Signal, Timestamp, UserId, UserStatus,
};

use super::common_budget::Due;
use super::epoch::open_tokens;
use super::flow::{Answer, Decision, Fault, Perform, Run, Services, recall, remember};
use super::fresh_token::{FreshToken, supersede};
use super::message_budget::{Asked, MessageBudget, Remembered};
use super::policy::{Policy, personal_contact, reset_purpose, seal_key, typed};
use super::throttle::Counted;
use crate::keys::Keyring;
use crate::storage::{Answered, Check, ContactRow, Lookup, ReadError, ReadView, TokenRow, UniqueKey, UserRow, Write};
use crate::token::Binding;

/// What was asked for, found to be an identifier.
struct Request {
    identifier: Identifier,
    /// The same, as cool-downs know it.
    asked: Asked,
    channel: Channel,
    /// What was typed, as signals show it.
    shown: Personal,
}

/// What the store says.
struct Facts {
    user: Option<UserRow>,
    /// The tokens that a new one takes the place of.
    older: Vec<TokenRow>,
    /// The last request of the same.
    last: Remembered,
    /// The messages to where this one would go.
    budget: MessageBudget,
    now: Timestamp,
}

impl Request {
    fn new(identifier: Identifier, channel: Channel, shown: Personal) -> Self {
        let (kind, text) = (identifier.kind().as_str(), identifier.canonical().to_owned());
        Self { asked: Asked { purpose: reset_purpose(channel), kind, text }, identifier, channel, shown }
    }
}

impl Facts {
    fn read(view: &ReadView, keys: &Keyring, request: &Request, now: Timestamp) -> Result<Self, ReadError> {
        let user = view.user_named(&request.identifier)?;
        let purpose = reset_purpose(request.channel);
        let older = user.as_ref().map_or(Ok(Vec::new()), |user| view.open_tokens(user.id, purpose, None))?;
        let typed = typed_address(request);
        let address = match target(request, user.as_ref()) {
            Ok((_, contact)) => Some(contact.canonical.as_str()),
            Err(_) => typed.as_ref().map(Contact::canonical),
        };
        let budget = MessageBudget::read(view, &request.asked.destination(keys, request.channel, address))?;
        let last = Remembered::read(view, request.asked.cool_down(keys))?;
        Ok(Self { user, older, last, budget, now })
    }
}

/// Where the message goes, or why there is none: to an address that was proven, never to one that was only typed.
fn target<'a>(request: &Request, user: Option<&'a UserRow>) -> Result<(&'a UserRow, &'a ContactRow), Failure> {
    let user = user.ok_or(Failure::UserNotFound)?;
    if user.status != UserStatus::Active {
        return Err(Failure::UserInactive);
    }
    let of_channel = || user.contacts.iter().filter(|contact| contact.channel == request.channel);
    let proven = |contact: &&ContactRow| contact.proven_at.is_some();
    let typed = typed_address(request).and_then(|address| user.contact_at(request.channel, address.canonical()));
    let target = typed.filter(proven).or_else(|| of_channel().filter(proven).find(|contact| contact.primary));
    match target {
        Some(contact) => Ok((user, contact)),
        None if of_channel().next().is_some() => Err(Failure::ContactNotVerified),
        None => Err(Failure::ContactNotFound),
    }
}

/// The address that was typed, if it is one of the channel.
fn typed_address(request: &Request) -> Option<Contact> {
    let address = match request.identifier.clone() {
        Identifier::Email(email) => Contact::from(email),
        Identifier::Phone(phone) => Contact::from(phone),
        Identifier::Username(_) => return None,
    };
    Some(address).filter(|address| address.channel() == request.channel)
}

/// Facts in, batch out. Whatever they say, as many rows are written and one answer given.
fn decide(request: &Request, fresh: FreshToken, facts: &Facts, policy: &Policy) -> Decision<RequestPasswordReset> {
    let user = facts.user.as_ref();
    let subject = user.map(|user| (user.id, seal_key(user)));
    if let Some(answered) = facts.last.answered(facts.now, &policy.messages) {
        let end = failed(request.channel, &request.shown, user.map(|user| user.id), Failure::CoolDown);
        let (checks, writes, told) = (Vec::new(), Vec::new(), Vec::new());
        return Decision { checks, writes, told, end, subject, answer: Ok(reply(&answered)) };
    }
    let span = policy.reset_span(request.channel, facts.now);
    let purpose = reset_purpose(request.channel);
    let mut checks = vec![Check::Owner(UniqueKey::identifier(&request.identifier), user.map(|user| user.id))];
    checks.extend(user.map(|user| Check::UserVersion(user.id, user.version)));
    let (mut writes, mut told) = (Vec::new(), Vec::new());
    let target = target(request, user);
    let allowance = facts.budget.spend(Due::proof(target.is_ok()), facts.now, &policy.messages);
    let (row, end) = match target {
        Ok((user, contact)) => {
            let binding = Binding::CredentialEpoch(user.epoch);
            // A message that is not sent takes nobody's link away.
            if allowance.is_granted {
                checks.push(open_tokens(user.id, purpose, &facts.older));
                writes.extend(supersede(&facts.older));
            }
            let row = fresh.row(purpose, Some(user.id), &contact.canonical, binding, span);
            let (row, delivery) = allowance.dispatch(row, due(user.id, contact, fresh));
            told.extend(delivery);
            let (channel, token) = (request.channel, fresh.token);
            (row, Signal::PasswordResetRequestAccepted { user: user.id, channel, token })
        }
        Err(reason) => {
            let address = URL_SAFE_NO_PAD.encode(request.shown.hash().copied().unwrap_or_default());
            let end = failed(request.channel, &request.shown, user.map(|user| user.id), reason);
            (fresh.row(purpose, None, &address, Binding::CredentialEpoch(0), span), end)
        }
    };
    let code_expires_at = row.code_expires_at(policy.code_lifetime);
    let answered = Answered { at: facts.now, challenge: row.id, expires_at: row.expires_at, code_expires_at };
    writes.push(Write::PutToken(Box::new(row)));
    allowance.enter(&mut checks, &mut writes);
    facts.last.answer(answered, &policy.messages).enter(&mut checks, &mut writes);
    Decision { checks, writes, told, end, subject, answer: Ok(reply(&answered)) }
}

const fn reply(answered: &Answered) -> ResetRequested {
    let Answered { challenge, expires_at, code_expires_at, .. } = *answered;
    ResetRequested { challenge, expires_at, code_expires_at }
}

/// The signal that starts the delivery.
fn due(user: UserId, contact: &ContactRow, fresh: FreshToken) -> Signal {
    let (address, token) = (personal_contact(contact), fresh.token);
    match contact.channel {
        Channel::Email => Signal::ResetPasswordEmail { user, address, token },
        Channel::Phone => Signal::ResetPasswordPhone { user, phone: address, token },
    }
}

fn failed(channel: Channel, shown: &Personal, user: Option<UserId>, reason: Failure) -> Signal {
    let (identifier, error_type) = (shown.clone(), reason.error_type());
    Signal::PasswordResetRequestFailed { user, channel, identifier, error_type, reason }
}

impl Perform for RequestPasswordReset {
    fn started(&self, services: &Services) -> Signal {
        let identifier = typed(&services.keys, &self.identifier);
        Signal::PasswordResetRequestStarted { channel: self.channel, identifier }
    }

    fn failed(&self, services: &Services, why: Failure) -> Signal {
        failed(self.channel, &typed(&services.keys, &self.identifier), None, why)
    }

    fn counted(&self) -> Vec<Counted<'_>> {
        vec![Counted::of(LimitedAction::Reset)]
    }

    fn counts(_action: LimitedAction, answer: &Answer<Self>) -> bool {
        answer.is_ok()
    }

    fn is_discreet(answer: &Answer<Self>) -> bool {
        answer.is_ok()
    }

    async fn perform(&self, run: &Run<'_, Self>) -> Result<Answer<Self>, Fault> {
        let (services, channel) = (run.services, self.channel);
        let shown = typed(&services.keys, &self.identifier);
        let Ok(identifier) = Identifier::guess(&self.identifier) else {
            let end = failed(channel, &shown, None, Failure::IdentifierInvalid);
            let reason = RequestPasswordResetReason::IdentifierInvalid;
            return run.settle(|_, _| Ok(Decision::refuse(reason, end.clone()))).await;
        };
        let request = Request::new(identifier, channel, shown);
        let fresh = FreshToken::draw(services.tokens.current_key());
        run.settle(|view, now| {
            let facts = Facts::read(view, &services.keys, &request, now)?;
            Ok(decide(&request, fresh, &facts, &services.policy))
        })
        .await
    }

    fn remember(answer: &Result<ResetRequested, RequestPasswordResetReason>) -> Vec<u8> {
        remember(answer)
    }

    fn recall(remembered: &[u8]) -> Option<Result<ResetRequested, RequestPasswordResetReason>> {
        recall(remembered)
    }
}

#[cfg(test)]
mod tests {
    use majordomo_model::{ContactId, Delete, Disable, Email, Error, SignalKind};
    use proptest::prelude::*;

    use super::super::fixture::{Fixture, NOW, any_user, assert_one_end, unlimited};
    use super::super::message_budget::cases::{budget, remembered};
    use super::*;
    use crate::storage::DeliveryState;

    fn request(identifier: &str, channel: Channel) -> RequestPasswordReset {
        RequestPasswordReset { identifier: identifier.to_owned(), channel }
    }

    #[tokio::test]
    async fn a_request_tells_its_story_in_one_commit_and_changes_nothing_about_the_account() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), Some("+447911123456")).await;
        fixture.session("ada").await;
        let state = || {
            let reader = &fixture.services.reader;
            let credential = reader.snapshot(|view| view.credential(user)).unwrap();
            (reader.user_row(user).unwrap(), credential, reader.sessions_of(user).unwrap())
        };
        let before = state();
        for (identifier, channel, address, due) in [
            ("ADA", Channel::Email, "ada@example.com", SignalKind::ResetPasswordEmail),
            ("Ada@Example.com", Channel::Email, "ada@example.com", SignalKind::ResetPasswordEmail),
            ("ada@example.com", Channel::Phone, "+447911123456", SignalKind::ResetPasswordPhone),
        ] {
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            let reply = fixture.run(request(identifier, channel)).await.unwrap();
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(
                fixture.kinds_after(head),
                [SignalKind::PasswordResetRequestStarted, due, SignalKind::PasswordResetRequestAccepted]
            );
            let row = fixture.services.reader.token(reply.challenge).unwrap().unwrap();
            assert_eq!((row.user, row.address.as_str(), row.expires_at), (Some(user), address, reply.expires_at));
            let mut told = fixture.services.reader.signals_after(head, 3).unwrap();
            assert_eq!((told[1].flow, told[1].cause), (row.delivery, Some(told[0].flow)));
            let mut exposed = None;
            told[1].signal.visit_personal(&mut |personal| exposed = personal.expose().map(str::to_owned));
            assert_eq!(exposed.as_deref(), Some(address));
        }
        assert!(before == state());
    }

    #[tokio::test]
    async fn in_vain_or_not_the_caller_sees_the_same_and_the_signals_tell_the_truth() {
        let fixture = Fixture::new().await;
        fixture.register_proven("ada", Some("ada@example.com"), None).await;
        fixture.register("grace", Some("grace@example.com"), None).await;
        let disabled = fixture.register_proven("edsger", Some("edsger@example.com"), None).await;
        fixture.run(Disable { user: disabled }).await.unwrap();
        let deleted = fixture.register_proven("barbara", Some("barbara@example.com"), None).await;
        fixture.run(Delete::new(deleted)).await.unwrap();
        let jobs = fixture.services.hasher.observe().jobs_done;
        for (identifier, channel, failure) in [
            ("nobody", Channel::Email, Failure::UserNotFound),
            ("nobody@example.com", Channel::Email, Failure::UserNotFound),
            ("+447911123456", Channel::Phone, Failure::UserNotFound),
            ("grace@example.com", Channel::Email, Failure::UserNotFound),
            ("grace", Channel::Email, Failure::ContactNotVerified),
            ("ada", Channel::Phone, Failure::ContactNotFound),
            ("edsger", Channel::Email, Failure::UserInactive),
            ("barbara@example.com", Channel::Email, Failure::UserNotFound),
        ] {
            let (head, commits) = (fixture.head(), fixture.services.storage.observe().batches);
            let reply = fixture.run(request(identifier, channel)).await.unwrap();
            assert_eq!(fixture.services.storage.observe().batches - commits, 1);
            assert_eq!(
                fixture.kinds_after(head),
                [SignalKind::PasswordResetRequestStarted, SignalKind::PasswordResetRequestFailed]
            );
            let Signal::PasswordResetRequestFailed { reason, .. } = fixture.last_signal() else { panic!() };
            assert_eq!(reason, failure, "{identifier}");
            let row = fixture.services.reader.token(reply.challenge).unwrap().unwrap();
            assert_eq!((row.user, row.purpose, row.expires_at), (None, reset_purpose(channel), reply.expires_at));
            assert!(!row.address.contains(identifier));
        }
        assert_eq!(fixture.services.hasher.observe().jobs_done, jobs);
    }

    #[tokio::test]
    async fn somebody_or_nobody_leaves_the_same_rows_and_the_sweep_removes_them() {
        let fixture = Fixture::new().await;
        fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let (keys, purpose) = (&fixture.services.keys, reset_purpose(Channel::Email));
        let kept = |name: &str, address| {
            let asked = Asked { purpose, kind: "username", text: name.to_owned() };
            let subjects = [asked.cool_down(keys), asked.budget(keys, Channel::Email, address)];
            let is_kept = |subject| fixture.services.reader.snapshot(|view| view.messages(&subject)).unwrap().is_some();
            subjects.map(is_kept)
        };
        let all = || [kept("ada", Some("ada@example.com")), kept("nobody", None)];
        assert_eq!(all(), [[false; 2]; 2], "what proved the address counts by itself");
        fixture.pass(std::time::Duration::from_secs(3_600));
        for name in ["ada", "nobody"] {
            fixture.run(request(name, Channel::Email)).await.unwrap();
        }
        assert_eq!(all(), [[true; 2]; 2]);
        for (seconds, left) in [(61, [false, true]), (24 * 3_600, [false, false])] {
            fixture.pass(std::time::Duration::from_secs(seconds));
            fixture.services.storage.sweep().await.unwrap();
            assert_eq!(all(), [left; 2], "after {seconds} seconds more");
        }
    }

    #[tokio::test]
    async fn what_is_no_identifier_is_refused() {
        let fixture = Fixture::new().await;
        for identifier in ["", "a b", "@", "07911"] {
            let head = fixture.head();
            let refused = fixture.run(request(identifier, Channel::Email)).await.unwrap_err();
            assert_eq!(refused, Error::Refused(RequestPasswordResetReason::IdentifierInvalid));
            assert_eq!(
                fixture.kinds_after(head),
                [SignalKind::PasswordResetRequestStarted, SignalKind::PasswordResetRequestFailed]
            );
        }
    }

    #[tokio::test]
    async fn a_typed_address_is_taken_before_the_primary_one_if_it_is_proven() {
        let fixture = Fixture::new().await;
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let mut row = fixture.services.reader.user_row(user).unwrap().unwrap();
        let second = Contact::from(Email::parse("second@example.com").unwrap());
        let proven_at = Some(fixture.clock.now());
        row.contacts.push(ContactRow { proven_at, ..ContactRow::claim(ContactId::new(), &second, NOW) });
        let key = UniqueKey::address(Channel::Email, second.canonical());
        fixture.write(Vec::new(), vec![Write::PutUser(Box::new(row)), Write::PutOwner(key, user)]).await;
        for (identifier, address) in [("second@example.com", "second@example.com"), ("ada", "ada@example.com")] {
            let reply = fixture.run(request(identifier, Channel::Email)).await.unwrap();
            assert_eq!(fixture.services.reader.token(reply.challenge).unwrap().unwrap().address, address);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_many_requests_at_once_one_token_stays_open() {
        let fixture = std::sync::Arc::new(Fixture::with(unlimited()).await);
        let user = fixture.register_proven("ada", Some("ada@example.com"), None).await;
        let requests = (0..50).map(|_| {
            let fixture = std::sync::Arc::clone(&fixture);
            tokio::spawn(async move { fixture.reset_token("ada").await })
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.unwrap();
        }
        let open = fixture.services.reader.snapshot(|view| view.open_tokens(user, reset_purpose(Channel::Email), None));
        assert_eq!(open.unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn whatever_the_facts_it_ends_once_with_one_row_and_one_answer(
            user in prop::option::of(any_user()),
            identifier in prop_oneof!["ada", "ada@example\\.com", "\\+447911123456"],
            by_phone: bool,
            (last, budget) in (remembered(NOW), budget(NOW)),
        ) {
            let keys = Keyring::ephemeral().unwrap();
            let channel = if by_phone { Channel::Phone } else { Channel::Email };
            let shown = typed(&keys, &identifier);
            let request = Request::new(Identifier::guess(&identifier).unwrap(), channel, shown);
            let is_text = budget.is_text();
            let facts = Facts { user, older: Vec::new(), last, budget, now: NOW };
            let (policy, fresh) = (Policy::default(), FreshToken::draw(keys.current()));
            let decision = decide(&request, fresh, &facts, &policy);
            assert_one_end(&decision);
            let reply = decision.answer.as_ref().unwrap();
            if let Some(answered) = facts.last.answered(NOW, &policy.messages) {
                prop_assert_eq!(reply.challenge, answered.challenge);
                prop_assert!(decision.writes.is_empty() && decision.told.is_empty());
                return Ok(());
            }
            let [Write::PutToken(row), Write::PutMessages(..), common @ .., Write::PutMessages(..)] =
                decision.writes.as_slice()
            else {
                panic!("{:?}", decision.writes)
            };
            prop_assert_eq!(row.id, reply.challenge);
            let is_common =
                |write: &Write| matches!(write, Write::Spend { .. } | Write::CountText(..) | Write::PutTexts(..));
            let rows = if is_text { 4 } else { 0 };
            prop_assert!(common.len() == rows && common.iter().all(is_common), "whoever is meant: {:?}", common);
            let breaker = [SignalKind::MessageBreakerOpened, SignalKind::MessageBreakerClosed];
            let told = decision.told.iter().filter(|told| !breaker.contains(&told.signal.kind())).count();
            prop_assert_eq!(row.user.is_some(), told > 0);
            prop_assert_eq!(row.delivered == DeliveryState::Failed, told == 2);
            if let Some(user) = row.user.and(facts.user.as_ref()) {
                prop_assert!(user.contact_at(channel, &row.address).unwrap().proven_at.is_some());
            }
        }
    }
}
