//! How fast heads train, and how far CD-Q's targets carry the reward back, on responses as long as real ones.
//!
//! The model is made up so that `V*` is known: a response ends after each token with a probability that depends on its
//! topic and its length so far, the reward is `log(length / 1024)`, and a state is a noisy random image of topic and
//! length. Prints, for each setting, prefixes trained per second and the root mean square error of the values
//! to `V*` beside the standard deviation of `V*`.
//!
//! ```text
//! cargo run --release -p trimtab-train --example horizon [epochs] [responses] [batch_len] [hidden_len] [trunk_len]
//! ```
#![expect(clippy::print_stdout, reason = "an example tells what it found")]

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_scorer::{ScorerWeights, TokenFeatures};
use trimtab_train::{
    PrefixSet, PrefixSetHeader, PrefixSetWriter, ResponseFeatures, RunDir, ScorerObjective,
    ScorerTrainConfig, TrainError, TrainEvent, train_scorer,
};

const FEATURE_LEN: usize = 64;
const VOCAB_LEN: usize = 512;
const STOP: usize = 0;
const NUM_TOPICS: usize = 16;
const MAX_LEN: usize = 256;
/// Coordinates of topic and length before the random image.
const LATENT_LEN: usize = 6;

fn main() -> Result<(), TrainError> {
    let argument = |place: usize, default: usize| {
        let text = std::env::args().nth(place);
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (epochs, responses, batch_len) = (argument(1, 10), argument(2, 1500), argument(3, 1024));
    let (hidden_len, trunk_len) = (argument(4, 576), argument(5, 512));
    let folder = std::env::temp_dir().join(format!("trimtab-horizon-{}", std::process::id()));
    let world = World::new(hidden_len);
    let set = world.write(&folder.join("set"), responses)?;
    println!(
        "{} responses, {} prefixes",
        set.num_responses(),
        set.num_prefixes()
    );
    println!("standard deviation of V* over prefixes: {:.3}", world.spread());
    let cd_q = |lambda| ScorerObjective::CdQ {
        lambda,
        num_steps: 1,
        target_network: None,
    };
    for objective in [ScorerObjective::CdFudge {}, cd_q(0.0), cd_q(0.9), cd_q(0.95)] {
        let mut config = ScorerTrainConfig {
            objective: objective.clone(),
            epochs: epochs as u64,
            trunk_len,
            ..ScorerTrainConfig::default()
        };
        config.optim.batch_len = batch_len;
        let run_dir = RunDir::new(folder.join(format!("{objective:?}")), "example");
        let start = Instant::now();
        let (mut prefixes, mut seconds) = (0, 0.0);
        let mut step_start = Instant::now();
        let on_event = &mut |event| {
            if let TrainEvent::Step { num_items, .. } = event {
                prefixes += num_items;
                seconds += step_start.elapsed().as_secs_f64();
            }
            step_start = Instant::now();
            ControlFlow::Continue(())
        };
        let scorer = train_scorer(&config, &set, Some(&world.features), &run_dir, on_event)?;
        println!(
            "{objective:?}: {:.0} prefixes/s in steps, {:.1} s in all; error to V*: {:.3}; {:.3?}",
            prefixes as f64 / seconds,
            start.elapsed().as_secs_f64(),
            world.error(&scorer.weights),
            scorer.metrics
        );
    }
    std::fs::remove_dir_all(&folder).map_err(|source| TrainError::Io {
        action: "remove",
        path: folder,
        source,
    })
}

struct World {
    /// `[hidden_len, LATENT_LEN]`
    image: Vec<f32>,
    features: TokenFeatures,
    /// `V*` by topic and length so far. `[NUM_TOPICS][MAX_LEN + 1]`
    values: Vec<Vec<f64>>,
}

/// Numbers of one use, uniform in [-1, 1].
struct Coins(SampleStream, u64);

impl Coins {
    fn new(number: u64) -> Self {
        Self(
            SampleStream::new(Seed(1), PromptKey(number), 0, Purpose::Token),
            0,
        )
    }

    /// Uniform in [0, 1).
    fn share(&mut self) -> f64 {
        self.1 += 1;
        self.0.uniform(self.1)
    }

    fn next(&mut self) -> f64 {
        2.0 * self.share() - 1.0
    }

    fn many(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next() as f32).collect()
    }
}

fn reward(len: usize) -> f64 {
    (len as f64 / 1024.0).ln()
}

/// Probability that the token after `len` others is the last.
fn stop_prob(topic: usize, len: usize) -> f64 {
    if len + 1 >= MAX_LEN {
        return 1.0;
    }
    let mean_len = 20.0 + 10.0 * topic as f64;
    let logit = (len as f64 - mean_len) / 12.0 - 2.0;
    1.0 / (1.0 + (-logit).exp()) + 0.002
}

impl World {
    fn new(hidden_len: usize) -> Self {
        let mut values = Coins::new(1).many(VOCAB_LEN * FEATURE_LEN);
        for (token, row) in values.chunks_exact_mut(FEATURE_LEN).enumerate() {
            row[FEATURE_LEN - 1] = f32::from(u8::from(token == STOP));
        }
        let features = TokenFeatures {
            vocab_len: VOCAB_LEN,
            len: FEATURE_LEN,
            values,
        };
        let by_topic = (0..NUM_TOPICS).map(|topic| {
            let mut values = vec![reward(MAX_LEN); MAX_LEN + 1];
            for len in (0..MAX_LEN).rev() {
                let stop = stop_prob(topic, len).min(1.0);
                values[len] = stop * reward(len + 1) + (1.0 - stop) * values[len + 1];
            }
            values
        });
        Self {
            image: Coins::new(2).many(hidden_len * LATENT_LEN),
            values: by_topic.collect(),
            features,
        }
    }

    /// The state after `len` tokens; `ended` as a model sees its own end token.
    fn hidden(&self, topic: usize, len: usize, ended: bool, coins: &mut Coins) -> Vec<f32> {
        let (topic, len) = (topic as f32 / NUM_TOPICS as f32, len as f32);
        let ended = f32::from(u8::from(ended));
        let latent = [
            topic,
            len / 100.0,
            (1.0 + len).ln() / 5.0,
            topic * len / 100.0,
            ended,
            1.0,
        ];
        let rows = self.image.chunks_exact(LATENT_LEN);
        rows.map(|row| {
            let sum: f32 = row.iter().zip(latent).map(|(weight, value)| weight * value).sum();
            (2.0 * sum).sin() + 0.3 * coins.next() as f32
        })
        .collect()
    }

    fn expected(&self, topic: usize, len: usize) -> Vec<f32> {
        let stop = stop_prob(topic, len).min(1.0) as f32;
        let others = (1.0 - stop) / (VOCAB_LEN - 1) as f32;
        let mut sum = vec![0.0; FEATURE_LEN];
        for (token, row) in self.features.rows().enumerate() {
            let prob = if token == STOP { stop } else { others };
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += prob * value;
            }
        }
        sum
    }

    fn response(&self, number: usize) -> ResponseFeatures {
        let mut coins = Coins::new(10 + number as u64);
        // Four responses to a prompt, and a prompt has one topic.
        let key = number as u64 / 4;
        let topic = (key as usize * 7) % NUM_TOPICS;
        let (mut hidden, mut expected, mut token_ids) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let len = token_ids.len();
            hidden.extend(self.hidden(topic, len, false, &mut coins));
            expected.extend(self.expected(topic, len));
            let stops = coins.share() < stop_prob(topic, len);
            let other = 1 + (coins.share() * (VOCAB_LEN - 1) as f64) as usize;
            token_ids.push(if stops { STOP } else { other.min(VOCAB_LEN - 1) } as u32);
            if stops {
                break;
            }
        }
        hidden.extend(self.hidden(topic, token_ids.len(), true, &mut coins));
        expected.extend(vec![0.0; FEATURE_LEN]);
        ResponseFeatures {
            hidden,
            expected_features: expected,
            reward: reward(token_ids.len()),
            token_ids,
            key,
        }
    }

    fn write(&self, dir: &Path, responses: usize) -> Result<PrefixSet, TrainError> {
        let header = PrefixSetHeader {
            base_name: "made up".to_owned(),
            base_sha256: String::new(),
            precision: "f32".to_owned(),
            hidden_len: self.image.len() / LATENT_LEN,
            vocab_len: VOCAB_LEN,
            feature_len: FEATURE_LEN,
            features_sha256: String::new(),
            rollouts_sha256: String::new(),
            reward: "length".to_owned(),
            reward_unit: "nats".to_owned(),
        };
        let mut writer = PrefixSetWriter::create(dir, header)?;
        for number in 0..responses {
            writer.push(&self.response(number))?;
        }
        writer.finish()
    }

    /// Lengths at which values are compared, in the range that responses of a topic reach.
    fn lens(topic: usize) -> impl Iterator<Item = usize> {
        (0..20 + 10 * topic).step_by(3)
    }

    /// Root mean square of `V - V*` over topics and lengths, on states that were not trained on.
    fn error(&self, weights: &ScorerWeights) -> f64 {
        let mut coins = Coins::new(3);
        root_mean_square(|topic, len| {
            let hidden = self.hidden(topic, len, false, &mut coins);
            weights.state_value(&hidden) - self.values[topic][len]
        })
    }

    fn spread(&self) -> f64 {
        let mut sum = (0.0, 0.0);
        root_mean_square(|topic, len| {
            sum = (sum.0 + self.values[topic][len], sum.1 + 1.0);
            0.0
        });
        root_mean_square(|topic, len| self.values[topic][len] - sum.0 / sum.1)
    }
}

fn root_mean_square(mut error: impl FnMut(usize, usize) -> f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for topic in 0..NUM_TOPICS {
        for len in World::lens(topic) {
            sum += error(topic, len).powi(2);
            count += 1.0;
        }
    }
    (sum / count).sqrt()
}
