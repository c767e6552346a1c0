//! Batched execution of decoders: `step() = schedule -> run -> postprocess`.
//!
//! A request is a prompt and a decoder. Its life:
//! 1. `submit` refuses what can never fit (context, memory) with both numbers, and queues the rest.
//! 2. It is admitted when its worst case of key/value blocks is free, so that it can always run to its end.
//! 3. Its prompt is prefilled in chunks, once, sharing whole blocks with earlier prompts that begin alike.
//! 4. The decoder forks branches off the prompt; a fork shares every block and copies only the one it writes into.
//! 5. Each step runs one row per live branch of every request in one batch, decoding rows before prefill rows.
//! 6. Row operations (sampling, top-k) of all requests run in parallel on the step's logits, which are then gone;
//!    a decoder is fed when it has an answer to each.
//! 7. Pruned branches free their blocks at once; rewards are asked of the caller as events.
//! 8. The outcome is an event; cancelling frees everything at once.
//!
//! The engine knows token ids and decoders' needs; it never sees a text, a tokenizer or a reward, and has no
//! randomness of its own.

mod active;
pub mod backend;
pub mod block_manager;
pub mod engine;
mod error;
pub mod prefix_cache;
pub mod request;
mod row_ops;
mod scheduler;
mod sequence;

pub use backend::{Backend, CpuBackend};
pub use engine::{Engine, EngineConfig, EngineStats};
pub use error::EngineError;
pub use request::{Event, Prompt, Request, RequestId, Span, Usage};
