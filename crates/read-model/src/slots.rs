//! Which slot a key is in, and which node has it.

use std::ops::RangeInclusive;

use redis::{ConnectionAddr, ErrorKind, RedisResult, Value};

/// What a cluster is divided into.
const SLOTS: u16 = 16_384;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Slots that lie side by side, with the nodes that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotRange {
    pub(crate) slots: RangeInclusive<u16>,
    pub(crate) master: Address,
    pub(crate) replicas: Vec<Address>,
}

impl SlotRange {
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Address> {
        [&self.master].into_iter().chain(&self.replicas)
    }
}

impl Address {
    /// An address in a redirection. One without a host means the host that sent it.
    pub(crate) fn read(text: &str, sender: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() { sender } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// Reached in the same way as another.
    pub(crate) fn beside(&self, other: &ConnectionAddr) -> ConnectionAddr {
        let (host, port) = (self.host.clone(), self.port);
        if let ConnectionAddr::TcpTls { insecure, tls_params, .. } = other {
            let (insecure, tls_params) = (*insecure, tls_params.clone());
            return ConnectionAddr::TcpTls { host, port, insecure, tls_params };
        }
        ConnectionAddr::Tcp(host, port)
    }
}

pub(crate) fn address_of(place: &ConnectionAddr) -> Option<Address> {
    let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = place
    else {
        return None;
    };
    Some(Address { host: host.clone(), port: *port })
}

/// The slot of a key: of its hash tag, if it has one.
pub(crate) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// The answer to `CLUSTER SLOTS`.
pub(crate) fn read_slots(answer: Value, sender: &str) -> RedisResult<Vec<SlotRange>> {
    let answer = answer.extract_error()?;
    let ranges = answer.as_sequence().and_then(|ranges| {
        ranges.iter().map(|range| slot_range(range, sender)).collect::<Option<Vec<_>>>()
    });
    // A node that was taken out of the cluster knows of no slots.
    let ranges = ranges.filter(|ranges| !ranges.is_empty());
    ranges.ok_or_else(|| (ErrorKind::Parse, "a node cannot tell who has which slot").into())
}

fn slot_range(range: &Value, sender: &str) -> Option<SlotRange> {
    let Value::Array(range) = range else { return None };
    let [Value::Int(first), Value::Int(last), master, replicas @ ..] = &range[..] else {
        return None;
    };
    let node = |node: &Value| {
        let Value::Array(node) = node else { return None };
        let [host, Value::Int(port), ..] = &node[..] else { return None };
        let Ok(host) = redis::from_redis_value_ref::<Option<String>>(host) else { return None };
        let host = host.unwrap_or_default();
        // It does not know its own name.
        let host = if host.is_empty() || host == "?" { sender.to_owned() } else { host };
        Some(Address { host, port: u16::try_from(*port).ok()? })
    };
    Some(SlotRange {
        slots: u16::try_from(*first).ok()?..=u16::try_from(*last).ok()?,
        master: node(master)?,
        replicas: replicas.iter().filter_map(node).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of("foo"), 12_182);
        assert_eq!(slot_of("{foo}bar"), 12_182);
        assert_eq!(slot_of("a{foo}{bar}"), 12_182);
        assert_eq!(slot_of("{}foo"), crc16(b"{}foo") % SLOTS);
        assert_eq!(slot_of("{foo"), crc16(b"{foo") % SLOTS);
    }

    #[test]
    fn a_node_may_leave_out_its_own_host() {
        let text = |text: &str| Value::BulkString(text.into());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let nodes = [node(text(""), 7000), node(Value::Nil, 7001), node(text("b"), 7002)];
        let range = [Value::Int(0), Value::Int(5460)].into_iter().chain(nodes).collect();
        let found = read_slots(Value::Array(vec![Value::Array(range)]), "a").unwrap();
        assert_eq!(found[0].slots, 0..=5460);
        let nodes: Vec<String> =
            found[0].nodes().map(|n| format!("{}:{}", n.host, n.port)).collect();
        assert_eq!(nodes, ["a:7000", "a:7001", "b:7002"]);
        assert_eq!(Address::read(":7000", "a").unwrap().host, "a");
        assert!(read_slots(Value::Array(vec![]), "a").is_err());
    }
}
