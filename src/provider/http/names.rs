//! Addresses of names. A name is looked up once for all that ask at the same time, on a thread of its own, and what was found is
//! remembered for seconds.
//!
//! The system's resolver blocks, for as long as a silent name server likes, and cannot be stopped. So there is never more than one
//! look-up for a name, and never more than [`LOOKUPS_MAX`] in all; whoever waits gives up on his own. A look-up that takes long is
//! no reason to forget what was known: TLS says whether the right one listens there.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::super::{ErrorKind, ProviderError};

/// Names that are looked up at once: two for each of the providers of a configuration.
const LOOKUPS_MAX: usize = 12;
/// How long an answer counts. Clouds give their names a minute or less.
const FRESH: Duration = Duration::from_secs(10);
/// How long a refusal counts: those who ask at the same time share it.
const REFUSED: Duration = Duration::from_secs(1);
/// After this an older answer is taken instead of waiting on, if there is one that is not older than [`STALE`].
const PATIENCE: Duration = Duration::from_secs(1);
const STALE: Duration = Duration::from_secs(3600);

/// What a look-up gave. The error is its text: it goes to all who wait.
type Found = Result<Arc<[IpAddr]>, Arc<str>>;
/// Asks the system, and blocks.
type Ask = fn(&str) -> io::Result<Vec<IpAddr>>;

#[derive(Default)]
struct Name {
    /// The last look-up that has ended.
    last: Option<(Instant, Found)>,
    /// The last one that found something.
    known: Option<(Instant, Arc<[IpAddr]>)>,
    asking: Option<watch::Receiver<Option<Found>>>,
    /// Where a connection was made last.
    good: Option<IpAddr>,
}

/// Names of all providers.
#[derive(Clone)]
pub(super) struct Names {
    names: Arc<Mutex<HashMap<String, Name>>>,
    ask: Ask,
}

/// Those of this process.
static NAMES: LazyLock<Names> = LazyLock::new(|| Names::new(system));

fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    // The port only fills the place.
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

impl Names {
    pub(super) fn of_process() -> Self {
        NAMES.clone()
    }

    pub(super) fn new(ask: Ask) -> Self {
        Self { names: Arc::default(), ask }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At least one address, in the order in which they are to be tried.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ProviderError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let found = match self.now(host)? {
            Now::Found(found) => found,
            Now::Asking(mut answer, known) => {
                let ended = match known {
                    None => Ok(answer.wait_for(Option::is_some).await),
                    Some(known) => timeout(PATIENCE, answer.wait_for(Option::is_some)).await.map_err(|_| known),
                };
                match ended {
                    Ok(Ok(found)) => found.clone().unwrap_or_else(|| Err("no answer".into())),
                    Ok(Err(_)) => Err("the look-up was given up".into()),
                    Err(known) => Ok(known),
                }
            }
        };
        let unknown = |why: &str| ProviderError::new(ErrorKind::Away, format!("the name {host} has no address: {why}"));
        let addresses = found.map_err(|why| unknown(&why))?;
        if addresses.is_empty() {
            return Err(unknown("the answer is empty"));
        }
        let good = self.names().get(host).and_then(|name| name.good);
        Ok(in_order(&addresses, good))
    }

    /// A connection was made to this address of the name: it is tried first next time.
    pub(super) fn remember(&self, host: &str, address: IpAddr) {
        if let Some(name) = self.names().get_mut(host) {
            name.good = Some(address);
        }
    }

    /// What is known, or the look-up that is under way or begins here.
    fn now(&self, host: &str) -> Result<Now, ProviderError> {
        let mut names = self.names();
        let under_way = names.values().filter(|name| name.asking.is_some()).count();
        let name = names.entry(host.to_owned()).or_default();
        let known = name.known.clone().filter(|(at, _)| at.elapsed() < STALE).map(|(_, known)| known);
        if let Some(asking) = &name.asking {
            return Ok(Now::Asking(asking.clone(), known));
        }
        if let Some((at, found)) = &name.last
            && at.elapsed() < if found.is_ok() { FRESH } else { REFUSED }
        {
            return Ok(Now::Found(found.clone()));
        }
        if under_way >= LOOKUPS_MAX {
            return known.map(|known| Now::Found(Ok(known))).ok_or_else(|| busy(host));
        }
        let (tell, answer) = watch::channel(None);
        name.asking = Some(answer.clone());
        drop(names);
        let (own, asked) = (self.clone(), host.to_owned());
        let work = move || {
            let found = (own.ask)(&asked).map(Arc::from).map_err(|error| Arc::from(error.to_string()));
            own.ended(&asked, &found);
            // Nobody may wait any more.
            let _ = tell.send(Some(found));
        };
        if thread::Builder::new().name("name".into()).spawn(work).is_err() {
            self.names().entry(host.to_owned()).or_default().asking = None;
            return known.map(|known| Now::Found(Ok(known))).ok_or_else(|| busy(host));
        }
        Ok(Now::Asking(answer, known))
    }

    fn ended(&self, host: &str, found: &Found) {
        let mut names = self.names();
        let name = names.entry(host.to_owned()).or_default();
        let now = Instant::now();
        name.asking = None;
        name.last = Some((now, found.clone()));
        if let Ok(addresses) = found {
            name.known = Some((now, addresses.clone()));
        }
    }
}

enum Now {
    Found(Found),
    /// With what was known before.
    Asking(watch::Receiver<Option<Found>>, Option<Arc<[IpAddr]>>),
}

fn busy(host: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Away, format!("the name {host} cannot be looked up: too many look-ups are under way"))
}

/// RFC 8305 §4: the system's order (RFC 6724), and the two families by turns from the first one's on. What was good last comes first.
fn in_order(found: &[IpAddr], good: Option<IpAddr>) -> Vec<IpAddr> {
    let is_first_family = |address: &&IpAddr| found.first().is_some_and(|first| first.is_ipv6() == address.is_ipv6());
    let (first, second): (Vec<_>, Vec<_>) = found.iter().partition(is_first_family);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::with_capacity(found.len());
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            break;
        }
        order.extend(one.into_iter().chain(other).copied());
    }
    // A name may stand there once for each kind of socket.
    let mut seen = std::collections::HashSet::new();
    order.retain(|address| seen.insert(*address));
    if let Some(at) = good.and_then(|good| order.iter().position(|address| *address == good)) {
        let good = order.remove(at);
        order.insert(0, good);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn all(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_what_was_good_comes_first() {
        let found = all(&["2001:db8::1", "2001:db8::2", "2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        let turns = all(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]);
        assert_eq!(in_order(&found, None), turns);
        let good = all(&["192.0.2.2", "2001:db8::1", "192.0.2.1", "2001:db8::2"]);
        assert_eq!(in_order(&found, Some(good[0])), good);
        assert_eq!(in_order(&found, Some("192.0.2.9".parse().unwrap())), turns);
    }

    #[tokio::test]
    async fn a_silent_name_server_keeps_one_thread_for_a_name_and_a_bounded_number_in_all() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let names = Names::new(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            loop {
                thread::park();
            }
        });
        let wait = Duration::from_millis(20);
        for _ in 0..20 {
            assert!(timeout(wait, names.addresses("silent.test")).await.is_err());
        }
        for other in 0..100 {
            let asked = timeout(wait, names.addresses(&format!("{other}.test"))).await;
            let refused = asked.ok().map(|answer| answer.err().map(|error| error.kind()));
            assert_eq!(refused, (other >= LOOKUPS_MAX - 1).then_some(Some(ErrorKind::Away)));
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), LOOKUPS_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_seconds_and_serves_on_when_the_next_one_does_not_come() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let names = Names::new(|_| match ASKED.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(vec!["192.0.2.1".parse().unwrap()]),
            _ => loop {
                thread::park();
            },
        });
        let known = all(&["192.0.2.1"]);
        assert_eq!(names.addresses("a.test").await.unwrap(), known);
        assert_eq!(names.addresses("a.test").await.unwrap(), known);
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        tokio::time::advance(FRESH).await;
        assert_eq!(names.addresses("a.test").await.unwrap(), known, "the second look-up hangs");
        tokio::time::advance(STALE).await;
        assert!(timeout(PATIENCE * 10, names.addresses("a.test")).await.is_err());
        assert!(ASKED.load(Ordering::SeqCst) <= 2);
    }
}
