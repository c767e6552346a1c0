//! Tokenizers from a folder in the hub's layout. Knows which file says what; `tokenizer.json` is read in `hf_json`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use trimtab_base::TokenId;

use crate::bpe::BpeCodec;
use crate::chat::{ChatTemplate, TemplateTokens};
use crate::error::TokenizerError;
use crate::hf_json::{TokenizerJson, Vocabulary};
use crate::space_mark::Prefix;
use crate::tokenizer::{Codec, Tokenizer};

/// Gives the text of the file of a name; `None` if there is none.
pub(crate) type ReadFile<'a> = dyn Fn(&str) -> Result<Option<String>, TokenizerError> + 'a;

/// The file that no tokenizer can do without.
const TOKENIZER_JSON: &str = "tokenizer.json";
/// Largest file that is read; Gemma's `tokenizer.json` has 33 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

impl Tokenizer {
    /// A tokenizer from a folder with `tokenizer.json` and, where present, `tokenizer_config.json`,
    /// `generation_config.json` (or `config.json`), `special_tokens_map.json` and a chat template
    /// (`chat_template.jinja`, else the one in `tokenizer_config.json`, else `chat_template.json`).
    ///
    /// Understood are byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM2) and SentencePiece-style BPE with byte fallback
    /// (Llama 2, TinyLlama, Mistral, Gemma). Normalisation that the file asks for is applied, so under Qwen's NFC a
    /// text comes back normalised.
    ///
    /// Differs from the `tokenizers` library where that loses bytes: a `▁` in the text is written as its three
    /// bytes instead of as a space, and a space is put before a text (if at all) even if it begins with one, and not
    /// after user-defined tokens, as SentencePiece does.
    ///
    /// # Errors
    /// A typed error names the file or field at fault; no content of the folder makes this panic.
    pub fn from_hf_folder(folder: &Path) -> Result<Self, TokenizerError> {
        read_folder(folder, &|read| Self::from_hf_files(read))
    }

    /// As [`Self::from_hf_folder`], of files that lie elsewhere than in a folder: `read` gives the text of the file of
    /// a name, or `None` if there is none.
    ///
    /// # Errors
    /// A typed error names the file or field at fault, or is what `read` answered.
    pub fn from_hf_files(read: &ReadFile<'_>) -> Result<Self, TokenizerError> {
        let hub = HubTokenizer::read(read)?;
        let vocabulary = hub.vocabulary;
        let piece = |id: Option<u32>| vocabulary.pieces().get(id? as usize)?.clone();
        let tokens = TemplateTokens {
            bos: piece(hub.bos),
            eos: piece(hub.eos),
        };
        Ok(Self {
            bytes: vocabulary.bytes(),
            strips_leading_space: vocabulary.prefix() != Prefix::Never,
            codec: Codec::Bpe(Box::new(BpeCodec::new(vocabulary.into_parts())?)),
            bos: hub.bos.map(TokenId),
            add_bos: hub.add_bos,
            stop_tokens: hub.stop_ids.into_iter().map(TokenId).collect(),
            chat_template: hub
                .chat_template
                .map(|source| ChatTemplate::try_new(&source, tokens))
                .transpose()?,
        })
    }
}

/// What a hub folder says of a tokenizer, checked and together.
pub(crate) struct HubTokenizer {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    /// Whether raw prompts start with `bos`.
    pub(crate) add_bos: bool,
    /// Tokens that end an answer.
    pub(crate) stop_ids: BTreeSet<u32>,
    pub(crate) chat_template: Option<String>,
}

impl HubTokenizer {
    /// Reads all files.
    pub(crate) fn read(read: &ReadFile<'_>) -> Result<Self, TokenizerError> {
        let text = read(TOKENIZER_JSON)?
            .ok_or_else(|| in_file(TOKENIZER_JSON, "is missing; a tokenizer needs it".to_owned()))?;
        let json = TokenizerJson::parse(&text).map_err(|error| match error {
            TokenizerError::File { problem, .. } => in_file(TOKENIZER_JSON, problem),
            other => other,
        })?;
        drop(text);
        let names = SpecialNames::read(read)?;
        let template_bos = json.template_bos();
        let bos_piece = names.bos_token.or_else(|| template_bos.clone());
        let mut vocabulary = Vocabulary::try_new(json)?;
        let bos = vocabulary.named_special("bos_token", bos_piece.as_deref())?;
        let eos = vocabulary.named_special("eos_token", names.eos_token.as_deref())?;
        let mut stop_ids: BTreeSet<u32> = eos.into_iter().collect();
        for id in names.stop_ids {
            vocabulary.make_special("eos_token_id", id)?;
            stop_ids.insert(id);
        }
        stop_ids.extend(vocabulary.turn_ends());
        Ok(Self {
            vocabulary,
            bos,
            eos,
            add_bos: names.add_bos_token.unwrap_or(template_bos.is_some()),
            stop_ids,
            chat_template: chat_template(read, names.chat_template)?,
        })
    }
}

/// What `build` makes of the files of a folder, with the folder in the paths of errors.
pub(crate) fn read_folder<T>(
    folder: &Path,
    build: &dyn Fn(&ReadFile<'_>) -> Result<T, TokenizerError>,
) -> Result<T, TokenizerError> {
    build(&|name| read_text(&folder.join(name))).map_err(|error| match error {
        TokenizerError::File { path, problem } => TokenizerError::File {
            path: folder.join(path),
            problem,
        },
        other => other,
    })
}

/// What the small files beside `tokenizer.json` say.
struct SpecialNames {
    bos_token: Option<String>,
    eos_token: Option<String>,
    add_bos_token: Option<bool>,
    /// `eos_token_id` of the generation config: all tokens that end an answer.
    stop_ids: Vec<u32>,
    chat_template: Option<TemplateField>,
}

/// `tokenizer_config.json` and `special_tokens_map.json`.
#[derive(Deserialize, Default)]
struct TokenizerConfig {
    bos_token: Option<NamedToken>,
    eos_token: Option<NamedToken>,
    add_bos_token: Option<bool>,
    chat_template: Option<TemplateField>,
}

/// A token is written as its text or as an object with its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Text(String),
    Object { content: String },
}

/// A template, or several by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Many(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// `generation_config.json` and `config.json`.
#[derive(Deserialize, Default)]
struct GenerationConfig {
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

/// `chat_template.json`.
#[derive(Deserialize, Default)]
struct TemplateFile {
    chat_template: Option<TemplateField>,
}

impl NamedToken {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

impl TemplateField {
    /// The template for plain conversations.
    fn into_default(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Many(templates) => {
                let mut templates = templates.into_iter();
                templates
                    .find(|entry| entry.name == "default")
                    .map(|entry| entry.template)
            }
        }
    }
}

impl SpecialNames {
    fn read(read: &ReadFile<'_>) -> Result<Self, TokenizerError> {
        let config: TokenizerConfig = read_json(read, "tokenizer_config.json")?.unwrap_or_default();
        let map: TokenizerConfig = read_json(read, "special_tokens_map.json")?.unwrap_or_default();
        let generation: Option<GenerationConfig> = read_json(read, "generation_config.json")?;
        let stop_ids = match generation.and_then(|generation| generation.eos_token_id) {
            Some(ids) => Some(ids),
            None => {
                read_json::<GenerationConfig>(read, "config.json")?.and_then(|config| config.eos_token_id)
            }
        };
        Ok(Self {
            bos_token: config.bos_token.or(map.bos_token).map(NamedToken::into_text),
            eos_token: config.eos_token.or(map.eos_token).map(NamedToken::into_text),
            add_bos_token: config.add_bos_token,
            stop_ids: match stop_ids {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
            chat_template: config.chat_template,
        })
    }
}

/// The source of the chat template, from the place that counts.
fn chat_template(
    read: &ReadFile<'_>,
    in_config: Option<TemplateField>,
) -> Result<Option<String>, TokenizerError> {
    if let Some(source) = read("chat_template.jinja")? {
        return Ok(Some(source));
    }
    if let Some(source) = in_config.and_then(TemplateField::into_default) {
        return Ok(Some(source));
    }
    let file: Option<TemplateFile> = read_json(read, "chat_template.json")?;
    Ok(file
        .and_then(|file| file.chat_template)
        .and_then(TemplateField::into_default))
}

/// Content of a text file; `None` if there is none of that name. The path in an error is the bare name.
fn read_text(path: &Path) -> Result<Option<String>, TokenizerError> {
    let problem = |problem: String| TokenizerError::File {
        path: path.file_name().unwrap_or_default().into(),
        problem,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| problem(error.to_string()))?,
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| problem(error.to_string()))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(problem(format!("expected at most {MAX_FILE_BYTES} bytes")));
    }
    Ok(Some(text))
}

/// Content of a JSON file; `None` if there is none of that name.
fn read_json<T: DeserializeOwned>(read: &ReadFile<'_>, name: &str) -> Result<Option<T>, TokenizerError> {
    let Some(text) = read(name)? else {
        return Ok(None);
    };
    // Read as a value first, in which a repeated key is no fault: some files name one token twice.
    let value: Result<Value, _> = serde_json::from_str(&text);
    let content = value.and_then(T::deserialize).map(Some);
    content.map_err(|error| in_file(name, error.to_string()))
}

fn in_file(name: &str, problem: String) -> TokenizerError {
    TokenizerError::File {
        path: name.into(),
        problem,
    }
}
