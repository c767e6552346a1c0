//! Chat templates as models publish them. Knows no token ids: it turns a conversation into text.
//!
//! The templates are Jinja written for Python's engine in the settings of the `transformers` library; this module
//! reproduces those settings: trimmed blocks, Python's string methods, `raise_exception`, `tojson` without HTML
//! escapes, `strftime_now` if the caller hands in a time, and the transparent `{% generation %}` block.

mod filters;

use std::fmt;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use serde::{Deserialize, Serialize};

use crate::error::TemplateError;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks; most templates know `system`, `user` and `assistant`.
    pub role: String,
    /// What is said. Control tokens written here are read as control tokens, as with every published template.
    pub content: String,
}

impl Message {
    /// A turn of `role` saying `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// What a conversation is rendered with, besides its messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// End with the opening of an assistant turn, so that the model answers.
    pub add_generation_prompt: bool,
    /// Time that `strftime_now` formats, in UTC. `None` leaves it undefined: templates that test for it fall back
    /// to a fixed date, so the same conversation gives the same prompt every day.
    pub now: Option<SystemTime>,
    /// Further variables that the template knows, e.g. `enable_thinking`.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// Texts of the special tokens that templates refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TemplateTokens {
    /// `bos_token`.
    pub bos: Option<String>,
    /// `eos_token`.
    pub eos: Option<String>,
}

/// A compiled chat template.
pub struct ChatTemplate {
    env: Environment<'static>,
    tokens: TemplateTokens,
}

impl ChatTemplate {
    /// Instructions one rendering may take. A conversation of a thousand turns takes about half a million; the
    /// engine also charges one per 64 bytes made, so this bounds memory to about 256 MB.
    pub const FUEL: u64 = 4_000_000;

    /// Compiles a template.
    pub fn try_new(source: &str, tokens: TemplateTokens) -> Result<Self, TemplateError> {
        let mut env = Environment::new();
        env.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .expect("the default delimiters are valid"),
        );
        env.set_undefined_behavior(UndefinedBehavior::Lenient);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.set_fuel(Some(Self::FUEL));
        env.add_function("raise_exception", filters::raise_exception);
        env.add_filter("tojson", filters::tojson);
        env.add_template_owned(NAME, open_generation_blocks(source))
            .map_err(|error| TemplateError::Syntax {
                line: error.line().unwrap_or(1),
                problem: describe(&error),
            })?;
        Ok(Self { env, tokens })
    }

    /// The text of a conversation, special tokens written out; encode it with
    /// [`SpecialTokens::Parse`](crate::SpecialTokens::Parse) and add no BOS.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, TemplateError> {
        let now = options
            .now
            .map(|now| Value::from_function(move |format: &str| filters::strftime(now, format)));
        let special = context! {
            bos_token => defined(self.tokens.bos.as_deref()),
            eos_token => defined(self.tokens.eos.as_deref()),
            strftime_now => now.unwrap_or(Value::UNDEFINED),
        };
        let conversation = context! {
            messages => Serde(messages),
            add_generation_prompt => options.add_generation_prompt,
            tools => (),
            documents => (),
        };
        let variables = Value::from(Serde(&options.variables));
        let template = self
            .env
            .get_template(NAME)
            .map_err(|error| render_error(&error))?;
        template
            .render(context! { ..conversation, ..variables, ..special })
            .map_err(|error| render_error(&error))
    }
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// Name of the template inside its environment; without a file ending, so that nothing is escaped.
const NAME: &str = "chat_template";

/// `{% generation %}` marks the assistant's tokens for training and prints its body, which `{% if true %}` does too.
fn open_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, inside) = rest.split_at(start + 2);
        // Looked for behind the opening, whose `%` is not the closing's: `{%}` closes nothing.
        let Some(len) = inside.find("%}") else {
            break;
        };
        let (tag, after) = inside.split_at(len);
        out.push_str(before);
        let word = tag.trim_matches(|ch: char| ch.is_whitespace() || ch == '-' || ch == '+');
        out.push_str(&match word {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// A text, or undefined (which prints as nothing) where the model has no such token.
fn defined(text: Option<&str>) -> Value {
    text.map_or(Value::UNDEFINED, Value::from)
}

fn render_error(error: &Error) -> TemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(refusal) = cause.downcast_ref::<filters::Refusal>() {
            return TemplateError::Refused {
                message: refusal.0.clone(),
            };
        }
        source = cause.source();
    }
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::OutOfFuel {
            fuel: ChatTemplate::FUEL,
        };
    }
    TemplateError::Render {
        line: error.line().unwrap_or(1),
        problem: describe(error),
    }
}

fn describe(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests;
