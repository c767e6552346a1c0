//! The legacy float format of llama2.c: seven integers, then `f32` tensors in a fixed order. Knows no tokens.

use std::collections::BTreeMap;

use crate::cursor::Cursor;
use crate::dtype::Dtype;
use crate::error::FormatError;
use crate::tensor::TensorInfo;

/// Bytes of the header.
const HEADER_BYTES: usize = 7 * 4;
/// First bytes of llama2.c's later formats (`ak42`, little-endian), which are not read.
const LATER_MAGIC: &[u8; 4] = b"24ka";

/// The header; all lengths are numbers of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Llama2cHeader {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward layers.
    pub hidden_dim: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key/value heads.
    pub num_kv_heads: usize,
    /// Tokens in the vocabulary.
    pub vocab_len: usize,
    /// Longest sequence.
    pub seq_len: usize,
    /// The output head is the embedding matrix; stored as the sign of the vocabulary's length.
    pub tied_head: bool,
}

impl Llama2cHeader {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.dim / self.num_heads
    }

    /// Width of all key or value heads.
    fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim()
    }

    /// Bytes of a file with this header. Each factor is below 2^31, so that no product of three overflows 128 bits.
    fn file_bytes(&self) -> u128 {
        let [dim, hidden, layers, kv_dim, vocab, seq, head_dim] = [
            self.dim,
            self.hidden_dim,
            self.num_layers,
            self.kv_dim(),
            self.vocab_len,
            self.seq_len,
            self.head_dim(),
        ]
        .map(|len| len as u128);
        let layer = 2 * dim + 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * hidden;
        let embeddings = vocab * dim * if self.tied_head { 1 } else { 2 };
        let rotary = seq * head_dim;
        HEADER_BYTES as u128 + 4 * (layers * layer + embeddings + dim + rotary)
    }
}

/// Header and tensors, named as llama2.c's exporter names them.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Llama2cHeader, BTreeMap<String, TensorInfo>), FormatError> {
    if bytes.starts_with(LATER_MAGIC) {
        return Err(FormatError::bad(
            "magic",
            "\"ak42\"",
            "a legacy file of llama2.c (version 0), which has none",
        ));
    }
    let header = read_header(bytes)?;
    let expected = header.file_bytes();
    if expected != bytes.len() as u128 {
        let expected = format_args!("{expected} bytes for {header:?}");
        return Err(FormatError::bad("file length", bytes.len(), expected));
    }
    Ok((header, place_tensors(&header)))
}

fn read_header(bytes: &[u8]) -> Result<Llama2cHeader, FormatError> {
    let mut cursor = Cursor::new(bytes);
    let mut positive = |field: &str| {
        let value = cursor.i32(&field)?;
        let sound = usize::try_from(value).ok().filter(|&value| value > 0);
        sound.ok_or_else(|| FormatError::bad(field, value, "a positive number"))
    };
    let dim = positive("dim")?;
    let hidden_dim = positive("hidden_dim")?;
    let num_layers = positive("n_layers")?;
    let num_heads = positive("n_heads")?;
    let num_kv_heads = positive("n_kv_heads")?;
    let signed_vocab = cursor.i32(&"vocab_size")?;
    if signed_vocab == 0 {
        return Err(FormatError::bad("vocab_size", 0, "any other number"));
    }
    let seq_len = cursor.i32(&"seq_len")?;
    let seq_len = usize::try_from(seq_len)
        .ok()
        .filter(|&len| len > 0)
        .ok_or_else(|| FormatError::bad("seq_len", seq_len, "a positive number"))?;
    if dim % num_heads != 0 || (dim / num_heads) % 2 != 0 {
        return Err(FormatError::bad(
            "n_heads",
            num_heads,
            format_args!("an even head width for dim {dim}"),
        ));
    }
    if num_heads % num_kv_heads != 0 {
        return Err(FormatError::bad(
            "n_kv_heads",
            num_kv_heads,
            format_args!("a divisor of n_heads {num_heads}"),
        ));
    }
    Ok(Llama2cHeader {
        dim,
        hidden_dim,
        num_layers,
        num_heads,
        num_kv_heads,
        vocab_len: signed_vocab.unsigned_abs() as usize,
        seq_len,
        tied_head: signed_vocab > 0,
    })
}

/// Lays the tensors out; the file's length has been found to be the sum of theirs, so nothing overflows.
fn place_tensors(header: &Llama2cHeader) -> BTreeMap<String, TensorInfo> {
    let &Llama2cHeader {
        dim,
        hidden_dim,
        num_layers,
        vocab_len,
        ..
    } = header;
    let kv_dim = header.kv_dim();
    let mut layout = Layout {
        offset: HEADER_BYTES,
        tensors: BTreeMap::new(),
    };
    layout.one("tok_embeddings.weight".to_owned(), &[vocab_len, dim]);
    layout.per_layer(num_layers, "attention_norm", &[dim]);
    layout.per_layer(num_layers, "attention.wq", &[dim, dim]);
    layout.per_layer(num_layers, "attention.wk", &[kv_dim, dim]);
    layout.per_layer(num_layers, "attention.wv", &[kv_dim, dim]);
    layout.per_layer(num_layers, "attention.wo", &[dim, dim]);
    layout.per_layer(num_layers, "ffn_norm", &[dim]);
    layout.per_layer(num_layers, "feed_forward.w1", &[hidden_dim, dim]);
    layout.per_layer(num_layers, "feed_forward.w2", &[dim, hidden_dim]);
    layout.per_layer(num_layers, "feed_forward.w3", &[hidden_dim, dim]);
    layout.one("norm.weight".to_owned(), &[dim]);
    // Tables of rotary cosines and sines, which readers compute themselves.
    layout.offset += header.seq_len * header.head_dim() * 4;
    if !header.tied_head {
        layout.one("output.weight".to_owned(), &[vocab_len, dim]);
    }
    layout.tensors
}

struct Layout {
    offset: usize,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Layout {
    fn one(&mut self, name: String, shape: &[usize]) {
        let start = self.offset;
        self.offset += 4 * shape.iter().product::<usize>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            file_idx: 0,
            bytes: start..self.offset,
        };
        self.tensors.insert(name, info);
    }

    fn per_layer(&mut self, num_layers: usize, name: &str, shape: &[usize]) {
        for layer in 0..num_layers {
            self.one(format!("layers.{layer}.{name}.weight"), shape);
        }
    }
}
