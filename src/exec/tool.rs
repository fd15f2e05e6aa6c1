//! Runs a helper program (git, uv, pip): own process group, both outputs in order into the log, a time limit, and no
//! process of it left behind, also when the caller gives up half-way.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{ChildStdin, Command};
use tokio::time::Instant;

/// Takes the lines of a program, one at a time.
pub type Log<'a> = dyn FnMut(&str) + Send + 'a;

/// How much of the output is kept for the explanation of a failure.
const KEPT: usize = 64 << 10;
/// Longest line that is handed on in one piece.
const LINE: usize = 16 << 10;
/// How long a grandchild may hold the output open after the program itself has ended.
const LINGER: Duration = Duration::from_secs(2);

/// A program that came to its end.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// The last part of both outputs.
    pub output: String,
}

/// A program that did not.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("could not start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} did not end within {} s", limit.as_secs())]
    TimedOut { program: String, limit: Duration },
    #[error("lost sight of {program}: {source}")]
    Wait { program: String, source: io::Error },
}

/// Kills what is left of a program's process group.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs `command` to its end; `input` is its standard input, each line of output goes to `log`.
pub async fn run(
    mut command: Command,
    input: Option<&[u8]>,
    limit: Duration,
    log: &mut Log<'_>,
) -> Result<Ended, Trouble> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let start = |source| Trouble::Start {
        program: program.clone(),
        source,
    };
    let (reader, writer) = io::pipe().map_err(start)?;
    let stdin = if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    command
        .stdin(stdin)
        .stdout(writer.try_clone().map_err(start)?)
        .stderr(writer)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(start)?;
    // The command holds our end of the pipe: with it open the output would never end.
    drop(command);
    let _group = Group(
        child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw),
    );
    let output = Receiver::from_owned_fd(reader.into()).map_err(start)?;

    let feed = feed(child.stdin.take(), input);
    let both = async {
        let mut lines = Lines::default();
        let status = {
            let mut drain = std::pin::pin!(lines.drain(output, log));
            let mut drained = false;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    () = &mut drain, if !drained => drained = true,
                }
            };
            if !drained {
                let _ = tokio::time::timeout(LINGER, drain).await;
            }
            status
        };
        lines.finish(log);
        (status, lines.kept)
    };
    let ((status, kept), ()) =
        tokio::time::timeout_at(Instant::now() + limit, async { tokio::join!(both, feed) })
            .await
            .map_err(|_| Trouble::TimedOut {
                program: program.clone(),
                limit,
            })?;
    let status = status.map_err(|source| Trouble::Wait { program, source })?;
    Ok(Ended {
        status,
        output: String::from_utf8_lossy(&kept).into_owned(),
    })
}

async fn feed(stdin: Option<ChildStdin>, input: Option<&[u8]>) {
    if let (Some(mut stdin), Some(input)) = (stdin, input) {
        // A program may end without reading all; its exit status tells.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
}

/// Bytes of output, cut into lines.
#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    kept: Vec<u8>,
}

impl Lines {
    async fn drain(&mut self, mut output: Receiver, log: &mut Log<'_>) {
        let mut buffer = vec![0; 8 << 10];
        while let Ok(size) = output.read(&mut buffer).await {
            if size == 0 {
                return;
            }
            self.take(&buffer[..size], log);
        }
    }

    fn take(&mut self, bytes: &[u8], log: &mut Log<'_>) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > 2 * KEPT {
            self.kept.drain(..self.kept.len() - KEPT);
        }
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => self.finish(log),
                _ if self.line.len() >= LINE => {
                    self.finish(log);
                    self.line.push(byte);
                }
                _ => self.line.push(byte),
            }
        }
    }

    fn finish(&mut self, log: &mut Log<'_>) {
        if !self.line.is_empty() {
            log(&String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    async fn lines(script: &str, input: Option<&[u8]>) -> (Result<Ended, Trouble>, Vec<String>) {
        let mut lines = Vec::new();
        let ended = run(shell(script), input, Duration::from_secs(5), &mut |line| {
            lines.push(line.to_owned());
        })
        .await;
        (ended, lines)
    }

    #[tokio::test]
    async fn both_outputs_arrive_in_order() {
        let (ended, lines) = lines("echo a; echo b >&2; printf 'c\\rd'; exit 3", None).await;
        assert_eq!(ended.unwrap().status.code(), Some(3));
        assert_eq!(lines, ["a", "b", "c", "d"]);
    }

    #[tokio::test]
    async fn input_larger_than_a_pipe_is_fed_while_output_is_read() {
        let input = vec![b'x'; 1 << 20];
        let (ended, lines) = lines("cat", Some(&input)).await;
        assert!(ended.unwrap().status.success());
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), input.len());
    }

    #[tokio::test]
    async fn a_background_process_does_not_hold_the_run() {
        let begun = std::time::Instant::now();
        let (ended, _) = lines("sleep 100 & echo done", None).await;
        assert!(ended.unwrap().status.success());
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_its_children() {
        let mark = format!("{}", std::process::id());
        let script = format!("sleep 100{mark} & sleep 100{mark}");
        let ended = run(
            shell(&script),
            None,
            Duration::from_millis(200),
            &mut |_| {},
        )
        .await;
        assert!(matches!(ended, Err(Trouble::TimedOut { .. })));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (_, lines) = lines("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", None).await;
        assert!(
            !lines
                .iter()
                .any(|line| line.contains(&format!("sleep 100{mark} "))),
            "{lines:?}"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let ended = run(
            Command::new("/nonexistent/tool"),
            None,
            Duration::from_secs(1),
            &mut |_| {},
        )
        .await;
        assert!(ended.unwrap_err().to_string().contains("/nonexistent/tool"));
    }
}
