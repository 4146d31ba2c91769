//! The panel: every guard of the system, asked in the order of their registration.

use std::fmt;
use std::sync::Arc;

use majordomo_model::{DenialCode, FlowKind, GuardFailure, Signal};
use tokio::time::Instant;

use super::station::{Heard, Station, Unheard};
use super::{Amendment, GuardRegistration, GuardRequest, GuardState};

/// Every guard. Cloning shares them.
#[derive(Clone, Default)]
pub struct Panel {
    stations: Arc<[Arc<Station>]>,
}

/// What the guards of a flow said.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The guards that gave no ruling, in order.
    pub(crate) lapses: Vec<Lapse>,
    /// What follows.
    pub(crate) outcome: Outcome,
}

/// What the rulings come to.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// It may be committed, changed so.
    Passed(Amendment),
    /// A guard of this name denied it.
    Denied(String, DenialCode),
    /// A guard that must be heard gave no ruling: the last of the lapses.
    Unheard,
}

/// A guard that gave no ruling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lapse {
    pub(crate) guard: String,
    pub(crate) failure: GuardFailure,
    /// Whether its flow goes on all the same.
    pub(crate) allowed: bool,
}

/// The flow's deadline came before the rulings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut;

impl Panel {
    /// A panel of these guards. Their threads are started when they are first asked.
    #[must_use]
    pub fn new(registrations: Vec<GuardRegistration>) -> Self {
        Self { stations: registrations.into_iter().map(|registration| Arc::new(Station::new(registration))).collect() }
    }

    /// Whether any guard is to be asked about a flow.
    pub(crate) fn guards(&self, flow: FlowKind) -> bool {
        self.stations.iter().any(|station| station.guards(flow))
    }

    /// Asks the guards of a flow one after another: each sees what those before it amended, and the first denial ends it.
    pub(crate) async fn ask(&self, request: GuardRequest, until: Option<Instant>) -> Result<Verdict, Cut> {
        let flow = request.flow();
        let mut request = Arc::new(request);
        let (mut lapses, mut amendment) = (Vec::new(), Amendment::new());
        for station in self.stations.iter().filter(|station| station.guards(flow)) {
            if station.is_shadow() {
                station.ask_in_shadow(&request);
                continue;
            }
            match station.ask(&request, until).await {
                Ok(Heard::Allowed) => {}
                Ok(Heard::Denied(code)) => {
                    return Ok(Verdict { lapses, outcome: Outcome::Denied(station.name().to_owned(), code) });
                }
                Ok(Heard::Amended(more, amended)) => {
                    amendment = amendment.then(more);
                    request = Arc::new(amended);
                }
                Err(Unheard::Cut) => return Err(Cut),
                Err(Unheard::Failed(failure)) => {
                    let allowed = station.fails_open();
                    lapses.push(Lapse { guard: station.name().to_owned(), failure, allowed });
                    if !allowed {
                        return Ok(Verdict { lapses, outcome: Outcome::Unheard });
                    }
                }
            }
        }
        Ok(Verdict { lapses, outcome: Outcome::Passed(amendment) })
    }

    /// The signals that tell what guards in shadow mode would have denied since the last call.
    pub(crate) fn take_would_deny(&self) -> Vec<Signal> {
        self.stations.iter().flat_map(|station| station.take_would_deny()).collect()
    }

    /// How the guards are, in the order of their registration.
    #[must_use]
    pub fn observe(&self) -> Vec<GuardState> {
        self.stations.iter().map(|station| station.observe()).collect()
    }
}

impl fmt::Debug for Panel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.stations.iter().map(|station| station.name())).finish()
    }
}
