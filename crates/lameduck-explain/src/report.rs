//! The explanation: the contract `lameduck.explain/1`, documented in `docs/explain.md`. Fields are only ever added within a version.

use std::collections::{BTreeMap, HashMap};

use lameduck_core::Cause;
use serde::Serialize;

use crate::books::{Books, Loss};
use crate::diagnose::{Confidence, Refusals, verdict};
use crate::fix;
use crate::join::Joined;
use crate::read;
use crate::record::{EventKind, Place};
use crate::slo::{self, Slo};
use crate::spikes::{self, Spike};
use crate::stream::Sighting;
use crate::time::{Micros, SECOND, parts, show};
use crate::world::World;

/// The schema of [`Explanation`].
pub const SCHEMA: &str = "lameduck.explain/1";
/// Examples of each cause.
const EXAMPLES: usize = 5;
/// Rows of each table.
const ROWS: usize = 20;
/// Losses listed one by one.
const LOSSES: usize = 50_000;
/// Losses drawn of each pod.
const LOSSES_DRAWN: usize = 500;
/// Pods drawn.
const PODS: usize = 24;

/// One input.
#[derive(Debug, Clone, Serialize)]
pub struct InputReport {
    /// Its name.
    pub name: String,
    /// Its formats, with their lines.
    pub formats: BTreeMap<&'static str, u64>,
    /// Lines, objects or frames.
    pub lines: u64,
    /// Those that no format knows.
    pub unparsed: u64,
    /// Some of them.
    pub samples: Vec<Sample>,
    /// Requests.
    pub requests: u64,
    /// The first time in it.
    pub first: Option<String>,
    /// The last.
    pub last: Option<String>,
}

/// An unparsed line.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Its number.
    pub line: u64,
    /// Its beginning.
    pub text: String,
}

/// One lost request, with its evidence.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// When it ended.
    pub at: String,
    /// Its id.
    pub id: String,
    /// Route.
    pub route: String,
    /// The server.
    pub backend: String,
    /// The status sent.
    pub status: u16,
    /// How long it took, seconds.
    pub took_s: Option<f64>,
    /// What was seen, in the log's words.
    pub seen: String,
    /// How many requests it stands for.
    pub weight: u64,
    /// What packets show.
    pub packets: Option<String>,
    /// How long the connection was idle when it was closed, seconds.
    pub idle_s: Option<f64>,
    /// Where it is said: `file:line`.
    pub cites: Vec<String>,
}

/// Why, and how many of it.
#[derive(Debug, Clone, Serialize)]
pub struct Ground {
    /// The evidence, or what is missing.
    pub grounds: String,
    /// How sure that makes it.
    pub confidence: Confidence,
    /// How many.
    pub requests: u64,
}

/// One cause.
#[derive(Debug, Clone, Serialize)]
pub struct CauseReport {
    /// Its id.
    pub cause: Cause,
    /// What happened.
    pub what: &'static str,
    /// How many requests.
    pub requests: u64,
    /// Of all losses, 0 to 1.
    pub share: f64,
    /// On which grounds.
    pub grounds: Vec<Ground>,
    /// What prevents it.
    pub fixes: Vec<String>,
    /// Some of them.
    pub examples: Vec<Example>,
}

/// A row of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Of what.
    pub name: String,
    /// Losses.
    pub lost: u64,
    /// By cause.
    pub causes: BTreeMap<Cause, u64>,
}

/// A span of time with its losses.
#[derive(Debug, Clone, Serialize)]
pub struct Bin {
    /// Its beginning, seconds since 1970.
    pub start_s: i64,
    /// Requests.
    pub requests: u64,
    /// Losses by cause.
    pub causes: BTreeMap<Cause, u64>,
}

/// What it cost those who waited.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Losses of known duration.
    pub requests: u64,
    /// What they waited together, hours.
    pub hours: f64,
    /// The same for a day.
    pub hours_a_day: f64,
    /// The mean, seconds.
    pub mean_s: f64,
}

/// How two clocks differ.
#[derive(Debug, Clone, Serialize)]
pub struct Offset {
    /// One input.
    pub input: String,
    /// The other.
    pub other: String,
    /// How far the other is ahead, seconds.
    pub ahead_s: f64,
    /// From how many requests.
    pub requests: u64,
}

/// A pod's two lanes, rebuilt.
#[derive(Debug, Clone, Serialize)]
pub struct PodReport {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Seconds since 1970 of each moment that is known.
    pub moments: BTreeMap<&'static str, f64>,
    /// Exit code.
    pub exit_code: Option<i64>,
    /// The last second in which it answered.
    pub last_answer_s: Option<i64>,
    /// Its losses: seconds since 1970, and cause. At most 500.
    pub losses: Vec<(f64, Cause)>,
    /// How many there are.
    pub lost: u64,
}

/// One lost request, briefly.
#[derive(Debug, Clone, Serialize)]
pub struct LossReport {
    /// When it ended, seconds since 1970.
    pub at_s: f64,
    /// Its id.
    pub id: String,
    /// Its cause.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// The server.
    pub backend: String,
    /// How many requests it stands for.
    pub weight: u64,
    /// Where it is said.
    pub cite: String,
}

/// One request, followed.
#[derive(Debug, Clone, Serialize)]
pub struct Followed {
    /// The id.
    pub id: String,
    /// Its verdict, where it was lost.
    pub cause: Option<Cause>,
    /// On which grounds.
    pub grounds: Option<String>,
    /// What prevents it.
    pub fixes: Vec<String>,
    /// Where it was seen: `file:line`, and the line.
    pub seen: Vec<(String, String)>,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Inputs.
    pub inputs: Vec<InputReport>,
    /// Requests, as the hop that saw most of them counts.
    pub requests: u64,
    /// Lost ones.
    pub lost: u64,
    /// Attempts that failed and were made good by another.
    pub masked: u64,
    /// Requests whose client left.
    pub client_left: u64,
    /// Requests that a hop's own rule ended.
    pub policy: u64,
    /// Lines that tell of a loss another line had told of.
    pub duplicates: u64,
    /// What there was no room for.
    pub dropped: u64,
    /// From when.
    pub first: Option<String>,
    /// To when.
    pub last: Option<String>,
    /// By cause.
    pub causes: Vec<CauseReport>,
    /// By what the logs said.
    pub said: Vec<Row>,
    /// By status.
    pub statuses: BTreeMap<u16, u64>,
    /// By server.
    pub backends: Vec<Row>,
    /// By service.
    pub services: Vec<Row>,
    /// By route.
    pub routes: Vec<Row>,
    /// Length of a bin, seconds.
    pub bin_s: i64,
    /// Over time.
    pub bins: Vec<Bin>,
    /// By hour of the day, UTC.
    pub hours: [u64; 24],
    /// What the days have in common.
    pub periodicity: String,
    /// Spikes.
    pub spikes: Vec<Spike>,
    /// Cost.
    pub cost: Option<Cost>,
    /// Clocks.
    pub offsets: Vec<Offset>,
    /// Error budget.
    pub slo: Option<Slo>,
    /// Pods with losses.
    pub pods: Vec<PodReport>,
    /// The losses one by one, the first 50,000.
    pub losses: Vec<LossReport>,
    /// One request.
    pub followed: Option<Followed>,
}

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// The id to follow.
    pub id: Option<String>,
    /// The objective, as a share of 1.
    pub slo: Option<f64>,
    /// What a loss costs its client beside what the log shows: retries, backoff.
    pub client_wait: Micros,
}

/// A loss with its verdict.
pub struct Judged<'b> {
    /// The loss.
    pub loss: &'b Loss,
    /// Its cause.
    pub cause: Cause,
    /// How sure.
    pub confidence: Confidence,
    /// Why.
    pub grounds: &'static str,
    /// Further evidence.
    pub cites: Vec<Place>,
}

/// The explanation of closed and joined books.
pub fn explain(
    books: &Books,
    names: &[String],
    joined: &Joined,
    sightings: &[Sighting],
    question: &Question,
) -> Explanation {
    let world = World::build(books, names);
    let refusals = Refusals::of(books);
    let judged: Vec<Judged<'_>> = books
        .losses
        .iter()
        .map(|loss| {
            let (verdict, cites) = verdict(loss, books, &world, &refusals);
            Judged { loss, cause: verdict.cause, confidence: verdict.confidence, grounds: verdict.grounds, cites }
        })
        .collect();
    let span = books.inputs.iter().filter(|input| input.requests > 0).filter_map(|input| input.span);
    let span = span.reduce(|(a, b), (c, d)| (a.min(c), b.max(d)));
    let minutes = main_minutes(books);
    let (step_s, pictured) = bins(&judged, &minutes, span);
    let requests = minutes.values().map(|minute| minute.requests).sum::<u64>();
    let (hours, periodicity) = spikes::periodicity(&judged, span);
    Explanation {
        schema: SCHEMA,
        inputs: inputs(books, names),
        requests: requests.max(weight(&judged)),
        lost: weight(&judged),
        masked: books.masked + joined.masked,
        client_left: books.client_left,
        policy: books.policy,
        duplicates: joined.duplicates,
        dropped: books.dropped,
        first: span.map(|(first, _)| show(first)),
        last: span.map(|(_, last)| show(last)),
        causes: causes(&judged, books, names, &world),
        said: rows(&judged, |loss| {
            let text = books.symbols.text(loss.detail);
            if text.is_empty() { loss.signal.words().to_owned() } else { text }
        }),
        statuses: statuses(&judged),
        backends: rows(&judged, |loss| books.symbols.text(loss.backend)),
        services: rows(&judged, |loss| books.symbols.text(loss.service)),
        routes: rows(&judged, |loss| books.symbols.text(loss.route)),
        bin_s: step_s,
        bins: pictured,
        hours,
        periodicity,
        spikes: spikes::find(&judged, books, names, &world),
        cost: cost(&judged, span, question.client_wait),
        offsets: offsets(joined, names),
        slo: question.slo.map(|objective| slo::slo(objective, &judged, &minutes)),
        pods: pods(&judged, books, &world),
        losses: judged.iter().take(LOSSES).map(|one| brief(one, books, names)).collect(),
        followed: question.id.as_ref().map(|id| followed(id, &judged, books, names, sightings)),
    }
}

fn weight(judged: &[Judged<'_>]) -> u64 {
    judged.iter().map(|one| one.loss.weight).sum()
}

/// `file:line`, or in a capture `file frame N`.
pub fn cite(place: Place, books: &Books, names: &[String]) -> String {
    let name = names.get(usize::from(place.input)).map_or("?", String::as_str);
    let capture = books
        .inputs
        .get(usize::from(place.input))
        .is_some_and(|input| input.formats.get(read::CAPTURE).is_some_and(|n| *n > 0));
    if capture { format!("{name} frame {}", place.line) } else { format!("{name}:{}", place.line) }
}

fn inputs(books: &Books, names: &[String]) -> Vec<InputReport> {
    let report = |(name, book): (&String, &crate::books::InputBook)| InputReport {
        name: name.clone(),
        formats: book
            .formats
            .iter()
            .enumerate()
            .filter(|(_, lines)| **lines > 0)
            .map(|(format, lines)| (read::name(format), *lines))
            .collect(),
        lines: book.lines,
        unparsed: book.unparsed,
        samples: book.samples.iter().map(|(line, text)| Sample { line: *line, text: text.clone() }).collect(),
        requests: book.requests,
        first: book.span.map(|(first, _)| show(first)),
        last: book.span.map(|(_, last)| show(last)),
    };
    names.iter().zip(&books.inputs).map(report).collect()
}

/// Requests by minute, of the kind of log that has most: hops in a row see the same requests.
fn main_minutes(books: &Books) -> BTreeMap<i64, crate::books::Minute> {
    let mut sums: HashMap<u8, u64> = HashMap::new();
    for ((format, _), minute) in &books.minutes {
        *sums.entry(*format).or_default() += minute.requests;
    }
    let Some((main, _)) = sums.into_iter().max_by_key(|(format, requests)| (*requests, *format)) else {
        return BTreeMap::new();
    };
    books
        .minutes
        .iter()
        .filter(|((format, _), _)| *format == main)
        .map(|((_, minute), sums)| (*minute, *sums))
        .collect()
}

fn example(one: &Judged<'_>, books: &Books, names: &[String]) -> Example {
    let loss = one.loss;
    let mut cites = vec![cite(loss.place, books, names)];
    let frames = loss.packets.as_ref().map(|packets| &packets.frames[..]).unwrap_or_default();
    cites.extend(
        frames
            .iter()
            .filter(|frame| **frame != loss.place.line)
            .map(|line| cite(Place { line: *line, ..loss.place }, books, names)),
    );
    cites.extend(loss.also.iter().chain(&one.cites).take(6).map(|place| cite(*place, books, names)));
    let seconds = |micros: Micros| micros as f64 / 1e6;
    let detail = books.symbols.text(loss.detail);
    Example {
        at: show(loss.end),
        id: loss.id.to_string(),
        route: books.symbols.text(loss.route),
        backend: books.symbols.text(loss.backend),
        status: loss.status,
        took_s: loss.took.map(seconds),
        seen: if detail.is_empty() { loss.signal.words().to_owned() } else { detail },
        weight: loss.weight,
        packets: loss.packets.as_ref().map(|packets| packets.story.clone()),
        idle_s: loss.packets.as_ref().and_then(|packets| packets.idle).map(seconds),
        cites,
    }
}

fn brief(one: &Judged<'_>, books: &Books, names: &[String]) -> LossReport {
    LossReport {
        at_s: one.loss.end as f64 / 1e6,
        id: one.loss.id.to_string(),
        cause: one.cause,
        confidence: one.confidence,
        backend: books.symbols.text(one.loss.backend),
        weight: one.loss.weight,
        cite: cite(one.loss.place, books, names),
    }
}

fn causes(judged: &[Judged<'_>], books: &Books, names: &[String], world: &World) -> Vec<CauseReport> {
    let total = weight(judged).max(1);
    let mut found = Vec::new();
    for cause in Cause::ALL {
        let own: Vec<&Judged<'_>> = judged.iter().filter(|one| one.cause == cause).collect();
        if own.is_empty() {
            continue;
        }
        let requests = own.iter().map(|one| one.loss.weight).sum();
        let mut grounds: BTreeMap<(Confidence, &str), u64> = BTreeMap::new();
        for one in &own {
            *grounds.entry((one.confidence, one.grounds)).or_default() += one.loss.weight;
        }
        let mut grounds: Vec<Ground> = grounds
            .into_iter()
            .map(|((confidence, grounds), requests)| Ground { grounds: grounds.to_owned(), confidence, requests })
            .collect();
        grounds.sort_by_key(|ground| std::cmp::Reverse(ground.requests));
        // Those with packets say most; then spread over time.
        let step = (own.len() / EXAMPLES).max(1);
        let with_packets = own.iter().filter(|one| one.loss.packets.is_some()).take(EXAMPLES);
        let mut examples: Vec<Example> = with_packets.map(|one| example(one, books, names)).collect();
        let others = own.iter().step_by(step).filter(|one| one.loss.packets.is_none());
        examples.extend(others.take(EXAMPLES - examples.len()).map(|one| example(one, books, names)));
        found.push(CauseReport {
            cause,
            what: cause.what(),
            requests,
            share: requests as f64 / total as f64,
            grounds,
            fixes: fix::fixes(cause, &own, books, world),
            examples,
        });
    }
    found.sort_by_key(|cause| std::cmp::Reverse(cause.requests));
    found
}

fn rows(judged: &[Judged<'_>], name: impl Fn(&Loss) -> String) -> Vec<Row> {
    let mut sums: HashMap<String, BTreeMap<Cause, u64>> = HashMap::new();
    for one in judged {
        let name = name(one.loss);
        let name = if name.is_empty() { "(not in the log)".to_owned() } else { name };
        *sums.entry(name).or_default().entry(one.cause).or_default() += one.loss.weight;
    }
    let mut rows: Vec<Row> =
        sums.into_iter().map(|(name, causes)| Row { name, lost: causes.values().sum(), causes }).collect();
    rows.sort_by(|a, b| b.lost.cmp(&a.lost).then_with(|| a.name.cmp(&b.name)));
    rows.truncate(ROWS);
    rows
}

fn statuses(judged: &[Judged<'_>]) -> BTreeMap<u16, u64> {
    let mut sums = BTreeMap::new();
    for one in judged {
        *sums.entry(one.loss.status).or_default() += one.loss.weight;
    }
    sums
}

/// Bins of a length that gives a picture between 60 and 300 of them.
fn bins(
    judged: &[Judged<'_>],
    minutes: &BTreeMap<i64, crate::books::Minute>,
    span: Option<(Micros, Micros)>,
) -> (i64, Vec<Bin>) {
    let Some((first, last)) = span else { return (60, Vec::new()) };
    let seconds = ((last - first) / SECOND).max(1);
    let lengths = [1, 2, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 10_800, 21_600, 86_400];
    let step_s =
        lengths.into_iter().find(|step| seconds / step <= 300).unwrap_or(86_400 * (1 + seconds / 86_400 / 300));
    let begin = first.div_euclid(SECOND).div_euclid(step_s);
    let count = (last.div_euclid(SECOND).div_euclid(step_s) - begin + 1).clamp(1, 400);
    let mut bins: Vec<Bin> =
        (0..count).map(|n| Bin { start_s: (begin + n) * step_s, requests: 0, causes: BTreeMap::new() }).collect();
    let place = |second: i64| usize::try_from(second.div_euclid(step_s) - begin).ok();
    for (minute, sums) in minutes {
        if let Some(bin) = place(minute * 60).and_then(|place| bins.get_mut(place)) {
            bin.requests += sums.requests;
        }
    }
    for one in judged {
        if let Some(bin) = place(one.loss.end.div_euclid(SECOND)).and_then(|place| bins.get_mut(place)) {
            *bin.causes.entry(one.cause).or_default() += one.loss.weight;
        }
    }
    (step_s, bins)
}

fn cost(judged: &[Judged<'_>], span: Option<(Micros, Micros)>, client_wait: Micros) -> Option<Cost> {
    let (mut requests, mut waited) = (0, 0.0);
    for one in judged {
        if one.loss.took.is_some() || client_wait > 0 {
            let each = one.loss.took.unwrap_or(0) + client_wait;
            requests += one.loss.weight;
            waited += each as f64 / 1e6 * one.loss.weight as f64;
        }
    }
    let days = span.map_or(1.0, |(first, last)| ((last - first) as f64 / 86_400e6).max(1.0));
    (requests > 0).then(|| Cost {
        requests,
        hours: waited / 3600.0,
        hours_a_day: waited / 3600.0 / days,
        mean_s: waited / requests as f64,
    })
}

fn offsets(joined: &Joined, names: &[String]) -> Vec<Offset> {
    let name = |input: u16| names.get(usize::from(input)).cloned().unwrap_or_default();
    let offset = |(input, other, ahead, requests): &(u16, u16, Micros, u64)| Offset {
        input: name(*input),
        other: name(*other),
        ahead_s: *ahead as f64 / 1e6,
        requests: *requests,
    };
    joined.offsets.iter().map(offset).collect()
}

/// Losses of a pod with their times, and how many there are.
type OfPod = (Vec<(f64, Cause)>, u64);

fn pods(judged: &[Judged<'_>], books: &Books, world: &World) -> Vec<PodReport> {
    let mut by_pod: BTreeMap<&str, OfPod> = BTreeMap::new();
    for one in judged {
        let address = books.symbols.text(one.loss.backend);
        if let Some(life) = world.at(&address, one.loss.end) {
            let (losses, lost) = by_pod.entry(&life.name).or_default();
            *lost += one.loss.weight;
            losses.push((one.loss.end as f64 / 1e6, one.cause));
        }
    }
    let mut found = Vec::new();
    for life in &world.lives {
        let (losses, lost) = by_pod.remove(life.name.as_str()).unwrap_or_default();
        if life.stop.is_none() && life.app_stop.is_none() && life.end().is_none() && lost == 0 {
            continue;
        }
        let moments = [
            (EventKind::Started.words(), life.started),
            (EventKind::Ready.words(), life.ready),
            (EventKind::Stopping.words(), life.stop),
            (EventKind::AppStopping.words(), life.app_stop),
            (EventKind::GraceExceeded.words(), life.grace_exceeded),
            (EventKind::Ended.words(), life.ended),
        ];
        let answered =
            life.addresses.iter().filter_map(|address| books.backends.get(&books.symbols.find(address.as_bytes())?));
        let last_answer_s = answered.filter_map(crate::books::Backend::last_answer).max();
        found.push(PodReport {
            name: life.name.clone(),
            addresses: life.addresses.clone(),
            // Evenly thinned, so that the first and the last stay.
            losses: losses.iter().step_by(losses.len().div_ceil(LOSSES_DRAWN).max(1)).copied().collect(),
            moments: moments.into_iter().filter_map(|(name, at)| Some((name, at? as f64 / 1e6))).collect(),
            exit_code: life.exit_code,
            last_answer_s,
            lost,
        });
    }
    found.sort_by(|a, b| b.lost.cmp(&a.lost).then_with(|| a.name.cmp(&b.name)));
    found.truncate(PODS);
    found
}

fn followed(id: &str, judged: &[Judged<'_>], books: &Books, names: &[String], sightings: &[Sighting]) -> Followed {
    let seen: Vec<(String, String)> =
        sightings.iter().map(|sighting| (cite(sighting.place, books, names), sighting.text.clone())).collect();
    let own = judged.iter().find(|one| {
        !id.is_empty()
            && (one.loss.id.contains(id)
                || sightings
                    .iter()
                    .any(|sighting| sighting.place == one.loss.place || one.loss.also.contains(&sighting.place)))
    });
    Followed {
        id: id.to_owned(),
        cause: own.map(|one| one.cause),
        grounds: own.map(|one| {
            one.loss
                .packets
                .as_ref()
                .map_or_else(|| one.grounds.to_owned(), |packets| format!("{}: {}", one.grounds, packets.story))
        }),
        fixes: own.map(|one| fix::fixes(one.cause, &[one], books, &World::default())).unwrap_or_default(),
        seen,
    }
}

/// The hour of the day, UTC.
pub fn hour_of_day(at: Micros) -> usize {
    usize::from(parts(at).3)
}
