//! The folder of a scorer: weights and card. Knows the layout, not what is trained.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use sha2::{Digest, Sha256};
use trimtab_checkpoint::Checkpoint;

use crate::card::{FORMAT_VERSION, ScorerCard};
use crate::error::ScorerError;
use crate::features::TokenFeatures;
use crate::layer::Layer;
use crate::weights::{ActionHead, ScorerWeights, StateHead};

/// Name of the file of weights in a scorer's folder.
pub const WEIGHTS_FILE: &str = "scorer.safetensors";
/// Name of the card in a scorer's folder.
pub const CARD_FILE: &str = "scorer.json";

/// Writes a scorer into `dir`, which is made if it is not there; what else is in it stays. Returns the card as
/// written: with the checksum of the weights and this version's format.
///
/// Both files are whole beside their places before they are moved there; a card that is moved last names the weights
/// that it belongs to, so that a kill in between is seen when it is read.
///
/// # Errors
/// Weights or metrics that are not finite, shapes that contradict each other, or the system's refusal.
pub fn write_scorer(
    dir: &Path,
    card: &ScorerCard,
    weights: &ScorerWeights,
) -> Result<ScorerCard, ScorerError> {
    weights.check()?;
    let bytes = weights_bytes(dir, weights)?;
    let card = ScorerCard {
        format_version: FORMAT_VERSION,
        weights_sha256: hex::encode(Sha256::digest(&bytes)),
        ..card.clone()
    };
    card.check()?;
    card.check_weights(weights)?;
    let mut text = serde_json::to_string_pretty(&card).map_err(|source| ScorerError::Card {
        path: dir.join(CARD_FILE),
        message: source.to_string(),
    })?;
    text.push('\n');
    let refused = |path: &Path, source| ScorerError::Write {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(dir).map_err(|source| refused(dir, source))?;
    let files = [(WEIGHTS_FILE, &*bytes), (CARD_FILE, text.as_bytes())];
    for (name, bytes) in files {
        let part = dir.join(format!("{name}.part"));
        if let Err(source) = write_synced(&part, bytes) {
            // The error that matters is the first; a part that cannot be removed is overwritten next time.
            let _ = fs::remove_file(&part);
            return Err(refused(&part, source));
        }
    }
    for (name, _) in files {
        let path = dir.join(name);
        fs::rename(dir.join(format!("{name}.part")), &path).map_err(|source| refused(&path, source))?;
    }
    Ok(card)
}

/// Reads the scorer in `dir`.
///
/// # Errors
/// A file that is missing, damaged, of another version, or that has a value that is no finite number.
pub fn read_scorer(dir: &Path) -> Result<(ScorerCard, ScorerWeights), ScorerError> {
    let card_path = dir.join(CARD_FILE);
    let card = parse_card(&card_path, &read(&card_path)?)?;
    let path = dir.join(WEIGHTS_FILE);
    let bytes = read(&path)?;
    let found = hex::encode(Sha256::digest(&bytes));
    if found != card.weights_sha256 {
        return Err(ScorerError::Checksum {
            path,
            got: found,
            expected: card.weights_sha256,
        });
    }
    let weights = read_weights(&path, bytes)?;
    let in_file = |path: &Path| {
        let path = path.to_owned();
        move |source: ScorerError| ScorerError::InFile {
            path,
            source: Box::new(source),
        }
    };
    weights.check().map_err(in_file(&path))?;
    card.check_weights(&weights).map_err(in_file(&card_path))?;
    Ok((card, weights))
}

fn parse_card(path: &Path, bytes: &[u8]) -> Result<ScorerCard, ScorerError> {
    let refuse = |source: serde_json::Error| ScorerError::Card {
        path: path.to_owned(),
        message: source.to_string(),
    };
    // The version first: a card of another version may have other fields.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(refuse)?;
    if let Some(got) = value.get("format_version").and_then(serde_json::Value::as_u64)
        && got != u64::from(FORMAT_VERSION)
    {
        return Err(ScorerError::FormatVersion {
            path: path.to_owned(),
            got,
            expected: FORMAT_VERSION,
        });
    }
    let card: ScorerCard = serde_json::from_value(value).map_err(refuse)?;
    card.check()?;
    Ok(card)
}

fn read(path: &Path) -> Result<Vec<u8>, ScorerError> {
    fs::read(path).map_err(|source| ScorerError::Read {
        path: path.to_owned(),
        source,
    })
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A tensor to be written: name, type, shape, little-endian bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

fn weights_bytes(dir: &Path, weights: &ScorerWeights) -> Result<Vec<u8>, ScorerError> {
    let mut tensors: Vec<Stored> = vec![
        vector("mean", &weights.mean),
        vector("std", &weights.std),
        vector("scale", &[weights.scale]),
        vector("offset", &[weights.offset]),
    ];
    let mut push_layer = |name: &str, layer: Option<&Layer>| {
        if let Some(layer) = layer {
            let shape = vec![layer.out_len, layer.in_len];
            tensors.push((
                format!("{name}.weight"),
                Dtype::F32,
                shape,
                f32_bytes(&layer.weight),
            ));
            tensors.push(vector(&format!("{name}.bias"), &layer.bias));
        }
    };
    push_layer("state.trunk", weights.state.trunk.as_ref());
    push_layer("state.out", Some(&weights.state.out));
    if let Some(action) = &weights.action {
        push_layer("action.trunk", action.trunk.as_ref());
        push_layer("action.base", Some(&action.base));
        push_layer("action.direction", Some(&action.direction));
    }
    if let Some(features) = &weights.token_features {
        let bytes = features
            .values
            .iter()
            .flat_map(|&value| f16::from_f32(value).to_le_bytes())
            .collect();
        let shape = vec![features.vocab_len, features.len];
        tensors.push(("token_features".to_owned(), Dtype::F16, shape, bytes));
    }
    let unwritable = |source: safetensors::SafeTensorError| ScorerError::Write {
        path: dir.join(WEIGHTS_FILE),
        source: io::Error::other(source),
    };
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes)?;
        Ok((name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(unwritable)?;
    safetensors::serialize(views, None).map_err(unwritable)
}

fn vector(name: &str, values: &[f32]) -> Stored {
    (name.to_owned(), Dtype::F32, vec![values.len()], f32_bytes(values))
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read_weights(path: &Path, bytes: Vec<u8>) -> Result<ScorerWeights, ScorerError> {
    let refuse = |source| ScorerError::Weights {
        path: path.to_owned(),
        source,
    };
    let checkpoint = Checkpoint::from_safetensors_bytes(b"{}".to_vec(), vec![bytes]).map_err(refuse)?;
    let tensors = Tensors { path, checkpoint };
    let has_action = tensors.has("action.base.weight") || tensors.has("token_features");
    let action = if has_action {
        Some(ActionHead {
            trunk: tensors.trunk("action.trunk")?,
            base: tensors.layer("action.base")?,
            direction: tensors.layer("action.direction")?,
        })
    } else {
        None
    };
    let token_features = if has_action {
        let ([vocab_len, len], values) = tensors.values("token_features")?;
        Some(TokenFeatures {
            vocab_len,
            len,
            values,
        })
    } else {
        None
    };
    Ok(ScorerWeights {
        mean: tensors.values::<1>("mean")?.1,
        std: tensors.values::<1>("std")?.1,
        scale: tensors.scalar("scale")?,
        offset: tensors.scalar("offset")?,
        state: StateHead {
            trunk: tensors.trunk("state.trunk")?,
            out: tensors.layer("state.out")?,
        },
        action,
        token_features,
    })
}

/// The tensors of an open file of weights.
struct Tensors<'a> {
    path: &'a Path,
    checkpoint: Checkpoint,
}

impl Tensors<'_> {
    fn has(&self, name: &str) -> bool {
        self.checkpoint.tensor_names().any(|found| found == name)
    }

    /// Shape and values of a tensor with `AXES` axes. The file holds as many values, so that they are no more memory.
    fn values<const AXES: usize>(&self, name: &str) -> Result<([usize; AXES], Vec<f32>), ScorerError> {
        let tensor = self
            .checkpoint
            .tensor(name)
            .map_err(|source| ScorerError::Weights {
                path: self.path.to_owned(),
                source,
            })?;
        let shape: [usize; AXES] = tensor.shape().try_into().map_err(|_| ScorerError::Shape {
            tensor: name.to_owned(),
            got: format!("{:?}", tensor.shape()),
            expected: format!("{AXES} axes"),
        })?;
        let row_len = shape[AXES - 1];
        if row_len == 0 {
            return Ok((shape, Vec::new()));
        }
        let mut values = vec![0.0; tensor.num_rows() * row_len];
        for (row_idx, row) in values.chunks_exact_mut(row_len).enumerate() {
            tensor.read_row(row_idx, row);
        }
        Ok((shape, values))
    }

    fn scalar(&self, name: &str) -> Result<f32, ScorerError> {
        let (shape, values) = self.values::<1>(name)?;
        match values[..] {
            [value] => Ok(value),
            _ => Err(ScorerError::shape(name, &shape, &[1])),
        }
    }

    fn layer(&self, name: &str) -> Result<Layer, ScorerError> {
        let ([out_len, in_len], weight) = self.values(&format!("{name}.weight"))?;
        let (_, bias) = self.values::<1>(&format!("{name}.bias"))?;
        Ok(Layer {
            in_len,
            out_len,
            weight,
            bias,
        })
    }

    fn trunk(&self, name: &str) -> Result<Option<Layer>, ScorerError> {
        let is_there = self.has(&format!("{name}.weight"));
        is_there.then(|| self.layer(name)).transpose()
    }
}
