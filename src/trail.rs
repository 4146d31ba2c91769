//! The trail: reads the auditor's records out of its projection.

use majordomo_actors::auditor::{AuditQuery, AuditRecord};
use majordomo_actors::storage::{Reader, Unreadable};

/// The records that a query asks for.
pub(crate) fn read(reader: &Reader, auditor: &str, query: &AuditQuery) -> Result<Vec<AuditRecord>, Unreadable> {
    let _ = (reader, auditor, query);
    Ok(Vec::new())
}
