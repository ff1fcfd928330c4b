//! Are the bytes of a copy those of its block?

use crate::content::{Checksum, Contents};
use crate::engine::JobError;
use crate::region::Region;
use policy::BlockId;
use policy::event::Form;

/// Compares the bytes of a copy with what its block contains.
pub(crate) fn check(
    contents: &Contents,
    block: BlockId,
    form: Form,
    region: &Region,
) -> Result<Checksum, JobError> {
    let got = region.with_bytes(Checksum::of)?;
    let failed = |source| JobError::Content { block: block.0, form, source };
    let expected = contents.checksum(block, form.format).map_err(failed)?;
    if got == expected { Ok(got) } else { Err(JobError::Mismatch { block: block.0, form, expected, got }) }
}
