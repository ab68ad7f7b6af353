//! What the maps say of flows, affinities and half-open counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane_common::abi::{
    Abi, Addr4, Addr6, Address, AffinityKey, AffinityVal, CtKey, CtVal, Port, capacity, name,
};

use crate::{
    kernel::{HZ, Kernel},
    world::{End, Family, Host, World, addr4, addr6},
};

impl Kernel {
    /// The flow between two ends, in a layer.
    pub fn flow_in(
        &self,
        layer: u8,
        proto: u8,
        (one, other): ((IpAddr, Port), (IpAddr, Port)),
    ) -> Option<CtVal<IpAddr>> {
        let [v4, v6] = name::CONNTRACK;
        if one.0.is_ipv4() {
            let key = key(layer, proto, one, other, addr4);
            let val: Option<CtVal<Addr4>> = self.read(v4, &key);
            val.map(|val| with_addresses(&val, |addr| Ipv4Addr::from(addr).into()))
        } else {
            let key = key(layer, proto, one, other, addr6);
            let val: Option<CtVal<Addr6>> = self.read(v6, &key);
            val.map(|val| with_addresses(&val, |addr| Ipv6Addr::from(addr).into()))
        }
    }
}

impl World {
    /// The flow under a tuple.
    pub fn flow(&self, proto: u8, one: End, other: End) -> Option<CtVal<IpAddr>> {
        self.flow_in(0, proto, one, other)
    }

    /// The flow under a tuple, in a layer.
    pub fn flow_in(&self, layer: u8, proto: u8, one: End, other: End) -> Option<CtVal<IpAddr>> {
        let ends = (self.end(one), self.end(other));
        self.kernel.flow_in(layer, proto, ends)
    }

    /// Changes the flow under a tuple.
    pub fn change_flow(
        &self,
        proto: u8,
        one: End,
        other: End,
        change: impl FnOnce(&mut CtVal<IpAddr>),
    ) {
        let mut val = self.flow(proto, one, other).expect("a flow to change");
        change(&mut val);
        let (one, other) = (self.end(one), self.end(other));
        let map = self.of(name::CONNTRACK);
        match self.family {
            Family::V4 => {
                let key = key(0, proto, one, other, addr4);
                self.kernel.write(map, &key, &with_addresses(&val, addr4));
            }
            Family::V6 => {
                let key = key(0, proto, one, other, addr6);
                self.kernel.write(map, &key, &with_addresses(&val, addr6));
            }
        }
    }

    /// Lets a flow stand idle for some seconds.
    pub fn age(&self, proto: u8, one: End, other: End, secs: u32) {
        self.change_flow(proto, one, other, |flow| {
            flow.last_seen = flow.last_seen.wrapping_sub(secs * HZ);
        });
    }

    /// Lets a client's affinity to a Service port stand unused for some seconds.
    pub fn age_affinity(&self, client: Host, service_port: u32, secs: u32) {
        let map = self.of(name::AFFINITY);
        let older = |val: AffinityVal| AffinityVal {
            last_used: val.last_used.wrapping_sub(secs * HZ),
            ..val
        };
        match self.family {
            Family::V4 => {
                let key = AffinityKey {
                    client: addr4(self.ip(client)),
                    service_port,
                    reserved: 0,
                };
                let val = self.kernel.read(map, &key).expect("an affinity");
                self.kernel.write(map, &key, &older(val));
            }
            Family::V6 => {
                let key = AffinityKey {
                    client: addr6(self.ip(client)),
                    service_port,
                    reserved: 0,
                };
                let val = self.kernel.read(map, &key).expect("an affinity");
                self.kernel.write(map, &key, &older(val));
            }
        }
    }

    /// How many entries the family's conntrack has.
    pub fn flows(&self) -> usize {
        let map = self.of(name::CONNTRACK);
        match self.family {
            Family::V4 => self.kernel.keys::<CtKey<Addr4>>(map).len(),
            Family::V6 => self.kernel.keys::<CtKey<Addr6>>(map).len(),
        }
    }

    /// The half-open flows that are counted for a device.
    pub fn half_open(&self, ifindex: u32) -> u32 {
        self.kernel
            .read(name::HALF_OPEN, &ifindex)
            .expect("an array's element")
    }

    /// The half-open flows that are counted for the node.
    pub fn half_open_total(&self) -> u32 {
        self.half_open(capacity::HALF_OPEN - 1)
    }

    fn end(&self, (host, port): End) -> (IpAddr, Port) {
        (self.ip(host), Port::new(port))
    }
}

fn key<A: Address>(
    layer: u8,
    proto: u8,
    one: (IpAddr, Port),
    other: (IpAddr, Port),
    addr: impl Fn(IpAddr) -> A,
) -> CtKey<A>
where
    CtKey<A>: Abi,
{
    let (key, _) = CtKey::sorted(addr(one.0), addr(other.0), one.1, other.1, proto);
    CtKey { layer, ..key }
}

fn with_addresses<A: Copy, B>(val: &CtVal<A>, convert: impl Fn(A) -> B) -> CtVal<B> {
    CtVal {
        nat_dst: convert(val.nat_dst),
        nat_src: convert(val.nat_src),
        nat_dst_port: val.nat_dst_port,
        nat_src_port: val.nat_src_port,
        flags: val.flags,
        state: val.state,
        denied: val.denied,
        epoch: val.epoch,
        last_seen: val.last_seen,
        frontend: val.frontend,
        backend: val.backend,
        generation: val.generation,
        initiator_ifindex: val.initiator_ifindex,
        responder_ifindex: val.responder_ifindex,
        egress_rule: val.egress_rule,
        ingress_rule: val.ingress_rule,
        audit_rule: val.audit_rule,
    }
}
