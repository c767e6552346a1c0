//! A GGUF file's vocabulary as the tokenizer takes it. Knows the metadata's keys, not their meaning.

use trimtab_checkpoint::{Checkpoint, CheckpointError, GgufEntries, Metadata};
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

/// Adds the vocabulary to the metadata of a file that is made.
pub(crate) fn add_gguf_vocab(vocab: &GgufVocab, entries: &mut GgufEntries) {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    entries.text(&key("model"), &vocab.model);
    if let Some(pre) = &vocab.pre {
        entries.text(&key("pre"), pre);
    }
    entries.texts(&key("tokens"), &vocab.tokens);
    if let Some(scores) = &vocab.scores {
        entries.f32s(&key("scores"), scores);
    }
    if let Some(kinds) = &vocab.token_types {
        entries.i32s(&key("token_type"), kinds);
    }
    if let Some(merges) = &vocab.merges {
        entries.texts(&key("merges"), merges);
    }
    let ids = [
        ("bos_token_id", vocab.bos_token_id),
        ("eos_token_id", vocab.eos_token_id),
        ("eot_token_id", vocab.eot_token_id),
        ("eom_token_id", vocab.eom_token_id),
        ("unknown_token_id", vocab.unknown_token_id()),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            entries.u32(&key(name), id);
        }
    }
    let flags = [
        ("add_bos_token", vocab.add_bos),
        ("add_space_prefix", vocab.add_space_prefix),
    ];
    for (name, flag) in flags {
        if let Some(flag) = flag {
            entries.bool(&key(name), flag);
        }
    }
    if let Some(template) = &vocab.chat_template {
        entries.text("tokenizer.chat_template", template);
    }
}

fn texts(metadata: &Metadata<'_>, key: &str) -> Result<Option<Vec<String>>, CheckpointError> {
    Ok(metadata
        .texts(key)?
        .map(|texts| texts.into_iter().map(str::to_owned).collect()))
}
