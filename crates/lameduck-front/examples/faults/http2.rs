//! HTTP/2 on both sides: clients whose streams and connections end anyhow, and the app's gRPC.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::timeout;

use crate::app::{Kind, VERBS, parts};
use crate::client::Asked;
use crate::wire::Wire;
use crate::{World, content};

const PATIENCE: Duration = Duration::from_secs(10);

/// One connection, many streams.
pub async fn session(world: &Rc<World>, front: &str) -> io::Result<()> {
    let stream = Wire::connect(front).await?.into_parts().0;
    // To be able to end it under the library's hands.
    let handle = stream.into_std()?;
    let stream = TcpStream::from_std(handle.try_clone()?)?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
    let connection = spawn_local(async move {
        let _ = connection.await;
    });
    let mut streams = JoinSet::new();
    let rapid = world.chance(20);
    for _ in 0..=world.below(if rapid { 80 } else { 12 }) {
        let (own, sender) = (Rc::clone(world), sender.clone());
        streams.spawn_local(async move {
            let _ = timeout(PATIENCE, one(&own, sender, rapid)).await;
        });
        if !rapid {
            world.pause(60).await;
        }
    }
    if world.chance(25) {
        world.pause(100).await;
        connection.abort();
        let _ = connection.await;
        streams.abort_all();
        return Ok(rustix::net::sockopt::set_socket_linger(&handle, Some(Duration::ZERO))?);
    }
    drop(handle);
    while streams.join_next().await.is_some() {}
    drop(sender);
    // GOAWAY and its end, or just the end.
    if world.chance(50) {
        let _ = timeout(PATIENCE, connection).await;
    } else {
        connection.abort();
    }
    Ok(())
}

async fn one(world: &World, sender: SendRequest<Bytes>, rapid: bool) -> Result<(), h2::Error> {
    let asked = Asked::any(world);
    let (grpc, upload) = (world.chance(25), world.chance(30));
    let mut request = Request::post(format!("http://soak{}", asked.path())).body(()).unwrap();
    if grpc {
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    } else if !upload {
        *request.method_mut() = Method::GET;
    }
    let mut sender = sender.ready().await?;
    let (response, mut send) = sender.send_request(request, !upload)?;
    if rapid {
        world.pause(5).await;
        send.send_reset(h2::Reason::CANCEL);
        return Ok(());
    }
    if upload {
        for part in content(asked.id, world.below(50_000) as usize).chunks(10_000) {
            send.send_data(Bytes::copy_from_slice(part), false)?;
            if world.chance(3) {
                send.send_reset(h2::Reason::CANCEL);
                return Ok(());
            }
            world.pause(20).await;
        }
        send.send_data(Bytes::new(), true)?;
    }
    let response = response.await?;
    let status = response.status().as_u16();
    let mut incoming = response.into_body();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        if world.chance(2) {
            // Half read, and left.
            return Ok(());
        }
        // Some read no more, and hold their window.
        if !world.chance(2) {
            let _ = incoming.flow_control().release_capacity(data.len());
        }
    }
    let trailers = incoming.trailers().await?;
    asked.check(world, status, &body);
    if grpc && status == 200 && trailers.is_none_or(|trailers| trailers.get("grpc-status").is_none()) {
        world.wrong(format!("{} lost its trailers", asked.path()));
    }
    Ok(())
}

/// A connection, with what was read of it already.
struct Io {
    stream: TcpStream,
    first: Vec<u8>,
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let n = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..n]);
        self.first.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The app's side: the same verbs, as far as HTTP/2 has them. Some take the whole connection with them.
pub async fn converse(world: &Rc<World>, wire: Wire) -> io::Result<()> {
    let (stream, first) = wire.into_parts();
    let mut connection = h2::server::handshake(Io { stream, first }).await.map_err(io::Error::other)?;
    let (mut streams, dies) = (JoinSet::new(), Rc::new(Notify::new()));
    loop {
        let accepted = tokio::select! {
            () = dies.notified() => return Ok(()),
            accepted = connection.accept() => accepted,
        };
        let Some(Ok((request, respond))) = accepted else { return Ok(()) };
        let (world, dies) = (Rc::clone(world), Rc::clone(&dies));
        streams.spawn_local(async move {
            let _ = serve(&world, request, respond, &dies).await;
        });
        while streams.try_join_next().is_some() {}
    }
}

async fn serve(
    world: &World,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    dies: &Notify,
) -> Result<(), h2::Error> {
    let path = request.uri().path().to_owned();
    let (verb, id, size) = parts(&path);
    world.saw(format!("app: grpc {verb}"));
    let mut incoming = request.into_body();
    let mut body = Vec::new();
    while let Some(data) = incoming.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        incoming.flow_control().release_capacity(data.len())?;
    }
    if body != content(id, body.len()) {
        world.wrong(format!("the app got a body of {} bytes that is not that of {path}", body.len()));
    }
    let kind = VERBS.iter().find(|(known, _)| *known == verb).map_or(Kind::Good, |(_, kind)| *kind);
    if kind == Kind::Bad {
        world.pause(300).await;
        if verb.ends_with("rst") {
            dies.notify_one();
        }
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut send = respond.send_response(Response::new(()), false)?;
    let content = content(id, size);
    let half = if kind == Kind::Cut { size / 2 } else { size };
    for part in content[..half].chunks(16 << 10) {
        send.reserve_capacity(part.len());
        while send.capacity() < part.len() {
            match std::future::poll_fn(|cx| send.poll_capacity(cx)).await {
                Some(more) => drop(more?),
                None => return Ok(()),
            }
        }
        send.send_data(Bytes::copy_from_slice(part), false)?;
    }
    if kind == Kind::Cut {
        world.pause(50).await;
        if verb.ends_with("rst") {
            dies.notify_one();
        }
        send.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    send.send_trailers(trailers)
}
