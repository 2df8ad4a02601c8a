//! Addresses of names. A name is looked up once for all that ask at the same time, on a thread of its own, and what was found is
//! remembered for seconds.
//!
//! The system's resolver blocks, for as long as a silent name server likes, and cannot be stopped. So there is never more than one
//! look-up for a name, and never more than [`LOOKUPS_MAX`] in all; whoever waits gives up on his own. A look-up that takes long or
//! fails is no reason to forget what was known: TLS says whether the right one listens there.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::super::{ErrorKind, ProviderError};
use super::order::Order;
use crate::types::lock;

/// Names that are looked up at once: two for each of the providers of a configuration.
const LOOKUPS_MAX: usize = 12;
/// How long an answer counts. Clouds give their names a minute or less.
const FRESH: Duration = Duration::from_secs(10);
/// How long a refusal counts: those who ask at the same time share it.
const REFUSED: Duration = Duration::from_secs(1);
/// When a look-up has taken this long, an older answer is taken instead of waiting on, if there is one that is not older than [`STALE`]. A
/// fraction of an attempt (800 ms), whose connection is still to be made.
const PATIENCE: Duration = Duration::from_millis(150);
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
    asking: Option<Asking>,
}

/// A look-up that is under way.
#[derive(Clone)]
struct Asking {
    since: Instant,
    answer: watch::Receiver<Option<Found>>,
}

#[derive(Default)]
struct Book {
    names: HashMap<String, Name>,
    /// By name and port: each port is another server.
    orders: HashMap<(String, u16), Order>,
}

/// Names of all providers.
#[derive(Clone)]
pub(super) struct Names {
    book: Arc<Mutex<Book>>,
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
        Self { book: Arc::default(), ask }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock::lock(&self.book)
    }

    /// At least one address, in the order in which they are to be tried.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<IpAddr>, ProviderError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let (found, known) = match self.now(host)? {
            Now::Found(found, known) => (found, known),
            Now::Asking(asking, known) => (asking.end(known.is_some()).await, known),
        };
        let found = match (found, known) {
            (Ok(found), _) => found,
            (Err(_), Some(known)) => known,
            (Err(why), None) => {
                return Err(ProviderError::new(ErrorKind::Away, format!("the name {host} has no address: {why}")));
            }
        };
        let book = self.book();
        let order = book.orders.get(&(host.to_owned(), port));
        Ok(order.unwrap_or(&Order::default()).of(&found))
    }

    /// This address has answered a request: it is tried first next time.
    pub(super) fn answered(&self, host: &str, port: u16, address: IpAddr) {
        self.book().orders.entry((host.to_owned(), port)).or_default().answered(address);
    }

    /// It has not, or its server cannot serve: it is tried last next time.
    pub(super) fn failed(&self, host: &str, port: u16, address: IpAddr) {
        self.book().orders.entry((host.to_owned(), port)).or_default().failed(address);
    }

    /// It takes long to answer one. Says whether the name has another of which nothing bad is known, which is tried before it then.
    pub(super) fn doubted(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let book = &mut *self.book();
        let order = book.orders.entry((host.to_owned(), port)).or_default();
        order.doubted(address);
        let known = book.names.get(host).and_then(|name| name.known.as_ref());
        known.is_some_and(|(_, known)| known.iter().any(|other| *other != address && order.is_well(*other)))
    }

    /// What is known, or the look-up that is under way or begins here.
    fn now(&self, host: &str) -> Result<Now, ProviderError> {
        let mut book = self.book();
        let names = &mut book.names;
        let under_way = names.values().filter(|name| name.asking.is_some()).count();
        let name = names.entry(host.to_owned()).or_default();
        let known = name.known.clone().filter(|(at, _)| at.elapsed() < STALE).map(|(_, known)| known);
        if let Some(asking) = &name.asking {
            return Ok(Now::Asking(asking.clone(), known));
        }
        if let Some((at, found)) = &name.last
            && at.elapsed() < if found.is_ok() { FRESH } else { REFUSED }
        {
            return Ok(Now::Found(found.clone(), known));
        }
        if under_way >= LOOKUPS_MAX {
            return known.map(|known| Now::Found(Ok(known), None)).ok_or_else(|| busy(host));
        }
        let (tell, answer) = watch::channel(None);
        let asking = Asking { since: Instant::now(), answer };
        name.asking = Some(asking.clone());
        drop(book);
        let (own, asked) = (self.clone(), host.to_owned());
        let work = move || {
            let found = match (own.ask)(&asked) {
                Ok(found) if found.is_empty() => Err(Arc::from("the answer is empty")),
                Ok(found) => Ok(Arc::from(found)),
                Err(error) => Err(Arc::from(error.to_string())),
            };
            own.ended(&asked, &found);
            // Nobody may wait any more.
            let _ = tell.send(Some(found));
        };
        if thread::Builder::new().name("name".into()).spawn(work).is_err() {
            self.book().names.entry(host.to_owned()).or_default().asking = None;
            return known.map(|known| Now::Found(Ok(known), None)).ok_or_else(|| busy(host));
        }
        Ok(Now::Asking(asking, known))
    }

    fn ended(&self, host: &str, found: &Found) {
        let mut book = self.book();
        let name = book.names.entry(host.to_owned()).or_default();
        let now = Instant::now();
        name.asking = None;
        name.last = Some((now, found.clone()));
        if let Ok(addresses) = found {
            name.known = Some((now, addresses.clone()));
        }
    }
}

impl Asking {
    /// What it gives, or an error when it takes long and `is_known` says that there is something else.
    async fn end(mut self, is_known: bool) -> Found {
        let answer = self.answer.wait_for(Option::is_some);
        let ended = match is_known {
            true => timeout_at(self.since + PATIENCE, answer).await.map_err(|_| "no answer in time")?,
            false => answer.await,
        };
        ended.map_err(|_| "the look-up was given up")?.clone().unwrap_or_else(|| Err("no answer".into()))
    }
}

/// Each with what was known before.
enum Now {
    Found(Found, Option<Arc<[IpAddr]>>),
    Asking(Asking, Option<Arc<[IpAddr]>>),
}

fn busy(host: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Away, format!("the name {host} cannot be looked up: too many look-ups are under way"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::timeout;

    use super::*;

    fn all(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
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
            assert!(timeout(wait, names.addresses("silent.test", 443)).await.is_err());
        }
        for other in 0..100 {
            let asked = timeout(wait, names.addresses(&format!("{other}.test"), 443)).await;
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
        assert_eq!(names.addresses("a.test", 443).await.unwrap(), known);
        assert_eq!(names.addresses("a.test", 443).await.unwrap(), known);
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        tokio::time::advance(FRESH).await;
        assert_eq!(names.addresses("a.test", 443).await.unwrap(), known, "the second look-up hangs");
        tokio::time::advance(STALE).await;
        assert!(timeout(PATIENCE * 10, names.addresses("a.test", 443)).await.is_err());
        assert!(ASKED.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn a_name_server_that_answers_with_a_failure_or_with_nothing_takes_away_nothing_that_was_known() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let names = Names::new(|_| match ASKED.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(vec!["192.0.2.1".parse().unwrap()]),
            1 => Err(io::Error::other("temporary failure in name resolution")),
            _ => Ok(Vec::new()),
        });
        let known = all(&["192.0.2.1"]);
        let expire = || {
            let mut book = names.book();
            let last = book.names.get_mut("a.test").unwrap().last.as_mut().unwrap();
            last.0 = last.0.checked_sub(FRESH).unwrap();
        };
        assert_eq!(names.addresses("a.test", 443).await.unwrap(), known);
        for asked in [2, 3] {
            expire();
            assert_eq!(names.addresses("a.test", 443).await.unwrap(), known, "the look-up that fails");
            assert_eq!(names.addresses("a.test", 443).await.unwrap(), known, "its answer, which is shared");
            assert_eq!(ASKED.load(Ordering::SeqCst), asked);
        }
        names.book().names.get_mut("a.test").unwrap().known = None;
        let error = names.addresses("a.test", 443).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Away, "{error:?}");
    }

    #[tokio::test]
    async fn what_was_seen_of_an_address_is_of_one_port() {
        let names = Names::new(|_| Ok(all(&["192.0.2.1", "192.0.2.2"])));
        let (one, other) = (all(&["192.0.2.1", "192.0.2.2"]), all(&["192.0.2.2", "192.0.2.1"]));
        assert_eq!(names.addresses("a.test", 443).await.unwrap(), one);
        assert!(names.doubted("a.test", 443, one[0]));
        names.failed("a.test", 443, one[0]);
        assert_eq!(names.addresses("a.test", 443).await.unwrap(), other);
        assert_eq!(names.addresses("a.test", 8200).await.unwrap(), one);
        names.answered("a.test", 8200, one[1]);
        assert_eq!(names.addresses("a.test", 8200).await.unwrap(), other);
    }
}
