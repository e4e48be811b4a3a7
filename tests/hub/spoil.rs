//! What can become of an honest reply.

use crate::server::{Fault, Reply};
use crate::world::{SMALL, content};
use std::sync::Arc;
use std::time::Duration;

pub fn edit(fault: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Fault {
    Arc::new(move |_, reply| fault(reply))
}

pub fn status(status: u16) -> Fault {
    edit(move |_| Reply::new(status, "no"))
}

pub fn status_with(status: u16, name: &'static str, value: &'static str) -> Fault {
    edit(move |_| Reply::new(status, "no").with(name, value))
}

pub fn header(name: &'static str, value: &'static str) -> Fault {
    edit(move |reply| reply.with(name, value))
}

pub fn without(name: &'static str) -> Fault {
    edit(move |reply| reply.without(name))
}

/// The body ends before this byte of the file.
pub fn cut(at: usize) -> Fault {
    Arc::new(move |request, reply| {
        let sent = at.saturating_sub(request.start().unwrap_or(0));
        Reply { sent: Some(sent), ..reply }
    })
}

pub fn silence(after: Option<usize>) -> Fault {
    let pause = Duration::from_millis(600);
    edit(move |reply| Reply { sent: after, silent: after.is_none(), pause, ..reply })
}

/// Before the headers, or behind them.
pub fn reset(silent: bool) -> Fault {
    edit(move |reply| Reply { sent: Some(0), silent, reset: true, ..reply })
}

/// The whole file with one bit turned, whatever was asked.
pub fn damaged() -> Fault {
    edit(|reply| {
        let mut body = reply.body.clone();
        body[77] ^= 1;
        Reply { body, ..reply }
    })
}

/// The whole file and status 200, whatever range was asked for.
pub fn whole() -> Fault {
    edit(|_| Reply::new(200, content(SMALL)))
}

/// The body by so many bytes longer, or shorter, and its length as it is then.
pub fn longer(by: isize) -> Fault {
    edit(move |reply| {
        let reply = longer_body(reply, by);
        let length = reply.body.len().to_string();
        reply.with("content-length", &length)
    })
}

pub fn longer_body(reply: Reply, by: isize) -> Reply {
    let mut body = reply.body.clone();
    body.resize(body.len().saturating_add_signed(by), 0);
    Reply { body, ..reply }
}
