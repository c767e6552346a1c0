//! What each target does with its input, so that a fuzzer and an ordinary test can run the same. Knows no format beyond
//! how an input is divided into files; what is accepted is read through to the end.

#[cfg(test)]
mod seeds;

use serde_json::Value;
use trimtab_checkpoint::{Checkpoint, CheckpointError, parse_llama2c_tokenizer, parse_safetensors_index};
use trimtab_model::from_hf::config_from_hf;
use trimtab_tokenizer::{ChatTemplate, Message, RenderOptions, SpecialTokens, TemplateTokens, Tokenizer};

/// A target's name and what it does; true if the input was accepted.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets, as their files in `fuzz_targets` are called.
pub const TARGETS: [Target; 8] = [
    ("chat_template", chat_template),
    ("config_json", config_json),
    ("gguf", gguf),
    ("llama2c", llama2c),
    ("llama2c_tokenizer", llama2c_tokenizer),
    ("safetensors", safetensors),
    ("safetensors_index", safetensors_index),
    ("tokenizer_json", tokenizer_json),
];

/// The input is a chat template, rendered with a short conversation.
pub fn chat_template(bytes: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(bytes) else {
        return false;
    };
    let tokens = TemplateTokens {
        bos: Some("<s>".to_owned()),
        eos: Some("</s>".to_owned()),
    };
    let messages = [
        Message::new("system", "Be brief."),
        Message::new("user", "What is 2 + 2? {{ 1 }}"),
        Message::new("assistant", "4"),
    ];
    let options = RenderOptions {
        add_generation_prompt: true,
        ..RenderOptions::default()
    };
    accepted(ChatTemplate::try_new(source, tokens).and_then(|template| template.render(&messages, &options)))
}

/// The input is a `config.json` of the model hub.
pub fn config_json(bytes: &[u8]) -> bool {
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else {
        return false;
    };
    accepted(config_from_hf(&json))
}

/// The input is a GGUF file.
pub fn gguf(bytes: &[u8]) -> bool {
    read_all(Checkpoint::from_gguf_bytes(bytes.to_vec()))
}

/// The input is a llama2.c checkpoint.
pub fn llama2c(bytes: &[u8]) -> bool {
    read_all(Checkpoint::from_llama2c_bytes(bytes.to_vec()))
}

/// The input is the number of tokens in two bytes, then a llama2.c `tokenizer.bin`.
pub fn llama2c_tokenizer(bytes: &[u8]) -> bool {
    let Some((vocab_len, file)) = bytes.split_first_chunk() else {
        return false;
    };
    accepted(parse_llama2c_tokenizer(
        file,
        usize::from(u16::from_le_bytes(*vocab_len)),
    ))
}

/// The input is a safetensors file; its configuration is of no interest to the reader.
pub fn safetensors(bytes: &[u8]) -> bool {
    read_all(Checkpoint::from_safetensors_bytes(
        b"{}".to_vec(),
        vec![bytes.to_vec()],
    ))
}

/// The input is the index of a sharded checkpoint; no name that is accepted may lead out of the folder.
pub fn safetensors_index(bytes: &[u8]) -> bool {
    let parsed = parse_safetensors_index(bytes);
    for (_, file) in parsed.iter().flatten() {
        assert!(!file.contains(['/', '\\']) && file != ".." && file != "." && !file.is_empty());
    }
    accepted(parsed)
}

/// The input is `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and `chat_template.jinja`, each but
/// the first optional, separated by zero bytes.
pub fn tokenizer_json(bytes: &[u8]) -> bool {
    const NAMES: [&str; 4] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ];
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let files: Vec<&str> = text.split('\0').collect();
    let read = |name: &str| {
        let idx = NAMES.iter().position(|known| *known == name);
        Ok(idx.and_then(|idx| files.get(idx)).map(|text| (*text).to_owned()))
    };
    let opened = Tokenizer::from_hf_files(&read);
    if let Ok(tokenizer) = &opened {
        for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
            // A byte may be missing; what could be encoded can be decoded.
            if let Ok(ids) = tokenizer.encode("<s> a ss>\n\u{e9}", special) {
                let _text = tokenizer.decode(&ids);
            }
        }
        let _any = tokenizer.encode_chat(&[Message::new("user", "a")], &RenderOptions::default());
    }
    accepted(opened)
}

/// True for a value; an error must say something.
fn accepted<T, E: std::fmt::Display>(result: Result<T, E>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Reads every row and every metadata value of a file that was accepted.
fn read_all(opened: Result<Checkpoint, CheckpointError>) -> bool {
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => return accepted::<(), _>(Err(error)),
    };
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name).expect("the name is from the list");
        let mut row = vec![0.0; tensor.shape().last().copied().unwrap_or(1)];
        // Rows of no elements take no bytes, and there may be as many as the file claims.
        let num_rows = if row.is_empty() { 0 } else { tensor.num_rows() };
        (0..num_rows).for_each(|idx| tensor.read_row(idx, &mut row));
    }
    let Some(metadata) = checkpoint.metadata() else {
        return true;
    };
    for key in metadata.keys() {
        let _any = (
            metadata.text(key),
            metadata.u32(key),
            metadata.i64(key),
            metadata.f32(key),
        );
        let _any = (
            metadata.texts(key),
            metadata.f32s(key),
            metadata.i32s(key),
            metadata.bools(key),
        );
    }
    true
}
