//! Files and folders that are being made. Who is interrupted takes them away: nothing is left half written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Something that is being made; dropped, it is finished or gone.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// Notes a temporary file, or a folder that is still empty.
    pub fn note(path: &Path) -> Unfinished {
        locked().push(path.to_owned());
        Unfinished(path.to_owned())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut all = locked();
        if let Some(place) = all.iter().position(|path| *path == self.0) {
            all.swap_remove(place);
        }
    }
}

/// Takes away what is unfinished, then ends the process with this code. Whoever goes on meanwhile begins nothing new.
pub fn abandon(code: i32) -> ! {
    let all = locked();
    for path in all.iter() {
        // A folder with something in it refuses, and so is kept.
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    }
    std::process::exit(code)
}

fn locked() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}
