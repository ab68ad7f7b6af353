//! As much of HTTP/1.1 as the server and the clients need: GET with keep-alive, and bodies whose
//! length is given.

use std::io::{self, BufRead, Read, Write};

/// The longest line that is read.
const LINE_LIMIT: u64 = 8192;
/// The longest body that is read.
const BODY_LIMIT: u64 = 2 << 20;

/// What of a request the server acts on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its path.
    pub path: String,
    /// Whether the client closes after the answer.
    pub close: bool,
}

/// What of a response a client acts on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// The status code.
    pub status: u16,
    /// Whether the server closes after it.
    pub close: bool,
    /// The body.
    pub body: String,
}

/// Reads one request; none when the client closed between two requests.
pub(super) fn read_request(from: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = read_line(from)? else {
        return Ok(None);
    };
    let path = first
        .split(' ')
        .nth(1)
        .ok_or_else(|| malformed("request line"))?
        .to_owned();
    let headers = Headers::read(from)?;
    Ok(Some(Request {
        path,
        close: headers.close,
    }))
}

/// Writes one request in one piece.
pub(super) fn write_request(to: &mut impl Write, path: &str, close: bool) -> io::Result<()> {
    let connection = if close { "close" } else { "keep-alive" };
    let head = format!("GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: {connection}\r\n\r\n");
    to.write_all(head.as_bytes())
}

/// Reads one response.
pub(super) fn read_response(from: &mut impl BufRead) -> io::Result<Response> {
    let first = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| malformed("status line"))?;
    let headers = Headers::read(from)?;
    if headers.length > BODY_LIMIT {
        return Err(malformed("content-length"));
    }
    let mut body = String::new();
    let read = from.take(headers.length).read_to_string(&mut body)?;
    if read as u64 != headers.length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Response {
        status,
        close: headers.close,
        body,
    })
}

/// Writes one response in one piece.
pub(super) fn write_response(to: &mut impl Write, response: &Response) -> io::Result<()> {
    let Response {
        status,
        close,
        body,
    } = response;
    let reason = if *status == 200 {
        "OK"
    } else {
        "Service Unavailable"
    };
    let connection = if *close { "close" } else { "keep-alive" };
    let whole = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: {connection}\r\n\r\n{body}",
        body.len()
    );
    to.write_all(whole.as_bytes())
}

/// The headers that matter here.
#[derive(Default)]
struct Headers {
    length: u64,
    close: bool,
}

impl Headers {
    fn read(from: &mut impl BufRead) -> io::Result<Headers> {
        let mut headers = Headers::default();
        loop {
            let line = read_line(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed("header"))?;
            if name.eq_ignore_ascii_case("content-length") {
                headers.length = value
                    .trim()
                    .parse()
                    .map_err(|_| malformed("content-length"))?;
            } else if name.eq_ignore_ascii_case("connection") {
                headers.close = value.trim().eq_ignore_ascii_case("close");
            }
        }
    }
}

/// A line without its end; none at the end of the stream.
fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if from.take(LINE_LIMIT).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with('\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_as_it_was_written() {
        let response = Response {
            status: 200,
            close: true,
            body: "a b c\n".to_owned(),
        };
        let mut wire = Vec::new();
        write_response(&mut wire, &response).unwrap();
        assert_eq!(read_response(&mut wire.as_slice()).unwrap(), response);
    }

    #[test]
    fn a_response_cut_short_anywhere_is_an_error() {
        let response = Response {
            status: 200,
            close: false,
            body: "body".to_owned(),
        };
        let mut wire = Vec::new();
        write_response(&mut wire, &response).unwrap();
        for length in 0..wire.len() {
            let error = read_response(&mut &wire[..length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "at {length}");
        }
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let mut wire = Vec::new();
        write_request(&mut wire, "/ready", true).unwrap();
        let mut from = wire.as_slice();
        let request = Request {
            path: "/ready".to_owned(),
            close: true,
        };
        assert_eq!(read_request(&mut from).unwrap(), Some(request));
        assert_eq!(read_request(&mut from).unwrap(), None);
    }
}
