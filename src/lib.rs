//! User accounts for a Rust app, as a supervised actor system with durable signals.
#![doc = include_str!("../README.md")]

mod accounts;
mod builder;
mod config;
mod subscriptions;
#[cfg(feature = "testing")]
pub mod testing;
mod trail;
#[cfg(feature = "webhook")]
mod webhooks;

pub use accounts::{Accounts, PAGE_LIMIT};
pub use builder::{BuildError, Builder};
pub use config::Config;
pub use majordomo_actors::auditor::{
    AuditFault, AuditFlaw, AuditGap, AuditHash, AuditHead, AuditKeyId, AuditPage, AuditPublicKey, AuditQuery,
    AuditRange, AuditReadError, AuditRecord, GapCause, HeadPurpose, Hex, InvalidHex, VerifiedAudit, verify_audit,
};
pub use majordomo_actors::breach;
pub use majordomo_actors::clock::Clock;
pub use majordomo_actors::gauge::GaugeReading;
pub use majordomo_actors::guard::{
    Amendment, FailMode, GUARDED_FLOWS, Guard, GuardRegistration, GuardRequest, GuardState, Proposal, Ruling,
};
pub use majordomo_actors::hasher::{
    Ceiling, HashKernel, HashParameters, HasherSettings, HasherSettingsError, HasherState,
};
pub use majordomo_actors::keys::{KeyError, KeyId, Keyring};
pub use majordomo_actors::live::Live;
pub use majordomo_actors::notifier;
pub use majordomo_actors::outbox::{
    DeadLetter, FailedAttempt, IN_HAND_LIMIT, LINGER_LIMIT, LastFailure, LetterState, Moved, OperationError,
    RebuildStarted, RebuildState, RegistrationError, SUBSCRIPTION_NAME_LIMIT, Subscription, SubscriptionSettings,
    SubscriptionState, SubscriptionStatus, UnattachedSubscription,
};
pub use majordomo_actors::storage::{
    EngineSettings, Integrity, LogState, OpenError, ProjectionValues, StorageSettings, StorageState, Unreadable,
    check_integrity,
};
pub use majordomo_actors::subscriber::{
    Capability, Delivery, DueMessage, Effect, Outcome, Subscriber, SubscriberContext, Unanswered,
};
pub use majordomo_actors::supervisor::{
    ActorDetail, ActorState, ActorStatus, Health, HealthFault, OrderError, SpawnError, Tree, UserManagerState,
};
pub use majordomo_actors::telemetry::{METRICS, Metric, MetricKind, metrics_table};
pub use majordomo_actors::user_manager::{
    ActionLimits, Answer, Limit, Limits, MessageLimits, Policy, Question, Registration, Requirement, TextBreaker,
    TextLimits, Verification,
};
pub use majordomo_model::*;
pub use ractor;
pub use trail::{AuditExportError, AuditVerifyError};
#[cfg(feature = "webhook")]
pub use webhooks::webhook;
