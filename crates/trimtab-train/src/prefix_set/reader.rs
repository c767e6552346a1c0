//! Reading a prefix set: shards by number, checked against the manifest, a bounded amount of them in memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Manifest, PrefixSetHeader, Shard, ShardEntry};
use crate::error::TrainError;
use crate::files::sha256_hex;

/// A whole prefix set on disk.
#[derive(Debug)]
pub struct PrefixSet {
    dir: PathBuf,
    manifest: Manifest,
    /// Decoded shards, the one used last at the back.
    held: RefCell<VecDeque<(usize, Arc<Shard>)>>,
    max_memory_bytes: Cell<u64>,
}

impl PrefixSet {
    /// Opens a finished set. Reads only the manifest; shards are checked when they are loaded.
    ///
    /// # Errors
    /// A missing or damaged manifest, or a set whose writer has not finished.
    pub fn open(dir: &Path) -> Result<Self, TrainError> {
        let manifest = Manifest::read(dir)?;
        if !manifest.complete {
            let problem =
                "the prefix set is unfinished: run its extraction again, it goes on where it stopped";
            return Err(TrainError::bad_file(dir, problem));
        }
        if let Some(shard) = manifest
            .shards
            .iter()
            .find(|shard| shard.file.contains(['/', '\\']))
        {
            let problem = format!("shard {:?} lies outside the folder", shard.file);
            return Err(TrainError::bad_file(dir, problem));
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest,
            held: RefCell::default(),
            max_memory_bytes: Cell::new(u64::MAX),
        })
    }

    /// Keeps at most this much of decoded shards in memory (but always the one in use), from the next load on.
    pub fn limit_memory(&self, max_memory_bytes: u64) {
        self.max_memory_bytes.set(max_memory_bytes);
    }

    /// What the set was made from.
    pub fn header(&self) -> &PrefixSetHeader {
        &self.manifest.header
    }

    /// The shards as listed.
    pub fn shards(&self) -> &[ShardEntry] {
        &self.manifest.shards
    }

    /// Responses in the set.
    pub fn num_responses(&self) -> u64 {
        self.manifest.shards.iter().map(|shard| shard.num_responses).sum()
    }

    /// Prefixes in the set, the empty ones included.
    pub fn num_prefixes(&self) -> u64 {
        self.manifest.shards.iter().map(|shard| shard.num_prefixes).sum()
    }

    /// Hash of the content: of header and shard checksums. Equal sets give equal scorers.
    pub fn content_sha256(&self) -> String {
        let text =
            serde_json::to_string(&self.manifest).expect("a manifest has string keys and finite numbers");
        sha256_hex(text.as_bytes())
    }

    /// Shard `idx`, from memory or from its file.
    ///
    /// # Errors
    /// A file that is missing, has another checksum, or does not fit together.
    pub fn shard(&self, idx: usize) -> Result<Arc<Shard>, TrainError> {
        let mut held = self.held.borrow_mut();
        if let Some(place) = held.iter().position(|(held_idx, _)| *held_idx == idx) {
            let entry = held.remove(place).expect("the position was just found");
            held.push_back(entry.clone());
            return Ok(entry.1);
        }
        let shard = Arc::new(self.load(idx)?);
        let mut total: u64 = held.iter().map(|(_, shard)| shard.num_bytes()).sum();
        while total + shard.num_bytes() > self.max_memory_bytes()
            && let Some((_, oldest)) = held.pop_front()
        {
            total -= oldest.num_bytes();
        }
        held.push_back((idx, Arc::clone(&shard)));
        Ok(shard)
    }

    /// Shards currently in memory.
    pub fn num_held(&self) -> usize {
        self.held.borrow().len()
    }

    /// Memory bound set by [`Self::limit_memory`].
    pub fn max_memory_bytes(&self) -> u64 {
        self.max_memory_bytes.get()
    }

    fn load(&self, idx: usize) -> Result<Shard, TrainError> {
        let entry = &self.manifest.shards[idx];
        let path = self.dir.join(&entry.file);
        let len = fs::metadata(&path)
            .map_err(|error| TrainError::io("read", &path, error))?
            .len();
        // Before reading: a file that was swapped for a huge one must not be read whole.
        let bytes = if len == entry.num_bytes {
            fs::read(&path).map_err(|error| TrainError::io("read", &path, error))?
        } else {
            Vec::new()
        };
        if sha256_hex(&bytes) != entry.sha256 {
            let problem = "the file is not the one that was written: extract the prefixes again";
            return Err(TrainError::bad_file(&path, problem));
        }
        let shard = Shard::from_bytes(&bytes, &self.manifest.header, &path)?;
        if (shard.num_responses() as u64, shard.num_prefixes() as u64)
            != (entry.num_responses, entry.num_prefixes)
        {
            return Err(TrainError::bad_file(
                &path,
                "the shard and the manifest count differently",
            ));
        }
        Ok(shard)
    }
}
