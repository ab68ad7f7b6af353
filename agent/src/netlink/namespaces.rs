//! The network namespaces of pods: finding them by their ids, and reading what is inside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use futures_util::StreamExt;
use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
};
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        nsid::{NsidAttribute, NsidMessage},
    },
};

use super::state::is_routable;

/// What a device inside a namespace has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Inside {
    /// Addresses, without link-local ones.
    pub addresses: BTreeSet<IpAddr>,
    /// Hardware address.
    pub mac: [u8; 6],
}

/// Where namespaces are found, by their id in ours. No descriptor is held: it would keep the
/// namespace of a deleted pod alive.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    by_id: BTreeMap<i32, (PathBuf, u64)>,
}

impl Namespaces {
    /// A file of the namespace with this id, if there is one that can be opened.
    pub async fn open(&mut self, handle: &Handle, id: i32) -> Option<File> {
        if let Some(file) = self.known(id) {
            return Some(file);
        }
        self.search(handle).await;
        self.known(id)
    }

    fn known(&self, id: i32) -> Option<File> {
        let (path, inode) = self.by_id.get(&id)?;
        let file = File::open(path).ok()?;
        (file.metadata().ok()?.ino() == *inode).then_some(file)
    }

    async fn search(&mut self, handle: &Handle) {
        self.by_id.clear();
        for (inode, path) in candidates() {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            if let Some(id) = id_of(handle, &file).await {
                self.by_id.insert(id, (path, inode));
            }
        }
    }
}

/// Namespaces by inode: named ones, and those of processes.
fn candidates() -> BTreeMap<u64, PathBuf> {
    let mut found = BTreeMap::new();
    for directory in ["/run/netns", "/run/docker/netns"] {
        for path in entries(Path::new(directory)) {
            if let Ok(metadata) = fs::metadata(&path) {
                found.entry(metadata.ino()).or_insert(path);
            }
        }
    }
    for process in entries(Path::new("/proc")) {
        let is_process = process
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_process {
            continue;
        }
        let path = process.join("ns/net");
        // The link's text has the inode: no need to open most of them.
        let inode = fs::read_link(&path).ok().and_then(|link| inode_of(&link));
        if let Some(inode) = inode {
            found.entry(inode).or_insert(path);
        }
    }
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// `net:[4026531840]`.
fn inode_of(link: &Path) -> Option<u64> {
    let text = link.to_str()?;
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// The id that our namespace knows another one by (`RTM_GETNSID`).
async fn id_of(handle: &Handle, file: &File) -> Option<i32> {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(file.as_raw_fd() as u32)];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = handle.clone().request(request).ok()?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) = answer.payload
        {
            return message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                });
        }
    }
    None
}

/// Reads devices inside other namespaces, each given by its index there.
///
/// A thread of its own enters them and ends: no other code ever runs there.
pub(super) async fn read(targets: Vec<(File, u32)>) -> Vec<io::Result<Option<Inside>>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let started = thread::Builder::new()
        .name("pod-namespaces".to_owned())
        .spawn(move || {
            let read = targets
                .iter()
                .map(|(file, ifindex)| read_one(file, *ifindex))
                .collect();
            // The receiver is gone if the agent ends.
            let _ = sender.send(read);
        });
    match started {
        Ok(_) => receiver.await.unwrap_or_default(),
        Err(error) => vec![Err(error)],
    }
}

fn read_one(namespace: &File, ifindex: u32) -> io::Result<Option<Inside>> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let all: Vec<_> = getifaddrs()?.collect();
    let device = all.iter().find_map(|entry| {
        let link = *entry.address.as_ref()?.as_link_addr()?;
        (link.ifindex() == ifindex as usize).then(|| (entry.interface_name.clone(), link.addr()))
    });
    let Some((name, mac)) = device else {
        return Ok(None);
    };
    let addresses = all
        .iter()
        .filter(|entry| entry.interface_name == name)
        .filter_map(|entry| {
            let address = entry.address.as_ref()?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| is_routable(*address))
        .collect();
    Ok(Some(Inside {
        addresses,
        mac: mac.unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inodes_are_read_from_links() {
        assert_eq!(inode_of(Path::new("net:[4026531840]")), Some(4_026_531_840));
        assert_eq!(inode_of(Path::new("mnt:[4026531840]")), None);
    }

    #[test]
    fn this_process_has_a_namespace() {
        let own = fs::metadata("/proc/self/ns/net").expect("procfs").ino();
        assert!(candidates().contains_key(&own));
    }
}
