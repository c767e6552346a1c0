//! A GGUF file's vocabulary as the tokenizer takes it. Knows the metadata's keys, not their meaning.

use trimtab_checkpoint::{Checkpoint, CheckpointError, Metadata};
use trimtab_tokenizer::GgufVocab;

/// The tokenizer's part of the metadata; empty parts where the file has none.
///
/// # Errors
/// An entry of an unexpected type.
pub(crate) fn gguf_vocab(checkpoint: &Checkpoint) -> Result<GgufVocab, CheckpointError> {
    let Some(metadata) = checkpoint.metadata() else {
        return Ok(GgufVocab::default());
    };
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    Ok(GgufVocab {
        model: metadata.text(&key("model"))?.unwrap_or_default().to_owned(),
        pre: metadata.text(&key("pre"))?.map(str::to_owned),
        tokens: texts(&metadata, &key("tokens"))?.unwrap_or_default(),
        scores: metadata.f32s(&key("scores"))?,
        token_types: metadata.i32s(&key("token_type"))?,
        merges: texts(&metadata, &key("merges"))?,
        bos_token_id: metadata.u32(&key("bos_token_id"))?,
        eos_token_id: metadata.u32(&key("eos_token_id"))?,
        eot_token_id: metadata.u32(&key("eot_token_id"))?,
        eom_token_id: metadata.u32(&key("eom_token_id"))?,
        add_bos: metadata.bool(&key("add_bos_token"))?,
        add_space_prefix: metadata.bool(&key("add_space_prefix"))?,
        chat_template: metadata.text("tokenizer.chat_template")?.map(str::to_owned),
    })
}

fn texts(metadata: &Metadata<'_>, key: &str) -> Result<Option<Vec<String>>, CheckpointError> {
    Ok(metadata
        .texts(key)?
        .map(|texts| texts.into_iter().map(str::to_owned).collect()))
}
