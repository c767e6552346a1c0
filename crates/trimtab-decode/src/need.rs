//! The interface between decoders and whoever answers them. Knows no algorithm and no model.

use serde::{Deserialize, Serialize};
use trimtab_base::TokenId;

use crate::row_op::{RowAnswer, RowOp};
use crate::trace::{BlockKl, TraceStep};

/// One growing token sequence of a request. Ids are chosen by the decoder and never reused within a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BranchId(pub u32);

impl BranchId {
    /// The prompt itself; exists before the first need and is pruned like any other branch.
    pub const ROOT: Self = Self(0);
}

/// A change of the branch tree. Actions are executed in order, before the need they come with is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make `child` a copy of `parent` as it stands; their common past is stored once.
    Fork {
        /// Existing branch.
        parent: BranchId,
        /// New id.
        child: BranchId,
    },
    /// Append `token` to `branch`.
    Append {
        /// Existing branch.
        branch: BranchId,
        /// Its next token.
        token: TokenId,
    },
    /// `branch` is no longer needed; its storage may be freed.
    Prune {
        /// Existing branch.
        branch: BranchId,
    },
}

/// An operation on the next-token logits of one branch.
#[derive(Debug, Clone)]
pub struct RowRequest {
    /// The branch whose next-token logits are meant.
    pub branch: BranchId,
    /// What to compute from them.
    pub op: RowOp,
}

/// What a decoder needs before it can go on.
#[derive(Debug, Clone)]
pub enum Need {
    /// One row operation per listed branch; answered by [`Answer::Rows`] in the same order.
    Rows(Vec<RowRequest>),
    /// Rewards of finished candidates; answered by [`Answer::Rewards`] in the same order.
    Rewards(Vec<Candidate>),
    /// Values of unfinished or finished responses under the steering terms that are [`crate::ValueSource::Asked`];
    /// answered by [`Answer::Values`] in the same order.
    Values(Vec<Prefix>),
    /// Nothing: [`Decoder::outcome`] is there.
    Done,
}

/// An answer to a [`Need`].
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Need::Rows`].
    Rows(Vec<RowAnswer>),
    /// To [`Need::Rewards`].
    Rewards(Vec<f64>),
    /// To [`Need::Values`]: for each prefix one value per asked term, in the terms' order. `[prefixes][asked terms]`
    Values(Vec<Vec<f64>>),
}

impl Answer {
    /// What kind of answer it is, for errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Rows(_) => "rows",
            Self::Rewards(_) => "rewards",
            Self::Values(_) => "values",
        }
    }
}

/// A response as far as it goes, whose value is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Prefix {
    /// Its tokens so far.
    pub token_ids: Vec<TokenId>,
    /// Its text so far, cut before a stop string; bytes of an unfinished character at its end are left out.
    pub text: String,
    /// Whether it has ended.
    pub is_finished: bool,
}

/// Why a candidate ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end-of-sequence or stop token was drawn; it is the last of `token_ids`.
    StopToken,
    /// A stop string appeared; the text is cut before it, the tokens are kept.
    StopString,
    /// The token limit was reached.
    Length,
}

/// A token drawn from a policy, with what KL accounting needs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SampledToken {
    /// The token.
    pub token: TokenId,
    /// Its log-probability in nats under the policy it was drawn from (temperature, truncation applied).
    pub log_prob: f64,
    /// Its log-probability in nats under the reference (temperature 1, no truncation).
    pub reference_log_prob: f64,
    /// Exact `KL(policy || reference)` of this step's distributions, in nats.
    pub kl_nats: f64,
}

/// A finished response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Place among the candidates of its prompt; sample `i` is the same whatever the number of candidates.
    pub candidate_idx: u64,
    /// Tokens, a drawn stop token included.
    pub token_ids: Vec<TokenId>,
    /// Text, cut before a stop string.
    pub text: String,
    /// Sum of the policy's log-probabilities, in nats.
    pub log_prob: f64,
    /// Sum of the reference's log-probabilities, in nats.
    pub reference_log_prob: f64,
    /// Sum over steps of the exact per-step `KL(policy || reference)`, in nats.
    pub kl_nats: f64,
    /// Why it ended.
    pub finish: FinishReason,
    /// Reward, once known.
    pub reward: Option<f64>,
    /// The policy's log-probability of each token, in nats; their sum is `log_prob`. For training on what was drawn. It is
    /// in no journal: what is read back has none.
    #[serde(skip)]
    pub token_log_probs: Vec<f32>,
}

/// What a decoder leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Every candidate drawn to its end.
    pub candidates: Vec<Candidate>,
    /// Index into `candidates` of the answer.
    pub chosen: usize,
    /// Tokens drawn in all, discarded ones included: the cost.
    pub tokens_generated: u64,
    /// Where the response was made of chosen blocks: its drift.
    pub block_kl: Option<BlockKl>,
    /// Tokens drawn, discarded ones included, until the first part of the answer was certain; `None` for methods where
    /// nothing is certain before the end.
    pub tokens_to_first_commit: Option<u64>,
    /// Value of the answer, one a steering term, as last seen by the scorers; empty for methods without scorers.
    pub values: Vec<f64>,
    /// Every decision, if asked for by [`crate::DecoderInputs::trace`].
    pub trace: Vec<TraceStep>,
}

impl Outcome {
    /// The outcome of a method that neither steers nor commits early.
    pub fn unsteered(candidates: Vec<Candidate>, chosen: usize, tokens_generated: u64) -> Self {
        Self {
            candidates,
            chosen,
            tokens_generated,
            block_kl: None,
            tokens_to_first_commit: None,
            values: Vec::new(),
            trace: Vec::new(),
        }
    }
}

/// A decoding algorithm as a state machine.
///
/// Protocol: `next_need`, `take_actions`, execute the actions, answer the need with `feed`, and so on until
/// [`Need::Done`]. `next_need` changes nothing: called twice, it says the same twice.
pub trait Decoder: Send {
    /// What must be answered next.
    fn next_need(&self) -> Need;

    /// Actions decided since the last call, in order; they are to be executed before the need is answered.
    fn take_actions(&mut self) -> Vec<Action>;

    /// Answers the present need.
    ///
    /// # Errors
    /// A reward that is NaN, or an answer that does not fit the need.
    fn feed(&mut self, answer: Answer) -> Result<(), crate::DecodeError>;

    /// The result, once the need is [`Need::Done`].
    fn outcome(&self) -> Option<&Outcome>;

    /// Tokens of the answer that no later decision changes, for streaming.
    fn committed(&self) -> &[TokenId] {
        &[]
    }

    /// Most branches alive at once, after any action, for admission to the engine's memory budget.
    fn max_live_branches(&self) -> usize;

    /// Most tokens one branch can grow beyond the prompt. No row is asked for after the last of them, so that it
    /// takes no position in the model's context. A decoder that asks for the row after a response's last token, for its
    /// value, announces one more.
    fn max_new_tokens(&self) -> usize;
}
