//! A nameserver and a resolver.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
use sluice_lab::netns::Netns;
use sluice_lab::topology::Dual;

/// How long an answer is waited for that may not come.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);
/// How long records hold, in seconds.
const TTL: u32 = 300;

/// What nameservers know, and whom they have answered.
#[derive(Clone, Debug, Default)]
pub struct Zone(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    addresses: BTreeMap<String, Vec<IpAddr>>,
    aliases: BTreeMap<String, String>,
    /// Names whose records hold for a second.
    short: BTreeSet<String>,
    /// Names with addresses that liars give for them.
    forged: BTreeMap<String, Vec<IpAddr>>,
    clients: BTreeSet<IpAddr>,
}

impl Zone {
    /// A name has these addresses.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        self.content()
            .addresses
            .insert(name.to_owned(), addresses.to_vec());
    }

    /// A name stands for another.
    pub fn alias(&self, name: &str, of: &str) {
        self.content()
            .aliases
            .insert(name.to_owned(), of.to_owned());
    }

    /// A name's records hold for a second.
    pub fn shorten(&self, name: &str) {
        self.content().short.insert(name.to_owned());
    }

    /// Before a datagram with the answer for a name, others come that give it these addresses: from another port, and with
    /// another identification.
    pub fn forge(&self, name: &str, addresses: &[IpAddr]) {
        self.content()
            .forged
            .insert(name.to_owned(), addresses.to_vec());
    }

    /// Who has asked since the last [`Self::forget`].
    pub fn clients(&self) -> BTreeSet<IpAddr> {
        self.content().clients.clone()
    }

    /// Nobody has asked.
    pub fn forget(&self) {
        self.content().clients.clear();
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("no thread dies with the zone in hand")
    }

    /// What a liar answers to a query, if it lies about the name.
    fn lie(&self, query: &[u8]) -> Option<Vec<u8>> {
        let asked = Packet::parse(query)
            .ok()?
            .questions
            .first()?
            .qname
            .to_string();
        let liar = Self::default();
        liar.set(&asked, self.content().forged.get(&asked)?);
        liar.answer(query, Ipv6Addr::UNSPECIFIED.into())
    }

    /// The answer to a query.
    fn answer(&self, query: &[u8], client: IpAddr) -> Option<Vec<u8>> {
        let query = Packet::parse(query).ok()?;
        let question = query.questions.first()?.clone();
        let mut content = self.content();
        content.clients.insert(client.to_canonical());
        let asked = question.qname.to_string();
        let name = asked.to_ascii_lowercase();
        let ttl = if content.short.contains(&name) {
            1
        } else {
            TTL
        };
        let record = |owner, data| record(owner, ttl, data);
        let target = content.aliases.get(&name);
        let addresses = content.addresses.get(target.unwrap_or(&name));
        let mut reply = Packet::new_reply(query.id());
        if let Some(target) = target {
            let to = RData::CNAME(CNAME(Name::new(target).ok()?));
            reply.answers.push(record(&asked, to)?);
        }
        let owner = target.unwrap_or(&asked);
        for address in addresses.into_iter().flatten() {
            let (kind, data) = match address {
                IpAddr::V4(v4) => (
                    TYPE::A,
                    RData::A(A {
                        address: v4.to_bits(),
                    }),
                ),
                IpAddr::V6(v6) => (
                    TYPE::AAAA,
                    RData::AAAA(AAAA {
                        address: v6.to_bits(),
                    }),
                ),
            };
            if question.qtype == QTYPE::TYPE(kind) {
                reply.answers.push(record(owner, data)?);
            }
        }
        reply.questions.push(question);
        reply.build_bytes_vec_compressed().ok()
    }
}

fn record<'a>(owner: &'a str, ttl: u32, data: RData<'a>) -> Option<ResourceRecord<'a>> {
    Some(ResourceRecord::new(
        Name::new(owner).ok()?,
        CLASS::IN,
        ttl,
        data,
    ))
}

/// A running nameserver on port 53 of a namespace.
#[derive(Debug)]
pub struct Nameserver {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Nameserver {
    /// Starts it.
    pub fn start(netns: &Netns, zone: &Zone) -> Self {
        let any = (Ipv6Addr::UNSPECIFIED, 53);
        let (udp, tcp, other) = netns.run(|| {
            (
                UdpSocket::bind(any).unwrap(),
                TcpListener::bind(any).unwrap(),
                UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap(),
            )
        });
        udp.set_read_timeout(Some(LOOK)).unwrap();
        socket2::SockRef::from(&tcp)
            .set_read_timeout(Some(LOOK))
            .unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let datagrams = {
            let (zone, stopped) = (zone.clone(), Arc::clone(&stopped));
            std::thread::spawn(move || {
                let mut buffer = [0; 4_096];
                while !stopped.load(Ordering::Acquire) {
                    let Ok((length, client)) = udp.recv_from(&mut buffer) else {
                        continue;
                    };
                    if let Some(mut lie) = zone.lie(&buffer[..length]) {
                        other.send_to(&lie, client).unwrap();
                        lie[0] ^= 1;
                        udp.send_to(&lie, client).unwrap();
                    }
                    if let Some(answer) = zone.answer(&buffer[..length], client.ip()) {
                        // A client that has gone is told nothing.
                        let _ = udp.send_to(&answer, client);
                    }
                }
            })
        };
        let connections = {
            let (zone, stopped) = (zone.clone(), Arc::clone(&stopped));
            std::thread::spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    if let Ok((stream, client)) = tcp.accept() {
                        // A client that has gone is told nothing.
                        let _ = converse(&stream, |query| zone.answer(query, client.ip()));
                    }
                }
            })
        };
        Self {
            stopped,
            threads: vec![datagrams, connections],
        }
    }
}

impl Drop for Nameserver {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // It failed a test already if it could not go on.
            let _ = thread.join();
        }
    }
}

fn converse(stream: &TcpStream, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    loop {
        let query = receive(stream)?;
        if let Some(answer) = answer(&query) {
            send(stream, &answer)?;
        }
    }
}

/// How a query travels.
#[derive(Clone, Copy, Debug)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a connection.
    Tcp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Tcp];
}

/// The addresses of a name in both families, as a nameserver tells them to a client.
pub fn ask(
    client: &crate::world::Client,
    server: SocketAddr,
    transport: Transport,
    name: &str,
) -> Result<Vec<IpAddr>, String> {
    let exchange = |kind| {
        let query = query(name, kind);
        let answer = client.netns.run(|| match transport {
            Transport::Udp => by_datagram(&query, server),
            Transport::Tcp => by_connection(&query, server),
        });
        let answer = answer.map_err(|error| format!("{server}: {error}"))?;
        Ok(addresses(&answer))
    };
    let all: Result<Vec<Vec<IpAddr>>, String> =
        [TYPE::A, TYPE::AAAA].into_iter().map(exchange).collect();
    Ok(all?.concat())
}

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut query = Packet::new_query(0x5353);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).expect("a name");
    let question = Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    query.questions.push(question);
    query.build_bytes_vec().expect("a small message")
}

fn addresses(answer: &[u8]) -> Vec<IpAddr> {
    let packet = Packet::parse(answer).expect("an answer");
    let records = packet.answers.iter();
    let address = |record: &ResourceRecord<'_>| match &record.rdata {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    };
    records.filter_map(address).collect()
}

fn by_datagram(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // An answer from another address would not be seen.
    socket.connect(server)?;
    socket.send(query)?;
    let mut answer = vec![0; 4_096];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn by_connection(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    send(&stream, query)?;
    receive(&stream)
}

fn send(mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}

fn receive(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Sends what is no query.
pub fn babble(client: &crate::world::Client, server: SocketAddr) {
    let whole = query("www.example.com", TYPE::A);
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    client.netns.run(|| {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        let circle = [&whole[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
        let endless = [&whole[..12], &[63; 400]].concat();
        let noise = [&whole[..], &[0xff; 900]].concat();
        for message in [
            &[][..],
            &whole[..1],
            &whole[..14],
            &circle,
            &endless,
            &noise,
        ] {
            socket.send_to(message, server).unwrap();
        }
        for message in [&[0, 0][..], &[0xff, 0xff, 1], &[0, 3, 1, 2, 3]] {
            let stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
            (&stream).write_all(message).unwrap();
        }
    });
}

/// Addresses that nobody has, another pair for each number.
pub fn spare(number: u8) -> Dual {
    Dual {
        v4: Ipv4Addr::new(203, 0, 113, number),
        v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()),
    }
}
