//! The formats. Each is a file with a function that reads one line, and one line in [`FORMATS`]; documentation and tests go by the
//! table.

pub mod alb;
pub mod app;
pub mod envoy;
pub mod field;
pub mod glb;
pub mod go_proxies;
pub mod haproxy;
pub mod kube;
pub mod nginx;
pub mod nginx_error;
pub mod own;
pub mod pattern;
pub mod words;

use field::{Field, Fields};
use pattern::Pattern;

use crate::record::Line;
use crate::time::Micros;

/// What a line does not say by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context {
    /// The offset from UTC of times without one.
    pub zone: Micros,
}

/// Reads one line; none where it is not of the format.
pub type Read = for<'a> fn(&'a [u8], Context) -> Option<Line<'a>>;

/// A format.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// Its id.
    pub id: &'static str,
    /// What it is.
    pub title: &'static str,
    /// Reads a line.
    pub read: Read,
    /// Whether its lines are requests of clients, so that they add up to a total.
    pub counts: bool,
    /// A line of it, that is read in a test and shown in the documentation.
    pub example: &'static str,
}

/// Every line format, the more particular before the more general.
pub const FORMATS: &[Format] = &[
    Format {
        id: "google-lb",
        title: "Google Cloud Application Load Balancer, JSON lines or array, also from BigQuery",
        read: glb::read,
        counts: true,
        example: r#"{"httpRequest":{"requestMethod":"POST","requestUrl":"https://example.com/api","status":502,"latency":"0.004s","serverIp":"10.8.1.7","remoteIp":"192.0.2.1"},"jsonPayload":{"statusDetails":"backend_connection_closed_before_data_sent_to_client"},"resource":{"type":"http_load_balancer"},"timestamp":"2026-11-21T18:00:00.5Z"}"#,
    },
    Format {
        id: "aws-alb",
        title: "AWS Application Load Balancer access log",
        read: alb::read,
        counts: true,
        example: r#"http 2026-11-21T18:00:00.504Z app/web/50dc 192.0.2.1:2817 10.0.0.1:80 0.000 0.004 -1 502 - 34 366 "POST http://example.com:80/api HTTP/1.1" "curl/7.46.0" - - arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/73 "Root=1-58337262-36d2" "-" "-" 0 2026-11-21T18:00:00.500Z "forward" "-" "-""#,
    },
    Format {
        id: "lameduck-access",
        title: "lameduck's front, `lameduck.access/1`",
        read: own::access,
        counts: true,
        example: r#"{"schema":"lameduck.access/1","time":1795284000.5,"id":"a1","client":"192.0.2.1","protocol":"HTTP/1.1","method":"GET","target":"/","status":502,"phase":"serving","probe":false,"ended":"bad-gateway","took_s":0.004,"app_s":null,"held_s":0,"retries":0}"#,
    },
    Format {
        id: "ingress-nginx",
        title: "ingress-nginx access log (`upstreaminfo`)",
        read: nginx::ingress,
        counts: true,
        example: r#"192.0.2.1 - - [21/Nov/2026:18:00:00 +0000] "POST /api HTTP/1.1" 502 150 "-" "curl/7.46.0" 500 0.004 [shop-web-80] [] 10.8.1.7:8080 0 0.004 502 9f0c4f3a"#,
    },
    Format {
        id: "nginx-json",
        title: "nginx, JSON with the variables' names as keys",
        read: nginx::json,
        counts: true,
        example: r#"{"time_iso8601":"2026-11-21T18:00:00+00:00","request":"GET / HTTP/1.1","status":"502","upstream_addr":"10.8.1.7:80","upstream_status":"502","upstream_response_length":"0","request_time":"0.004","request_id":"a1"}"#,
    },
    Format {
        id: "traefik",
        title: "Traefik access log, JSON",
        read: go_proxies::traefik,
        counts: true,
        example: r#"{"ClientHost":"192.0.2.1","DownstreamStatus":502,"Duration":4000000,"OriginStatus":502,"OriginContentSize":11,"RequestMethod":"GET","RequestPath":"/","ServiceAddr":"10.8.1.7:80","ServiceName":"web","StartUTC":"2026-11-21T18:00:00.5Z"}"#,
    },
    Format {
        id: "traefik-text",
        title: "Traefik access log, text",
        read: go_proxies::traefik_text,
        counts: true,
        example: r#"192.0.2.1 - - [21/Nov/2026:18:00:00 +0000] "GET / HTTP/1.1" 502 11 "-" "-" 17 "web@docker" "http://10.8.1.7:80" 4ms"#,
    },
    Format {
        id: "nginx",
        title: "nginx `combined`, also Apache's",
        read: nginx::combined,
        counts: true,
        example: r#"192.0.2.1 - - [21/Nov/2026:18:00:00 +0000] "GET / HTTP/1.1" 502 157 "-" "curl/7.46.0""#,
    },
    Format {
        id: "nginx-error",
        title: "nginx and ingress-nginx error log",
        read: nginx_error::read,
        counts: false,
        example: r#"2026/11/21 18:00:00 [error] 29#29: *7 upstream prematurely closed connection while reading response header from upstream, client: 192.0.2.1, server: _, request: "POST /api HTTP/1.1", upstream: "http://10.8.1.7:8080/api", host: "example.com""#,
    },
    Format {
        id: "haproxy",
        title: "HAProxy HTTP log, with or without syslog's head",
        read: haproxy::read,
        counts: true,
        example: r#"haproxy[14389]: 192.0.2.1:33317 [21/Nov/2026:18:00:00.500] http-in static/srv1 10/0/0/-1/14 502 204 - - SH-- 1/1/1/1/0 0/0 "POST /api HTTP/1.1""#,
    },
    Format {
        id: "envoy",
        title: "Envoy and Istio access log, text",
        read: envoy::text,
        counts: true,
        example: r#"[2026-11-21T18:00:00.500Z] "POST /api HTTP/1.1" 503 UC upstream_reset_before_response_started{connection_termination} - "-" 154 95 4 - "-" "curl" "cc21-a" "web" "10.8.1.7:80" outbound|80||web 10.8.0.2:1 10.8.0.3:80 192.0.2.1:2 - default"#,
    },
    Format {
        id: "envoy-json",
        title: "Envoy and Istio access log, JSON",
        read: envoy::json,
        counts: true,
        example: r#"{"start_time":"2026-11-21T18:00:00.500Z","method":"POST","path":"/api","response_code":"503","response_flags":"URX,UF","response_code_details":"upstream_reset_before_response_started{remote_connection_failure,delayed_connect_error:_111}","duration":"4","request_id":"cc21","upstream_host":"10.8.1.7:80"}"#,
    },
    Format {
        id: "caddy",
        title: "Caddy access and error log",
        read: go_proxies::caddy,
        counts: true,
        example: r#"{"level":"error","ts":1795284000.5,"logger":"http.log.error","msg":"dial tcp 10.8.1.7:8080: connect: connection refused","request":{"remote_ip":"192.0.2.1","method":"GET","host":"example.com","uri":"/"},"duration":0.004,"status":502,"err_id":"x","err_trace":"reverseproxy.statusError (reverseproxy.go:1373)"}"#,
    },
    Format {
        id: "workhorse",
        title: "GitLab Workhorse, JSON",
        read: go_proxies::workhorse,
        counts: true,
        example: r#"{"correlation_id":"c1","duration_ms":4,"error":"badgateway: failed to receive response: dial unix /srv/gitlab.socket: connect: connection refused","level":"error","method":"GET","msg":"","time":"2026-11-21T18:00:00Z","uri":"/"}"#,
    },
    Format {
        id: "lameduck-drain",
        title: "lameduck's drain report, `lameduck.drain/1`",
        read: own::drain,
        counts: false,
        example: "",
    },
    Format {
        id: "kubernetes",
        title: "Kubernetes events, pods and endpoint slices, JSON or YAML",
        read: kube::read,
        counts: false,
        example: r#"{"kind":"Event","involvedObject":{"kind":"Pod","name":"web-1"},"reason":"Killing","message":"Stopping container app","lastTimestamp":"2026-11-21T18:00:00Z"}"#,
    },
    Format {
        id: "app",
        title: "what application servers say at their end",
        read: app::read,
        counts: false,
        example: "[2026-11-21 18:00:00 +0000] [56] [INFO] Handling signal: term",
    },
];

/// The number of lines read by a format that the user gave.
pub const CUSTOM: usize = FORMATS.len();
/// The number of packets.
pub const CAPTURE: usize = FORMATS.len() + 1;

/// The name of a format, the two above included.
pub fn name(format: usize) -> &'static str {
    match FORMATS.get(format) {
        Some(format) => format.id,
        None if format == CUSTOM => "given",
        None => "capture",
    }
}

/// The place of a format in the table.
pub fn by_id(id: &str) -> Option<usize> {
    FORMATS.iter().position(|format| format.id == id)
}

/// A format given by the user.
#[derive(Debug, Clone)]
pub enum Custom {
    /// nginx's `log_format`.
    Nginx(Pattern),
    /// Envoy's format string.
    Envoy(Pattern),
}

impl Custom {
    /// From its text: Envoy's has operators in percent signs.
    pub fn parse(text: &str) -> Result<Custom, pattern::PatternError> {
        let pattern = Pattern::parse(text)?;
        Ok(if text.contains("%RESPONSE_CODE%") { Custom::Envoy(pattern) } else { Custom::Nginx(pattern) })
    }

    /// Reads a line.
    pub fn read<'a>(&self, line: &'a [u8], context: Context) -> Option<Line<'a>> {
        let mut fields = Fields::default();
        match self {
            Custom::Nginx(pattern) => {
                pattern.read(line, &mut fields).then_some(())?;
                nginx::interpret(&fields, context, false).map(Line::Hop)
            }
            Custom::Envoy(pattern) => {
                pattern.read(line, &mut fields).then_some(())?;
                envoy::interpret(&fields, context).map(Line::Hop)
            }
        }
    }
}

/// The fields of a line of JSON, by a format's names for them.
fn json_fields(line: &[u8], key: impl Fn(&[u8], &[u8]) -> Option<Field>) -> Option<Fields<'_>> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let mut fields = Fields::default();
    let whole = crate::json::fields(line, |outer, name, value| {
        if let Some(field) = key(outer, name) {
            fields.set(field, value);
        }
    });
    whole.then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Signal;

    /// What the example of each format says.
    #[test]
    fn each_example_is_read_by_its_own_format_first() {
        for format in FORMATS.iter().filter(|format| !format.example.is_empty()) {
            let line = format.example.as_bytes();
            let first = FORMATS.iter().find(|other| (other.read)(line, Context::default()).is_some());
            assert_eq!(first.map(|first| first.id), Some(format.id), "{line:?}");
        }
    }

    fn signal(format: &str, line: &str) -> Option<Signal> {
        match (FORMATS[by_id(format)?].read)(line.as_bytes(), Context::default())? {
            Line::Hop(hop) => Some(hop.signal),
            Line::Note(note) => Some(note.signal),
            Line::Events(_) | Line::Pod(_) | Line::Nothing => None,
        }
    }

    #[test]
    fn each_example_says_what_was_seen() {
        let check = |format: &str, expect: Signal| {
            let example = FORMATS[by_id(format).unwrap()].example;
            assert_eq!(signal(format, example), Some(expect), "{format}");
        };
        check("google-lb", Signal::ClosedBeforeAnswer);
        check("aws-alb", Signal::ClosedBeforeAnswer);
        check("lameduck-access", Signal::Failed);
        check("ingress-nginx", Signal::Failed);
        check("nginx-json", Signal::Failed);
        check("traefik", Signal::Failed);
        check("traefik-text", Signal::Failed);
        check("nginx", Signal::Failed);
        check("nginx-error", Signal::FinBeforeAnswer);
        check("haproxy", Signal::ClosedBeforeAnswer);
        check("envoy", Signal::ClosedBeforeAnswer);
        check("envoy-json", Signal::Refused);
        check("caddy", Signal::Refused);
        check("workhorse", Signal::Refused);
    }

    #[test]
    fn nginx_tells_by_the_connect_time_whether_there_was_a_connection() {
        let check = |status: &str, connect: &str, expect: Signal| {
            let line = format!(
                r#"{{"msec":"1795284000.500","request":"GET / HTTP/1.1","status":"{status}","request_time":"0.004","upstream_addr":"10.8.1.7:80","upstream_status":"{status}","upstream_connect_time":"{connect}","upstream_response_length":"0"}}"#
            );
            assert_eq!(signal("nginx-json", &line), Some(expect), "{line}");
        };
        check("502", "-", Signal::ConnectFailed);
        check("502", "0.001", Signal::ClosedBeforeAnswer);
        check("504", "-", Signal::ConnectTimeout);
        check("504", "0.001", Signal::Timeout);
        check("502", "0.001, -", Signal::ConnectFailed);
    }

    #[test]
    fn haproxys_server_is_its_address_where_the_line_has_one() {
        let check = |behind: &str, expect: &str| {
            let line = format!("{}{behind}", FORMATS[by_id("haproxy").unwrap()].example);
            let Some(Line::Hop(hop)) = haproxy::read(line.as_bytes(), Context::default()) else { panic!("{line}") };
            assert_eq!(String::from_utf8_lossy(hop.backend), expect, "{line}");
        };
        check("", "srv1");
        check(" 10.8.1.7:8080", "10.8.1.7:8080");
        check(" [fe80::1]:80 x", "[fe80::1]:80");
        check(" -:-", "srv1");
        check(" something", "srv1");
    }

    /// Each line is a fact of the signal catalogue.
    #[test]
    fn what_hides_behind_a_status() {
        let check = |format: &str, line: &str, expect: Signal| assert_eq!(signal(format, line), Some(expect), "{line}");
        let envoy = |status: &str, flags: &str, detail: &str| {
            format!(
                "[2026-11-21T18:00:00.500Z] \"GET / HTTP/1.1\" {status} {flags} {detail} - \"-\" 0 95 4 - \"-\" \"c\" \"i\" \"w\" \"10.8.1.7:80\" o 1:1 2:2 3:3 - d"
            )
        };
        check(
            "envoy",
            &envoy("200", "UPE", "upstream_reset_after_response_started{protocol_error}"),
            Signal::CutMidAnswer,
        );
        check("envoy", &envoy("200", "UPE", "-"), Signal::CutMidAnswer);
        check("envoy", &envoy("200", "UC", "-"), Signal::CutMidAnswer);
        check("envoy", &envoy("503", "UC", "-"), Signal::ClosedBeforeAnswer);
        check("envoy", &envoy("500", "URX", "via_upstream"), Signal::AppError);
        check("envoy", &envoy("504", "UT", "response_timeout"), Signal::Timeout);
        check("envoy", &envoy("0", "DC", "downstream_remote_disconnect"), Signal::ClientLeft);
        check("envoy", &envoy("503", "UH", "no_healthy_upstream"), Signal::NoServer);
        check("envoy", &envoy("404", "NR", "route_not_found"), Signal::Policy);
        let haproxy = |server: &str, timers: &str, status: &str, state: &str| {
            format!(
                "10.0.0.1:1 [21/Nov/2026:18:00:00.500] fe be/{server} {timers} {status} 2 - - {state} 1/1/1/1/0 0/0 {{a b}} {{}} \"GET /x y HTTP/1.1\""
            )
        };
        check("haproxy", &haproxy("s1", "0/0/0/10/12", "200", "SD--"), Signal::CutMidAnswer);
        check("haproxy", &haproxy("<NOSRV>", "0/-1/-1/-1/0", "503", "SC--"), Signal::NoServer);
        check("haproxy", &haproxy("s1", "0/0/-1/-1/3", "503", "SC--"), Signal::Refused);
        check("haproxy", &haproxy("s1", "0/0/0/-1/50000", "504", "sH--"), Signal::Timeout);
        check("haproxy", &haproxy("s1", "0/0/0/3/4", "500", "----"), Signal::AppError);
        check("haproxy", &haproxy("s1", "0/0/0/3/4", "200", "----"), Signal::Answered);
        check("haproxy", &haproxy("s1", "0/0/0/-1/4", "400", "CH--"), Signal::ClientLeft);
        let ingress = |status: &str, addr: &str, length: &str, took: &str, theirs: &str| {
            format!(
                "1.2.3.4 - - [21/Nov/2026:18:00:00 +0000] \"GET / HTTP/1.1\" {status} 0 \"-\" \"c, d\" 5 0.004 [ns-web-80] [] {addr} {length} {took} {theirs} 9f"
            )
        };
        check(
            "ingress-nginx",
            &ingress("200", "10.0.0.4:80, 10.0.0.5:80", "0, 12", "0.000, 0.004", "502, 200"),
            Signal::Answered,
        );
        check("ingress-nginx", &ingress("503", "-", "-", "-", "-"), Signal::NoServer);
        check("ingress-nginx", &ingress("502", "10.0.0.4:80", "120", "0.004", "502"), Signal::AppError);
        check("ingress-nginx", &ingress("499", "10.0.0.4:80", "0", "0.004", "-"), Signal::ClientLeft);
        let error = |message: &str| {
            format!(
                "2026/11/21 18:00:00 [error] 29#29: *7 {message}, client: 1.2.3.4, server: _, request: \"GET / HTTP/1.1\", upstream: \"http://10.8.1.7:80/\", host: \"h\""
            )
        };
        check(
            "nginx-error",
            &error("connect() failed (111: Connection refused) while connecting to upstream"),
            Signal::Refused,
        );
        check(
            "nginx-error",
            &error("connect() failed (113: No route to host) while connecting to upstream"),
            Signal::Unroutable,
        );
        check(
            "nginx-error",
            &error("upstream timed out (110: Connection timed out) while connecting to upstream"),
            Signal::ConnectTimeout,
        );
        check(
            "nginx-error",
            &error("upstream prematurely closed connection while reading upstream"),
            Signal::CutMidAnswer,
        );
        check(
            "nginx-error",
            &error("recv() failed (104: Connection reset by peer) while reading response header from upstream"),
            Signal::ResetBeforeAnswer,
        );
        // A part of its body may have been unread; a FastCGI server leaves nginx's own messages unread; nothing was read yet.
        let reset = error("recv() failed (104: Connection reset by peer) while reading response header from upstream");
        check("nginx-error", &reset.replace("\"GET", "\"POST"), Signal::ClosedBeforeAnswer);
        check("nginx-error", &reset.replace("http:", "fastcgi:"), Signal::ClosedBeforeAnswer);
        check(
            "nginx-error",
            &error("writev() failed (104: Connection reset by peer) while sending request to upstream"),
            Signal::ClosedBeforeAnswer,
        );
        check("nginx-error", &error("no live upstreams while connecting to upstream"), Signal::NoServer);
    }
}
