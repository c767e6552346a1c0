use super::*;

/// Transforms and win rates under each procedure, at one KL.
type Rows = [(&'static str, [f64; 5]); 11];

const PROCEDURES: [&str; 5] = ["sample", "bon:2", "bon:4", "won:2", "won:4"];

/// Derived before this crate was written, by other code, and checked by Monte Carlo.
const AT_KL_QUARTER: Rows = [
    ("identity", [0.6989, 0.7198, 0.7304, 0.7486, 0.7847]),
    ("log", [0.6902, 0.6902, 0.6902, 0.7637, 0.8364]),
    ("exp:5", [0.6756, 0.7386, 0.7856, 0.6756, 0.6683]),
    ("exp:10", [0.6479, 0.7249, 0.7966, 0.6304, 0.6167]),
    ("exp:20", [0.6179, 0.6963, 0.7875, 0.5941, 0.5820]),
    ("exp:-5", [0.6757, 0.6590, 0.6485, 0.7635, 0.8539]),
    ("exp:-10", [0.6523, 0.6249, 0.6110, 0.7473, 0.8563]),
    ("bon_fp:2", [0.6814, 0.7393, 0.7797, 0.6871, 0.6819]),
    ("bon_fp:4", [0.6467, 0.7237, 0.7969, 0.6291, 0.6154]),
    ("won_fp:2", [0.6852, 0.6733, 0.6618, 0.7671, 0.8410]),
    ("won_fp:4", [0.6587, 0.6314, 0.6163, 0.7543, 0.8583]),
];

const AT_KL_HALF: Rows = [
    ("identity", [0.7737, 0.7917, 0.7998, 0.8403, 0.8860]),
    ("log", [0.7682, 0.7682, 0.7682, 0.8559, 0.9270]),
    ("exp:5", [0.7461, 0.8154, 0.8566, 0.7529, 0.7465]),
    ("exp:10", [0.7117, 0.8031, 0.8715, 0.6936, 0.6763]),
    ("exp:20", [0.6730, 0.7724, 0.8680, 0.6438, 0.6268]),
    ("exp:-5", [0.7539, 0.7348, 0.7230, 0.8587, 0.9439]),
    ("exp:-10", [0.7358, 0.7041, 0.6859, 0.8509, 0.9476]),
    ("bon_fp:2", [0.7497, 0.8156, 0.8547, 0.7604, 0.7559]),
    ("bon_fp:4", [0.7025, 0.7963, 0.8733, 0.6818, 0.6646]),
    ("won_fp:2", [0.7585, 0.7405, 0.7258, 0.8603, 0.9378]),
    ("won_fp:4", [0.7344, 0.7003, 0.6803, 0.8511, 0.9479]),
];

fn at_kl(transform: &str, kl_nats: f64) -> Density {
    policy_at_kl(&transform.parse().unwrap(), kl_nats).unwrap()
}

fn win_rate(policy: &Density, procedure: &str) -> f64 {
    let procedure: Procedure = procedure.parse().unwrap();
    let answer = inference_win_rate(policy, &procedure.prepare().unwrap());
    assert!(answer.error < 1e-6, "{procedure}: {answer:?}");
    answer.win_rate
}

#[test]
fn all_cells_of_the_table_are_reproduced_to_the_printed_digits() {
    let mut wrong = Vec::new();
    for (kl_nats, rows) in [(0.25, AT_KL_QUARTER), (0.5, AT_KL_HALF)] {
        for (transform, expected) in rows {
            let policy = at_kl(transform, kl_nats);
            assert!((policy.kl_nats().0 - kl_nats).abs() < 1e-10, "{transform}");
            for (procedure, expect) in PROCEDURES.into_iter().zip(expected) {
                let got = win_rate(&policy, procedure);
                if (got - expect).abs() > 0.5e-4 + 1e-9 {
                    wrong.push(format!(
                        "{transform} at {kl_nats} under {procedure}: {got:.6}, printed {expect}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn betas_are_those_of_the_table() {
    let check = |transform: &str, betas: [(f64, &str); 3]| {
        for (kl_nats, expect) in betas {
            let beta = at_kl(transform, kl_nats).beta();
            let num_decimals = expect.len() - 2;
            assert_eq!(
                format!("{beta:.num_decimals$}"),
                expect,
                "{transform} at {kl_nats}: {beta}"
            );
        }
    };
    check("exp:10", [(0.25, "0.414"), (0.5, "0.318"), (1.0, "0.241")]);
    check("exp:5", [(0.25, "0.439"), (0.5, "0.323"), (1.0, "0.230")]);
    check("identity", [(0.25, "0.377"), (0.5, "0.243"), (1.0, "0.136")]);
    check("log", [(0.25, "0.814"), (0.5, "0.432"), (1.0, "0.1885")]);
    check("exp:-10", [(0.25, "0.0663"), (0.5, "0.0115"), (1.0, "0.0010")]);
}

#[test]
fn a_policy_that_is_the_reference_wins_half() {
    let policy = policy_at_beta(&Transform::Identity, 1e12).unwrap();
    for procedure in ["sample", "bon:4", "bon:128", "won:128", "rewind:0.9", "rewind:0"] {
        assert!((win_rate(&policy, procedure) - 0.5).abs() < 1e-9, "{procedure}");
    }
}

/// Best-of-n distillation wins a/(a+1) under best-of-N for every N (B5).
#[test]
fn log_wins_the_same_under_every_best_of_n() {
    for a in [1.01_f64, 2.0, 4.0, 40.0] {
        let policy = policy_at_beta(&Transform::Log, 1.0 / (a - 1.0)).unwrap();
        for procedure in ["sample", "bon:2", "bon:17", "bon:128"] {
            assert!(
                (win_rate(&policy, procedure) - a / (a + 1.0)).abs() < 1e-9,
                "{a}, {procedure}"
            );
        }
    }
}

/// The identity's standard win rate is `E_f[u] = 1 / (1 - e^(-1/b)) - b`; rewind's and worst-of-2's have closed forms for
/// `f = 2u`, `F = u^2`.
#[test]
fn closed_forms_of_simple_policies() {
    for beta in [0.01, 0.377, 5.0] {
        let policy = policy_at_beta(&Transform::Identity, beta).unwrap();
        let expect = 1.0 / (1.0 - (-1.0 / beta).exp()) - beta;
        assert!((win_rate(&policy, "sample") - expect).abs() < 1e-9, "{beta}");
    }
    let twice = policy_at_beta(&Transform::Log, 1.0).unwrap();
    // W = 2 int (1-u^2)^2 (1-u) du = 2 (int (1-2u^2+u^4) - int (u-2u^3+u^5)).
    let expect = 2.0 * ((1.0 - 2.0 / 3.0 + 0.2) - (0.5 - 0.5 + 1.0 / 6.0));
    assert!((win_rate(&twice, "won:2") - expect).abs() < 1e-10);
    // Rewind at p: W = 1 - int_{max(p, sqrt p)}^1 (u^2 - p)/(1-p)^2 du, sqrt p being the greater.
    let p = 0.64_f64;
    let from = p.sqrt();
    let expect = 1.0 - ((1.0 - from.powi(3)) / 3.0 - p * (1.0 - from)) / (1.0 - p).powi(2);
    assert!((win_rate(&twice, "rewind:0.64") - expect).abs() < 1e-10);
    // A table of weights that is best-of-2's g = 2u.
    let weights = "weight:g"
        .parse::<Procedure>()
        .unwrap()
        .with_table("0 0\n1 2")
        .unwrap();
    let got = inference_win_rate(&twice, &weights.prepare().unwrap()).win_rate;
    assert!((got - win_rate(&twice, "bon:2")).abs() < 1e-12);
}

#[test]
fn extreme_exponents_and_candidates_stay_finite_and_in_order() {
    for t in [-50, -20, -1, 1, 20, 50] {
        for kl_nats in [1e-4, 0.25, 5.0] {
            let policy = at_kl(&format!("exp:{t}"), kl_nats);
            assert!(
                (policy.kl_nats().0 / kl_nats - 1.0).abs() < 1e-9,
                "exp:{t}, {kl_nats}"
            );
            for procedure in ["sample", "bon:128", "won:128", "rewind:0.99"] {
                let got = win_rate(&policy, procedure);
                assert!(
                    (0.5..=1.0).contains(&got),
                    "exp:{t}, KL {kl_nats}, {procedure}: {got}"
                );
            }
        }
    }
}

#[test]
fn every_transform_reaches_its_kl_and_more_kl_wins_more() {
    for transform in [
        "identity", "log", "exp:10", "exp:-10", "power:7", "bon_fp:4", "won_fp:4",
    ] {
        let transform: Transform = transform.parse().unwrap();
        let (mut before, mut neighbour) = (0.5, None);
        for kl_nats in [1e-6, 0.01, 0.1, 1.0, 2.0] {
            let policy = policy_at_kl_from(&transform, kl_nats, neighbour.as_ref()).unwrap();
            assert!(
                (policy.kl_nats().0 / kl_nats - 1.0).abs() < 1e-6,
                "{transform}, {kl_nats}"
            );
            let standard = win_rate(&policy, "sample");
            assert!(
                standard > before,
                "{transform} at {kl_nats}: {standard} after {before}"
            );
            before = standard;
            neighbour = Some(policy);
        }
    }
}

#[test]
fn kls_that_cannot_be_are_refused_with_a_remedy() {
    for kl_nats in [0.0, -1.0, f64::NAN, 99.0] {
        let error = policy_at_kl(&Transform::Identity, kl_nats).unwrap_err();
        assert!(error.to_string().contains("from 1e-9 to 16"), "{error}");
    }
    // Half of the quantiles are at the top: at most log 2 nats.
    let flat = "table:t"
        .parse::<Transform>()
        .unwrap()
        .with_table("0 0\n0.5 1\n1 1")
        .unwrap();
    assert!(policy_at_kl(&flat, 0.6).is_ok());
    let error = policy_at_kl(&flat, 0.8).unwrap_err().to_string();
    assert!(
        error.contains("table:t reaches no KL of 0.8") && error.contains("0.693"),
        "{error}"
    );
    let constant = "table:t"
        .parse::<Transform>()
        .unwrap()
        .with_table("0 1\n1 1")
        .unwrap();
    assert!(matches!(
        policy_at_kl(&constant, 0.1),
        Err(InfalignError::KlUnreachable { .. })
    ));
}
