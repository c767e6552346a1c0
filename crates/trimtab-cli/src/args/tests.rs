//! What is accepted, what is refused and how, and that every command in help texts works.

use clap::CommandFactory;

use super::*;

const README: &str = include_str!("../../../../README.md");

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn wrong_names_are_answered_with_the_right_ones() {
    let check = |args: &[&str], expect: &[&str]| {
        let args = std::iter::once("trimtab").chain(args.iter().copied());
        let message = Cli::try_parse_from(args)
            .expect_err("must be refused")
            .to_string();
        for part in expect {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    check(&["generate", "x", "--decode", "bom:4"], &["bon", "majority"]);
    check(&["generate", "x", "--decode", "bon:0"], &["bon", "1 to"]);
    check(
        &["generate", "x", "--decode", "sample:t=-1"],
        &["temperature", "-1"],
    );
    check(
        &["generate", "x", "--reward", "lenght"],
        &["did you mean `length`"],
    );
    check(
        &["generate", "x", "--precision", "int7"],
        &["int8", "f32", "int7"],
    );
    check(&["generate", "x", "--threads", "0"], &["0"]);
    check(&["frontier", "a.toml"], &["--out"]);
    check(
        &["generate", "x", "-n", "0"],
        &["--max-new-tokens", "0 is not in 1.."],
    );
    check(
        &["generate", "x", "--stop", ""],
        &["--stop", "at least one character"],
    );
    let bench = |args: &[&str], expect: &[&str]| {
        let args: Vec<&str> = ["bench"].iter().chain(args).copied().collect();
        check(&args, expect);
    };
    bench(&["decode", "--batch", "1,0"], &["--batch", "0 is not in 1.."]);
    bench(&["decode", "--prompt", "0"], &["--prompt", "0 is not in 1.."]);
    bench(&["decode", "--prefill", "0"], &["--prefill", "0 is not in 1.."]);
    bench(&["decode", "--rounds", "0"], &["--rounds", "0 is not in 1.."]);
    bench(&["decode", "--new", "1"], &["--new", "1 is not in 2.."]);
    bench(&["best-of-n", "--new", "0"], &["--new", "0 is not in 1.."]);
    bench(
        &["best-of-n", "--candidates", "0"],
        &["--candidates", "0 is not in 1.."],
    );
    bench(
        &["best-of-n", "--prompt", "99999999999"],
        &["--prompt", "99999999999"],
    );
    bench(&["precision", "--tokens", "1"], &["--tokens", "1 is not in 2.."]);
}

/// Every command of a text that is meant to be typed: a line that begins with `trimtab`, or the part of one behind a
/// pipe.
fn commands(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let piped = line.split_once("| trimtab ").map(|(_, args)| args);
            piped.or_else(|| line.strip_prefix("trimtab "))
        })
        .map(words)
        .collect()
}

/// Words as a shell cuts them, up to a description (behind two spaces), a comment or a redirection.
fn words(line: &str) -> Vec<String> {
    let typed = line.split("  ").next().unwrap_or(line);
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for ch in typed.chars() {
        match (quote, ch) {
            (Some(open), _) if ch == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(ch);
                word.get_or_insert_default();
            }
            (None, '#' | '>') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(ch),
        }
    }
    words.extend(word);
    words
}

fn check_all(text: &str, place: &str) -> usize {
    let commands = commands(text);
    for args in &commands {
        let line = std::iter::once("trimtab").chain(args.iter().map(String::as_str));
        if let Err(error) = Cli::try_parse_from(line) {
            panic!("{place}: {args:?} is refused: {error}");
        }
    }
    commands.len()
}

#[test]
fn words_are_those_of_a_shell() {
    let check = |line: &str, expect: &[&str]| assert_eq!(words(line), expect, "{line}");
    check(
        "generate \"Why is it?\" --reward 'json + length*-0.1'",
        &["generate", "Why is it?", "--reward", "json + length*-0.1"],
    );
    check("models list            # known by name", &["models", "list"]);
    check("completions bash > ~/a", &["completions", "bash"]);
    check("generate \"\" -n 1", &["generate", "", "-n", "1"]);
}

#[test]
fn commands_in_help_texts_and_in_the_readme_are_understood() {
    let mut command = Cli::command();
    command.build();
    let mut found = check_all(&command.render_long_help().to_string(), "trimtab --help");
    let mut todo: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    while let Some(mut command) = todo.pop() {
        todo.extend(command.get_subcommands().cloned());
        let help = command.render_long_help().to_string();
        found += check_all(&help, command.get_name());
    }
    assert!(found >= 9, "found {found} commands in help texts");
    let found = check_all(README, "README.md");
    assert!(found >= 10, "found {found} commands in README.md");
}
