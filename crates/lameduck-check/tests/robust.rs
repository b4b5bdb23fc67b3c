//! No text makes a parser panic or run without end. The fuzz targets go further; this runs with every `cargo test`.

use lameduck_check::parsers;
use proptest::prelude::*;

/// Pieces that mean something to one of the parsers, in any order.
const PIECES: &[&str] = &[
    "FROM ",
    "a AS b\n",
    "RUN ",
    "CMD ",
    "ENTRYPOINT ",
    "SHELL ",
    "ONBUILD ",
    "COPY <<EOF /x\n",
    "EOF\n",
    "[\"a\", \"b\"]",
    "\\\n",
    "`\n",
    "# escape=`\n",
    "$",
    "${",
    "}",
    "$(",
    ")",
    "((",
    "))",
    "'",
    "\"",
    "`",
    "\\",
    "|",
    "||",
    "&&",
    "&",
    ";",
    ";;",
    "\n",
    " ",
    "if ",
    "then ",
    "else ",
    "fi ",
    "case ",
    "in ",
    "esac ",
    "while ",
    "do ",
    "done ",
    "for ",
    "f() { ",
    "trap 'x' TERM",
    "wait",
    "exec ",
    "<<E\n",
    "E\n",
    "> >(",
    "<(",
    "a=(",
    "[[ ",
    "]]",
    "é",
    "\u{1F986}",
    "\t",
    "- ",
    "a: ",
    "? ",
    "&a ",
    "*a",
    "|\n ",
    ">-\n ",
    "{",
    "[",
    "]",
    ",",
    "---\n",
    "apiVersion: v1\n",
    "kind: Pod\n",
    "spec:\n  containers:\n  - name: x\n",
    "services:\n  a:\n    command: b\n",
    "upstream a {",
    "server b;",
    "keepalive 1;",
    "timeout server 5s\n",
    "keepAliveTimeout = ",
    "620e3;",
    "createServer(",
    "require('./a')",
    "//",
    "/*",
    "*/",
    "\r\n",
    "\u{feff}",
    "lameduck: ignore[x] y",
    "%YAML 1.2\n",
    "!!str ",
    "#",
];

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![4 => prop::sample::select(PIECES).prop_map(str::to_owned), 1 => any::<String>()],
        0..40,
    )
    .prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn dockerfiles(text in text()) {
        parsers::dockerfile(&text);
    }

    #[test]
    fn scripts(text in text()) {
        parsers::shell(&text);
    }

    #[test]
    fn manifests(text in text()) {
        parsers::yaml(&text);
        parsers::documents(&text);
    }

    #[test]
    fn proxies(text in text()) {
        parsers::proxies(&text);
    }

    #[test]
    fn sources(text in text()) {
        parsers::node(&text);
    }
}
