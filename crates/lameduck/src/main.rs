//! The program. Its first instruction is not here but in lameduck-run's entry point; see `build.rs`.
#![no_main]

/// Called by the C library. Rust's own start-up is left out: it would set SIGPIPE to ignored, which children inherit.
#[expect(unsafe_code, reason = "the C library finds `main` by this name")]
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    i32::from(lameduck::main())
}
