//! HTTP/2.
use std::rc::Rc;
use crate::connection::Client;
use crate::state::Front;
/// Serves.
pub async fn serve(_front: &Rc<Front>, _client: Client) {}
