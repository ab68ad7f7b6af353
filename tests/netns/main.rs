//! Tests on real namespaces: root, and the programs in the kernel. `cargo xtask test` runs them.

#[cfg(test)]
mod affinity;
#[cfg(test)]
mod beside;
#[cfg(test)]
mod bulk;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod cni;
#[cfg(test)]
mod domains;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod external;
#[cfg(test)]
mod first_packet;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod hairpin;
#[cfg(test)]
mod host_network;
#[cfg(test)]
mod host_sockets;
#[cfg(test)]
mod icmp;
#[cfg(test)]
mod io;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod locality;
#[cfg(test)]
mod masquerade;
#[cfg(test)]
mod mtu;
#[cfg(test)]
mod nodeport;
#[cfg(test)]
mod offload;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod sctp;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod services;
#[cfg(test)]
mod slices;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod tiers;
#[cfg(test)]
mod topology;
#[cfg(test)]
mod udp;
#[cfg(test)]
mod weights;
#[cfg(test)]
mod why;
#[cfg(test)]
mod world;
#[cfg(test)]
mod xdp;
