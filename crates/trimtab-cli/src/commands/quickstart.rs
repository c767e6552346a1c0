//! `trimtab quickstart`: rollouts, a scorer trained on them, and a frontier, with nothing to decide.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Verdict;
use crate::args::{DrawArgs, QuickstartArgs, RolloutArgs, RunArgs};
use crate::commands::frontier::run_and_show;
use crate::frontier::{FrontierConfig, RunOptions};
use crate::output;
use crate::prompts::BUILTIN_TRAINING;
use crate::rollout;
use crate::train::{ScorerConfig, TrainOptions, train};

/// The reward that is asked for and that the scorer foresees.
const REWARD: &str = "length";

/// Responses drawn for each training prompt: enough for a scorer that is better than none, in half a minute.
const RESPONSES_PER_PROMPT: usize = 4;

pub(crate) fn run(args: &QuickstartArgs) -> Result<Verdict> {
    let options = RunOptions {
        out: args.out.clone(),
        threads: args.run.threads,
        kv_memory_mib: args.run.kv_memory,
        source: args.run.source.into(),
    };
    let scorer = train_scorer(args)?;
    let config = FrontierConfig::quickstart(args.seed, &args.run.precision.name).with_scorer(&scorer)?;
    run_and_show(config, options, args.json)
}

/// Trains a small scorer on prompts of its own; gives its folder. What an earlier run has left there is taken up.
fn train_scorer(args: &QuickstartArgs) -> Result<PathBuf> {
    let rollouts = args.out.join("rollouts");
    let scorer = args.out.join("scorer");
    output::note("drawing responses to train a scorer on");
    rollout::run(&rollout_args(args, rollouts.clone())?)?;
    output::note("training the scorer");
    let options = TrainOptions {
        out: scorer.clone(),
        threads: args.run.threads,
        source: args.run.source.into(),
    };
    train(&scorer_config(args, &rollouts)?, &options)?;
    Ok(scorer)
}

fn rollout_args(args: &QuickstartArgs, out: PathBuf) -> Result<RolloutArgs> {
    let config = FrontierConfig::quickstart(args.seed, &args.run.precision.name);
    Ok(RolloutArgs {
        model: config.model,
        prompts: BUILTIN_TRAINING.to_owned(),
        responses: None,
        draw: DrawArgs {
            dialogue: false,
            skip: 0,
            num_prompts: None,
            drop_long: false,
            max_new_tokens: Some(config.max_new_tokens),
            stop: Vec::new(),
            seed: args.seed,
            system: None,
            raw: false,
        },
        per_prompt: RESPONSES_PER_PROMPT,
        decode: "sample".parse()?,
        reward: vec![REWARD.parse()?],
        out,
        rows_per_shard: 4096,
        json: false,
        run: RunArgs {
            precision: args.run.precision.clone(),
            threads: args.run.threads,
            kv_memory: args.run.kv_memory,
            source: args.run.source,
        },
    })
}

fn scorer_config(args: &QuickstartArgs, rollouts: &Path) -> Result<ScorerConfig> {
    let FrontierConfig { model, .. } = FrontierConfig::quickstart(args.seed, &args.run.precision.name);
    let path = toml::Value::from(rollouts.display().to_string());
    let (seed, precision) = (args.seed, &args.run.precision.name);
    // Heads as narrow as a few hundred responses can fill; blocks are chosen by states alone.
    ScorerConfig::parse(&format!(
        "model = \"{model}\"\nrollouts = {path}\nreward = \"{REWARD}\"\nobjective = \"cd-fudge\"\nseed = {seed}\n\
         precision = \"{precision}\"\n[train]\nepochs = 12\ntrunk_len = 64\naction_head = false\n\
         optim = {{ batch_len = 1024, learning_rate = 1e-3, weight_decay = 0.1 }}\n"
    ))
}
