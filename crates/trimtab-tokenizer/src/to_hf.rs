//! A vocabulary as the files of a hub folder: `tokenizer.json`, `tokenizer_config.json`, `generation_config.json`.
//!
//! The library's own types write what the library will read: model, pre-tokenizer and decoder are built from checked parts
//! and serialised. Scores become merge rules as in transformers' converter: every way to make a piece of two others is a
//! rule, and rules are in the order of their results' scores.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};

use crate::bpe::{check_merges, library};
use crate::error::TokenizerError;
use crate::gguf::{GgufVocab, parse_byte, split_merge, stop_tokens, token_kinds};
use crate::pre_tokenizer::Cut;
use crate::space_mark::SPACE_MARK;
use crate::token_kind::TokenKind;

/// Texts of the files of a hub folder that describe a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HfTokenizerFiles {
    /// `tokenizer.json`
    pub tokenizer: String,
    /// `tokenizer_config.json`, with the chat template.
    pub tokenizer_config: String,
    /// `generation_config.json`: which tokens begin and end a text.
    pub generation_config: String,
}

/// `tokenizer.json` in the library's order of fields.
#[derive(Serialize)]
struct TokenizerFile {
    version: &'static str,
    truncation: Value,
    padding: Value,
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: BPE,
}

/// What the two algorithms differ in.
struct Parts {
    ids: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    ignore_merges: bool,
    byte_fallback: bool,
    unknown: Option<String>,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    add_bos: bool,
}

impl GgufVocab {
    /// The vocabulary as the files of a hub folder, for a model of `context_len` positions. Both give every text the same
    /// ids, but that transformers reads a `▁` of the text as a space.
    ///
    /// # Errors
    /// What [`Tokenizer::from_gguf`](crate::Tokenizer::from_gguf) refuses; what merge rules cannot say: two pieces of one
    /// score, a user-defined piece with a space in it, a character that occurs in pieces only.
    pub fn to_hf_files(&self, context_len: usize) -> Result<HfTokenizerFiles, TokenizerError> {
        let kinds = token_kinds(self)?;
        let parts = match self.model.as_str() {
            "gpt2" => byte_level(self, &kinds)?,
            "llama" => space_mark(self, &kinds)?,
            other => {
                return Err(TokenizerError::Unsupported {
                    field: "tokenizer.ggml.model",
                    got: other.to_owned(),
                    supported: "gpt2, llama",
                });
            }
        };
        let bos = self.bos_token_id.filter(|_| parts.add_bos);
        let file = TokenizerFile {
            version: "1.0",
            truncation: Value::Null,
            padding: Value::Null,
            added_tokens: added_tokens(self, &kinds),
            normalizer: parts.normalizer,
            pre_tokenizer: parts.pre_tokenizer,
            post_processor: bos.map_or(Value::Null, |id| bos_template(&self.tokens[id as usize], id)),
            decoder: parts.decoder,
            model: model(parts.ids, parts.merges, |builder| {
                let builder = builder.ignore_merges(parts.ignore_merges);
                let builder = builder.byte_fallback(parts.byte_fallback);
                match parts.unknown {
                    Some(piece) => builder.unk_token(piece).fuse_unk(true),
                    None => builder,
                }
            })?,
        };
        let mut config = special_names(self);
        config.insert("add_bos_token".to_owned(), json!(bos.is_some()));
        config.insert("add_eos_token".to_owned(), json!(false));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
        config.insert("model_max_length".to_owned(), json!(context_len));
        // The class that takes `tokenizer.json` as it is.
        config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
        if let Some(template) = &self.chat_template {
            config.insert("chat_template".to_owned(), json!(template));
        }
        let stop: Vec<u32> = stop_tokens(self, &kinds).iter().map(|id| id.0).collect();
        let mut generation = Map::new();
        if let Some(id) = self.bos_token_id {
            generation.insert("bos_token_id".to_owned(), json!(id));
        }
        if !stop.is_empty() {
            generation.insert("eos_token_id".to_owned(), json!(stop));
        }
        Ok(HfTokenizerFiles {
            tokenizer: text(&file)?,
            tokenizer_config: text(&config)?,
            generation_config: text(&generation)?,
        })
    }
}

fn text(value: &impl Serialize) -> Result<String, TokenizerError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| TokenizerError::Library {
        stage: "writing JSON",
        problem: error.to_string(),
    })?;
    text.push('\n');
    Ok(text)
}

fn model(
    ids: HashMap<String, u32>,
    merges: Vec<(String, String)>,
    settings: impl FnOnce(BpeBuilder) -> BpeBuilder,
) -> Result<BPE, TokenizerError> {
    check_merges(&ids, &merges)?;
    let builder = BPE::builder().vocab_and_merges(ids.into_iter().collect::<Vocab>(), merges);
    settings(builder).build().map_err(library("vocabulary"))
}

/// Tokens that are cut out of a text before anything else.
fn added_tokens(vocab: &GgufVocab, kinds: &[TokenKind]) -> Vec<Value> {
    let entry = |(id, (piece, kind)): (usize, (&String, &TokenKind))| {
        let special = match kind {
            TokenKind::Control | TokenKind::Unknown => true,
            // Runs of spaces are made by rules.
            TokenKind::UserDefined if !piece.contains([' ', '▁']) => false,
            TokenKind::UserDefined | TokenKind::Normal | TokenKind::Unused | TokenKind::Byte => return None,
        };
        (!piece.is_empty()).then(|| {
            json!({
                "id": id, "content": piece, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        })
    };
    let tokens = vocab.tokens.iter().zip(kinds).enumerate();
    tokens.filter_map(entry).collect()
}

/// Puts the token before every text.
fn bos_template(piece: &str, id: u32) -> Value {
    let bos = |type_id: u32| json!({ "SpecialToken": { "id": piece, "type_id": type_id } });
    let sequence = |name: &str, type_id: u32| json!({ "Sequence": { "id": name, "type_id": type_id } });
    json!({
        "type": "TemplateProcessing",
        "single": [bos(0), sequence("A", 0)],
        "pair": [bos(0), sequence("A", 0), bos(1), sequence("B", 1)],
        "special_tokens": { piece: { "id": piece, "ids": [id], "tokens": [piece] } },
    })
}

/// `bos_token` and the like.
fn special_names(vocab: &GgufVocab) -> Map<String, Value> {
    let unknown = vocab.unknown_token_id();
    let named = [
        ("bos_token", vocab.bos_token_id),
        ("eos_token", vocab.eos_token_id),
        ("unk_token", unknown),
    ];
    let piece = |id: u32| vocab.tokens.get(id as usize);
    named
        .into_iter()
        .filter_map(|(name, id)| Some((name.to_owned(), json!(piece(id?)?))))
        .collect()
}

fn byte_level(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Parts, TokenizerError> {
    let cut = Cut::named(vocab.pre.as_deref())?;
    let merges = vocab.merges.as_ref().ok_or(TokenizerError::Missing {
        field: "tokenizer.ggml.merges",
    })?;
    let merges = merges.iter().cloned().enumerate();
    let pre_tokenizer = serde_json::to_value(cut.build()?).map_err(|error| TokenizerError::Library {
        stage: "pre-tokenizer",
        problem: error.to_string(),
    })?;
    Ok(Parts {
        ids: ids(vocab, |id| kinds[id] != TokenKind::Unused)?,
        merges: merges
            .map(|(idx, merge)| split_merge(idx, merge))
            .collect::<Result<_, _>>()?,
        ignore_merges: cut.ignore_merges,
        byte_fallback: false,
        unknown: None,
        normalizer: Value::Null,
        pre_tokenizer,
        decoder: json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true }),
        add_bos: vocab.add_bos.unwrap_or(cut.add_bos),
    })
}

/// Ids of the pieces whose id is `wanted`.
fn ids(vocab: &GgufVocab, wanted: impl Fn(usize) -> bool) -> Result<HashMap<String, u32>, TokenizerError> {
    let mut ids = HashMap::with_capacity(vocab.tokens.len());
    for (id, piece) in vocab.tokens.iter().enumerate().filter(|(id, _)| wanted(*id)) {
        if let Some(first_id) = ids.insert(piece.clone(), id as u32) {
            return Err(TokenizerError::DuplicatePiece {
                piece: piece.clone(),
                first_id,
                second_id: id as u32,
            });
        }
    }
    Ok(ids)
}

fn space_mark(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Parts, TokenizerError> {
    let is_plain = |id: usize| !matches!(kinds[id], TokenKind::Unused | TokenKind::Byte);
    let mut ids = ids(vocab, is_plain)?;
    let mut has_byte = [false; 256];
    for (id, piece) in vocab.tokens.iter().enumerate() {
        if kinds[id] == TokenKind::UserDefined && piece.contains(' ') {
            // Some files write runs of spaces as they are.
            ids.remove(piece);
            ids.insert(piece.replace(' ', SPACE_MARK), id as u32);
        }
        if kinds[id] == TokenKind::Byte {
            let byte = parse_byte(piece)?;
            has_byte[usize::from(byte)] = true;
            // The library knows them by this name only.
            ids.insert(format!("<0x{byte:02X}>"), id as u32);
        }
    }
    if let Some(byte) = (0..=255).find(|&byte: &u8| !has_byte[usize::from(byte)]) {
        return Err(TokenizerError::MissingByte { byte });
    }
    let prefix = vocab.add_space_prefix.unwrap_or(true);
    let replace = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "String": pattern }, "content": content });
    let normalizer = replace(" ", SPACE_MARK);
    let mut decoders = vec![
        replace(SPACE_MARK, " "),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    Ok(Parts {
        merges: merges_of_scores(vocab, kinds)?,
        ids,
        ignore_merges: false,
        byte_fallback: true,
        unknown: vocab
            .unknown_token_id()
            .map(|id| vocab.tokens[id as usize].clone()),
        normalizer: if prefix {
            let prepend = json!({ "type": "Prepend", "prepend": SPACE_MARK });
            json!({ "type": "Sequence", "normalizers": [prepend, normalizer] })
        } else {
            normalizer
        },
        pre_tokenizer: Value::Null,
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
        add_bos: vocab.add_bos.unwrap_or(true),
    })
}

/// Every way to make a piece of two others, best result first.
fn merges_of_scores(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Vec<(String, String)>, TokenizerError> {
    let scores = vocab.scores.as_ref().ok_or(TokenizerError::Missing {
        field: "tokenizer.ggml.scores",
    })?;
    if scores.len() != vocab.tokens.len() {
        return Err(TokenizerError::WrongCount {
            what: "tokenizer.ggml.scores",
            expected: vocab.tokens.len()..=vocab.tokens.len(),
            got: scores.len(),
        });
    }
    let pieces = vocab.tokens.iter().zip(kinds).zip(scores).enumerate();
    let normal: Vec<(u32, &str, f32)> = pieces
        .filter(|(_, ((_, kind), _))| **kind == TokenKind::Normal)
        .map(|(id, ((piece, _), &score))| (id as u32, piece.as_str(), score))
        .collect();
    let known: HashSet<&str> = normal.iter().map(|(_, piece, _)| *piece).collect();
    let mut results: Vec<(f32, u32, &str)> = Vec::with_capacity(normal.len());
    for &(id, piece, score) in &normal {
        if !score.is_finite() {
            return Err(TokenizerError::BadScore { id, score });
        }
        if ways(piece, &known).next().is_none() {
            continue;
        }
        if let Some(ch) = piece
            .chars()
            .find(|ch| !known.contains(ch.encode_utf8(&mut [0; 4]) as &str))
        {
            return Err(inexpressible(format!(
                "the character {ch:?} of piece {piece:?} is no piece"
            )));
        }
        results.push((score, id, piece));
    }
    results.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut merges = space_runs(vocab, kinds)?;
    for equal in results.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        if let [(_, _, first), .., (_, _, last)] = equal
            && !equal
                .iter()
                .all(|(_, _, piece)| run_char(piece).is_some() && run_char(piece) == run_char(first))
        {
            return Err(inexpressible(format!("{first:?} and {last:?} have one score")));
        }
        let mut ways: Vec<(&str, &str)> = equal
            .iter()
            .flat_map(|(_, _, piece)| ways(piece, &known))
            .collect();
        // As in transformers' converter. Of runs of one character, which may share a score, the leftmost grows first then,
        // as SentencePiece lets the leftmost of equal joins.
        ways.sort_by_key(|(left, right)| Reverse((left.len(), right.len())));
        merges.extend(
            ways.into_iter()
                .map(|(left, right)| (left.to_owned(), right.to_owned())),
        );
    }
    Ok(merges)
}

/// The character that a piece is a run of.
pub(crate) fn run_char(piece: &str) -> Option<char> {
    let first = piece.chars().next()?;
    piece.chars().all(|ch| ch == first).then_some(first)
}

/// The ways to make `piece` of two pieces, shorter left sides first.
fn ways<'a>(piece: &'a str, known: &HashSet<&str>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
    cuts.filter(|(left, right)| known.contains(left) && known.contains(right))
}

/// Rules for user-defined runs of spaces, which are found before any rule is applied, the longest first: they come before all
/// others, longer left sides first, so that the leftmost run grows to the longest token before the next one begins.
fn space_runs(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Vec<(String, String)>, TokenizerError> {
    let mut lengths = Vec::new();
    for (piece, kind) in vocab.tokens.iter().zip(kinds) {
        let piece = piece.replace(' ', SPACE_MARK);
        if *kind != TokenKind::UserDefined || !piece.contains(SPACE_MARK) {
            continue;
        }
        let len = piece.chars().count();
        if piece.replace(SPACE_MARK, "").is_empty() && len > 1 {
            lengths.push(len);
        } else {
            return Err(inexpressible(format!(
                "the user-defined piece {piece:?}, which has a space"
            )));
        }
    }
    lengths.sort_unstable();
    if lengths.iter().zip(2..).any(|(&len, expected)| len != expected) {
        return Err(inexpressible(
            "user-defined runs of spaces with lengths left out".to_owned(),
        ));
    }
    let run = |len: usize| SPACE_MARK.repeat(len);
    let ways = lengths
        .into_iter()
        .flat_map(|len| (1..len).map(move |left| (left, len - left)));
    let mut ways: Vec<(usize, usize)> = ways.collect();
    ways.sort_unstable_by_key(|&way| Reverse(way));
    Ok(ways
        .into_iter()
        .map(|(left, right)| (run(left), run(right)))
        .collect())
}

fn inexpressible(problem: String) -> TokenizerError {
    TokenizerError::Inexpressible {
        format: "tokenizer.json",
        problem,
        remedy: "write GGUF (gguf), which keeps scores",
    }
}
