//! The floor of every design that redirects: two programs that do nothing else.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::programs::{LinkOrder, TcAttachType, tc::TcAttachOptions};
use nix::net::if_::if_nametoindex;

use crate::bench::bytecode::{self, Code, REDIRECT_PEER, Reg, Size, TCX_NEXT};
use crate::topology::Pod;

/// Hands all IPv4 packets of each of two pods to the other one.
///
/// # Errors
/// The kernel has no tcx (6.6), or refuses the programs.
pub fn join(one: &Pod, other: &Pod) -> Result<[Ebpf; 2]> {
    Ok([redirect(one, other)?, redirect(other, one)?])
}

fn redirect(from: &Pod, to: &Pod) -> Result<Ebpf> {
    from.node().netns().run(|| {
        let target = if_nametoindex(to.host_if())?;
        let mut ebpf = program(target).load_classifier()?;
        let program = bytecode::classifier(&mut ebpf)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        program
            .attach_with_options(from.host_if(), TcAttachType::Ingress, options)
            .context("cannot attach by tcx, which needs Linux 6.6")?;
        Ok(ebpf)
    })
}

fn program(target: u32) -> Code {
    // `__sk_buff::protocol`.
    const PROTOCOL: i16 = 16;
    let ipv4 = i32::from(0x0800u16.to_be());
    Code::default()
        .load(Size::W, Reg::R2, Reg::R1, PROTOCOL)
        .set(Reg::R0, TCX_NEXT)
        .skip_unless(Reg::R2, ipv4, 3)
        .set(Reg::R1, target as i32)
        .set(Reg::R2, 0)
        .call(REDIRECT_PEER)
        .exit()
}
