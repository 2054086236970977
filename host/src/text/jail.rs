//! A template in a process of its own, with limits on its memory and its time.

use core::time::Duration;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use super::TemplateError;
use super::jinja::{RenderError, Request};

/// Memory that the child may map beyond what it has at its start.
const MEMORY_LIMIT: u64 = 256 << 20;
/// Processor time of the child.
const CPU_SECONDS: u64 = 2;
/// Time after which the parent ends the child, however little it has computed.
const WALL_LIMIT: Duration = Duration::from_secs(5);

/// What the child answers.
type Answer = Result<[String; 2], RenderError>;

/// Renders in `program args...`.
pub(super) fn render(
    request: &Request,
    program: &Path,
    args: &[OsString],
) -> Result<[String; 2], TemplateError> {
    let input = serde_json::to_vec(request).map_err(|e| TemplateError::Child(e.into()))?;
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(TemplateError::Child)?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(TemplateError::Child(io::ErrorKind::BrokenPipe.into()));
    };

    let limit = u64::try_from(request.answer_limit()).unwrap_or(u64::MAX);
    let (sender, receiver) = mpsc::channel();
    let talk = thread::spawn(move || {
        // A child that dies early closes its end; its silence says more than this error.
        let _ = stdin.write_all(&input);
        drop((stdin, input));
        let mut answer = Vec::new();
        let result = stdout.take(limit + 1).read_to_end(&mut answer);
        // The receiver is gone only after its time is up.
        let _ = sender.send(result.map(|_| answer));
    });
    let answer = receiver.recv_timeout(WALL_LIMIT);
    // Ends a child that still runs; one that is gone needs no end.
    let _ = child.kill();
    let _ = child.wait();
    let _ = talk.join();

    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(TemplateError::Child(error)),
        Err(_) => return Err(TemplateError::Limit { limit: "time" }),
    };
    if u64::try_from(answer.len()).unwrap_or(u64::MAX) > limit {
        return Err(TemplateError::Limit { limit: "output" });
    }
    match serde_json::from_slice::<Answer>(&answer) {
        Ok(answer) => Ok(answer?),
        // Nothing, or half an answer: the limits ended the child.
        Err(_) => Err(TemplateError::Limit { limit: "memory or time" }),
    }
}

/// What the child process does: limits itself, reads a request, renders it, answers.
///
/// Call it first thing in `main`, before other threads exist. Fails (exit code 1) when the limits
/// cannot be set or the request cannot be read; the parent then reports an error.
pub fn render_child_main(mut stdin: impl Read, mut stdout: impl Write) -> ExitCode {
    let answered = limit_self().and_then(|()| {
        let mut input = Vec::new();
        stdin.read_to_end(&mut input)?;
        let request: Request = serde_json::from_slice(&input)?;
        drop(input);
        let answer: Answer = request.render();
        serde_json::to_writer(&mut stdout, &answer)?;
        stdout.flush()
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Limits memory and processor time, forbids core dumps and new files.
#[cfg(unix)]
fn limit_self() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let memory = mapped_bytes().saturating_add(MEMORY_LIMIT);
    let limits = [
        (Resource::As, memory),
        (Resource::Cpu, CPU_SECONDS),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, 3),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// Without limits there is no jail.
#[cfg(not(unix))]
fn limit_self() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Address space in use: a program may carry a model inside of it. 0 where it is unknown.
#[cfg(unix)]
fn mapped_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    pages.unwrap_or(0).saturating_mul(page)
}
