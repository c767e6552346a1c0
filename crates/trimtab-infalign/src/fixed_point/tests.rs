use super::*;
use crate::{Density, Transform, inference_win_rate, policy_at_kl};

fn choice(procedure: &str) -> Choice {
    match procedure.parse().unwrap() {
        Procedure::BestOf { n } => Choice::BestOf(n),
        Procedure::WorstOf { n } => Choice::WorstOf(n),
        other => panic!("{other} has no fixed point"),
    }
}

fn solved(procedure: &str, beta: f64) -> FixedPoint {
    FixedPoint::solve(choice(procedure), beta, None).unwrap()
}

#[test]
fn small_kl_leads_to_the_polynomial_of_the_limit() {
    // beta to infinity: N^2 / (2N-1) u^(2N-1), up to a constant; mirrored for worst-of-N (B5).
    for n in [1_i32, 2, 4] {
        let (best, worst) = (solved(&format!("bon:{n}"), 1e7), solved(&format!("won:{n}"), 1e7));
        let (size, power) = (f64::from(n * n) / f64::from(2 * n - 1), 2 * n - 1);
        for u in [0.0_f64, 0.2, 0.5, 0.9, 1.0] {
            assert!(
                (best.value(u) - size * (u.powi(power) - 1.0)).abs() < 1e-6,
                "bon:{n} at {u}"
            );
            assert!(
                (worst.value(u) + size * (1.0 - u).powi(power)).abs() < 1e-6,
                "won:{n} at {u}"
            );
        }
    }
}

#[test]
fn one_candidate_is_the_identity() {
    let fixed_point = solved("bon:1", 0.1);
    for u in [0.0, 0.3, 1.0] {
        assert!((fixed_point.value(u) - (u - 1.0)).abs() < 1e-12);
    }
}

#[test]
fn certificates_hold_from_small_to_large_kl() {
    let check = |transform: &str, kls: &[f64]| {
        for &kl_nats in kls {
            let policy = policy_at_kl(&transform.parse().unwrap(), kl_nats).unwrap();
            let certificate = policy.prepared().certificate().unwrap();
            assert!(
                certificate.residual_nats < 1e-8,
                "{transform} at {kl_nats}: {certificate:?}"
            );
            assert!(
                certificate.gap < 1e-12,
                "{transform} at {kl_nats}: {certificate:?}"
            );
            assert!(
                certificate.truncation_nats < 1e-7,
                "{transform} at {kl_nats}: {certificate:?}"
            );
        }
    };
    check("bon_fp:2", &[0.01, 1.0, 5.0]);
    check("bon_fp:4", &[0.1, 1.0, 5.0]);
    check("bon_fp:128", &[0.5, 1.0]);
    check("won_fp:4", &[0.1, 0.5, 2.0]);
    // Of log-densities over a hundred orders of magnitude.
    check("won_fp:128", &[0.2]);
    check("won_fp:32", &[2.0]);
    check("won_fp:4", &[8.0]);
}

/// The objective W - beta KL of `bon_fp` is not passed by any other policy of the family, and by no perturbation.
#[test]
fn no_other_policy_has_a_greater_objective() {
    let procedure: Procedure = "bon:4".parse().unwrap();
    let prepared = procedure.prepare().unwrap();
    let objective = |policy: &Density, beta: f64| {
        inference_win_rate(policy, &prepared).win_rate - beta * policy.kl_nats().0
    };
    for kl_nats in [0.05, 0.5, 2.0] {
        let best = policy_at_kl(&"bon_fp:4".parse().unwrap(), kl_nats).unwrap();
        let beta = best.beta();
        for rival in [
            "identity", "log", "exp:5", "exp:8", "exp:10", "exp:12", "power:7", "bon_fp:3", "bon_fp:5",
        ] {
            for rival_kl in [0.8 * kl_nats, kl_nats, 1.2 * kl_nats] {
                let rival_policy = policy_at_kl(&rival.parse::<Transform>().unwrap(), rival_kl).unwrap();
                assert!(
                    objective(&rival_policy, beta) < objective(&best, beta) + 1e-10,
                    "{rival} at {rival_kl}"
                );
            }
        }
    }
}
