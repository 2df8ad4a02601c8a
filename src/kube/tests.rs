//! What is tried again, what is not, and what a list that has gone stale comes to.

use super::fake::server;
use super::*;

fn secrets() -> Resource {
    Resource { group: String::new(), version: "v1".into(), plural: "secrets".into(), namespaced: true }
}

fn item() -> Item {
    serde_json::from_str::<objects::Object>(r#"{"metadata":{"name":"a b","namespace":"n"}}"#).unwrap().into()
}

fn page(names: &[&str], next: &str) -> String {
    let items: Vec<_> = names.iter().map(|name| serde_json::json!({ "metadata": { "name": name } })).collect();
    serde_json::json!({ "metadata": { "continue": next }, "items": items }).to_string()
}

fn of(status: u16) -> (u16, String) {
    (status, r#"{"kind":"Status","reason":"Because","message":"hunter2"}"#.to_owned())
}

#[tokio::test]
async fn what_passes_is_tried_again_and_a_connection_that_ends_is_made_again() {
    let (mut client, asked) = server(vec![of(429), of(503), (0, String::new()), (200, "{}".into())]).await;
    let touched = touch(&mut client, &secrets(), &item(), None).await.unwrap();
    assert_eq!(touched, Touched::Written);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|one| one == "PATCH /api/v1/namespaces/n/secrets/a%20b {}"), "{asked:?}");
}

#[tokio::test]
async fn a_conflict_is_tried_again_and_what_is_gone_needs_nothing() {
    let gone = r#"{"kind":"Status","reason":"NotFound","details":{"name":"a b","kind":"secrets"}}"#;
    let (mut client, _) = server(vec![of(409), of(409), (200, "{}".into()), (404, gone.into())]).await;
    assert_eq!(touch(&mut client, &secrets(), &item(), None).await.unwrap(), Touched::Written);
    assert_eq!(touch(&mut client, &secrets(), &item(), None).await.unwrap(), Touched::Gone);
    let (mut client, asked) = server((0..9).map(|_| of(409)).collect()).await;
    assert_eq!(touch(&mut client, &secrets(), &item(), None).await.unwrap_err().status(), Some(409));
    assert_eq!(asked.lock().unwrap().len(), 5, "an object that is always in conflict ends nothing for ever");
}

#[tokio::test]
async fn a_refusal_is_final_and_says_nothing_of_the_object() {
    let (mut client, asked) = server(vec![of(422)]).await;
    let error = touch(&mut client, &secrets(), &item(), None).await.unwrap_err();
    let said = crate::types::Chain(&error).to_string();
    assert!(said.ends_with("HTTP status 422 (Because)") && !said.contains("hunter2"), "{said}");
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn under_kms_v1_one_annotation_is_set() {
    let (mut client, asked) = server(vec![(200, "{}".into())]).await;
    touch(&mut client, &secrets(), &item(), Some("aa-5")).await.unwrap();
    let body = r#" {"metadata":{"annotations":{"nodeseal/written-under":"aa-5"}}}"#;
    assert!(asked.lock().unwrap()[0].ends_with(body));
}

#[tokio::test]
async fn a_list_that_etcd_has_forgotten_begins_again_and_says_so() {
    let (mut client, asked) = server(vec![(200, page(&["a"], "x/y")), of(410), (200, page(&["a", "b"], ""))]).await;
    let mut pages = Pages::default();
    let first = pages.next(&mut client, &secrets()).await.unwrap().unwrap();
    assert!(first.items.len() == 1 && !first.begins_again);
    let second = pages.next(&mut client, &secrets()).await.unwrap().unwrap();
    assert!(second.items.len() == 2 && second.begins_again);
    assert_eq!(pages.next(&mut client, &secrets()).await.unwrap(), None);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[1], "GET /api/v1/secrets?limit=250&continue=x%2Fy ");
    assert_eq!(asked[2], "GET /api/v1/secrets?limit=250 ");
}

#[tokio::test]
async fn of_two_that_write_the_record_the_second_one_is_told() {
    let map = r#"{"metadata":{"resourceVersion":"8"}}"#.to_owned();
    let (mut client, asked) = server(vec![of(404), (201, map), of(409)]).await;
    let mark = KeyMark::of(&format!("sha256:{}", "a".repeat(64))).unwrap();
    let mut record = Record::under(Record::read(&mut client).await.unwrap(), &mark, 60);
    record.write(&mut client).await.unwrap();
    assert!(matches!(record.write(&mut client).await, Err(KubeError::Busy)));
    let asked = asked.lock().unwrap();
    assert!(asked[1].starts_with("POST /api/v1/namespaces/kube-system/configmaps "));
    assert!(asked[2].starts_with("PUT ") && asked[2].contains(r#""resourceVersion":"8""#), "{}", asked[2]);
}

#[tokio::test]
async fn an_api_server_is_asked_for_readiness_before_its_metrics() {
    let metrics = "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds{key_id_hash=\"h\",provider_name=\"p\"} 5\n";
    let (mut client, asked) = server(vec![(200, "ok".into()), (200, metrics.into())]).await;
    assert_eq!(look(&mut client).await.unwrap().providers["p"].key_id_hash, "h");
    assert_eq!(*asked.lock().unwrap(), ["GET /readyz ", "GET /metrics "]);
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused_and_the_address_is_offered() {
    let (client, _) = server(Vec::new()).await;
    let port = client.server().to_string().rsplit_once(':').unwrap().1.parse().unwrap();
    let mut other = client.to(kubeconfig::Server::at("127.0.0.1", port, "other.example").unwrap());
    let error = look(&mut other).await.unwrap_err();
    assert_eq!(crate::types::Explained::class(&error), crate::types::Class::Denied);
    assert!(other.by_address(&error).is_some());
}

#[test]
fn a_mark_is_made_of_a_whole_hash_alone() {
    let hash = format!("sha256:{}", "0123456789abcdef".repeat(4));
    assert_eq!(KeyMark::of(&hash).unwrap().as_str(), "0123456789abcdef0123456789abcdef01234567");
    for text in ["", "sha256:", &hash[..70], &hash.to_uppercase(), &hash.replace("f0", "g0"), &format!("{hash}0")] {
        assert_eq!(KeyMark::of(text), None, "{text}");
    }
}

/// k8s.io/apiserver `admission/plugin/namespace/lifecycle`: an update in a namespace that is not there is refused with 404, and names the
/// namespace. The object is listed all the same, and stays under the old key. A server between says 404 without a `Status`.
#[tokio::test]
async fn an_object_whose_namespace_is_gone_is_still_in_etcd_and_was_not_written() {
    let status = r#"{"kind":"Status","status":"Failure","message":"namespaces \"n\" not found","reason":"NotFound","details":{"name":"n","kind":"namespaces"},"code":404}"#;
    let (mut client, _) = server(vec![(404, status.to_owned()), of(404), (404, "page not found".into())]).await;
    for _ in 0..3 {
        let touched = touch(&mut client, &secrets(), &item(), None).await;
        assert_eq!(touched.unwrap_err().status(), Some(404));
    }
}
