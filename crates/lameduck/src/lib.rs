//! The `lameduck` program: arguments -> options -> verb -> output. The only crate that prints, exits, or reads the
//! environment.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this crate is the edge that the bans name"
)]

pub mod cli;
pub mod exit;
#[cfg(feature = "incident")]
pub mod incident;

use std::ffi::OsString;

use cli::flag::{self, Failure};

/// The whole program; returns the exit status.
pub fn main() -> u8 {
    #[cfg(feature = "run")]
    let inherited_mask = lameduck_run::sys::block_all_signals();
    let mut args = std::env::args_os();
    let argv0 = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    let env = |name: &str| std::env::var_os(name);

    #[cfg(feature = "cluster")]
    if cli::kubectl::is_meant(&argv0) {
        lameduck_run::sys::set_signal_mask(inherited_mask);
        return finish(cli::kubectl::kubectl(&args, &env));
    }
    #[cfg(feature = "run")]
    {
        if let Some(who) = lameduck_run::persona::stand_in(&argv0) {
            return cli::run::as_stand_in(who, &args, env, inherited_mask);
        }
        if args.first().is_some_and(|verb| verb == "run") {
            return finish(cli::run::run(&args[1..], &env, inherited_mask));
        }
        #[cfg(feature = "front")]
        match args.first().and_then(|verb| verb.to_str()) {
            Some("front") => return finish(cli::front::front(&args[1..], &env, inherited_mask)),
            // It keeps every signal blocked.
            Some(cli::front::PLACE_VERB) => return finish(cli::front::hold_place()),
            Some(_) | None => {}
        }
        lameduck_run::sys::set_signal_mask(inherited_mask);
    }
    let _ = argv0;
    let Some((verb, rest)) = args.split_first() else {
        eprint!("{}", cli::overview());
        return exit::USAGE;
    };
    match verb.to_str().unwrap_or_default() {
        #[cfg(feature = "run")]
        "drain" => finish(cli::control::drain(rest, &env)),
        #[cfg(feature = "run")]
        "ready" => finish(cli::control::ready(rest, &env)),
        #[cfg(feature = "cluster")]
        cli::endpoints::VERB => finish(cli::endpoints::serve_endpoints(rest, &env)),
        #[cfg(feature = "run")]
        "serve-admin" => finish(cli::control::serve_admin(rest)),
        #[cfg(feature = "run")]
        cli::copy::COPY_VERB => finish(cli::copy::copy_to(rest)),
        #[cfg(feature = "front")]
        cli::front::SERVE_VERB => finish(cli::front::serve_front(rest)),
        #[cfg(feature = "drill")]
        "drill" => finish(cli::drill::drill(rest, &env)),
        #[cfg(feature = "drill")]
        cli::drill::WORKER_VERB => finish(cli::drill::work()),
        #[cfg(all(feature = "drill", feature = "run"))]
        "demo" => finish(cli::demo::demo(rest, &env)),
        #[cfg(all(feature = "drill", feature = "run"))]
        cli::demo::SERVICE_VERB => finish(cli::demo::serve_naive(&env)),
        #[cfg(feature = "check")]
        "check" => finish(cli::check::check(rest, &env)),
        #[cfg(feature = "check")]
        "rule" => finish(cli::rule::rule(rest, &env)),
        #[cfg(feature = "simulate")]
        "simulate" => finish(cli::simulate::simulate(rest, &env)),
        #[cfg(feature = "explain")]
        "explain" => finish(cli::explain::explain(rest, &env)),
        #[cfg(feature = "explain")]
        "probe" => finish(cli::probe::probe(rest, &env)),
        #[cfg(feature = "incident")]
        "incident" => finish(cli::incident::incident(rest, &env)),
        #[cfg(feature = "incident")]
        cli::incident::POD_VERB => finish(cli::incident::hold_pod(rest)),
        #[cfg(feature = "cluster")]
        "webhook" => finish(cli::webhook::webhook(rest, &env)),
        #[cfg(feature = "cluster")]
        "kubectl" => finish(cli::kubectl::kubectl(rest, &env)),
        "help" | "--help" | "-h" => {
            print!("{}", cli::help(rest.first().and_then(|verb| verb.to_str())));
            exit::OK
        }
        "version" | "--version" | "-V" => {
            println!("lameduck {}", env!("CARGO_PKG_VERSION"));
            exit::OK
        }
        unknown => {
            let verbs = cli::VERBS.iter().map(|verb| verb.name).chain(["help", "version"]);
            let near =
                flag::nearest(unknown, verbs).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            eprintln!("lameduck: {unknown:?} is no verb of lameduck{near}\n\n{}", cli::overview());
            exit::USAGE
        }
    }
}

/// Prints what a verb could not do; gives its status.
fn finish(result: Result<u8, Failure>) -> u8 {
    match result {
        Ok(status) => status,
        Err(Failure::Help(text)) => {
            print!("{text}");
            exit::OK
        }
        Err(Failure::Error { message, status }) => {
            eprintln!("lameduck: {message}");
            status
        }
    }
}
