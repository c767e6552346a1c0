use super::*;

fn prepared(text: &str) -> PreparedProcedure {
    text.parse::<Procedure>().unwrap().prepare().unwrap()
}

#[test]
fn texts_are_read_and_written_back() {
    for text in ["sample", "bon:4", "won:128", "rewind:0.9", "weight:g.csv"] {
        let procedure: Procedure = text.parse().unwrap();
        assert_eq!(procedure.to_string(), text);
        assert_eq!(serde_json::to_string(&procedure).unwrap(), format!("\"{text}\""));
    }
    let check = |text: &str, expect: &str| {
        let error = text.parse::<Procedure>().unwrap_err().to_string();
        assert!(error.contains(expect), "{text:?}: {error}");
    };
    check(
        "best:4",
        "expected one of sample, bon:N, won:N, rewind:PHI, weight:FILE as procedure",
    );
    check("bon", "expected one of");
    check("bon:0", "a whole number from 1");
    check("rewind:1", "from 0 to below 1, got \"1\"");
    check("weight:", "expected one of");
}

/// `G` is the integral of `g` from 0, and 1 at 1: by sums of midpoints.
#[test]
fn configurations_hold_a_procedure_as_text_only() {
    let read = |json: &str| serde_json::from_str::<Procedure>(json).map_err(|error| error.to_string());
    assert_eq!(read("\"bon:4\""), Ok(Procedure::BestOf { n: 4 }));
    let error = read("\"bno:4\"").unwrap_err();
    assert!(error.contains("expected one of sample, bon:N"), "{error}");
    let error = read("4").unwrap_err();
    assert!(error.contains("integer `4`, expected a string"), "{error}");
}

#[test]
fn cumulative_weights_are_integrals_of_weights() {
    let table = "0 0\n0.25 2\n0.5 0\n1 4";
    let weights = "weight:g"
        .parse::<Procedure>()
        .unwrap()
        .with_table(table)
        .unwrap();
    let mut all = vec![("weight", weights.prepare().unwrap())];
    for text in [
        "sample",
        "bon:1",
        "bon:4",
        "won:4",
        "won:64",
        "rewind:0.75",
        "rewind:0",
    ] {
        all.push((text, prepared(text)));
    }
    for (name, procedure) in all {
        let (num_steps, mut sum) = (100_000_u32, 0.0);
        for step in 0..num_steps {
            let q = (f64::from(step) + 0.5) / f64::from(num_steps);
            let before = procedure.cumulative(q - 0.5 / f64::from(num_steps));
            assert!((before - sum).abs() < 1e-5, "{name} at {q}: {before} and {sum}");
            sum += procedure.weight(q) / f64::from(num_steps);
        }
        assert!(
            (sum - 1.0).abs() < 1e-5 && (procedure.cumulative(1.0) - 1.0).abs() < 1e-12,
            "{name}"
        );
    }
}

#[test]
fn large_numbers_of_candidates_neither_overflow_nor_cancel() {
    let won = prepared("won:128");
    assert!((won.cumulative(1e-12) / 128e-12 - 1.0).abs() < 1e-9);
    assert_eq!(won.cumulative(1.0), 1.0);
    assert_eq!(prepared("bon:1048576").cumulative(0.5), 0.0);
}

#[test]
fn weights_have_to_be_read_and_positive_somewhere() {
    let unread: Procedure = "weight:g.csv".parse().unwrap();
    assert_eq!(unread.unread_table(), Some("g.csv"));
    assert!(matches!(
        unread.prepare(),
        Err(InfalignError::TableNotRead { .. })
    ));
    let fails = |text: &str| unread.clone().with_table(text).unwrap_err().to_string();
    assert!(fails("0 1\n1 -1").contains("at least 0, got -1 at 1"));
    assert!(fails("0 0\n1 0").contains("a positive weight somewhere"));
}
