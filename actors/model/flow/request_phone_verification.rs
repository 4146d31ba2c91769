//! Request phone verification: a message that proves a phone number is asked for, again.

use super::{Claimant, VerificationRequested, flow};
use crate::reason::reasons;

/// Asks for a fresh message that proves a phone number; earlier ones for the same address stop working.
///
/// The answer is the same whether or not there is anything to send; the signals tell the truth.
#[derive(Clone)]
pub struct RequestPhoneVerification {
    /// Whose address.
    pub claimant: Claimant,
}

reasons! {
    /// Why a verification message was not accepted for sending.
    RequestPhoneVerificationReason {
        PhoneInvalid = "phone_invalid": "the phone number is not acceptable",
    }
}

flow!(RequestPhoneVerification, RequestPhoneVerification, VerificationRequested, RequestPhoneVerificationReason, |m| m
    .claimant
    .visible());
