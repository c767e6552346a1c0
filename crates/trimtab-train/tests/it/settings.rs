//! Settings as users write them: read, checked, and refused with the value.

use trimtab_train::{ClassifierTrainConfig, ScorerObjective, ScorerTrainConfig, TargetNetwork};

fn parse(text: &str) -> Result<ScorerTrainConfig, String> {
    let config: ScorerTrainConfig = toml::from_str(text).map_err(|error| error.to_string())?;
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn an_empty_file_is_the_defaults_and_they_print_back() {
    let config = parse("").unwrap();
    assert_eq!(config, ScorerTrainConfig::default());
    assert_eq!(parse(&toml::to_string_pretty(&config).unwrap()).unwrap(), config);
    assert_eq!(
        ClassifierTrainConfig::default()
            .validate()
            .map_err(|error| error.to_string()),
        Ok(())
    );
}

#[test]
fn every_part_can_be_written() {
    let config = parse(
        "epochs = 3\nseed = 7\nselect = \"last\"\n[objective]\nkind = \"cd-q\"\nlambda = 0.9\n\
         target_network = { kind = \"polyak\", rate = 0.05 }\n[optim]\nschedule = \"linear\"\nclip_norm = 2.0\n",
    )
    .unwrap();
    let expected = ScorerObjective::CdQ {
        lambda: 0.9,
        num_steps: 1,
        target_network: Some(TargetNetwork::Polyak { rate: 0.05 }),
    };
    assert_eq!(config.objective, expected);
    assert_eq!(
        (config.epochs, config.seed, config.optim.clip_norm),
        (3, 7, Some(2.0))
    );
    assert_eq!(parse(&toml::to_string_pretty(&config).unwrap()).unwrap(), config);
}

#[test]
fn a_device_is_written_where_it_is_not_the_processor() {
    let config = parse("device = \"cuda:1\"").unwrap();
    let text = toml::to_string_pretty(&config).unwrap();
    assert!(text.contains("device = \"cuda:1\"\n"), "{text}");
    assert_eq!(parse(&text).unwrap(), config);
    // A folder from before there was a choice is of the same run.
    let text = toml::to_string_pretty(&ScorerTrainConfig::default()).unwrap();
    assert!(!text.contains("device"), "{text}");
    check_refused("device = \"tpu\"", "device = tpu: expected cpu, cuda or cuda:N");
}

fn check_refused(text: &str, expect: &str) {
    let error = parse(text).unwrap_err();
    assert!(error.contains(expect), "{text:?}: {error}");
}

#[test]
fn bad_settings_are_refused_with_their_value() {
    check_refused("epoch = 3", "unknown field `epoch`");
    check_refused("epochs = 0", "epochs = 0");
    check_refused("eval_fraction = 0.9", "eval_fraction = 0.9");
    check_refused("[objective]\nkind = \"cd-x\"", "unknown variant `cd-x`");
    check_refused(
        "[objective]\nkind = \"cd-fudge\"\nlambda = 0.5",
        "unknown field `lambda`",
    );
    check_refused(
        "[objective]\nkind = \"cd-q\"\nlambda = 1.5",
        "objective.lambda = 1.5",
    );
    check_refused(
        "[objective]\nkind = \"cd-q\"\nlambda = 0.5\nnum_steps = 2",
        "objective.num_steps = 2",
    );
    check_refused(
        "[objective]\nkind = \"cd-q\"\nnum_steps = 0",
        "objective.num_steps = 0",
    );
    check_refused(
        "[objective]\nkind = \"cd-q\"\ntarget_network = { kind = \"polyak\", rate = 0.0 }",
        "objective.target_network.rate = 0",
    );
    check_refused("[optim]\nlearning_rate = nan", "optim.learning_rate = NaN");
    check_refused("[optim]\nlearning_rate = -1.0", "optim.learning_rate = -1");
    check_refused("[optim]\nclip_norm = 0.0", "optim.clip_norm = 0");
    check_refused("[optim]\nwarmup_fraction = 1.0", "optim.warmup_fraction = 1");
    check_refused("[optim]\nbatch_len = 0", "optim.batch_len = 0");
    check_refused("[optim]\neval_every_steps = 0", "optim.eval_every_steps = 0");
}
