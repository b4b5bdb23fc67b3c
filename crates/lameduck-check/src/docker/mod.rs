//! Dockerfiles: the syntax as `BuildKit` reads it, and the image that comes out.

pub mod base;
pub mod expand;
pub mod image;
pub mod parse;
