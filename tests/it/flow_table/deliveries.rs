//! Deliveries: a message goes to its recipient or is given up, in a flow that another one led to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use majordomo::SignalKind::{
    PasswordResetRequestFailed, PasswordResetRequestProcessed, ResetPasswordEmail, ResetPasswordPhone,
    UserEmailVerificationFailed, UserEmailVerificationInitiated, UserPhoneVerificationFailed,
    UserPhoneVerificationInitiated, VerifyEmail, VerifyPhone,
};
use majordomo::notifier::{OutgoingMessage, SendError, Transport};
use majordomo::{Channel, Envelope, Flow, FlowId, Lane, Register, RequestPasswordReset, SignalKind, TokenId, UserId};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::scenarios;
use super::stage::{PASSWORD, PHONE, Ran, Stage, Table, assert_tells, email, personal};
use crate::listening::until;

scenarios! {
    a_message_that_was_accepted_ends_its_delivery
    a_message_that_was_refused_for_good_ends_its_delivery
    a_message_that_failed_for_now_ends_its_delivery_once
    a_message_whose_token_expired_first_ends_its_delivery
    a_delivery_that_was_superseded_before_it_began_ends_unsent
}

/// The deliveries that a run led to: what each started with and ended with.
async fn delivered<F: Flow>(stage: &Stage, ran: &Ran<F>) -> Vec<(FlowId, Vec<Envelope>)> {
    tokio::time::timeout(Duration::from_secs(180), stage.test.drain()).await.expect("drained");
    let log = stage.test.recorded();
    let of = |flow| log.iter().filter(|envelope| envelope.flow == flow).cloned().collect::<Vec<_>>();
    let deliveries: Vec<_> = ran.deliveries().into_iter().map(|flow| (flow, of(flow))).collect();
    let first = &ran.signals[0];
    for (_, signals) in &deliveries {
        for (envelope, sender) in signals.iter().zip(["user_manager", "notifier"]) {
            assert_eq!(envelope.cause, Some(first.flow), "led to by its requester");
            assert_eq!((&envelope.actor, personal(&envelope.context)), (&first.actor, personal(&first.context)));
            assert_eq!(envelope.context.told_request_id(), first.context.told_request_id());
            assert_eq!((envelope.lane, envelope.sender.as_str()), (first.lane, sender));
        }
        assert!(signals.iter().all(|envelope| envelope.seq > first.seq && envelope.at >= first.at));
    }
    deliveries
}

/// Somebody who proved both addresses, and can ask for a reset by each.
struct Four {
    stage: Stage,
    user: UserId,
}

fn everything() -> Register {
    Register { email: Some(email("ada")), phone: Some(PHONE.into()), ..Register::new(PASSWORD) }
}

fn reset(identifier: &str, channel: Channel) -> RequestPasswordReset {
    RequestPasswordReset { identifier: identifier.to_owned(), channel }
}

impl Four {
    async fn new() -> Self {
        Self::on(Stage::new().await).await
    }

    async fn on(stage: Stage) -> Self {
        let user = stage.test.register(everything()).await.unwrap().user;
        stage.test.drain().await;
        let (mail, text) = (stage.link(&email("ada")), stage.link(PHONE));
        stage.test.confirm_email(majordomo::ConfirmEmail { proof: mail }).await.unwrap();
        stage.test.confirm_phone(majordomo::ConfirmPhone { proof: text }).await.unwrap();
        // The second address is told to the first, which is no delivery.
        stage.test.drain().await;
        Self { stage, user }
    }

    /// A reset by either channel, each with its token, its delivery and the signals of that.
    async fn resets(&mut self) -> Vec<(Channel, TokenId, FlowId, Vec<Envelope>)> {
        let mut resets = Vec::new();
        for (identifier, channel) in [(email("ada"), Channel::Email), (PHONE.to_owned(), Channel::Phone)] {
            let ran = self.stage.run(reset(&identifier, channel)).await;
            let token = ran.granted().challenge;
            let (flow, signals) = delivered(&self.stage, &ran).await.remove(0);
            resets.push((channel, token, flow, signals));
        }
        resets
    }
}

fn shown(channel: Channel) -> &'static str {
    if channel == Channel::Email { "a***@e***.com" } else { "+44***56" }
}

fn reset_due(channel: Channel, user: UserId, token: TokenId) -> (SignalKind, Value) {
    let address = shown(channel);
    match channel {
        Channel::Email => (ResetPasswordEmail, json!({ "user": user, "address": address, "token": token })),
        Channel::Phone => (ResetPasswordPhone, json!({ "user": user, "phone": address, "token": token })),
    }
}

async fn a_message_that_was_accepted_ends_its_delivery(table: &mut Table) {
    let mut stage = Stage::new().await;
    let ran = stage.run(everything()).await;
    let user = ran.granted().user;
    let deliveries = delivered(&stage, &ran).await;
    for ((flow, signals), (due, end, channel)) in deliveries.iter().zip([
        (VerifyEmail, UserEmailVerificationInitiated, Channel::Email),
        (VerifyPhone, UserPhoneVerificationInitiated, Channel::Phone),
    ]) {
        let ended = json!({ "user": user, "address": shown(channel), "delivery": flow });
        assert_tells(signals, &[(due, json!({ "user": user })), (end, ended)]);
        assert_eq!(signals[0].lane, Lane::User(user));
    }
    assert_eq!((deliveries.len(), stage.test.messages().messages().len()), (2, 2));
    table.close(stage).await;
    let mut four = Four::new().await;
    for (channel, token, flow, signals) in four.resets().await {
        let ended = json!({ "user": four.user, "address": shown(channel), "channel": channel, "delivery": flow });
        assert_tells(&signals, &[reset_due(channel, four.user, token), (PasswordResetRequestProcessed, ended)]);
    }
    table.close(four.stage).await;
}

fn fail(stage: &Stage, error: SendError) {
    stage.test.messages().fail_next(1, error);
}

async fn a_message_that_was_refused_for_good_ends_its_delivery(table: &mut Table) {
    let mut stage = Stage::new().await;
    fail(&stage, SendError::Permanent("no such mailbox".to_owned()));
    fail(&stage, SendError::Permanent("no such number".to_owned()));
    let ran = stage.run(everything()).await;
    let accepted = ran.granted();
    let (user, mail, text) = (accepted.user, accepted.email_challenge, accepted.phone_challenge);
    let ends = [
        (VerifyEmail, UserEmailVerificationFailed, mail, Channel::Email),
        (VerifyPhone, UserPhoneVerificationFailed, text, Channel::Phone),
    ];
    for ((_, signals), (due, end, token, channel)) in delivered(&stage, &ran).await.iter().zip(ends) {
        let ended = json!({ "user": user, "address": shown(channel), "token": token, "reason": "email_send_failed" });
        assert_tells(signals, &[(due, json!({})), (end, ended)]);
    }
    assert!(stage.test.messages().messages().is_empty());
    table.close(stage).await;
    let mut four = Four::new().await;
    fail(&four.stage, SendError::Permanent("no such mailbox".to_owned()));
    fail(&four.stage, SendError::Permanent("no such number".to_owned()));
    for (channel, token, _, signals) in four.resets().await {
        let ended = json!({
            "user": four.user, "channel": channel, "identifier": shown(channel),
            "error_type": "email_send_failed", "reason": "email_send_failed",
        });
        assert_tells(&signals, &[reset_due(channel, four.user, token), (PasswordResetRequestFailed, ended)]);
    }
    table.close(four.stage).await;
}

async fn a_message_that_failed_for_now_ends_its_delivery_once(table: &mut Table) {
    let mut stage = Stage::new().await;
    fail(&stage, SendError::Transient("try again".to_owned()));
    let ran = stage.run(Register { phone: None, ..everything() }).await;
    let (_, signals) = delivered(&stage, &ran).await.remove(0);
    assert_tells(&signals, &[(VerifyEmail, json!({})), (UserEmailVerificationInitiated, json!({}))]);
    assert_eq!(stage.test.messages().messages().len(), 1);
    table.close(stage).await;
}

/// How many messages the notifier sends side by side.
const LANES: usize = 16;

/// Keeps each lane of the notifier busy with a text message until it is opened.
#[derive(Clone)]
struct Gate {
    opened: Arc<Semaphore>,
    arrived: Arc<AtomicUsize>,
}

impl Transport for Gate {
    fn channel(&self) -> Channel {
        Channel::Phone
    }

    async fn send(&self, _message: &OutgoingMessage) -> Result<(), SendError> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.opened.acquire().await.map(drop).map_err(|closed| SendError::Permanent(closed.to_string()))
    }
}

impl Gate {
    /// A stage whose notifier stands at the gate: what is due from now on, it looks at when the gate is opened.
    async fn closed() -> (Self, Four) {
        let gate = Self { opened: Arc::new(Semaphore::new(0)), arrived: Arc::default() };
        let at_gate = gate.clone();
        let four = Four::on(Stage::made(|_| {}, |builder| builder.transport(at_gate)).await).await;
        four.stage.test.drain().await;
        let elsewhere = SendError::Permanent("the next transport has it".to_owned());
        four.stage.test.messages().fail_next(LANES, elsewhere);
        for number in 0..LANES {
            let other = Register { phone: Some(format!("+4479111234{:02}", number)), ..Register::new(PASSWORD) };
            four.stage.test.register(other).await.unwrap();
        }
        until(|| gate.arrived.load(Ordering::SeqCst) == LANES).await;
        (gate, four)
    }

    fn open(&self) {
        self.opened.add_permits(Semaphore::MAX_PERMITS);
    }
}

async fn a_message_whose_token_expired_first_ends_its_delivery(table: &mut Table) {
    let (gate, Four { mut stage, user }) = Gate::closed().await;
    let ran = stage.run(reset(PHONE, Channel::Phone)).await;
    stage.test.advance(Duration::from_secs(3_600));
    gate.open();
    let (_, signals) = delivered(&stage, &ran).await.remove(0);
    let ended = json!({ "user": user, "channel": "phone", "error_type": "email_send_failed", "reason": "expired" });
    let due = reset_due(Channel::Phone, user, ran.granted().challenge);
    assert_tells(&signals, &[due, (PasswordResetRequestFailed, ended)]);
    table.close(stage).await;
}

async fn a_delivery_that_was_superseded_before_it_began_ends_unsent(table: &mut Table) {
    let (gate, Four { mut stage, user }) = Gate::closed().await;
    let older = stage.run(reset(PHONE, Channel::Phone)).await;
    stage.test.advance(majordomo::Policy::default().messages.cool_down);
    let newer = stage.run(reset(PHONE, Channel::Phone)).await;
    gate.open();
    let (_, of_newer) = delivered(&stage, &newer).await.remove(0);
    let (_, of_older) = delivered(&stage, &older).await.remove(0);
    let due = reset_due(Channel::Phone, user, older.granted().challenge);
    let ended = json!({ "user": user, "error_type": "email_send_failed", "reason": "token_mismatch_or_expired" });
    assert_tells(&of_older, &[due, (PasswordResetRequestFailed, ended)]);
    assert_eq!(of_newer.len(), 2);
    table.close(stage).await;
}
