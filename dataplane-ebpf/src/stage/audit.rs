//! What policies in audit would do. It is counted and told, and changes nothing.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use dataplane_common::{
    abi::{CtVal, audit_count, capacity, ct_flags},
    verdict::DropReason,
};

use crate::{
    family::{Family, V4, V6},
    maps::local_element,
    stage::{
        conntrack::Scratch,
        create::step,
        policy::{self, EGRESS, INGRESS},
    },
};

#[btf_map(name = "audits")]
static AUDITS: PerCpuArray<u64, { capacity::AUDITS as usize }> = PerCpuArray::new();

/// A new flow.
pub const NEW: u32 = 0;
/// A flow that policies in audit would cut.
pub const LIVE: u32 = 1;
/// A flow that is counted already.
pub const KNOWN: u32 = 2;

step! {
    /// Asks the policies in audit of an allowed flow in the scratch room, which is `NEW`, `LIVE` or `KNOWN`.
    ask(whose) = audit4, audit6: audit_question
}

/// Asks the policies in audit, if there are any at an end of the flow that was judged last.
#[inline(always)]
pub fn judge<F: Family>(whose: u32) {
    if let Some(scratch) = F::scratch()
        && scratch.question.audited != 0
        && scratch.val.denied == 0
    {
        let _ = ask::<F>(whose);
    }
}

#[inline(always)]
fn audit_question<F: Family>(whose: u32) -> u32 {
    let Some(scratch) = F::scratch() else {
        return 0;
    };
    let sends = scratch.question.unresolved == 0 && audit_end::<F, EGRESS>(scratch);
    let flag = if sends {
        ct_flags::AUDIT_EGRESS
    } else if audit_end::<F, INGRESS>(scratch) {
        ct_flags::AUDIT_INGRESS
    } else {
        return 0;
    };
    scratch.val.flags |= flag;
    let ingress = (flag == ct_flags::AUDIT_INGRESS) as u32;
    let place = match whose {
        NEW => audit_count::NEW_EGRESS + ingress,
        LIVE => audit_count::LIVE_EGRESS + ingress,
        _ => return 0,
    };
    if let Some(count) = local_element(&AUDITS, place) {
        *count += 1;
    }
    0
}

/// True if an end would deny the flow.
#[inline(always)]
fn audit_end<F: Family, const DIRECTION: bool>(scratch: &mut Scratch<F::Addr>) -> bool {
    let Scratch {
        question,
        lookup,
        val,
        ..
    } = scratch;
    let audited = policy::rulesets_at::<F::Addr, DIRECTION>(question).audited;
    if audited == 0 {
        return false;
    }
    let decision = policy::ask::<F, DIRECTION>(audited, question, lookup);
    if decision.allowed != 0 {
        return false;
    }
    val.audit_rule = decision.rule;
    true
}

/// What policies in audit would do with a flow: 0, or a `DropReason` as a number.
#[inline(always)]
pub fn verdict<A>(entry: &CtVal<A>) -> u32 {
    if entry.flags & ct_flags::AUDIT_EGRESS != 0 {
        DropReason::PolicyEgress as u32
    } else if entry.flags & ct_flags::AUDIT_INGRESS != 0 {
        DropReason::PolicyIngress as u32
    } else {
        0
    }
}
