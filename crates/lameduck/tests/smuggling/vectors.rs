//! Messages that servers are known to read in different ways, made from tables of mutations. `/§` stands for a path that no
//! other vector has.

/// What one client sends on one connection, and what the front is to make of it.
#[derive(Debug, Clone)]
pub struct Vector {
    pub name: String,
    pub bytes: Vec<u8>,
    /// The bodies of the requests that go on to the app.
    pub bodies: Vec<Vec<u8>>,
    /// Whether the connection goes on after them.
    pub goes_on: bool,
}

/// What must never be taken for a request.
pub const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: hidden\r\n\r\n";

#[derive(Default)]
struct Table(Vec<Vector>);

impl Table {
    fn add(&mut self, name: &str, text: &str, bodies: &[&str], goes_on: bool) {
        let bodies = bodies.iter().map(|body| latin1(body)).collect();
        self.0.push(Vector { name: format!("{name}: {text:?}"), bytes: latin1(text), bodies, goes_on });
    }

    /// Nothing of it goes on.
    fn refused(&mut self, name: &str, text: &str) {
        self.add(name, text, &[], false);
    }

    /// It is understood in the one way in which it can be.
    fn served(&mut self, name: &str, text: &str, bodies: &[&str]) {
        self.add(name, text, bodies, true);
    }

    /// It is understood, and is the last on its connection.
    fn last(&mut self, name: &str, text: &str, bodies: &[&str]) {
        self.add(name, text, bodies, false);
    }
}

/// Each character is the byte of its number.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /§ HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}")
}

fn get(fields: &str) -> String {
    format!("GET /§ HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

/// All of them.
pub fn all() -> Vec<Vector> {
    let mut table = Table::default();
    lengths(&mut table);
    codings(&mut table);
    disguises(&mut table);
    lines(&mut table);
    versions(&mut table);
    request_lines(&mut table);
    methods_and_targets(&mut table);
    sizes(&mut table);
    trailers(&mut table);
    hidden(&mut table);
    connections(&mut table);
    table.0
}

fn lengths(table: &mut Table) {
    let hidden = HIDDEN.len();
    for value in [
        "",
        "+5",
        "-5",
        "-0",
        "--5",
        "5,5",
        "5, 5",
        "5,6",
        "5;5",
        ",5",
        "5,",
        "0x5",
        "5h",
        "5.0",
        "5e0",
        "5 5",
        "\"5\"",
        "'5'",
        "1_0",
        "0b101",
        "0o5",
        "5\0",
        "\x005",
        "5\x0b",
        "\x0c5",
        "\u{a0}5",
        "5\u{85}",
        "\u{b2}",
        "five",
        "5\r",
        "18446744073709551621",
        "99999999999999999999",
        "-18446744073709551611",
        "0000000000000000000000005",
        "NaN",
    ] {
        table.refused("a length", &post(&format!("Content-Length: {value}"), HIDDEN));
    }
    for value in ["5", "05", "005", "  5", "\t5", "5  \t", ""] {
        let colon = if value.is_empty() { "5" } else { value };
        table.served("a length", &post(&format!("content-length:{colon}"), "hello"), &["hello"]);
    }
    let (zero, all) = ("Content-Length: 0", format!("Content-Length: {hidden}"));
    for (first, second) in [(zero, all.as_str()), (all.as_str(), zero), (zero, zero), (&all, &all)] {
        for between in ["", "A: b\r\n"] {
            table.refused("two lengths", &post(&format!("{first}\r\n{between}{second}"), HIDDEN));
            let other = second.to_lowercase();
            table.refused("two lengths", &post(&format!("{first}\r\n{between}{other}"), HIDDEN));
        }
    }
}

fn codings(table: &mut Table) {
    for value in [
        "",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "chunked, chunked",
        ",chunked",
        "chunked,",
        ", chunked",
        "chunked;q=1",
        "chunked; a",
        "\"chunked\"",
        "'chunked'",
        "xchunked",
        "chunkedx",
        "chunk",
        "c hunked",
        "chun\tked",
        "\x0bchunked",
        "chunked\x0b",
        "\0chunked",
        "chunked\0",
        "\u{a0}chunked",
        "chunked\u{85}",
        "\u{ff}chunked\u{ff}",
        "cow",
        "\\chunked",
        "{chunked}",
        "chunked\r",
        "\rchunked",
        "chunked\n",
        "(chunked)",
        "chunke",
        "trailers",
        "x-chunked",
        "chunked/1",
    ] {
        table.refused("a coding", &post(&format!("Transfer-Encoding: {value}"), &format!("0\r\n\r\n{HIDDEN}")));
    }
    for value in ["chunked", "CHUNKED", "chunKed", "   chunked", "\tchunked", "chunked \t"] {
        table.served("a coding", &post(&format!("transfer-encoding:{value}"), CHUNKS), &["hello"]);
    }
    for (first, second) in [("chunked", "chunked"), ("chunked", "identity"), ("identity", "chunked"), ("", "chunked")] {
        let fields = format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}");
        table.refused("two codings", &post(&fields, &format!("0\r\n\r\n{HIDDEN}")));
    }
    for length in ["5", "0", "44", "", "x"] {
        for coding in ["chunked", "Chunked", "identity", "x", "gzip, chunked", ""] {
            let (length, coding) = (format!("Content-Length: {length}"), format!("Transfer-Encoding: {coding}"));
            table.refused("both", &post(&format!("{length}\r\n{coding}"), &format!("0\r\n\r\n{HIDDEN}")));
            table.refused("both", &post(&format!("{coding}\r\n{length}"), &format!("0\r\n\r\n{HIDDEN}")));
        }
    }
    table.refused("in HTTP/1.0", "POST /§ HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    table.refused(
        "in HTTP/1.0",
        "POST /§ HTTP/1.0\r\nConnection: keep-alive\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
}

/// Names that are almost those of the fields that frame.
fn disguises(table: &mut Table) {
    for (name, value, body) in [("Content-Length", "44", HIDDEN), ("Transfer-Encoding", "chunked", CHUNKS)] {
        let (first, second) = name.split_once('-').unwrap();
        let mut refused = |field: &str| table.refused("a disguise", &post(field, body));
        for after in [" ", "\t", "\x0b", "\x0c", "\0", "\u{a0}", "\u{85}", "\r", " \t", "\"", "(", ";"] {
            refused(&format!("{name}{after}: {value}"));
            refused(&format!("A: b\r\n{after}{name}: {value}"));
        }
        for joint in ["_", ".", "~", "!", "'", " ", "\t", "\0", "\r", "\n", "\r\n", "\r\n ", "\u{ad}", "\u{96}"] {
            refused(&format!("{first}{joint}{second}: {value}"));
        }
        refused(&format!("{name} {value}"));
        refused(&format!("{name}\r\n: {value}"));
        refused(&format!("{name}\r\n : {value}"));
        refused(&format!("A: b\r {name}: {value}"));
        refused(&format!("A: b\n{name}: {value}"));
        refused(&format!("A: b\r{name}: {value}"));
        refused(&format!("A: b\0{name}: {value}"));
        refused(&format!("A:\n{name}: {value}"));
        refused(&format!("A: b\r\n\r{name}: {value}"));
        refused(&format!(":{name}: {value}"));
        refused(&format!(":\r\n{name}: {value}"));
        // Another field is another field: there is no body.
        for other in [format!("X-{name}"), format!("{name}s"), format!("{first}{second}"), format!("{first}--{second}")]
        {
            table.served("another name", &get(&format!("{other}: {value}\r\n")), &[""]);
        }
        table.served("in a value", &get(&format!("A: {name}: {value}\r\n")), &[""]);
        table.served("in a query", &format!("GET /§?{name}:{value} HTTP/1.1\r\nHost: x\r\n\r\n"), &[""]);
    }
}

/// Lines that end otherwise, and what may not stand in them.
fn lines(table: &mut Table) {
    for end in ["\n", "\r", "\r\r\n", "\n\r", "\n\n", "\0\r\n", "\x0b\r\n ", "\x0c"] {
        let mut refused = |text: &str| table.refused("a line's end", &format!("{text}{HIDDEN}"));
        refused(&format!("GET /§ HTTP/1.1{end}Host: x\r\n\r\n"));
        refused(&format!("GET /§ HTTP/1.1\r\nHost: x{end}A: b\r\n\r\n"));
        refused(&format!("GET /§ HTTP/1.1\r\nHost: x\r\nA: b{end}\r\n\r\n"));
        if !matches!(end, "\n" | "\n\n") {
            refused(&format!("GET /§ HTTP/1.1\r\nHost: x\r\nA: b\r\n{end}B: c\r\n\r\n"));
        }
    }
    table.refused("the last line's end", &format!("GET /§ HTTP/1.1\r\nHost: x\r\n\n{HIDDEN}"));
    table.refused("the last line's end", &format!("GET /§ HTTP/1.1\r\nHost: x\n\r\n{HIDDEN}"));
    table.refused("the last line's end", &format!("GET /§ HTTP/1.1\nHost: x\n\n{HIDDEN}"));
    table.refused("the last line's end", &format!("GET /§ HTTP/1.1\r\nHost: x\r\n\rX{HIDDEN}"));
    for fold in [" ", "\t", "  ", " \t "] {
        table.refused("a fold", &get(&format!("A: b\r\n{fold}c\r\n")));
        table.refused("a fold", &get(&format!("A:\r\n{fold}c\r\n")));
        table.refused("a fold", &get(&format!("{fold}A: b\r\n")));
        table.refused("a fold", &format!("GET /§ HTTP/1.1\r\n{fold}Host: x\r\n\r\n"));
        table.refused("a fold", &post(&format!("Content-Length:\r\n{fold}44"), HIDDEN));
    }
    for byte in (0..32).chain([127]).filter(|byte| ![9, 10, 13].contains(byte)).map(char::from) {
        table.refused("a control in a value", &get(&format!("A: b{byte}c\r\n")));
        table.refused("a control in a name", &get(&format!("A{byte}: b\r\n")));
    }
    for byte in "\"(),/;<=>?@[\\]{} \u{80}\u{a0}\u{e4}\u{ff}".chars() {
        table.refused("a name", &get(&format!("A{byte}B: b\r\n")));
    }
    for field in ["A", "A B", ":", ": b", "=", "\0", " "] {
        table.refused("no field", &get(&format!("{field}\r\n")));
    }
    table.served("odd but right", &get("!#$%&'*+-.^_`|~: \u{80}\u{ff}\t x\r\nB:\r\nC:  \t \r\n"), &[""]);
    for host in ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nhost: y\r\n", "X-Host: x\r\n"] {
        table.refused("hosts", &format!("GET /§ HTTP/1.1\r\n{host}\r\n"));
    }
}

fn versions(table: &mut Table) {
    for version in [
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.01",
        "HTTP/1.1 ",
        "HTTP/1.1\t",
        "http/1.1",
        "Http/1.1",
        "HTTP/1,1",
        "HTTP /1.1",
        "HTTP/ 1.1",
        "HTTP/1.2",
        "HTTP/1.9",
        "HTTP/2.0",
        "HTTP/2",
        "HTTP/3.0",
        "HTTP/0.9",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/11",
        "HTTP/1.1.1",
        "HTTP/1.32",
        "HTTP/-1.1",
        "HTTP/+1.1",
        "HTTP/1.1\0",
        "HTTPS/1.1",
        "ICY/1.1",
        "HTTP/",
        "HTTP",
        "1.1",
        "HTTP/\r1.1",
        "HTTP/1.1 HTTP/1.1",
        "HTTP/4294967297.1",
        "HTTP/1.1;a",
        "XHTTP/1.1",
        "",
    ] {
        table.refused("a version", &format!("GET /§ {version}\r\nHost: x\r\n\r\n{HIDDEN}"));
    }
}

fn request_lines(table: &mut Table) {
    for line in [
        "GET /§",
        "GET  /§ HTTP/1.1",
        "GET /§  HTTP/1.1",
        "GET\t/§ HTTP/1.1",
        "GET /§\tHTTP/1.1",
        " GET /§ HTTP/1.1",
        "\tGET /§ HTTP/1.1",
        "GET /§ /b HTTP/1.1",
        "GET\x0b/§ HTTP/1.1",
        "GET /§\x0cHTTP/1.1",
        "GET /§\0 HTTP/1.1",
        "GET HTTP/1.1",
        "/§ HTTP/1.1",
        "GET",
        " ",
        "GET /§\u{a0}HTTP/1.1",
        "GET /§\rHTTP/1.1",
        "GET /§\nHTTP/1.1",
        "GET /a\r\n /§ HTTP/1.1",
        "\nGET /§ HTTP/1.1",
        "\rGET /§ HTTP/1.1",
        "\0GET /§ HTTP/1.1",
        "\u{ef}\u{bb}\u{bf}GET /§ HTTP/1.1",
    ] {
        table.refused("a request line", &format!("{line}\r\nHost: x\r\n\r\n{HIDDEN}"));
    }
}

fn methods_and_targets(table: &mut Table) {
    for method in ["G(T", "GE\0T", "G\u{c9}T", "GET,", "\"GET\"", "GET:", "G/T", "GET\x7f", "[GET]", "CONNECT"] {
        table.refused("a method", &format!("{method} /§ HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}"));
    }
    for target in [
        "§",
        "x/§",
        "*",
        "x:80",
        "?/§",
        "#/§",
        "/§#a",
        "\\§",
        "http:/§",
        "http:§",
        "http://",
        "http:///§",
        "http://u@x/§",
        "http://x?/§",
        "ftp://x/§",
        "//\0/§",
        "/§\x7f",
        "/§\x01",
        "/\u{a0}§\u{ff}",
        "http://x /§",
        "HTTP/1.1",
        "http://x#/§",
    ] {
        table.refused("a target", &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n{HIDDEN}"));
    }
    for target in
        ["/§", "//§", "/§?", "/§/..//", "/§%00%0d%0a", "/§?a=GET%20/", "http://y/§", "HTTP://y:1/§", "/§;a=b?c=d"]
    {
        table.served("a target", &format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), &[""]);
    }
    for method in ["get", "GETS", "G", "0", "PROPFIND", "PATCH", "DELETE", "!#$%&'*+-.^_`|~", "PRI"] {
        table.served("a method", &format!("{method} /§ HTTP/1.1\r\nHost: x\r\n\r\n"), &[""]);
    }
    table.served("empty lines before", &format!("\r\n\r\n{}", get("")), &[""]);
    table.served("an empty line between", &format!("{}\r\n{}", post("Content-Length: 2", "ab"), get("")), &["ab", ""]);
    table.refused("only LF between", &format!("\n\n{}", get("")));
}

fn sizes(table: &mut Table) {
    for size in [
        "",
        "+5",
        "-5",
        " 5",
        "\t5",
        "5 ",
        "5\t",
        "0x5",
        "0X5",
        "5h",
        "5_0",
        "0_5",
        "5,",
        "5 5",
        "5.0",
        "\"5\"",
        "\x0b5",
        "\u{a0}5",
        "5\0",
        "00000000000000005",
        "ffffffffffffffff",
        "8000000000000000",
        "fffffffffffffffff",
        "10000000000000005",
        "g",
        "5\r",
        "5\rX",
        "5;a\rb",
        "5;a\nb",
        "5;\0",
        "5;\x0b",
        "5 ;a",
        "5\t;a",
        "5\x7f",
        "5\n",
        "5;a\n",
        "5\r\r",
        ";a",
        "-0",
    ] {
        table.refused("a chunk's size", &chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n{HIDDEN}")));
    }
    for size in ["5", "05", "0000000000000005", "5;", "5;a", "5;a=b", "5;a=\"b;c\"", "5;a=\";\u{ff}", "5;;;", "5;0"] {
        table.served("a chunk's size", &chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")), &["hello"]);
    }
    for size in ["26", "0026", "26;a"] {
        table.served("a request in a chunk", &chunked(&format!("{size}\r\n{HIDDEN}\r\n0\r\n\r\n")), &[HIDDEN]);
    }
    for after in ["", "\n", "\r", "XX", "X\r\n", "\r\r\n", " \r\n", "\n\r", "\0\r\n", "\r\n\r\n"] {
        table.refused("after a chunk", &chunked(&format!("5\r\nhello{after}0\r\n\r\n{HIDDEN}")));
    }
    for end in [
        "0\n\r\n",
        "0\r\n\n",
        "0\n\n",
        "0\r\r\n\r\n",
        "0\r\nX",
        "0\r\n\rX",
        "0\r\n\r\r\n",
        "-0\r\n\r\n",
        "0x0\r\n\r\n",
        "0 \r\n\r\n",
    ] {
        table.refused("the last chunk", &chunked(&format!("5\r\nhello\r\n{end}{HIDDEN}")));
    }
    for end in ["0\r\n\r\n", "00\r\n\r\n", "0000000000000000\r\n\r\n", "0;a=b\r\n\r\n"] {
        table.served("the last chunk", &chunked(&format!("5\r\nhello\r\n{end}")), &["hello"]);
        table.served("only the last chunk", &chunked(end), &[""]);
    }
    table.refused("too much of an extension", &chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(5000))));
}

fn trailers(table: &mut Table) {
    let body = |lines: &str| chunked(&format!("5\r\nhello\r\n0\r\n{lines}\r\n"));
    for lines in [
        " A: b\r\n",
        "\tA: b\r\n",
        "A: b\r\n c\r\n",
        "A : b\r\n",
        "A\r\n",
        ":\r\n",
        "A: b\n",
        "A: b\r",
        "A: b\0\r\n",
        "A\0: b\r\n",
        "A: b\rB: c\r\n",
        "A: b\nB: c\r\n",
        "GET /hidden HTTP/1.1\r\n",
        "A: b\r\n\n",
        "A(: b\r\n",
    ] {
        table.refused("trailers", &body(lines));
    }
    for lines in [
        "A: b\r\n",
        "A:\r\n",
        "Content-Length: 44\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Host: hidden\r\n",
        "Connection: close\r\n",
        "Expect: 100-continue\r\n",
        "Trailer: A\r\n",
        "X: GET /hidden HTTP/1.1\r\n",
    ] {
        table.served("trailers", &body(lines), &["hello"]);
    }
}

/// Requests in bodies, and bodies where there usually are none.
fn hidden(table: &mut Table) {
    let (length, size) = (HIDDEN.len(), format!("{:x}", HIDDEN.len()));
    for method in ["POST", "PUT", "GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PATCH", "X"] {
        let head = format!("{method} /§ HTTP/1.1\r\nHost: x\r\n");
        table.served("a body", &format!("{head}Content-Length: {length}\r\n\r\n{HIDDEN}"), &[HIDDEN]);
        let chunks = format!("{size}\r\n{HIDDEN}\r\n0\r\n\r\n");
        table.served("a body", &format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}"), &[HIDDEN]);
        table.served("no body", &format!("{head}Content-Length: 0\r\n\r\n"), &[""]);
    }
    for fields in [
        "Expect: 100-continue",
        "Expect: 100-Continue",
        "Expect: 100-continue, x",
        "Expect: x",
        "Expect:",
        "Expect: 200-ok",
        "Expect: 100-continue\r\nExpect: 100-continue",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Upgrade: foo",
        "Upgrade: TLS/1.0\r\nConnection: upgrade",
        "Connection: Content-Length",
        "Connection: Transfer-Encoding",
        "Connection: content-length, transfer-encoding, host",
        "Connection: Host",
        "TE: trailers, chunked",
        "TE: chunked",
        "Connection: TE\r\nTE: trailers",
        "Proxy-Connection: close",
        "Keep-Alive: timeout=0",
        "Trailer: Content-Length",
        "Content-Encoding: chunked",
        "X-HTTP-Method-Override: HEAD",
        "Max-Forwards: 0",
        "Range: bytes=0-0",
        "Sec-WebSocket-Version: 13\r\nUpgrade: websocket",
        "Content-Type: message/http",
        "Connection: ,,\t,",
        "Connection:",
    ] {
        table.served("by the way", &post(&format!("{fields}\r\nContent-Length: {length}"), HIDDEN), &[HIDDEN]);
        let chunks = format!("{size}\r\n{HIDDEN}\r\n0\r\n\r\n");
        table.served("by the way", &post(&format!("Transfer-Encoding: chunked\r\n{fields}"), &chunks), &[HIDDEN]);
        if !fields.starts_with("Upgrade: TLS") {
            table.served("by the way, without a body", &get(&format!("{fields}\r\n")), &[""]);
        }
    }
    // What comes after a request is the next one, or nothing.
    table.served(
        "two",
        &format!("{}{}", post("Content-Length: 2", "ab"), post("Content-Length: 3", "cde")),
        &["ab", "cde"],
    );
    table.served("two", &format!("{}{}", chunked(CHUNKS), get("")), &["hello", ""]);
    table.last("more than its length", &post("Content-Length: 5", "helloX \0 y"), &["hello"]);
    table.last("more than its chunks", &chunked(&format!("{CHUNKS}0\r\n\r\n")), &["hello"]);
    table.last("an old request after", &format!("{}POST /hidden\r\n\r\n", get("")), &[""]);
    table.last("a doubtful one after", &format!("{}{}", get(""), post("Content-Length: 5, 5", HIDDEN)), &[""]);
    table.refused("less than its length", &post("Content-Length: 4444", HIDDEN));
    table.refused("less than its chunks", &chunked("fff\r\nhello"));
}

fn connections(table: &mut Table) {
    table.last("close", &format!("{}{HIDDEN}", get("Connection: close\r\n")), &[""]);
    table.last("close", &format!("{}{HIDDEN}", get("Connection: keep-alive, x, CLOSE\r\n")), &[""]);
    table.last("close", &format!("{}{HIDDEN}", post("Connection: close\r\nContent-Length: 5", "hello")), &["hello"]);
    table.last("HTTP/1.0", &format!("GET /§ HTTP/1.0\r\nHost: x\r\n\r\n{HIDDEN}"), &[""]);
    table.last(
        "HTTP/1.0",
        &format!("POST /§ HTTP/1.0\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello{HIDDEN}"),
        &["hello"],
    );
    table.last("HTTP/1.0 without Host", &format!("GET /§ HTTP/1.0\r\n\r\n{HIDDEN}"), &[""]);
    let keep = "HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n";
    table.served("HTTP/1.0", &format!("GET /§ {keep}\r\n"), &[""]);
    table.served("HTTP/1.0", &format!("POST /§ {keep}Content-Length: 5\r\n\r\nhello"), &["hello"]);
    table.served(
        "HTTP/1.0",
        &format!("POST /§ {keep}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
        &["hello"],
    );
    table.served("HTTP/1.0", &format!("HEAD /§ {keep}Content-Length: 5\r\n\r\nhello"), &["hello"]);
}
