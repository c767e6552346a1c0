//! Files, token features and packed scorers from the outside.

mod features;
mod files;
mod fixture;
mod set;
