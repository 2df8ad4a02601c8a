//! The configuration file: any text is refused with a reason, or accepted and stays so.

use std::path::Path;

use nodeseal::config::{ConfigError, parse};
use nodeseal::types::Explained;
use nodeseal::types::{Chain, SealPolicy};

/// From the text of the file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let path = Path::new("/etc/nodeseal/nodeseal.toml");
    match parse(path, text) {
        Ok(config) => {
            let again = parse(path, text).expect("the same text is accepted again");
            assert_eq!(format!("{config:?}"), format!("{again:?}"));
            let sockets = [Some(&config.listen.socket), Some(&config.control_socket), config.seal.socket.as_ref()];
            let mut paths = sockets.into_iter().flatten().chain([&config.state_dir]);
            assert!(paths.all(|path| !path.as_os_str().as_encoded_bytes().contains(&0)), "no kernel takes it");
            assert!(config.state_dir.is_absolute() && config.control_socket.is_absolute());
            assert!(config.listen.socket.is_absolute() && matches!(config.listen.mode, 0o600 | 0o660));
            assert!(!config.listen.allow_uids.is_empty() && !config.listen.apis.is_empty());
            assert!(config.seal.socket.iter().all(|socket| socket.is_absolute()));
            if let SealPolicy::Pcr { pcrs, .. } = config.seal.policy {
                assert!(pcrs.numbers().all(|pcr| pcr != 16 && pcr != 23), "PCRs that anybody resets");
            }
            config.warnings.iter().for_each(|warning| assert!(!warning.key.is_empty() && !warning.text.is_empty()));
        }
        Err(error) => {
            assert!(!error.hint().is_empty() && Chain(&error).to_string().len() > 10);
            match &error {
                ConfigError::Problems { problems, .. } => {
                    assert!(!problems.is_empty(), "refused without a reason");
                    problems.iter().for_each(|problem| assert!(!problem.key.is_empty() && !problem.text.is_empty()));
                }
                ConfigError::Syntax { source, .. } => assert!(!source.message().is_empty()),
                other => panic!("{other}: nothing was read from a disk"),
            }
        }
    }
}
