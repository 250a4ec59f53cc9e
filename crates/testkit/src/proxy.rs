//! A wire that can be cut: a TCP proxy on loopback in front of a server.
//!
//! It runs on a thread of its own, so a test that blocks does not hold up the bytes, and its orders
//! have been carried out when they return.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc as answers,
    },
    thread,
    time::Duration,
};

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
    KeepingBack,
}

/// Seen from the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// What has gone one way, and after how much the wire breaks.
#[derive(Debug)]
struct Meter {
    carried: AtomicUsize,
    breaks_at: AtomicUsize,
    /// Zero is as fast as it goes.
    bytes_per_second: AtomicUsize,
}

/// What all connections share with whoever gives the orders.
#[derive(Debug, Default)]
struct Shared {
    up: Meter,
    down: Meter,
    /// Bytes that clients sent and the server has not got, nor answered.
    kept_back: AtomicUsize,
}

/// Where new connections lead, as `host:port`.
#[derive(Debug, Clone)]
struct Upstream(Arc<Mutex<String>>);

impl Upstream {
    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Order = (Wire, answers::Sender<()>);

/// A proxy in front of a server. Dropping it cuts everything.
pub struct Proxy {
    address: SocketAddr,
    upstream: Upstream,
    orders: mpsc::UnboundedSender<Order>,
    delivery: watch::Sender<bool>,
    shared: Arc<Shared>,
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
        let (delivery, delivering) = watch::channel(false);
        let shared = Arc::<Shared>::default();
        let upstream = Upstream(Arc::new(Mutex::new(upstream.to_owned())));
        let carrier =
            Carrier { upstream: upstream.clone(), delivering, shared: Arc::clone(&shared) };
        thread::spawn(move || runtime.block_on(serve(listener, carrier, inbox)));
        Ok(Self { address, upstream, orders, delivery, shared })
    }

    /// Where clients connect: `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Leads new connections to another server. Those that are open stay where they are.
    pub fn lead_to(&self, upstream: &str) {
        let mut leads_to = self.upstream.0.lock().unwrap_or_else(PoisonError::into_inner);
        upstream.clone_into(&mut leads_to);
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

    /// How many bytes have gone that way.
    pub fn carried(&self, way: Way) -> usize {
        self.shared.meter(way).carried.load(Ordering::SeqCst)
    }

    /// Breaks the connection that carries the last of so many more bytes that way, right behind that byte. Once:
    /// those made afterwards are whole.
    pub fn break_after(&self, way: Way, bytes: usize) {
        let meter = self.shared.meter(way);
        meter.breaks_at.store(self.carried(way).saturating_add(bytes), Ordering::SeqCst);
    }

    /// Carries so many bytes a second that way at most, on each connection.
    pub fn slow_down(&self, way: Way, bytes_per_second: usize) {
        self.shared.meter(way).bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// From now on keeps what clients send, until [`Proxy::lose_clients`].
    pub fn keep_back(&self) {
        self.order(Wire::KeepingBack);
    }

    /// How many bytes are kept back, or were delivered and not answered yet.
    pub fn kept_back(&self) -> usize {
        self.shared.kept_back.load(Ordering::SeqCst)
    }

    /// Breaks the connections to clients of which something is kept back, as they see it. To the server they
    /// stay. New ones are whole.
    pub fn lose_clients(&self) {
        self.order(Wire::Whole);
    }

    /// Delivers to the server, late, what was kept back of clients that are gone.
    pub fn deliver(&self) {
        self.delivery.send_replace(true);
    }

    fn order(&self, wire: Wire) {
        let (done, carried_out) = answers::channel();
        let sent = self.orders.send((wire, done)).is_ok();
        assert!(
            sent && carried_out.recv_timeout(Duration::from_secs(10)).is_ok(),
            "the proxy in front of {} did not obey",
            self.upstream.get()
        );
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {} → {}", self.address, self.upstream.get())
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            carried: AtomicUsize::new(0),
            breaks_at: AtomicUsize::new(usize::MAX),
            bytes_per_second: AtomicUsize::new(0),
        }
    }
}

impl Meter {
    /// Counts bytes that are about to go, and says how many of them may before the wire breaks, if it does.
    fn admit(&self, count: usize) -> (usize, bool) {
        let before = self.carried.fetch_add(count, Ordering::SeqCst);
        let breaks_at = self.breaks_at.load(Ordering::SeqCst);
        if before + count < breaks_at {
            return (count, false);
        }
        self.breaks_at.store(usize::MAX, Ordering::SeqCst);
        let admitted = breaks_at.saturating_sub(before);
        self.carried.fetch_sub(count - admitted, Ordering::SeqCst);
        (admitted, true)
    }

    /// Returns how long so many bytes take.
    fn duration_of(&self, count: usize) -> Duration {
        match self.bytes_per_second.load(Ordering::SeqCst) {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(count as f64 / rate as f64),
        }
    }
}

impl Shared {
    fn meter(&self, way: Way) -> &Meter {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

/// What carries a connection.
#[derive(Clone)]
struct Carrier {
    upstream: Upstream,
    delivering: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

async fn serve(
    listener: std::net::TcpListener,
    carrier: Carrier,
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
                    Wire::Whole | Wire::Stalled | Wire::KeepingBack if listener.is_none() => {
                        listener = Some(TcpListener::bind(address).await?);
                    }
                    Wire::Whole | Wire::Stalled | Wire::KeepingBack => {}
                }
                wire.send_replace(wanted);
                // Who ordered may have given up waiting.
                let _ = done.send(());
            }
            accepted = accept(listener.as_ref()) => {
                if let Ok(client) = accepted {
                    connections.spawn(carrier.clone().carry(client, watched.clone()));
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

impl Carrier {
    async fn carry(self, client: TcpStream, mut wire: watch::Receiver<Wire>) -> io::Result<()> {
        until_open(&mut wire).await?;
        let server = TcpStream::connect(self.upstream.get()).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (up, down) = (self.shared.meter(Way::Up), self.shared.meter(Way::Down));
        let kept = {
            let up = self.pump_up(&mut from_client, &mut to_server, up, wire.clone());
            let down = pump(&mut from_server, &mut to_client, down, wire);
            tokio::pin!(up, down);
            tokio::select! {
                kept = &mut up => match kept? {
                    Some(kept) => kept,
                    None => return down.await,
                },
                ended = &mut down => {
                    ended?;
                    return up.await.map(drop);
                }
            }
        };
        drop((from_client, to_client));
        self.deliver_late(&kept, &mut from_server, &mut to_server).await
    }

    /// Returns what it kept back once the client is to be lost.
    async fn pump_up(
        &self,
        from: &mut OwnedReadHalf,
        to: &mut OwnedWriteHalf,
        meter: &Meter,
        mut wire: watch::Receiver<Wire>,
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut orders = wire.clone();
            tokio::select! {
                // Nothing passes that comes after the order.
                biased;
                keeping = orders.wait_for(|wire| *wire == Wire::KeepingBack) => drop(keeping.map_err(io::Error::other)?),
                ended = pump(from, to, meter, wire.clone()) => return ended.map(|()| None),
            }
            let (mut kept, mut bytes) = (Vec::new(), vec![0; 64 * 1024]);
            loop {
                tokio::select! {
                    count = from.read(&mut bytes) => {
                        let count = count?;
                        if count == 0 {
                            return Ok(None);
                        }
                        kept.extend_from_slice(&bytes[..count]);
                        self.shared.kept_back.fetch_add(count, Ordering::SeqCst);
                    }
                    over = wire.wait_for(|wire| *wire != Wire::KeepingBack) => {
                        drop(over.map_err(io::Error::other)?);
                        break;
                    }
                }
            }
            if !kept.is_empty() {
                return Ok(Some(kept));
            }
        }
    }

    async fn deliver_late(
        mut self,
        kept: &[u8],
        from_server: &mut OwnedReadHalf,
        to_server: &mut OwnedWriteHalf,
    ) -> io::Result<()> {
        self.delivering.wait_for(|delivering| *delivering).await.map_err(io::Error::other)?;
        to_server.write_all(kept).await?;
        // The server has done with it once it answers.
        let answered = from_server.read(&mut [0; 1024]).await;
        self.shared.kept_back.fetch_sub(kept.len(), Ordering::SeqCst);
        answered.map(drop)
    }
}

async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    meter: &Meter,
    mut wire: watch::Receiver<Wire>,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        // What was on its way when the wire stalled stays in our hands.
        until_open(&mut wire).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let (count, breaks) = meter.admit(count);
        to.write_all(&bytes[..count]).await?;
        if breaks {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        tokio::time::sleep(meter.duration_of(count)).await;
    }
}

async fn until_open(wire: &mut watch::Receiver<Wire>) -> io::Result<()> {
    let open = |wire: &Wire| matches!(wire, Wire::Whole | Wire::KeepingBack);
    wire.wait_for(open).await.map(drop).map_err(io::Error::other)
}
