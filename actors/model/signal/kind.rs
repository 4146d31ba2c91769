//! The kinds of flows, and the classes of signals.

use crate::reason::words;

use super::catalogue::SignalKind;

words! {
    /// A flow: everything that happens between one request and its answer, or between one delivery and its end.
    FlowKind {
        Register = "register": "a person becomes a user",
        Authenticate = "authenticate": "an identifier and a password become a session",
        LogOut = "log_out": "a session's holder ends it",
        EndSessions = "end_sessions": "sessions are ended from the list",
        ChangePassword = "change_password": "the password changes, the old one being known",
        RequestEmailVerification = "request_email_verification": "a message that proves an e-mail address is asked for",
        ConfirmEmail = "confirm_email": "an e-mail address is proven",
        RequestPhoneVerification = "request_phone_verification": "a message that proves a phone number is asked for",
        ConfirmPhone = "confirm_phone": "a phone number is proven",
        AddContact = "add_contact": "a user claims a further address",
        ChangeContact = "change_contact": "a user replaces an address, once the new one is proven",
        RemoveContact = "remove_contact": "a user gives up an address",
        MakePrimary = "make_primary": "an address becomes the first of its channel",
        Update = "update": "profile, attributes or username change",
        ChangeGroups = "change_groups": "a user joins or leaves groups",
        Disable = "disable": "a user is shut out",
        Enable = "enable": "a user is let in again",
        Delete = "delete": "a user and what belongs to them is removed",
        RequestPasswordReset = "request_password_reset": "a message that permits a new password is asked for",
        ResetPassword = "reset_password": "a token or code buys a new password",
        UndoChange = "undo_change": "whoever reads the old address takes a change back",
        Unlock = "unlock": "a lock on an account is lifted before its time",
        Rehash = "rehash": "after its login, a right password is hashed anew under the present parameters",
        Import = "import": "a user of another system comes with the password hash that is stored there",
        Delivery = "delivery": "a message goes to its recipient, or is given up",
    }
}

words! {
    /// When a signal is written, and with what.
    SignalClass {
        Fact = "fact": "in the transaction of the change it speaks of",
        Attempt = "attempt": "durable before the caller is answered",
        Start = "start": "live at once, before the commit; its durable copy comes with the flow's end, at a lower place",
        Delivery = "delivery": "when the transport accepted or gave up the message, with the notifier's progress",
        Operation = "operation": "about the system itself, outside any flow",
    }
}

impl FlowKind {
    /// The signals that start this flow.
    pub fn starts(self) -> impl Iterator<Item = SignalKind> {
        SignalKind::ALL.iter().copied().filter(move |kind| kind.starts().contains(&self))
    }

    /// The signals that end this flow, in success or failure.
    pub fn ends(self) -> impl Iterator<Item = SignalKind> {
        SignalKind::ALL.iter().copied().filter(move |kind| kind.ends().contains(&self))
    }
}
