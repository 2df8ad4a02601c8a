//! A file that an operator has named, or one of the system: read whole, bounded, and only if it is regular, so that neither a pipe nor a
//! device in its place holds anybody up.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

/// Its bytes, which are wiped: some such files hold keys. One that is longer than `max` is an error of the kind `FileTooLarge`.
pub(crate) fn read_regular(path: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = open_regular(path)?;
    let meta = file.metadata()?;
    let too_long = || io::Error::new(ErrorKind::FileTooLarge, format!("it is longer than {} MiB", max >> 20));
    if meta.len() > max {
        return Err(too_long());
    }
    // Of its length at once, so that no copy stays behind where a smaller buffer was. Files of /proc say 0.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1));
    // It may grow while it is read.
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max { Err(too_long()) } else { Ok(bytes) }
}

/// One that is read piece by piece.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    // O_NONBLOCK, since opening a pipe waits for its other end.
    let file = OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// A whole one in UTF-8.
pub(crate) fn read_regular_text(path: &Path, max: u64) -> io::Result<Zeroizing<String>> {
    let bytes = read_regular(path, max)?;
    // The library's own error would keep the bytes.
    let text = std::str::from_utf8(&bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_that_is_not_too_long_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "abcd").unwrap();
        assert_eq!(read_regular(&path, 4).unwrap().as_slice(), b"abcd");
        assert_eq!(read_regular(&path, 3).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&pipe, Path::new("/dev/zero"), folder.path()] {
            assert_eq!(read_regular(path, 4).unwrap_err().kind(), ErrorKind::InvalidInput, "{}", path.display());
        }
        std::fs::write(&path, b"\xFC").unwrap();
        assert_eq!(read_regular_text(&path, 4).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
