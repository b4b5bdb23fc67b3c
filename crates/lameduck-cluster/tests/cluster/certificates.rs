//! Two replicas, one Secret, and clients that trust what the webhook configuration says at that moment.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lameduck_cluster::cert::{Pair, Served};
use lameduck_cluster::http::Client;
use lameduck_cluster::keeper::{Secret, Source, keep};
use lameduck_cluster::serve::Server;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::api_server::ApiServer;
use super::reviews;

const SECRET: &str = "/api/v1/namespaces/lameduck/secrets/lameduck-webhook";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/lameduck-webhook";
const EVERY: Duration = Duration::from_millis(100);
const DAY: Duration = Duration::from_hours(24);
/// Generous: it decides nothing but how long a failure takes.
const PATIENCE: Duration = Duration::from_mins(1);

fn names() -> Vec<String> {
    vec!["lameduck-webhook.lameduck.svc".to_owned(), "127.0.0.1".to_owned()]
}

/// An API server with what the manifests create.
async fn cluster() -> ApiServer {
    let server = ApiServer::start().await;
    server.put(SECRET, json!({"kind": "Secret", "metadata": {"name": "lameduck-webhook"}}));
    let webhook = |name: &str| json!({"name": name, "clientConfig": {"service": {"name": "lameduck-webhook"}}});
    server.put(MUTATING, json!({"metadata": {}, "webhooks": [webhook("a.lameduck.dev"), webhook("b.lameduck.dev")]}));
    server
}

/// A replica: its keeper and its server. Gives where it listens.
async fn replica(api: &ApiServer) -> (String, watch::Sender<bool>) {
    let served = Arc::new(Served::default());
    let secret = Secret {
        api: api.access(),
        namespace: "lameduck".to_owned(),
        name: "lameduck-webhook".to_owned(),
        configuration: "lameduck-webhook".to_owned(),
        names: names(),
        lifetime: 90 * DAY,
    };
    tokio::spawn(keep(Source::Secret(secret), EVERY, Arc::clone(&served), |_| {}));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/mutate", listener.local_addr().unwrap());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(Server::new(reviews::webhook(None), served).serve(listener, stopped));
    (url, stop)
}

fn bundle(api: &ApiServer) -> Option<String> {
    let object = api.get(MUTATING);
    let of = |n: usize| object["webhooks"][n]["clientConfig"]["caBundle"].as_str().map(str::to_owned);
    let bundle = of(0).filter(|bundle| of(1).as_ref() == Some(bundle))?;
    Some(String::from_utf8(STANDARD.decode(bundle).unwrap()).unwrap())
}

/// Asks as an API server would that has just read the configuration.
async fn ask(api: &ApiServer, url: &str) -> Result<u16, String> {
    let bundle = bundle(api).unwrap_or_default();
    ask_trusting(CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap).collect(), url).await
}

async fn ask_trusting(roots: Vec<CertificateDer<'static>>, url: &str) -> Result<u16, String> {
    let body = Bytes::from(reviews::review("7", &reviews::pod()).to_string());
    let answer = Client::new(roots, 1 << 20).ask(hyper::Method::POST, url, &[], body).await;
    answer.map(|answer| answer.status.as_u16()).map_err(|error| error.to_string())
}

async fn until(what: &str, api: &ApiServer, urls: &[&str]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    for url in urls {
        while let Err(error) = ask(api, url).await {
            assert!(tokio::time::Instant::now() < deadline, "{what}: {error}");
            tokio::time::sleep(EVERY).await;
        }
    }
}

fn store(api: &ApiServer, pair: &Pair) {
    let encoded = |text: &str| Value::from(STANDARD.encode(text));
    let mut secret = api.get(SECRET);
    secret["data"] = json!({
        "ca.crt": encoded(&pair.authorities), "tls.crt": encoded(&pair.certificate), "tls.key": encoded(&pair.key),
    });
    api.put(SECRET, secret);
}

fn stored(api: &ApiServer) -> Value {
    api.get(SECRET)["data"]["tls.crt"].clone()
}

/// Waits until somebody has put another pair in its place.
async fn changed(api: &ApiServer, from: &Pair) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while stored(api) == STANDARD.encode(&from.certificate) {
        assert!(tokio::time::Instant::now() < deadline, "no other one is made");
        tokio::time::sleep(EVERY / 10).await;
    }
}

fn now() -> SystemTime {
    SystemTime::now()
}

#[tokio::test]
async fn two_replicas_agree_on_one_certificate_and_tell_the_api_server() {
    let api = cluster().await;
    let (one, _keep) = replica(&api).await;
    let (two, _kept) = replica(&api).await;
    until("both serve what is trusted", &api, &[&one, &two]).await;
    let agreed = stored(&api);
    tokio::time::sleep(5 * EVERY).await;
    assert_eq!(stored(&api), agreed, "and leave it at that");
    // A replica that comes later takes what is there.
    let (three, _also) = replica(&api).await;
    until("the third too", &api, &[&three]).await;
    assert_eq!(stored(&api), agreed);
}

#[tokio::test]
async fn an_expired_certificate_is_replaced() {
    let api = cluster().await;
    let (one, _keep) = replica(&api).await;
    let (two, _kept) = replica(&api).await;
    until("it serves", &api, &[&one, &two]).await;
    let expired = Pair::make(&names(), now() - 100 * DAY, 90 * DAY, None).unwrap();
    store(&api, &expired);
    changed(&api, &expired).await;
    until("they serve again", &api, &[&one, &two]).await;
}

#[tokio::test]
async fn a_damaged_secret_and_a_lost_bundle_are_mended() {
    let api = cluster().await;
    let (one, _keep) = replica(&api).await;
    until("it serves", &api, &[&one]).await;
    api.put(SECRET, json!({"data": {"tls.crt": "bm8=", "tls.key": 7}}));
    let mut configuration = api.get(MUTATING);
    configuration["webhooks"][1]["clientConfig"] = json!({});
    configuration["webhooks"][0]["clientConfig"] = json!({"caBundle": ""});
    api.put(MUTATING, configuration);
    until("it serves again", &api, &[&one]).await;
}

/// In the last third of its life another one is made. Who asks meanwhile never meets one that it does not trust.
#[tokio::test]
async fn nobody_notices_a_rotation() {
    let api = cluster().await;
    // Its last third begins in a moment.
    let ageing = Pair::make(&names(), now() - 60 * DAY + Duration::from_secs(4), 90 * DAY, None).unwrap();
    store(&api, &ageing);
    let (one, _keep) = replica(&api).await;
    let (two, _kept) = replica(&api).await;
    until("they serve", &api, &[&one, &two]).await;
    assert_eq!(stored(&api), STANDARD.encode(&ageing.certificate), "this machine took 4 s for that");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut asked = 0;
    // Until both serve the new one: whoever trusts its authority alone gets answers.
    loop {
        for url in [&one, &two] {
            assert_eq!(ask(&api, url).await, Ok(200), "after {asked}");
            asked += 1;
        }
        let newest = CertificateDer::pem_slice_iter(bundle(&api).unwrap().as_bytes()).next().unwrap().unwrap();
        let both = async {
            let mut both = stored(&api) != STANDARD.encode(&ageing.certificate);
            for url in [&one, &two] {
                both &= ask_trusting(vec![newest.clone()], url).await == Ok(200);
            }
            both
        };
        if both.await {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no other one is served");
        tokio::time::sleep(EVERY / 5).await;
    }
    assert!(asked > 20, "{asked}");
}
