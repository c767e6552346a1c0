//! The decoder family on the tape: the engine's forward pass again, in operations that have gradients.
//!
//! One config-driven decoder, as in `trimtab-model`: what differs between Llama, Qwen and Gemma is data. It reads the
//! same [`ModelConfig`](trimtab_model::ModelConfig) and the same
//! [`WeightSource`](trimtab_model::load::WeightSource) as the engine, and tests hold its hidden states and logits to
//! the engine's exact path for every family, so that what is trained here is what will run there.
//!
//! Training goes to one of three depths. Frozen weights are constants by type ([`Weight`]), not by a flag: a decoder
//! with adapters records nothing below the first adapter, and a checkpoint holds the adapters alone. A trained decoder
//! is a `WeightSource` again ([`TrainedWeights`]), which the engine can run at once and which can be written beside
//! the base's configuration and tokenizer.
//!
//! [`train_value_model`] puts heads on such a decoder and trains both by the one loop with the objectives of heads. The
//! decoder itself knows no objective, no loop, no reward and no text.

pub mod attention;
pub mod batch;
pub mod error;
pub mod export;
mod fused;
pub mod layer;
pub mod linear;
pub mod load;
pub mod lora;
pub mod model;
pub mod norm;
pub mod positions;
pub mod trained;
pub mod value_data;
pub mod value_model;
mod value_run;
pub mod weight;

pub use batch::TokenBatch;
pub use error::DecoderError;
pub use export::write_model;
pub use load::DecoderOptions;
pub use lora::{Depth, LoraConfig, LoraTarget};
pub use model::Decoder;
pub use trained::TrainedWeights;
pub use value_data::TokenResponse;
pub use value_model::ValueModel;
pub use value_run::{TrainedValueModel, ValueBase, train_value_model};
pub use weight::Weight;
