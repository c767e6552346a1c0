//! A file that is being assembled: bytes are appended, hashed on the way, and the file appears under its name
//! only when size and hash are right.
//!
//! One `.part` file serves every source. Its bytes are always a prefix of the wanted file, so a download that
//! one source began can be finished by another: over HTTP from any byte, from packages at the last whole slice.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::SourceError;
use crate::hash::{COPY_BUFFER_BYTES, FileHash, read_some};

/// A file of a model: the name in the model's folder and the content promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSpec {
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    /// Absent for small files of a hub repository, for which the hub gives no SHA-256.
    pub(crate) sha256: Option<FileHash>,
}

/// Folders of the stage that hold unfinished packages start like this.
pub(crate) const WORK_PREFIX: &str = "work-";

/// The folder in which one model is assembled.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// Holds `.part` files and work folders.
    pub(crate) dir: PathBuf,
    /// Where bytes with a wrong hash go, outside `dir`, which is deleted after success.
    pub(crate) rejected_dir: PathBuf,
}

impl Stage {
    /// The folder of whole files, which becomes the model's folder by one rename.
    pub(crate) fn whole_dir(&self) -> PathBuf {
        self.dir.join("whole")
    }

    pub(crate) fn whole_path(&self, file: &FileSpec) -> PathBuf {
        self.whole_dir().join(&file.name)
    }

    fn part_path(&self, file: &FileSpec) -> PathBuf {
        self.dir.join(format!("{}.part", file.name))
    }

    /// Moves a bad file out of the way under a name that ends in `.rejected`; gives its new place.
    pub(crate) fn reject(&self, bad: &Path) -> Result<PathBuf, SourceError> {
        fs::create_dir_all(&self.rejected_dir)
            .map_err(SourceError::io("create folder", &self.rejected_dir))?;
        let name = bad.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".part").unwrap_or(&name);
        let target = self.rejected_dir.join(format!("{name}.rejected"));
        fs::rename(bad, &target).map_err(SourceError::io("rename", bad))?;
        Ok(target)
    }

    /// Removes what package tools left. Nothing can go on from there; the model's lock is held.
    pub(crate) fn remove_work_folders(&self) -> Result<(), SourceError> {
        let entries = self.dir.read_dir().map_err(SourceError::io("list", &self.dir))?;
        let is_work = |path: &PathBuf| {
            path.is_dir()
                && path
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(WORK_PREFIX))
        };
        for work in entries.flatten().map(|entry| entry.path()).filter(is_work) {
            fs::remove_dir_all(&work).map_err(SourceError::io("remove", &work))?;
        }
        Ok(())
    }

    /// Whether `file` was finished by an earlier, interrupted call. Its hash is checked again: the disk of a
    /// machine that lost power is not to be believed.
    pub(crate) fn is_whole(&self, file: &FileSpec) -> Result<bool, SourceError> {
        let path = self.whole_path(file);
        let (Ok(metadata), Some(expected)) = (fs::symlink_metadata(&path), file.sha256) else {
            return Ok(false);
        };
        if !metadata.is_file() || metadata.len() != file.size_bytes {
            return Ok(false);
        }
        let got = FileHash::of_file(&path, |_| {}).map_err(SourceError::io("read", &path))?;
        Ok(got == expected)
    }
}

/// The prefix of a file that is present, open for appending.
#[derive(Debug)]
pub(crate) struct PartFile {
    path: PathBuf,
    file: File,
    hasher: Sha256,
    len_bytes: u64,
    want_bytes: u64,
}

impl PartFile {
    /// Opens what an earlier call left of `file`, or an empty file. Content without a promised hash is dropped,
    /// because nothing would tell a mixture of two versions from the whole.
    pub(crate) fn resume(stage: &Stage, file: &FileSpec) -> Result<Self, SourceError> {
        let mut part = Self::open(stage.part_path(file), file.size_bytes)?;
        let present_bytes = part.present_bytes()?;
        if file.sha256.is_some() && present_bytes <= file.size_bytes {
            part.absorb(present_bytes)?;
        }
        part.cut_tail()?;
        Ok(part)
    }

    /// Like [`PartFile::resume`], but keeps only the leading slices that are whole and right.
    pub(crate) fn resume_slices(
        stage: &Stage,
        file: &FileSpec,
        slices: &[(u64, FileHash)],
    ) -> Result<Self, SourceError> {
        let mut part = Self::open(stage.part_path(file), file.size_bytes)?;
        let mut left_bytes = part.present_bytes()?;
        for &(size_bytes, expected) in slices {
            if size_bytes > left_bytes {
                break;
            }
            let before = part.mark();
            if part.absorb(size_bytes)? != expected {
                part.rewind(before)?;
                break;
            }
            left_bytes -= size_bytes;
        }
        part.cut_tail()?;
        Ok(part)
    }

    fn open(path: PathBuf, want_bytes: u64) -> Result<Self, SourceError> {
        // A link planted here would make the store write outside its folder.
        let is_odd = fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file());
        if is_odd {
            fs::remove_file(&path).map_err(SourceError::io("remove", &path))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(SourceError::disk("create", &path, want_bytes))?;
        Ok(Self {
            path,
            file,
            hasher: Sha256::new(),
            len_bytes: 0,
            want_bytes,
        })
    }

    fn present_bytes(&self) -> Result<u64, SourceError> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(SourceError::io("read", &self.path))
    }

    /// Takes the next `count` bytes of the file as present; gives the hash of these bytes alone.
    fn absorb(&mut self, count: u64) -> Result<FileHash, SourceError> {
        let mut alone = Sha256::new();
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        let mut left_bytes = count;
        while left_bytes > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(left_bytes).unwrap_or(usize::MAX));
            self.file
                .read_exact(&mut buffer[..want])
                .map_err(SourceError::io("read", &self.path))?;
            self.hasher.update(&buffer[..want]);
            alone.update(&buffer[..want]);
            left_bytes -= want as u64;
        }
        self.len_bytes += count;
        Ok(FileHash::from_hasher(alone))
    }

    /// Bytes present.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Bytes still to come.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.want_bytes.saturating_sub(self.len_bytes)
    }

    /// A point to which [`PartFile::rewind`] can return.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            hasher: self.hasher.clone(),
            len_bytes: self.len_bytes,
        }
    }

    /// Drops everything after `mark`.
    pub(crate) fn rewind(&mut self, mark: Mark) -> Result<(), SourceError> {
        self.hasher = mark.hasher;
        self.len_bytes = mark.len_bytes;
        self.cut_tail()
    }

    /// Drops everything.
    pub(crate) fn restart(&mut self) -> Result<(), SourceError> {
        self.rewind(Mark {
            hasher: Sha256::new(),
            len_bytes: 0,
        })
    }

    fn cut_tail(&mut self) -> Result<(), SourceError> {
        let cut = self
            .file
            .set_len(self.len_bytes)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.len_bytes)));
        cut.map(|_| ()).map_err(SourceError::io("truncate", &self.path))
    }

    /// Appends up to `limit_bytes` from `reader` and tells how many there were, and their hash.
    ///
    /// # Errors
    /// [`AppendError::Source`] if the reader fails, [`AppendError::Disk`] if the disk does. Bytes that arrived
    /// before the fault stay.
    pub(crate) fn append(
        &mut self,
        reader: &mut dyn Read,
        limit_bytes: u64,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(u64, FileHash), AppendError> {
        let mut alone = Sha256::new();
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        let mut count = 0;
        while count < limit_bytes {
            let want = buffer
                .len()
                .min(usize::try_from(limit_bytes - count).unwrap_or(usize::MAX));
            let got = read_some(reader, &mut buffer[..want]).map_err(AppendError::Source)?;
            if got == 0 {
                break;
            }
            self.write(&buffer[..got]).map_err(AppendError::Disk)?;
            alone.update(&buffer[..got]);
            count += got as u64;
            on_bytes(self.len_bytes);
        }
        Ok((count, FileHash::from_hasher(alone)))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        if let Err(error) = self.file.write_all(bytes) {
            let missing_bytes = self.missing_bytes();
            // A part of `bytes` may be on the disk without having been hashed. If it cannot be cut off, the next
            // call hashes it with the rest; the reason worth telling is the first one.
            let _ = self.cut_tail();
            return Err(SourceError::disk("write", &self.path, missing_bytes)(error));
        }
        self.hasher.update(bytes);
        self.len_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Checks size and hash and moves the file among the whole ones.
    ///
    /// # Errors
    /// On a wrong hash the file is moved to the rejected ones and [`SourceError::HashMismatch`] names both hashes.
    pub(crate) fn finish(self, stage: &Stage, file: &FileSpec) -> Result<FileHash, SourceError> {
        if self.len_bytes != file.size_bytes {
            let name = file.name.clone();
            let (expected_bytes, got_bytes) = (file.size_bytes, self.len_bytes);
            return Err(SourceError::SizeMismatch {
                file: name,
                expected_bytes,
                got_bytes,
            });
        }
        let got = FileHash::from_hasher(self.hasher);
        self.file
            .sync_all()
            .map_err(SourceError::disk("write", &self.path, 0))?;
        drop(self.file);
        if let Some(expected) = file.sha256.filter(|expected| *expected != got) {
            let kept_at = stage.reject(&self.path)?;
            return Err(SourceError::HashMismatch {
                file: file.name.clone(),
                expected,
                got,
                kept_at,
            });
        }
        let target = stage.whole_path(file);
        fs::create_dir_all(stage.whole_dir()).map_err(SourceError::io("create folder", &target))?;
        fs::rename(&self.path, &target).map_err(SourceError::io("rename", &self.path))?;
        Ok(got)
    }
}

/// A state of a [`PartFile`].
#[derive(Debug)]
pub(crate) struct Mark {
    hasher: Sha256,
    len_bytes: u64,
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// The reader: a broken connection or a corrupt archive.
    Source(io::Error),
    /// The file written to.
    Disk(SourceError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(root: &Path) -> Stage {
        let stage = Stage {
            dir: root.join("partial"),
            rejected_dir: root.join("rejected"),
        };
        fs::create_dir_all(&stage.dir).unwrap();
        stage
    }

    fn spec(content: &[u8]) -> FileSpec {
        let sha256 = Some(FileHash::of_bytes(content));
        FileSpec {
            name: "m.bin".to_owned(),
            size_bytes: content.len() as u64,
            sha256,
        }
    }

    fn slices(content: &[u8], size: usize) -> Vec<(u64, FileHash)> {
        content
            .chunks(size)
            .map(|chunk| (chunk.len() as u64, FileHash::of_bytes(chunk)))
            .collect()
    }

    #[test]
    fn a_part_left_by_a_killed_process_is_continued() {
        let root = tempfile::tempdir().unwrap();
        let (stage, file) = (stage(root.path()), spec(b"hello world"));
        fs::write(stage.part_path(&file), b"hello").unwrap();
        let mut part = PartFile::resume(&stage, &file).unwrap();
        assert_eq!((part.len_bytes(), part.missing_bytes()), (5, 6));
        part.append(&mut &b" world and more"[..], 6, &mut |_| {}).unwrap();
        part.finish(&stage, &file).unwrap();
        assert_eq!(fs::read(stage.whole_path(&file)).unwrap(), b"hello world");
        assert!(stage.is_whole(&file).unwrap());
    }

    #[test]
    fn only_right_leading_slices_are_kept() {
        let content = b"aaabbbccc";
        for (present, kept) in [
            (&b""[..], 0),
            (b"aa", 0),
            (b"aaab", 3),
            (b"aaaXbb", 3),
            (b"XaabbbcccX", 0),
            (b"aaabbbccX", 6),
        ] {
            let root = tempfile::tempdir().unwrap();
            let (stage, file) = (stage(root.path()), spec(content));
            fs::write(stage.part_path(&file), present).unwrap();
            let part = PartFile::resume_slices(&stage, &file, &slices(content, 3)).unwrap();
            assert_eq!(part.len_bytes(), kept, "for {present:?}");
            assert_eq!(fs::metadata(stage.part_path(&file)).unwrap().len(), kept);
        }
    }

    #[test]
    fn a_wrong_hash_is_rejected_and_kept_apart() {
        let root = tempfile::tempdir().unwrap();
        let (stage, file) = (stage(root.path()), spec(b"right"));
        let mut part = PartFile::resume(&stage, &file).unwrap();
        part.append(&mut &b"wrong"[..], 5, &mut |_| {}).unwrap();
        let error = part.finish(&stage, &file).unwrap_err();
        let SourceError::HashMismatch {
            expected,
            got,
            kept_at,
            ..
        } = error
        else {
            panic!("got {error}")
        };
        assert_eq!((Some(expected), got), (file.sha256, FileHash::of_bytes(b"wrong")));
        assert_eq!(fs::read(kept_at).unwrap(), b"wrong");
        assert!(!stage.whole_path(&file).exists() && !stage.part_path(&file).exists());
    }

    #[test]
    fn a_short_file_is_not_finished() {
        let root = tempfile::tempdir().unwrap();
        let (stage, file) = (stage(root.path()), spec(b"right"));
        let error = PartFile::resume(&stage, &file)
            .unwrap()
            .finish(&stage, &file)
            .unwrap_err();
        assert!(
            matches!(
                error,
                SourceError::SizeMismatch {
                    expected_bytes: 5,
                    got_bytes: 0,
                    ..
                }
            ),
            "got {error}"
        );
    }

    #[test]
    fn rewinding_forgets_bytes_and_hash() {
        let root = tempfile::tempdir().unwrap();
        let (stage, file) = (stage(root.path()), spec(b"abcd"));
        let mut part = PartFile::resume(&stage, &file).unwrap();
        part.append(&mut &b"ab"[..], 2, &mut |_| {}).unwrap();
        let mark = part.mark();
        part.append(&mut &b"XX"[..], 2, &mut |_| {}).unwrap();
        part.rewind(mark).unwrap();
        part.append(&mut &b"cd"[..], 2, &mut |_| {}).unwrap();
        part.finish(&stage, &file).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_the_part_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (stage, file) = (stage(root.path()), spec(b"abcd"));
        let outside = root.path().join("outside");
        fs::write(&outside, b"precious").unwrap();
        std::os::unix::fs::symlink(&outside, stage.part_path(&file)).unwrap();
        PartFile::resume(&stage, &file).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_named_with_the_bytes_needed() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut part = PartFile {
            path,
            file,
            hasher: Sha256::new(),
            len_bytes: 0,
            want_bytes: 7,
        };
        let error = part.append(&mut &b"abcdefg"[..], 7, &mut |_| {}).unwrap_err();
        assert!(
            matches!(
                error,
                AppendError::Disk(SourceError::DiskFull { needed_bytes: 7, .. })
            ),
            "got {error:?}"
        );
        assert_eq!(part.missing_bytes(), 7);
    }
}
