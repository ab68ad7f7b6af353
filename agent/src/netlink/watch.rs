//! Following the namespace: listings at the start and whenever something changes.
//!
//! A message of the kernel only says what is to be listed again, so none that is lost or out of
//! order leaves a wrong picture behind.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures_util::{FutureExt, StreamExt};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    ByIndex, Error, Interface, NetEvent, NetState, Role, Settings, classify,
    dump::{part, refresh},
    namespaces::Inside,
    pods::{Discovery, interface},
};

/// Follows the devices of the process's network namespace, from a task on the current runtime.
/// It ends when the receiver is dropped.
///
/// # Errors
///
/// Netlink cannot be opened, or the first listing fails.
pub async fn watch(settings: Settings) -> Result<mpsc::Receiver<NetEvent>, Error> {
    let (sender, receiver) = mpsc::channel(1_024);
    let mut watcher = Watcher::open(settings, sender)?;
    refresh(&watcher.handle, &mut watcher.state, part::ALL).await?;
    tokio::spawn(watcher.run());
    Ok(receiver)
}

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Tc,
];

/// Milliseconds between looks at a pod's end, of which nothing tells when it changes.
const PAUSES: [u64; 12] = [
    5, 10, 20, 40, 80, 160, 320, 640, 1_000, 2_000, 5_000, 30_000,
];
/// The longest pause while a pod has no address.
const LONGEST_WITHOUT: usize = 8;

type Messages = futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

struct Watcher {
    settings: Settings,
    sender: mpsc::Sender<NetEvent>,
    handle: Handle,
    messages: Messages,
    tasks: Tasks,
    discovery: Discovery,
    state: NetState,
    told: Told,
    in_sync: bool,
}

/// Connections to the kernel; they end with the watcher.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// What the receiver knows.
#[derive(Default)]
struct Told {
    pods: ByIndex<Pod>,
    uplinks: ByIndex<(String, bool, [u8; 6])>,
    addresses: Option<BTreeSet<IpAddr>>,
}

struct Pod {
    told: Interface,
    inside: Inside,
    late: bool,
    look_at: Instant,
    pause: usize,
}

/// The receiver is gone.
struct Closed;

impl Watcher {
    fn open(settings: Settings, sender: mpsc::Sender<NetEvent>) -> Result<Self, Error> {
        let (handle, messages, tasks) = connect()?;
        Ok(Self {
            discovery: Discovery::new(&settings),
            settings,
            sender,
            handle,
            messages,
            tasks,
            state: NetState::default(),
            told: Told::default(),
            in_sync: false,
        })
    }

    async fn run(mut self) {
        // It ends when the receiver does.
        let Err(Closed) = self.follow().await;
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Closed> {
        loop {
            self.tell_roles().await?;
            self.look_at_pods().await?;
            if !self.in_sync {
                self.in_sync = true;
                self.send(NetEvent::InSync).await?;
            }
            let parts = self.wait().await?;
            if let Err(error) = refresh(&self.handle, &mut self.state, parts).await {
                tracing::warn!(%error, "reading the node's devices; trying again");
                self.reconnect().await?;
            }
        }
    }

    /// Waits until something has changed or a pod is to be looked at, and says what to list.
    async fn wait(&mut self) -> Result<u8, Closed> {
        let next = self.told.pods.values().map(|pod| pod.look_at).min();
        let timer = async {
            match next {
                Some(time) => sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        let mut parts = tokio::select! {
            message = self.messages.next() => match message {
                Some(message) => affected(&message),
                None => return self.reconnect().await.map(|()| part::ALL),
            },
            () = timer => 0,
            () = self.sender.closed() => return Err(Closed),
        };
        while let Some(Some(message)) = self.messages.next().now_or_never() {
            parts |= affected(&message);
        }
        Ok(parts)
    }

    /// Opens new connections, however long it takes.
    async fn reconnect(&mut self) -> Result<(), Closed> {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
                () = self.sender.closed() => return Err(Closed),
            }
            match connect() {
                Ok((handle, messages, tasks)) => {
                    self.handle = handle;
                    self.messages = messages;
                    self.tasks = tasks;
                }
                Err(error) => {
                    tracing::warn!(%error, "connecting to netlink; trying again");
                    continue;
                }
            }
            match refresh(&self.handle, &mut self.state, part::ALL).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "reading the node's devices; trying again"),
            }
        }
    }

    /// Tells which devices came, went or changed their role.
    async fn tell_roles(&mut self) -> Result<(), Closed> {
        let roles = classify(&self.state, &self.settings.uplinks);
        self.tell_gone(&roles).await?;
        for (&ifindex, role) in &roles {
            let link = &self.state.links[&ifindex];
            match role {
                Role::Uplink => {
                    let uplink = (link.name.clone(), link.ethernet, link.mac);
                    if self.told.uplinks.get(&ifindex) != Some(&uplink) {
                        let event = NetEvent::Uplink {
                            ifindex,
                            name: link.name.clone(),
                            ethernet: link.ethernet,
                            mac: link.mac,
                        };
                        self.told.uplinks.insert(ifindex, uplink);
                        self.send(event).await?;
                    }
                }
                Role::Pod if !self.told.pods.contains_key(&ifindex) => {
                    self.add_pod(ifindex).await?;
                }
                Role::Pod | Role::Other => {}
            }
        }
        let addresses = self.state.node_addresses();
        if self.told.addresses.as_ref() != Some(&addresses) {
            self.told.addresses = Some(addresses.clone());
            self.send(NetEvent::NodeAddresses(addresses)).await?;
        }
        self.tell_pods().await
    }

    async fn tell_gone(&mut self, roles: &ByIndex<Role>) -> Result<(), Closed> {
        let gone = |ifindex: &u32, role: Role| roles.get(ifindex) != Some(&role);
        let pods = self
            .told
            .pods
            .extract_if(.., |index, _| gone(index, Role::Pod));
        let uplinks = self
            .told
            .uplinks
            .extract_if(.., |index, _| gone(index, Role::Uplink));
        let events: Vec<NetEvent> = pods
            .map(|(ifindex, pod)| NetEvent::PodGone {
                ifindex,
                name: pod.told.name,
            })
            .chain(uplinks.map(|(ifindex, (name, ..))| NetEvent::UplinkGone { ifindex, name }))
            .collect();
        for event in events {
            self.send(event).await?;
        }
        Ok(())
    }

    async fn add_pod(&mut self, ifindex: u32) -> Result<(), Closed> {
        let late = !self.in_sync && !self.settings.adopted.contains(&ifindex);
        let inside = Inside::default();
        let mtu = self.largest_mtu();
        let Some(told) = interface(&self.state, &self.settings, ifindex, &inside, mtu, late) else {
            return Ok(());
        };
        let pod = Pod {
            told: told.clone(),
            inside,
            late,
            look_at: Instant::now(),
            pause: 0,
        };
        self.told.pods.insert(ifindex, pod);
        // At the start its addresses are told with it.
        if self.in_sync {
            self.send(NetEvent::Pod(told)).await?;
        }
        Ok(())
    }

    /// Looks at the other ends of the pods' devices whose time it is.
    async fn look_at_pods(&mut self) -> Result<(), Closed> {
        let now = Instant::now();
        let due: Vec<u32> = self
            .told
            .pods
            .iter()
            .filter(|(_, pod)| pod.look_at <= now)
            .map(|(&ifindex, _)| ifindex)
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut found = self.discovery.look(&self.handle, &self.state, &due).await;
        let now = Instant::now();
        for ifindex in due {
            let Some(pod) = self.told.pods.get_mut(&ifindex) else {
                continue;
            };
            // What was known stays known: a namespace that cannot be read now says nothing.
            if let Some(inside) = found.remove(&ifindex) {
                if inside != pod.inside {
                    pod.pause = 0;
                }
                pod.inside = inside;
            }
            pod.look_at = now + Duration::from_millis(PAUSES[pod.pause]);
            let last = if pod.inside.addresses.is_empty() {
                LONGEST_WITHOUT
            } else {
                PAUSES.len() - 1
            };
            pod.pause = (pod.pause + 1).min(last);
        }
        if !self.in_sync {
            let all: Vec<Interface> = self.current_pods().collect();
            for told in all {
                self.tell_pod(told).await?;
            }
            return Ok(());
        }
        self.tell_pods().await
    }

    /// Tells of pods of which something changed.
    async fn tell_pods(&mut self) -> Result<(), Closed> {
        if !self.in_sync {
            return Ok(());
        }
        let changed: Vec<Interface> = self
            .current_pods()
            .filter(|new| self.told.pods[&new.ifindex].told != *new)
            .collect();
        for told in changed {
            self.tell_pod(told).await?;
        }
        Ok(())
    }

    async fn tell_pod(&mut self, told: Interface) -> Result<(), Closed> {
        if let Some(pod) = self.told.pods.get_mut(&told.ifindex) {
            pod.told = told.clone();
        }
        self.send(NetEvent::Pod(told)).await
    }

    fn current_pods(&self) -> impl Iterator<Item = Interface> {
        let mtu = self.largest_mtu();
        let pods = self.told.pods.iter();
        pods.filter_map(move |(&ifindex, pod)| {
            interface(
                &self.state,
                &self.settings,
                ifindex,
                &pod.inside,
                mtu,
                pod.late,
            )
        })
    }

    fn largest_mtu(&self) -> u32 {
        let links = self
            .told
            .pods
            .keys()
            .filter_map(|index| self.state.links.get(index));
        links.map(|link| link.mtu).max().unwrap_or(0)
    }

    async fn send(&mut self, event: NetEvent) -> Result<(), Closed> {
        self.sender.send(event).await.map_err(|_| Closed)
    }
}

/// One connection for questions, and one that is told of changes.
fn connect() -> Result<(Handle, Messages, Tasks), Error> {
    let (events, _, messages) = new_multicast_connection(&GROUPS)?;
    let (questions, handle, _) = new_connection()?;
    let tasks = Tasks(vec![tokio::spawn(events), tokio::spawn(questions)]);
    Ok((handle, messages.map(|(message, _)| message).boxed(), tasks))
}

/// What a message makes worth listing again.
fn affected(message: &NetlinkMessage<RouteNetlinkMessage>) -> u8 {
    use RouteNetlinkMessage as M;
    match &message.payload {
        NetlinkPayload::InnerMessage(message) => match message {
            // An address or route may go with its device, without a message of its own.
            M::DelLink(_) => part::ALL,
            M::NewLink(_) => part::LINKS,
            M::NewAddress(_) | M::DelAddress(_) => part::ADDRESSES,
            M::NewRoute(_) | M::DelRoute(_) => part::ROUTES,
            M::NewQueueDiscipline(_) | M::DelQueueDiscipline(_) => part::QDISCS | part::LINKS,
            _ => 0,
        },
        // Messages were lost.
        _ => part::ALL,
    }
}
