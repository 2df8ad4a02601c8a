//! Who names which library, where code may be unsafe, and how long a file may be.

use super::{code_lines, files_below, read, sources};

/// Lines. A file is read in one go.
const FILE_MAX_LINES: usize = 450;

/// Lines outside of these folders that name one of these crates.
fn name_breaches(sources: &[(String, String)], folder: &str, crates: &[&str]) -> Vec<String> {
    let names = |line: &str| {
        crates.iter().any(|name| {
            line.match_indices(&format!("{name}::")).any(|(at, _)| {
                !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
            }) || line.trim_start().starts_with(&format!("use {name};"))
        })
    };
    let outside = sources.iter().filter(|(path, _)| !path.starts_with(folder));
    outside
        .flat_map(|(path, text)| code_lines(text).into_iter().map(move |line| (path, line)))
        .filter(|(_, line)| names(line))
        .map(|(path, line)| format!("{path}: {line}"))
        .collect()
}

#[test]
fn only_the_api_names_the_rpc_stack_and_only_an_engine_or_provider_its_library() {
    let sources = sources();
    let rpc = ["tonic", "tonic_prost", "http_body", "tower_service"];
    // The messages of KMS and a call of them are shared by our API and the provider that uses other plugins.
    let messages = ["prost", "h2"];
    let aws = ["aws_config", "aws_credential_types", "aws_sdk_kms", "aws_sdk_sts", "aws_smithy_runtime_api"];
    let azure = ["azure_core", "azure_identity", "azure_security_keyvault_keys", "futures_util"];
    assert_eq!(name_breaches(&sources, "src/api/", &rpc), [""; 0]);
    let outside =
        |folder: &str| sources.iter().filter(|(path, _)| !path.starts_with(folder)).cloned().collect::<Vec<_>>();
    // A client of etcd speaks gRPC over HTTP/2, one of kube-apiserver HTTP/2, and both over TLS, on a connection that they share.
    let mut beside_etcd = outside("src/etcd/");
    beside_etcd.retain(|(path, _)| !path.starts_with("src/kube/") && !path.starts_with("src/http2/"));
    let messages_beside: Vec<_> =
        beside_etcd.iter().filter(|(path, _)| !path.starts_with("src/kms/")).cloned().collect();
    assert_eq!(name_breaches(&messages_beside, "src/api/", &messages), [""; 0]);
    // Both sides speak HTTP: the API as a server, providers over HTTPS as clients in one folder, from the words of HTTP up.
    let client = outside("src/api/");
    assert_eq!(name_breaches(&client, "src/provider/http/", &["hyper", "hyper_util", "http_body_util"]), [""; 0]);
    let is_other = |path: &str| !["src/kms/", "src/etcd/", "src/kube/"].iter().any(|folder| path.starts_with(folder));
    let beside_kms: Vec<_> = client.iter().filter(|(path, _)| is_other(path)).cloned().collect();
    assert_eq!(name_breaches(&beside_kms, "src/provider/", &["http"]), [""; 0]);
    let tls = ["rustls", "tokio_rustls"];
    assert_eq!(name_breaches(&beside_etcd, "src/provider/", &tls), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/sealer/tpm2/", &["tss_esapi", "tss_esapi_sys"]), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/sealer/pkcs11/", &["cryptoki", "cryptoki_sys"]), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/provider/aws/", &aws), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/provider/azure/", &azure), [""; 0]);
    // All are found where they are allowed, so that the search is known to find them.
    assert!(!name_breaches(&sources, "nowhere", &rpc).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &messages).is_empty());
    assert!(!name_breaches(&client, "nowhere", &["hyper"]).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &tls).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &["tss_esapi"]).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &["cryptoki"]).is_empty());
    for name in aws.into_iter().chain(azure) {
        assert!(!name_breaches(&sources, "nowhere", &[name]).is_empty(), "{name}");
    }
}

/// Lines of code that are unsafe, or give leave to be.
fn unsafe_lines(sources: &[(String, String)]) -> Vec<(String, String)> {
    let words = ["{", "fn ", "impl ", "trait ", "extern "].map(|next| format!("unsafe {next}"));
    let is_unsafe = |line: &str| {
        words.iter().any(|word| line.contains(word))
            || (line.contains("unsafe_code") && !line.contains("deny(unsafe_code)"))
    };
    let lines = |(path, text): &(String, String)| {
        code_lines(text).into_iter().filter(|line| is_unsafe(line)).map(|line| (path.clone(), line)).collect::<Vec<_>>()
    };
    sources.iter().flat_map(lines).collect()
}

#[test]
fn one_file_alone_has_unsafe_code_and_each_block_of_it_says_why_it_is_sound() {
    const LEAVE: &str = "src/sandbox/raw.rs";
    let all = ["src", "tests", "benches", "hsm-tests", "fuzz"].into_iter().flat_map(files_below);
    let all: Vec<_> = all.filter(|path| path.ends_with(".rs") && !path.starts_with("tests/house/")).collect();
    let sources: Vec<_> = all.into_iter().map(|path| (path.clone(), read(&path))).collect();
    let (ours, others): (Vec<_>, Vec<_>) = unsafe_lines(&sources).into_iter().partition(|(path, _)| path == LEAVE);
    assert_eq!(others, []);
    // Functions of an unsafe trait carry the trait's promise; what each does with it is a block.
    let blocks = ours.iter().filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe impl")).count();
    let reasons = read(LEAVE).matches("// SAFETY: ").count();
    assert!(blocks > 5 && reasons >= blocks, "{reasons} reasons for {ours:#?}");
    let planted = [("src/x.rs".to_owned(), "#[allow(unsafe_code)]\nfn f() { unsafe { g() } }".to_owned())];
    assert_eq!(unsafe_lines(&planted).len(), 2, "the search finds what it is for");
}

#[test]
fn every_source_file_can_be_read_in_one_go() {
    let rust = ["src", "tests"].into_iter().flat_map(files_below).filter(|path| path.ends_with(".rs"));
    let long: Vec<_> = rust
        .map(|path| (path.clone(), read(&path).lines().count()))
        .filter(|(_, lines)| *lines >= FILE_MAX_LINES)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}
