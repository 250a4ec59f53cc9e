//! A wire that can be cut: a TCP proxy on loopback in front of a server.
//!
//! It runs on a thread of its own, so a test that blocks does not hold up the bytes, and its orders
//! have been carried out when they return.

use std::{fmt, io, net::SocketAddr, sync::mpsc as answers, thread, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::ports;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Whole,
    Stalled,
    Cut,
}

type Order = (Wire, answers::Sender<()>);

/// A proxy in front of a server. Dropping it cuts everything.
pub struct Proxy {
    address: SocketAddr,
    upstream: String,
    orders: mpsc::UnboundedSender<Order>,
}

impl Proxy {
    /// Leads to `upstream`, given as `host:port`.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub fn start(upstream: &str) -> Self {
        let port = ports::free_port().expect("no free port for a proxy");
        Self::on_port(port, upstream).expect("the proxy's port was taken")
    }

    /// As [`Proxy::start`], on a port of the caller's choice.
    pub fn on_port(port: u16, upstream: &str) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

        let (orders, inbox) = mpsc::unbounded_channel();
        let target = upstream.to_owned();
        thread::spawn(move || runtime.block_on(serve(listener, target, inbox)));
        Ok(Self { address, upstream: upstream.to_owned(), orders })
    }

    /// Where clients connect: `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Breaks all connections and refuses new ones.
    pub fn cut(&self) {
        self.order(Wire::Cut);
    }

    /// Keeps connections open and accepts new ones, but lets nothing through until `restore`.
    pub fn stall(&self) {
        self.order(Wire::Stalled);
    }

    /// Lets everything through again. What was held back arrives now.
    pub fn restore(&self) {
        self.order(Wire::Whole);
    }

    fn order(&self, wire: Wire) {
        let (done, carried_out) = answers::channel();
        let sent = self.orders.send((wire, done)).is_ok();
        assert!(
            sent && carried_out.recv_timeout(Duration::from_secs(10)).is_ok(),
            "the proxy in front of {} did not obey",
            self.upstream
        );
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {} → {}", self.address, self.upstream)
    }
}

async fn serve(
    listener: std::net::TcpListener,
    upstream: String,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut listener = Some(TcpListener::from_std(listener)?);
    let (wire, watched) = watch::channel(Wire::Whole);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((wanted, done)) = order else { return Ok(()) };
                match wanted {
                    Wire::Cut => {
                        listener = None;
                        connections.shutdown().await;
                    }
                    Wire::Whole | Wire::Stalled if listener.is_none() => {
                        listener = Some(TcpListener::bind(address).await?);
                    }
                    Wire::Whole | Wire::Stalled => {}
                }
                wire.send_replace(wanted);
                // Who ordered may have given up waiting.
                let _ = done.send(());
            }
            accepted = accept(listener.as_ref()) => {
                if let Ok(client) = accepted {
                    connections.spawn(carry(client, upstream.clone(), watched.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

async fn carry(
    client: TcpStream,
    upstream: String,
    mut wire: watch::Receiver<Wire>,
) -> io::Result<()> {
    until_whole(&mut wire).await?;
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pump(from_client, to_server, wire.clone()),
        pump(from_server, to_client, wire)
    )?;
    Ok(())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        // What was on its way when the wire stalled stays in our hands.
        until_whole(&mut wire).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

async fn until_whole(wire: &mut watch::Receiver<Wire>) -> io::Result<()> {
    wire.wait_for(|wire| *wire == Wire::Whole).await.map(drop).map_err(io::Error::other)
}
