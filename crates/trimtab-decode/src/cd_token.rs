//! Tokenwise controlled decoding: each token drawn from `p(z) e^{weight V([x, y^t, z])}` (CD Eq. 6).
//!
//! With exact values this is the optimum of the tokenwise KL-regularised objective (CD Eq. 3). Both distributions of a
//! step are there when its token is drawn, so the KL is an exact sum over steps. Every token is certain once drawn.
//! Knows neither the model nor where the values come from, but that they come with the row.

use std::sync::Arc;

use trimtab_base::rng::Purpose;
use trimtab_base::{SampleStream, TokenId};

use crate::DecodeError;
use crate::inputs::DecoderInputs;
use crate::need::{Action, Answer, BranchId, Decoder, Need, Outcome, RowRequest};
use crate::row_op::{Guide, GuideFloor, GuideTerm, GuidedToken, RowAnswer, RowOp};
use crate::sampling::Sampling;
use crate::selecting::{Scoring, Selecting};
use crate::steering::{Steering, ValueSource};
use crate::stop::Response;
use crate::trace::TraceStep;

/// How strongly values tilt each token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CdTokenConfig {
    /// `lambda`, finite; multiplies the weights of all steering terms. 0 is plain sampling.
    pub weight: f64,
    /// The policy that is tilted.
    pub sampling: Sampling,
}

impl CdTokenConfig {
    /// Most weight that a floor adds at one step. Values are of the order of 1 to 10, so this much leaves practically
    /// only the token of greatest value.
    pub const MAX_FLOOR_WEIGHT: f64 = 1e3;

    /// Refuses settings out of range.
    ///
    /// # Errors
    /// [`DecodeError::InvalidSetting`] naming the setting, its range and the value.
    pub fn validate(&self) -> Result<(), DecodeError> {
        if !self.weight.is_finite() {
            let expected = "a finite number (0 is plain sampling)";
            return Err(DecodeError::invalid("cd-token weight", expected, &self.weight));
        }
        self.sampling.validate()
    }

    /// The terms as a row operation takes them.
    fn guide(&self, steering: &Steering) -> Result<Guide, DecodeError> {
        let term = |term: &crate::SteeringTerm| {
            let ValueSource::Row { scorer } = term.source else {
                let setting = format!("scorer {}", term.name);
                let expected = "a scorer on the model's own states, because cd-token needs the value of every next \
                                token (steer with cd-block, which asks for few values)";
                return Err(DecodeError::invalid(
                    &setting,
                    expected,
                    &"one with a model of its own",
                ));
            };
            let weight = self.weight * term.weight;
            if !weight.is_finite() {
                let setting = format!("cd-token weight times that of scorer {}", term.name);
                return Err(DecodeError::invalid(&setting, "a finite number", &weight));
            }
            Ok(GuideTerm { scorer, weight })
        };
        Ok(Guide {
            terms: steering.terms.iter().map(term).collect::<Result<_, _>>()?,
            floor: steering.floor.map(|floor| GuideFloor {
                term: floor.term,
                at_least: floor.at_least,
                max_added_weight: Self::MAX_FLOOR_WEIGHT,
            }),
        })
    }
}

/// Tokenwise controlled decoding as a state machine.
///
/// Token `t` is drawn with the coin `(seed, prompt, 0, t)`, so with weight 0 it is the token of plain sampling.
pub struct CdToken {
    sampling: Arc<Sampling>,
    guide: Arc<Guide>,
    inputs: DecoderInputs,
    scoring: Scoring,
    stream: SampleStream,
    response: Response,
    committed: Vec<TokenId>,
    values: Vec<f64>,
    trace: Vec<TraceStep>,
    actions: Vec<Action>,
    selecting: Option<Selecting>,
}

impl CdToken {
    /// A decoder at its start.
    ///
    /// # Errors
    /// [`DecodeError::NoScorer`] without steering, [`DecodeError::InvalidSetting`] if a setting or a stop rule is out
    /// of range or a term's values do not come with the row.
    pub fn try_new(
        config: CdTokenConfig,
        scoring: Scoring,
        inputs: DecoderInputs,
    ) -> Result<Self, DecodeError> {
        config.validate()?;
        inputs.stop.validate()?;
        inputs.steering.require("cd-token")?;
        Ok(Self {
            sampling: Arc::new(config.sampling),
            guide: Arc::new(config.guide(&inputs.steering)?),
            scoring,
            stream: SampleStream::new(inputs.seed, inputs.prompt_key, 0, Purpose::Token),
            inputs,
            response: Response::default(),
            committed: Vec::new(),
            values: Vec::new(),
            trace: Vec::new(),
            actions: Vec::new(),
            selecting: None,
        })
    }

    fn take_rows(&mut self, rows: Vec<RowAnswer>) -> Result<(), DecodeError> {
        let got = rows.len();
        let Ok([row]) = <[RowAnswer; 1]>::try_from(rows) else {
            return Err(DecodeError::WrongAnswerCount {
                what: "rows",
                expected: 1,
                got,
            });
        };
        let RowAnswer::Guided(token) = row else {
            return Err(DecodeError::UnexpectedAnswer {
                expected: "a guided token",
                got: row.kind(),
            });
        };
        self.take_token(token);
        Ok(())
    }

    fn take_token(&mut self, guided: GuidedToken) {
        let sampled = guided.sampled;
        let is_finished = self
            .response
            .push(&sampled, &self.inputs.stop, self.inputs.token_bytes.as_ref());
        self.committed.push(sampled.token);
        if self.inputs.trace {
            self.trace.push(TraceStep::Token {
                token: sampled.token,
                reference_log_prob: sampled.reference_log_prob,
                log_prob: sampled.log_prob,
                values: guided.values.clone(),
                weights: guided.weights,
                kl_nats: sampled.kl_nats,
            });
        }
        self.values = guided.values;
        let branch = BranchId::ROOT;
        if is_finished {
            self.actions.push(Action::Prune { branch });
            self.begin_selecting();
        } else {
            let token = sampled.token;
            self.actions.push(Action::Append { branch, token });
        }
    }

    fn begin_selecting(&mut self) {
        let response = std::mem::take(&mut self.response);
        let tokens_generated = response.num_tokens() as u64;
        let candidates = response.into_candidate(0).into_iter().collect();
        let outcome = Outcome {
            tokens_to_first_commit: Some(1),
            values: std::mem::take(&mut self.values),
            trace: std::mem::take(&mut self.trace),
            ..Outcome::unsteered(candidates, 0, tokens_generated)
        };
        self.selecting = Some(Selecting::of_chosen(outcome, self.scoring));
    }
}

impl Decoder for CdToken {
    fn next_need(&self) -> Need {
        if let Some(selecting) = &self.selecting {
            return selecting.next_need();
        }
        Need::Rows(vec![RowRequest {
            branch: BranchId::ROOT,
            op: RowOp::SampleGuided {
                sampling: Arc::clone(&self.sampling),
                guide: Arc::clone(&self.guide),
                coin: self.stream.uniform(self.response.num_tokens() as u64),
            },
        }])
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn feed(&mut self, answer: Answer) -> Result<(), DecodeError> {
        match (&mut self.selecting, answer) {
            (Some(selecting), answer) => selecting.feed(answer),
            (None, Answer::Rows(rows)) => self.take_rows(rows),
            (None, Answer::Rewards(_) | Answer::Values(_)) => Err(DecodeError::UnexpectedAnswer {
                expected: "rows",
                got: "rewards or values",
            }),
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        self.selecting.as_ref().and_then(Selecting::outcome)
    }

    fn committed(&self) -> &[TokenId] {
        &self.committed
    }

    fn max_live_branches(&self) -> usize {
        1
    }

    fn max_new_tokens(&self) -> usize {
        self.inputs.stop.max_new_tokens
    }
}

#[cfg(test)]
mod tests;
