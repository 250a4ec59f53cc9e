//! Ports on loopback: finding a free one, and refusing a taken one in words that help.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

/// A port nobody listens on, and nobody else in this process was given: whoever asks for one takes a
/// while until it listens there, and other tests ask meanwhile.
///
/// It lies below the range from which the system takes ports for outgoing connections, so that it
/// is still free when a server that was killed comes back to it.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..1000 {
        let random = uuid::Uuid::new_v4().as_u128();
        let port = u16::try_from(20_000 + random % 12_000).context("while choosing a port")?;
        if is_free(port) && given.insert(port) {
            return Ok(port);
        }
    }
    bail!("no port between 20000 and 32000 is free")
}

/// Fails if somebody listens on `port`, naming the setting by which another can be chosen.
pub fn require_free(port: u16, purpose: &str, setting: &str) -> Result<()> {
    if !is_free(port) {
        bail!("port {port}, meant for {purpose}, is taken; set {setting} to another");
    }
    Ok(())
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// `port`, or a free one in place of 0.
pub(crate) fn or_free(port: u16) -> Result<u16> {
    if port == 0 { free_port() } else { Ok(port) }
}
