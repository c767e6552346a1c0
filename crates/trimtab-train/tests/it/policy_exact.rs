//! On the model that can be enumerated: each method finds the law that its theory names, and wrong ones do not.

use std::ops::ControlFlow;

use burn::module::Module;
use trimtab_base::rng::{Purpose, SampleStream};
use trimtab_base::{PromptKey, Seed};
use trimtab_train::policy::bonbon::BonBon;
use trimtab_train::policy::dpo::Dpo;
use trimtab_train::policy::ipo::Ipo;
use trimtab_train::policy::judge::PolicyJudge;
use trimtab_train::policy::kl_goals::KlGoals;
use trimtab_train::policy::objective::PolicyLoss;
use trimtab_train::policy::pieces::PolicyItem;
use trimtab_train::policy::rl::Rl;
use trimtab_train::policy::sft::Sft;
use trimtab_train::policy::source::{DrawResponses, GivenSource, OnPolicySource, RoundPlan, Unit};
use trimtab_train::policy::{Advantage, Importance, PolicyResponse, TokenLoss, best_of_n_weights};
use trimtab_train::trainer::{Parts, WeightedSource, train};
use trimtab_train::{OptimConfig, RunDir, Schedule, TrainError};

use crate::policy_table::{TablePolicy, World};

/// Total variation; the reference is 0.1 to 0.4 away from every optimum here.
const TOLERANCE: f64 = 0.01;

fn optim(learning_rate: f64) -> OptimConfig {
    OptimConfig {
        learning_rate,
        weight_decay: 0.0,
        clip_norm: None,
        schedule: Schedule::Linear,
        warmup_fraction: 0.0,
        eval_every_steps: Some(1_000_000),
        ..OptimConfig::default()
    }
}

fn goals() -> KlGoals {
    KlGoals::new(&[], None, 1e9, 1)
}

fn run(
    world: &World,
    loss: Box<dyn TokenLoss>,
    source: &mut dyn WeightedSource<TablePolicy, Batch = Vec<trimtab_train::policy::pieces::Piece>>,
    (rate, epochs): (f64, u64),
) -> TablePolicy {
    let folder = tempfile::tempdir().unwrap();
    let optim = optim(rate);
    let mut run = RunDir::new(folder.path(), "test")
        .open("policy", &optim, "", 0)
        .unwrap();
    let reference = world.policy(&world.reference_logits()).valid();
    let mut objective = PolicyLoss::new(loss, reference.clone(), 64, Some(goals()));
    let mut judge = PolicyJudge {
        held_out: None,
        probe: None,
        reference,
        goals: goals(),
        rows: 64,
        piece_tokens: 64,
    };
    let parts = Parts {
        objective: &mut objective,
        source,
        judge: &mut judge,
    };
    let policy = world.policy(&world.reference_logits());
    let on_event = &mut |_| ControlFlow::Continue(());
    train(policy, parts, (&optim, epochs), &mut run, on_event)
        .unwrap()
        .module
}

/// A reward of a response.
type Score<'a> = &'a dyn Fn(&[u32]) -> f64;

/// Draws every response, as often as the policy would.
struct Enumerated<'a> {
    world: &'a World,
    score: Score<'a>,
}

impl DrawResponses<TablePolicy> for Enumerated<'_> {
    fn draw(&mut self, policy: &TablePolicy, _: u64) -> Result<Vec<PolicyResponse>, TrainError> {
        let law = self.world.law(&policy.logits());
        let responses = self.world.responses.iter().zip(law);
        let of = |(response, prob): (&Vec<u32>, f64)| PolicyResponse {
            reward: (self.score)(response),
            ..World::response(response, 0, prob * self.world.responses.len() as f64)
        };
        Ok(responses.map(of).collect())
    }
}

/// Draws groups of eight.
struct Sampled<'a> {
    world: &'a World,
    score: Score<'a>,
}

impl DrawResponses<TablePolicy> for Sampled<'_> {
    fn draw(&mut self, policy: &TablePolicy, step: u64) -> Result<Vec<PolicyResponse>, TrainError> {
        let law = self.world.law(&policy.logits());
        let coins = SampleStream::new(Seed(5), PromptKey(step), 0, Purpose::Training);
        let draw = |idx: u64| {
            let mut coin = coins.uniform(idx);
            let drawn = law.iter().position(|prob| {
                coin -= prob;
                coin < 0.0
            });
            let response = &self.world.responses[drawn.unwrap_or(law.len() - 1)];
            PolicyResponse {
                reward: (self.score)(response),
                ..World::response(response, idx / 8, 1.0)
            }
        };
        Ok((0..128).map(draw).collect())
    }
}

fn rl(beta: f64) -> Rl {
    Rl {
        beta,
        clip: None,
        importance: Importance::default(),
        has_baseline: true,
    }
}

fn on_policy(
    world: &World,
    loss: Box<dyn TokenLoss>,
    drawer: &mut dyn DrawResponses<TablePolicy>,
    advantage: Advantage,
    schedule: (f64, u64),
) -> TablePolicy {
    let plan = RoundPlan {
        steps: 1,
        passes: 1,
        advantage,
        piece_tokens: 64,
        seed: Seed(0),
        folder: std::path::PathBuf::new(),
    };
    run(world, loss, &mut OnPolicySource::new(drawer, plan), schedule)
}

fn given(world: &World, loss: Box<dyn TokenLoss>, units: Vec<Unit>, schedule: (f64, u64)) -> TablePolicy {
    let mut source = GivenSource::new(units, 1_000_000, 1_000_000, Seed(0));
    run(world, loss, &mut source, schedule)
}

/// Quantile under the reference, ties counting half (InfAlign B4).
fn calibrated(world: &World, response: &[u32]) -> f64 {
    let own = World::reward(response);
    let reference = world.law(&world.reference_logits());
    let win = |other: &Vec<u32>| match own.total_cmp(&World::reward(other)) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    world
        .responses
        .iter()
        .zip(reference)
        .map(|(other, prob)| prob * win(other))
        .sum()
}

#[test]
fn the_policy_gradient_finds_the_tilted_reference_for_raw_and_transformed_rewards() {
    let world = World::new();
    let top = |response: &[u32]| (10.0 * (calibrated(&world, response) - 1.0)).exp();
    let low = |response: &[u32]| -(-10.0 * calibrated(&world, response)).exp();
    let identity = |response: &[u32]| calibrated(&world, response);
    let cases: [(&str, Score<'_>, f64); 4] = [
        ("raw", &World::reward, 0.5),
        ("identity", &identity, 0.25),
        ("exp:10", &top, 0.3),
        ("exp:-10", &low, 0.1),
    ];
    for (name, score, beta) in cases {
        let optimum = world.tilted(score, beta);
        let mut drawer = Enumerated { world: &world, score };
        let start = world.policy(&world.reference_logits());
        let policy = on_policy(
            &world,
            Box::new(rl(beta)),
            &mut drawer,
            Advantage::None,
            (0.1, 150),
        );
        let (before, after) = (
            world.total_variation(&start, &optimum),
            world.total_variation(&policy, &optimum),
        );
        assert!(
            before > 0.1 && after < TOLERANCE,
            "{name}: {before} before, {after} after"
        );
    }
}

#[test]
fn it_finds_it_from_draws_too() {
    let world = World::new();
    let optimum = world.tilted(World::reward, 0.5);
    for advantage in [Advantage::LeaveOneOut, Advantage::None] {
        let mut drawer = Sampled {
            world: &world,
            score: &World::reward,
        };
        let policy = on_policy(&world, Box::new(rl(0.5)), &mut drawer, advantage, (0.05, 300));
        let distance = world.total_variation(&policy, &optimum);
        assert!(distance < 0.05, "{advantage:?}: {distance}");
    }
}

#[test]
fn without_the_kl_the_same_test_fails() {
    let world = World::new();
    let optimum = world.tilted(World::reward, 0.5);
    let mut drawer = Enumerated {
        world: &world,
        score: &World::reward,
    };
    let policy = on_policy(
        &world,
        Box::new(rl(0.0)),
        &mut drawer,
        Advantage::None,
        (0.1, 150),
    );
    let distance = world.total_variation(&policy, &optimum);
    assert!(
        distance > 10.0 * TOLERANCE,
        "{distance} only: the test above would not see a KL that is missing"
    );
}

/// Pairs of independent draws of the reference, with the probability that the first is preferred.
fn pairs(world: &World, preferred: impl Fn(&[u32], &[u32]) -> f64) -> Vec<Unit> {
    let law = world.law(&world.reference_logits());
    let item = |token_ids: &[u32], weight| PolicyItem {
        prompt_token_ids: vec![0],
        token_ids: token_ids.to_vec(),
        reward: World::reward(token_ids),
        weight,
        ..PolicyItem::default()
    };
    let mut units = Vec::new();
    for (chosen, first) in world.responses.iter().zip(&law) {
        for (rejected, second) in world.responses.iter().zip(&law) {
            let weight = 225.0 * first * second * preferred(chosen, rejected);
            if chosen != rejected && weight > 0.0 {
                units.push(vec![item(chosen, weight), item(rejected, weight)]);
            }
        }
    }
    units
}

fn by_reward(chosen: &[u32], rejected: &[u32]) -> f64 {
    match World::reward(chosen).total_cmp(&World::reward(rejected)) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    }
}

fn assert_found(name: &str, world: &World, policy: &TablePolicy, optimum: &[f64]) {
    let before = world.total_variation(&world.policy(&world.reference_logits()), optimum);
    let after = world.total_variation(policy, optimum);
    assert!(
        before > 0.1 && after < TOLERANCE,
        "{name}: {before} before, {after} after"
    );
}

#[test]
fn dpo_finds_the_tilted_reference_from_preferences_of_bradley_and_terry() {
    let world = World::new();
    let units = pairs(&world, |chosen, rejected| {
        1.0 / (1.0 + (World::reward(rejected) - World::reward(chosen)).exp())
    });
    let policy = given(&world, Box::new(Dpo { beta: 0.5 }), units, (0.1, 250));
    assert_found("dpo", &world, &policy, &world.tilted(World::reward, 0.5));
}

#[test]
fn ipo_finds_the_optimum_of_the_calibrated_reward() {
    let world = World::new();
    let policy = given(
        &world,
        Box::new(Ipo { beta: 0.25 }),
        pairs(&world, by_reward),
        (0.1, 250),
    );
    let optimum = world.tilted(|response| calibrated(&world, response), 0.25);
    assert_found("ipo", &world, &policy, &optimum);
}

#[test]
fn the_square_loss_of_bonbon_is_that_of_ipo_at_its_own_strength() {
    let world = World::new();
    let loss = BonBon {
        num_candidates: 2,
        alpha: 0.0,
    };
    assert!((loss.target() - 1.0).abs() < 1e-12);
    let policy = given(&world, Box::new(loss), pairs(&world, by_reward), (0.1, 250));
    let optimum = world.tilted(|response| calibrated(&world, response), 0.5);
    assert_found("bonbon", &world, &policy, &optimum);
    let of_four = BonBon {
        num_candidates: 4,
        alpha: 0.0,
    };
    // 3 (1 + 1/2 + 1/3)
    assert!((of_four.target() - 5.5).abs() < 1e-12);
}

#[test]
fn likelihood_of_winners_finds_the_law_of_the_best_of_two() {
    let world = World::new();
    let law = world.law(&world.reference_logits());
    let mut units = Vec::new();
    for (first, first_prob) in world.responses.iter().zip(&law) {
        for (second, second_prob) in world.responses.iter().zip(&law) {
            let weights = best_of_n_weights(&[World::reward(first), World::reward(second)], 2);
            for (token_ids, weight) in [first, second].into_iter().zip(weights) {
                units.push(vec![PolicyItem {
                    prompt_token_ids: vec![0],
                    token_ids: token_ids.clone(),
                    weight: 225.0 * weight * first_prob * second_prob,
                    ..PolicyItem::default()
                }]);
            }
        }
    }
    let policy = given(&world, Box::new(Sft), units, (0.1, 150));
    // P(y) (2 P(lower) + P(equal)): twice the calibrated reward.
    let best_of_two: Vec<f64> = world
        .responses
        .iter()
        .zip(&law)
        .map(|(response, prob)| 2.0 * prob * calibrated(&world, response))
        .collect();
    assert!((best_of_two.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    assert_found("winners", &world, &policy, &best_of_two);
}
