use super::*;

fn bootstrap() -> Bootstrap {
    Bootstrap {
        num_resamples: 1000,
        ..Bootstrap::of_seed(Seed(7))
    }
}

/// Numbers in (0, 1) that do not depend on the bootstrap's coins.
fn uniforms(trial: u64, len: usize) -> Vec<f64> {
    let stream = SampleStream::new(Seed(99), PromptKey(trial), 0, Purpose::Token);
    (0..len as u64).map(|step| stream.uniform(step)).collect()
}

/// How often the interval holds the mean of the law behind the values, in percent.
fn coverage(num_prompts: usize, true_mean: f64, law: impl Fn(f64) -> f64) -> f64 {
    let num_trials = 400_u64;
    let num_covered = (0..num_trials)
        .filter(|&trial| {
            let values: Vec<f64> = uniforms(trial, num_prompts).into_iter().map(&law).collect();
            bootstrap()
                .mean_interval(&values)
                .is_some_and(|interval| interval.contains(true_mean))
        })
        .count();
    100.0 * num_covered as f64 / num_trials as f64
}

#[test]
fn intervals_cover_about_as_often_as_they_say() {
    // A standard error of 400 trials at 95% is 1.1 points.
    let uniform = coverage(40, 0.5, |u| u);
    assert!((91.5..=98.0).contains(&uniform), "uniform: {uniform}%");
    let skewed = coverage(60, 1.0, |u| -u.ln());
    assert!((90.0..=98.0).contains(&skewed), "exponential: {skewed}%");
    let few = coverage(10, 0.5, |u| u);
    assert!((91.0..=98.0).contains(&few), "ten uniform: {few}%");
}

#[test]
fn the_interval_of_a_mean_is_near_the_textbook_one() {
    let values: Vec<f64> = uniforms(3, 200);
    let mean = mean_of(&values);
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 199.0;
    let half_width = 1.96 * (variance / 200.0).sqrt();
    let interval = Bootstrap::of_seed(Seed(1)).mean_interval(&values).unwrap();
    assert!(
        (interval.lo - (mean - half_width)).abs() < 0.1 * half_width,
        "{interval:?}"
    );
    assert!(
        (interval.hi - (mean + half_width)).abs() < 0.1 * half_width,
        "{interval:?}"
    );
}

#[test]
fn skewed_values_have_skewed_intervals() {
    let values: Vec<f64> = uniforms(5, 50).into_iter().map(|u| -u.ln()).collect();
    let mean = mean_of(&values);
    let interval = bootstrap().mean_interval(&values).unwrap();
    assert!(
        interval.hi - mean > 1.1 * (mean - interval.lo),
        "{interval:?} around {mean}"
    );
}

#[test]
fn the_same_seed_gives_the_same_interval_and_shifts_go_through() {
    let values = uniforms(1, 16);
    assert_eq!(
        bootstrap().mean_interval(&values),
        bootstrap().mean_interval(&values)
    );
    assert_ne!(
        bootstrap().mean_interval(&values),
        Bootstrap {
            seed: Seed(8),
            ..bootstrap()
        }
        .mean_interval(&values)
    );
    // The same resamples are drawn for every quantity: an interval of values plus a constant is the interval plus it.
    let shifted: Vec<f64> = values.iter().map(|value| value + 1.0).collect();
    let (a, b) = (
        bootstrap().mean_interval(&values).unwrap(),
        bootstrap().mean_interval(&shifted).unwrap(),
    );
    assert!((b.lo - a.lo - 1.0).abs() < 1e-12 && (b.hi - a.hi - 1.0).abs() < 1e-12);
}

#[test]
fn what_has_no_spread_is_said_plainly() {
    assert_eq!(bootstrap().mean_interval(&[1.0]), None);
    assert_eq!(bootstrap().mean_interval(&[1.0, f64::NAN]), None);
    assert_eq!(bootstrap().mean_interval(&[2.0; 5]), None);
    assert_eq!(bootstrap().share_interval(&[0.5; 5]), None);
    let all_won = bootstrap().share_interval(&[1.0; 16]).unwrap();
    assert!(
        (all_won.lo - 0.025_f64.powf(1.0 / 16.0)).abs() < 1e-9 && all_won.hi == 1.0,
        "{all_won:?}"
    );
    let none_won = bootstrap().share_interval(&[0.0; 16]).unwrap();
    assert!(none_won.lo == 0.0 && (none_won.hi - (1.0 - all_won.lo)).abs() < 1e-9);
    assert_eq!(bootstrap().share_interval(&[1.0]), None);
}

#[test]
fn shares_of_successes_have_exact_intervals() {
    let wins = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    assert_eq!(
        bootstrap().share_interval(&wins),
        Some(clopper_pearson(5, 10, 0.95))
    );
    let with_a_tie = [0.0, 1.0, 0.5];
    assert_eq!(
        bootstrap().share_interval(&with_a_tie),
        bootstrap().mean_interval(&with_a_tie)
    );
}

#[test]
fn share_intervals_stay_inside() {
    for trial in 0..50 {
        let wins: Vec<f64> = uniforms(trial, 6)
            .into_iter()
            .map(|u| (u * 3.0).floor() / 2.0)
            .collect();
        let interval = bootstrap().share_interval(&wins).unwrap();
        let mean = mean_of(&wins);
        assert!(0.0 <= interval.lo && interval.lo <= mean && mean <= interval.hi && interval.hi <= 1.0);
    }
}

#[test]
fn clopper_pearson_has_the_published_values() {
    let check = |successes: u64, trials: u64, lo: f64, hi: f64| {
        let interval = clopper_pearson(successes, trials, 0.95);
        assert!(
            (interval.lo - lo).abs() < 5e-5 && (interval.hi - hi).abs() < 5e-5,
            "{interval:?}"
        );
    };
    // R: binom.test(x, n)$conf.int
    check(0, 10, 0.0, 0.3085);
    check(5, 10, 0.1871, 0.8129);
    check(10, 10, 0.6915, 1.0);
    check(1, 20, 0.0013, 0.2487);
    check(70, 100, 0.6002, 0.7876);
    check(0, 0, 0.0, 1.0);
}

#[test]
fn clopper_pearson_covers_for_every_probability() {
    let trials = 12_u64;
    for prob in (1..40).map(|step| f64::from(step) / 40.0) {
        let covered: f64 = (0..=trials)
            .filter(|&successes| clopper_pearson(successes, trials, 0.95).contains(prob))
            .map(|successes| {
                let ways: f64 = (0..successes)
                    .map(|i| (trials - i) as f64 / (i + 1) as f64)
                    .product();
                ways * prob.powi(successes as i32) * (1.0 - prob).powi((trials - successes) as i32)
            })
            .sum();
        assert!(covered >= 0.95 - 1e-9, "probability {prob}: covered {covered}");
    }
}
