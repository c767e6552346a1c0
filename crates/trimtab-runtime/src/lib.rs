//! From a model file to answers: the one crate that knows checkpoint, tokenizer, decoder and engine at once.
//!
//! Everything below it is kept apart on purpose: the engine sees token ids, the tokenizer sees text, the model sees
//! rows. Whoever wants answers needs them together, and in the same way whether it is the command line, a server or
//! a training loop that samples. So the joints are here, once: [`LoadedModel`] opens a file and builds model and
//! tokenizer from it, [`PromptStyle`] turns what a user says into the positions that the model was trained on, and
//! [`run_jobs`] keeps the engine fed and scores candidates on a thread of its own, in batches across requests, so
//! that a slow reward never holds up the model.
//!
//! [`export_model`] is the way out: a model, trained or not, in the hub's layout or GGUF, with its tokenizer.
//!
//! It does not know where models come from (the store), which rewards exist, how results are shown, or a clock.

mod asked;
mod error;
mod export;
mod gguf_vocab;
mod jobs;
mod loaded;
mod prefix_features;
mod prompt;
mod response;
mod response_kl;
mod scorer;
mod state_reader;
#[cfg(feature = "testing")]
pub mod testing;
mod text_judge;
mod text_reader;

pub use asked::{AskedPrefix, AskedReward, AskedScorer, Judges};
pub use error::RuntimeError;
pub use export::{
    ExportOptions, ModelFormat, WeightType, check_export, export_model, model_format, vocabulary,
};
pub use jobs::{Job, JobResult, RunEvent, RunLimits, run_jobs, run_judged_jobs};
pub use loaded::{LoadOptions, LoadedModel};
pub use prefix_features::{FeatureItem, PrefixStates, prefix_features, token_features};
pub use prompt::PromptStyle;
pub use response::EncodedResponse;
pub use response_kl::{ResponseKl, response_kl};
pub use state_reader::ReaderLimits;
pub use text_judge::{HeadReward, LOG_PROBABILITY, LOGIT, SeparateScorer, classifier_weights};
pub use text_reader::{SharedTextReader, TextForm, TextReader, cut_to_tokens};
