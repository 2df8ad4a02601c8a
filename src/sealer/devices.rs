//! All device engines of this machine behind one question each: a new seal names its device, an old one carries its maker's mark.

use super::{Counters, Importer, Sealer, SharedKeys};
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::protocol::{DeviceBlob, Request, Response};
use crate::types::Backend;

/// The engines that the configuration and this build have. Nothing is touched before the first question.
#[derive(Default)]
pub struct Devices(Vec<(Backend, Box<dyn Sealer>)>);

impl Devices {
    /// With one more engine, which answers for its kind.
    #[must_use]
    pub fn with(mut self, backend: Backend, sealer: Box<dyn Sealer>) -> Self {
        self.0.push((backend, sealer));
        self
    }

    /// Answers one question.
    pub fn answer(&mut self, request: Request) -> Response {
        self.try_answer(request).unwrap_or_else(Response::Fault)
    }

    fn try_answer(&mut self, request: Request) -> Result<Response, Fault> {
        match request {
            Request::Counter { step, index, auth, pin } => {
                self.counters()?.count(step, index, &auth, pin.as_ref()).map(Response::Counted)
            }
            Request::Describe(backend) => self.engine(backend)?.describe().map(Response::Described),
            Request::Import { auth, duplicate, pin } => {
                self.importer()?.import(&duplicate, &auth, pin.as_ref()).map(Response::Unsealed)
            }
            Request::Parent { pin } => self.importer()?.parent(pin.as_ref()).map(Response::Parent),
            Request::Seal { to, auth, secret, pin } => {
                self.engine(to.backend())?.seal(&secret, &auth, &to.policy(), pin.as_ref()).map(Response::Sealed)
            }
            Request::SharedKey { key, make } => self.shared()?.find(&key, make).map(Response::SharedKey),
            Request::Unseal { auth, blob } => self.engine(maker(&blob)?)?.unseal(&blob, &auth).map(Response::Unsealed),
            Request::Unwrap { key, auth, blob } => self.shared()?.unwrap(&key, &auth, &blob).map(Response::Unsealed),
            Request::Wrap { key, auth, secret } => {
                let (key, blob) = self.shared()?.wrap(&key, &auth, &secret)?;
                Ok(Response::Wrapped { key, blob })
            }
        }
    }

    fn engine(&mut self, backend: Backend) -> Result<&mut dyn Sealer, Fault> {
        match self.0.iter_mut().find(|(kind, _)| *kind == backend) {
            Some((_, sealer)) => Ok(&mut **sealer),
            None => Err(Fault::new(FaultCode::NotCompiledIn, backend.label())),
        }
    }

    fn counters(&mut self) -> Result<&mut dyn Counters, Fault> {
        self.engine(Backend::Tpm2)?.counters().ok_or_else(|| Fault::new(FaultCode::NotCompiledIn, "counters"))
    }

    fn shared(&mut self) -> Result<&mut dyn SharedKeys, Fault> {
        self.engine(Backend::Pkcs11)?.shared().ok_or_else(|| Fault::new(FaultCode::NotCompiledIn, "shared keys"))
    }

    fn importer(&mut self) -> Result<&mut dyn Importer, Fault> {
        self.engine(Backend::Tpm2)?.importer().ok_or_else(|| Fault::new(FaultCode::NotCompiledIn, "import"))
    }
}

fn maker(blob: &DeviceBlob) -> Result<Backend, Fault> {
    blob.backend().ok_or_else(|| Fault::new(FaultCode::Format, "the first bytes are of no device engine"))
}
