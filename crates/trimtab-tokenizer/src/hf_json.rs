//! `tokenizer.json` as checked parts. Knows no other file.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use tokenizers::AddedToken;

use crate::bpe::{BpeParts, Words};
use crate::byte_level::CharBytes;
use crate::error::TokenizerError;
use crate::gguf::split_merge;
use crate::hf_words::words;
use crate::piece_bytes::PieceBytes;
use crate::space_mark::{Prefix, SPACE_MARK};
use crate::token_kind::{TokenKind, byte_of_piece, ends_turn};
use crate::tokenizer::MAX_VOCAB_LEN;

/// The file's content, of the parts that encoding needs.
#[derive(Deserialize)]
pub(crate) struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedEntry>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: ModelEntry,
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file's fields")]
struct AddedEntry {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelEntry {
    vocab: Entries,
    merges: Vec<MergeEntry>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Older files write a rule as one text.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeEntry {
    Text(String),
    Pair(String, String),
}

/// Only the name of the algorithm, for a file that is none of ours.
#[derive(Deserialize)]
struct Probe {
    model: ProbeModel,
}

#[derive(Deserialize)]
struct ProbeModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Pieces and ids in the file's order, repeated ones included.
struct Entries(Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of pieces and ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

impl TokenizerJson {
    /// Reads the file's text. The path in an error is empty, for the caller to fill in.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenizerError> {
        serde_json::from_str(text).map_err(|error| {
            let kind = serde_json::from_str(text)
                .ok()
                .and_then(|probe: Probe| probe.model.kind);
            match kind {
                Some(kind) if kind != "BPE" => unsupported("model.type", kind, "BPE"),
                _ => TokenizerError::File {
                    path: PathBuf::new(),
                    problem: error.to_string(),
                },
            }
        })
    }

    /// The special token that the post-processor puts before a text.
    pub(crate) fn template_bos(&self) -> Option<String> {
        template_bos(self.post_processor.as_ref()?)
    }
}

fn template_bos(processor: &Value) -> Option<String> {
    if let Some(processors) = processor.get("processors").and_then(Value::as_array) {
        return processors.iter().find_map(template_bos);
    }
    let first = processor.get("single")?.get(0)?;
    first.get("SpecialToken")?.get("id")?.as_str().map(str::to_owned)
}

/// A vocabulary whose ids are unique and whose added tokens are known.
pub(crate) struct Vocabulary {
    ids: HashMap<String, u32>,
    /// Pieces by id; `None` for ids without one. `[vocab]`
    pieces: Vec<Option<String>>,
    /// Added tokens by id.
    added: HashMap<u32, AddedToken>,
    merges: Vec<(String, String)>,
    ignore_merges: bool,
    words: Words,
}

impl Vocabulary {
    pub(crate) fn try_new(json: TokenizerJson) -> Result<Self, TokenizerError> {
        let model = json.model;
        let affixes = [model.continuing_subword_prefix, model.end_of_word_suffix];
        if let Some(affix) = affixes.into_iter().flatten().find(|affix| !affix.is_empty()) {
            let field = "model.continuing_subword_prefix, model.end_of_word_suffix";
            return Err(unsupported(field, affix, "none"));
        }
        let words = words(json.normalizer, json.pre_tokenizer, model.byte_fallback)?;
        let (ids, pieces) = index(model.vocab.0, &json.added_tokens)?;
        let added = json.added_tokens.into_iter().map(added_token);
        let merges = model
            .merges
            .into_iter()
            .enumerate()
            .map(|(idx, merge)| match merge {
                MergeEntry::Text(text) => split_merge(idx, text),
                MergeEntry::Pair(left, right) => Ok((left, right)),
            });
        Ok(Self {
            ids,
            pieces,
            added: added.collect::<Result<_, _>>()?,
            merges: merges.collect::<Result<_, _>>()?,
            ignore_merges: model.ignore_merges,
            words,
        })
    }

    /// Makes the token that a file names a special one.
    pub(crate) fn named_special(
        &mut self,
        field: &'static str,
        piece: Option<&str>,
    ) -> Result<Option<u32>, TokenizerError> {
        let Some(piece) = piece else { return Ok(None) };
        let id = *self.ids.get(piece).ok_or_else(|| TokenizerError::UnknownPiece {
            field,
            piece: piece.to_owned(),
        })?;
        self.make_special(field, id)?;
        Ok(Some(id))
    }

    /// Makes a token a special one.
    pub(crate) fn make_special(&mut self, field: &'static str, id: u32) -> Result<(), TokenizerError> {
        let piece = self.pieces.get(id as usize).and_then(Option::as_ref);
        let piece = piece.ok_or_else(|| TokenizerError::BadId {
            field: field.to_owned(),
            id,
            vocab_len: self.pieces.len(),
        })?;
        self.added
            .entry(id)
            .or_insert_with(|| AddedToken::from(piece.clone(), true))
            .special = true;
        Ok(())
    }

    /// Makes added tokens special that end a turn by their names, and lists them.
    pub(crate) fn turn_ends(&mut self) -> Vec<u32> {
        let ends = self
            .added
            .iter_mut()
            .filter(|(_, token)| ends_turn(&token.content, TokenKind::UserDefined));
        ends.map(|(id, token)| {
            token.special = true;
            *id
        })
        .collect()
    }

    /// Where a space is put before a text.
    pub(crate) fn prefix(&self) -> Prefix {
        match self.words {
            Words::ByteLevel { .. } => Prefix::Never,
            Words::SpaceMark { prefix } => prefix,
        }
    }

    /// Pieces by id; `None` for ids without one. `[vocab]`
    pub(crate) fn pieces(&self) -> &[Option<String>] {
        &self.pieces
    }

    /// The added token of an id, if it is one.
    pub(crate) fn added(&self, id: u32) -> Option<&AddedToken> {
        self.added.get(&id)
    }

    /// Rules in order of rank.
    pub(crate) fn merges(&self) -> &[(String, String)] {
        &self.merges
    }

    /// Whether a word that is a piece is taken whole.
    pub(crate) fn ignore_merges(&self) -> bool {
        self.ignore_merges
    }

    /// How text becomes words.
    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    /// What each token adds to a text.
    pub(crate) fn bytes(&self) -> PieceBytes {
        let char_bytes = CharBytes::new();
        let bytes = self.pieces.iter().enumerate().map(|(id, piece)| {
            let Some(piece) = piece else { return Vec::new() };
            match (self.added.get(&(id as u32)), &self.words) {
                (Some(token), _) if token.special => Vec::new(),
                (Some(_), Words::ByteLevel { .. }) => piece.clone().into_bytes(),
                (None, Words::ByteLevel { .. }) => char_bytes.piece_bytes(piece),
                (_, Words::SpaceMark { .. }) => match byte_of_piece(piece.as_bytes()) {
                    Some(byte) => vec![byte],
                    None => piece.replace(SPACE_MARK, " ").into_bytes(),
                },
            }
        });
        bytes.collect()
    }

    /// The parts of the encoder.
    pub(crate) fn into_parts(self) -> BpeParts {
        let marks_spaces = matches!(self.words, Words::SpaceMark { .. });
        let mut added: Vec<(u32, AddedToken)> = self.added.into_iter().collect();
        // In the file's order, so that nothing depends on the order of a hash map.
        added.sort_unstable_by_key(|(id, _)| *id);
        let added = added.into_iter().map(|(_, token)| token);
        BpeParts {
            ids: self.ids,
            merges: self.merges,
            ignore_merges: self.ignore_merges,
            // Merges make the tokens with marks; found as they stand, they would turn a mark of the text into a space.
            added: added
                .filter(|token| token.special || !marks_spaces || !token.content.contains(SPACE_MARK))
                .collect(),
            words: self.words,
        }
    }
}

type Index = (HashMap<String, u32>, Vec<Option<String>>);

/// Ids by piece and pieces by id.
fn index(entries: Vec<(String, u32)>, added: &[AddedEntry]) -> Result<Index, TokenizerError> {
    let num_entries = entries.len() + added.len();
    let added = added.iter().map(|entry| (entry.content.clone(), entry.id));
    let mut ids: HashMap<String, u32> = HashMap::with_capacity(num_entries);
    let mut all = entries;
    let num_model = all.len();
    all.extend(added);
    let vocab_len = all.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
    // Some vocabularies have holes; a large one would only cost memory.
    let limit = MAX_VOCAB_LEN.min(2 * num_entries + 1024);
    if vocab_len > limit {
        return Err(TokenizerError::WrongCount {
            what: "token ids",
            expected: 0..=limit,
            got: vocab_len,
        });
    }
    let mut pieces: Vec<Option<String>> = vec![None; vocab_len];
    for (entry_idx, (piece, id)) in all.into_iter().enumerate() {
        match ids.get(&piece) {
            // Added tokens are listed a second time if they are in the model as well.
            Some(&first_id) if first_id == id && entry_idx >= num_model => continue,
            Some(&first_id) => {
                return Err(TokenizerError::DuplicatePiece {
                    piece,
                    first_id,
                    second_id: id,
                });
            }
            None => {}
        }
        let slot = &mut pieces[id as usize];
        if slot.is_some() {
            return Err(TokenizerError::BadId {
                field: format!("token {piece:?}"),
                id,
                vocab_len,
            });
        }
        *slot = Some(piece.clone());
        ids.insert(piece, id);
    }
    Ok((ids, pieces))
}

fn added_token(entry: AddedEntry) -> Result<(u32, AddedToken), TokenizerError> {
    if !entry.special && (entry.lstrip || entry.rstrip) {
        let supported = "lstrip and rstrip for special tokens only, since they lose spaces of the text";
        return Err(unsupported("added_tokens", entry.content, supported));
    }
    let token = AddedToken::from(entry.content, entry.special)
        .single_word(entry.single_word)
        .lstrip(entry.lstrip)
        .rstrip(entry.rstrip)
        .normalized(entry.normalized);
    Ok((entry.id, token))
}

/// The error for a part that this crate does not implement.
pub(crate) fn unsupported(field: &'static str, got: String, supported: &'static str) -> TokenizerError {
    TokenizerError::Unsupported {
        field,
        got,
        supported,
    }
}
