//! Nanoseconds per packet of `from_pod`, by BPF_PROG_TEST_RUN.
//!
//! A test run repeats a program on one packet, and what the program wrote stays for the next
//! repetition. So a program in front of it restores the frame and then goes on to it by a tail
//! call. The time of the same with an empty program is subtracted. The first packet of a flow
//! cannot be repeated: it is timed in single runs, of which the median counts.

mod frame;
mod world;

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::ProgramArray;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, programs::ProgramFd};
use nix::net::if_::if_nametoindex;

use super::bytecode::{self, Code, PROGRAMS, Reg, Size, TCX_NEXT};
use super::stats::Spread;
use super::traffic::PORT;
use crate::report::{Report, Row};
use crate::topology::{Cluster, Cni};
use frame::{ACK, End, LEN, SYN, SYN_ACK};
use world::PodEnd;

/// Repetitions in a run: some tens of microseconds, so that some runs are not disturbed.
const REPEAT: u32 = 200;
/// Runs, of which the fastest counts.
const RUNS: usize = 400;
/// New flows, of which the median counts.
const FLOWS: u16 = 4_000;
/// Runs before the clock starts.
const WARM_UP: usize = 20;
/// `TC_ACT_REDIRECT`.
const REDIRECTED: u32 = 7;
/// An address outside the pods' ranges.
const SERVICE: End = End {
    ip: std::net::Ipv4Addr::new(10, 96, 0, 1),
    port: 80,
};

/// Times the cases, adds a row for each, and returns them as a Markdown table.
///
/// # Errors
/// The kernel refuses something, or a packet does not take the path it should.
pub fn run(object: &Path, report: &mut Report) -> Result<String> {
    let cluster = Cluster::new(1, Cni::Ptp)?;
    let pods = [cluster.add_pod(1, "client")?, cluster.add_pod(1, "server")?];
    let cases = cluster.node(1).netns().run(|| {
        let [client, server] = [0, 1].map(|index| -> Result<PodEnd> {
            let ifindex = if_nametoindex(pods[index].host_if())?;
            let ip = pods[index].addrs().v4;
            Ok(PodEnd { ifindex, ip })
        });
        let ends = [client?, server?];
        let mut cases = Vec::new();
        for (mode, policy) in [("policy on", true), ("policy off", false)] {
            let mut ebpf = world::load(object, policy)?;
            world::fill(&mut ebpf, ends, SERVICE, PORT)?;
            let timed = time_cases(world::from_pod(&mut ebpf)?, ends, 0)?;
            let named = timed.map(|(case, nanos)| (format!("{case}, {mode}"), nanos));
            cases.extend(named);
            if policy {
                world::listen(&mut ebpf)?;
                let timed = time_cases(world::from_pod(&mut ebpf)?, ends, FLOWS)?;
                let named = timed.map(|(case, nanos)| (format!("{case}, flow events on"), nanos));
                cases.extend(named);
            }
        }
        anyhow::Ok(cases)
    })?;
    let mut table = "| packet | ns |\n|---|---|\n".to_owned();
    for (name, nanos) in cases {
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| {name} | {nanos:.0} |");
        report.push(Row {
            name: format!("from_pod: {name}"),
            expected: "to compare".to_owned(),
            measured: nanos.round().into(),
            unit: "ns".to_owned(),
            ok: true,
        });
    }
    Ok(table)
}

/// Times the cases; clients' ports are `later` than the first ones.
fn time_cases(
    program: &SchedClassifier,
    ends: [PodEnd; 2],
    later: u16,
) -> Result<[(&'static str, f64); 6]> {
    let [client, server] = ends;
    let here = End {
        ip: client.ip,
        port: 40_000 + later,
    };
    let there = End {
        ip: server.ip,
        port: PORT,
    };
    let bench = Bench::new(program)?;
    bench.open(here, there, there, ends)?;
    let other = here.with_port(here.port + 1);
    bench.open(other, SERVICE, there, ends)?;
    Ok([
        (
            "direct flow, request",
            bench.repeated(client, &frame::tcp(here, there, ACK))?,
        ),
        (
            "direct flow, reply",
            bench.repeated(server, &frame::tcp(there, here, ACK))?,
        ),
        (
            "service flow, request",
            bench.repeated(client, &frame::tcp(other, SERVICE, ACK))?,
        ),
        (
            "service flow, reply",
            bench.repeated(server, &frame::tcp(there, other, ACK))?,
        ),
        (
            "new direct flow",
            bench.new_flows(client, there, 20_000 + later)?,
        ),
        (
            "new service flow",
            bench.new_flows(client, SERVICE, 10_000 + later)?,
        ),
    ])
}

/// The program that is timed, an empty one, and the program in front of them.
struct Bench<'a> {
    program: &'a SchedClassifier,
    empty: Ebpf,
}

impl<'a> Bench<'a> {
    fn new(program: &'a SchedClassifier) -> Result<Bench<'a>> {
        let empty = Code::default()
            .set(Reg::R0, TCX_NEXT)
            .exit()
            .load_classifier()?;
        Ok(Bench { program, empty })
    }

    fn empty(&self) -> Result<&SchedClassifier> {
        bytecode::classifier_of(&self.empty)
    }

    /// Opens a connection by its three first segments; `backend` is where its answers come from.
    fn open(&self, from: End, to: End, backend: End, [client, server]: [PodEnd; 2]) -> Result<()> {
        for (pod, frame) in [
            (client, frame::tcp(from, to, SYN)),
            (server, frame::tcp(backend, from, SYN_ACK)),
            (client, frame::tcp(from, to, ACK)),
        ] {
            let (result, _) = once(self.program, pod, &frame)?;
            ensure!(
                result == REDIRECTED,
                "a packet of an allowed connection came out with {}, not {REDIRECTED}",
                result as i32
            );
        }
        Ok(())
    }

    /// Nanoseconds of a packet of an open connection.
    fn repeated(&self, pod: PodEnd, frame: &[u8; LEN]) -> Result<f64> {
        let ours = fastest(self.program.fd()?, pod, frame, REDIRECTED)?;
        let none = fastest(self.empty()?.fd()?, pod, frame, TCX_NEXT as u32)?;
        Ok(ours - none)
    }

    /// Nanoseconds of the first packet of a flow, from these ports on.
    fn new_flows(&self, pod: PodEnd, to: End, first: u16) -> Result<f64> {
        let median = |program: &SchedClassifier, first: u16, expected: u32| -> Result<f64> {
            let mut times = Vec::new();
            for port in first..first + FLOWS {
                let from = End { ip: pod.ip, port };
                let (result, nanos) = once(program, pod, &frame::tcp(from, to, SYN))?;
                ensure!(
                    result == expected,
                    "a first packet came out with {}",
                    result as i32
                );
                times.push(nanos);
            }
            Spread::of(times)
                .map(|spread| spread.median)
                .context("no runs")
        };
        let ours = median(self.program, first, REDIRECTED)?;
        Ok(ours - median(self.empty()?, first, TCX_NEXT as u32)?)
    }
}

/// The time of the fastest run of a program behind the one that restores the frame.
fn fastest(program: &ProgramFd, pod: PodEnd, frame: &[u8; LEN], expected: u32) -> Result<f64> {
    let mut front = restoring(frame).load_classifier()?;
    let mut programs = ProgramArray::try_from(front.map_mut(PROGRAMS).context("no array")?)?;
    programs.set(0, program, 0)?;
    let front = bytecode::classifier_of(&front)?;
    let mut best = f64::MAX;
    for index in 0..WARM_UP + RUNS {
        let (result, nanos) = test(front, pod, frame, REPEAT)?;
        ensure!(
            result == expected,
            "a packet came out with {}",
            result as i32
        );
        if index >= WARM_UP {
            best = best.min(nanos);
        }
    }
    Ok(best)
}

/// Writes the frame's bytes anew, then goes on to the program in the array.
fn restoring(frame: &[u8; LEN]) -> Code {
    // `__sk_buff::data` and `data_end`; `bpf_tail_call`.
    const DATA: i16 = 76;
    const DATA_END: i16 = 80;
    const TAIL_CALL: i32 = 12;
    let words = frame.chunks_exact(4);
    let rest = words.remainder();
    let stores = words.len() as i16 + 1;
    let mut code = Code::default()
        .copy(Reg::R6, Reg::R1)
        .load(Size::W, Reg::R2, Reg::R1, DATA)
        .load(Size::W, Reg::R3, Reg::R1, DATA_END)
        .copy(Reg::R4, Reg::R2)
        .plus(Reg::R4, LEN as i32)
        .skip_if_above(Reg::R4, Reg::R3, stores + 5);
    for (index, word) in (0i16..).zip(words) {
        let word = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        code = code.store(Size::W, Reg::R2, index * 4, word);
    }
    let last = i32::from(i16::from_le_bytes([rest[0], rest[1]]));
    code.store(Size::H, Reg::R2, LEN as i16 - 2, last)
        .copy(Reg::R1, Reg::R6)
        .map(Reg::R2)
        .set(Reg::R3, 0)
        .call(TAIL_CALL)
        .set(Reg::R0, 0)
        .exit()
}

fn once(program: &SchedClassifier, pod: PodEnd, frame: &[u8; LEN]) -> Result<(u32, f64)> {
    test(program, pod, frame, 1)
}

/// Runs a program on a frame that a pod sends: what it returned, and the mean time in nanoseconds.
fn test(
    program: &SchedClassifier,
    pod: PodEnd,
    frame: &[u8; LEN],
    repeat: u32,
) -> Result<(u32, f64)> {
    // `__sk_buff`, of which only ingress_ifindex and ifindex are set.
    let mut context = [0; 192];
    context[36..40].copy_from_slice(&pod.ifindex.to_ne_bytes());
    context[40..44].copy_from_slice(&pod.ifindex.to_ne_bytes());
    let mut out = [0; 256];
    let done = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        repeat,
        ..TestRunOptions::default()
    })?;
    Ok((done.return_value, done.duration.as_nanos() as f64))
}
