//! How a user names a model: an alias, a hub repository, or a local path. Pure text and file names; the only
//! look at the disk is whether a path exists and what kind of thing it is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::hash::FileHash;

/// File systems stop at 255 bytes; a suffix such as `.lock` must fit as well. Longer names end in their hash.
const MAX_FOLDER_NAME_BYTES: usize = 200;

/// A model, as named by the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// An entry of the table of models.
    Alias(String),
    /// A repository of the model hub.
    Hub(HubRef),
    /// Files on this machine, used where they are.
    Local {
        /// The file or folder.
        path: PathBuf,
        /// What its name says that it is.
        format: ModelFormat,
    },
}

/// The kind of a model's files, judged by names alone; the checkpoint readers judge the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFormat {
    /// A `.gguf` file.
    Gguf,
    /// A folder with `config.json` and `*.safetensors`.
    SafetensorsFolder,
    /// A llama2.c `.bin` file.
    Llama2C,
}

/// `org/name[@revision][:selection]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRef {
    /// `org/name`.
    pub repo: String,
    /// Branch, tag or commit; `main` if not given.
    pub revision: String,
    /// A file of the repository, or a GGUF quantisation such as `Q8_0`.
    pub selection: Option<String>,
}

impl HubRef {
    /// Parses `org/name[@revision][:selection]`; `None` if the text does not have the form at all.
    pub(crate) fn parse(spec: &str) -> Option<Result<Self, StoreError>> {
        let (head, selection) = match spec.split_once(':') {
            Some((head, selection)) => (head, Some(selection)),
            None => (spec, None),
        };
        let (repo, revision) = head.split_once('@').unwrap_or((head, "main"));
        let (org, name) = repo.split_once('/')?;
        let reference = || Self {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            selection: selection.map(str::to_owned),
        };
        Some(
            check_segment(org)
                .and_then(|()| check_segment(name))
                .and_then(|()| revision.split('/').try_for_each(check_segment))
                .and_then(|()| selection.map_or(Ok(()), check_remote_path))
                .map(|()| reference())
                .map_err(|reason| StoreError::BadName {
                    name: spec.to_owned(),
                    reason,
                }),
        )
    }

    /// The folder name under which the model is kept: equal for equal references, different for different ones
    /// (no segment may contain `--`, so the joints are unique).
    pub(crate) fn folder_name(&self) -> String {
        let mut name = format!("hub--{}--{}", self.repo, self.revision);
        if let Some(selection) = &self.selection {
            name.push_str("++");
            name.push_str(selection);
        }
        let name = name.replace('/', "--");
        if name.len() <= MAX_FOLDER_NAME_BYTES {
            return name;
        }
        let head = &name[..name.floor_char_boundary(MAX_FOLDER_NAME_BYTES / 2)];
        format!("{head}--{}", FileHash::of_bytes(name.as_bytes()))
    }
}

impl std::fmt::Display for HubRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        self.selection
            .as_ref()
            .map_or(Ok(()), |selection| write!(f, ":{selection}"))
    }
}

/// Accepts one segment of a repository name or revision: letters, digits, `.`, `_`, `-`, not starting with a dot
/// or a dash, without `..` or `--`.
fn check_segment(segment: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if segment.is_empty() || !segment.bytes().all(is_allowed) {
        return Err(format!(
            "expected letters, digits, '.', '_' and '-', got {segment:?}"
        ));
    }
    if segment.starts_with(['.', '-']) || segment.contains("..") || segment.contains("--") {
        return Err(format!(
            "{segment:?} starts with '.' or '-' or contains '..' or '--'"
        ));
    }
    Ok(())
}

/// Accepts the path of a file inside a repository: relative, slash-separated, no `..`, no hidden or empty segment,
/// no control characters, nothing that Windows reads as a drive or a separator.
pub(crate) fn check_remote_path(path: &str) -> Result<(), String> {
    if path.len() > 512 {
        return Err(format!(
            "expected a file path of at most 512 bytes, got {}",
            path.len()
        ));
    }
    for segment in path.split('/') {
        check_file_name(segment)?;
    }
    Ok(())
}

/// Accepts a plain file name that is safe to create on every platform.
pub(crate) fn check_file_name(name: &str) -> Result<(), String> {
    let is_bad = |c: char| c.is_control() || r#"\:*?"<>|/"#.contains(c);
    if name.is_empty() || name.starts_with('.') || name.contains("..") || name.contains("--") {
        return Err(format!(
            "file name {name:?} is empty, hidden or contains '..' or '--'"
        ));
    }
    if name.chars().any(is_bad) || name.ends_with([' ', '.']) {
        return Err(format!("file name {name:?} has a character that is not allowed"));
    }
    Ok(())
}

/// Whether the text can only be meant as a path.
pub(crate) fn looks_like_path(spec: &str) -> bool {
    let path = Path::new(spec);
    let has_model_extension = path.extension().is_some_and(|ext| {
        ["gguf", "bin", "safetensors"]
            .iter()
            .any(|known| ext.eq_ignore_ascii_case(known))
    });
    // `org/name:file.gguf` also ends in a model extension; a colon there means the hub.
    path.is_absolute() || spec.starts_with(['.', '~']) || (has_model_extension && !spec.contains(':'))
}

/// The file or folder that is meant by `path`, and its kind: a folder without safetensors stands for the one model
/// file in it.
pub(crate) fn local_model(path: PathBuf) -> Result<(PathBuf, ModelFormat), StoreError> {
    if !path.is_dir() || !safetensors_in(&path)?.is_empty() {
        let format = local_format(&path)?;
        return Ok((path, format));
    }
    let names = model_files_in(&path)?;
    match names.as_slice() {
        // An empty folder, or one that lacks the weights: the general message says what a folder needs.
        [] => local_format(&path).map(|format| (path, format)),
        [name] => {
            let file = path.join(name);
            local_format(&file).map(|format| (file, format))
        }
        several => Err(StoreError::BadLocalModel {
            reason: format!(
                "the folder has {} model files; name one of {}",
                several.len(),
                several.join(", ")
            ),
            path,
        }),
    }
}

/// The names of the single-file models of a folder, sorted: `*.gguf` and llama2.c's `*.bin` without its vocabularies,
/// which are called `tokenizer.bin` or, for small ones, such as `tok512.bin`.
fn model_files_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let is_vocabulary = |name: &str| {
        let size = name
            .strip_prefix("tok")
            .and_then(|rest| rest.strip_suffix(".bin"));
        size.is_some_and(|size| size == "enizer" || size.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let names = names_in(folder, &["gguf", "bin"])?;
    Ok(names.into_iter().filter(|name| !is_vocabulary(name)).collect())
}

/// Judges what kind of model lies at `path`.
pub(crate) fn local_format(path: &Path) -> Result<ModelFormat, StoreError> {
    let refuse = |reason: &str| {
        Err(StoreError::BadLocalModel {
            path: path.to_owned(),
            reason: reason.to_owned(),
        })
    };
    if path.is_dir() {
        return match (
            path.join("config.json").is_file(),
            safetensors_in(path)?.is_empty(),
        ) {
            (true, false) => Ok(ModelFormat::SafetensorsFolder),
            (false, _) => refuse("the folder has no config.json and no .gguf or llama2.c .bin file"),
            (true, true) => refuse("the folder has no *.safetensors file"),
        };
    }
    if !path.is_file() {
        return refuse("there is no such file or folder");
    }
    match path.extension().map(OsStr::to_ascii_lowercase) {
        Some(ext) if ext == "gguf" => Ok(ModelFormat::Gguf),
        Some(ext) if ext == "bin" => Ok(ModelFormat::Llama2C),
        Some(ext) if ext == "safetensors" => {
            refuse("a single .safetensors file has no configuration; give its folder")
        }
        _ => refuse("its name ends neither in .gguf nor in .bin"),
    }
}

/// The names of the `*.safetensors` files of a folder, sorted.
pub(crate) fn safetensors_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    names_in(folder, &["safetensors"])
}

/// The names in a folder that end in one of `extensions`, sorted.
fn names_in(folder: &Path, extensions: &[&str]) -> Result<Vec<String>, StoreError> {
    let is_wanted = |name: &String| {
        let extension = Path::new(name).extension().and_then(OsStr::to_str);
        extension.is_some_and(|extension| extensions.contains(&extension))
    };
    let entries = folder.read_dir().map_err(StoreError::io("list", folder))?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(StoreError::io("list", folder))?.file_name();
        match name.into_string() {
            Ok(name) if is_wanted(&name) => names.push(name),
            _ => {}
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: &str, expect: Option<(&str, &str, Option<&str>)>) {
        let parsed = HubRef::parse(spec).and_then(Result::ok);
        let parsed = parsed
            .as_ref()
            .map(|r| (r.repo.as_str(), r.revision.as_str(), r.selection.as_deref()));
        assert_eq!(parsed, expect, "for {spec:?}");
    }

    #[test]
    fn hub_references_parse() {
        check("org/name", Some(("org/name", "main", None)));
        check("org/name@v1.0", Some(("org/name", "v1.0", None)));
        check("org/name@refs/pr/1", Some(("org/name", "refs/pr/1", None)));
        check("org/name:Q8_0", Some(("org/name", "main", Some("Q8_0"))));
        check(
            "o.r-g/na_me@abc:sub/file.gguf",
            Some(("o.r-g/na_me", "abc", Some("sub/file.gguf"))),
        );
        check("plain", None);
    }

    #[test]
    fn path_tricks_are_refused() {
        for spec in [
            "../x",
            "org/..",
            "org/../../x",
            "/org",
            "org/",
            "org//name",
            "org/name/more",
            ".org/name",
            "-o/name",
            "org/na me",
            "org/name@",
            "org/name@../x",
            "org/name:",
            "org/name:../x",
            "org/name:/abs",
            "org/name:a//b",
            "org/name:.hidden",
            "org/name:C:x",
            "org/name:a\\b",
            "org/a--b",
            "org/name:a\nb",
        ] {
            check(spec, None);
        }
    }

    #[test]
    fn different_references_have_different_folders() {
        let folders: std::collections::BTreeSet<_> = [
            "o/n",
            "o/n@v",
            "o/n:v",
            "o/n@v:w",
            "o/n@v/w",
            "o/n:v/w",
            "o/n@main/v",
            "o/n@main/file/v",
        ]
        .iter()
        .map(|spec| {
            HubRef::parse(spec)
                .expect("has the form")
                .expect("is allowed")
                .folder_name()
        })
        .collect();
        assert_eq!(folders.len(), 8);
    }

    #[test]
    fn long_references_get_short_folders_that_still_differ() {
        let folder = |last: &str| {
            let spec = format!("o/n:{}{last}", "ü/".repeat(150));
            HubRef::parse(&spec)
                .expect("has the form")
                .expect("is allowed")
                .folder_name()
        };
        assert!(folder("a").len() <= MAX_FOLDER_NAME_BYTES && folder("a") != folder("b"));
    }

    #[test]
    fn paths_are_told_from_repositories() {
        for (spec, expect) in [
            ("org/name", false),
            ("org/name:f.gguf", false),
            ("alias", false),
            ("x.gguf", true),
            ("./x", true),
            ("~/x", true),
            ("/x", true),
            ("models/x.BIN", true),
            ("org/Model-0.5B", false),
        ] {
            assert_eq!(looks_like_path(spec), expect, "for {spec}");
        }
    }
}
