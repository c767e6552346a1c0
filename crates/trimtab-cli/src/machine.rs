//! What this machine and process are: environment, threads, memory. Knows no model.

use std::ffi::OsString;

/// `TRIMTAB_HOME`, if set.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line alone reads the environment"
)]
pub(crate) fn home_from_environment() -> Option<OsString> {
    std::env::var_os("TRIMTAB_HOME")
}

/// Threads to use if none are asked for: one per processor that this process may run on.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Most memory this process has held so far, in bytes; `None` where the system does not tell.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse_peak(&status)
}

/// `VmHWM` of a Linux process status, in bytes.
fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_read_in_bytes() {
        assert_eq!(
            parse_peak("Name:\ttrimtab\nVmHWM:\t  2048 kB\nVmRSS:\t 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(parse_peak("Name:\ttrimtab\n"), None);
    }
}
