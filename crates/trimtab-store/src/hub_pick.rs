//! Choosing, from the files of a hub repository, those that make a model: one GGUF, or safetensors with
//! configuration and tokenizer. Judges names only.

use std::path::Path;

use crate::error::SourceError;
use crate::hub::{Listing, RemoteFile};
use crate::part::FileSpec;
use crate::spec::{check_file_name, check_remote_path};

/// GGUF quantisations that Trimtab reads, best first. Trimtab computes in 8 bits, so `Q8_0` loses next to nothing
/// against it; the 16-bit and 32-bit files come last because they are larger without being better there.
const QUANT_PREFERENCE: [&str; 15] = [
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q5_K", "Q4_K",
    "BF16", "F16", "F32",
];

/// Files that accompany safetensors weights, taken where present.
const COMPANIONS: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
];

const INDEX: &str = "model.safetensors.index.json";

/// The files of a model in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) files: Vec<FileSpec>,
    /// For each file, its path in the repository.
    pub(crate) paths: Vec<String>,
    /// The one file to open, or `None` for the whole folder.
    pub(crate) opens: Option<String>,
}

/// Picks a model from `listing`; `selection` is a path in the repository or a quantisation.
pub(crate) fn pick(repo: &str, listing: &Listing, selection: Option<&str>) -> Result<Picked, SourceError> {
    let nothing = |reason: String| SourceError::NothingUsable {
        repo: repo.to_owned(),
        reason,
    };
    if let Some(selection) = selection {
        let by_path = listing.siblings.iter().find(|file| file.path == selection);
        let by_quant = || ggufs(listing).find(|file| has_quant(&file.path, selection));
        let file = by_path.or_else(by_quant).ok_or_else(|| {
            nothing(format!(
                "no file or quantisation {selection:?}; it has {}",
                list_models(listing)
            ))
        })?;
        return picked(repo, &[file], true);
    }
    if let Some(file) = QUANT_PREFERENCE
        .iter()
        .find_map(|quant| ggufs(listing).find(|f| has_quant(&f.path, quant)))
    {
        return picked(repo, &[file], true);
    }
    let weights = safetensors(listing);
    let config = listing.siblings.iter().find(|file| file.path == "config.json");
    let (Some(config), false) = (config, weights.is_empty()) else {
        let reason = format!(
            "expected a GGUF file in one of {} or config.json with safetensors; it has {}",
            QUANT_PREFERENCE.join(", "),
            list_models(listing)
        );
        return Err(nothing(reason));
    };
    let is_companion = |file: &&RemoteFile| COMPANIONS.contains(&file.path.as_str());
    let mut files = weights;
    files.push(config);
    files.extend(listing.siblings.iter().filter(is_companion));
    picked(repo, &files, false)
}

fn ggufs(listing: &Listing) -> impl Iterator<Item = &RemoteFile> {
    // Projectors of vision models are no language models, and files split over several are not read.
    let is_model =
        |path: &str| has_extension(path, "gguf") && !path.contains("mmproj") && !path.contains("-of-0");
    listing.siblings.iter().filter(move |file| is_model(&file.path))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Whether a file name carries `quant` as a word of its own: `Q4_K` is not in `model-Q4_K_M.gguf`.
fn has_quant(path: &str, quant: &str) -> bool {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".gguf");
    stem.split(['-', '.'])
        .any(|word| word.eq_ignore_ascii_case(quant))
}

/// The weights of a safetensors repository: the single file, or all shards with their index.
fn safetensors(listing: &Listing) -> Vec<&RemoteFile> {
    let find = |name: &str| listing.siblings.iter().find(|file| file.path == name);
    if let Some(single) = find("model.safetensors") {
        return vec![single];
    }
    let Some(index) = find(INDEX) else {
        return Vec::new();
    };
    let is_shard =
        |path: &str| path.starts_with("model-") && path.ends_with(".safetensors") && !path.contains('/');
    let mut files: Vec<&RemoteFile> = listing
        .siblings
        .iter()
        .filter(|file| is_shard(&file.path))
        .collect();
    if !files.is_empty() {
        files.push(index);
    }
    files
}

fn picked(repo: &str, remote: &[&RemoteFile], opens_first: bool) -> Result<Picked, SourceError> {
    let bad = |reason: String| SourceError::BadAnswer {
        url: format!("hub {repo}"),
        reason,
    };
    let mut files = Vec::with_capacity(remote.len());
    for file in remote {
        check_remote_path(&file.path).map_err(bad)?;
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        check_file_name(name).map_err(bad)?;
        let size_bytes = file.size.ok_or_else(|| bad(format!("no size for {name}")))?;
        let sha256 = file
            .lfs
            .as_ref()
            .and_then(|lfs| lfs.sha256.as_ref())
            .map(|text| text.parse());
        let sha256 = sha256
            .transpose()
            .map_err(|error| bad(format!("{name}: {error}")))?;
        files.push(FileSpec {
            name: name.to_owned(),
            size_bytes,
            sha256,
        });
    }
    let opens = files
        .first()
        .filter(|_| opens_first)
        .map(|file| file.name.clone());
    Ok(Picked {
        files,
        paths: remote.iter().map(|file| file.path.clone()).collect(),
        opens,
    })
}

fn list_models(listing: &Listing) -> String {
    const MAX_NAMES: usize = 12;
    let extensions = [".gguf", ".safetensors", ".bin"];
    let is_model = |file: &&RemoteFile| extensions.iter().any(|ext| file.path.ends_with(ext));
    let names: Vec<&str> = listing
        .siblings
        .iter()
        .filter(is_model)
        .map(|file| file.path.as_str())
        .collect();
    match names.len() {
        0 => "no model file".to_owned(),
        many if many > MAX_NAMES => {
            format!("{} and {} more", names[..MAX_NAMES].join(", "), many - MAX_NAMES)
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let file = |path: &&str| RemoteFile {
            path: (*path).to_owned(),
            size: Some(1),
            lfs: None,
        };
        Listing {
            sha: "abc".to_owned(),
            siblings: paths.iter().map(file).collect(),
        }
    }

    fn check(paths: &[&str], selection: Option<&str>, expect: Option<&[&str]>) {
        let picked = pick("o/n", &listing(paths), selection);
        let got = picked
            .as_ref()
            .ok()
            .map(|picked| picked.paths.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(got.as_deref(), expect, "for {paths:?} {selection:?}: {picked:?}");
    }

    #[test]
    fn gguf_by_preference() {
        check(
            &["m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-f16.gguf"],
            None,
            Some(&["m-Q8_0.gguf"]),
        );
        check(
            &["m.IQ2_XXS.gguf", "m.q4_1.gguf", "README.md"],
            None,
            Some(&["m.q4_1.gguf"]),
        );
        check(
            &["mmproj-m-Q8_0.gguf", "m-bf16.gguf"],
            None,
            Some(&["m-bf16.gguf"]),
        );
        check(
            &["m-Q8_0-00001-of-00002.gguf", "m-Q4_0.gguf"],
            None,
            Some(&["m-Q4_0.gguf"]),
        );
        check(&["m-IQ2_XXS.gguf"], None, None);
    }

    #[test]
    fn explicit_selection_wins() {
        let paths = ["m-Q4_K_M.gguf", "m-Q4_K.gguf", "sub/m-Q2_K.gguf"];
        check(&paths, Some("Q4_K"), Some(&["m-Q4_K.gguf"]));
        check(&paths, Some("q2_k"), Some(&["sub/m-Q2_K.gguf"]));
        check(&paths, Some("sub/m-Q2_K.gguf"), Some(&["sub/m-Q2_K.gguf"]));
        check(&paths, Some("Q8_0"), None);
    }

    #[test]
    fn safetensors_with_companions() {
        check(
            &[
                "README.md",
                "config.json",
                "model.safetensors",
                "other.safetensors",
                "tokenizer.json",
            ],
            None,
            Some(&["model.safetensors", "config.json", "tokenizer.json"]),
        );
        let shards = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        check(
            &["config.json", shards[0], shards[1], INDEX],
            None,
            Some(&[shards[0], shards[1], INDEX, "config.json"]),
        );
        check(&["model.safetensors"], None, None);
        check(&["config.json", "pytorch_model.bin"], None, None);
    }

    #[test]
    fn hostile_names_and_missing_sizes_are_refused() {
        check(&["../../evil-Q8_0.gguf"], None, None);
        check(&["/abs-Q8_0.gguf"], None, None);
        let mut listing = listing(&["m-Q8_0.gguf"]);
        listing.siblings[0].size = None;
        assert!(pick("o/n", &listing, None).is_err());
    }
}
