//! The parts of Markdown that the rules read: tables, code and links. Not a renderer, and blind to nested lists.

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkdownTable {
    /// The `<!-- xtask: NAME -->` line directly above, if there is one.
    pub marker: Option<String>,
    /// Titles of the columns.
    pub header: Vec<String>,
    /// Line (from 1) and cells of each row.
    pub rows: Vec<(usize, Vec<String>)>,
}

impl MarkdownTable {
    /// The index of the column whose title starts with `title`, whatever the case.
    pub fn column(&self, title: &str) -> Option<usize> {
        self.header
            .iter()
            .position(|cell| cell.to_lowercase().starts_with(title))
    }
}

/// One piece of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeLine {
    /// Line, from 1, where it starts.
    pub line: usize,
    /// The text, with continuation lines joined.
    pub text: String,
}

/// All tables of a document.
pub fn tables(text: &str) -> Vec<MarkdownTable> {
    let lines: Vec<&str> = text.lines().collect();
    let mut tables = Vec::new();
    let mut idx = 0;
    while idx < lines.len() {
        let is_table = is_row(lines[idx]) && lines.get(idx + 1).is_some_and(|line| is_rule(line));
        if !is_table {
            idx += 1;
            continue;
        }
        let marker = lines[..idx]
            .iter()
            .rev()
            .find(|line| !line.trim().is_empty())
            .and_then(|line| marker(line));
        let header = cells(lines[idx]);
        let num_rows = lines[idx + 2..].iter().take_while(|line| is_row(line)).count();
        let rows = (idx + 2..idx + 2 + num_rows)
            .map(|row| (row + 1, cells(lines[row])))
            .collect();
        tables.push(MarkdownTable { marker, header, rows });
        idx += 2 + num_rows;
    }
    tables
}

fn is_row(line: &str) -> bool {
    line.trim_start().starts_with('|')
}

fn is_rule(line: &str) -> bool {
    is_row(line) && line.contains("--") && line.trim().chars().all(|c| matches!(c, '|' | '-' | ':' | ' '))
}

fn marker(line: &str) -> Option<String> {
    let name = line.trim().strip_prefix("<!-- xtask:")?.strip_suffix("-->")?;
    Some(name.trim().to_owned())
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner
        .replace("\\|", "\u{0}")
        .split('|')
        .map(|cell| cell.trim().replace('\u{0}', "|"))
        .collect()
}

/// The texts between single backticks in `text`.
pub fn code_spans(text: &str) -> Vec<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|span| !span.is_empty())
        .collect()
}

/// Lines of fenced shell code, and code spans outside fences.
pub fn commands(text: &str) -> Vec<CodeLine> {
    let mut found = Vec::new();
    let mut fence: Option<bool> = None;
    let mut open: Option<CodeLine> = None;
    for (idx, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let is_shell = matches!(language.trim(), "" | "sh" | "bash" | "console" | "shell");
            fence = if fence.is_some() { None } else { Some(is_shell) };
            found.extend(open.take());
            continue;
        }
        match fence {
            Some(false) => {}
            None => found.extend(code_spans(line).into_iter().map(|span| CodeLine {
                line: idx + 1,
                text: span.to_owned(),
            })),
            Some(true) => {
                let mut code = open.take().unwrap_or(CodeLine {
                    line: idx + 1,
                    text: String::new(),
                });
                let (part, continues) = match line.trim_end().strip_suffix('\\') {
                    Some(part) => (part, true),
                    None => (line, false),
                };
                code.text.push_str(part);
                if continues {
                    open = Some(code);
                } else {
                    found.push(code);
                }
            }
        }
    }
    found.extend(open);
    found
}

/// Line (from 1) and target of each `[text](target)` outside fences and code spans.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (idx, line) in text.lines().enumerate() {
        in_fence ^= line.trim_start().starts_with("```");
        if in_fence {
            continue;
        }
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("` `");
        for part in prose.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push((idx + 1, target.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_markers_headers_and_numbered_rows() {
        let text = "# T\n<!-- xtask: crates -->\n\n| Crate | Uses |\n|---|:-:|\n| `a` | `x \\| y` |\n| b | |\n\n| no table |\n";
        let found = tables(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].marker.as_deref(), Some("crates"));
        assert_eq!(found[0].header, ["Crate", "Uses"]);
        assert_eq!(
            found[0].rows[0],
            (6, vec!["`a`".to_owned(), "`x | y`".to_owned()])
        );
        assert_eq!(found[0].rows[1], (7, vec!["b".to_owned(), String::new()]));
        assert_eq!(found[0].column("uses"), Some(1));
    }

    #[test]
    fn commands_come_from_shell_fences_and_spans() {
        let text = "Run `a b`.\n```sh\n$ one \\\n  two\nthree\n```\n```toml\nfour = 4\n```\n";
        let found: Vec<_> = commands(text)
            .into_iter()
            .map(|code| (code.line, code.text))
            .collect();
        let expect =
            [(1, "a b"), (3, "$ one   two"), (5, "three")].map(|(line, text)| (line, text.to_owned()));
        assert_eq!(found, expect);
    }

    #[test]
    fn links_in_code_are_no_links() {
        let text = "[a](x.md) and ![b](y.svg#z)\n`[c](no)`\n```\n[d](no)\n```\n[e](z)\n";
        let expect = [(1, "x.md"), (1, "y.svg#z"), (6, "z")].map(|(line, target)| (line, target.to_owned()));
        assert_eq!(links(text), expect);
    }
}
