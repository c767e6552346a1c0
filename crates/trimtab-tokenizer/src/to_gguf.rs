//! A vocabulary of another format as GGUF's metadata keep it. The inverse of `to_hf` and of the readers.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::bpe::Words;
use crate::error::TokenizerError;
use crate::gguf::GgufVocab;
use crate::hf_folder::{HubTokenizer, ReadFile, read_folder};
use crate::hf_json::Vocabulary;
use crate::llama2c::{BOS, EOS, FIRST_BYTE_ID, FIRST_PIECE_ID, byte_ids};
use crate::pre_tokenizer::name_of;
use crate::space_mark::{Prefix, SPACE_MARK};
use crate::to_hf::run_char;
use crate::token_kind::{TokenKind, byte_of_piece, ends_turn};

/// Name of the unknown token, where a file has none.
const UNKNOWN: &str = "<unk>";

impl GgufVocab {
    /// The vocabulary of a hub folder. Unicode normalisation that its file asks for is left out, as llama.cpp does.
    ///
    /// # Errors
    /// What [`Tokenizer::from_hf_folder`](crate::Tokenizer::from_hf_folder) refuses; what GGUF has no entry for: a cut into
    /// words that llama.cpp has no name for, merge rules that no scores order, special tokens that take spaces with them.
    pub fn from_hf_folder(folder: &Path) -> Result<Self, TokenizerError> {
        read_folder(folder, &|read: &ReadFile<'_>| {
            Self::from_hub(HubTokenizer::read(read)?)
        })
    }

    /// llama2.c's vocabulary, score and bytes of each token, in order of id.
    ///
    /// # Errors
    /// What [`Tokenizer::from_llama2c`](crate::Tokenizer::from_llama2c) refuses; two tokens of equal bytes, and bytes that are
    /// no text, which GGUF cannot hold.
    pub fn from_llama2c(tokens: &[(f32, Vec<u8>)]) -> Result<Self, TokenizerError> {
        byte_ids(tokens)?;
        let mut vocab = Self {
            model: "llama".to_owned(),
            bos_token_id: Some(BOS.0),
            eos_token_id: Some(EOS.0),
            add_bos: Some(true),
            add_space_prefix: Some(true),
            ..Self::default()
        };
        let (mut scores, mut kinds) = (Vec::new(), Vec::new());
        let mut seen: HashMap<&[u8], usize> = HashMap::new();
        for (id, (score, bytes)) in tokens.iter().enumerate() {
            let (piece, kind) = match id {
                0 => (UNKNOWN.to_owned(), TokenKind::Unknown),
                1 => ("<s>".to_owned(), TokenKind::Control),
                2 => ("</s>".to_owned(), TokenKind::Control),
                FIRST_BYTE_ID..FIRST_PIECE_ID => (format!("<0x{:02X}>", id - FIRST_BYTE_ID), TokenKind::Byte),
                _ => {
                    let piece = llama2c_piece(id, bytes)?;
                    if let Some(&first) = seen.get(bytes.as_slice()) {
                        return Err(TokenizerError::DuplicatePiece {
                            piece,
                            first_id: first as u32,
                            second_id: id as u32,
                        });
                    }
                    seen.insert(bytes, id);
                    (piece, TokenKind::Normal)
                }
            };
            vocab.tokens.push(piece);
            scores.push(*score);
            kinds.push(kind.to_gguf());
        }
        // A text begins with a space, so that a vocabulary without one has bytes for it; GGUF wants a piece.
        if !vocab.tokens.iter().any(|piece| piece == SPACE_MARK) {
            return Err(TokenizerError::Missing {
                field: "the token for a space, which GGUF and tokenizer.json need,",
            });
        }
        vocab.scores = Some(scores);
        vocab.token_types = Some(kinds);
        Ok(vocab)
    }

    /// With tokens that are never produced up to `vocab_len`, as models have rows of logits for padding.
    ///
    /// # Errors
    /// More tokens than that.
    pub fn padded(mut self, vocab_len: usize) -> Result<Self, TokenizerError> {
        let num_tokens = self.tokens.len();
        if num_tokens > vocab_len {
            return Err(TokenizerError::WrongCount {
                what: "tokens",
                expected: 0..=vocab_len,
                got: num_tokens,
            });
        }
        let normal = TokenKind::Normal.to_gguf();
        let mut kinds = self
            .token_types
            .take()
            .unwrap_or_else(|| vec![normal; num_tokens]);
        for id in num_tokens..vocab_len {
            self.tokens.push(format!("[PAD{id}]"));
            kinds.push(TokenKind::Unused.to_gguf());
        }
        self.token_types = Some(kinds);
        if let Some(scores) = &mut self.scores {
            scores.resize(vocab_len, 0.0);
        }
        Ok(self)
    }

    /// The token that stands for text without tokens, if there is one.
    pub fn unknown_token_id(&self) -> Option<u32> {
        let unknown = TokenKind::Unknown.to_gguf();
        let kinds = self.token_types.as_deref().unwrap_or_default();
        kinds.iter().position(|&kind| kind == unknown).map(|id| id as u32)
    }

    fn from_hub(hub: HubTokenizer) -> Result<Self, TokenizerError> {
        let HubTokenizer {
            vocabulary,
            bos,
            eos,
            add_bos,
            stop_ids,
            chat_template,
        } = hub;
        let kinds = kinds(&vocabulary)?;
        let mut vocab = Self {
            tokens: pieces(&vocabulary),
            bos_token_id: bos,
            add_bos: Some(add_bos),
            chat_template,
            ..Self::default()
        };
        // Tokens that end a turn by their names need no entry.
        let named = |id: &u32| ends_turn(&vocab.tokens[*id as usize], kinds[*id as usize]);
        let mut stops = stop_ids
            .iter()
            .copied()
            .filter(|id| Some(*id) != eos && !named(id));
        let mut next = || stops.next();
        vocab.eos_token_id = eos.or_else(&mut next).or_else(|| stop_ids.first().copied());
        vocab.eot_token_id = next();
        vocab.eom_token_id = next();
        if let Some(left) = next() {
            return Err(inexpressible(format!(
                "token {left} is the fourth without a known name that ends an answer, there is room for three"
            )));
        }
        vocab.token_types = Some(kinds.iter().map(|kind| kind.to_gguf()).collect());
        match vocabulary.words() {
            Words::ByteLevel { pre_tokenizer, .. } => {
                let name = name_of(pre_tokenizer, vocabulary.ignore_merges()).ok_or_else(|| {
                    inexpressible("llama.cpp has no name for its cut into words (pre_tokenizer)".to_owned())
                })?;
                vocab.model = String::from("gpt2");
                vocab.pre = Some(name.to_owned());
                let text = |(left, right): &(String, String)| format!("{left} {right}");
                vocab.merges = Some(vocabulary.merges().iter().map(text).collect());
            }
            Words::SpaceMark { prefix } => {
                vocab.model = String::from("llama");
                vocab.add_space_prefix = Some(space_prefix(*prefix)?);
                vocab.scores = Some(scores_of_merges(&vocab.tokens, &kinds, vocabulary.merges())?);
            }
        }
        Ok(vocab)
    }
}

/// A piece in the writing of SentencePiece.
fn llama2c_piece(id: usize, bytes: &[u8]) -> Result<String, TokenizerError> {
    let refuse = |problem: String| {
        Err(TokenizerError::Inexpressible {
            format: "a file other than tokenizer.bin",
            problem,
            remedy: "keep the model in llama2.c's format",
        })
    };
    match str::from_utf8(bytes) {
        Ok(text) if text.contains(SPACE_MARK) || text.is_empty() => refuse(format!("token {id} is {text:?}")),
        Ok(text) => Ok(text.replace(' ', SPACE_MARK)),
        Err(_) => refuse(format!(
            "the bytes of token {id}, \"{}\", are no text",
            bytes.escape_ascii()
        )),
    }
}

/// Pieces by id; ids without one are named like padding. `[vocab]`
fn pieces(vocabulary: &Vocabulary) -> Vec<String> {
    let pieces = vocabulary.pieces().iter().enumerate();
    pieces
        .map(|(id, piece)| piece.clone().unwrap_or_else(|| format!("[PAD{id}]")))
        .collect()
}

/// Kinds by id. `[vocab]`
fn kinds(vocabulary: &Vocabulary) -> Result<Vec<TokenKind>, TokenizerError> {
    let marks_spaces = matches!(vocabulary.words(), Words::SpaceMark { .. });
    let kind = |(id, piece): (usize, &Option<String>)| {
        let Some(piece) = piece else {
            return Ok(TokenKind::Unused);
        };
        let Some(token) = vocabulary.added(id as u32) else {
            let is_byte = marks_spaces && byte_of_piece(piece.as_bytes()).is_some();
            return Ok(if is_byte {
                TokenKind::Byte
            } else {
                TokenKind::Normal
            });
        };
        if token.lstrip || token.rstrip || token.single_word {
            return Err(inexpressible(format!(
                "the added token {piece:?} has lstrip, rstrip or single_word"
            )));
        }
        Ok(match token.special {
            true if piece == UNKNOWN && marks_spaces => TokenKind::Unknown,
            true => TokenKind::Control,
            // Made by merge rules, see `Vocabulary::into_parts`.
            false if marks_spaces && piece.contains(SPACE_MARK) => TokenKind::Normal,
            false => TokenKind::UserDefined,
        })
    };
    vocabulary.pieces().iter().enumerate().map(kind).collect()
}

/// llama.cpp puts the space after control tokens as well.
fn space_prefix(prefix: Prefix) -> Result<bool, TokenizerError> {
    match prefix {
        Prefix::Never => Ok(false),
        Prefix::Always => Ok(true),
        Prefix::First => Err(inexpressible(
            "it puts a space before the first piece only (prepend_scheme \"first\"), llama.cpp after control tokens too"
                .to_owned(),
        )),
    }
}

/// Scores by which the joins are those of the rules: the first result has the highest one. `[vocab]`
fn scores_of_merges(
    tokens: &[String],
    kinds: &[TokenKind],
    merges: &[(String, String)],
) -> Result<Vec<f32>, TokenizerError> {
    let refuse = |problem: String| Err(inexpressible(problem));
    let tokens_of = tokens.iter().zip(kinds).enumerate();
    let normal: HashMap<&str, usize> = tokens_of
        .filter(|(_, (_, kind))| **kind == TokenKind::Normal)
        .map(|(id, (piece, _))| (piece.as_str(), id))
        .collect();
    // Rules with a token that is cut out beforehand are never applied.
    let is_normal = |piece: &str| normal.contains_key(piece);
    let result = |(left, right): &(String, String)| normal.get(format!("{left}{right}").as_str()).copied();
    let applied: Vec<(usize, &str, &str)> = merges
        .iter()
        .filter(|(left, right)| is_normal(left) && is_normal(right))
        .filter_map(|merge| Some((result(merge)?, merge.0.as_str(), merge.1.as_str())))
        .collect();
    let rules: HashSet<(&str, &str)> = applied.iter().map(|&(_, left, right)| (left, right)).collect();
    let mut scores: Vec<Option<f32>> = vec![None; tokens.len()];
    let mut num_ranks = 0_u32;
    let same_runs = |a: usize, b: usize| {
        let run = run_char(&tokens[a]);
        a == b || (run.is_some() && run == run_char(&tokens[b]))
    };
    for block in applied.chunk_by(|a, b| same_runs(a.0, b.0)) {
        for part in one_rank_parts(block) {
            num_ranks += 1;
            for &(id, ..) in part {
                let score = scores[id].get_or_insert(-(num_ranks as f32));
                if *score != -(num_ranks as f32) {
                    return refuse(format!(
                        "its merge rules make {:?} at two ranks, scores have one",
                        tokens[id]
                    ));
                }
            }
        }
    }
    // In the order of ids, so that the same fault is named each time.
    for piece in tokens.iter().filter(|piece| normal.contains_key(piece.as_str())) {
        let mut cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let left_out = |(left, right): &(&str, &str)| {
            normal.contains_key(left) && normal.contains_key(right) && !rules.contains(&(*left, *right))
        };
        if let Some((left, right)) = cuts.find(left_out) {
            return refuse(format!(
                "it has no merge rule for {left:?} and {right:?}, scores would join them"
            ));
        }
    }
    // Pieces that no rule makes are never joined; they rank below all that are.
    let rest = -(num_ranks as f32) - 1.0;
    Ok(scores.into_iter().map(|score| score.unwrap_or(rest)).collect())
}

/// A rule: its result, and the two pieces.
type Rule<'a> = (usize, &'a str, &'a str);

/// Rules of one rank: those of one result, or a whole block whose results, runs of one character, are of one rank, which
/// shows in that the longer left side comes first whatever the result.
fn one_rank_parts<'b, 'a>(block: &'b [Rule<'a>]) -> Vec<&'b [Rule<'a>]> {
    let key = |&(_, left, right): &Rule<'_>| (left.len(), right.len());
    let results: HashSet<usize> = block.iter().map(|rule| rule.0).collect();
    let parts: Vec<&[Rule<'_>]> = block.chunk_by(|a, b| a.0 == b.0).collect();
    let is_one_rank = block.windows(2).all(|pair| key(&pair[0]) >= key(&pair[1]));
    if parts.len() > results.len() && is_one_rank {
        return vec![block];
    }
    parts
}

fn inexpressible(problem: String) -> TokenizerError {
    TokenizerError::Inexpressible {
        format: "GGUF",
        problem,
        remedy: "write the hub's layout (hf)",
    }
}
