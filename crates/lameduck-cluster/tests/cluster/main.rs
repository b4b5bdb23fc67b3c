//! The parts of the webhook that meet others: an API server's objects, TLS, registries. Over real sockets.

mod api_server;
mod certificates;
mod registries;
mod reviews;
