//! What the status says of a clock.

use super::*;
use crate::types::clock::EARLIEST;

const MADE: u64 = EARLIEST + 100 * DAY;

#[test]
fn a_clock_behind_the_birth_of_a_kek_or_behind_this_release_is_doubted_and_a_later_one_is_not() {
    let node = Node::new();
    node.init(MADE).unwrap();
    for (now, is_doubted) in [
        ((|| 0) as fn() -> u64, true),
        (|| MADE - 2 * DAY, true),
        // Two machines, or a correction of the clock.
        (|| MADE - DAY, false),
        (|| MADE + 10 * DAY, false),
    ] {
        let running = node.start(now);
        // Waits until the keys are open.
        running.key_id();
        assert_eq!(running.handle.overview().unwrap().is_clock_doubted, is_doubted, "at {}", now());
    }
}
