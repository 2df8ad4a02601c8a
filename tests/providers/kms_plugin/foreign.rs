//! Texts that the plugin has made for kube-apiserver, and Nodeseal has not.

use std::sync::Arc;

use nodeseal::provider::kms_plugin::{KmsPlugin, KmsPluginSettings, Text};
use nodeseal::provider::set::{Member, Providers, Role, Strategy};
use nodeseal::provider::{ErrorKind, Kek};
use nodeseal::types::{Api, Class, Explained, Key};

use test_support::client::Client;

use super::fake::Said;
use super::{Mine, conformance, plugin};
use crate::conformance::Of;

const SEED: [u8; 32] = [7; 32];

impl Mine {
    fn opener(&self, opens_foreign: bool) -> Arc<KmsPlugin> {
        Arc::new(KmsPlugin::new(KmsPluginSettings { opens_foreign, ..self.settings() }))
    }

    /// As kube-apiserver has it encrypted.
    fn text_of(&self, plaintext: &[u8]) -> Text {
        // The client has a runtime of its own.
        std::thread::scope(|scope| scope.spawn(|| self.encrypted(plaintext)).join()).unwrap()
    }

    fn encrypted(&self, plaintext: &[u8]) -> Text {
        let client = Client::connect(&self.front.path());
        match self.api {
            Api::V1 => Text::v1beta1(&client.encrypt_v1(plaintext).unwrap()),
            Api::V2 => {
                let said = client.encrypt(plaintext).unwrap();
                let notes = said.annotations.iter().map(|(name, value)| (name.as_str(), &value[..]));
                Text::v2(&said.key_id, &said.ciphertext, notes)
            }
        }
    }
}

fn all() -> [Mine; 4] {
    let [v2, v1] = [Api::V2, Api::V1];
    [Mine::go(v2), Mine::go(v1), Mine::new(v2), Mine::new(v1)]
}

#[tokio::test]
async fn what_a_plugin_has_made_for_kube_apiserver_opens_only_where_that_is_configured() {
    for mine in all() {
        let text = mine.text_of(&SEED);
        assert_eq!(mine.opener(true).open_foreign(&text).await.unwrap().expose(), &SEED);
        let refused = mine.opener(false).open_foreign(&text).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Unfit);
    }
}

/// Or whoever may ask for a Decrypt would get a local KEK in clear, by a wrap that lies beside each object in etcd.
#[tokio::test]
async fn a_wrap_of_a_local_kek_does_not_leave_as_a_text_of_the_plugin() {
    for mine in all() {
        let kek = mine.opener(true);
        let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
        let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
        let text = Text::decode(wrapped.text()).unwrap();
        let refused = kek.open_foreign(&text).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Text, "{refused}");
        // And nothing that is longer or shorter than what kube-apiserver encrypts.
        for len in [16, 31, 33, 64] {
            let text = mine.text_of(&vec![7; len]);
            assert_eq!(kek.open_foreign(&text).await.err().unwrap().kind(), ErrorKind::Text, "{len}");
        }
    }
}

#[tokio::test]
async fn of_several_plugins_the_one_that_has_made_it_opens_it_and_nobody_else_is_asked() {
    let (one, other) = (Mine::go(Api::V2), Mine::go(Api::V2));
    let silent = Mine::fake(plugin(|_, _| Said::refusal(13, "never to be asked")));
    let members = [("one", one.opener(true)), ("other", other.opener(true)), ("silent", silent.opener(false))];
    let members = members.map(|(name, kek)| Member::new(name, Role::DecryptOnly, kek));
    let providers = Providers::new(members.to_vec(), Strategy::Ordered);
    let (text, strange) = (other.text_of(&SEED), Mine::go(Api::V2).text_of(&SEED));
    assert_eq!(providers.open_foreign(&text).await.unwrap().expose(), &SEED);
    let refused = providers.open_foreign(&strange).await.err().unwrap();
    let names: Vec<_> = refused.refusals.iter().map(|refusal| refusal.provider.as_str()).collect();
    assert_eq!(names, ["one", "other"]);
    assert_eq!(silent.front.asked(), 0);
    // Texts that do not open hold nobody back.
    for _ in 0..8 {
        let _ = providers.open_foreign(&strange).await;
    }
    assert_eq!(providers.open_foreign(&text).await.unwrap().expose(), &SEED);
}

#[tokio::test]
async fn a_plugin_that_is_away_is_told_from_a_text_that_does_not_open() {
    let mine = Mine::go(Api::V2);
    let text = mine.text_of(&SEED);
    let socket = "/nonexistent/socket".into();
    let away = KmsPluginSettings { socket, opens_foreign: true, timeout: conformance::TIMEOUT, ..mine.settings() };
    let member = Member::new("old", Role::DecryptOnly, Arc::new(KmsPlugin::new(away)));
    let refused = Providers::new(vec![member], Strategy::Ordered).open_foreign(&text).await.err().unwrap();
    assert_eq!(refused.refusals[0].error.class(), Class::Unavailable);
}
