//! Services: what every flow works with.

use majordomo_model::{Error, Reason, RefusalCause};

use super::budget::Budget;
use super::policy::Policy;
use super::rehash::Rehashes;
use super::throttle::{NoPlace, Throttle};
use crate::breach::Lookout;
use crate::clock::Clock;
use crate::guard::{self, Panel};
use crate::hasher::{Hasher, Place};
use crate::keys::Keyring;
use crate::live::LiveGroup;
use crate::storage::{Reader, Storage};
use crate::token::Tokens;

/// What every flow works with.
pub(crate) struct Services {
    pub(crate) storage: Storage,
    pub(crate) reader: Reader,
    pub(crate) hasher: Hasher,
    pub(crate) tokens: Tokens,
    pub(crate) keys: Keyring,
    pub(crate) policy: Policy,
    pub(crate) clock: Clock,
    pub(crate) live: LiveGroup,
    pub(crate) budget: Budget,
    pub(crate) throttle: Throttle,
    pub(crate) guards: Panel,
    pub(crate) breaches: Lookout,
    pub(crate) rehashes: Rehashes,
}

impl Services {
    /// What a request is refused with that finds storage out, counted: an outage, unless the system stops.
    pub(crate) fn refused_without_storage<R: Reason>(&self) -> Error<R> {
        let (cause, error) = if self.storage.is_released() {
            (RefusalCause::Stopped, Error::Stopped)
        } else {
            (RefusalCause::StorageUnavailable, Error::StorageUnavailable)
        };
        self.budget.refused(cause);
        error
    }

    /// Refuses whoever the hasher has no place for, counted.
    pub(crate) fn placed<R: Reason>(&self, place: Option<Place>) -> Result<Option<Place>, Error<R>> {
        if place.is_none() {
            self.budget.refused(RefusalCause::Overloaded);
            return Err(Error::Overloaded);
        }
        Ok(place)
    }

    /// What a request is refused with that has no place in its budgets, counted.
    pub(super) fn refused_without_budget<R: Reason>(&self, why: NoPlace) -> Error<R> {
        match why {
            NoPlace::Unreadable => self.refused_without_storage(),
            NoPlace::Throttled(retry_after) => {
                self.budget.refused(RefusalCause::Throttled);
                Error::Throttled { retry_after }
            }
        }
    }

    /// Refuses a guard that asks in turn, counted: it could wait for a flow that waits for the guard.
    pub(crate) fn refuse_guards<R: Reason>(&self) -> Result<(), Error<R>> {
        if !guard::is_asking() {
            return Ok(());
        }
        self.budget.refused(RefusalCause::CalledFromGuard);
        Err(Error::CalledFromGuard)
    }
}
