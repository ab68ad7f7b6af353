//! The devices that the plugin handed over.
//!
//! A pod's object has no addresses before the pod runs, so its device and its addresses are what the
//! plugin says. That is kept in files: an agent that starts again has to know pods whose objects still
//! have none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use dataplane_model::snapshot::{Event, Interface, Key, Object, ObjectKey, Pod, PodRef};
use tracing::warn;

use super::config::{is_container, is_interface};
use super::protocol::{Attachment, AttachmentId, Fault, PodName, code};

/// The attachments of this node.
#[derive(Debug, Default)]
pub struct Attachments {
    folder: PathBuf,
    all: BTreeMap<AttachmentId, Attachment>,
    /// Pods with attachments, as their source has them.
    pods: BTreeMap<ObjectKey, Pod>,
}

impl Attachments {
    /// Those of a folder, which is made with the first one. A file that cannot be read is none.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn load(folder: &Path) -> io::Result<Self> {
        let mut attachments = Self {
            folder: folder.to_owned(),
            ..Self::default()
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(attachments),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension() != Some("json".as_ref()) {
                continue;
            }
            let read = fs::read(&path)
                .and_then(|text| serde_json::from_slice::<Attachment>(&text).map_err(Into::into));
            match read {
                Ok(attachment) => {
                    attachments.all.insert(attachment.id.clone(), attachment);
                }
                Err(error) => {
                    warn!(file = %path.display(), %error, "no attachment: its pod is found by its addresses");
                }
            }
        }
        Ok(attachments)
    }

    /// Takes one in.
    ///
    /// # Errors
    ///
    /// It is not valid, or cannot be kept.
    pub fn insert(&mut self, attachment: Attachment) -> Result<(), Fault> {
        let id = &attachment.id;
        if !is_container(&id.container) || !is_interface(&id.interface) || attachment.ifindex == 0 {
            let text = format!("container {:?}, device {:?}", id.container, id.interface);
            return Err(Fault::new(code::ENVIRONMENT, "no attachment", text));
        }
        self.write(&attachment).map_err(|error| {
            let folder = self.folder.display();
            Fault::new(
                code::IO,
                "keeping the attachment",
                format!("{folder}: {error}"),
            )
        })?;
        // A device has one attachment: the newest.
        let former = self.by_device(attachment.ifindex).map(|old| old.id.clone());
        if let Some(former) = former.filter(|former| former != id) {
            self.remove(&former);
        }
        self.all.insert(attachment.id.clone(), attachment);
        Ok(())
    }

    fn write(&self, attachment: &Attachment) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let path = self.file(&attachment.id);
        let part = path.with_extension("part");
        fs::write(&part, serde_json::to_vec(attachment)?)?;
        fs::rename(part, path)
    }

    fn file(&self, id: &AttachmentId) -> PathBuf {
        // No name of a device has a colon.
        let name = format!("{}:{}.json", id.container, id.interface);
        self.folder.join(name)
    }

    /// Forgets one. What is to be folded in then is its pod as the source has it.
    pub fn remove(&mut self, id: &AttachmentId) -> Option<Event> {
        let attachment = self.all.remove(id)?;
        match fs::remove_file(self.file(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, folder = %self.folder.display(), "forgetting an attachment");
            }
            _ => {}
        }
        let key = attachment.pod?.reference().key;
        let pod = self.pods.get(&key)?.clone();
        let pod = self.completed(pod);
        if !self.of_pod(&pod).any(|_| true) {
            self.pods.remove(&key);
        }
        Some(Event::Apply(Object::Pod(pod)))
    }

    /// All, by their names.
    pub fn ids(&self) -> impl Iterator<Item = &AttachmentId> {
        self.all.keys()
    }

    /// One.
    pub fn get(&self, id: &AttachmentId) -> Option<&Attachment> {
        self.all.get(id)
    }

    /// That of a host-side device.
    pub fn by_device(&self, ifindex: u32) -> Option<&Attachment> {
        let mut all = self.all.values();
        all.find(|attachment| attachment.ifindex == ifindex)
    }

    /// Those whose devices are not among these.
    pub fn without_device(&self, devices: &BTreeSet<u32>) -> Vec<AttachmentId> {
        let all = self.all.values();
        all.filter(|attachment| !devices.contains(&attachment.ifindex))
            .map(|attachment| attachment.id.clone())
            .collect()
    }

    /// A device with what is known of it from its attachment. `polices`: where policy is enforced, it is
    /// closed until its pod is known.
    pub fn device(&self, interface: Interface, polices: bool) -> Interface {
        let Some(attachment) = self.by_device(interface.ifindex) else {
            return interface;
        };
        let known = |mac: [u8; 6], given: [u8; 6]| if mac == [0; 6] { given } else { mac };
        Interface {
            addresses: attachment.addresses.clone(),
            mac: known(interface.mac, attachment.mac),
            host_mac: known(interface.host_mac, attachment.host_mac),
            // Its pod had not started when it was handed over.
            late: false,
            pod: attachment.pod.as_ref().map(PodName::reference),
            closed: polices && attachment.pod.is_some(),
            ..interface
        }
    }

    /// An event of the source, with the addresses of pods that the plugin knows better.
    pub fn complete(&mut self, event: Event) -> Event {
        match event {
            Event::Apply(Object::Pod(pod)) if self.of_pod(&pod).any(|_| true) => {
                self.pods.insert(pod.key.clone(), pod.clone());
                Event::Apply(Object::Pod(self.completed(pod)))
            }
            Event::Apply(Object::Pod(ref pod)) => {
                self.pods.remove(&pod.key);
                event
            }
            Event::Delete(Key::Pod(ref key)) => {
                self.pods.remove(key);
                event
            }
            event => event,
        }
    }

    /// What is to be folded in for the pod of a new attachment, which is known as `pod`.
    pub fn pod(&mut self, pod: &Pod) -> Event {
        let own = self.pods.get(&pod.key).unwrap_or(pod).clone();
        self.complete(Event::Apply(Object::Pod(own)))
    }

    fn completed(&self, pod: Pod) -> Pod {
        let ips: Vec<IpAddr> = self
            .of_pod(&pod)
            .flat_map(|a| &a.addresses)
            .copied()
            .collect();
        if ips.is_empty() {
            return pod;
        }
        Pod { ips, ..pod }
    }

    fn of_pod(&self, pod: &Pod) -> impl Iterator<Item = &Attachment> {
        let all = self.all.values();
        all.filter(|attachment| {
            let named = attachment.pod.as_ref();
            named.is_some_and(|named| named.reference().is(pod))
        })
    }
}

impl PodName {
    /// The pod as the model names it.
    pub fn reference(&self) -> PodRef {
        PodRef {
            key: ObjectKey::new(self.namespace.as_str(), self.name.as_str()),
            uid: self.uid.as_str().into(),
        }
    }
}

#[cfg(test)]
mod tests;
