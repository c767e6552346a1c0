//! Reward from an external program. Knows processes and pipes, not what the program computes.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use trimtab_base::{RewardError, RewardModel, ScoreInput};

use crate::external::{ExternalLimits, Failure, max_answer_bytes, score_in_batches, tail};
use crate::spec::RewardSpecError;

/// Runs a program once per batch: requests on its standard input, rewards on its standard output.
///
/// The protocol is that of [`json_lines`](crate::json_lines). Standard input is closed after the last request, so
/// any filter will do. The command line is split like a POSIX shell would, but no shell runs it. A program that
/// fails or takes longer than the limit is killed with everything it started, and tried again. For a scorer that
/// is slow to start, an HTTP endpoint that stays up is the better choice.
#[derive(Debug, Clone)]
pub struct Command {
    name: String,
    program: String,
    args: Vec<String>,
    limits: ExternalLimits,
}

/// Bytes of standard error kept for an error message.
const STDERR_TAIL_BYTES: usize = 4096;

/// How long to wait for the pipes of a process that has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

impl Command {
    /// The reward under the name used in reports.
    ///
    /// # Errors
    /// A command line that is empty or leaves a quote open.
    pub fn try_new(
        name: impl Into<String>,
        command_line: &str,
        limits: ExternalLimits,
    ) -> Result<Self, RewardSpecError> {
        let mut words = shlex::split(command_line).unwrap_or_default().into_iter();
        let program = words.next().ok_or_else(|| RewardSpecError::BadArgument {
            name: "cmd",
            expected: "a command line with closed quotes",
            got: command_line.to_owned(),
        })?;
        Ok(Self {
            name: name.into(),
            program,
            args: words.collect(),
            limits,
        })
    }

    /// One run of the program.
    fn exchange(&self, request: &str, num_items: usize) -> Result<String, Failure> {
        let mut child = self.spawn()?;
        let deadline = Instant::now() + self.limits.timeout();
        feed(child.stdin.take(), request.to_owned());
        let max_bytes = max_answer_bytes(num_items);
        let stdout = drain(child.stdout.take(), move |pipe| read_at_most(pipe, max_bytes));
        let stderr = drain(child.stderr.take(), read_tail);

        let answer = stdout.recv_timeout(self.limits.timeout()).ok();
        let status = answer.as_ref().and_then(|_| wait_until(&mut child, deadline));
        if status.is_none() {
            kill_tree(&mut child);
        }
        // Waited for only now: the pipe closes when the last process that holds it ends.
        let stderr = stderr.recv_timeout(DRAIN_TIMEOUT).unwrap_or_default();
        let complaint = Complaint {
            program: &self.program,
            stderr: &String::from_utf8_lossy(&stderr),
        };
        match (answer, status) {
            (Some(answer), _) if answer.len() as u64 > max_bytes => Err(Failure::Lasting(complaint.with(
                &format!("answered more than {max_bytes} bytes to {num_items} items"),
            ))),
            (Some(answer), Some(status)) if status.success() => String::from_utf8(answer)
                .map_err(|_| Failure::Lasting(complaint.with("answered with bytes that are not UTF-8"))),
            (_, Some(status)) => Err(Failure::Passing(complaint.with(&format!("ended with {status}")))),
            (_, None) => {
                let timeout_ms = self.limits.timeout_ms;
                Err(Failure::Passing(complaint.with(&format!(
                    "was killed after {timeout_ms} ms, the limit for a batch"
                ))))
            }
        }
    }

    fn spawn(&self) -> Result<Child, Failure> {
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own, so that the program's children can be killed with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
            .spawn()
            .map_err(|error| Failure::Lasting(format!("`{}` cannot be started: {error}", self.program)))
    }
}

impl RewardModel for Command {
    fn name(&self) -> &str {
        &self.name
    }

    fn unit(&self) -> &'static str {
        "as the program defines it"
    }

    fn score(&self, batch: &[ScoreInput]) -> Result<Vec<f64>, RewardError> {
        score_in_batches(&self.name, &self.limits, batch, |request, num_items| {
            self.exchange(request, num_items)
        })
    }
}

/// What an error says about a program.
struct Complaint<'a> {
    program: &'a str,
    stderr: &'a str,
}

impl Complaint<'_> {
    fn with(&self, problem: &str) -> String {
        match tail(self.stderr, STDERR_TAIL_BYTES) {
            "" => format!("`{}` {problem}, with nothing on standard error", self.program),
            stderr => format!("`{}` {problem}; its standard error ends:\n{stderr}", self.program),
        }
    }
}

/// Writes the request from a thread, since the program may answer before it has read everything.
fn feed(stdin: Option<ChildStdin>, request: String) {
    thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A program may well end without reading all; its answer is judged, not its manners.
            let _ = stdin.write_all(request.as_bytes());
        }
    });
}

/// Reads a pipe in a thread; the bytes arrive when it closes.
fn drain<R: Read + Send + 'static>(
    pipe: Option<R>,
    read: impl FnOnce(R) -> io::Result<Vec<u8>> + Send + 'static,
) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let bytes = pipe.map_or_else(Vec::new, |pipe| read(pipe).unwrap_or_default());
        // The receiver is gone once the program is given up.
        let _ = sender.send(bytes);
    });
    receiver
}

/// Reads up to one byte more than allowed, so that the caller can tell.
fn read_at_most(pipe: impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(max_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads everything and keeps the end.
fn read_tail(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut buffer = [0_u8; STDERR_TAIL_BYTES];
    loop {
        let len = pipe.read(&mut buffer)?;
        if len == 0 {
            return Ok(kept);
        }
        kept.extend_from_slice(&buffer[..len]);
        kept.drain(..kept.len().saturating_sub(STDERR_TAIL_BYTES));
    }
}

/// The exit status, or `None` if the process still runs at the deadline.
fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    // Its output has ended, so it is as good as gone; polling spares a signal handler for this last moment.
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::park_timeout(Duration::from_millis(1)),
            Ok(None) | Err(_) => return None,
        }
    }
}

/// Kills the process and its descendants. It has not been waited for, so its id cannot belong to another process.
fn kill_tree(child: &mut Child) {
    #[cfg(unix)]
    let _ = rustix::process::kill_process_group(
        rustix::process::Pid::from_child(child),
        rustix::process::Signal::KILL,
    );
    // Either call fails only if the process has already ended.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::text_input;

    /// Answers each line with the number of its characters.
    const COUNT: &str = r#"while read -r line; do echo "{\"reward\": ${#line}}"; done"#;

    fn limits() -> ExternalLimits {
        ExternalLimits {
            batch_len: 2,
            timeout_ms: 20_000,
            num_retries: 1,
            backoff_ms: 0,
        }
    }

    fn shell(script: &str, limits: ExternalLimits) -> Command {
        let command_line = format!("sh -c {}", shlex::try_quote(script).unwrap());
        Command::try_new("cmd:test", &command_line, limits).unwrap()
    }

    fn inputs(responses: &[&str]) -> Vec<ScoreInput> {
        responses.iter().map(|response| text_input(response)).collect()
    }

    fn refusal(script: &str, limits: ExternalLimits) -> String {
        shell(script, limits)
            .score(&inputs(&["a", "b"]))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn rewards_come_back_in_order_over_several_batches() {
        let rewards = shell(COUNT, limits()).score(&inputs(&["", "abc", "a"])).unwrap();
        let empty_len = r#"{"prompt":"prompt","response":"","record":{}}"#.len() as f64;
        assert_eq!(rewards, [empty_len, empty_len + 3.0, empty_len + 1.0]);
    }

    #[test]
    fn requests_larger_than_a_pipe_do_not_block() {
        let long = "x".repeat(300_000);
        let rewards = shell(COUNT, limits()).score(&inputs(&[&long, &long])).unwrap();
        assert!(rewards.iter().all(|&reward| reward > 300_000.0));
        // A program that answers without reading gets away with it.
        let lazy = shell(r#"echo '{"reward": 1}'; echo '{"reward": 2}'"#, limits());
        assert_eq!(lazy.score(&inputs(&[&long, &long])).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn a_failure_is_retried_and_then_shown_with_stderr() {
        let dir = tempfile::tempdir().unwrap();
        let once = dir.path().join("failed-once");
        let script = format!(
            "if mkdir {} 2>/dev/null; then exit 3; fi; {COUNT}",
            once.display()
        );
        assert_eq!(shell(&script, limits()).score(&inputs(&["a"])).unwrap().len(), 1);

        let error = refusal("echo no model here >&2; exit 3", limits());
        assert!(
            error.starts_with("reward cmd:test: gave up after 2 attempts: `sh` ended with exit status: 3"),
            "{error}"
        );
        assert!(error.ends_with("no model here"), "{error}");
    }

    #[test]
    fn a_hanging_program_is_killed_with_its_children() {
        let hasty = ExternalLimits {
            timeout_ms: 150,
            num_retries: 0,
            ..limits()
        };
        // The child holds standard error, whose text arrives only if the child is dead too.
        let error = refusal("echo loading >&2; tail -f /dev/null & wait", hasty.clone());
        assert!(
            error.contains("was killed after 150 ms") && error.ends_with("loading"),
            "{error}"
        );
        // Output closed, yet still running.
        let error = refusal("exec >/dev/null; tail -f /dev/null", hasty);
        assert!(error.contains("was killed after 150 ms"), "{error}");
    }

    #[test]
    fn endless_output_is_cut_off() {
        let error = refusal(
            "yes",
            ExternalLimits {
                num_retries: 0,
                ..limits()
            },
        );
        assert!(error.contains("answered more than"), "{error}");
    }

    #[test]
    fn a_wrong_count_is_not_retried() {
        let error = shell(r#"echo '{"reward": 1}'"#, limits())
            .score(&inputs(&["a", "b"]))
            .unwrap_err();
        assert!(
            matches!(
                error,
                RewardError::WrongCount {
                    expected: 2,
                    got: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_named() {
        let command = Command::try_new("cmd:x", "no-such-program-3141 --x", limits()).unwrap();
        let error = command.score(&inputs(&["a"])).unwrap_err().to_string();
        assert!(
            error.contains("`no-such-program-3141` cannot be started"),
            "{error}"
        );
    }
}
