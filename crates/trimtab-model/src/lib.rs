//! The decoder-only transformer family: what the weights are, where they lie in a file, and one forward pass.
//!
//! One config-driven decoder covers Llama, Qwen 2/2.5/3 and Gemma 3 (text): what differs between them is data in
//! [`ModelConfig`], not code paths per family. A row of a batch is one position of one sequence, given either as a
//! token or as an embedding row, so that image, audio and video encoders can feed the same decoder; its keys and
//! values live in blocks that several sequences may share.
//!
//! This crate never names a decoder, a reward, a request or a text: it turns rows into hidden states and logits.

pub mod config;
pub mod error;
pub mod family;
pub mod file_tensors;
pub mod forward;
pub mod from_gguf;
pub mod from_hf;
pub mod from_llama2c;
pub mod load;
pub mod model_file;
pub mod names;
pub mod precision;
pub mod presets;
pub mod rope;
mod score_head;
pub mod smoothing;
pub mod stage_times;
pub mod synthetic;
pub mod to_gguf;
pub mod to_hf;
pub mod weights;

pub use config::{Activation, AttentionSpan, ModelConfig, RopeScaling};
pub use error::ModelError;
pub use file_tensors::FileTensors;
pub use forward::{BatchRow, ForwardOutput, RowInput, Workspace};
pub use load::Model;
pub use model_file::ModelFile;
pub use precision::{PrecisionPlan, RuntimeConfig};
pub use score_head::ScoreHead;
