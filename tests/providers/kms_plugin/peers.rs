//! Who listens: nobody else than whom the configuration expects, and never we ourselves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nodeseal::provider::kms_plugin::{KmsPlugin, KmsPluginSettings};
use nodeseal::provider::{ErrorKind, Kek};

use super::Mine;
use super::fake::{Said, plugin};
use crate::front::Mode;

#[tokio::test]
async fn only_a_socket_of_somebody_expected_that_is_not_our_own_is_asked() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let told = seen.clone();
    let mine = Mine::fake(plugin(move |path, _| {
        told.lock().unwrap().insert(path.to_owned());
        Said::refusal(14, "")
    }));
    let asked = |settings: KmsPluginSettings| async { KmsPlugin::new(settings).probe().await.unwrap_err() };
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(mine.front.path(), &link).unwrap();
    let own = |socket, own| KmsPluginSettings { socket, own_sockets: vec![own], ..mine.settings() };
    for settings in [own(mine.front.path(), mine.front.path()), own(link, mine.front.path())] {
        let error = asked(settings).await;
        assert_eq!(error.kind(), ErrorKind::Unfit);
        assert!(error.to_string().contains("socket of Nodeseal itself"), "{error}");
    }
    std::fs::write(dir.path().join("file"), b"").unwrap();
    assert_eq!(asked(own(dir.path().join("file"), "/none".into())).await.kind(), ErrorKind::Unfit);
    assert_eq!(asked(own(dir.path().join("none"), "/none".into())).await.kind(), ErrorKind::Away);
    assert!(seen.lock().unwrap().is_empty());
    asked(mine.settings()).await;
    assert_eq!(seen.lock().unwrap().len(), 1);
}

/// Listens as whoever runs it, says so, and answers nothing.
const LISTEN: &str = r#"
use Socket;
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die "socket";
bind($s, sockaddr_un($ARGV[0])) or die "bind: $!";
listen($s, 5) or die "listen";
$| = 1;
print "up\n";
sleep 60;
"#;

#[tokio::test]
async fn a_plugin_of_a_user_that_is_not_expected_hears_nothing() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("only root can listen as somebody else");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mine = Mine::fake(Mode::Reset);
    for uid in [2, 65_534] {
        let socket = dir.path().join(format!("s{uid}"));
        let mut command = std::process::Command::new("setpriv");
        command.args([&format!("--reuid={uid}"), "--regid=65534", "--clear-groups", "perl", "-e", LISTEN]).arg(&socket);
        let mut stranger = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stranger.stdout.take().unwrap()), &mut line).unwrap();
        assert_eq!(line, "up\n");
        let of = |allow_uids| KmsPluginSettings {
            socket: socket.clone(),
            allow_uids,
            timeout: Duration::from_millis(300),
            ..mine.settings()
        };
        let error = KmsPlugin::new(of(vec![1])).probe().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Peer);
        assert!(error.to_string().contains(&format!("user {uid} listens there")), "{error}");
        let allowed = KmsPlugin::new(of(vec![uid])).probe().await.unwrap_err();
        match uid {
            // It is asked, and says nothing.
            2 => assert_eq!(allowed.kind(), ErrorKind::Away),
            // It stands for everybody whom a user namespace hides.
            _ => {
                assert!(allowed.kind() == ErrorKind::Peer && allowed.to_string().contains("PrivateUsers"), "{allowed}")
            }
        }
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
