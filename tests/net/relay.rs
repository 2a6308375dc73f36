//! A relay of datagrams between mirrors and a source, which treats them badly.
//!
//! ```text
//!  mirror --> front socket --(up)--> a socket for each mirror --> source
//!         <--              <-(down)-                          <--
//! ```
//!
//! It runs on a thread of its own, so that a busy test does not delay it. Every
//! mirror has a socket of its own towards the source, and the source sees that
//! one's address; another one takes its place when the mirror is to "move".

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Larger than any datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Mirrors of one relay.
const LINES_MAX: usize = 2048;
/// Datagrams that are late at a time; more are lost.
const LATE_MAX: usize = 10_000;
/// What a slow link has waiting.
const QUEUE_BYTES: f64 = 262_144.0;
/// A burst of a whole window fits, where the kernel grants it.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Nothing that a test waits for takes nearly as long.
const DEADLINE: Duration = Duration::from_mins(2);

pub(crate) const LOCALHOST: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What befalls datagrams, each by itself: shares of 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    /// One bit is flipped.
    pub(crate) corrupt: f64,
    /// This share comes late, by up to `late_by`: others overtake them.
    pub(crate) late: f64,
    pub(crate) late_by: Duration,
    /// Larger ones vanish without a word.
    pub(crate) datagram_bytes_max: usize,
    /// Bytes a second from the source, all mirrors together; what does not fit
    /// into a queue of 256 KiB is lost, as with a router.
    pub(crate) down_rate: Option<u32>,
    /// Nothing goes from mirrors to the source.
    pub(crate) cut_up: bool,
    /// Nothing goes from the source to mirrors.
    pub(crate) cut_down: bool,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        loss: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        late: 0.0,
        late_by: Duration::ZERO,
        datagram_bytes_max: usize::MAX,
        down_rate: None,
        cut_up: false,
        cut_down: false,
    };
    pub(crate) const CUT: Self = Self {
        cut_up: true,
        cut_down: true,
        ..Self::NONE
    };
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    /// To the source.
    Up,
    /// To a mirror.
    Down,
}

/// What came to the relay in one direction, and what did not go on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: u64,
    /// Bytes of what went on, each datagram once.
    pub(crate) passed_bytes: u64,
    /// Copies that went on.
    pub(crate) copies: u64,
    /// Of those, with a bit flipped.
    pub(crate) corrupt: u64,
    /// Of those, late.
    pub(crate) late: u64,
    /// The largest that went on.
    pub(crate) longest: usize,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) up: Count,
    pub(crate) down: Count,
    /// Times a mirror was moved.
    pub(crate) moves: u64,
}

struct State {
    target: SocketAddr,
    faults: Faults,
    dice: Dice,
    counts: Counts,
    late: usize,
    /// When the slow link has sent all that it has.
    link_free: Instant,
}

impl State {
    /// When a slow link will have sent a datagram; an error if its queue is full.
    fn slow(&mut self, direction: Direction, bytes: usize) -> Result<Option<Instant>, Full> {
        let (Direction::Down, Some(rate)) = (direction, self.faults.down_rate) else {
            return Ok(None);
        };
        let (now, rate) = (Instant::now(), f64::from(rate));
        let begins = self.link_free.max(now);
        if begins.duration_since(now).as_secs_f64() * rate > QUEUE_BYTES {
            return Err(Full);
        }
        let takes = f64::from(u32::try_from(bytes).unwrap()) / rate;
        self.link_free = begins + Duration::from_secs_f64(takes);
        Ok(Some(self.link_free))
    }
}

struct Full;

struct Shared {
    state: Mutex<State>,
    /// Something was counted.
    counted: Condvar,
    turns: mpsc::UnboundedSender<Turn>,
}

/// One copy of a datagram that goes on.
struct Copy {
    bytes: Vec<u8>,
    late: Option<Duration>,
    /// In its turn, on a slow link.
    at: Option<Instant>,
}

/// A datagram that waits for its turn on a slow link.
struct Turn {
    at: Instant,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a datagram: the copies that go on.
    fn meets(&self, direction: Direction, datagram: &[u8]) -> (Vec<Copy>, SocketAddr) {
        let mut state = self.state();
        let slow = state.slow(direction, datagram.len());
        let State {
            faults, dice, late, ..
        } = &mut *state;
        let cut = match direction {
            Direction::Up => faults.cut_up,
            Direction::Down => faults.cut_down,
        };
        let lost = dice.falls(faults.loss) || cut || datagram.len() > faults.datagram_bytes_max;
        let (lost, at) = (lost || slow.is_err(), slow.unwrap_or(None));
        let copies = match (lost, dice.falls(faults.duplicate)) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        let mut going = Vec::new();
        let (mut corrupt, mut are_late) = (0, 0);
        for _ in 0..copies {
            let mut bytes = datagram.to_vec();
            if dice.falls(faults.corrupt) {
                corrupt += 1;
                let at = dice.below(bytes.len().max(1) * 8);
                if let Some(byte) = bytes.get_mut(at / 8) {
                    *byte ^= 1 << (at % 8);
                }
            }
            let is_late = dice.falls(faults.late);
            let wait = is_late.then(|| faults.late_by.mul_f64(dice.share()));
            if wait.is_some() {
                if *late >= LATE_MAX {
                    continue;
                }
                *late += 1;
                are_late += 1;
            }
            going.push(Copy {
                bytes,
                late: wait,
                at,
            });
        }
        let target = state.target;
        let count = match direction {
            Direction::Up => &mut state.counts.up,
            Direction::Down => &mut state.counts.down,
        };
        count.datagrams += 1;
        count.copies += going.len() as u64;
        count.corrupt += corrupt;
        count.late += are_late;
        count.bytes += datagram.len() as u64;
        if going.is_empty() {
            count.dropped += 1;
        } else {
            count.passed_bytes += datagram.len() as u64;
            count.longest = count.longest.max(datagram.len());
        }
        drop(state);
        self.counted.notify_all();
        (going, target)
    }

    /// Sends what goes on, some of it later.
    async fn send(self: &Arc<Self>, socket: &Arc<UdpSocket>, to: SocketAddr, copies: Vec<Copy>) {
        for Copy { bytes, late, at } in copies {
            if let Some(at) = at {
                let (socket, turns) = (Arc::clone(socket), self.turns.clone());
                let turn = Turn {
                    at,
                    socket,
                    to,
                    bytes,
                };
                let _ = turns.send(turn);
                continue;
            }
            let Some(late) = late else {
                // What the kernel refuses is lost like anything else.
                let _ = socket.send_to(&bytes, to).await;
                continue;
            };
            let (shared, socket) = (Arc::clone(self), Arc::clone(socket));
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                shared.state().late -= 1;
                let _ = socket.send_to(&bytes, to).await;
            });
        }
    }
}

/// Numbers from a seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX)
    }

    fn falls(&mut self, share: f64) -> bool {
        share > 0.0 && self.share() < share
    }
}

enum Command {
    Move,
}

pub(crate) struct Relay {
    /// Where mirrors call.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the relay failed"
            );
        }
    }
}

impl Relay {
    pub(crate) fn new(target: SocketAddr, faults: Faults, seed: u64) -> Self {
        let (turns, mut waiting) = mpsc::unbounded_channel::<Turn>();
        let shared = Arc::new(Shared {
            turns,
            state: Mutex::new(State {
                target,
                faults,
                dice: Dice::new(seed),
                counts: Counts::default(),
                late: 0,
                link_free: Instant::now(),
            }),
            counted: Condvar::new(),
        });
        let front = bind();
        let address = front.local_addr().unwrap();
        let (commands, told) = mpsc::unbounded_channel();
        let running = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.spawn(async move {
                while let Some(turn) = waiting.recv().await {
                    tokio::time::sleep_until(turn.at.into()).await;
                    let _ = turn.socket.send_to(&turn.bytes, turn.to).await;
                }
            });
            runtime.block_on(run(front, running, told));
        });
        Self {
            address,
            shared,
            commands: Some(commands),
            thread: Some(thread),
        }
    }

    pub(crate) fn set(&self, faults: Faults) {
        self.shared.state().faults = faults;
    }

    /// The source is somewhere else now.
    pub(crate) fn aim(&self, target: SocketAddr) {
        self.shared.state().target = target;
    }

    /// From now on the source hears every mirror from another address, and
    /// nothing that goes to the old ones arrives.
    pub(crate) fn move_mirrors(&self) {
        let commands = self.commands.as_ref().unwrap();
        assert!(commands.send(Command::Move).is_ok(), "the relay runs");
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// Waits until `reached` is true of what was counted; false after the
    /// deadline, or as soon as `over` is true.
    pub(crate) fn wait_for(
        &self,
        mut reached: impl FnMut(&Counts) -> bool,
        mut over: impl FnMut() -> bool,
    ) -> bool {
        let end = Instant::now() + DEADLINE;
        let mut state = self.shared.state();
        loop {
            if reached(&state.counts) {
                return true;
            }
            if Instant::now() > end || over() {
                return false;
            }
            let look = Duration::from_millis(5);
            let waited = self.shared.counted.wait_timeout(state, look);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until so many bytes more have come from the source.
    #[track_caller]
    pub(crate) fn until_down(&self, bytes: u64) {
        let goal = self.counts().down.bytes + bytes;
        let reached = self.wait_for(|counts| counts.down.bytes >= goal, || false);
        assert!(reached, "{bytes} bytes in time: {:?}", self.counts());
    }
}

fn bind() -> std::net::UdpSocket {
    let socket = std::net::UdpSocket::bind(LOCALHOST).unwrap();
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(SOCKET_BUFFER_BYTES).unwrap();
    options.set_send_buffer_size(SOCKET_BUFFER_BYTES).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// One mirror's way to the source.
struct Line {
    socket: Arc<UdpSocket>,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    fn open(shared: &Arc<Shared>, front: &Arc<UdpSocket>, mirror: SocketAddr) -> Self {
        let socket = Arc::new(UdpSocket::from_std(bind()).unwrap());
        let (shared, front, back) = (Arc::clone(shared), Arc::clone(front), Arc::clone(&socket));
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
            loop {
                let Ok((len, _)) = back.recv_from(&mut buffer).await else {
                    continue;
                };
                let (copies, _) = shared.meets(Direction::Down, &buffer[..len]);
                shared.send(&front, mirror, copies).await;
            }
        });
        Self {
            socket,
            task: task.abort_handle(),
        }
    }
}

async fn run(
    front: std::net::UdpSocket,
    shared: Arc<Shared>,
    mut told: mpsc::UnboundedReceiver<Command>,
) {
    let front = Arc::new(UdpSocket::from_std(front).unwrap());
    let mut lines: HashMap<SocketAddr, Line> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            command = told.recv() => match command {
                None => return,
                Some(Command::Move) => for (mirror, line) in &mut lines {
                    *line = Line::open(&shared, &front, *mirror);
                    shared.state().counts.moves += 1;
                },
            },
            received = front.recv_from(&mut buffer) => {
                let Ok((len, mirror)) = received else { continue };
                assert!(lines.len() < LINES_MAX);
                let line = lines
                    .entry(mirror)
                    .or_insert_with(|| Line::open(&shared, &front, mirror));
                let (copies, target) = shared.meets(Direction::Up, &buffer[..len]);
                let socket = Arc::clone(&line.socket);
                shared.send(&socket, target, copies).await;
            }
        }
    }
}
