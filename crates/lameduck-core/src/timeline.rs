//! The two lanes of a termination and what happens on them, with where each fact comes from.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which of the two racers a moment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// Deletion to exit, seen from the process.
    Process,
    /// Deletion to the last request, seen from the hops in front.
    Routing,
}

/// What can happen on a lane. The order within a lane is the order of a clean termination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// The process was started.
    Started,
    /// It listened, or answered its first request.
    Ready,
    /// Its end was decided: the pod object got a deletion timestamp, the drill chose it.
    Deleted,
    /// A drain was asked for ahead of the signal (a preStop hook, the admin request).
    DrainRequested,
    /// The stop signal arrived at PID 1.
    TermReceived,
    /// The lame-duck phase began: everything is still accepted, clients are asked to leave.
    LameDuckBegan,
    /// Traffic was measured quiet.
    Quiet,
    /// The wait for in-flight requests began.
    DrainingBegan,
    /// The app itself was told to stop.
    AppSignalled,
    /// The listener was closed.
    StoppedAccepting,
    /// SIGKILL was sent.
    Killed,
    /// The last process exited.
    Exited,
    /// Routing took the endpoint out.
    EndpointRemoved,
    /// The last new connection arrived.
    LastNewConnection,
    /// The last request arrived.
    LastRequest,
}

impl Moment {
    /// The lane it belongs to.
    pub const fn lane(self) -> Lane {
        match self {
            Moment::Started
            | Moment::Ready
            | Moment::Deleted
            | Moment::DrainRequested
            | Moment::TermReceived
            | Moment::LameDuckBegan
            | Moment::Quiet
            | Moment::DrainingBegan
            | Moment::AppSignalled
            | Moment::StoppedAccepting
            | Moment::Killed
            | Moment::Exited => Lane::Process,
            Moment::EndpointRemoved | Moment::LastNewConnection | Moment::LastRequest => Lane::Routing,
        }
    }
}

/// How a moment is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// Seen as it happened.
    Observed,
    /// Derived from what was read, by arithmetic.
    Predicted,
    /// Put together afterwards from logs or captures.
    Reconstructed,
}

/// A moment at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds after the timeline's origin.
    #[serde(rename = "at_s", with = "crate::duration::seconds")]
    pub at: Duration,
    /// What happened.
    pub moment: Moment,
    /// How it is known.
    pub provenance: Provenance,
}

/// The moments of one termination, in order of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline {
    entries: Vec<Entry>,
}

impl Timeline {
    /// An empty timeline with room for every moment once, so that a caller which may not allocate can fill it.
    pub fn with_room() -> Timeline {
        Timeline { entries: Vec::with_capacity(32) }
    }

    /// Adds a moment; entries stay sorted by time, and those of one time in the order added.
    pub fn record(&mut self, at: Duration, moment: Moment, provenance: Provenance) {
        let place = self.entries.partition_point(|entry| entry.at <= at);
        self.entries.insert(place, Entry { at, moment, provenance });
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// When `moment` first happened.
    pub fn at(&self, moment: Moment) -> Option<Duration> {
        self.entries.iter().find(|entry| entry.moment == moment).map(|entry| entry.at)
    }

    /// The window in which routing still sent new connections that the process no longer accepted, if there was one.
    pub fn refused_window(&self) -> Option<(Duration, Duration)> {
        let closed = self.at(Moment::StoppedAccepting).or_else(|| self.at(Moment::Exited))?;
        let removed = self.at(Moment::EndpointRemoved).or_else(|| self.at(Moment::LastNewConnection))?;
        (removed > closed).then_some((closed, removed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_listener_that_outlives_routing_loses_nothing() {
        let mut timeline = Timeline::default();
        timeline.record(5 * SECOND, Moment::StoppedAccepting, Provenance::Observed);
        timeline.record(3 * SECOND, Moment::EndpointRemoved, Provenance::Observed);
        assert_eq!(timeline.refused_window(), None);
        let mut early = Timeline::default();
        early.record(Duration::ZERO, Moment::Exited, Provenance::Observed);
        early.record(3 * SECOND, Moment::EndpointRemoved, Provenance::Observed);
        assert_eq!(early.refused_window(), Some((Duration::ZERO, 3 * SECOND)));
    }

    proptest! {
        #[test]
        fn entries_stay_in_order_of_time(times in prop::collection::vec(0u64..1000, 0..40)) {
            let mut timeline = Timeline::default();
            for t in &times {
                timeline.record(Duration::from_millis(*t), Moment::LastRequest, Provenance::Observed);
            }
            prop_assert_eq!(timeline.entries().len(), times.len());
            prop_assert!(timeline.entries().is_sorted_by_key(|entry| entry.at));
        }
    }
}
