//! The trail: reads the auditor's records out of its projection.

use majordomo_actors::auditor::{AuditPage, AuditQuery, AuditReadError};
use majordomo_actors::storage::{ProjectionRange, Reader, Unreadable};

/// The page of records that a query asks for.
pub(crate) fn read(
    reader: &Reader,
    auditor: &str,
    query: &AuditQuery,
) -> Result<AuditPage, AuditReadError<Unreadable>> {
    query.read(|range| {
        let range = ProjectionRange {
            prefix: &range.prefix,
            from: &range.from,
            until: Some(&range.until),
            newest_first: range.newest_first,
            limit: range.limit,
        };
        reader.projection(auditor, range)
    })
}
