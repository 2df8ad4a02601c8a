//! Where connections and logins are made: the runtime in which a provider was opened. A call may come from another one (mode "direct":
//! the API's), which then has neither handshakes nor files to do, and which can end or be dropped without stopping any of it half-way.

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// The runtime in which a provider was opened; that of each call where it was opened in none.
#[derive(Clone)]
pub(super) struct Home(Option<Handle>);

impl Home {
    /// The runtime of the caller.
    pub(super) fn here() -> Self {
        Self(Handle::try_current().ok())
    }

    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        match &self.0 {
            Some(home) => home.spawn(work),
            None => tokio::spawn(work),
        }
    }

    /// Whether a call that is made in `here` is made at home.
    pub(super) fn is(&self, here: &Handle) -> bool {
        self.0.as_ref().is_some_and(|home| home.id() == here.id())
    }
}
