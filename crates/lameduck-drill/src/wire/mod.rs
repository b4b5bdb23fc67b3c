//! HTTP on the drill's own sockets: nothing is resent, merged or hidden between the plan and the wire.

pub(crate) mod chunked;
pub(crate) mod exchange;
pub(crate) mod h2;
pub(crate) mod response;
pub(crate) mod tap;
pub(crate) mod websocket;
