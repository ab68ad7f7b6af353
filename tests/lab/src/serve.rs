//! `sluice-lab serve`: a pod's server, as a process.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use sluice_lab::workload::process::LISTENING;
use sluice_lab::workload::{Server, ServerSpec};

/// What to serve.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The name to answer with.
    #[arg(long)]
    name: String,
    /// The version to answer with.
    #[arg(long, default_value = "")]
    version: String,
    /// Ports to serve HTTP on.
    #[arg(long)]
    tcp: Vec<u16>,
    /// Ports to answer datagrams on.
    #[arg(long)]
    udp: Vec<u16>,
    /// The addresses to answer datagrams at; without any, at all.
    #[arg(long)]
    udp_at: Vec<IpAddr>,
    /// Let /ready say no.
    #[arg(long)]
    not_ready: bool,
    /// Go on when the standard input ends; without it, the server ends with the program that
    /// started it.
    #[arg(long)]
    stay: bool,
}

/// Why to end.
enum End {
    /// SIGTERM: finish what is under way.
    Drain,
    /// The parent is gone.
    Now,
}

/// Serves until SIGTERM, or until the standard input ends.
pub fn run(args: Args) -> Result<()> {
    let (ends, end) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM])?;
    let Args {
        name,
        version,
        tcp,
        udp,
        udp_at,
        not_ready,
        stay,
    } = args;
    let server = Server::start(ServerSpec {
        name,
        version,
        tcp,
        udp,
        udp_at,
        not_ready,
    })?;
    println!("{LISTENING}");
    io::stdout()
        .flush()
        .context("nobody reads what the server says")?;
    let on_signal = ends.clone();
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // Nobody listens once the server ends.
            let _ = on_signal.send(End::Drain);
        }
    });
    if !stay {
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            let _ = ends.send(End::Now);
        });
    }
    if let Ok(End::Drain) = end.recv() {
        server.drain();
    }
    Ok(())
}
