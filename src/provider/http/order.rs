//! In which order the addresses of a name are tried: the one that answered last, then those of which nothing bad is known (RFC 8305 §4),
//! then those that take long and may answer yet, then those that have failed.
//!
//! Only an answer to a request counts as one. A server that shakes hands may be sealed, or hang.

use std::collections::HashSet;
use std::net::IpAddr;

/// Addresses of one name that are remembered as failed, and as doubtful. A name with more is balanced by its name server.
const REMEMBERED_MAX: usize = super::race::ADDRESSES_MAX;

/// What was seen of the addresses of one name and port. Without a limit of time: all of them are tried, and one that has failed waits for the
/// next one to fail.
#[derive(Default)]
pub(super) struct Order {
    good: Option<IpAddr>,
    /// They have not answered yet what they were asked, and that takes long. The one of the last doubt is the last.
    doubtful: Vec<IpAddr>,
    /// The one that failed last is the last.
    failed: Vec<IpAddr>,
}

impl Order {
    /// It has answered a request.
    pub(super) fn answered(&mut self, address: IpAddr) {
        self.forget(address);
        self.good = Some(address);
    }

    /// It takes long to answer one. One that has failed stays that.
    pub(super) fn doubted(&mut self, address: IpAddr) {
        if !self.failed.contains(&address) {
            self.forget(address);
            push(&mut self.doubtful, address);
        }
    }

    /// It has not, or its server cannot serve.
    pub(super) fn failed(&mut self, address: IpAddr) {
        self.forget(address);
        push(&mut self.failed, address);
    }

    /// Whether nothing bad is known of it.
    pub(super) fn is_well(&self, address: IpAddr) -> bool {
        !self.failed.contains(&address) && !self.doubtful.contains(&address)
    }

    fn forget(&mut self, address: IpAddr) {
        self.good.take_if(|good| *good == address);
        self.doubtful.retain(|doubtful| *doubtful != address);
        self.failed.retain(|failed| *failed != address);
    }

    /// The system's order (RFC 6724), and the two families by turns from the first one's on; what failed last comes last.
    pub(super) fn of(&self, found: &[IpAddr]) -> Vec<IpAddr> {
        let is_first_family =
            |address: &&IpAddr| found.first().is_some_and(|first| first.is_ipv6() == address.is_ipv6());
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
        let mut seen = HashSet::new();
        order.retain(|address| seen.insert(*address));
        // Stable: `None` is before each `Some`.
        let place = |of: &[IpAddr], address: &IpAddr| of.iter().position(|other| other == address);
        order.sort_by_key(|address| (place(&self.failed, address), place(&self.doubtful, address)));
        if let Some(at) = self.good.and_then(|good| order.iter().position(|address| *address == good)) {
            order[..=at].rotate_right(1);
        }
        order
    }
}

fn push(into: &mut Vec<IpAddr>, address: IpAddr) {
    into.push(address);
    if into.len() > REMEMBERED_MAX {
        into.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_what_answered_comes_first() {
        let found = all(&["2001:db8::1", "2001:db8::2", "2001:db8::1", "192.0.2.1", "192.0.2.2"]);
        let turns = all(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]);
        let mut order = Order::default();
        assert_eq!(order.of(&found), turns);
        order.answered("192.0.2.9".parse().unwrap());
        assert_eq!(order.of(&found), turns);
        let good = all(&["192.0.2.2", "2001:db8::1", "192.0.2.1", "2001:db8::2"]);
        order.answered(good[0]);
        assert_eq!(order.of(&found), good);
    }

    #[test]
    fn what_failed_comes_last_until_it_answers_and_nothing_is_left_out() {
        let found = all(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let mut order = Order::default();
        order.answered(found[0]);
        order.failed(found[0]);
        assert_eq!(order.of(&found), all(&["192.0.2.2", "192.0.2.3", "192.0.2.1"]));
        order.failed(found[1]);
        assert_eq!(order.of(&found), all(&["192.0.2.3", "192.0.2.1", "192.0.2.2"]));
        order.failed(found[2]);
        order.failed(found[0]);
        assert_eq!(order.of(&found), all(&["192.0.2.2", "192.0.2.3", "192.0.2.1"]));
        order.answered(found[0]);
        assert_eq!(order.of(&found), all(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]));
        for other in 0..=255 {
            order.failed([198, 51, 100, other].into());
        }
        assert!(order.failed.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn what_takes_long_comes_before_what_has_failed_and_after_everything_else() {
        let found = all(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let mut order = Order::default();
        order.answered(found[0]);
        order.failed(found[1]);
        order.doubted(found[0]);
        assert_eq!(order.of(&found), all(&["192.0.2.3", "192.0.2.1", "192.0.2.2"]));
        order.doubted(found[1]);
        order.failed(found[2]);
        assert_eq!(order.of(&found), all(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]), "one that failed stays so");
        for other in 0..=255 {
            order.doubted([198, 51, 100, other].into());
        }
        assert!(order.doubtful.len() <= REMEMBERED_MAX);
    }
}
