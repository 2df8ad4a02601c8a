//! Which systemd this machine has, by the names of its libraries: no program is run.

use std::fs;

/// Where distributions put `libsystemd-shared-VERSION.so`.
const FOLDERS: [&str; 5] = [
    "/usr/lib/systemd",
    "/lib/systemd",
    "/usr/lib64/systemd",
    "/usr/lib/x86_64-linux-gnu/systemd",
    "/usr/lib/aarch64-linux-gnu/systemd",
];

/// The highest one that is installed; unknown where none is, or the folders cannot be read.
pub(super) fn version() -> Option<u32> {
    let entries = FOLDERS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    entries.filter_map(|entry| version_of(entry.ok()?.file_name().to_str()?)).max()
}

/// `libsystemd-shared-252.so`, `libsystemd-shared-257.9-1~deb13u1.so`
fn version_of(file: &str) -> Option<u32> {
    let rest = file.strip_prefix("libsystemd-shared-")?.strip_suffix(".so")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| rest.get(..end).unwrap_or_default());
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_stands_in_the_name_of_the_library() {
        assert_eq!(version_of("libsystemd-shared-252.so"), Some(252));
        assert_eq!(version_of("libsystemd-shared-261.1-2.fc45.so"), Some(261));
        assert_eq!(version_of("libsystemd-shared-257~rc1.so"), Some(257));
        for other in ["libsystemd-core-257.so", "libsystemd-shared-.so", "libsystemd-shared-x.so", "systemd"] {
            assert_eq!(version_of(other), None, "{other}");
        }
    }
}
