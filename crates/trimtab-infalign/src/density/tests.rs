use super::*;
use crate::Transform;

fn density(transform: &str, beta: f64) -> Density {
    let transform: Transform = transform.parse().unwrap();
    Density::try_new(transform.prepare(beta).unwrap(), beta).unwrap()
}

#[test]
fn identity_has_the_closed_form() {
    for beta in [1e-3_f64, 0.05, 0.377, 1.0, 30.0] {
        let density = density("identity", beta);
        // F(u) = (e^(u/beta) - 1) / (e^(1/beta) - 1), without overflow.
        for u in [0.0_f64, 0.1, 0.5, 0.9, 0.999, 1.0] {
            let expect = ((u - 1.0) / beta).exp() * (-u / beta).exp_m1() / (-1.0 / beta).exp_m1();
            let got = density.cumulative(u);
            assert!(
                (got - expect).abs() < 1e-13,
                "beta {beta}, u {u}: {got}, expected {expect}"
            );
        }
        // KL = ((1/b - 1) e^(1/b) + 1) / (e^(1/b) - 1) - log b - log(e^(1/b) - 1), divided by e^(1/b).
        let tail = (-1.0 / beta).exp();
        let expect = (1.0 / beta - 1.0 + tail) / (1.0 - tail) - beta.ln() - 1.0 / beta - (-tail).ln_1p();
        let (kl_nats, error) = density.kl_nats();
        assert!(
            (kl_nats - expect).abs() < 1e-11 * expect.max(1e-2),
            "beta {beta}: {kl_nats}, expected {expect}"
        );
        assert!(error < 1e-9);
    }
}

#[test]
fn log_is_best_of_n_distillation() {
    for n in [1.001_f64, 1.5, 4.0, 100.0] {
        let density = density("log", 1.0 / (n - 1.0));
        for u in [1e-9_f64, 0.01, 0.3, 0.9] {
            assert!((density.cumulative(u) - u.powf(n)).abs() < 1e-12, "n {n}, u {u}");
        }
        let expect = n.ln() - (n - 1.0) / n;
        let (kl_nats, _) = density.kl_nats();
        assert!(
            (kl_nats - expect).abs() < 1e-10 * expect.max(1e-3),
            "n {n}: {kl_nats}, expected {expect}"
        );
    }
}

#[test]
fn tables_have_corners_and_may_be_flat() {
    // Half the quantiles e times as likely as the other half.
    let table = "table:t"
        .parse::<Transform>()
        .unwrap()
        .with_table("0 0\n0.5 0\n0.500000001 1\n1 1")
        .unwrap();
    let density = Density::try_new(table.prepare(1.0).unwrap(), 1.0).unwrap();
    let e = std::f64::consts::E;
    assert!((density.cumulative(0.5) - 1.0 / (1.0 + e)).abs() < 1e-8);
    assert!((density.density(0.75) - 2.0 * e / (1.0 + e)).abs() < 1e-8);
}

#[test]
fn quantiles_invert_the_distribution_function() {
    for transform in ["identity", "log", "exp:50", "exp:-50", "power:7"] {
        let density = density(transform, 0.2);
        for q in [1e-6, 0.01, 0.5, 0.99] {
            let u = density.quantile(q);
            assert!((density.cumulative(u) - q).abs() < 1e-9, "{transform}, {q}");
        }
    }
}

#[test]
fn extreme_settings_neither_overflow_nor_lose_mass() {
    for transform in [
        "exp:50",
        "exp:-50",
        "exp:500",
        "exp:-500",
        "power:1000",
        "log",
        "identity",
    ] {
        for beta in [1e-9, 1e-4, 1.0, 1e9] {
            let density = density(transform, beta);
            let (kl_nats, _) = density.kl_nats();
            assert!(
                kl_nats.is_finite() && kl_nats >= 0.0,
                "{transform}, beta {beta}: KL {kl_nats}"
            );
            assert_eq!(density.cumulative(1.0), 1.0, "{transform}, beta {beta}");
            let mut before = 0.0;
            for step in 0..=100 {
                let cumulative = density.cumulative(f64::from(step) / 100.0);
                assert!(
                    cumulative >= before - 1e-12,
                    "{transform}, beta {beta}, step {step}"
                );
                before = cumulative;
            }
        }
    }
}
