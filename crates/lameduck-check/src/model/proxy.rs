//! Proxies' settings: nginx.conf with its includes, haproxy.cfg, an Envoy bootstrap.

use crate::launch::Opened;
use crate::server::Server;
use crate::span::{At, Lines, Mapped, Sp, Span};
use crate::yaml::Node;

/// A pool of connections that a proxy keeps to servers behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The proxy: `nginx`, `haproxy`, `envoy`.
    pub proxy: &'static str,
    /// The hosts behind it, without ports.
    pub hosts: Vec<String>,
    /// How long it keeps an unused connection.
    pub idle: f64,
    /// Where that is said, or where the pool is.
    pub at: At,
    /// It is said there.
    pub stated: bool,
}

/// What a proxy does with its own clients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Front {
    pub proxy: &'static str,
    pub client_idle: Option<Sp<f64>>,
    pub min_idle: Option<Sp<f64>>,
    pub read_timeout: Option<Sp<f64>>,
    pub requests: Option<Sp<f64>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proxy {
    pub pools: Vec<Pool>,
    pub front: Front,
    /// What can not be read: line and why.
    pub bad: Vec<(usize, String)>,
}

/// A directive of nginx.conf.
struct Directive {
    words: Vec<(String, Span)>,
    block: Vec<Directive>,
}

/// Reads nginx.conf. `open` finds what it includes.
pub fn nginx(text: &Mapped, open: &dyn Fn(&str) -> Vec<Mapped>) -> Proxy {
    let mut proxy = Proxy { front: Front { proxy: "nginx", ..Front::default() }, ..Proxy::default() };
    nginx_into(text, open, &mut proxy, 0);
    proxy
}

fn nginx_into(text: &Mapped, open: &dyn Fn(&str) -> Vec<Mapped>, proxy: &mut Proxy, depth: usize) {
    let lines = Lines::new(text.file, &text.text);
    let mut at = 0;
    match block(&text.text, &mut at, 0) {
        Ok(directives) => nginx_block(&directives, &lines, open, proxy, depth),
        Err(why) => proxy.bad.push((lines.line_of(at), why)),
    }
}

fn block(text: &str, at: &mut usize, depth: usize) -> Result<Vec<Directive>, String> {
    if depth > 20 {
        return Err("nginx: blocks nested more than 20 deep".to_owned());
    }
    let bytes = text.as_bytes();
    let (mut out, mut words) = (Vec::new(), Vec::new());
    loop {
        match bytes.get(*at) {
            None if depth > 0 || !words.is_empty() => {
                return Err("nginx: the file ends inside a block or directive".to_owned());
            }
            None => return Ok(out),
            Some(b'#') => {
                while bytes.get(*at).is_some_and(|byte| *byte != b'\n') {
                    *at += 1;
                }
            }
            Some(b';') => {
                *at += 1;
                out.push(Directive { words: std::mem::take(&mut words), block: Vec::new() });
            }
            Some(b'{') => {
                *at += 1;
                let inner = block(text, at, depth + 1)?;
                out.push(Directive { words: std::mem::take(&mut words), block: inner });
            }
            Some(b'}') if depth > 0 => {
                *at += 1;
                return Ok(out);
            }
            Some(b'}') => return Err("nginx: } without {".to_owned()),
            Some(byte) if byte.is_ascii_whitespace() => *at += 1,
            Some(_) => words.push(word(text, at)?),
        }
    }
}

fn word(text: &str, at: &mut usize) -> Result<(String, Span), String> {
    let bytes = text.as_bytes();
    let start = *at;
    if let Some(quote @ (b'"' | b'\'')) = bytes.get(start) {
        *at += 1;
        while let Some(byte) = bytes.get(*at) {
            *at += if *byte == b'\\' { 2 } else { 1 };
            if byte == quote {
                let inner = text.get(start + 1..*at - 1).unwrap_or_default();
                return Ok((inner.to_owned(), Span::new(start, *at)));
            }
        }
        return Err("nginx: a quote without its end".to_owned());
    }
    while let Some(byte) = bytes.get(*at) {
        // `${name}` does not open a block.
        if *byte == b'$' && bytes.get(*at + 1) == Some(&b'{') {
            while bytes.get(*at).is_some_and(|byte| *byte != b'}') {
                *at += 1;
            }
        } else if byte.is_ascii_whitespace() || matches!(byte, b';' | b'{' | b'}') {
            break;
        } else if *byte == b'\\' {
            *at += 1;
        }
        *at = (*at + 1).min(bytes.len());
    }
    Ok((text.get(start..*at).unwrap_or_default().to_owned(), Span::new(start, *at)))
}

fn nginx_block(
    directives: &[Directive],
    lines: &Lines<'_>,
    open: &dyn Fn(&str) -> Vec<Mapped>,
    proxy: &mut Proxy,
    depth: usize,
) {
    for directive in directives {
        let name = directive.words.first().map(|(word, _)| word.as_str()).unwrap_or_default();
        let arg = directive.words.get(1);
        let at = directive.words.first().map(|(_, span)| *span).unwrap_or_default();
        let whole = Span { start: at.start, end: directive.words.last().map_or(at.end, |(_, span)| span.end) };
        let value = || {
            let (text, _) = arg?;
            Some(Sp { value: time(text)?, at: lines.at(whole) })
        };
        match name {
            "upstream" => proxy.pools.extend(upstream(directive, lines)),
            "keepalive_timeout" => proxy.front.client_idle = value().or_else(|| proxy.front.client_idle.take()),
            "keepalive_min_timeout" => proxy.front.min_idle = value(),
            "proxy_read_timeout" => proxy.front.read_timeout = value().or_else(|| proxy.front.read_timeout.take()),
            "keepalive_requests" => {
                proxy.front.requests =
                    arg.and_then(|(text, _)| text.parse().ok()).map(|value| Sp { value, at: lines.at(whole) });
            }
            "include" if depth < 8 => {
                for text in arg.map(|(path, _)| open(path)).unwrap_or_default() {
                    nginx_into(&text, open, proxy, depth + 1);
                }
            }
            _ => nginx_block(&directive.block, lines, open, proxy, depth),
        }
    }
}

/// Without `keepalive` there is no pool (before 1.29.7); with it, its `keepalive_timeout` is 60 s by default.
fn upstream(directive: &Directive, lines: &Lines<'_>) -> Option<Pool> {
    let find =
        |name: &str| directive.block.iter().find(|inner| inner.words.first().is_some_and(|(word, _)| word == name));
    let keepalive = find("keepalive")?;
    let whole = |directive: &Directive| {
        let first = directive.words.first().map(|(_, span)| *span).unwrap_or_default();
        lines.at(Span { start: first.start, end: directive.words.last().map_or(first.end, |(_, span)| span.end) })
    };
    let timeout = find("keepalive_timeout").and_then(|inner| Some((time(&inner.words.get(1)?.0)?, whole(inner))));
    let hosts = directive.block.iter().filter(|inner| inner.words.first().is_some_and(|(word, _)| word == "server"));
    let hosts = hosts.filter_map(|inner| inner.words.get(1)).map(|(host, _)| host_of(host)).collect();
    let (idle, at) = timeout.unwrap_or((60.0, whole(keepalive)));
    Some(Pool { proxy: "nginx", hosts, idle, at, stated: timeout.is_some() })
}

fn host_of(address: &str) -> String {
    let address = address.trim_start_matches("http://").trim_start_matches("https://");
    address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
}

/// nginx's and `HAProxy`'s times: `75`, `75s`, `1m`, `500ms`, `1h30m`.
pub fn time(text: &str) -> Option<f64> {
    lameduck_core::duration::parse(text).ok().map(|duration| duration.as_secs_f64())
}

/// What an image's own nginx.conf says, where it is among the files.
pub fn nginx_of_image(server: &mut Server, path: Option<&str>, open: &dyn Fn(&str) -> Opened) {
    let one = |path: &str| match open(path) {
        Opened::Text { text, .. } => vec![text],
        Opened::Missing => Vec::new(),
    };
    let path = path.unwrap_or("/etc/nginx/nginx.conf");
    for main in [path, "/etc/nginx/conf.d/default.conf"] {
        for text in one(main) {
            let proxy = nginx(&text, &one);
            if let Some(idle) = proxy.front.client_idle {
                server.idle = Some((idle.value, idle.value));
                server.idle_at = Some(idle.at);
            }
            if let Some(read) = proxy.front.read_timeout {
                server.request = Some(read);
            }
        }
    }
}

/// Reads haproxy.cfg: sections of lines.
pub fn haproxy(text: &Mapped) -> Proxy {
    let lines = Lines::new(text.file, &text.text);
    let mut proxy = Proxy { front: Front { proxy: "haproxy", ..Front::default() }, ..Proxy::default() };
    let mut offset = 0;
    let (mut section, mut hosts, mut reuse_at, mut server_timeout) = (String::new(), Vec::new(), None, None);
    for line in text.text.split_inclusive('\n') {
        let bare = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = bare.split_whitespace().collect();
        let start = offset + line.len() - line.trim_start().len();
        let at = lines.at(Span::new(start, start.max(offset + bare.trim_end().len())));
        let value = |text: &str| Some(Sp { value: haproxy_time(text)?, at });
        offset += line.len();
        match words.as_slice() {
            ["global" | "defaults" | "frontend" | "backend" | "listen", ..] => {
                proxy.pools.extend(haproxy_pool(&mut hosts, &mut reuse_at));
                words[0].clone_into(&mut section);
            }
            ["timeout", "http-keep-alive", time, ..] => proxy.front.client_idle = value(time),
            ["timeout", "server", time, ..] => server_timeout = value(time),
            ["http-reuse", mode, ..] if *mode != "never" => reuse_at = Some(at),
            ["server", _, address, ..] => {
                hosts.push(host_of(address));
                if section == "backend" || section == "listen" {
                    reuse_at.get_or_insert(at);
                }
            }
            _ => {}
        }
    }
    proxy.pools.extend(haproxy_pool(&mut hosts, &mut reuse_at));
    proxy.front.read_timeout = server_timeout;
    proxy
}

/// Idle server connections are purged every 5 s, half of them at a time (pool-purge-delay): up to 10 s and more.
fn haproxy_pool(hosts: &mut Vec<String>, at: &mut Option<At>) -> Option<Pool> {
    let at = at.take()?;
    let hosts = std::mem::take(hosts);
    (!hosts.is_empty()).then_some(Pool { proxy: "haproxy", hosts, idle: 5.0, at, stated: false })
}

/// `HAProxy`'s own default unit is the millisecond.
fn haproxy_time(text: &str) -> Option<f64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<f64>().ok().map(|ms| ms / 1000.0);
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse::<f64>().ok()).map(|days| days * 86_400.0);
    days.or_else(|| time(text))
}

/// Reads an Envoy bootstrap: its static clusters.
pub fn envoy(root: Node<'_>) -> Proxy {
    let mut proxy = Proxy { front: Front { proxy: "envoy", ..Front::default() }, ..Proxy::default() };
    for cluster in root.path(&["static_resources", "clusters"]).map(Node::items).unwrap_or_default() {
        let options = cluster
            .path(&["typed_extension_protocol_options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]);
        let stated = options.unwrap_or(cluster).path(&["common_http_protocol_options", "idle_timeout"]);
        let idle = stated.and_then(Node::text).and_then(time);
        let mut hosts = Vec::new();
        for endpoints in cluster.path(&["load_assignment", "endpoints"]).map(Node::items).unwrap_or_default() {
            for endpoint in endpoints.get("lb_endpoints").map(Node::items).unwrap_or_default() {
                let address = endpoint.path(&["endpoint", "address", "socket_address", "address"]);
                hosts.extend(address.and_then(Node::text).map(str::to_owned));
            }
        }
        let at = stated.or_else(|| cluster.get("name")).unwrap_or(cluster).at();
        // An hour by default: envoy.config.core.v3.HttpProtocolOptions.
        proxy.pools.push(Pool { proxy: "envoy", hosts, idle: idle.unwrap_or(3600.0), at, stated: idle.is_some() });
    }
    proxy
}
