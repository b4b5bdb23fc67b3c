//! A command in a container, and what is said to one that runs.

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::kube::{Ask, Kube, LIMIT, Refused, escaped};
use super::resource::PODS;
use super::websocket::{self, ERRORS, INPUT, OUTPUT, Piece, Pieces, STATUS};

/// What a command may write.
const MOST: usize = 1 << 20;
/// The longest line that is read of one that runs.
const LONGEST: usize = 256 << 20;
/// What is kept of its standard error.
const LAST_WORDS: usize = 4 << 10;

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// What it wrote to standard output.
    pub output: Vec<u8>,
    /// Why it failed, if it did; where it could not be started, the runtime's words.
    pub failure: Option<String>,
}

/// Runs a command to its end, without input.
///
/// # Errors
///
/// Where the API server does not let it, or breaks off.
pub async fn exec(kube: &Kube, namespace: &str, pod: &str, container: &str, argv: &[&str]) -> Result<Ended, Refused> {
    let ask = Ask { verb: "create", resource: &PODS, sub: "exec", namespace: Some(namespace), name: Some(pod) };
    let mut query = format!("container={}&stdout=true&stderr=true", escaped(container));
    for word in argv {
        query = format!("{query}&command={}", escaped(word));
    }
    let whole = async {
        let stream = websocket::open(kube, &ask, &query).await?;
        read(stream).await.map_err(|why| kube.failed(&ask, why))
    };
    let why = || format!("{} had not ended after {} s", argv.first().unwrap_or(&""), LIMIT.as_secs());
    tokio::time::timeout(LIMIT, whole).await.map_err(|_| kube.failed(&ask, why()))?
}

/// Reads until the status is told, or the other end closes.
async fn read(stream: impl AsyncRead + AsyncWrite) -> Result<Ended, String> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut pieces = Pieces::of(reader, MOST);
    let mut ended = Ended::default();
    loop {
        match pieces.next().await? {
            Piece::Message(OUTPUT, content) => ended.output.extend(content),
            Piece::Message(STATUS, content) => {
                ended.failure = websocket::failure(&content);
                return Ok(ended);
            }
            Piece::Message(..) => {}
            Piece::Ping(content) => {
                writer.write_all(&websocket::pong(&content)).await.map_err(|error| error.to_string())?;
            }
            Piece::Closed => return Ok(ended),
        }
        if ended.output.len() > MOST {
            return Err(format!("more than {} KiB of output", MOST >> 10));
        }
    }
}

/// Talks with a container's first process by lines until it ends; gives why it failed, if it did. Its standard input ends when nobody
/// has the other end of `lines` any more.
///
/// # Errors
///
/// Where the API server does not let it, or breaks off.
pub async fn attach(
    kube: &Kube,
    namespace: &str,
    pod: &str,
    container: &str,
    lines: mpsc::UnboundedReceiver<String>,
    hear: impl FnMut(&str),
) -> Result<Option<String>, Refused> {
    let ask = Ask { verb: "create", resource: &PODS, sub: "attach", namespace: Some(namespace), name: Some(pod) };
    let query = format!("container={}&stdin=true&stdout=true&stderr=true", escaped(container));
    let opened = tokio::time::timeout(LIMIT, websocket::open(kube, &ask, &query)).await;
    let why = || format!("no answer within {} s", LIMIT.as_secs());
    let stream = opened.map_err(|_| kube.failed(&ask, why()))??;
    talk(stream, lines, hear).await.map_err(|why| kube.failed(&ask, why))
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite,
    mut lines: mpsc::UnboundedReceiver<String>,
    hear: impl FnMut(&str),
) -> Result<Option<String>, String> {
    let (reader, mut writer) = tokio::io::split(stream);
    let (pongs, mut to_answer) = mpsc::unbounded_channel::<Vec<u8>>();
    let write = async {
        loop {
            let frame = tokio::select! {
                Some(content) = to_answer.recv() => websocket::pong(&content),
                line = lines.recv() => match line {
                    Some(line) => websocket::message(INPUT, format!("{line}\n").as_bytes()),
                    None => return Ok(()),
                },
            };
            writer.write_all(&frame).await.map_err(|error| format!("the connection broke off: {error}"))?;
        }
    };
    both(write, listen(Pieces::of(reader, LONGEST), &pongs, hear)).await
}

/// Goes on until what is heard ends, or nothing can be said any more.
async fn both<T>(
    telling: impl Future<Output = Result<(), String>>,
    listening: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::pin!(listening);
    tokio::select! {
        heard = &mut listening => heard,
        told = telling => match told {
            Ok(()) => Err("nobody tells it anything any more".to_owned()),
            // What it said before is still to be read, and says more.
            Err(why) => (&mut listening).await.map_err(|_| why),
        },
    }
}

async fn listen<R: AsyncRead + Unpin>(
    mut pieces: Pieces<R>,
    pongs: &mpsc::UnboundedSender<Vec<u8>>,
    mut hear: impl FnMut(&str),
) -> Result<Option<String>, String> {
    let (mut rest, mut errors) = (Vec::new(), Vec::new());
    loop {
        match pieces.next().await? {
            Piece::Message(OUTPUT, content) => {
                // Only what is new is searched: a line may be long, and comes in many pieces.
                let mut from = 0;
                for end in content.iter().enumerate().filter_map(|(at, byte)| (*byte == b'\n').then_some(at)) {
                    rest.extend(&content[from..end]);
                    hear(&String::from_utf8_lossy(&rest));
                    rest.clear();
                    from = end + 1;
                }
                rest.extend(&content[from..]);
                if rest.len() > LONGEST {
                    return Err(format!("a line of more than {} MiB", LONGEST >> 20));
                }
            }
            Piece::Message(ERRORS, content) => {
                errors.extend(content);
                let over = errors.len().saturating_sub(LAST_WORDS);
                errors.drain(..over);
            }
            Piece::Message(STATUS, content) => {
                let words = String::from_utf8_lossy(&errors).trim().to_owned();
                return Ok(websocket::failure(&content).map(|why| format!("{why}: {words}")));
            }
            Piece::Message(..) => {}
            Piece::Ping(content) => drop(pongs.send(content)),
            Piece::Closed => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn check(bytes: &[u8], expect: Result<Ended, &str>) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(bytes).await.unwrap();
        let answered = tokio::spawn(async move {
            let _ = theirs.shutdown().await;
            let mut pongs = Vec::new();
            let _ = theirs.read_to_end(&mut pongs).await;
            pongs
        });
        match (read(ours).await, expect) {
            (Ok(ended), Ok(expect)) => assert_eq!(ended, expect),
            (Err(error), Err(expect)) => assert!(error.contains(expect), "{error}"),
            (read, expect) => panic!("{read:?}, not {expect:?}"),
        }
        answered.await.unwrap();
    }

    #[tokio::test]
    async fn output_in_pieces_and_how_it_ended() {
        let fine = |output: &[u8]| Ok(Ended { output: output.to_vec(), failure: None });
        let success = b"\x82\x16\x03{\"status\":\"Success\"} ";
        // A message of two frames with a ping between them, standard error, the status.
        let bytes = [b"\x02\x03\x01ab\x89\x01p\x80\x01c\x82\x03\x02no".as_slice(), success].concat();
        check(&bytes, fine(b"abc")).await;
        let failed = br#"{"status":"Failure","message":"exit 1"}"#;
        let bytes = [[0x82, failed.len() as u8 + 1, 3].as_slice(), failed].concat();
        check(&bytes, Ok(Ended { output: Vec::new(), failure: Some("exit 1".to_owned()) })).await;
        check(b"\x82\x02\x01a\x88\x00", fine(b"a")).await;
        check(b"\x82\x05\x01a", Err("broke off")).await;
    }

    #[tokio::test]
    async fn lines_go_both_ways() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (tell, lines) = mpsc::unbounded_channel();
        tell.send("an order".to_owned()).unwrap();
        let container = tokio::spawn(async move {
            // Its first line: 0x82, a masked length, the mask, the channel and what was told.
            let mut frame = vec![0; 6 + 1 + "an order\n".len()];
            theirs.read_exact(&mut frame).await.unwrap();
            let mask = [frame[2], frame[3], frame[4], frame[5]];
            let content: Vec<u8> = frame[6..].iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            assert_eq!(content, b"\0an order\n");
            // Two lines and a half, a ping, the other half, and why it failed.
            theirs.write_all(b"\x82\x08\x01a\nb\nhal\x89\x01p\x82\x03\x01f\n\x82\x04\x02oh\n").await.unwrap();
            let mut pong = [0; 7];
            theirs.read_exact(&mut pong).await.unwrap();
            assert_eq!(pong[..2], [0x8a, 0x81]);
            let failed = br#"{"status":"Failure","message":"exit 4"}"#;
            theirs.write_all(&[[0x82, failed.len() as u8 + 1, 3].as_slice(), failed].concat()).await.unwrap();
        });
        let mut heard = Vec::new();
        let ended = talk(ours, lines, |line| heard.push(line.to_owned())).await.unwrap();
        container.await.unwrap();
        assert_eq!(ended.as_deref(), Some("exit 4: oh"));
        assert_eq!(heard, ["a", "b", "half"]);
        drop(tell);
    }

    #[tokio::test]
    async fn who_is_told_nothing_more_is_left() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (tell, lines) = mpsc::unbounded_channel::<String>();
        drop(tell);
        let ended = talk(ours, lines, |_| {}).await;
        assert!(ended.unwrap_err().contains("nobody tells it"));
        drop(theirs);
    }
}
