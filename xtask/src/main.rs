//! The project's own tasks: `cargo xtask test|slim|bench|cluster|drills|incidents|matrix|probe|soak|truth`.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program at the edge, for the people who build lameduck"
)]

mod bench;
mod bench_check;
mod bench_simulate;
mod built;
mod cluster;
mod drills;
mod incidents;
mod matrix;
mod packages;
mod probe;
mod slim;
mod soak;
mod test;
mod truth;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask TASK

  test                       All tests. As root it installs the packages they need; else it lists them.
  test --cluster             The tests on a real Kubernetes of their own, which is built once. Root.
  cluster up|status|down|drill|incident|first-hour|workers
                             That Kubernetes, to work with.
  slim                       The static build for images: prints its path and its size.
  bench NAME [--json FILE]   A performance claim against its peers: init, early-term, front, check, explain,
                             simulate.
  drills [--most N] [--json FILE]
                             The short drills that a test holds lameduck simulate to. Those that FILE has are not made again.
  incidents [--runs 20] [--names a,b] [--whole] [--folder DIR]
                             The four incidents, so many times each, and the table of what they showed. Runs whose result
                             DIR has are not made again. Fails where one did not pass.
  matrix [--runs 4] [--rate 500] [--seconds 17] [--servers a,b] [--profiles a,b]
         [--mode front|front-killed|observe|plain] [--json FILE]
                             Real servers, three replicas of each rolled behind each balancer. Runs that FILE has are
                             not made again. Fails where a request was lost or a stop took too long.
  probe [--servers a,b] [--max-idle 100] [--long] [--json FILE]
                             Real servers by their defaults, measured by `lameduck probe`, beside the catalogue. Installs
                             what is in no Debian package into the target folder. Fails where one differs.
  soak [--minutes 10] [--rate 60] [--seed N] [--json FILE]
                             The front between an app and clients that fail in every way there is, so many sessions a
                             second. Fails where anything is left of them: descriptors, memory, an entry in the books.
  truth record [--proxies google,nginx,haproxy,haproxy-more,envoy] [--only a,b] [--envoy PATH]
                             The fixtures that explain is held to: real proxies before real servers that are ended under
                             load, with the drill's verdict on each loss. Root; with --only the rest stays as it was.
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    match task.as_str() {
        "test" if rest == ["--cluster"] => cluster::test::test(),
        "test" => test::test(),
        "cluster" => cluster::cluster(&rest),
        "slim" => slim::slim().map(|path| {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }),
        "bench" => bench::bench(&rest),
        "drills" => drills::drills(&rest),
        "incidents" => incidents::incidents(&rest),
        "matrix" => matrix::matrix(&rest),
        "probe" => probe::probe(&rest),
        "soak" => soak::soak(&rest),
        "truth" => truth::truth(&rest),
        _ => {
            eprint!("{HELP}");
            Ok(ExitCode::from(2))
        }
    }
}
