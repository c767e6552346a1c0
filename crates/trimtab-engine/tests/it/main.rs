//! Integration tests of the engine: on an enumerable model behind real blocks, and on a small real decoder.

mod admission;
mod determinism;
mod equivalence;
mod events;
mod failures;
mod small_batches;
mod steered;
mod steered_fixture;
mod steered_requests;
mod table_backend;
