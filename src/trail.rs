//! The trail: queries, exports and proofs of what the auditor recorded.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use majordomo_actors::auditor::{
    AuditExport, AuditFlaw, AuditHead, AuditPage, AuditPublicKey, AuditQuery, AuditRange, AuditReadError,
    AuditVerifier, TrailEnd, TrailRange, VerifiedAudit,
};
use majordomo_actors::storage::{ProjectionRange, ProjectionValues, Reader, Unreadable};

use crate::accounts::Accounts;
use crate::builder::AUDITOR;

/// Why an export was not written to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditExportError {
    /// The trail could not be read.
    #[error(transparent)]
    Trail(#[from] AuditReadError<Unreadable>),
    /// The export could not be written.
    #[error("the export could not be written")]
    Write(#[from] io::Error),
}

/// Why the trail is not verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditVerifyError {
    /// It could not be read, or what is stored of a link is none.
    #[error(transparent)]
    Trail(#[from] AuditReadError<Unreadable>),
    /// It is not what was written.
    #[error(transparent)]
    Flaw(#[from] AuditFlaw),
}

/// The audit trail, which follows the log by moments: what a flow has answered is in the log. Its format, what it proves
/// and what it cannot prove: `docs/AUDIT.md`.
impl Accounts {
    /// A page of the trail. The client's address and software are opened while the user lives.
    ///
    /// # Errors
    /// [`AuditReadError::Unreadable`] while storage is out; [`AuditReadError::Record`] names a record that cannot be read.
    pub async fn audit(&self, query: AuditQuery) -> Result<AuditPage, AuditReadError<Unreadable>> {
        let reader = self.system().reader().clone();
        off_the_async_threads(move || {
            let mut page = query.read(|range| rows(&reader, range))?;
            for record in &mut page.records {
                if let Some(user) = record.user {
                    let opened = reader.open_context(user, record.id, &mut record.context);
                    opened.map_err(AuditReadError::Unreadable)?;
                }
            }
            Ok(page)
        })
        .await
    }

    /// The signed head of the trail as it is now. Held outside, where nobody who can write the store can write, it proves
    /// everything up to it: even whoever has the master keys cannot change or cut off that any more without being found
    /// out by [`Accounts::verify_audit`] or [`verify_audit`](crate::verify_audit).
    ///
    /// ```
    /// # use majordomo::testing::TestAccounts;
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let accounts = TestAccounts::start().await;
    /// let head = accounts.audit_head().await?;
    /// let text = serde_json::to_string(&head)?; // to be sent elsewhere, and later:
    /// let held = serde_json::from_str(&text)?;
    /// let verified = accounts.verify_audit(Some(held)).await?;
    /// println!("{} records are as they were written", verified.records);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AuditReadError`].
    pub async fn audit_head(&self) -> Result<AuditHead, AuditReadError<Unreadable>> {
        let (reader, signer, now) = (self.system().reader().clone(), Arc::clone(self.signer()), self.now());
        off_the_async_threads(move || trail_end(&reader, now)?.held(&signer, |range| rows(&reader, range))).await
    }

    /// The public keys that heads of this trail are verified by, of every master key there is, the current one first. To
    /// be kept outside: keys that come with an export prove nothing.
    #[must_use]
    pub fn audit_keys(&self) -> Vec<AuditPublicKey> {
        self.signer().public_keys()
    }

    /// Writes the trail, or the part of it that lies in a range of places, as JSON Lines: a header, every link, and a
    /// signed end, which it answers with together with the writer. It reads a page at a time, on a thread where it may
    /// block, and goes on there if this future is dropped. Records of builds that knew no chain are left out.
    ///
    /// # Errors
    /// [`AuditExportError`]; what was written until then is no export.
    pub async fn export_audit<W: Write + Send + 'static>(
        &self,
        range: AuditRange,
        writer: W,
    ) -> Result<(W, AuditHead), AuditExportError> {
        let (reader, signer, now) = (self.system().reader().clone(), Arc::clone(self.signer()), self.now());
        let exported = tokio::task::spawn_blocking(move || {
            let scan = |range: &TrailRange| rows(&reader, range);
            let mut writer = BufWriter::new(writer);
            let export = AuditExport::begin(&trail_end(&reader, now)?, signer, range, scan)?;
            let head = export.run(scan, |line| writer.write_all(line).and_then(|()| writer.write_all(b"\n")))??;
            Ok((writer.into_inner().map_err(io::IntoInnerError::into_error)?, head))
        });
        exported.await.unwrap_or(Err(AuditExportError::Trail(AuditReadError::Unreadable(Unreadable))))
    }

    /// Verifies the trail as it is stored, from its beginning, against the keys of this system and, if given, a head that
    /// was held outside. Reads all of it, a page at a time, on a thread where it may block.
    ///
    /// It tells a trail that was changed beneath the system. Whether the system itself is to be trusted only somebody else
    /// can verify, by an export and keys that he kept.
    ///
    /// # Errors
    /// [`AuditVerifyError::Flaw`] is the first flaw, and where.
    pub async fn verify_audit(&self, held: Option<AuditHead>) -> Result<VerifiedAudit, AuditVerifyError> {
        let (reader, signer, now) = (self.system().reader().clone(), Arc::clone(self.signer()), self.now());
        let verified = tokio::task::spawn_blocking(move || {
            let scan = |range: &TrailRange| rows(&reader, range);
            let keys = signer.public_keys();
            let mut verifier = AuditVerifier::new(&keys, held.as_ref());
            let export = AuditExport::begin(&trail_end(&reader, now)?, signer, AuditRange::default(), scan)?;
            export.run(scan, |line| verifier.line(line))??;
            Ok(verifier.finish()?)
        });
        verified.await.unwrap_or(Err(AuditVerifyError::Trail(AuditReadError::Unreadable(Unreadable))))
    }

    fn now(&self) -> majordomo_model::Timestamp {
        self.system().clock().now()
    }
}

fn trail_end(reader: &Reader, now: majordomo_model::Timestamp) -> Result<TrailEnd, AuditReadError<Unreadable>> {
    Ok(TrailEnd { store: reader.store().map_err(AuditReadError::Unreadable)?, now })
}

async fn off_the_async_threads<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, AuditReadError<Unreadable>> + Send + 'static,
) -> Result<T, AuditReadError<Unreadable>> {
    tokio::task::spawn_blocking(read).await.unwrap_or(Err(AuditReadError::Unreadable(Unreadable)))
}

/// What the auditor's projection holds in a range of keys.
fn rows(reader: &Reader, range: &TrailRange) -> Result<ProjectionValues, Unreadable> {
    let range = ProjectionRange {
        prefix: &range.prefix,
        from: &range.from,
        until: Some(&range.until),
        newest_first: range.newest_first,
        limit: range.limit,
    };
    reader.projection(AUDITOR, range)
}
