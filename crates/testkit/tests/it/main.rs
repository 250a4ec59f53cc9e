//! The servers and wires that other tests rely on do what they say.

mod proxies;
mod servers;
mod shared;
