//! kube-proxy's flags on our command line.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Command};
use serde_json::{Map, Value};

use super::effect::{Effect, FIELDS, Field, Form};
use super::{Configuration, Given, Ignored};
use crate::config::{self, File};

/// Those that hold beside kube-proxy's configuration file, too.
const BESIDE_A_FILE: [&str; 3] = ["hostname-override", "v", "logging-format"];

/// The address of the API server: it has no field.
const MASTER: &str = "master";

/// The flags that were given, with their values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags(BTreeMap<&'static str, String>);

impl Flags {
    /// What the flags ask for, above the settings of our own file.
    ///
    /// # Errors
    ///
    /// A value that its flag cannot have.
    pub fn above(&self, file: File) -> Result<Given, config::Error> {
        let (above, ignored) = self.meaning(|_| true)?;
        Ok(Given {
            file,
            above,
            ignored,
        })
    }

    /// What the flags ask for beside kube-proxy's configuration file: little, as in kube-proxy.
    ///
    /// # Errors
    ///
    /// A value that its flag cannot have.
    pub fn beside(&self, mut given: Given) -> Result<Given, config::Error> {
        let counts = |flag: &str| BESIDE_A_FILE.contains(&flag);
        let (above, ignored) = self.meaning(counts)?;
        let unheard = self.0.keys().filter(|flag| !counts(flag));
        let why = "kube-proxy's configuration file goes before it";
        given.above = above;
        given.ignored.extend(ignored);
        given
            .ignored
            .extend(unheard.map(|flag| (format!("--{flag}"), why)));
        Ok(given)
    }

    fn meaning(&self, counts: impl Fn(&str) -> bool) -> Result<(File, Ignored), config::Error> {
        let mut tree = Value::Object(Map::new());
        let mut ignored = Vec::new();
        let mut api_server = None;
        for field in FIELDS {
            let Some(text) = self.0.get(field.flag).filter(|_| counts(field.flag)) else {
                continue;
            };
            let value = value(field, text)?;
            match field.effect {
                Effect::Ignored(why) if value != Value::Bool(false) => {
                    ignored.push((format!("--{}", field.flag), why));
                }
                Effect::Ignored(_) | Effect::Moot => {}
                Effect::Kept if field.flag == MASTER => api_server = Some(text.clone()),
                Effect::Kept => {
                    // These flags are for all modes, their fields for one.
                    for mode in ["iptables.masqueradeAll", "iptables.syncPeriod"] {
                        if field.path == mode {
                            let path = mode.replace("iptables", "nftables");
                            put(&mut tree, &path, value.clone());
                        }
                    }
                    put(&mut tree, field.path, value);
                }
            }
        }
        let wrong = |message: String| config::Error::Value {
            name: "kube-proxy's flags",
            message,
        };
        let config: Configuration =
            serde_json::from_value(tree).map_err(|error| wrong(error.to_string()))?;
        let file = File {
            api_server,
            ..config.settings().map_err(wrong)?
        };
        Ok((file, ignored))
    }
}

/// A flag's value as its field would hold it.
fn value(field: &Field, text: &str) -> Result<Value, config::Error> {
    let wrong = |expected: &str| config::Error::Flag {
        flag: field.flag,
        message: format!("{text:?} is not {expected}"),
    };
    match field.form {
        Form::Text => Ok(text.into()),
        Form::Bool => match text {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true.into()),
            "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false.into()),
            _ => Err(wrong("true or false")),
        },
        Form::Number => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => Ok(number.into()),
            (_, Ok(number)) => Ok(number.into()),
            _ => Err(wrong("a number")),
        },
        Form::List => {
            let items = text.split(',').filter(|item| !item.is_empty());
            Ok(items.map(Value::from).collect())
        }
    }
}

/// Puts a value at a path.
fn put(tree: &mut Value, path: &str, value: Value) {
    let place = path.split('.').fold(tree, |node, name| &mut node[name]);
    *place = value;
}

fn help(field: &Field) -> String {
    match field.effect {
        Effect::Kept if field.flag == MASTER => "As --api-server".to_owned(),
        Effect::Kept => format!("As {} in KubeProxyConfiguration", field.path),
        Effect::Moot => "Accepted: what it asks for holds in any case".to_owned(),
        Effect::Ignored(why) => format!("Accepted, does nothing: {why}"),
    }
}

fn argument(field: &'static Field) -> Arg {
    let argument = Arg::new(field.flag)
        .long(field.flag)
        .help(help(field))
        .help_heading("kube-proxy's flags")
        .hide_short_help(true);
    let argument = match field.form {
        Form::Bool => argument
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Form::Number => argument.value_name("N").allow_negative_numbers(true),
        Form::Text => argument.value_name("TEXT"),
        Form::List => argument.value_name("LIST"),
    };
    match field.flag {
        "v" => argument.short('v'),
        _ => argument,
    }
}

fn flags() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(|field| !field.flag.is_empty())
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for field in flags() {
            if let Some(value) = matches.get_one::<String>(field.flag) {
                self.0.insert(field.flag, value.clone());
            }
        }
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(flags().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
