//! The names of what the verbs answer under `--json`. docs/operations/json.md says which fields each has; a change that takes a field
//! away or gives it another meaning is another number.

/// Name of a schema, as it stands in the field `schema`.
pub(super) type Schema = &'static str;

pub(super) const BUNDLE_ACCEPT: Schema = "nodeseal.bundle-accept/1";
pub(super) const BUNDLE_MAKE: Schema = "nodeseal.bundle-make/1";
pub(super) const BUNDLE_REQUEST: Schema = "nodeseal.bundle-request/1";
pub(super) const BUNDLE_SHOW: Schema = "nodeseal.bundle-show/1";
pub(super) const CONFIG_CHECK: Schema = "nodeseal.config-check/1";
pub(super) const CONFIG_SHOW: Schema = "nodeseal.config-show/1";
pub(super) const CREDENTIALS_LIST: Schema = "nodeseal.credentials-list/1";
pub(super) const CREDENTIALS_REMOVE: Schema = "nodeseal.credentials-remove/1";
pub(super) const CREDENTIALS_SEAL: Schema = "nodeseal.credentials-seal/1";
pub(super) const DEV: Schema = "nodeseal.dev/1";
pub(super) const DOCTOR: Schema = "nodeseal.doctor/1";
pub(super) const ERROR: Schema = "nodeseal.error/1";
#[cfg(feature = "etcd")]
pub(super) const ETCD_SCAN: Schema = "nodeseal.etcd-scan/1";
#[cfg(feature = "etcd")]
pub(super) const ETCD_TRIAGE: Schema = "nodeseal.etcd-triage/1";
pub(super) const INIT: Schema = "nodeseal.init/1";
pub(super) const KEYS_ACTIVATE: Schema = "nodeseal.keys-activate/1";
pub(super) const KEYS_LIST: Schema = "nodeseal.keys-list/1";
pub(super) const KEYS_RETIRE: Schema = "nodeseal.keys-retire/1";
pub(super) const KEYS_ROTATE: Schema = "nodeseal.keys-rotate/1";
pub(super) const KEYS_SHOW: Schema = "nodeseal.keys-show/1";
pub(super) const KEYS_WINDOWS: Schema = "nodeseal.keys-windows/1";
pub(super) const MEMBERS_ADD: Schema = "nodeseal.members-add/1";
pub(super) const MEMBERS_IDENTITY: Schema = "nodeseal.members-identity/1";
pub(super) const MEMBERS_LIST: Schema = "nodeseal.members-list/1";
pub(super) const MEMBERS_REMOVE: Schema = "nodeseal.members-remove/1";
pub(super) const METRICS: Schema = "nodeseal.metrics/1";
#[cfg(feature = "etcd")]
pub(super) const MIGRATE_PLAN: Schema = "nodeseal.migrate-plan/1";
#[cfg(feature = "etcd")]
pub(super) const MIGRATE_RUN: Schema = "nodeseal.migrate-run/1";
#[cfg(feature = "etcd")]
pub(super) const MIGRATE_STEPS: Schema = "nodeseal.migrate-steps/1";
#[cfg(feature = "etcd")]
pub(super) const MIGRATE_STATUS: Schema = "nodeseal.migrate-status/1";
#[cfg(feature = "etcd")]
pub(super) const MIGRATE_STOP: Schema = "nodeseal.migrate-stop/1";
pub(super) const RECEIPT: Schema = "nodeseal.receipt/1";
pub(super) const RECOVER: Schema = "nodeseal.recover/1";
pub(super) const RECOVER_ABORT: Schema = "nodeseal.recover-abort/1";
#[cfg(feature = "etcd")]
pub(super) const RECOVER_REHEARSE: Schema = "nodeseal.recover-rehearse/1";
pub(super) const RECOVER_RESTORE: Schema = "nodeseal.recover-restore/1";
pub(super) const RECOVER_VERIFY: Schema = "nodeseal.recover-verify/1";
pub(super) const RELOAD: Schema = "nodeseal.reload/1";
pub(super) const RESEAL: Schema = "nodeseal.reseal/1";
pub(super) const ROTATE_ROOT: Schema = "nodeseal.rotate-root/1";
pub(super) const SETUP: Schema = "nodeseal.setup/1";
pub(super) const SETUP_CHECK: Schema = "nodeseal.setup-check/1";
pub(super) const STATUS: Schema = "nodeseal.status/1";
pub(super) const VERSION: Schema = "nodeseal.version/1";
