//! A folder that files are written into. Dropped with nothing in it, what was made of it is gone again.

use super::{Draft, OutputError};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use traces::unfinished::Unfinished;

/// See the module.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Folders that were missing, the innermost first.
    made: Vec<PathBuf>,
    _unfinished: Vec<Unfinished>,
}

impl Folder {
    /// The folder at `path`, made where it is missing.
    ///
    /// # Errors
    /// The path is not a folder and cannot become one.
    pub fn make(path: &Path) -> Result<Folder, OutputError> {
        let missing =
            path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made: Vec<PathBuf> = missing.map(Path::to_owned).collect();
        let unfinished = made.iter().map(|folder| Unfinished::note(folder)).collect();
        let folder = Folder { path: path.to_owned(), made, _unfinished: unfinished };
        match fs::create_dir_all(path) {
            Ok(()) => Ok(folder),
            Err(source) => Err(match source.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                    OutputError::NotAFolder { path: path.to_owned() }
                }
                _ => OutputError::Folder { path: path.to_owned(), source },
            }),
        }
    }

    /// Whether files can have these names.
    ///
    /// # Errors
    /// A folder has one of them.
    pub fn takes(&self, names: &[&str]) -> Result<(), OutputError> {
        let taken = names.iter().map(|name| self.path.join(name)).find(|path| path.is_dir());
        taken.map_or(Ok(()), |path| Err(OutputError::File { path, source: ErrorKind::IsADirectory.into() }))
    }

    /// An empty draft of a file in it.
    ///
    /// # Errors
    /// No file can be made in it.
    pub fn draft(&self, name: &str) -> Result<Draft, OutputError> {
        Draft::create(self.path.join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder with something in it refuses, and so is kept.
        self.made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}
