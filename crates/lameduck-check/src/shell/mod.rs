//! Shell scripts: which process the app's process is, and what becomes of a signal on its way there.

pub mod ast;
pub mod condition;
pub mod exec;
pub mod parse;
