//! How far one model is from another along given responses: exact per-token KL, and log-probabilities of the tokens.
//! Knows two models and tokens, no texts.

use trimtab_base::TokenId;
use trimtab_kernels::pool::Pool;
use trimtab_kernels::vocab::log_sum_exp_row;

use crate::error::RuntimeError;
use crate::loaded::LoadedModel;
use crate::prefix_features::{FeatureItem, check_fits};
use crate::state_reader::{ReaderLimits, Sequence, StateReader};

/// Policy and reference along one response.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ResponseKl {
    /// `sum_t KL(pi(. | x, y_<t) || ref(. | x, y_<t))` over the whole vocabulary, in nats. Its mean over responses of the
    /// policy is `KL(pi || ref)`, with less noise than that of `log_prob - reference_log_prob`.
    pub kl_nats: f64,
    /// `log pi(y | x)`, in nats.
    pub log_prob: f64,
    /// `log ref(y | x)`, in nats.
    pub reference_log_prob: f64,
}

impl ResponseKl {
    /// `log pi(y | x) - log ref(y | x)`, the plain estimate of the KL, in nats.
    pub fn log_ratio_nats(&self) -> f64 {
        self.log_prob - self.reference_log_prob
    }
}

/// Reads both models' next-token distributions along each of `items`; one number a response, in their order.
///
/// Logits of at most `limits.rows_per_pass` positions (or of one response, if that is longer) of both models are held.
///
/// # Errors
/// Models of different vocabularies, a response that does not fit a context, a token outside the vocabulary.
pub fn response_kl(
    policy: &LoadedModel,
    reference: &LoadedModel,
    items: &[FeatureItem<'_>],
    limits: ReaderLimits,
) -> Result<Vec<ResponseKl>, RuntimeError> {
    let (vocab_len, of_reference) = (policy.config().vocab_len, reference.config().vocab_len);
    if vocab_len != of_reference {
        return Err(RuntimeError::OtherVocabulary {
            features: vocab_len,
            model: of_reference,
        });
    }
    for (idx, item) in items.iter().enumerate() {
        check_fits(policy, idx, item)?;
        check_fits(reference, idx, item)?;
    }
    let mut of_policy = StateReader::try_new(policy, limits)?;
    let mut of_reference = StateReader::try_new(reference, limits)?;
    let mut found = Vec::with_capacity(items.len());
    let mut rest = items;
    while !rest.is_empty() {
        let (part, later) = rest.split_at(part_len(rest, limits.rows_per_pass));
        rest = later;
        let rows = Rows {
            policy: logits(&mut of_policy, part)?,
            reference: logits(&mut of_reference, part)?,
            targets: part.iter().flat_map(|item| item.response).copied().collect(),
            vocab_len,
        };
        let mut of_rows = rows.numbers(policy.pool()).into_iter();
        found.extend(
            part.iter()
                .map(|item| sum(of_rows.by_ref().take(item.response.len()))),
        );
    }
    Ok(found)
}

/// How many of the first items have at most `max_rows` rows together; at least one.
fn part_len(items: &[FeatureItem<'_>], max_rows: usize) -> usize {
    let mut num_rows = 0;
    let fitting = items.iter().take_while(|item| {
        num_rows += item.response.len();
        num_rows <= max_rows
    });
    fitting.count().max(1)
}

/// Logits before each token of each response. `[rows, vocab]`
fn logits(reader: &mut StateReader, items: &[FeatureItem<'_>]) -> Result<Vec<f32>, RuntimeError> {
    // The row after a response's last token says nothing of the response.
    let sequence = |item: &FeatureItem<'_>| Sequence {
        tokens: [
            item.prompt,
            &item.response[..item.response.len().saturating_sub(1)],
        ]
        .concat(),
        first_output: item.prompt.len() - 1,
        shared_len: item.prompt.len(),
    };
    let present = items.iter().filter(|item| !item.response.is_empty());
    let mut logits = Vec::new();
    reader.run::<RuntimeError>(&mut present.map(sequence), &mut |_, output| {
        logits.extend_from_slice(&output.logits);
        Ok(())
    })?;
    Ok(logits)
}

/// Logits of both models at the same places.
struct Rows {
    /// `[rows, vocab]`
    policy: Vec<f32>,
    /// `[rows, vocab]`
    reference: Vec<f32>,
    /// The token that follows. `[rows]`
    targets: Vec<TokenId>,
    vocab_len: usize,
}

impl Rows {
    fn numbers(&self, pool: &Pool) -> Vec<ResponseKl> {
        let mut found = vec![ResponseKl::default(); self.targets.len()];
        pool.run_chunks_mut(&mut found, 1, |row, found| found[0] = self.number(row));
        found
    }

    fn number(&self, row: usize) -> ResponseKl {
        let place = row * self.vocab_len..(row + 1) * self.vocab_len;
        let (policy, reference) = (&self.policy[place.clone()], &self.reference[place]);
        let (policy_norm, reference_norm) = (log_sum_exp_row(policy), log_sum_exp_row(reference));
        let kl_nats: f64 = policy
            .iter()
            .zip(reference)
            .map(|(&policy, &reference)| {
                let log_prob = f64::from(policy) - policy_norm;
                log_prob.exp() * (log_prob - (f64::from(reference) - reference_norm))
            })
            .sum();
        // A token outside the vocabulary is never drawn.
        let log_prob = |logits: &[f32], norm: f64| {
            let target = logits.get(self.targets[row].0 as usize);
            target.map_or(f64::NEG_INFINITY, |&logit| f64::from(logit) - norm)
        };
        ResponseKl {
            // Rounding may leave a little less than nothing.
            kl_nats: kl_nats.max(0.0),
            log_prob: log_prob(policy, policy_norm),
            reference_log_prob: log_prob(reference, reference_norm),
        }
    }
}

fn sum(rows: impl Iterator<Item = ResponseKl>) -> ResponseKl {
    rows.fold(ResponseKl::default(), |sum, row| ResponseKl {
        kl_nats: sum.kl_nats + row.kl_nats,
        log_prob: sum.log_prob + row.log_prob,
        reference_log_prob: sum.reference_log_prob + row.reference_log_prob,
    })
}
