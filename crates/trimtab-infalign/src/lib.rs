//! InfAlign as arithmetic: calibrated rewards, their transforms, and what a transform buys under an inference-time
//! procedure (arXiv 2412.19792v5).
//!
//! The key decision is the *idealised continuous model*: where no two responses tie, the calibrated reward `u` of a
//! reference response is uniform on `[0, 1]`, whatever the prompt, the reward and the model. A policy that was trained
//! on a transform `Phi(u)` with KL weight `beta` then has density `f(u) = exp(Phi(u) / beta) / Z`, a procedure that
//! chooses by reward is a weight `g` on the policy's own quantiles, and every win rate and KL is an integral over
//! `[0, 1]`. So which transform fits a procedure is answered in milliseconds, before anything is trained.
//!
//! The layers: [`ReferenceQuantiles`] makes calibrated rewards, [`Transform`] what is trained on, [`Procedure`] what
//! happens at inference, and the analysis puts the latter two together. Pure functions; no file, no model, no
//! prompt. Integrals are adaptive, by a library, and in log space.
//!
//! ```
//! use trimtab_infalign::{Procedure, Transform, analyze, policy_at_kl};
//!
//! // Trained for the standard win rate, or for best-of-4, at the same KL: what best-of-4 makes of them.
//! let best_of_4: Procedure = "bon:4".parse()?;
//! let plain = analyze(&policy_at_kl(&Transform::Identity, 0.5)?, &best_of_4)?;
//! let aware = analyze(&policy_at_kl(&Transform::Exp { t: 10.0 }, 0.5)?, &best_of_4)?;
//! assert!(aware.standard_win_rate < plain.standard_win_rate);
//! assert!(aware.win_rate > plain.win_rate + 0.07);
//! # Ok::<(), trimtab_infalign::InfalignError>(())
//! ```

mod density;
mod design;
pub mod enumerated;
mod error;
mod fixed_point;
mod integral;
mod panels;
mod procedure;
mod quantiles;
mod simulation;
mod table;
mod transform;
mod win_rates;

pub use density::Density;
pub use design::{Design, DesignLine, MissingFixedPoint, design, design_by};
pub use error::InfalignError;
pub use fixed_point::Certificate;
pub use procedure::{PROCEDURES, PreparedProcedure, Procedure};
pub use quantiles::{ReferenceQuantiles, estimator_rmse, estimator_standard_error};
pub use simulation::{
    CandidateChoice, PolicyDraws, SIMULATED_PROCEDURES, Simulated, SimulatedProcedure, SimulatedWinRate,
    simulated_weights, simulated_win_rate,
};
pub use table::{NamedTable, Table};
pub use transform::{PreparedTransform, TRANSFORMS, Transform};
pub use win_rates::{
    Analysis, KL_RANGE_NATS, WinRate, analyze, inference_win_rate, policy_at_beta, policy_at_kl,
    policy_at_kl_from,
};
