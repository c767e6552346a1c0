//! Smoothing changes no bit in f32, and brings int8 nearer where activations have outliers.

use std::sync::Arc;

use trimtab_base::TokenId;
use trimtab_base::prob::{kl_nats, log_softmax};
use trimtab_kernels::kv_cache::{BLOCK_LEN, KvCache};
use trimtab_kernels::pool::Pool;
use trimtab_model::load::WeightSource;
use trimtab_model::names::{LayerRole, Role};
use trimtab_model::presets::{test_tiny, test_tiny_gemma, test_tiny_qwen};
use trimtab_model::smoothing::SmoothedWeights;
use trimtab_model::synthetic::SyntheticWeights;
use trimtab_model::{
    BatchRow, ForwardOutput, Model, ModelConfig, ModelError, PrecisionPlan, RowInput, Workspace,
};

/// Synthetic weights whose norms blow up two channels, as trained models' do.
struct WithOutliers(SyntheticWeights);

impl WeightSource for WithOutliers {
    fn shape(&self, role: Role) -> Result<Vec<usize>, ModelError> {
        self.0.shape(role)
    }

    fn read_row(&self, role: Role, row: usize, out: &mut [f32]) {
        self.0.read_row(role, row, out);
        if let Role::Layer(_, LayerRole::AttentionNorm | LayerRole::FfnNorm) = role {
            out[3] *= 60.0;
            out[17] *= 40.0;
        }
        // The matrices make up for it, so that the function stays tame.
        if let Role::Layer(
            _,
            LayerRole::Query | LayerRole::Key | LayerRole::Value | LayerRole::Gate | LayerRole::Up,
        ) = role
        {
            out[3] /= 60.0;
            out[17] /= 40.0;
        }
    }

    fn release(&self, role: Role) {
        self.0.release(role);
    }
}

fn logits(config: &ModelConfig, source: Arc<dyn WeightSource>, plan: PrecisionPlan) -> Vec<f32> {
    let pool = Pool::new(2);
    let model = Model::load(config.clone(), source, plan, &pool).unwrap();
    let tokens = text(5, 40);
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(BLOCK_LEN) as u32).collect();
    let mut kv = KvCache::new(model.kv_layout(), blocks.len());
    let rows: Vec<BatchRow<'_>> = tokens
        .iter()
        .enumerate()
        .map(|(position, &token)| BatchRow {
            input: RowInput::Token(token),
            position: position as u32,
            blocks: &blocks,
        })
        .collect();
    let outputs: Vec<usize> = (0..rows.len()).collect();
    let (mut ws, mut out) = (Workspace::default(), ForwardOutput::default());
    model
        .forward(&pool, &mut kv, &rows, &outputs, &mut ws, &mut out)
        .unwrap();
    out.logits
}

fn text(start: u32, len: u32) -> Vec<TokenId> {
    (0..len).map(|i| TokenId((i * 17 + start) % 40)).collect()
}

fn mean_kl(config: &ModelConfig, exact: &[f32], other: &[f32]) -> f64 {
    let rows = exact
        .chunks_exact(config.vocab_len)
        .zip(other.chunks_exact(config.vocab_len));
    let divergences: Vec<f64> = rows
        .map(|(a, b)| kl_nats(&log_softmax(a), &log_softmax(b)))
        .collect();
    divergences.iter().sum::<f64>() / divergences.len() as f64
}

fn smoothed(config: &ModelConfig, source: &Arc<dyn WeightSource>) -> Arc<dyn WeightSource> {
    let calibration = text(11, 64);
    Arc::new(SmoothedWeights::calibrate(config, Arc::clone(source), &calibration, &Pool::new(1)).unwrap())
}

#[test]
fn f32_is_the_same_to_the_last_bit() {
    for config in [test_tiny(), test_tiny_gemma(), test_tiny_qwen()] {
        let source: Arc<dyn WeightSource> = Arc::new(WithOutliers(SyntheticWeights::new(config.clone(), 7)));
        let moved = smoothed(&config, &source);
        let plan = PrecisionPlan::f32();
        assert_eq!(
            logits(&config, Arc::clone(&source), plan),
            logits(&config, Arc::clone(&moved), plan),
            "{}",
            config.architecture
        );
        let (mut before, mut after) = (vec![0.0; config.hidden_len], vec![0.0; config.hidden_len]);
        let norm = Role::Layer(0, LayerRole::AttentionNorm);
        source.read_row(norm, 0, &mut before);
        moved.read_row(norm, 0, &mut after);
        assert!(
            after[3] < before[3] / 8.0,
            "the outlier has moved: {} to {}",
            before[3],
            after[3]
        );
    }
}

#[test]
fn int8_comes_nearer_where_there_are_outliers() {
    let config = test_tiny();
    let source: Arc<dyn WeightSource> = Arc::new(WithOutliers(SyntheticWeights::new(config.clone(), 7)));
    let exact = logits(&config, Arc::clone(&source), PrecisionPlan::f32());
    let rough = mean_kl(
        &config,
        &exact,
        &logits(&config, Arc::clone(&source), PrecisionPlan::int8()),
    );
    let near = mean_kl(
        &config,
        &exact,
        &logits(&config, smoothed(&config, &source), PrecisionPlan::int8()),
    );
    assert!(
        near * 4.0 < rough,
        "mean KL {near} nats smoothed, {rough} as it is"
    );
}

#[test]
fn no_text_smooths_nothing() {
    let config = test_tiny();
    let source: Arc<dyn WeightSource> = Arc::new(SyntheticWeights::new(config.clone(), 7));
    let same = SmoothedWeights::calibrate(&config, Arc::clone(&source), &[], &Pool::new(1)).unwrap();
    let (mut before, mut after) = (vec![0.0; config.hidden_len], vec![0.0; config.hidden_len]);
    for role in [
        Role::Layer(1, LayerRole::FfnNorm),
        Role::Layer(1, LayerRole::Gate),
    ] {
        source.read_row(role, 0, &mut before);
        same.read_row(role, 0, &mut after);
        assert_eq!(before, after);
    }
}
