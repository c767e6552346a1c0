//! Published chat templates against Jinja2 in the settings of transformers (`dev/chat.py`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use trimtab_tokenizer::{ChatTemplate, Message, RenderOptions, TemplateError, TemplateTokens};

use crate::fixtures::data;

#[derive(Deserialize)]
struct Case {
    template: String,
    bos: String,
    eos: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    /// `None` where the template refuses.
    text: Option<String>,
}

#[test]
fn published_templates_render_as_in_python() {
    let cases: Vec<Case> = serde_json::from_value(data("chat/expected.json")["cases"].clone()).unwrap();
    let templates: BTreeSet<&str> = cases.iter().map(|case| case.template.as_str()).collect();
    assert_eq!(
        Vec::from_iter(templates),
        ["gemma-3", "llama-3.2", "qwen2.5", "smollm2"]
    );
    for case in cases {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat");
        let source = fs::read_to_string(dir.join(format!("{}.jinja", case.template))).unwrap();
        let tokens = TemplateTokens {
            bos: Some(case.bos),
            eos: Some(case.eos),
        };
        let options = RenderOptions {
            add_generation_prompt: case.add_generation_prompt,
            ..RenderOptions::default()
        };
        let rendered = ChatTemplate::try_new(&source, tokens)
            .unwrap()
            .render(&case.messages, &options);
        match case.text {
            Some(text) => assert_eq!(
                rendered.as_deref(),
                Ok(text.as_str()),
                "{}: {:?}",
                case.template,
                case.messages
            ),
            None => assert!(
                matches!(rendered, Err(TemplateError::Refused { .. })),
                "{}: {rendered:?}",
                case.template
            ),
        }
    }
}
