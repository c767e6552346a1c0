//! Builds and runs the fuzz targets with the pinned toolchain: libFuzzer's coverage needs only stable compiler flags,
//! so neither a nightly compiler nor cargo-fuzz is needed. Knows nothing of what the targets feed.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::check::cargo_path;

/// What cargo-fuzz passes without a sanitizer: coverage counters, comparisons, and overflow and debug assertions on.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";
/// A reader that allocates from an unchecked number passes this (MiB).
const MEMORY_LIMIT_MB: u32 = 2048;
/// A reader that loops on a hostile file passes this (seconds for one input).
const TIMEOUT_SECONDS: u32 = 10;

/// Why the targets cannot be compiled here; `None` if they can.
pub fn missing_tool(root: &Path) -> Option<String> {
    if !root.join("fuzz/Cargo.toml").exists() {
        return Some("there is no fuzz folder".to_owned());
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the compiler is chosen as every build tool lets one choose it"
    )]
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let probe = Command::new(&compiler)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let works = probe.is_ok_and(|status| status.success());
    (!works).then(|| format!("libFuzzer needs a C++ compiler, and `{compiler}` does not run"))
}

/// Runs `target` for `seconds`, or lists the targets if there is no name.
///
/// # Errors
/// No such target, a build that fails, or an input that breaks the target (libFuzzer writes it to `fuzz/artifacts`).
pub fn run(root: &Path, target: Option<&str>, seconds: u32) -> anyhow::Result<()> {
    let targets = targets(root)?;
    let Some(target) = target else {
        println!("{}", targets.join("\n"));
        return Ok(());
    };
    if !targets.iter().any(|name| name == target) {
        bail!(
            "no fuzz target `{target}`, expected one of: {}",
            targets.join(", ")
        );
    }
    if let Some(reason) = missing_tool(root) {
        bail!("{reason}");
    }
    // A host triple keeps the flags away from build scripts and macros, which have no libFuzzer to report to.
    let host = host_triple()?;
    let status = Command::new(cargo_path())
        .args([
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            "fuzz/Cargo.toml",
            "--target-dir",
            "target/fuzz",
        ])
        .args(["--bin", target, "--target", &host])
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the fuzz target does not build");
    }
    let program = root.join("target/fuzz").join(&host).join("release").join(target);
    run_program(root, &program, target, seconds)
}

fn run_program(root: &Path, program: &Path, target: &str, seconds: u32) -> anyhow::Result<()> {
    let corpus = root.join("fuzz/corpus").join(target);
    let artifacts = root.join("fuzz/artifacts").join(target);
    std::fs::create_dir_all(&corpus)?;
    std::fs::create_dir_all(&artifacts)?;
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MB}"))
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus);
    // Valid small files, checked in: mutations of them reach further than random bytes.
    let seeds = root.join("fuzz/seeds").join(target);
    if seeds.exists() {
        command.arg(seeds);
    }
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("`{target}` broke; the input lies in {}", artifacts.display());
    }
    Ok(())
}

fn targets(root: &Path) -> anyhow::Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

fn host_triple() -> anyhow::Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
