//! What a signal's field can tell about itself: whose user it speaks of, and which personal data it holds.

use crate::denial_code::DenialCode;
use crate::id::{ContactId, FlowId, SessionId, SignalId, TokenId, UserId};
use crate::personal::Personal;
use crate::reason::{
    BreachCheckFailure, ChangeKind, DeletionCause, ErrorType, Failure, GuardFailure, LimitScope, LimitedAction,
    LoginMethod, MessageKind, PasswordCause, ProofMethod, RefusalCause, RevocationCause,
};
use crate::time::Timestamp;
use crate::{Channel, IdentifierKind};

use super::kind::FlowKind;

/// A type that a signal's field may have.
pub trait SignalField {
    /// The user it names.
    fn user(&self) -> Option<UserId> {
        None
    }

    /// Shows every personal value inside it.
    fn visit_personal(&mut self, _visit: &mut dyn FnMut(&mut Personal)) {}
}

impl SignalField for UserId {
    fn user(&self) -> Option<UserId> {
        Some(*self)
    }
}

impl SignalField for Personal {
    fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut Personal)) {
        visit(self);
    }
}

impl<T: SignalField> SignalField for Option<T> {
    fn user(&self) -> Option<UserId> {
        self.as_ref().and_then(SignalField::user)
    }

    fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut Personal)) {
        if let Some(inner) = self {
            inner.visit_personal(visit);
        }
    }
}

impl<T: SignalField> SignalField for Vec<T> {
    fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut Personal)) {
        for inner in self {
            inner.visit_personal(visit);
        }
    }
}

macro_rules! plain_fields {
    ($($type:ty)*) => { $(impl SignalField for $type {})* };
}

plain_fields! {
    bool u32 u64 String Timestamp ContactId SessionId TokenId FlowId SignalId FlowKind Channel IdentifierKind Failure
    ErrorType PasswordCause ProofMethod LoginMethod RevocationCause DeletionCause RefusalCause MessageKind
    DenialCode GuardFailure ChangeKind BreachCheckFailure LimitedAction LimitScope
}
