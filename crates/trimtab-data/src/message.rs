//! Turns of a dialogue, in the hubs' chat form and in Anthropic's transcripts. Knows no template of a model.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::shown;

/// What opens a turn of the person in HH-RLHF.
const HUMAN: &str = "\n\nHuman:";
/// What opens a turn of the assistant in HH-RLHF.
const ASSISTANT: &str = "\n\nAssistant:";

/// One turn of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// The turns of a prompt: `messages`, or where there are none the one turn of a user who says `prompt`.
pub(crate) fn turns(prompt: &str, messages: &[Message]) -> Vec<Message> {
    if messages.is_empty() {
        vec![Message::new("user", prompt)]
    } else {
        messages.to_vec()
    }
}

/// A prompt's two forms of turns: the text that rewards see, and the turns themselves, empty for one user turn.
pub(crate) fn prompt_of(mut messages: Vec<Message>) -> (String, Vec<Message>) {
    if let [only] = messages.as_mut_slice()
        && only.role == "user"
    {
        return (std::mem::take(&mut only.content), Vec::new());
    }
    (transcript(&messages), messages)
}

/// Turns as one text, each with its role before it.
fn transcript(messages: &[Message]) -> String {
    let line = |message: &Message| {
        let role = match message.role.as_str() {
            "user" => "Human",
            "assistant" => "Assistant",
            other => other,
        };
        format!("{role}: {}", message.content)
    };
    messages.iter().map(line).collect::<Vec<_>>().join("\n\n")
}

/// Turns from the hubs' chat form, a list of `{"role", "content"}`.
///
/// # Errors
/// What is wrong with the value.
pub(crate) fn parse_messages(value: &Value) -> Result<Vec<Message>, String> {
    let list = value.as_array().filter(|list| !list.is_empty());
    let list = list.ok_or_else(|| {
        let got = shown(value);
        format!("expected a list of messages with role and content, got {got}")
    })?;
    list.iter().enumerate().map(parse_message).collect()
}

fn parse_message((idx, value): (usize, &Value)) -> Result<Message, String> {
    let no_fields = Map::new();
    let fields = value.as_object().unwrap_or(&no_fields);
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    match (text("role"), text("content")) {
        (Some(role), Some(content)) => Ok(Message::new(role, content)),
        _ => Err(format!(
            "message {idx}: expected the texts \"role\" and \"content\", got {}",
            shown(value)
        )),
    }
}

/// Whether a text is a transcript as in HH-RLHF.
pub(crate) fn is_transcript(text: &str) -> bool {
    text.starts_with(HUMAN) && text.contains(ASSISTANT)
}

/// The turns of a transcript as in HH-RLHF.
pub(crate) fn parse_transcript(text: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = text;
    while let Some((role, marker)) = opening(rest) {
        let content = &rest[marker.len()..];
        let end = [HUMAN, ASSISTANT]
            .iter()
            .filter_map(|next| content.find(next))
            .min();
        let end = end.unwrap_or(content.len());
        messages.push(Message::new(role, content[..end].trim()));
        rest = &content[end..];
    }
    messages
}

fn opening(text: &str) -> Option<(&'static str, &'static str)> {
    [("user", HUMAN), ("assistant", ASSISTANT)]
        .into_iter()
        .find(|(_, marker)| text.starts_with(marker))
}

/// A transcript cut before the answer of its last assistant turn: the turns up to there, and the answer.
pub(crate) fn split_last_answer(text: &str) -> Option<(Vec<Message>, String)> {
    let at = text.rfind(ASSISTANT)?;
    let answer = text[at + ASSISTANT.len()..].trim().to_owned();
    Some((parse_transcript(&text[..at]), answer))
}

/// Two transcripts cut at the last assistant turn that both open before they differ: the turns up to there, and what
/// follows in each.
pub(crate) fn split_common(chosen: &str, rejected: &str) -> Option<(Vec<Message>, [String; 2])> {
    let pairs = chosen.char_indices().zip(rejected.chars());
    let same = pairs
        .take_while(|((_, a), b)| a == b)
        .last()
        .map_or(0, |((at, ch), _)| at + ch.len_utf8());
    let at = chosen[..same].rfind(ASSISTANT)?;
    let answers = [chosen, rejected].map(|text| text[at + ASSISTANT.len()..].trim().to_owned());
    Some((parse_transcript(&chosen[..at]), answers))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = "\n\nHuman: a\n\nAssistant: b";
    const LONG: &str = "\n\nHuman: a\n\nAssistant: b\nc\n\nHuman: d\n\nAssistant: e";

    fn said(messages: &[Message]) -> Vec<(&str, &str)> {
        messages
            .iter()
            .map(|m| (m.role.as_str(), m.content.as_str()))
            .collect()
    }

    #[test]
    fn transcripts_are_cut_into_turns() {
        let check = |text: &str, expect: &[(&str, &str)]| assert_eq!(said(&parse_transcript(text)), expect);
        check(SHORT, &[("user", "a"), ("assistant", "b")]);
        check(
            LONG,
            &[
                ("user", "a"),
                ("assistant", "b\nc"),
                ("user", "d"),
                ("assistant", "e"),
            ],
        );
        check("\n\nHuman: é\n\nAssistant:", &[("user", "é"), ("assistant", "")]);
        check("no transcript", &[]);
        assert!(is_transcript(SHORT) && !is_transcript("Human: a\n\nAssistant: b"));
    }

    #[test]
    fn the_last_answer_is_what_follows_the_last_assistant() {
        let (turns, answer) = split_last_answer(LONG).unwrap();
        assert_eq!(
            said(&turns),
            [("user", "a"), ("assistant", "b\nc"), ("user", "d")]
        );
        assert_eq!(answer, "e");
        assert!(split_last_answer("\n\nHuman: a").is_none());
    }

    #[test]
    fn a_pair_shares_what_comes_before_it_differs() {
        let check = |chosen: &str, rejected: &str, turns: usize, answers: [&str; 2]| {
            let (common, got) = split_common(chosen, rejected).unwrap();
            assert_eq!(
                (common.len(), [got[0].as_str(), got[1].as_str()]),
                (turns, answers)
            );
        };
        check(LONG, &LONG.replace("t: e", "t: f"), 3, ["e", "f"]);
        // One that begins with the other, and characters of several bytes.
        check(LONG, &format!("{LONG} and more"), 3, ["e", "e and more"]);
        check(&LONG.replace('e', "é"), &LONG.replace('e', "è"), 3, ["é", "è"]);
        // One dialogue goes on: the answers hold all that differs.
        check(SHORT, LONG, 1, ["b", "b\nc\n\nHuman: d\n\nAssistant: e"]);
        assert!(split_common(SHORT, "\n\nHuman: b\n\nAssistant: b").is_none());
    }

    #[test]
    fn one_user_turn_is_a_prompt_and_more_are_a_transcript_too() {
        assert_eq!(
            prompt_of(vec![Message::new("user", "hi")]),
            ("hi".to_owned(), vec![])
        );
        let turns = parse_transcript(LONG)[..3].to_vec();
        let (text, kept) = prompt_of(turns.clone());
        assert_eq!(text, "Human: a\n\nAssistant: b\nc\n\nHuman: d");
        assert_eq!(kept, turns);
    }

    #[test]
    fn messages_that_are_none_are_named() {
        let check = |json: &str, expect: &str| {
            let value: Value = serde_json::from_str(json).unwrap();
            let problem = parse_messages(&value).unwrap_err();
            assert!(problem.contains(expect), "{problem:?} lacks {expect:?}");
        };
        check("[]", "expected a list");
        check("\"hi\"", "got \"hi\"");
        check(
            "[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"user\"}]",
            "message 1",
        );
    }
}
