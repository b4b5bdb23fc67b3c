//! Attempts are not requests: remarks join the access line they are about, and what several hops saw of one request is one loss.

use std::collections::HashMap;

use crate::books::{Books, Loss, Remark};
use crate::read;
use crate::record::Signal;
use crate::time::{Micros, SECOND};

/// How far a remark may be from its access line: both are stamped to the second, and the remark comes first.
const REMARK: Micros = 2 * SECOND;
/// How far two hops' accounts of one request, without an id, may be apart at its end.
const HOPS: Micros = 50_000;

/// What joining did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Joined {
    /// Remarks about attempts that a later one made good.
    pub masked: u64,
    /// Losses that another hop had told of too.
    pub duplicates: u64,
    /// Clocks: input, input, how far the second is ahead, from how many requests.
    pub offsets: Vec<(u16, u16, Micros, u64)>,
}

/// Joins all that belongs together.
pub fn join(books: &mut Books) -> Joined {
    let mut joined = Joined::default();
    remarks(books, &mut joined);
    offsets(books, &mut joined);
    hops(books, &mut joined);
    books.losses.sort_by_key(|loss| (loss.end, loss.place));
    joined
}

fn remarks(books: &mut Books, joined: &mut Joined) {
    let mut by_request: HashMap<u64, Vec<usize>> = HashMap::new();
    for (place, remark) in books.remarks.iter().enumerate() {
        by_request.entry(remark.request_key).or_default().push(place);
    }
    let mut used = vec![false; books.remarks.len()];
    // A socket of the file system is one of the same pod's.
    let on_socket: Vec<bool> =
        books.remarks.iter().map(|remark| books.symbols.text(remark.backend).starts_with("unix:")).collect();
    let own = own_answers(books);
    for loss in books.losses.iter_mut().filter(|loss| loss.weight == 1 && loss.packets.is_none()) {
        let Some(places) = by_request.get(&loss.request_key) else { continue };
        let first = places.partition_point(|place| books.remarks[*place].at < loss.end - REMARK);
        let mut taken = 0;
        for place in &places[first..] {
            let remark = &books.remarks[*place];
            if remark.at > loss.end + REMARK || taken >= loss.attempts {
                break;
            }
            let same_server = loss.backend <= 1 || remark.backend == loss.backend || loss.attempts > 1;
            if used[*place] || !same_server || remark.client_key != loss.client_key {
                continue;
            }
            used[*place] = true;
            taken += 1;
            loss.also.push(remark.place);
            // The last attempt is the one that the client saw.
            if remark.signal.tells() >= loss.signal.tells() || loss.signal == Signal::AppError {
                loss.signal = remark.signal;
                loss.detail = remark.detail;
            }
            if remark.backend > 1 {
                loss.backend = remark.backend;
                loss.same_pod |= on_socket[*place];
            }
        }
    }
    own_answers_are_the_servers(books, own);
    let has_access = books.inputs.iter().any(|input| {
        input.formats.iter().enumerate().any(|(format, lines)| {
            *lines > 0
                && matches!(read::name(format), "nginx" | "nginx-json" | "ingress-nginx" | "caddy" | "given")
                && input.requests > 0
        })
    });
    let mut left: Vec<Remark> =
        books.remarks.iter().zip(&used).filter(|(_, used)| !**used).map(|(remark, _)| remark.clone()).collect();
    if has_access {
        // Its request's own line says that it was answered after all.
        // But for an answer that was cut: its head was sent on, so the line has the answer's own status.
        let (cut, masked): (Vec<Remark>, Vec<Remark>) =
            left.into_iter().partition(|remark| remark.signal == Signal::CutMidAnswer);
        joined.masked += masked.len() as u64;
        left = cut;
    }
    // Without an access log each remark is all there is of its request.
    let format = read::by_id("nginx-error").unwrap_or(0) as u8;
    for remark in left {
        let same_pod = books.symbols.text(remark.backend).starts_with("unix:");
        books.add(Loss { same_pod, ..alone(&remark, format) });
    }
}

/// From when on an error log is there: the first thing in it, whatever it is.
fn own_answers(books: &Books) -> Option<Micros> {
    let error = read::by_id("nginx-error")?;
    let logs = books.inputs.iter().filter(|input| input.formats.get(error).is_some_and(|lines| *lines > 0));
    logs.filter_map(|input| input.span.map(|(first, _)| first)).min()
}

/// A failure of which nginx's error log, there at the time, says nothing is the server's own answer: of its own nginx tells the reason.
fn own_answers_are_the_servers(books: &mut Books, since: Option<Micros>) {
    let (Some(since), Some(combined)) = (since, read::by_id("nginx")) else { return };
    for loss in &mut books.losses {
        let unexplained = usize::from(loss.format) == combined && loss.signal == Signal::Failed && loss.also.is_empty();
        if unexplained && loss.end >= since {
            loss.signal = Signal::AppError;
        }
    }
}

fn alone(remark: &Remark, format: u8) -> Loss {
    Loss {
        place: remark.place,
        format,
        end: remark.at,
        took: None,
        server_took: None,
        status: 0,
        signal: remark.signal,
        backend: remark.backend,
        service: 0,
        route: remark.route,
        detail: remark.detail,
        id: "".into(),
        request_key: remark.request_key,
        client_key: remark.client_key,
        attempts: 1,
        same_pod: false,
        overtaken: false,
        weight: 1,
        also: Vec::new(),
        packets: None,
    }
}

/// From requests that two inputs name by the same id: how far their clocks are apart.
fn offsets(books: &Books, joined: &mut Joined) {
    let mut ends: HashMap<&str, Vec<(u16, Micros)>> = HashMap::new();
    for loss in books.losses.iter().filter(|loss| !loss.id.is_empty()) {
        ends.entry(&loss.id).or_default().push((loss.place.input, loss.end));
    }
    let mut apart: HashMap<(u16, u16), Vec<Micros>> = HashMap::new();
    for mut seen in ends.into_values() {
        seen.sort_unstable();
        for pair in seen.windows(2) {
            let ((first, a), (second, b)) = (pair[0], pair[1]);
            if first != second {
                apart.entry((first, second)).or_default().push(b - a);
            }
        }
    }
    for ((first, second), mut gaps) in apart {
        gaps.sort_unstable();
        joined.offsets.push((first, second, gaps[gaps.len() / 2], gaps.len() as u64));
    }
    joined.offsets.sort_unstable();
}

/// One loss a request: the account that tells most stays, the others are cited.
fn hops(books: &mut Books, joined: &mut Joined) {
    let mut by_id: HashMap<String, usize> = HashMap::new();
    let mut by_backend: HashMap<(u32, u64), Vec<usize>> = HashMap::new();
    let mut kept: Vec<Loss> = Vec::with_capacity(books.losses.len());
    let mut by_request: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut by_handshake: HashMap<u32, Vec<usize>> = HashMap::new();
    let several = books.inputs.iter().filter(|input| input.requests > 0).count() > 1;
    for loss in std::mem::take(&mut books.losses) {
        if !(several || loss.same_pod) || loss.weight > 1 {
            kept.push(loss);
            continue;
        }
        let same = if loss.id.is_empty() { None } else { by_id.get(&*loss.id).copied() };
        // A proxy in the pod writes why on one line, and what it answered on the next.
        let apart = |other: &Loss| other.place.input != loss.place.input || (other.same_pod && loss.same_pod);
        let same = same.filter(|place| apart(&kept[*place])).or_else(|| {
            // Without an id on one side: the same request at the same server, ending at the same moment, in another input.
            let near = by_backend.get(&(loss.backend, loss.request_key))?;
            near.iter().rev().take(8).copied().find(|place| {
                let other = &kept[*place];
                let no_id = other.id.is_empty() || loss.id.is_empty();
                no_id
                    && loss.backend > 1
                    && other.place.input != loss.place.input
                    && (other.end - loss.end).abs() <= HOPS
            })
        });
        // A failure that the server itself sent on to an outer hop: the hop in its pod that made it says why.
        let same = same.or_else(|| {
            let near = by_request.get(&loss.request_key)?;
            near.iter().rev().take(8).copied().find(|place| {
                let other = &kept[*place];
                let (inner, outer) = if loss.same_pod { (&loss, other) } else { (other, &loss) };
                inner.same_pod
                    && !outer.same_pod
                    && outer.signal == Signal::AppError
                    && (inner.status == outer.status || inner.status == 0)
                    && other.place.input != loss.place.input
                    && (other.end - loss.end).abs() <= REMARK
            })
        });
        // A handshake in a capture has no request in it: the log's line about that server at that moment has.
        let same = same.or_else(|| {
            let (own, theirs) = (is_handshake(&loss), by_handshake.get_mut(&loss.backend)?);
            let near = |place: &usize| {
                let other = &kept[*place];
                is_handshake(other) != own && (other.end - loss.end).abs() <= HOPS
            };
            let found = theirs.iter().rposition(near)?;
            Some(theirs.remove(found))
        });
        let Some(place) = same else {
            if loss.backend > 1 && is_connecting(loss.signal) {
                by_handshake.entry(loss.backend).or_default().push(kept.len());
            }
            by_request.entry(loss.request_key).or_default().push(kept.len());
            if !loss.id.is_empty() {
                by_id.insert(loss.id.to_string(), kept.len());
            }
            by_backend.entry((loss.backend, loss.request_key)).or_default().push(kept.len());
            kept.push(loss);
            continue;
        };
        joined.duplicates += 1;
        let other = &mut kept[place];
        let mut poorer = loss;
        if tells(&poorer) > tells(other) {
            std::mem::swap(&mut poorer, other);
        }
        other.also.push(poorer.place);
        other.also.extend(poorer.also);
        // The client's view: the longest time, and the status that was sent to it.
        if poorer.took > other.took {
            other.took = poorer.took;
            other.status = if poorer.status == 0 { other.status } else { poorer.status };
        }
        // A handshake says nothing of the request that it was for.
        if other.id.is_empty() {
            (other.id, other.route, other.request_key) = (poorer.id, poorer.route, poorer.request_key);
        }
        if other.backend <= 1 {
            other.backend = poorer.backend;
        }
        if other.service == 0 {
            other.service = poorer.service;
        }
    }
    books.losses = kept;
}

/// How much an account tells: of two that name the same, packets show what a log can only name.
fn tells(loss: &Loss) -> (u8, bool) {
    (loss.signal.tells(), loss.packets.is_some())
}

/// Connecting failed, as far as was seen.
fn is_connecting(signal: Signal) -> bool {
    matches!(signal, Signal::Refused | Signal::Unroutable | Signal::ConnectTimeout | Signal::ConnectFailed)
}

/// All that was seen is a handshake that failed.
fn is_handshake(loss: &Loss) -> bool {
    loss.packets.is_some() && loss.id.is_empty() && is_connecting(loss.signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::books::Packets;
    use crate::read::{Context, FORMATS, by_id};
    use crate::record::Place;

    fn enter(books: &mut Books, input: u16, line: u64, format: &str, text: &str) {
        let place = by_id(format).unwrap();
        let said = (FORMATS[place].read)(text.as_bytes(), Context::default()).expect(text);
        books.enter(Place { input, line }, place as u8, said);
    }

    #[test]
    fn an_error_line_says_why_and_is_no_second_loss() {
        let mut books = Books::default();
        let access = FORMATS[by_id("ingress-nginx").unwrap()].example;
        let error = FORMATS[by_id("nginx-error").unwrap()].example;
        enter(&mut books, 0, 7, "nginx-error", error);
        enter(&mut books, 1, 3, "ingress-nginx", access);
        books.close();
        join(&mut books);
        let seen: Vec<_> = books.losses.iter().map(|loss| (loss.signal, loss.also.len())).collect();
        assert_eq!(seen, [(Signal::FinBeforeAnswer, 1)]);
    }

    #[test]
    fn workhorse_tells_of_one_loss_on_two_lines() {
        let mut books = Books::default();
        let why = r#"{"correlation_id":"a1","duration_ms":0,"error":"badgateway: failed to receive response: dial tcp 127.0.0.1:8080: connect: connection refused","level":"error","method":"GET","msg":"","time":"2022-04-05T06:04:10.000Z","uri":"/api"}"#;
        let access = r#"{"correlation_id":"a1","duration_ms":1,"level":"info","method":"GET","msg":"access","status":502,"time":"2022-04-05T06:04:10.001Z","uri":"/api"}"#;
        enter(&mut books, 0, 1, "workhorse", why);
        enter(&mut books, 0, 2, "workhorse", access);
        books.close();
        join(&mut books);
        let seen: Vec<_> = books.losses.iter().map(|loss| (loss.signal, loss.also.len())).collect();
        assert_eq!(seen, [(Signal::Refused, 1)]);
    }

    #[test]
    fn two_hops_saw_one_request() {
        let mut books = Books::default();
        let envoy = FORMATS[by_id("envoy-json").unwrap()].example;
        enter(&mut books, 0, 1, "envoy-json", envoy);
        enter(
            &mut books,
            1,
            1,
            "envoy-json",
            &envoy.replace("URX,UF", "-").replace("upstream_reset_before", "via_upstream"),
        );
        books.close();
        let joined = join(&mut books);
        assert_eq!((books.losses.len(), joined.duplicates), (1, 1));
        assert_eq!(books.losses[0].signal, Signal::Refused);
    }

    fn packets(frames: Vec<u64>) -> Packets {
        let (story, stream, server) = (String::new(), String::new(), String::new());
        Packets { idle: None, before: 0, new: false, crossed: None, story, frames, stream, server }
    }

    #[test]
    fn of_two_accounts_that_name_the_same_the_packets_stay() {
        for packets_first in [true, false] {
            let mut books = Books::default();
            enter(&mut books, 0, 1, "google-lb", FORMATS[by_id("google-lb").unwrap()].example);
            let line = Loss { id: "a1".into(), ..books.losses.pop().unwrap() };
            let place = Place { input: 1, line: 117 };
            let seen = Loss { place, packets: Some(Box::new(packets(vec![117, 122]))), ..line.clone() };
            assert_eq!(line.signal, Signal::ClosedBeforeAnswer);
            books.input(1).requests += 1;
            let both = if packets_first { [seen, line] } else { [line, seen] };
            for loss in both {
                books.add(loss);
            }
            books.close();
            join(&mut books);
            let told: Vec<_> = books.losses.iter().map(|loss| (loss.packets.is_some(), loss.also.len())).collect();
            assert_eq!(told, [(true, 1)]);
        }
    }

    #[test]
    fn a_handshake_in_a_capture_is_the_log_lines_own() {
        let mut books = Books::default();
        let refused = FORMATS[by_id("google-lb").unwrap()]
            .example
            .replace("backend_connection_closed_before_data_sent_to_client", "failed_to_connect_to_backend");
        enter(&mut books, 0, 1, "google-lb", &refused);
        books.losses[0].id = "a1".into();
        let line = books.losses[0].clone();
        assert!(is_connecting(line.signal) && !is_handshake(&line), "{line:?}");
        let packets = packets(vec![7, 8]);
        // Two clients were refused at that moment, and the log tells of one.
        for frame in [7, 9] {
            let place = Place { input: 1, line: frame };
            let (id, packets) = ("".into(), Some(Box::new(packets.clone())));
            books.input(1).requests += 1;
            books.add(Loss { place, id, packets, signal: Signal::Refused, request_key: 0, ..line.clone() });
        }
        books.close();
        let joined = join(&mut books);
        assert_eq!((books.losses.len(), joined.duplicates), (2, 1), "{:?}", books.losses);
        let named = books.losses.iter().filter(|loss| loss.id == line.id && loss.request_key == line.request_key);
        assert_eq!(named.count(), 1, "{:?}", books.losses);
    }

    #[test]
    fn an_answer_that_was_cut_is_lost_though_its_line_has_the_servers_200() {
        let mut books = Books::default();
        let cut = FORMATS[by_id("nginx-error").unwrap()].example.replace("reading response header from", "reading");
        enter(&mut books, 0, 7, "nginx-error", &cut);
        let whole = FORMATS[by_id("ingress-nginx").unwrap()].example.replace(" 502 150", " 200 150");
        enter(&mut books, 1, 3, "ingress-nginx", &whole);
        books.close();
        let masked = join(&mut books).masked;
        let signals: Vec<_> = books.losses.iter().map(|loss| loss.signal).collect();
        assert_eq!((masked, signals), (0, vec![Signal::CutMidAnswer]));
    }

    #[test]
    fn a_502_that_the_server_sent_is_explained_by_the_hop_in_its_pod() {
        let mut books = Books::default();
        let sent = FORMATS[by_id("google-lb").unwrap()]
            .example
            .replace("backend_connection_closed_before_data_sent_to_client", "response_sent_by_backend");
        enter(&mut books, 0, 1, "google-lb", &sent);
        let access = FORMATS[by_id("nginx").unwrap()].example.replace("GET / ", "POST /api ");
        enter(&mut books, 1, 1, "nginx", &access);
        let error = FORMATS[by_id("nginx-error").unwrap()]
            .example
            .replace(
                "upstream prematurely closed connection while reading response header from",
                "connect() to unix:/run/app.sock failed (111: Connection refused) while connecting to",
            )
            .replace("http://10.8.1.7:8080/api", "http://unix:/run/app.sock:/api");
        enter(&mut books, 2, 1, "nginx-error", &error);
        books.close();
        let duplicates = join(&mut books).duplicates;
        let seen: Vec<_> = books.losses.iter().map(|loss| (loss.signal, loss.same_pod)).collect();
        assert_eq!((duplicates, seen), (1, vec![(Signal::Refused, true)]));
    }

    #[test]
    fn without_a_word_in_nginxs_error_log_a_5xx_is_the_servers() {
        let check = |second: &str, expect: Signal| {
            let mut books = Books::default();
            enter(&mut books, 0, 1, "nginx-error", FORMATS[by_id("nginx-error").unwrap()].example);
            let line = FORMATS[by_id("nginx").unwrap()].example.replace("18:00:00 ", second).replace(" 502 ", " 500 ");
            enter(&mut books, 1, 1, "nginx", &line);
            books.close();
            join(&mut books);
            let of_line = books.losses.iter().find(|loss| loss.place.input == 1).map(|loss| loss.signal);
            assert_eq!(of_line, Some(expect), "{line}");
        };
        check("18:00:07 ", Signal::AppError);
        // Before the first word of that log it may not have been there.
        check("17:00:00 ", Signal::Failed);
    }

    #[test]
    fn a_retried_attempt_that_was_answered_is_masked() {
        let mut books = Books::default();
        enter(&mut books, 0, 7, "nginx-error", FORMATS[by_id("nginx-error").unwrap()].example);
        let ok = FORMATS[by_id("ingress-nginx").unwrap()].example.replace(" 502 150", " 200 150");
        enter(&mut books, 1, 3, "ingress-nginx", &ok);
        books.close();
        assert_eq!((join(&mut books).masked, books.losses.len()), (1, 0));
    }
}
