//! The traps of draining, each with its oracle, on real sockets.
//!
//! 1. a request meets the close: `close`
//! 2. pipelining, 3. a response that streams already, 5. an early answer, 6. `Expect`, 13. shortened time: `answers`
//! 4. real clients: `clients`
//! 7. clients that never read, slow heads, 8. silent connections, 11. probes: `silent`
//! 9. streams of HTTP/2 between two GOAWAYs: in `http2`, beside this
//! 10. WebSockets, event streams, long polls: `ends`
//! 12. all replicas terminating, 14. the app exits first, or restarts: `app`
//!
//! and besides: limits and what is told of a request (`limits`), the books (`books`), many connections (`many`).

mod answers;
mod app;
mod books;
mod clients;
mod close;
mod ends;
mod limits;
mod many;
mod silent;

use std::time::Duration;

use lameduck_core::front::Command;
use lameduck_front::Config;

use super::rig::{App, Client, Front};

/// What the clock of the front, two busy cores and the clients may take, on top of what the options say.
const SLACK: Duration = Duration::from_secs(3);

/// Options with which a drain is short.
fn quick() -> Config {
    Config {
        first_byte_grace: Duration::from_millis(300),
        shed_spread: Duration::from_millis(100),
        linger: Duration::from_millis(500),
        websocket_grace: Duration::from_millis(100),
        stream_grace: Duration::from_millis(100),
        ..Config::default()
    }
}

fn start() -> (App, Front) {
    start_with(quick())
}

fn start_with(config: Config) -> (App, Front) {
    let app = App::start();
    let front = Front::start(app.address, config);
    (app, front)
}

/// The lame duck and then the close.
fn close(front: &mut Front) {
    front.tell(Command::LameDuck);
    front.tell(Command::Close);
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The connection ends with FIN, and nothing came on it.
fn ends_clean(client: &mut Client) {
    assert_eq!(client.end().unwrap(), b"");
}
