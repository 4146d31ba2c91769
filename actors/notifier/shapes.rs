//! Shapes: sample data in every combination in which a message can come, to check templates with and to look at.

use majordomo_model::{MessageKind, Timestamp};

use super::facts::{Detail, TokenFacts, UndoFacts};

/// Where the samples' links lead, behind the base URL.
pub(super) const PATH: &str =
    "/accounts/user_verification_confirm/AZoPZ1Vtc5GvqGLcQkT2Xg/mdt_Yx3kQf9uV7cT2bNw5hLs8aRd/";
/// 2026-01-01T00:00:00Z.
pub(super) const SAMPLE_TIME: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

/// One combination: what tells it from the usual one, empty for that, and the facts.
pub(super) struct Shape<'a> {
    pub(super) name: &'static str,
    pub(super) detail: Detail<'a>,
}

/// The code of the samples, as long as those of the message are.
pub(super) const fn sample_code(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::VerifyEmail | MessageKind::VerifyPhone => "314159",
        _ => "31415926",
    }
}

/// The link that takes a change back.
fn undo(link: &str) -> Detail<'_> {
    Detail::Undo(UndoFacts { link, expires_at: SAMPLE_TIME.plus(7 * 24 * HOUR) })
}

/// Every combination in which a message can come.
pub(super) fn shapes(kind: MessageKind, link: &str) -> Vec<Shape<'_>> {
    let shape = |name, detail| Shape { name, detail };
    match kind {
        MessageKind::VerifyEmail
        | MessageKind::VerifyPhone
        | MessageKind::ResetPasswordEmail
        | MessageKind::ResetPasswordPhone => {
            let code = Some((sample_code(kind), SAMPLE_TIME.plus(HOUR / 6)));
            let token = TokenFacts { link: Some(link), expires_at: SAMPLE_TIME.plus(HOUR), code };
            let mut shapes = vec![
                shape("", Detail::Token(token)),
                shape("code_expired", Detail::Token(TokenFacts { code: None, ..token })),
            ];
            if matches!(kind, MessageKind::VerifyEmail | MessageKind::VerifyPhone) {
                shapes.push(shape("code_only", Detail::Token(TokenFacts { link: None, ..token })));
            }
            shapes
        }
        MessageKind::NewSignIn => {
            let (device, network) = (Some("Firefox on Windows"), Some("203.0.113.*"));
            vec![
                shape("", Detail::SignIn { device, network }),
                shape("device_unknown", Detail::SignIn { device: None, network }),
                shape("network_unknown", Detail::SignIn { device, network: None }),
            ]
        }
        MessageKind::ContactChanged | MessageKind::PasswordChanged => {
            vec![shape("", undo(link)), shape("final", Detail::None)]
        }
        // Told only with the link.
        MessageKind::ContactAdded | MessageKind::ContactRemoved => vec![shape("", undo(link))],
        MessageKind::AccountLocked => {
            let until = SAMPLE_TIME.plus(24 * HOUR);
            vec![
                shape("", Detail::Lock { until, link: Some(link) }),
                shape("final", Detail::Lock { until, link: None }),
            ]
        }
        _ => vec![shape("", Detail::None)],
    }
}
