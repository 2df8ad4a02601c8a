//! The vendor's library: whether it may be loaded, and its one initialisation.
//!
//! `dlopen` runs whatever the file holds, in the process that sees the device secret. So only a file is loaded that nobody but
//! root and our own user can replace: every part of the resolved path is looked at. A library that was loaded is never unloaded,
//! since libraries leave threads and exit handlers behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::fault::{Failure, Step};
use crate::seal::fault::{Fault, FaultCode};

/// Group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A loaded library. Finalised when it drops: SoftHSM 2 crashes in its exit handlers otherwise, with OpenSSL 3.
pub(super) struct Module {
    library: Pkcs11,
    is_initialised: bool,
}

impl Module {
    /// Loads it, after a look at who could have put something else there. Once in the life of a process.
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let path = safe_path(path)?;
        let library = Pkcs11::new(&path)
            .map_err(|error| Failure::last(Fault::new(FaultCode::HsmModule, format!("{}: {error}", path.display()))))?;
        // One reference more than is ever given back, so that it stays.
        #[cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "a library has no wrapping key"))]
        std::mem::forget(library.clone());
        Ok(Self { library, is_initialised: false })
    }

    /// Begins anew, without what the library knew of slots and tokens: some look for them at C_Initialize only.
    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        self.finalise();
        match self.library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                self.is_initialised = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(Step::Initialise, &error)),
        }
    }

    pub(super) fn library(&self) -> &Pkcs11 {
        &self.library
    }

    fn finalise(&mut self) {
        if std::mem::take(&mut self.is_initialised) {
            // Nothing could be done about a failure, and the next C_Initialize tells.
            let _ = self.library.clone().finalize();
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.finalise();
    }
}

/// The path without symbolic links, if only root and our own user can change what lies there.
fn safe_path(path: &Path) -> Result<PathBuf, Failure> {
    let refuse = |why: String| Failure::last(Fault::new(FaultCode::HsmModule, why));
    if !path.is_absolute() {
        return Err(refuse(format!("{} is not absolute", path.display())));
    }
    let resolved = fs::canonicalize(path).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
    let own = nix::unistd::geteuid().as_raw();
    for part in resolved.ancestors() {
        let meta = fs::metadata(part).map_err(|error| refuse(format!("{}: {error}", part.display())))?;
        if let Some(why) = unsafe_because(meta.uid(), meta.mode(), own) {
            return Err(refuse(format!("{} {why}", part.display())));
        }
    }
    if !resolved.is_file() {
        return Err(refuse(format!("{} is not a file", resolved.display())));
    }
    Ok(resolved)
}

fn unsafe_because(owner: u32, mode: u32, own: u32) -> Option<&'static str> {
    if owner != 0 && owner != own {
        return Some("belongs to another user");
    }
    (mode & WRITABLE_BY_OTHERS != 0).then_some("can be written to by others")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        let Err(failure) = Module::load(path) else { panic!("{} was loaded", path.display()) };
        assert_eq!(failure.fault().code, FaultCode::HsmModule);
        failure.fault().detail.clone()
    }

    #[test]
    fn only_what_root_or_we_alone_can_write_to_is_loaded() {
        assert_eq!(unsafe_because(0, 0o100_755, 1000), None);
        assert_eq!(unsafe_because(1000, 0o40_700, 1000), None);
        assert_eq!(unsafe_because(1001, 0o100_755, 1000), Some("belongs to another user"));
        for mode in [0o100_775, 0o100_757, 0o41_777] {
            assert_eq!(unsafe_because(0, mode, 1000), Some("can be written to by others"));
        }
    }

    #[test]
    fn a_path_that_is_relative_absent_open_to_others_or_no_file_is_refused_before_it_is_loaded() {
        assert!(refused(Path::new("libsofthsm2.so")).contains("not absolute"));
        assert!(refused(Path::new("/nonexistent/p11.so")).contains("No such file"));
        assert!(refused(Path::new("/usr")).contains("is not a file"));
        // The folder of temporary files is everybody's, and a link does not hide where it leads.
        let open = tempfile::tempdir().unwrap();
        std::fs::set_permissions(open.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let file = open.path().join("p11.so");
        std::fs::write(&file, b"").unwrap();
        assert!(refused(&file).contains("written to by others"));
        let link = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&file, link.path().join("link.so")).unwrap();
        assert!(refused(&link.path().join("link.so")).starts_with(open.path().to_str().unwrap()));
    }

    #[test]
    fn a_library_that_is_no_module_is_called_that() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.split_whitespace().find(|word| word.contains("/libc.so")).unwrap();
        assert!(refused(Path::new(libc)).contains("C_GetFunctionList"));
    }
}
