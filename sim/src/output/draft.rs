//! A file under a temporary name in the folder where it will live. Dropped before it is published, it is gone.

use super::OutputError;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use traces::unfinished::Unfinished;

/// See the module.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
    unfinished: Unfinished,
}

impl Draft {
    /// An empty draft of the file at `path`.
    ///
    /// # Errors
    /// No file can be made in the folder.
    pub fn create(path: PathBuf) -> Result<Draft, OutputError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".hotset-").suffix(".tmp");
        // A temporary file is private by default; the output should have the permissions of any new file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        match builder.tempfile_in(folder) {
            Ok(file) => {
                let unfinished = Unfinished::note(file.path());
                Ok(Draft { path, out: BufWriter::with_capacity(1 << 16, file), unfinished })
            }
            Err(source) => Err(OutputError::File { path, source }),
        }
    }

    /// Brings everything to the disk, given that `filled` says it was written.
    ///
    /// # Errors
    /// It was not, or the disk does not take it.
    pub fn complete(mut self, filled: io::Result<()>) -> Result<Draft, OutputError> {
        let on_disk =
            filled.and_then(|()| self.out.flush()).and_then(|()| self.out.get_ref().as_file().sync_all());
        match on_disk {
            Ok(()) => Ok(self),
            Err(source) => Err(OutputError::File { path: self.path, source }),
        }
    }

    /// Gives a complete draft its name, and answers with it.
    ///
    /// # Errors
    /// The name cannot be given; what had it before is as it was.
    pub fn publish(self) -> Result<PathBuf, OutputError> {
        let Draft { path, out, unfinished: _unfinished } = self;
        let named = out.into_inner().map_err(|error| error.into_error());
        match named.and_then(|file| file.persist(&path).map_err(|error| error.error)) {
            Ok(_) => Ok(path),
            Err(source) => Err(OutputError::File { path, source }),
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
