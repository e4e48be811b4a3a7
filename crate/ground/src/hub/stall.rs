//! A limit for each wait of a connection.
//!
//! ureq limits the time of a whole body, which a large file on a slow line must exceed. But no
//! transfer may hang, so each single wait is limited here.

use std::time::Duration;
use ureq::Timeout;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, Transport, time,
};

/// Wraps every connection that it is handed in a [`Patient`].
#[derive(Debug)]
pub(super) struct StallLimit(pub Duration);

impl<In: Transport> Connector<In> for StallLimit {
    type Out = Patient<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Patient<In>>, ureq::Error> {
        Ok(chained.map(|inner| Patient { inner, limit: self.0 }))
    }
}

/// A connection in which no read or write takes longer than the limit; only an answer may take as
/// long as its request allows.
#[derive(Debug)]
pub(super) struct Patient<T> {
    inner: T,
    limit: Duration,
}

impl<T> Patient<T> {
    fn at_most(&self, timeout: NextTimeout) -> NextTimeout {
        // Some requests allow more for their answer; the others have no such limit.
        if timeout.reason == Timeout::RecvResponse {
            return timeout;
        }
        let after = (*timeout.after).min(self.limit);
        NextTimeout { after: time::Duration::Exact(after), reason: timeout.reason }
    }
}

impl<T: Transport> Transport for Patient<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.inner.transmit_output(amount, self.at_most(timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(self.at_most(timeout))
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
