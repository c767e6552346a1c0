//! The score head of the hub's sequence classifiers: one row of weights for each label, read off the last token's state.
//! Knows configuration and file, no text and no label's meaning.

use serde_json::Value;

use crate::error::ModelError;
use crate::model_file::ModelFile;

/// Name of its tensor.
pub(crate) const SCORE_WEIGHT: &str = "score.weight";
/// What architectures with such a head end in: `LlamaForSequenceClassification`, `Qwen2ForSequenceClassification`, ...
const ARCHITECTURE: &str = "ForSequenceClassification";

/// `logits = W h`, with `h` the hidden state after the final norm at the last token that is no padding.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreHead {
    /// Names of the labels. `[labels]`
    pub labels: Vec<String>,
    /// Width of the state.
    pub hidden_len: usize,
    /// `W`. `[labels, hidden]`
    pub weight: Vec<f32>,
}

/// Whether a published configuration is a sequence classifier's: a decoder with a score head in place of an output head.
pub(crate) fn is_sequence_classifier(json: &Value) -> bool {
    let names = json.get("architectures").and_then(Value::as_array);
    names.is_some_and(|names| {
        let mut names = names.iter().filter_map(Value::as_str);
        names.any(|name| name.ends_with(ARCHITECTURE))
    })
}

impl ModelFile {
    /// The score head, if the file is a sequence classifier's.
    ///
    /// # Errors
    /// A head that is missing or that does not fit the decoder; a weight that is not finite.
    pub fn score_head(&self) -> Result<Option<ScoreHead>, ModelError> {
        let checkpoint = self.checkpoint();
        let Some(json) = checkpoint
            .config_json()
            .filter(|json| is_sequence_classifier(json))
        else {
            return Ok(None);
        };
        let tensor = checkpoint.tensor(SCORE_WEIGHT)?;
        let hidden_len = self.config().hidden_len;
        let num_labels = match *tensor.shape() {
            [labels, width] if width == hidden_len && labels > 0 => labels,
            ref got => {
                return Err(ModelError::BadShape {
                    tensor: SCORE_WEIGHT.to_owned(),
                    expected: vec![1, hidden_len],
                    got: got.to_vec(),
                });
            }
        };
        let mut weight = vec![0.0; num_labels * hidden_len];
        for (row, values) in weight.chunks_exact_mut(hidden_len).enumerate() {
            tensor.read_row(row, values);
        }
        if let Some(value) = weight.iter().find(|value| !value.is_finite()) {
            return Err(ModelError::BadConfig {
                field: SCORE_WEIGHT.into(),
                value: value.to_string(),
                expected: "finite weights".to_owned(),
            });
        }
        let label = |idx: usize| {
            let named = json
                .get("id2label")
                .and_then(|labels| labels.get(idx.to_string()));
            named
                .and_then(Value::as_str)
                .map_or_else(|| format!("LABEL_{idx}"), str::to_owned)
        };
        Ok(Some(ScoreHead {
            labels: (0..num_labels).map(label).collect(),
            hidden_len,
            weight,
        }))
    }
}
