//! Complete listings.

use std::collections::BTreeSet;

use futures_util::{Stream, TryStreamExt};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{AddressFamily, neighbour::NeighbourMessage, tc::TcAttribute},
};

use super::{
    Error, NetState,
    state::{address, link, routes},
};

/// Kinds of listings, as bits.
pub(super) mod part {
    /// Devices.
    pub const LINKS: u8 = 1;
    /// Addresses.
    pub const ADDRESSES: u8 = 2;
    /// Routes.
    pub const ROUTES: u8 = 4;
    /// Qdiscs.
    pub const QDISCS: u8 = 8;
    /// Everything.
    pub const ALL: u8 = 15;
}

/// Lists anew what `parts` names.
pub(super) async fn refresh(handle: &Handle, state: &mut NetState, parts: u8) -> Result<(), Error> {
    if parts & part::LINKS != 0 {
        let messages = collect("devices", handle.link().get().execute()).await?;
        state.links = messages.into_iter().map(link).collect();
    }
    if parts & part::ADDRESSES != 0 {
        let messages = collect("addresses", handle.address().get().execute()).await?;
        state.addresses = messages.iter().filter_map(address).collect();
    }
    if parts & part::ROUTES != 0 {
        state.routes = list_routes(handle).await?;
    }
    if parts & part::QDISCS != 0 {
        state.ingress_qdiscs = list_qdiscs(handle).await?;
    }
    Ok(())
}

async fn list_routes(handle: &Handle) -> Result<BTreeSet<super::Route>, Error> {
    let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    let mut all = BTreeSet::new();
    for query in [v4, v6] {
        let messages = collect("routes", handle.route().get(query).execute()).await?;
        all.extend(messages.iter().flat_map(routes));
    }
    Ok(all)
}

/// Devices with an ingress or clsact qdisc, and whether it is a clsact one.
async fn list_qdiscs(handle: &Handle) -> Result<BTreeSet<(u32, bool)>, Error> {
    let messages = collect("qdiscs", handle.qdisc().get().execute()).await?;
    let kinds = messages.iter().filter_map(|message| {
        let kind = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind.as_str()),
                _ => None,
            })?;
        let index = u32::try_from(message.header.index).ok()?;
        match kind {
            "clsact" => Some((index, true)),
            "ingress" => Some((index, false)),
            _ => None,
        }
    });
    Ok(kinds.collect())
}

/// Neighbours of one family (for bridges: their forwarding entries).
pub(super) async fn neighbours(
    handle: &Handle,
    family: AddressFamily,
) -> Result<Vec<NeighbourMessage>, Error> {
    let query = handle.neighbours().get().set_address_family(family);
    collect("neighbours", query.execute()).await
}

async fn collect<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, Error> {
    stream
        .try_collect()
        .await
        .map_err(|source| Error::List { what, source })
}
