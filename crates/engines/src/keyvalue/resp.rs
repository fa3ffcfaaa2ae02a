//! The engine's protocol, version 2, as far as a client needs it that subscribes to nothing:
//! requests are lists of words, answers are read whole. No I/O beyond the stream it is given.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// LIMIT: one line of an answer; unit: bytes.
const LINE_MAX: u64 = 64 << 10;
/// LIMIT: one word of an answer; unit: bytes.
const WORD_MAX: usize = 16 << 20;
/// LIMIT: entries of one list, and lists in lists.
const ENTRIES_MAX: usize = 1 << 20;
const DEPTH_MAX: u32 = 8;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing is there.
    Nil,
    /// A number.
    Number(i64),
    /// A word; what is no text is shown as far as it is.
    Text(String),
    /// A refusal, which begins with its code.
    Error(String),
    /// Several.
    List(Vec<Value>),
}

/// Appends one request.
pub fn write(request: &[&str], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
    for word in request {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads one answer.
pub async fn read<S: AsyncBufRead + Unpin + Send>(stream: &mut S) -> io::Result<Value> {
    read_at(stream, 0).await
}

type Reading<'a> = Pin<Box<dyn Future<Output = io::Result<Value>> + Send + 'a>>;

fn read_at<S: AsyncBufRead + Unpin + Send>(stream: &mut S, depth: u32) -> Reading<'_> {
    Box::pin(async move {
        let line = read_line(stream).await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(broken)?;
        match kind {
            "+" => Ok(Value::Text(rest.to_owned())),
            "-" => Ok(Value::Error(rest.to_owned())),
            ":" => rest.parse().map(Value::Number).map_err(|_| broken()),
            "$" => match length(rest, WORD_MAX)? {
                None => Ok(Value::Nil),
                Some(length) => read_word(stream, length).await.map(Value::Text),
            },
            "*" if depth < DEPTH_MAX => match length(rest, ENTRIES_MAX)? {
                None => Ok(Value::Nil),
                Some(count) => {
                    let mut entries = Vec::with_capacity(count.min(1024));
                    for _ in 0..count {
                        entries.push(read_at(stream, depth + 1).await?);
                    }
                    Ok(Value::List(entries))
                }
            },
            _ => Err(broken()),
        }
    })
}

async fn read_line<S: AsyncBufRead + Unpin + Send>(stream: &mut S) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(String::from_utf8_lossy(text).into_owned()),
        None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(broken()),
    }
}

async fn read_word<S: AsyncBufRead + Unpin + Send>(
    stream: &mut S,
    length: usize,
) -> io::Result<String> {
    let mut word = vec![0; length + 2];
    stream.read_exact(&mut word).await?;
    word.truncate(length);
    Ok(String::from_utf8_lossy(&word).into_owned())
}

/// A length; `None` where nothing is there.
fn length(text: &str, most: usize) -> io::Result<Option<usize>> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(length) => match usize::try_from(length) {
            Ok(length) if length <= most => Ok(Some(length)),
            _ => Err(broken()),
        },
        Err(_) => Err(broken()),
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the engine's answer is not understood",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(bytes: &[u8]) -> io::Result<Value> {
        let mut stream = bytes;
        read(&mut stream).await
    }

    #[tokio::test]
    async fn every_kind_of_answer() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(answer(b"+OK\r\n").await.unwrap(), text("OK"));
        assert_eq!(answer(b":-7\r\n").await.unwrap(), Value::Number(-7));
        assert_eq!(answer(b"$-1\r\n").await.unwrap(), Value::Nil);
        assert_eq!(answer(b"$4\r\na\r\nb\r\n").await.unwrap(), text("a\r\nb"));
        let error = answer(b"-OOM no\r\n").await.unwrap();
        assert_eq!(error, Value::Error("OOM no".to_owned()));
        let nested = answer(b"*2\r\n*1\r\n$0\r\n\r\n*-1\r\n").await.unwrap();
        let inner = Value::List(vec![text("")]);
        assert_eq!(nested, Value::List(vec![inner, Value::Nil]));
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused() {
        let deep = "*1\r\n".repeat(100);
        for bad in [
            "",
            "OK\r\n",
            "$x\r\n",
            "$-2\r\n",
            "*99999999\r\n",
            "+OK",
            &deep,
        ] {
            assert!(answer(bad.as_bytes()).await.is_err(), "{bad:?}");
        }
        assert!(answer(b"$5\r\nabc").await.is_err());
        assert!(answer("é\r\n".as_bytes()).await.is_err());
    }

    #[test]
    fn requests_count_bytes() {
        let mut out = Vec::new();
        write(&["SET", "ü", ""], &mut out);
        assert_eq!(out, "*3\r\n$3\r\nSET\r\n$2\r\nü\r\n$0\r\n\r\n".as_bytes());
    }
}
