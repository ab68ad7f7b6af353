//! The processes whose transactions are timed: a client that does as it is told line by line, and
//! a server with one connection at a time. Both are pinned to the one CPU of the measurement.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::stats::Histogram;
use crate::netns::Netns;

/// What the server says when its ports are bound.
pub const LISTENING: &str = "listening";
/// The port the server answers on.
pub const PORT: u16 = 8080;
/// A port on which the server listens but that no policy opens.
pub const FORBIDDEN_PORT: u16 = 8081;
/// Transactions before the clock starts.
const WARM_UP: u32 = 100;
/// So many failures end a slot.
const MOST_FAILURES: u64 = 20;

/// Options of the timed processes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The CPU to stay on.
    #[arg(long)]
    cpu: usize,
}

/// What a client times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// One byte and back, on one connection.
    Rr,
    /// Connect, one byte and back, close.
    Crr,
}

impl Test {
    /// The name of the test in tables.
    pub fn name(self) -> &'static str {
        match self {
            Test::Rr => "TCP_RR",
            Test::Crr => "TCP_CRR",
        }
    }
}

/// Where a client connects: one of `count` successive addresses, drawn for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The first address.
    pub first: Ipv4Addr,
    /// How many addresses; at least 1.
    pub count: u32,
    /// The port.
    pub port: u16,
}

impl Target {
    /// One address.
    pub fn fixed(address: Ipv4Addr, port: u16) -> Target {
        Target {
            first: address,
            count: 1,
            port,
        }
    }
}

/// What a client is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What it times.
    pub test: Test,
    /// Where it connects.
    pub target: Target,
    /// How long.
    pub slot: Duration,
    /// Connections a second, at most; `None`: as many as it can.
    pub rate: Option<u32>,
}

impl Order {
    /// The line that tells it.
    pub fn line(&self) -> String {
        let Target { first, count, port } = self.target;
        json!({
            "test": self.test.name(),
            "first": first,
            "count": count,
            "port": port,
            "nanos": nanos(self.slot),
            "rate": self.rate,
        })
        .to_string()
    }
}

/// Runs the client: a line of JSON in, a line of JSON out, until the input ends.
///
/// # Errors
/// It cannot be pinned, or an order is none.
pub fn run_client(args: &Args) -> Result<()> {
    pin(&[args.cpu])?;
    let mut random = Random(u64::from(std::process::id()) | 1 << 40);
    for line in io::stdin().lock().lines() {
        let order = parse(&line?).context("an order that is none")?;
        let answer = measure(order, &mut random);
        let mut output = io::stdout().lock();
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

/// Runs the server until the standard input ends.
///
/// # Errors
/// It cannot be pinned, or a port is taken.
pub fn run_server(args: &Args) -> Result<()> {
    pin(&[args.cpu])?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    // Its backlog takes connections; nobody needs to accept them.
    let _forbidden = TcpListener::bind((Ipv4Addr::UNSPECIFIED, FORBIDDEN_PORT))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that resets its connection ends it, no more.
            let _ = echo(stream);
        }
    });
    println!("{LISTENING}");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Lets the calling thread, and what it starts, run on these CPUs only.
///
/// # Errors
/// None of them is there.
pub fn pin(cpus: &[usize]) -> Result<()> {
    pin_thread(Pid::from_raw(0), cpus)
}

/// Lets all threads of a process, and what they start, run on these CPUs only.
///
/// # Errors
/// None of them is there, or the process has ended.
pub fn pin_process(process: u32, cpus: &[usize]) -> Result<()> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    for thread in threads.with_context(|| format!("process {process} has ended"))? {
        let number = thread?.file_name().to_string_lossy().parse()?;
        pin_thread(Pid::from_raw(number), cpus)?;
    }
    Ok(())
}

fn pin_thread(thread: Pid, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(thread, &set).with_context(|| format!("cannot stay on {cpus:?}"))
}

/// Lets clients in a namespace open connections as fast as they can: all ports, and those whose last
/// connection has just ended.
///
/// # Errors
/// The kernel refuses.
pub fn leave_room_for_connections(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("net/ipv4/ip_local_port_range", "1024 65535"),
        ("net/ipv4/tcp_tw_reuse", "1"),
    ])
}

/// The CPUs that this process may run on, in order.
///
/// # Errors
/// The kernel does not say.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let all = 0..CpuSet::count();
    Ok(all
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

fn parse(line: &str) -> Result<Order> {
    let order: Value = serde_json::from_str(line)?;
    let test = match order["test"].as_str() {
        Some("TCP_RR") => Test::Rr,
        Some("TCP_CRR") => Test::Crr,
        other => anyhow::bail!("no test is called {other:?}"),
    };
    let number = |name: &str| order[name].as_u64().with_context(|| format!("no {name}"));
    let first = order["first"].as_str().context("no first")?;
    let target = Target {
        first: first.parse()?,
        count: u32::try_from(number("count")?)?,
        port: u16::try_from(number("port")?)?,
    };
    let rate = order["rate"].as_u64().map(u32::try_from);
    Ok(Order {
        test,
        target,
        slot: Duration::from_nanos(number("nanos")?),
        rate: rate.transpose()?,
    })
}

fn measure(order: Order, random: &mut Random) -> Value {
    let Order { target, slot, .. } = order;
    let mut times = Histogram::default();
    let mut failures = Failures::default();
    let before = retransmitted();
    match order.test {
        Test::Rr => {
            if let Err(error) = round_trips(target.draw(random), slot, &mut times) {
                failures.note(&error);
            }
        }
        Test::Crr => connections(order, random, &mut times, &mut failures),
    }
    json!({
        "transactions": times.total(),
        "p10": times.percentile(0.1),
        "p50": times.percentile(0.5),
        "p99": times.percentile(0.99),
        "failed": failures.count,
        "error": failures.first,
        "retransmitted": retransmitted().saturating_sub(before),
    })
}

fn round_trips(to: SocketAddrV4, slot: Duration, times: &mut Histogram) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    for _ in 0..WARM_UP {
        exchange(&mut stream)?;
    }
    let begun = Instant::now();
    let mut last = begun;
    while last - begun < slot {
        exchange(&mut stream)?;
        let now = Instant::now();
        times.record(nanos(now - last));
        last = now;
    }
    Ok(())
}

fn connections(order: Order, random: &mut Random, times: &mut Histogram, failures: &mut Failures) {
    let Order { target, slot, .. } = order;
    let gap = order
        .rate
        .map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1));
    let transaction = |random: &mut Random| -> io::Result<()> {
        let mut stream = TcpStream::connect(target.draw(random))?;
        exchange(&mut stream)
        // Closing the stream is part of the transaction.
    };
    for _ in 0..WARM_UP {
        if let Err(error) = transaction(random) {
            failures.note(&error);
        }
    }
    let begun = Instant::now();
    let (mut last, mut due) = (begun, begun);
    while last - begun < slot && failures.count < MOST_FAILURES {
        let done = transaction(random);
        let now = Instant::now();
        match done {
            Ok(()) => times.record(nanos(now - last)),
            Err(error) => failures.note(&error),
        }
        last = now;
        due += gap;
        while Instant::now() < due {
            // The server is on the same CPU.
            thread::yield_now();
            last = Instant::now();
        }
    }
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [b'x'];
    stream.write_all(&byte)?;
    stream.read_exact(&mut byte)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Segments that the namespace's TCP sent again, since it was made.
fn retransmitted() -> u64 {
    let text = fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    counter(&text, "Tcp:", "RetransSegs").unwrap_or(0)
}

/// A counter of `/proc/net/snmp`: a line of names, then a line of values.
fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let place = lines
        .next()?
        .split_whitespace()
        .position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

/// What went wrong in a slot.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    first: Option<String>,
}

impl Failures {
    fn note(&mut self, error: &io::Error) {
        self.count += 1;
        self.first.get_or_insert_with(|| error.to_string());
    }
}

/// A xorshift generator: cheap beside a transaction.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

impl Target {
    fn draw(self, random: &mut Random) -> SocketAddrV4 {
        let offset = (random.next() >> 16) % u64::from(self.count.max(1));
        let address = Ipv4Addr::from(u32::from(self.first) + offset as u32);
        SocketAddrV4::new(address, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let target = Target {
            first: Ipv4Addr::new(10, 96, 1, 0),
            count: 10_000,
            port: 80,
        };
        for rate in [None, Some(10_000)] {
            let order = Order {
                test: Test::Crr,
                target,
                slot: Duration::from_millis(500),
                rate,
            };
            assert_eq!(parse(&order.line()).unwrap(), order);
        }
        assert!(parse("{}").is_err());
    }

    #[test]
    fn every_address_of_a_target_is_drawn() {
        let target = Target {
            first: Ipv4Addr::new(10, 96, 0, 250),
            count: 10,
            port: 80,
        };
        let mut random = Random(1);
        let drawn: std::collections::BTreeSet<_> =
            (0..1_000).map(|_| *target.draw(&mut random).ip()).collect();
        let expected = (0..10).map(|offset| Ipv4Addr::from(u32::from(target.first) + offset));
        assert!(drawn.into_iter().eq(expected));
    }

    #[test]
    fn counters_are_found_by_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: InSegs RetransSegs InErrs\nTcp: 7 8 9\n";
        assert_eq!(counter(text, "Tcp:", "RetransSegs"), Some(8));
        assert_eq!(counter(text, "Tcp:", "Missing"), None);
    }

    fn connect(test: Test, port: u16, slot: Duration, rate: Option<u32>) -> Value {
        let order = Order {
            test,
            target: Target::fixed(Ipv4Addr::LOCALHOST, port),
            slot,
            rate,
        };
        measure(order, &mut Random(1))
    }

    #[test]
    fn slots_are_timed_over_loopback() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = echo(stream);
            }
        });
        for test in [Test::Rr, Test::Crr] {
            let answer = connect(test, port, Duration::from_millis(20), None);
            assert_eq!(answer["failed"], 0, "{answer}");
            assert!(answer["transactions"].as_u64().unwrap() > 0, "{answer}");
            assert!(answer["p10"].as_f64().unwrap() > 1_000.0, "{answer}");
            assert!(answer["p99"].as_f64() >= answer["p10"].as_f64(), "{answer}");
        }
        let answer = connect(Test::Crr, port, Duration::from_millis(200), Some(100));
        assert!(
            (1..=21).contains(&answer["transactions"].as_u64().unwrap()),
            "{answer}"
        );
    }

    #[test]
    fn failures_are_counted_and_end_the_slot() {
        let refused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = refused.local_addr().unwrap().port();
        drop(refused);
        let answer = connect(Test::Crr, port, Duration::from_secs(60), None);
        assert!(
            answer["failed"].as_u64().unwrap() >= MOST_FAILURES,
            "{answer}"
        );
        assert!(
            answer["error"].as_str().unwrap().contains("refused"),
            "{answer}"
        );
    }
}
