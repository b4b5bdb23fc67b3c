//! A registry on loopback: tokens, lists of platforms, blobs that are elsewhere, and what must not be followed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use lameduck_cluster::http::Client;
use lameduck_cluster::image::Config;
use lameduck_cluster::registry::{Images, Registries};
use serde_json::json;
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);

fn digest(letter: &str) -> String {
    format!("sha256:{}", letter.repeat(64))
}

/// What it answers; `asked` counts.
async fn registry(asked: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let own = host.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (own, asked) = (own.clone(), Arc::clone(&asked));
            let service = service_fn(move |request| {
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = answer(&own, &request);
                async move {
                    if request.uri().path().contains("/slow/") {
                        tokio::time::sleep(Duration::from_millis(400)).await;
                    }
                    Ok::<_, Infallible>(answer)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    host
}

fn answer(own: &str, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let token = request.headers().get("authorization").and_then(|token| token.to_str().ok());
    let plain = |status: u16, body: String| Response::builder().status(status).body(Full::new(body.into())).unwrap();
    let to = |to: String| Response::builder().status(307).header("location", to).body(Full::default()).unwrap();
    let config = json!({"config": {"Entrypoint": ["/app"], "Cmd": ["serve"], "StopSignal": "SIGQUIT"}}).to_string();
    match path {
        "/token" => plain(200, json!({"token": format!("for {}", request.uri().query().unwrap())}).to_string()),
        // The blob is elsewhere, and no token belongs there.
        "/cdn" if token.is_none() => plain(200, config),
        _ if path.starts_with("/v2/closed/")
            && token.is_none_or(|token| !token.contains("repository:closed/app:pull")) =>
        {
            let challenge = format!("Bearer realm=\"http://{own}/token\",service=\"own\"");
            Response::builder().status(401).header("www-authenticate", challenge).body(Full::default()).unwrap()
        }
        _ if path.starts_with("/v2/private/") => Response::builder()
            .status(401)
            .header("www-authenticate", "Basic realm=\"x\"")
            .body(Full::default())
            .unwrap(),
        _ if path.starts_with("/v2/astray/") => to("file:///etc/passwd".to_owned()),
        _ if path.starts_with("/v2/round/") => to(format!("http://{own}{path}")),
        _ if path.starts_with("/v2/huge/") => plain(200, "x".repeat(5 << 20)),
        _ if path.starts_with("/v2/none/") => plain(404, String::new()),
        _ if path.ends_with("/manifests/1") => {
            let platform = json!({"os": "linux", "architecture": "amd64"});
            plain(200, json!({"manifests": [{"digest": digest("a"), "platform": platform}]}).to_string())
        }
        _ if path.ends_with(&digest("a")) => plain(200, json!({"config": {"digest": digest("b")}}).to_string()),
        _ if path.ends_with(&digest("b")) => to(format!("http://{own}/cdn")),
        _ => plain(500, String::new()),
    }
}

async fn images() -> (Arc<Images>, String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let host = registry(Arc::clone(&asked)).await;
    let registries = Registries { hosts: Vec::new(), plain: vec![host.clone()] };
    (Images::new(registries, Client::new([], 4 << 20)), host, asked)
}

#[tokio::test]
async fn what_an_image_starts() {
    let (images, host, _) = images().await;
    let check = async |path: &str, expect: Result<(), &str>| {
        let name = format!("{host}/{path}");
        let known = images.all(std::slice::from_ref(&name), PATIENCE).await.remove(&name).unwrap();
        match (known, expect) {
            (Ok(config), Ok(())) => {
                let words = |word: &str| vec![word.to_owned()];
                let stop_signal = Some("SIGQUIT".to_owned());
                assert_eq!(config, Config { entrypoint: words("/app"), cmd: words("serve"), stop_signal }, "{path}");
            }
            (Err(why), Err(expect)) => assert!(why.contains(expect), "{path}: {why}"),
            (known, _) => panic!("{path}: {known:?}"),
        }
    };
    check("open/app:1", Ok(())).await;
    check("closed/app:1", Ok(())).await;
    check("private/app:1", Err("asks for credentials")).await;
    check("none/app:1", Err("does not know it")).await;
    check("astray/app:1", Err("to where no TLS is")).await;
    check("round/app:1", Err("from one place to the next")).await;
    check("huge/app:1", Err("could not be asked")).await;
    check("open/app:2", Err("answered 500")).await;
}

#[tokio::test]
async fn whoever_was_not_named_is_not_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let host = registry(Arc::clone(&asked)).await;
    let registries = Registries { hosts: vec!["ghcr.io".to_owned()], plain: Vec::new() };
    let images = Images::new(registries, Client::new([], 4 << 20));
    let name = format!("{host}/open/app:1");
    let known = images.all(std::slice::from_ref(&name), PATIENCE).await.remove(&name).unwrap();
    assert!(known.unwrap_err().contains("not among the registries"));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_that_is_late_is_there_for_the_next_pod_and_counts_once() {
    let (images, host, asked) = images().await;
    let name = format!("{host}/slow/app:1");
    let first = images.all(std::slice::from_ref(&name), Duration::from_millis(1)).await.remove(&name).unwrap();
    assert!(first.unwrap_err().contains("in time"));
    let second = images.all(std::slice::from_ref(&name), PATIENCE).await.remove(&name).unwrap();
    assert!(second.is_ok(), "{second:?}");
    let so_far = asked.load(Ordering::Relaxed);
    let third = images.all(std::slice::from_ref(&name), PATIENCE).await.remove(&name).unwrap();
    assert!(third.is_ok());
    assert_eq!(asked.load(Ordering::Relaxed), so_far, "it is remembered");
}
