//! The text that scrapers read: OpenMetrics, or Prometheus' text format 0.0.4 for those that do not
//! ask for it.

/// A form of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus 0.0.4.
    Classic,
}

impl Form {
    /// For `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What the header `Accept` asks for.
pub fn form(accept: &str) -> Form {
    if accept.contains("application/openmetrics-text") {
        Form::OpenMetrics
    } else {
        Form::Classic
    }
}

/// The text in another form than OpenMetrics: there, a counter's family is called as its samples
/// are, and nothing marks the end.
pub fn convert(text: String, form: Form) -> String {
    if form == Form::OpenMetrics {
        return text;
    }
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let infos: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" info"))
        .collect();
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let (suffix, rest) = match (counters.contains(&name), infos.contains(&name)) {
                    (true, _) => ("_total", rest),
                    (_, true) if kind == "TYPE" => ("_info", "gauge"),
                    (_, true) => ("_info", rest),
                    _ => ("", rest),
                };
                classic.push_str(&format!("# {kind} {name}{suffix} {rest}\n"));
            }
            _ => {
                classic.push_str(line);
                classic.push('\n');
            }
        }
    }
    classic
}
