//! What lameducks of one pod tell each other: one datagram, one line of words, written here and read without trust.

use std::fmt::Write;

use super::identity::is_name;

/// The first word.
const MAGIC: &str = "lameduck.pod/1";
/// A longer datagram is nobody's we know.
pub const LONGEST: usize = 2048;
/// Ports of one kind that are told.
pub const MOST_PORTS: usize = 64;
/// Names that are told.
pub const MOST_NAMES: usize = 8;

/// Where a lameduck stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody told it to stop.
    Serving,
    /// It was told to stop, or asked to drain, and is still there.
    Leaving,
}

/// What one lameduck says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// It wants to be answered.
    pub asks: bool,
    /// Where it stands.
    pub standing: Standing,
    /// The pod it belongs to, where it knows: on a host's network those of several pods meet.
    pub pod: Option<String>,
    /// Ports at which its app or its front listens.
    pub listens: Vec<u16>,
    /// Ports of this network namespace, listened at by others, to which its app or its front connects.
    pub connects: Vec<u16>,
    /// Whom it is to leave after, as it was told.
    pub after: Vec<String>,
}

impl Announcement {
    /// The datagram.
    pub fn encode(&self) -> String {
        let mut line = String::with_capacity(256);
        let asks = if self.asks { "ask" } else { "tell" };
        let standing = match self.standing {
            Standing::Serving => "serving",
            Standing::Leaving => "leaving",
        };
        // Writing to a string can not fail.
        let _ = write!(line, "{MAGIC} {asks} {standing}");
        if let Some(pod) = &self.pod {
            let _ = write!(line, " pod={pod}");
        }
        for (key, ports) in [("listens", &self.listens), ("connects", &self.connects)] {
            for (n, port) in ports.iter().take(MOST_PORTS).enumerate() {
                let _ = if n == 0 { write!(line, " {key}={port}") } else { write!(line, ",{port}") };
            }
        }
        for (n, name) in self.after.iter().take(MOST_NAMES).enumerate() {
            let _ = if n == 0 { write!(line, " after={name}") } else { write!(line, ",{name}") };
        }
        line.push('\n');
        line
    }

    /// Reads a datagram; `None` where it is not one. Words that are not known are left out: a later version may say more.
    pub fn decode(datagram: &[u8]) -> Option<Announcement> {
        let line = datagram.strip_suffix(b"\n").filter(|line| line.len() < LONGEST && line.is_ascii())?;
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        if words.next() != Some(MAGIC) {
            return None;
        }
        let asks = match words.next()? {
            "ask" => true,
            "tell" => false,
            _ => return None,
        };
        let standing = match words.next()? {
            "serving" => Standing::Serving,
            "leaving" => Standing::Leaving,
            _ => return None,
        };
        let mut said =
            Announcement { asks, standing, pod: None, listens: Vec::new(), connects: Vec::new(), after: Vec::new() };
        for word in words {
            match word.split_once('=')? {
                ("pod", value) => said.pod = Some(is_name(value).then(|| value.to_owned())?),
                ("listens", value) => said.listens = ports(value)?,
                ("connects", value) => said.connects = ports(value)?,
                ("after", value) => said.after = names(value)?,
                _ => {}
            }
        }
        Some(said)
    }
}

fn ports(value: &str) -> Option<Vec<u16>> {
    list(value, MOST_PORTS, |text| text.parse().ok().filter(|port| *port > 0))
}

fn names(value: &str) -> Option<Vec<String>> {
    list(value, MOST_NAMES, |text| is_name(text).then(|| text.to_owned()))
}

fn list<T>(value: &str, most: usize, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let found: Vec<T> = value.split(',').take(most + 1).map(read).collect::<Option<_>>()?;
    (found.len() <= most).then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn serving() -> Announcement {
        Announcement {
            asks: false,
            standing: Standing::Serving,
            pod: None,
            listens: Vec::new(),
            connects: Vec::new(),
            after: Vec::new(),
        }
    }

    #[test]
    fn what_it_looks_like() {
        let said = Announcement {
            asks: true,
            standing: Standing::Leaving,
            pod: Some("0b1c".into()),
            listens: vec![8080, 8443],
            connects: vec![3000],
            after: vec!["web".into()],
        };
        let line = "lameduck.pod/1 ask leaving pod=0b1c listens=8080,8443 connects=3000 after=web\n";
        assert_eq!(said.encode(), line);
        assert_eq!(Announcement::decode(line.as_bytes()), Some(said));
        assert_eq!(Announcement::decode(b"lameduck.pod/1 tell serving mood=fine\n"), Some(serving()), "a later word");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "\n",
            "lameduck.pod/1\n",
            "lameduck.pod/1 ask\n",
            "lameduck.pod/1 ask leaving",
            "lameduck.pod/2 ask leaving\n",
            "lameduck.pod/1 ask dancing\n",
            "lameduck.pod/1 ask leaving listens\n",
            "lameduck.pod/1 ask leaving listens=\n",
            "lameduck.pod/1 ask leaving listens=0\n",
            "lameduck.pod/1 ask leaving listens=65536\n",
            "lameduck.pod/1 ask leaving after=a/b\n",
            "lameduck.pod/1 ask leaving after=a\nb\n",
            "lameduck.pod/1 ask leaving pod=\n",
            "GET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(Announcement::decode(bad.as_bytes()), None, "{bad:?}");
        }
        let many = format!("lameduck.pod/1 ask leaving listens=1{}\n", ",1".repeat(MOST_PORTS));
        assert_eq!(Announcement::decode(many.as_bytes()), None);
        let long = format!("lameduck.pod/1 ask leaving x={}\n", "y".repeat(LONGEST));
        assert_eq!(Announcement::decode(long.as_bytes()), None);
    }

    fn name() -> impl Strategy<Value = String> {
        "[A-Za-z0-9][A-Za-z0-9._-]{0,40}"
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
            let _ = Announcement::decode(&bytes);
        }

        #[test]
        fn near_misses_never_panic(text in "lameduck.pod/1 (ask|tell) (serving|leaving)( [a-z]{0,8}=?[0-9a-z,=]{0,12}){0,6}\n?") {
            let _ = Announcement::decode(text.as_bytes());
        }

        /// Whatever can be said fits a datagram and comes back.
        #[test]
        fn what_is_said_is_heard(
            asks in any::<bool>(), leaving in any::<bool>(), pod in prop::option::of(name()),
            listens in prop::collection::vec(1u16.., 0..=MOST_PORTS), connects in prop::collection::vec(1u16.., 0..=20),
            after in prop::collection::vec(name(), 0..=4)
        ) {
            let standing = if leaving { Standing::Leaving } else { Standing::Serving };
            let said = Announcement { asks, standing, pod, listens, connects, after };
            prop_assert_eq!(Announcement::decode(said.encode().as_bytes()), Some(said));
        }
    }
}
