//! The fields that access logs have in common, whatever each calls them.

/// A field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// When the request began.
    Start,
    /// When it ended.
    End,
    /// How long it took.
    Took,
    /// How long the server took.
    ServerTook,
    /// How long connecting took.
    ConnectTook,
    /// How long the answer was sent.
    SendTook,
    /// The status sent to the client.
    Status,
    /// The server's status.
    UpstreamStatus,
    /// The server's address.
    Upstream,
    /// Bytes of the server's answer.
    UpstreamBytes,
    /// The server's `Connection` header.
    UpstreamConnection,
    /// The service.
    Service,
    /// Method, target and protocol together.
    Request,
    /// The method.
    Method,
    /// The target.
    Target,
    /// The id.
    Id,
    /// A trace's id.
    Trace,
    /// The client.
    Client,
    /// Envoy's response flags, HAProxy's termination state.
    Flags,
    /// What the log says about the end.
    Detail,
    /// A second such text.
    Reason,
    /// The message.
    Message,
    /// Who wrote the line.
    Logger,
    /// The level.
    Level,
    /// The schema of lameduck's own lines.
    Schema,
    /// How often it was sent again.
    Retries,
    /// The kind of a line: an ALB's type, a resource's type.
    Kind,
}

impl Field {
    const COUNT: usize = Field::Kind as usize + 1;

    /// Whether it can be a list of nginx's.
    pub(crate) const fn is_list(self) -> bool {
        matches!(self, Field::Upstream | Field::UpstreamStatus | Field::UpstreamBytes | Field::ServerTook)
    }

    /// An nginx variable's. Source: `ngx_http_upstream`, `ngx_http_core` and `ngx_http_log_module` documentation.
    pub(crate) fn of_nginx(variable: &str) -> Option<Field> {
        Some(match variable {
            "remote_addr" | "the_real_ip" => Field::Client,
            "time_local" | "time_iso8601" | "msec" => Field::End,
            "request" => Field::Request,
            "request_method" => Field::Method,
            "uri" | "request_uri" => Field::Target,
            "status" => Field::Status,
            "request_time" => Field::Took,
            "proxy_upstream_name" => Field::Service,
            "upstream_addr" => Field::Upstream,
            "upstream_response_length" | "upstream_bytes_received" => Field::UpstreamBytes,
            "upstream_response_time" => Field::ServerTook,
            "upstream_connect_time" => Field::ConnectTook,
            "upstream_status" => Field::UpstreamStatus,
            "upstream_http_connection" => Field::UpstreamConnection,
            "req_id" | "request_id" | "http_x_request_id" => Field::Id,
            _ => return None,
        })
    }

    /// An Envoy command operator's. Source: Envoy, access log usage.
    pub(crate) fn of_envoy(operator: &str) -> Option<Field> {
        if operator.starts_with("START_TIME") {
            return Some(Field::Start);
        }
        Some(match operator {
            "REQ(:METHOD)" | "REQUEST_METHOD" => Field::Method,
            "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)" | "REQ(:PATH)" | "PATH" => Field::Target,
            "RESPONSE_CODE" => Field::Status,
            "RESPONSE_FLAGS" => Field::Flags,
            "RESPONSE_CODE_DETAILS" => Field::Detail,
            "UPSTREAM_TRANSPORT_FAILURE_REASON" => Field::Reason,
            "DURATION" => Field::Took,
            "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)" => Field::ServerTook,
            "REQ(X-REQUEST-ID)" => Field::Id,
            "UPSTREAM_HOST" => Field::Upstream,
            "UPSTREAM_CLUSTER" => Field::Service,
            "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Field::Client,
            _ => return None,
        })
    }
}

/// The values of one line; empty where it has none.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    values: [&'a [u8]; Field::COUNT],
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Fields { values: [b""; Field::COUNT] }
    }
}

impl<'a> Fields<'a> {
    /// Sets a value; `-` and `null` are none.
    #[inline]
    pub fn set(&mut self, field: Field, value: &'a [u8]) {
        // nginx writes `-` for a connection that was never made: that is a fact.
        if field == Field::ConnectTook || !matches!(value, b"-" | b"null" | b"\"-\"") {
            self.values[field as usize] = value;
        }
    }

    /// A value.
    #[inline]
    pub fn get(&self, field: Field) -> &'a [u8] {
        self.values[field as usize]
    }

    /// The status sent.
    pub fn status(&self, field: Field) -> Option<u16> {
        let text = self.get(field);
        (1..=3).contains(&text.len()).then_some(())?;
        text.iter().try_fold(0u16, |n, byte| byte.is_ascii_digit().then(|| n * 10 + u16::from(byte - b'0')))
    }

    /// Method and target of `METHOD TARGET PROTOCOL`, or the fields by themselves.
    pub fn request(&self) -> (&'a [u8], &'a [u8]) {
        let whole = self.get(Field::Request);
        if whole.is_empty() {
            return (self.get(Field::Method), self.get(Field::Target));
        }
        split_request(whole)
    }
}

/// Method and target of a request line; a target may have spaces in it.
pub fn split_request(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(first) = memchr::memchr(b' ', line) else { return (b"", line) };
    let rest = &line[first + 1..];
    let end = memchr::memrchr(b' ', rest).filter(|end| rest[end + 1..].starts_with(b"HTTP")).unwrap_or(rest.len());
    (&line[..first], &rest[..end])
}
