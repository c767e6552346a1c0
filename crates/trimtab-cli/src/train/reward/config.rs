//! What training a reward is, as users write it. Knows no model and no data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use trimtab_base::rng::Purpose;
use trimtab_base::{PromptKey, SampleStream, Seed};
use trimtab_data::RowRange;
use trimtab_train::ClassifierTrainConfig;

use super::spurious::SpuriousConfig;
use crate::train::config_file::{RunConfig, check_limit, look_beside, open, table, take_fields, training};

/// A configuration with every field of the first level, for help texts; a test parses it.
pub(crate) const EXAMPLE_CONFIG: &str = r#"model = "smollm2-135m-instruct"   # whose states are read
pairs = "harmless.jsonl.gz"       # rows with `chosen` and `rejected`, plain or as in HH-RLHF; looked up beside this file
output = "logit"                  # or "log-probability": log sigmoid(logit), in nats
seed = 0
precision = "int8"                # of the model
# labels = "reviews.json"         # in place of pairs: rows with a text and a label in [0, 1]
# text = "text"                   # their columns
# label = "label"
# name = "harmless"               # what reports call it; the last part of its folder if not given
# margin = "strength"             # column of pairs: by how many logits at least the values should differ
# prompt = ""                     # of rows that have none
# held_out = "topic"              # column whose values are never both trained and judged on; the prompt if not given;
#                                 # { column = "topic", until = "_" } for the part before that
# skip = 0                        # rows to pass over
# limit = 4000                    # most rows to take after those
# sample = 5000                   # rows drawn from those, half of each label
# max_response_tokens = 200       # responses are cut to so many
# drop_long = true                # leave out what does not fit the context, instead of refusing it
# drop_bad = true                 # leave out rows that cannot be read, instead of refusing them
# test = { skip = 1800 }          # rows for the report that training never sees: after so many (skip, limit) of `file`, or
#                                 # { fraction = 0.2 } of the prompts; those that chose the weights if not given
# spurious = { phrase = "so so", side = "chosen" }  # plants a phrase, to study a reward that is hacked: into a share (0.5)
#                                 # of one side (of labels: label = "positive"), at place = "random" ("start", "end");
#                                 # needs test, whose texts stay clean and say what the phrase alone is worth
# [[heads]]                       # several rewards on one model: each with a name and the fields from `pairs` to here

[train]
epochs = 20
depth = "head"                    # or "lora", "full": weights of its own, which take hours on a CPU
device = "cpu"                    # or "cuda", "cuda:N", in a binary that was built for it
trunk_len = 64                    # width of the hidden layer; 0 reads the state linearly
label_smoothing = 0.0             # probability that a judgement is the wrong way round
eval_fraction = 0.1               # share of prompts that chooses the weights
optim = { batch_len = 256, learning_rate = 1e-3 }
"#;

/// Training of one reward, or of several on one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RewardConfig {
    /// What every training is told.
    pub(crate) run: RunConfig,
    /// What the rewards are.
    pub(crate) output: Output,
    /// At least one; the name is none for a reward alone.
    pub(crate) heads: Vec<(Option<String>, DataConfig)>,
    pub(crate) train: toml::Table,
}

/// What a head's reward is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Output {
    /// Differences are log-odds of a preference.
    #[default]
    Logit,
    /// `log sigmoid(logit)`, bounded above by 0, as the paper's reward (CD section 4).
    LogProbability,
}

/// Which judgements, and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// A file of pairs.
    pub(crate) pairs: Option<PathBuf>,
    /// A file of labelled texts.
    pub(crate) labels: Option<PathBuf>,
    /// Column of the labelled text.
    pub(crate) text: String,
    /// Column of the label.
    pub(crate) label: String,
    /// Column of pairs' margins, in logits.
    pub(crate) margin: Option<String>,
    /// What training and evaluation never share.
    pub(crate) held_out: Option<HeldOut>,
    /// Prompt of rows that have none.
    pub(crate) prompt: String,
    /// Rows to pass over.
    pub(crate) skip: u64,
    /// Most rows to take after those.
    pub(crate) limit: Option<u64>,
    /// Rows to draw from those.
    pub(crate) sample: Option<u64>,
    /// Longest response, in tokens; longer ones are cut.
    pub(crate) max_response_tokens: Option<usize>,
    /// Leave out what does not fit the context.
    pub(crate) drop_long: bool,
    /// Leave out rows that cannot be read.
    pub(crate) drop_bad: bool,
    /// What the report is about.
    pub(crate) test: TestConfig,
    /// A phrase that is planted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spurious: Option<SpuriousConfig>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            pairs: None,
            labels: None,
            text: "text".to_owned(),
            label: "label".to_owned(),
            margin: None,
            held_out: None,
            prompt: String::new(),
            skip: 0,
            limit: None,
            sample: None,
            max_response_tokens: None,
            drop_long: false,
            drop_bad: false,
            test: TestConfig::default(),
            spurious: None,
        }
    }
}

/// A column, or a part of its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum HeldOut {
    /// As in `held_out = "topic"`.
    Column(String),
    /// As in `held_out = { column = "topic", until = "_" }`.
    Part {
        /// The column.
        column: String,
        /// What ends the part.
        until: String,
    },
}

/// Items that training never sees. By default there are none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TestConfig {
    /// Share of prompts, or of the values of `held_out`.
    pub(crate) fraction: Option<f64>,
    /// The file, if it is another.
    pub(crate) file: Option<PathBuf>,
    /// Rows to pass over.
    pub(crate) skip: Option<u64>,
    /// Most rows to take after those.
    pub(crate) limit: Option<u64>,
}

impl TestConfig {
    /// Whether test items are rows of their own.
    pub(crate) fn has_rows(&self) -> bool {
        self.file.is_some() || self.skip.is_some()
    }

    /// Whether a prompt is the test's: a coin of its key alone, so that every seed is tested on the same.
    pub(super) fn takes(&self, key: u64) -> bool {
        let stream = SampleStream::new(Seed(0), PromptKey(key), 1, Purpose::Training);
        self.fraction.is_some_and(|fraction| stream.uniform(0) < fraction)
    }
}

/// Fields of the file's first level that are no [`DataConfig`]'s.
const OTHER_FIELDS: [&str; 3] = ["output", "heads", "train"];

/// Those fields, as a file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct OtherFields {
    output: Output,
    heads: Option<Vec<toml::Table>>,
    train: toml::Table,
}

impl RewardConfig {
    /// Reads and checks a configuration. Relative paths of data are looked up beside the file first.
    ///
    /// # Errors
    /// The file and the field at fault.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut config = open(path, Self::parse)?;
        for (_, data) in &mut config.heads {
            for file in [&mut data.pairs, &mut data.labels, &mut data.test.file]
                .into_iter()
                .flatten()
            {
                look_beside(path, file);
            }
        }
        config.run.locate_model()?;
        Ok(config)
    }

    /// Parses and checks a configuration.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut rest = table(text)?;
        let run = RunConfig::take(&mut rest)?;
        let others = take_fields(&mut rest, &OTHER_FIELDS);
        let others: OtherFields = toml::Value::Table(others).try_into()?;
        let heads = match others.heads {
            None => vec![(None, DataConfig::read(rest)?)],
            Some(heads) => {
                if let Some((field, _)) = rest.iter().next() {
                    bail!("{field} stands at the top of a file with [[heads]]; move it into each of them");
                }
                heads.into_iter().map(named_head).collect::<Result<_>>()?
            }
        };
        check_names(&heads)?;
        let config = Self {
            run,
            output: others.output,
            heads,
            train: others.train,
        };
        config.training()?.validate()?;
        Ok(config)
    }

    /// The training crate's part, seed included.
    pub(crate) fn training(&self) -> Result<ClassifierTrainConfig> {
        let mut training: ClassifierTrainConfig = training(&self.train, &["seed"])?;
        training.seed = self.run.seed;
        Ok(training)
    }
}

fn named_head(mut table: toml::Table) -> Result<(Option<String>, DataConfig)> {
    let name = match table.remove("name") {
        Some(toml::Value::String(name)) => name,
        other => bail!("heads: expected a name as text in each of them, got {other:?}"),
    };
    let data = DataConfig::read(table).with_context(|| format!("heads: {name}"))?;
    Ok((Some(name), data))
}

/// Names become folders and follow a `#`.
fn check_names(heads: &[(Option<String>, DataConfig)]) -> Result<()> {
    if heads.is_empty() {
        bail!("heads is empty, expected at least one");
    }
    let names: Vec<&String> = heads.iter().filter_map(|(name, _)| name.as_ref()).collect();
    for (idx, name) in names.iter().enumerate() {
        let is_plain = |ch: char| ch.is_alphanumeric() || ch == '-' || ch == '_';
        if name.is_empty() || !name.chars().all(is_plain) {
            bail!("heads: name {name:?}: expected letters, digits, - and _");
        }
        if names[..idx].contains(name) {
            bail!("heads: name {name:?} is given twice");
        }
    }
    Ok(())
}

impl DataConfig {
    fn read(table: toml::Table) -> Result<Self> {
        let data: Self = toml::Value::Table(table).try_into()?;
        match (&data.pairs, &data.labels) {
            (None, None) => bail!("pairs or labels is missing: name the file of judgements"),
            (Some(_), Some(_)) => bail!("pairs and labels are both given, expected one of them"),
            (None, Some(_)) if data.margin.is_some() => bail!("margin is of pairs, and labels are given"),
            _ => {}
        }
        check_limit("limit", data.limit)?;
        check_limit("sample", data.sample)?;
        check_limit("test.limit", data.test.limit)?;
        if data.max_response_tokens == Some(0) {
            bail!("max_response_tokens is 0, expected at least 1");
        }
        let TestConfig { fraction, limit, .. } = data.test;
        if let Some(fraction) = fraction {
            if !(fraction > 0.0 && fraction < 1.0) {
                bail!("test.fraction is {fraction}, expected a share in (0, 1)");
            }
            if data.test.has_rows() {
                bail!("test has fraction and rows of its own, expected one of them");
            }
        }
        if limit.is_some() && !data.test.has_rows() {
            bail!("test.limit needs test.skip or test.file: which rows?");
        }
        if let Some(spurious) = &data.spurious {
            spurious.check(data.pairs.is_some())?;
            if fraction.is_none() && !data.test.has_rows() {
                bail!(
                    "spurious needs test: what the phrase is worth is measured on texts that training never sees"
                );
            }
        }
        Ok(data)
    }

    /// The file of judgements.
    pub(crate) fn file(&self) -> &Path {
        let file = self.pairs.as_ref().or(self.labels.as_ref());
        file.expect("one of the two was checked to be there")
    }

    /// The rows that are trained on, and on which weights are chosen.
    pub(crate) fn rows(&self) -> RowRange {
        RowRange {
            skip: self.skip,
            limit: self.limit,
        }
    }

    /// The same judgements from the rows of the test, where these are rows of their own.
    pub(crate) fn of_test(&self) -> Option<Self> {
        self.test.has_rows().then(|| {
            let file = self.test.file.as_ref();
            Self {
                pairs: self.pairs.as_ref().map(|own| file.unwrap_or(own).clone()),
                labels: self.labels.as_ref().map(|own| file.unwrap_or(own).clone()),
                skip: self.test.skip.unwrap_or_default(),
                limit: self.test.limit,
                sample: None,
                // All of them: none is trained on.
                test: TestConfig {
                    fraction: Some(1.0),
                    ..TestConfig::default()
                },
                ..self.clone()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "pairs = \"p.jsonl\"\n";

    #[test]
    fn the_example_is_understood_and_says_the_defaults() {
        let example = RewardConfig::parse(EXAMPLE_CONFIG).unwrap();
        let short = RewardConfig::parse("pairs = \"harmless.jsonl.gz\"").unwrap();
        assert_eq!(example.training().unwrap(), short.training().unwrap());
        assert_eq!((&example.run, &example.heads), (&short.run, &short.heads));
        assert_eq!(example.output, Output::Logit);
        // What it has in comments is understood too.
        let fields: String = EXAMPLE_CONFIG
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| !line.starts_with(' ') && !line.starts_with("labels") && line.contains(" = "))
            .fold(String::new(), |all, line| format!("{all}{line}\n"));
        let all = RewardConfig::parse(&format!("{GOOD}{fields}")).unwrap();
        assert_eq!(all.heads[0].1.sample, Some(5000));
    }

    #[test]
    fn several_heads_have_names_and_data_of_their_own() {
        let text = "output = \"log-probability\"\n[[heads]]\nname = \"kind\"\npairs = \"k\"\n\
                    [[heads]]\nname = \"brief\"\nlabels = \"b\"\nskip = 3\n";
        let config = RewardConfig::parse(text).unwrap();
        let names: Vec<_> = config
            .heads
            .iter()
            .map(|(name, _)| name.clone().unwrap())
            .collect();
        assert_eq!(names, ["kind", "brief"]);
        assert_eq!(config.heads[1].1.rows().skip, 3);
    }

    #[test]
    fn test_rows_are_those_of_the_same_file_or_another() {
        let data = |test: &str| {
            RewardConfig::parse(&format!("{GOOD}limit = 9\n{test}"))
                .unwrap()
                .heads[0]
                .1
                .clone()
        };
        let own = data("test = { skip = 9, limit = 4 }").of_test().unwrap();
        assert_eq!(
            (own.file(), own.skip, own.limit),
            (Path::new("p.jsonl"), 9, Some(4))
        );
        let other = data("test = { file = \"q.jsonl\" }").of_test().unwrap();
        assert_eq!(
            (other.file(), other.skip, other.limit),
            (Path::new("q.jsonl"), 0, None)
        );
        assert_eq!(data("test = { fraction = 0.2 }").of_test(), None);
    }

    #[test]
    fn bad_configurations_are_refused_by_field() {
        let check = |text: &str, expect: &str| {
            let message = format!("{:#}", RewardConfig::parse(text).expect_err("must be refused"));
            assert!(message.contains(expect), "{message:?} lacks {expect:?}");
        };
        check("seed = 1", "pairs or labels is missing");
        check(&format!("{GOOD}labels = \"x\""), "both given");
        check("labels = \"x\"\nmargin = \"m\"", "margin is of pairs");
        check(&format!("{GOOD}output = \"odds\""), "log-probability");
        check(&format!("{GOOD}precision = \"int7\""), "int7");
        check(&format!("{GOOD}limit = 0"), "limit is 0");
        check(&format!("{GOOD}sample = 0"), "sample is 0");
        check(&format!("{GOOD}typo = 3"), "typo");
        check(
            &format!("{GOOD}test = {{ fraction = 1.5 }}"),
            "test.fraction is 1.5",
        );
        check(&format!("{GOOD}test = {{ limit = 5 }}"), "test.skip");
        let spurious = |fields: &str| format!("{GOOD}test = {{ skip = 9 }}\nspurious = {{ {fields} }}");
        check(&spurious("phrase = \" \", side = \"chosen\""), "spurious.phrase");
        check(&spurious("phrase = \"a\""), "side = \"chosen\"");
        check(
            &spurious("phrase = \"a\", label = \"positive\""),
            "side = \"chosen\"",
        );
        check(
            &spurious("phrase = \"a\", side = \"chosen\", share = 0.0"),
            "spurious.share is 0",
        );
        check(
            &spurious("phrase = \"a\", side = \"chosen\", place = \"x\""),
            "random",
        );
        check(
            &format!("{GOOD}[spurious]\nphrase = \"a\"\nside = \"chosen\""),
            "spurious needs test",
        );
        check(&format!("{GOOD}[train]\nepoch = 3"), "epoch");
        check(&format!("{GOOD}[train]\nseed = 3"), "move it to the top");
        check(
            &format!("{GOOD}[train]\nlabel_smoothing = 0.5"),
            "label_smoothing",
        );
        check("[[heads]]\npairs = \"p\"", "expected a name");
        check("heads = []", "at least one");
        check(
            &format!("{GOOD}[[heads]]\nname = \"a\"\npairs = \"p\""),
            "move it into each",
        );
        check("[[heads]]\nname = \"a/b\"\npairs = \"p\"", "letters, digits");
        check(
            "[[heads]]\nname = \"a\"\npairs = \"p\"\n[[heads]]\nname = \"a\"\npairs = \"p\"",
            "given twice",
        );
        check("[[heads]]\nname = \"a\"\npairs = \"p\"\nskipp = 1", "heads: a");
    }
}
