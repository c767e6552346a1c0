use std::time::{Duration, UNIX_EPOCH};

use super::*;

const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
    {{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}\
    {% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn render(source: &str, options: &RenderOptions) -> Result<String, TemplateError> {
    let tokens = TemplateTokens {
        bos: Some("<s>".into()),
        eos: Some("</s>".into()),
    };
    let messages = [Message::new("user", " Hi <é> "), Message::new("assistant", "Ho")];
    ChatTemplate::try_new(source, tokens)?.render(&messages, options)
}

fn check(source: &str, expect: &str) {
    assert_eq!(
        render(source, &RenderOptions::default()).as_deref(),
        Ok(expect),
        "{source}"
    );
}

#[test]
fn chatml_adds_its_system_turn_and_opens_the_answer() {
    let template = ChatTemplate::try_new(CHATML, TemplateTokens::default()).unwrap();
    let options = RenderOptions {
        add_generation_prompt: true,
        ..RenderOptions::default()
    };
    let text = template.render(&[Message::new("user", "Hi")], &options).unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn templates_mean_what_they_mean_in_python() {
    // Blocks lose their own line; expressions keep it.
    check("  {% if true %}\nx\n  {% endif %}\ny", "x\ny");
    check(
        "{{ bos_token }}{{ messages[0].content.strip() }}{{ eos_token }}",
        "<s>Hi <é></s>",
    );
    check("{{ messages[0]['content'] | trim | upper }}", "HI <É>");
    check(
        "{{ messages | map(attribute='role') | join(',') }}",
        "user,assistant",
    );
    check("{{ messages[::-1][0].role }}", "assistant");
    check("{{ tools is defined }}{{ tools is none }}", "TrueTrue");
    check("{{ unknown }}|{{ strftime_now is defined }}", "|False");
    check(
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
        "user",
    );
    check(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "2",
    );
    check("a{%- generation -%} b {%- endgeneration %}c", "abc");
    check("{{ 'x' if 'Hi' in messages[0].content else 'y' }}", "x");
    check("{{ messages[0].content.split('<')[-1] }}", "é> ");
}

#[test]
fn json_is_printed_as_python_does() {
    check(
        "{{ messages[0] | tojson }}",
        r#"{"role": "user", "content": " Hi <é> "}"#,
    );
    check(
        "{{ {'b': [1, 2.5, none], 'a': true} | tojson }}",
        r#"{"b": [1, 2.5, null], "a": true}"#,
    );
    check("{{ [1, {}] | tojson(indent=2) }}", "[\n  1,\n  {}\n]");
    check(
        "{{ 'é😀' | tojson(ensure_ascii=true) }}",
        r#""\u00e9\ud83d\ude00""#,
    );
}

#[test]
fn the_clock_is_an_argument() {
    let source = "{{ strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' }}";
    check(source, "26 Jul 2024");
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let options = RenderOptions {
        now: Some(now),
        ..RenderOptions::default()
    };
    assert_eq!(render(source, &options).as_deref(), Ok("14 Nov 2023"));
    assert!(matches!(
        render("{{ strftime_now('%!') }}", &options),
        Err(TemplateError::Render { .. })
    ));
}

#[test]
fn variables_reach_the_template_but_cannot_replace_messages() {
    let variables = serde_json::json!({"enable_thinking": false, "messages": []});
    let serde_json::Value::Object(variables) = variables else {
        unreachable!("written as an object")
    };
    let options = RenderOptions {
        variables,
        ..RenderOptions::default()
    };
    let text = render("{{ enable_thinking is false }} {{ messages | length }}", &options);
    assert_eq!(text.as_deref(), Ok("True 2"));
}

#[test]
fn bad_templates_are_typed_errors() {
    let fail = |source: &str| render(source, &RenderOptions::default()).unwrap_err();
    assert!(matches!(
        fail("a\n{% if %}"),
        TemplateError::Syntax { line: 2, .. }
    ));
    assert!(matches!(fail("{% unknown_tag %}"), TemplateError::Syntax { .. }));
    // Neither tag nor end of one: an opening whose `%` must not be taken for a closing.
    for source in ["{%}", "a{%}", "{% if true %}b{%}"] {
        assert!(matches!(fail(source), TemplateError::Syntax { .. }), "{source}");
    }
    let refusal = TemplateError::Refused {
        message: "roles must alternate".into(),
    };
    assert_eq!(fail("{{ raise_exception('roles must alternate') }}"), refusal);
    assert!(matches!(
        fail("\n{{ nothing.at.all }}"),
        TemplateError::Render { line: 2, .. }
    ));
    assert!(matches!(
        fail("{{ messages | tojson(sort_of=1) }}"),
        TemplateError::Render { .. }
    ));
    let recursion = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
    assert!(matches!(fail(recursion), TemplateError::Render { .. }));
}

#[test]
fn templates_cannot_run_or_grow_without_end() {
    let fuel = TemplateError::OutOfFuel {
        fuel: ChatTemplate::FUEL,
    };
    let fail = |source: &str| render(source, &RenderOptions::default()).unwrap_err();
    let nested = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}";
    assert_eq!(fail(nested), fuel);
    let doubling = "{% set ns = namespace(s='x' * 64) %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
    assert_eq!(fail(doubling), fuel);
}
