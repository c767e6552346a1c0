//! `train align`: a policy towards a reward, from prompts to a folder that `generate --model` opens (InfAlign B8).
//!
//! ```text
//! calibrate: samples of the reference and their rewards, once       [crate::calibrate]
//! transform: what a reward becomes beside them                       [rewarding]
//! solve:     KL-regularised RL on responses of the policy's own      [rollouts]
//!            or DPO, IPO, winners, BoNBoN on the samples             [given]
//! ```
//!
//! The optimisation is the training crate's one loop. What is here is its data: responses drawn by the engine with the
//! current weights, judged, calibrated and transformed; and what comes of it: weights, cards and a watch for hacked rewards.

mod config;
mod config_parts;
mod drawing;
mod finish;
mod formats;
mod given;
mod prepare;
mod report;
mod rewarding;
mod rollouts;
mod run;
mod warm_start;
mod watch;

pub(crate) use config::{AlignConfig, EXAMPLE_CONFIG};
pub(crate) use formats::PolicyFormat;
pub(crate) use run::{AlignOptions, align};
