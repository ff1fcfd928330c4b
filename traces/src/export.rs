//! Writing a trace.

use crate::error::{Problem, TraceError};
use crate::hrt::{self, GateWidth};
use crate::routing::RoutingTrace;
use crate::unfinished::Unfinished;
use crate::{jsonl, oracle_general};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes a trace in the format of the extension: `.hrt` (gate weights in the smallest width that is exact), `.jsonl` or
/// `.oracleGeneral`, which keeps the accesses only: see [`crate::oracle_general`]. The file appears whole or not at all.
pub fn write(path: impl AsRef<Path>, trace: &RoutingTrace) -> Result<(), TraceError> {
    let path = path.as_ref();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("hrt") => write_hrt(path, trace, GateWidth::exact(trace)),
        Some("jsonl") => {
            write_whole(path, |out| jsonl::encode(trace, out)).map_err(|error| error.in_file(path))
        }
        Some("oraclegeneral") => {
            write_whole(path, |out| oracle_general::encode(trace, out)).map_err(|error| error.in_file(path))
        }
        other => Err(TraceError::from(Problem::CannotWrite(
            other.map_or("a file without extension".into(), |e| format!(".{e}")),
        ))
        .in_file(path)),
    }
}

/// Writes a trace as `.hrt` with gate weights of the given width.
pub fn write_hrt(path: impl AsRef<Path>, trace: &RoutingTrace, width: GateWidth) -> Result<(), TraceError> {
    let path = path.as_ref();
    hrt::encode(trace, width)
        .and_then(|bytes| write_whole(path, |out| out.write_all(&bytes)))
        .map_err(|error| error.in_file(path))
}

/// Lets `fill` write a temporary file in the folder of `path`, then renames it.
pub(crate) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&std::fs::File>) -> io::Result<()>,
) -> Result<(), TraceError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = temporary().tempfile_in(folder).map_err(Problem::Io)?;
    let _unfinished = Unfinished::note(file.path());
    let mut out = BufWriter::with_capacity(1 << 16, file.as_file());
    fill(&mut out).and_then(|()| out.flush()).map_err(Problem::Io)?;
    drop(out);
    file.as_file().sync_all().map_err(Problem::Io)?;
    file.persist(path).map_err(|error| Problem::Io(error.error))?;
    Ok(())
}

fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".hotset-").suffix(".tmp");
    // A temporary file is private by default; the trace should have the permissions of any new file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}
