//! Documents against the tree: links lead somewhere, the commands that they show exist, and nothing waits to be filled
//! in. Reads the command line's source for its words; the help texts themselves are tested where they are written.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::markdown::{self, CodeLine};
use crate::args::TASKS;
use crate::finding::Finding;
use crate::sources::SourceFile;

/// Where the command line is defined with clap.
const CLI_FOLDER: &str = "crates/trimtab-cli/src/";
/// What clap adds by itself.
const BUILT_IN_WORDS: [&str; 4] = ["help", "--help", "--version", "--"];

static VARIANT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^    ([A-Z]\w*)\b").expect("a constant"));
/// Where a table was to be pasted before the document was done.
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b[A-Z]+-TABLE\b").expect("a constant"));
static RENAMED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"#\[(?:command|clap)\([^)]*name = "([\w-]+)""#).expect("a constant"));

/// Checks all `documents`; `exists` answers for paths from the workspace's root.
pub fn check(documents: &[SourceFile], rust: &[SourceFile], exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let vocabulary = Vocabulary::read(rust);
    let mut findings = Vec::new();
    for document in documents {
        findings.extend(check_links(document, exists));
        findings.extend(check_placeholders(document));
        for code in markdown::commands(&document.text) {
            let wrong = invocations(&code)
                .into_iter()
                .filter_map(|call| vocabulary.judge(&call));
            findings.extend(wrong.map(|message| Finding::new(&document.path, code.line, message)));
        }
    }
    findings
}

fn check_links(document: &SourceFile, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (line, target) in markdown::links(&document.text) {
        let file = target.split('#').next().unwrap_or_default();
        if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
            continue;
        }
        if !exists(&join(folder, file)) {
            findings.push(Finding::new(
                &document.path,
                line,
                format!("the link `{target}` leads nowhere"),
            ));
        }
    }
    findings
}

fn check_placeholders(document: &SourceFile) -> Vec<Finding> {
    let lines = document.text.lines().enumerate();
    let found = lines.filter_map(|(idx, line)| Some((idx, PLACEHOLDER.find(line)?.as_str())));
    let finding = |(idx, name): (usize, &str)| {
        let message = format!("`{name}` stands where a table belongs; put the table there");
        Finding::new(&document.path, idx + 1, message)
    };
    found.map(finding).collect()
}

/// `folder/file`, with `.` and `..` resolved.
fn join(folder: &str, file: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// One call of a program of this repository.
#[derive(Debug, PartialEq, Eq)]
enum Invocation {
    Trimtab(Vec<String>),
    Xtask(Vec<String>),
}

/// The calls in a line of shell code; pipes and lists of commands are taken apart, quoted text is not looked into.
fn invocations(code: &CodeLine) -> Vec<Invocation> {
    let mut words: Vec<String> = Vec::new();
    let mut calls = Vec::new();
    for word in shell_words(&code.text) {
        if matches!(word.as_str(), "|" | "||" | "&&" | ";") {
            calls.extend(invocation(&words));
            words.clear();
        } else {
            words.push(word);
        }
    }
    calls.extend(invocation(&words));
    calls
}

/// Words by blanks; a quoted text is one word `"..."`, a comment ends the line.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut quote: Option<char> = None;
    let mut word = String::new();
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.push('"');
            }
            None if c == '#' && word.is_empty() => break,
            None if c.is_whitespace() => words.extend((!word.is_empty()).then(|| std::mem::take(&mut word))),
            None => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

fn invocation(words: &[String]) -> Option<Invocation> {
    let mut rest = words
        .iter()
        .skip_while(|word| *word == "$" || is_assignment(word))
        .cloned();
    let program = rest.next()?;
    let rest: Vec<String> = rest.collect();
    match (program.as_str(), rest.first().map(String::as_str)) {
        ("cargo", Some("xtask")) => Some(Invocation::Xtask(rest[1..].to_vec())),
        ("cargo", Some("run")) if !rest.iter().any(|word| word == "--example" || word == "-p") => {
            let start = rest.iter().position(|word| word == "--")?;
            Some(Invocation::Trimtab(rest[start + 1..].to_vec()))
        }
        ("trimtab", Some(_)) => Some(Invocation::Trimtab(rest)),
        (path, Some(_)) if path.ends_with("/trimtab") => Some(Invocation::Trimtab(rest)),
        _ => None,
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// The words that the programs understand.
struct Vocabulary {
    subcommands: BTreeSet<String>,
    cli_text: String,
}

impl Vocabulary {
    fn read(rust: &[SourceFile]) -> Self {
        let files: Vec<_> = rust
            .iter()
            .filter(|file| file.path.starts_with(CLI_FOLDER))
            .collect();
        let subcommands = files.iter().flat_map(|file| subcommands(&file.text)).collect();
        Self {
            subcommands,
            cli_text: files.iter().map(|file| file.text.as_str()).collect(),
        }
    }

    /// What is wrong with a call; `None` if it can exist.
    fn judge(&self, call: &Invocation) -> Option<String> {
        let words = match call {
            Invocation::Xtask(words) => {
                let task = words.first()?;
                let known = TASKS.contains(&task.as_str()) || is_placeholder(task);
                return (!known).then(|| format!("`cargo xtask {task}` does not exist"));
            }
            Invocation::Trimtab(words) => words,
        };
        let first = words.first()?;
        let is_known = self.subcommands.contains(first)
            || BUILT_IN_WORDS.contains(&first.as_str())
            || is_placeholder(first);
        if !is_known {
            return Some(format!(
                "`trimtab {first}` does not exist; the command line has {:?}",
                self.subcommands
            ));
        }
        let unknown = words
            .iter()
            .filter(|word| word.starts_with("--"))
            .find(|word| !self.has_flag(word))?;
        Some(format!("no flag `{unknown}` is defined in {CLI_FOLDER}"))
    }

    /// True if a field or a literal of the command line's source bears the flag's name.
    fn has_flag(&self, word: &str) -> bool {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
        let field = format!(
            r"\b{}\s*:|\blong\s*=\s*{:?}",
            regex::escape(&name.replace('-', "_")),
            name
        );
        let defined = Regex::new(&field).expect("an escaped name is a valid pattern");
        BUILT_IN_WORDS.contains(&word) || defined.is_match(&self.cli_text)
    }
}

/// `COMMAND`, `<COMMAND>`, `...` and the like in a synopsis.
fn is_placeholder(word: &str) -> bool {
    !word.is_empty() && !word.contains(|c: char| c.is_ascii_lowercase())
        || word.starts_with('<')
        || word.starts_with('[')
}

/// Names of the variants of each enum that derives clap's `Subcommand`.
fn subcommands(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_enum = false;
    let mut renamed = None;
    for line in text.lines() {
        if is_subcommand_derive(line) {
            in_enum = true;
        } else if line.starts_with('}') {
            in_enum = false;
        } else if in_enum && let Some(found) = RENAMED.captures(line).filter(|_| line.starts_with("    #[")) {
            renamed = Some(found[1].to_owned());
        } else if in_enum && let Some(variant) = VARIANT.captures(line) {
            names.push(renamed.take().unwrap_or_else(|| kebab_case(&variant[1])));
        }
    }
    names
}

fn is_subcommand_derive(line: &str) -> bool {
    line.starts_with("#[derive(") && line.contains("Subcommand")
}

fn kebab_case(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLI: &str = "#[derive(Debug, clap::Subcommand)]\npub enum Command {\n    /// Answers.\n    Generate(Generate),\n    \
                       #[command(name = \"models\")]\n    ModelStore {\n        json: bool,\n    },\n    BenchDecode,\n}\n\
                       #[derive(Args)]\nstruct Generate {\n    num_candidates: u32,\n    #[arg(long = \"top-p\")]\n    p: f32,\n}\n";

    fn check_document(text: &str, expect: &[&str]) {
        let cli = SourceFile::new("crates/trimtab-cli/src/args.rs", CLI);
        let document = SourceFile::new("docs/guide.md", text);
        let exists = |path: &str| matches!(path, "docs/other.md" | "README.md");
        let found: Vec<_> = check(&[document], &[cli], &exists)
            .into_iter()
            .map(|f| f.message)
            .collect();
        assert_eq!(found.len(), expect.len(), "{text:?}: {found:?}");
        for (message, start) in found.iter().zip(expect) {
            assert!(message.starts_with(start), "{message}, expected {start}");
        }
    }

    #[test]
    fn subcommands_are_read_from_clap_enums() {
        assert_eq!(subcommands(CLI), ["generate", "models", "bench-decode"]);
    }

    #[test]
    fn commands_that_exist_pass() {
        check_document(
            "`trimtab generate --num-candidates 4`, `trimtab models`, `cargo xtask check`, `trimtab`",
            &[],
        );
        check_document(
            "```sh\n$ HOME=/x cargo run --release -- generate --top-p=0.9 \"--not a flag\"\n```\n",
            &[],
        );
        check_document(
            "```sh\ncat x | ./target/release/trimtab generate \\\n  --json # --no-flag\n```\n",
            &[],
        );
        check_document("```text\ntrimtab nonsense\n```\n", &[]);
        check_document("`cargo run -p other -- nonsense` and `trimtab <COMMAND>`", &[]);
    }

    #[test]
    fn commands_that_do_not_exist_are_found() {
        check_document("`trimtab generat x`", &["`trimtab generat` does not exist"]);
        check_document("`trimtab generate --num 4`", &["no flag `--num`"]);
        check_document("`trimtab generate --candidates 4`", &["no flag `--candidates`"]);
        check_document("`cargo xtask chek`", &["`cargo xtask chek` does not exist"]);
        check_document(
            "```sh\necho a && cargo run -- frontier x.toml\n```\n",
            &["`trimtab frontier` does not exist"],
        );
    }

    #[test]
    fn tables_that_were_never_filled_in_are_found() {
        check_document("A TABLE-top, a speed-table and the TABLE.", &[]);
        check_document(
            concat!("# Speed\n\nSPEED", "-TABLE\n"),
            &[concat!("`SPEED", "-TABLE` stands where")],
        );
    }

    #[test]
    fn links_must_lead_somewhere() {
        check_document(
            "[a](other.md#top) [b](../README.md) [c](https://example.org/x) [d](#here)",
            &[],
        );
        check_document("[a](gone.md)", &["the link `gone.md` leads nowhere"]);
        check_document("[a](README.md)", &["the link `README.md` leads nowhere"]);
    }
}
