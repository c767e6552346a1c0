//! A model file opened: weights packed for this machine, tokenizer and templates beside them.

use std::path::Path;
use std::sync::Arc;

use trimtab_base::{TokenBytes, TokenId};
use trimtab_checkpoint::Format;
use trimtab_engine::{CpuBackend, Engine, EngineConfig};
use trimtab_kernels::pool::Pool;
use trimtab_model::load::WeightSource;
use trimtab_model::names::Role;
use trimtab_model::{Model, ModelConfig, ModelFile, PrecisionPlan, ScoreHead};
use trimtab_tokenizer::Tokenizer;

use crate::error::RuntimeError;
use crate::gguf_vocab::gguf_vocab;

mod reweighted;

/// How to run a model that is opened.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Precision of each kind of layer.
    pub plan: PrecisionPlan,
    /// Threads of the kernels, at least 1.
    pub num_threads: usize,
}

/// A model ready to answer. Clones share everything.
#[derive(Clone)]
pub struct LoadedModel {
    model: Arc<Model>,
    /// As the file has them, before any smoothing or packing.
    weights: Arc<dyn WeightSource>,
    tokenizer: Arc<Tokenizer>,
    pool: Arc<Pool>,
    /// Of a sequence classifier, which has no output head.
    score_head: Option<Arc<ScoreHead>>,
}

impl LoadedModel {
    /// Opens a GGUF file, a safetensors folder or a llama2.c file (with its `tokenizer.bin` or
    /// `tok<vocabulary>.bin` beside it).
    ///
    /// # Errors
    /// A file that is damaged or of an unknown kind, an architecture that the decoder does not cover, a tokenizer
    /// that is missing or that does not fit, threads that cannot be started.
    pub fn open(path: &Path, options: LoadOptions) -> Result<Self, RuntimeError> {
        let pool = Pool::try_new(options.num_threads).map_err(|cause| RuntimeError::Threads { cause })?;
        let pool = Arc::new(pool);
        let file = ModelFile::open(path)?;
        let tokenizer = Arc::new(open_tokenizer(path, &file)?);
        let calibration = calibration_tokens(&tokenizer)?;
        let model = Arc::new(file.load(options.plan, &pool, &calibration)?);
        Ok(Self {
            model,
            weights: file.weights(),
            score_head: file.score_head()?.map(Arc::new),
            tokenizer,
            pool,
        })
    }

    /// An engine over this model with a key/value store of `kv_budget_bytes`, taken as it is first used.
    ///
    /// # Errors
    /// A limit of `config` that is zero, a budget that the system has no address space for; a sequence classifier, which
    /// has no next tokens.
    pub fn engine(&self, kv_budget_bytes: usize, config: EngineConfig) -> Result<Engine, RuntimeError> {
        if let Some(head) = &self.score_head {
            return Err(RuntimeError::NoLanguageModel {
                labels: head.labels.clone(),
            });
        }
        CpuBackend::try_new(Arc::clone(&self.model), Arc::clone(&self.pool), kv_budget_bytes)
            .and_then(|backend| Engine::new(Box::new(backend), config))
            .map_err(|cause| RuntimeError::Step { cause })
    }

    /// What the weights are.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// The packed model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Writes the output embedding of `token`, as the file has it. `row`: `[hidden]`
    pub(crate) fn read_output_row(&self, token: usize, row: &mut [f32]) {
        let role = if self.config().tied_head {
            Role::Embedding
        } else {
            Role::Head
        };
        self.weights.read_row(role, token, row);
    }

    /// The score head of a sequence classifier.
    pub fn score_head(&self) -> Option<&ScoreHead> {
        self.score_head.as_deref()
    }

    /// The threads that it runs on.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The tokenizer as decoders see it.
    pub fn token_bytes(&self) -> Arc<dyn TokenBytes> {
        Arc::clone(&self.tokenizer) as Arc<dyn TokenBytes>
    }
}

/// The text that models are smoothed on: prose, code, numbers and lists, since all of them will be asked for.
const CALIBRATION_TEXT: &str = include_str!("../data/calibration.txt");

fn calibration_tokens(tokenizer: &Tokenizer) -> Result<Vec<TokenId>, RuntimeError> {
    Ok(tokenizer.encode_prompt(CALIBRATION_TEXT)?)
}

fn open_tokenizer(path: &Path, file: &ModelFile) -> Result<Tokenizer, RuntimeError> {
    let checkpoint = file.checkpoint();
    match checkpoint.format() {
        Format::Gguf => Ok(Tokenizer::from_gguf(gguf_vocab(checkpoint)?)?),
        Format::SafeTensors => Ok(Tokenizer::from_hf_folder(beside(path))?),
        Format::Llama2c => Ok(Tokenizer::from_llama2c(llama2c_pieces(file)?)?),
    }
}

/// The folder of a checkpoint, which may be that folder itself.
pub(crate) fn beside(path: &Path) -> &Path {
    if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(path)
    }
}

/// Scores and bytes of the vocabulary beside a llama2.c model.
pub(crate) fn llama2c_pieces(file: &ModelFile) -> Result<Vec<(f32, Vec<u8>)>, RuntimeError> {
    let (path, vocab_len) = (file.checkpoint().path(), file.config().vocab_len);
    // The two names that llama2.c gives vocabularies: its own, and those trained for smaller models.
    let places =
        ["tokenizer.bin".to_owned(), format!("tok{vocab_len}.bin")].map(|name| path.with_file_name(name));
    let Some(path) = places.iter().find(|place| place.is_file()) else {
        let [path, _] = places;
        return Err(RuntimeError::NoTokenizer { path, vocab_len });
    };
    Ok(trimtab_checkpoint::read_llama2c_tokenizer(path, vocab_len)?)
}
