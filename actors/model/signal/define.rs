//! What the catalogue's list is turned into: the enums, and the tables of what each kind is.

/// What a field of a signal means; one meaning a name, throughout the catalogue.
macro_rules! meaning {
    (region) => {
        "The region of the numbers (ISO 3166-1); `001` for numbers of no country, `ZZ` for those that no plan places."
    };
    (started) => {
        "How many messages were started, of those that were looked at."
    };
    (answered) => {
        "The link or code of how many of those was used."
    };
    (failures) => {
        "How many failed attempts were counted at the identifier before a success; none if there were none."
    };
    (user) => {
        "The user it speaks of."
    };
    (owner) => {
        "The user who has proven the address, or gave it up and may have it back."
    };
    (username) => {
        "The username."
    };
    (email) => {
        "The e-mail address, if one was given."
    };
    (phone) => {
        "The phone number, if one was given."
    };
    (address) => {
        "The address."
    };
    (addresses) => {
        "The addresses that the user claimed."
    };
    (previous) => {
        "The address before."
    };
    (identifier) => {
        "What was typed to name the user."
    };
    (identifier_kind) => {
        "What kind of identifier it is."
    };
    (channel) => {
        "E-mail or phone."
    };
    (contact) => {
        "The contact."
    };
    (token) => {
        "Names the one-time token; the link or code is derived from it when a message is rendered."
    };
    (supersedes) => {
        "The earlier token that this one makes useless."
    };
    (until) => {
        "When it ends by itself."
    };
    (expires_at) => {
        "When the token ends."
    };
    (delivery) => {
        "The flow that delivers the message."
    };
    (session) => {
        "The session."
    };
    (sessions_revoked) => {
        "How many sessions ended with it."
    };
    (count) => {
        "How many."
    };
    (groups) => {
        "The groups the user is in."
    };
    (version) => {
        "The user's version after the change."
    };
    (fields) => {
        "The names of the fields concerned, never their values."
    };
    (cause) => {
        "What brought it about."
    };
    (reason) => {
        "Why."
    };
    (error_type) => {
        "The class of the failure."
    };
    (scheme) => {
        "The hash scheme."
    };
    (success) => {
        "Whether the password was right."
    };
    (needs_rehash) => {
        "Whether the stored hash has older parameters than configured."
    };
    (via) => {
        "How."
    };
    (method) => {
        "How the user signed in."
    };
    (subscriber) => {
        "The subscriber's name."
    };
    (place) => {
        "The place in the log."
    };
    (attempts) => {
        "How often it was handed over."
    };
    (bytes) => {
        "How many bytes of the log."
    };
    (from) => {
        "The first place."
    };
    (to) => {
        "The last place."
    };
    (failure) => {
        "What went wrong, without personal data."
    };
    (signal) => {
        "The signal that the message was for."
    };
    (message) => {
        "The kind of message."
    };
    (flow) => {
        "The kind of flow."
    };
    (guard) => {
        "The guard's name."
    };
    (code) => {
        "The guard's own word for why."
    };
    (action) => {
        "What is limited."
    };
    (scope) => {
        "Whose attempts are counted together."
    };
    (unlock) => {
        "The token of the link that lifts the lock."
    };
    (undo) => {
        "The token of the link that takes the change back; it goes to the address from before the change alone."
    };
    (change) => {
        "What was taken back; absent if it had been before."
    };
    (reset) => {
        "The token of the message that permits a new password, if one is due."
    };
    (allowed) => {
        "Whether the flow went on all the same."
    };
}

macro_rules! catalogue {
    ($($number:literal $variant:ident $name:literal $class:ident $sender:ident
        [$($starts:ident)*] [$($ends:ident)*] $doc:literal { $($field:ident: $type:ty),* $(,)? })+) => {
        /// Something that happened. `serde` writes `{"type": name, "data": fields}`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(tag = "type", content = "data")]
        #[non_exhaustive]
        pub enum Signal {
            $(
                #[doc = $doc]
                #[serde(rename = $name)]
                $variant { $(#[doc = meaning!($field)] $field: $type),* },
            )+
        }

        /// The kind of a signal: its name, without its fields.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[non_exhaustive]
        pub enum SignalKind {
            $(#[doc = $doc] #[serde(rename = $name)] $variant,)+
        }

        impl Signal {
            /// The kind of this signal.
            #[must_use]
            pub const fn kind(&self) -> SignalKind {
                match self { $(Self::$variant { .. } => SignalKind::$variant,)+ }
            }

            /// The user it speaks of, if it names one.
            #[must_use]
            pub fn user(&self) -> Option<UserId> {
                match self {
                    $(Self::$variant { $($field),* } => None$(.or_else(|| SignalField::user($field)))*,)+
                }
            }

            /// Shows every personal value inside it, to be sealed or opened.
            pub fn visit_personal(&mut self, visit: &mut dyn FnMut(&mut Personal)) {
                match self {
                    $(Self::$variant { $($field),* } => { $(SignalField::visit_personal($field, visit);)* let _ = visit; })+
                }
            }
        }

        impl SignalKind {
            /// Every kind, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The wire name: the serde tag and the last part of a CloudEvents type.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The number in the catalogue: 1 to 32 as in the source documents, ours from 101 on.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number,)+ }
            }

            /// When it is written, and with what.
            #[must_use]
            pub const fn class(self) -> SignalClass {
                match self { $(Self::$variant => SignalClass::$class,)+ }
            }

            /// The part that emits it, unless a subscriber does.
            #[must_use]
            pub const fn sender(self) -> Sender {
                match self { $(Self::$variant => Sender::$sender,)+ }
            }

            /// The flows that it starts.
            #[must_use]
            pub const fn starts(self) -> &'static [FlowKind] {
                match self { $(Self::$variant => &[$(FlowKind::$starts),*],)+ }
            }

            /// The flows that it ends.
            #[must_use]
            pub const fn ends(self) -> &'static [FlowKind] {
                match self { $(Self::$variant => &[$(FlowKind::$ends),*],)+ }
            }

            /// What it tells, in a sentence.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }

            /// The names of its fields.
            #[must_use]
            pub const fn fields(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$(stringify!($field)),*],)+ }
            }
        }
    };
}

pub(super) use {catalogue, meaning};
