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
use aya::Ebpf;
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TestRun, TestRunOptions};
use dataplane_common::abi::name;
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
/// New flows of either kind, of which the median counts.
const FLOWS: u16 = 10_000;
/// How much flow events may add to a packet.
const HEARD: f64 = 1.05;
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
    let modes = cluster.node(1).netns().run(|| {
        let [client, server] = [0, 1].map(|index| -> Result<PodEnd> {
            let ifindex = if_nametoindex(pods[index].host_if())?;
            let ip = pods[index].addrs().v4;
            Ok(PodEnd { ifindex, ip })
        });
        let ends = [client?, server?];
        [("policy on", true), ("policy off", false)]
            .into_iter()
            .map(|(mode, policy)| {
                let mut ebpf = world::load(object, policy)?;
                world::fill(&mut ebpf, ends, SERVICE, PORT)?;
                let listeners = Listeners::take(&mut ebpf)?;
                Ok((
                    mode,
                    time_cases(world::from_pod(&mut ebpf)?, listeners, ends)?,
                ))
            })
            .collect::<Result<Vec<_>>>()
    })?;
    let mut table = "| packet | ns | ns, flow events on |\n|---|---|---|\n".to_owned();
    for (mode, cases) in modes {
        for (case, timed) in cases {
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {case}, {mode} | {:.0} | {:.0} |",
                timed[0], timed[1]
            );
            rows(&format!("from_pod: {case}, {mode}"), timed, report);
        }
    }
    Ok(table)
}

/// A packet's time, and what flow events add to it.
fn rows(name: &str, [unheard, heard]: [f64; 2], report: &mut Report) {
    report.push(Row {
        name: name.to_owned(),
        expected: "to compare".to_owned(),
        measured: unheard.round().into(),
        unit: "ns".to_owned(),
        ok: true,
    });
    let ratio = heard / unheard;
    report.push(Row {
        name: format!("{name}: flow events on over off"),
        expected: format!("≤ {HEARD}"),
        measured: ratio.into(),
        unit: String::new(),
        ok: ratio <= HEARD,
    });
}

/// Times the cases: while nobody listens to flow events, and while one does, by turns.
fn time_cases(
    program: &SchedClassifier,
    listeners: Listeners,
    ends: [PodEnd; 2],
) -> Result<[(&'static str, [f64; 2]); 6]> {
    let [client, server] = ends;
    let here = End {
        ip: client.ip,
        port: 40_000,
    };
    let there = End {
        ip: server.ip,
        port: PORT,
    };
    let mut bench = Bench::new(program, listeners)?;
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
        ("new direct flow", bench.new_flows(client, there, 10_000)?),
        (
            "new service flow",
            bench.new_flows(client, SERVICE, 41_000)?,
        ),
    ])
}

/// How many listen to flow events.
struct Listeners(Array<MapData, u32>);

impl Listeners {
    fn take(ebpf: &mut Ebpf) -> Result<Listeners> {
        let map = ebpf.take_map(name::LISTENERS).context("no listeners")?;
        Ok(Listeners(Array::try_from(map)?))
    }

    fn set(&mut self, is_heard: bool) -> Result<()> {
        Ok(self.0.set(0, u32::from(is_heard), 0)?)
    }
}

/// The program that is timed, an empty one, and the program in front of them.
struct Bench<'a> {
    program: &'a SchedClassifier,
    empty: Ebpf,
    listeners: Listeners,
}

impl<'a> Bench<'a> {
    fn new(program: &'a SchedClassifier, listeners: Listeners) -> Result<Bench<'a>> {
        let empty = Code::default()
            .set(Reg::R0, TCX_NEXT)
            .exit()
            .load_classifier()?;
        Ok(Bench {
            program,
            empty,
            listeners,
        })
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

    /// Nanoseconds of a packet of an open connection, unheard and heard.
    fn repeated(&mut self, pod: PodEnd, frame: &[u8; LEN]) -> Result<[f64; 2]> {
        let ours = Front::of(self.program.fd()?, frame, REDIRECTED)?;
        let none = Front::of(self.empty()?.fd()?, frame, TCX_NEXT as u32)?;
        let mut best = [[f64::MAX; 2]; 2];
        for index in 0..WARM_UP + RUNS {
            for (is_heard, best) in [false, true].into_iter().zip(&mut best) {
                self.listeners.set(is_heard)?;
                let times = [ours.run(pod, frame)?, none.run(pod, frame)?];
                if index >= WARM_UP {
                    *best = [best[0].min(times[0]), best[1].min(times[1])];
                }
            }
        }
        Ok(best.map(|[ours, none]| ours - none))
    }

    /// Nanoseconds of the first packet of a flow, unheard and heard, from these ports on.
    fn new_flows(&mut self, pod: PodEnd, to: End, first: u16) -> Result<[f64; 2]> {
        let mut times: [[Vec<f64>; 2]; 2] = Default::default();
        for port in first..first + 2 * FLOWS {
            let heard = usize::from(port % 2);
            self.listeners.set(heard != 0)?;
            let from = End { ip: pod.ip, port };
            let frame = frame::tcp(from, to, SYN);
            let programs = [(self.program, REDIRECTED), (self.empty()?, TCX_NEXT as u32)];
            for ((program, expected), times) in programs.into_iter().zip(&mut times[heard]) {
                let (result, nanos) = once(program, pod, &frame)?;
                ensure!(
                    result == expected,
                    "a first packet came out with {}",
                    result as i32
                );
                times.push(nanos);
            }
        }
        let median = |times: Vec<f64>| Spread::of(times).map_or(f64::NAN, |spread| spread.median);
        Ok(times.map(|[ours, none]| median(ours) - median(none)))
    }
}

/// A program behind the one that restores the frame.
struct Front {
    ebpf: Ebpf,
    expected: u32,
}

impl Front {
    fn of(program: &ProgramFd, frame: &[u8; LEN], expected: u32) -> Result<Front> {
        let mut ebpf = restoring(frame).load_classifier()?;
        let mut programs = ProgramArray::try_from(ebpf.map_mut(PROGRAMS).context("no array")?)?;
        programs.set(0, program, 0)?;
        Ok(Front { ebpf, expected })
    }

    /// Nanoseconds of one repetition.
    fn run(&self, pod: PodEnd, frame: &[u8; LEN]) -> Result<f64> {
        let (result, nanos) = test(bytecode::classifier_of(&self.ebpf)?, pod, frame, REPEAT)?;
        ensure!(
            result == self.expected,
            "a packet came out with {}",
            result as i32
        );
        Ok(nanos)
    }
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
