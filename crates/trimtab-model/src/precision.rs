//! How a model is run, as opposed to what it is: precision of each kind of layer, threads, storage of keys and values.

use trimtab_kernels::gemm::Precision;
use trimtab_kernels::kv_cache::KvStorage;

/// Precision of each kind of linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrecisionPlan {
    /// Query, key and value projections.
    pub qkv: Precision,
    /// Attention output projections.
    pub attention_output: Precision,
    /// Gate and up projections.
    pub gate_up: Precision,
    /// Down projections; their inputs have the outliers.
    pub down: Precision,
    /// Output head.
    pub head: Precision,
    /// Keys and values.
    pub kv: KvStorage,
    /// Whether outliers of activations are to be moved into the weights first
    /// ([`SmoothedWeights`](crate::smoothing::SmoothedWeights)); whoever opens the model has a text for it.
    pub smoothed: bool,
}

impl PrecisionPlan {
    /// Names that [`Self::by_name`] knows.
    pub const NAMES: [&str; 5] = ["int8", "int8-wide", "int4", "bf16", "f32"];

    /// The plan that users call `name`.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "int8" => Some(Self::int8()),
            "int8-wide" => Some(Self::uniform(Precision::Int8Wide, KvStorage::F16)),
            "int4" => Some(Self::uniform(Precision::Int4, KvStorage::F16)),
            "bf16" => Some(Self::uniform(Precision::Bf16, KvStorage::F32)),
            "f32" => Some(Self::f32()),
            _ => None,
        }
    }

    /// Everything in f32: the exact path the others are compared with.
    pub fn f32() -> Self {
        Self::uniform(Precision::F32, KvStorage::F32)
    }

    /// int8 weights and activations, smoothed; the activations of down and head, which smoothing does not help, have
    /// 15 bits.
    pub fn int8() -> Self {
        Self {
            down: Precision::Int8Wide,
            head: Precision::Int8Wide,
            smoothed: true,
            ..Self::uniform(Precision::Int8, KvStorage::F16)
        }
    }

    /// One precision for all linear layers.
    pub fn uniform(precision: Precision, kv: KvStorage) -> Self {
        Self {
            qkv: precision,
            attention_output: precision,
            gate_up: precision,
            down: precision,
            head: precision,
            kv,
            smoothed: false,
        }
    }
}

/// How to run a model.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeConfig {
    /// Precision of each kind of layer.
    pub plan: PrecisionPlan,
    /// Threads of the kernels' pool, at least 1.
    pub num_threads: usize,
}
