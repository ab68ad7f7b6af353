//! A server of HTTP/1.1 that answers as a script says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Access, DEADLINE, bookmark, is_stream};

/// What is answered to a request.
pub enum Answer {
    /// Nothing, for ever.
    Silence,
    /// The connection is closed with a reset.
    Reset,
    /// An answer whose length is known.
    Whole(u16, &'static str, String),
    /// Parts of a stream; it stays open after them.
    Open(Vec<String>),
    /// Parts of a stream; it ends after them.
    Ended(Vec<String>),
    /// Parts of a stream; the connection breaks after them.
    Broken(Vec<String>),
}

impl Answer {
    /// A good whole answer.
    pub fn good(text: String) -> Self {
        Self::Whole(200, "", text)
    }

    /// A refusal, with a `Status`.
    pub fn refused(code: u16) -> Self {
        let text = format!(
            r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"refused with {code}","code":{code}}}"#
        );
        Self::Whole(code, "", text)
    }
}

type Script = Box<dyn FnMut(&str) -> Option<Answer> + Send>;
type Log = Arc<Mutex<Vec<Asked>>>;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// GET or another.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What was sent with it.
    pub body: String,
}

/// The server.
pub struct Server {
    port: u16,
    log: Log,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts it. A request that the script leaves out is answered by that of an empty cluster.
    pub async fn start(script: impl FnMut(&str) -> Option<Answer> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let log = Log::default();
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let mut tasks = JoinSet::new();
        let requests = Arc::clone(&log);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&requests)));
            }
        });
        Self {
            port,
            log,
            _tasks: tasks,
        }
    }

    /// How to reach it.
    pub fn access(&self) -> Access {
        let file =
            std::env::temp_dir().join(format!("sluice-api-{}-{}", std::process::id(), self.port));
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: \
             {{server: \"http://127.0.0.1:{}\"}}}}], users: [{{name: c, user: {{}}}}], contexts: \
             [{{name: c, context: {{cluster: c, user: c}}}}]}}",
            self.port
        );
        std::fs::write(&file, text).expect("a kubeconfig");
        Access {
            kubeconfig: Some(file),
            api_server: None,
        }
    }

    /// The targets of requests that begin so.
    pub fn requests(&self, prefix: &str) -> Vec<String> {
        let asked = self.asked(prefix).into_iter();
        asked.map(|asked| asked.target).collect()
    }

    /// When requests came that begin so.
    pub fn times(&self, prefix: &str) -> Vec<(Instant, String)> {
        let asked = self.asked(prefix).into_iter();
        asked.map(|asked| (asked.at, asked.target)).collect()
    }

    /// Requests whose targets begin so.
    pub fn asked(&self, prefix: &str) -> Vec<Asked> {
        let log = self.log.lock().expect("the log");
        log.iter()
            .filter(|asked| asked.target.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Waits for so many requests of a method whose targets begin so.
    pub async fn await_asked(&self, method: &str, prefix: &str, count: usize) -> Vec<Asked> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut asked = self.asked(prefix);
            asked.retain(|asked| asked.method == method);
            if asked.len() >= count {
                return asked;
            }
            assert!(Instant::now() < deadline, "not in time: {asked:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(file) = self.access().kubeconfig {
            let _ = std::fs::remove_file(file);
        }
    }
}

async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>, log: Log) {
    stream.set_nodelay(true).expect("no delay");
    let mut stream = BufReader::new(stream);
    loop {
        let Some(asked) = read(&mut stream).await else {
            return;
        };
        let target = asked.target.clone();
        log.lock().expect("the log").push(asked);
        let answer = (script.lock().expect("the script"))(&target);
        if answer_with(&mut stream, answer.unwrap_or_else(|| quiet(&target)))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The next request; `None` if the client went.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut first = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line).await {
            Ok(0) | Err(_) => return None,
            Ok(_) if line == "\r\n" => break,
            Ok(_) if first.is_empty() => first = line,
            Ok(_) => {
                let line = line.to_lowercase();
                if let Some(text) = line.strip_prefix("content-length:") {
                    length = text.trim().parse().expect("a length");
                }
            }
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    Some(Asked {
        at: Instant::now(),
        method: words.next()?,
        target: words.next()?,
        body: String::from_utf8(body).expect("text"),
    })
}

/// A cluster without objects.
fn quiet(target: &str) -> Answer {
    if is_stream(target) {
        Answer::Open(vec![bookmark(1, true)])
    } else if target.contains("watch=1") {
        Answer::Open(Vec::new())
    } else {
        Answer::refused(404)
    }
}

/// Answers; an error ends the connection.
async fn answer_with(stream: &mut BufReader<TcpStream>, answer: Answer) -> std::io::Result<()> {
    let ended = Err(std::io::ErrorKind::ConnectionAborted.into());
    let (parts, then) = match answer {
        Answer::Silence => return std::future::pending().await,
        Answer::Reset => {
            stream.get_ref().set_zero_linger()?;
            return ended;
        }
        Answer::Whole(code, headers, text) => {
            let head = format!(
                "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
                text.len()
            );
            stream.write_all(head.as_bytes()).await?;
            return stream.write_all(text.as_bytes()).await;
        }
        Answer::Open(parts) => (parts, Some(true)),
        Answer::Ended(parts) => (parts, Some(false)),
        Answer::Broken(parts) => (parts, None),
    };
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    for part in parts {
        let chunk = format!("{:x}\r\n{part}\r\n", part.len());
        stream.write_all(chunk.as_bytes()).await?;
    }
    match then {
        // Until the client goes.
        Some(true) => {
            stream.fill_buf().await?;
            ended
        }
        Some(false) => stream.write_all(b"0\r\n\r\n").await,
        None => {
            stream.get_ref().set_zero_linger()?;
            ended
        }
    }
}
