use super::*;

#[test]
fn last_numbers_have_one_form() {
    let check = |text: &str, expect: Option<&str>| {
        assert_eq!(
            AnswerExtractor::LastNumber.extract(text).as_deref(),
            expect,
            "{text:?}"
        );
    };
    check("The answer is 42.", Some("42"));
    check("42.0", Some("42"));
    check("costs $1,234.50 in all", Some("1234.5"));
    check("1,2,3", Some("3"));
    check("12,3456", Some("3456"));
    check("5-3", Some("3"));
    check("it is -3", Some("-3"));
    check("(2)-7", Some("7"));
    check("x = \u{2212}8", Some("-8"));
    check("-0", Some("0"));
    check("about 1e3", Some("1000"));
    check(".5", Some("0.5"));
    check("7 or 1e999", Some("7"));
    check("none", None);
    check("", None);
}

#[test]
fn patterns_give_their_first_group_of_the_last_match() {
    let check = |pattern: &str, text: &str, expect: Option<&str>| {
        let extractor = AnswerExtractor::pattern(pattern).expect("valid");
        assert_eq!(
            extractor.extract(text).as_deref(),
            expect,
            "{pattern:?} in {text:?}"
        );
    };
    check(r"answer: (\w+)", "answer: A ... answer: B", Some("B"));
    check(r"\d+", "1 22 333", Some("333"));
    check(r"x|(y)", "y x", Some("x"));
    check("z", "abc", None);
    assert!(matches!(
        AnswerExtractor::pattern("("),
        Err(DecodeError::InvalidPattern { .. })
    ));
}

#[test]
fn texts_differ_by_more_than_white_space_around_them() {
    let extract = |text| AnswerExtractor::Text.extract(text);
    assert_eq!(extract(" yes\n"), extract("yes"));
    assert_ne!(extract("yes"), extract("Yes"));
}
