//! SHA-256 digests of files: the type, its text form, and hashing by streaming. Knows nothing of models.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Size of the buffer in which bytes travel from a source to the disk and the hasher.
pub(crate) const COPY_BUFFER_BYTES: usize = 256 * 1024;

/// The SHA-256 digest of a file (or of a list of files, see [`FileHash::of_many`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileHash([u8; 32]);

impl FileHash {
    /// The digest of `bytes`.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of the file at `path`, read once as a stream; `on_bytes` receives the bytes read so far.
    pub fn of_file(path: &Path, mut on_bytes: impl FnMut(u64)) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        let mut hasher = Sha256::new();
        let mut done_bytes = 0;
        loop {
            let len = read_some(&mut file, &mut buffer)?;
            if len == 0 {
                return Ok(Self::from_hasher(hasher));
            }
            hasher.update(&buffer[..len]);
            done_bytes += len as u64;
            on_bytes(done_bytes);
        }
    }

    /// One digest for weights that are split over several files.
    ///
    /// A single file keeps its own digest. Several give the digest of the text `<sha256>  <name>\n`, one line a
    /// file in the order of names, which is what `sha256sum FILES | sha256sum` prints.
    pub fn of_many(files: &[(&str, Self)]) -> Self {
        if let [(_, only)] = files {
            return *only;
        }
        let mut sorted = files.to_vec();
        sorted.sort_by_key(|(name, _)| *name);
        let mut hasher = Sha256::new();
        for (name, hash) in sorted {
            hasher.update(format!("{hash}  {name}\n"));
        }
        Self::from_hasher(hasher)
    }

    pub(crate) fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a SHA-256 digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a sha256 of 64 lower-case hexadecimal digits, got {text:?}")]
pub struct ParseHashError {
    /// The text as given.
    pub text: String,
}

impl FromStr for FileHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseHashError {
            text: text.to_owned(),
        };
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.as_bytes().iter().all(is_digit) {
            return Err(error());
        }
        let mut digest = [0; 32];
        for (idx, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * idx..2 * idx + 2], 16).map_err(|_| error())?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for FileHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FileHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// `Read::read` that goes on after an interrupting signal.
pub(crate) fn read_some(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1: the digest of "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn text_form_round_trips_and_matches_the_standard() {
        let hash = FileHash::of_bytes(b"abc");
        assert_eq!(hash.to_string(), ABC);
        assert_eq!(ABC.parse(), Ok(hash));
    }

    #[test]
    fn refuses_texts_that_are_no_digest() {
        for text in [
            "",
            "abc",
            &ABC.to_uppercase(),
            &ABC[1..],
            &format!("{ABC}0"),
            &ABC.replace('b', "g"),
        ] {
            assert!(text.parse::<FileHash>().is_err(), "{text} was accepted");
        }
        assert!("é".repeat(32).parse::<FileHash>().is_err());
    }

    #[test]
    fn one_file_keeps_its_hash_and_order_of_many_does_not_matter() {
        let (a, b) = (FileHash::of_bytes(b"a"), FileHash::of_bytes(b"b"));
        assert_eq!(FileHash::of_many(&[("a", a)]), a);
        let text = format!("{a}  a\n{b}  b\n");
        assert_eq!(
            FileHash::of_many(&[("b", b), ("a", a)]),
            FileHash::of_bytes(text.as_bytes())
        );
    }
}
