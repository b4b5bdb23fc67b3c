//! The lameducks of one pod find each other, and leave in order: whoever proxies to a neighbour leaves before it.
//!
//! Containers of a pod share the network namespace, and abstract unix sockets (unix(7)) belong to it. Each lameduck binds one;
//! in a drain it asks the others where they stand ([`wire`]), and [`order`] says, as a pure function of what was heard, whether
//! somebody is to leave first. [`links`] learns from the kernel who proxies to whom; [`identity`] who a container is.
//!
//! What is trusted: nothing that could make an app leave sooner. Whatever a neighbour says, or a stranger in its name, can only
//! make a lame duck last longer, and no longer than [`Machine::held_until`](crate::machine::Machine::held_until). So the user
//! who speaks does not matter: containers of one pod rarely share it.

pub mod identity;
pub mod links;
pub mod order;
pub mod socket;
pub mod wire;
