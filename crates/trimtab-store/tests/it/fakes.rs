//! What every test needs: a folder with a store and fake tools, tables of models, packages, recorded events.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trimtab_store::{Event, FileHash, HubConfig, Progress, Store, Tools};

/// A folder that is deleted in the end: `home` for the store, and a place for fake tools.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("packages")).unwrap();
        #[cfg(unix)]
        for tool in ["python", "npm"] {
            let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fake_tool.sh");
            std::os::unix::fs::symlink(fake, dir.path().join(tool)).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.path("home").join(name)
    }

    /// A store with `table`, fake tools, and no hub: its address refuses connections.
    pub(crate) fn store(&self, table: &str) -> Store {
        let store = Store::open(&self.path("home"))
            .unwrap()
            .with_table(table)
            .unwrap();
        store.with_tools(self.tools()).with_hub(hub_at(&closed_address()))
    }

    pub(crate) fn tools(&self) -> Tools {
        Tools {
            python: self.path("python"),
            npm: self.path("npm"),
            stall_limit: Duration::from_mins(1),
        }
    }

    /// Lets the fake tools give a package; `file` is such as `p==1.whl`.
    pub(crate) fn give(&self, file: &str, content: &[u8]) {
        fs::write(self.path("packages").join(file), content).unwrap();
    }

    /// The packages that the fake tools were asked for, in order.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

/// An address of this machine on which nothing listens.
fn closed_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// Settings for a fake hub: no pause between attempts.
pub(crate) fn hub_at(address: &str) -> HubConfig {
    HubConfig {
        endpoint: Some(address.to_owned()),
        retry_pause: Duration::ZERO,
        ..HubConfig::default()
    }
}

/// The hash of `content` as text.
pub(crate) fn sha(content: &[u8]) -> String {
    FileHash::of_bytes(content).to_string()
}

/// `{ name = "..", size_bytes = .., sha256 = ".." }`.
pub(crate) fn file(name: &str, content: &[u8]) -> String {
    format!(
        r#"{{ name = "{name}", size_bytes = {}, sha256 = "{}" }}"#,
        content.len(),
        sha(content)
    )
}

/// A piece of a package source. `slices` are file names and contents.
pub(crate) fn piece(package: &str, member: &str, slices: &[(&str, &[u8])]) -> String {
    let slices: Vec<String> = slices
        .iter()
        .map(|(name, content)| file(name, content).replacen("name", "file", 1))
        .collect();
    let slices = slices.join(", ");
    format!(
        r#"{{ package = "{package}", version = "1", download_bytes = 100, member = "{member}", slices = [{slices}] }}"#
    )
}

/// A package source.
pub(crate) fn packages(kind: &str, pieces: &[String]) -> String {
    format!(
        "[[model.sources]]\nkind = \"{kind}\"\npieces = [{}]\n",
        pieces.join(", ")
    )
}

/// A hub source of one file.
pub(crate) fn hub_source(path: &str) -> String {
    format!("[[model.sources]]\nkind = \"hub\"\nrepo = \"o/n\"\nrevision = \"abc\"\npaths = [\"{path}\"]\n")
}

/// A table with the one model `m`.
pub(crate) fn table(files: &[String], sources: &[String]) -> String {
    let (files, sources) = (files.join(", "), sources.concat());
    format!("[[model]]\nalias = \"m\"\nsummary = \"s\"\nlicence = \"MIT\"\nfiles = [{files}]\n{sources}")
}

/// A wheel: a zip file with the given members.
pub(crate) fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// An npm package: a gzipped tar file with the given members.
pub(crate) fn tarball(members: &[(&str, &[u8])]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Keeps each event as one line of text.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) lines: Vec<String>,
}

impl Progress for Recorded {
    fn event(&mut self, event: Event<'_>) {
        self.lines.push(match event {
            Event::Waiting { name } => format!("waiting {name}"),
            Event::Trying { source } => format!("trying {source}"),
            Event::SourceFailed { source, .. } => format!("failed {source}"),
            Event::Started { what, total_bytes } => format!("started {what} {total_bytes}"),
            Event::Advanced { done_bytes } => format!("advanced {done_bytes}"),
            Event::Finished => "finished".to_owned(),
            other => format!("{other:?}"),
        });
    }
}
