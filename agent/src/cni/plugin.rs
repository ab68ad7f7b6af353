//! The plugin's process: no runtime, no configuration but its input, nothing but a socket.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::config::{self, Command, NetConf, VERSIONS, variable};
use super::protocol::{Answer, Ask, Attachment, AttachmentId, Fault, code};
use super::{PLUGIN, result};
use crate::admin::protocol::{Request, Response};
use crate::netlink::host_side;

/// The agent answers sooner, with a reason.
const PATIENCE: Duration = Duration::from_secs(30);

/// True if the process was started as a CNI plugin: by its name or `CNI_COMMAND`, and without arguments,
/// which runtimes never give.
pub fn is_called() -> bool {
    let mut args = env::args_os();
    let name = args.next().unwrap_or_default();
    let is_ours = Path::new(&name).file_name() == Some(PLUGIN.as_ref());
    args.next().is_none() && (is_ours || env::var_os("CNI_COMMAND").is_some())
}

/// Does what the environment asks for.
pub fn main() -> ExitCode {
    let mut version = VERSIONS[VERSIONS.len() - 1].to_owned();
    let (text, code) = match run(&mut version) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(fault) => {
            let mut error = json!(fault);
            error["cniVersion"] = version.into();
            (error, ExitCode::FAILURE)
        }
    };
    match writeln!(io::stdout().lock(), "{text}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The result, if the command has one. `version` becomes the configuration's.
fn run(version: &mut String) -> Result<Option<Value>, Fault> {
    let command = Command::parse(&variable("CNI_COMMAND", get("CNI_COMMAND"))?)?;
    let mut input = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut input)
        .map_err(|error| Fault::new(code::IO, "reading the input", error.to_string()))?;
    if command == Command::Version {
        return Ok(Some(versions(&input)));
    }
    let conf = NetConf::read(&input, command)?;
    version.clone_from(&conf.version);
    match command {
        Command::Add => add(conf).map(Some),
        Command::Check => {
            let ask = Ask::Check { id: id()? };
            settle(call(&conf.socket, &ask)).map(|()| None)
        }
        Command::Del => {
            // It succeeds whatever is missing; an agent that is away learns it from the device.
            match call(&conf.socket, &Ask::Del { id: id()? }) {
                Ok(_) | Err(Away(_)) => Ok(None),
            }
        }
        Command::Gc => {
            let Some(valid) = conf.valid else {
                return Err(Fault::new(
                    code::CONFIG,
                    "no cni.dev/valid-attachments",
                    "the runtime has to say which attachments exist",
                ));
            };
            settle(call(&conf.socket, &Ask::Gc { valid })).map(|()| None)
        }
        Command::Status => match call(&conf.socket, &Ask::Status) {
            Err(Away(why)) => Err(Fault::new(code::UNAVAILABLE, "no agent", why)),
            answer => settle(answer).map(|()| None),
        },
        Command::Version => Ok(None),
    }
}

fn versions(input: &[u8]) -> Value {
    let asked: Option<Value> = serde_json::from_slice(input).ok();
    let version = asked.and_then(|asked| asked["cniVersion"].as_str().map(str::to_owned));
    json!({
        "cniVersion": version.unwrap_or_else(|| VERSIONS[VERSIONS.len() - 1].to_owned()),
        "supportedVersions": VERSIONS,
    })
}

fn add(conf: NetConf) -> Result<Value, Fault> {
    let id = id()?;
    let netns = variable("CNI_NETNS", get("CNI_NETNS"))?;
    let previous = conf.previous.unwrap_or_default();
    let addresses = result::addresses(&previous, &id.interface)?;
    let pair = host_side(Path::new(&netns), &id.interface)
        .map_err(|error| Fault::new(code::DEVICE, "the pod's device", error.to_string()))?;
    let attachment = Attachment {
        id,
        pod: config::pod(&get("CNI_ARGS").unwrap_or_default()),
        ifindex: pair.ifindex,
        name: pair.name,
        mac: pair.mac,
        host_mac: pair.host_mac,
        addresses,
    };
    let settled = settle(call(&conf.socket, &Ask::Add(Box::new(attachment))));
    match settled {
        Err(fault) if fault.code == code::TRY_AGAIN && conf.fail_open => {
            eprintln!("{PLUGIN}: {fault}; failOpen is set: the pod starts without policy");
        }
        settled => settled?,
    }
    Ok(result::convert(previous, &conf.version))
}

fn id() -> Result<AttachmentId, Fault> {
    Ok(AttachmentId {
        container: variable("CNI_CONTAINERID", get("CNI_CONTAINERID"))?,
        interface: variable("CNI_IFNAME", get("CNI_IFNAME"))?,
    })
}

fn get(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// No agent answers, and why.
struct Away(String);

fn settle(answer: Result<Answer, Away>) -> Result<(), Fault> {
    match answer {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Refused(fault)) => Err(fault),
        Err(Away(why)) => Err(Fault::new(code::TRY_AGAIN, "no agent", why)),
    }
}

fn call(socket: &Path, ask: &Ask) -> Result<Answer, Away> {
    let away = |reason: String| {
        Away(format!(
            "no answer at {}: {reason}; is the agent of this node running?",
            socket.display()
        ))
    };
    let exchange = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(&Request::Cni(ask.clone()))?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    };
    let line = exchange().map_err(|error| away(error.to_string()))?;
    if line.is_empty() {
        return Err(away("it ended".to_owned()));
    }
    match serde_json::from_str::<Response<Answer>>(&line) {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Error(text)) => Err(away(text)),
        Err(error) => Err(away(format!("the answer: {error}"))),
    }
}
