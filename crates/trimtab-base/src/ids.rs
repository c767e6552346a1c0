//! Newtypes for numbers that must not be mixed up. Knows nothing about what they index.

use serde::{Deserialize, Serialize};

/// Index of a token in a model's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub u32);

impl TokenId {
    /// The id as an index into a `[vocab]` slice.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Seed of a run; all randomness of the run is a function of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

/// Identity of a prompt for random streams: a hash of its content, so that neither its place in a file nor
/// the batch it runs in changes what is sampled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PromptKey(pub u64);

impl PromptKey {
    /// 64-bit FNV-1a over the little-endian token ids.
    ///
    /// A collision would only give two prompts the same stream of coins, so a cryptographic hash buys nothing.
    pub fn of_tokens(tokens: &[TokenId]) -> Self {
        Self::of_bytes(tokens.iter().flat_map(|token| token.0.to_le_bytes()))
    }

    /// 64-bit FNV-1a over bytes; for prompts that are not token ids alone.
    pub fn of_bytes(bytes: impl IntoIterator<Item = u8>) -> Self {
        let hash = bytes.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_key_is_published_fnv1a() {
        // Reference vectors of the FNV specification.
        assert_eq!(PromptKey::of_bytes(*b"").0, 0xcbf2_9ce4_8422_2325);
        assert_eq!(PromptKey::of_bytes(*b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(PromptKey::of_bytes(*b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn prompt_key_depends_on_order() {
        let key = |ids: &[u32]| PromptKey::of_tokens(&ids.iter().map(|&id| TokenId(id)).collect::<Vec<_>>());
        assert_ne!(key(&[1, 2]), key(&[2, 1]));
    }
}
