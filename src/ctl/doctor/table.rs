//! The table of all checks. A number is never given twice: what is removed leaves a gap.

use super::check::Check;
use super::{general, node, platform};

/// In the order in which they run and are shown. Those that ask the device are the last: for them root may become another user.
pub(super) fn all() -> Vec<&'static Check> {
    let groups: &[&'static [Check]] = &[
        general::CHECKS,
        platform::CHECKS,
        node::CHECKS,
        #[cfg(feature = "etcd")]
        super::kubernetes::CHECKS,
        platform::DEVICE_CHECKS,
    ];
    groups.iter().copied().flatten().collect()
}
