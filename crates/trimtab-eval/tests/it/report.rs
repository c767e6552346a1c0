//! The files of a report: stable keys, same bytes, nothing fetched, nothing of a model's output taken for markup.

use serde_json::Value;
use trimtab_eval::{Example, ExampleAnswer, Frontier, FrontierInput, Report};

use crate::fixture::frontier_input;

const SPECS: [&str; 3] = ["sample:t=0.7", "bon:4", "majority:n=4,answer=text"];

fn report() -> Report {
    let hostile = "<script>alert('x')</script> & \"quotes\" </p>";
    Report {
        frontier: Frontier::compute(&frontier_input(&SPECS, 12)).unwrap(),
        examples: vec![Example {
            prompt: format!("say {hostile}"),
            answers: SPECS
                .map(|method| ExampleAnswer {
                    method: method.into(),
                    text: hostile.into(),
                    reward: 1.0,
                })
                .to_vec(),
        }],
    }
}

#[test]
fn json_has_the_stable_keys() {
    let json: Value = serde_json::from_str(&report().frontier.to_json().unwrap()).unwrap();
    assert_eq!(json["model_sha256"], "5ca1ab1e");
    assert_eq!(json["seed"], 7);
    let points = json["points"].as_array().unwrap();
    assert_eq!(points.len(), SPECS.len());
    for point in points {
        for key in ["reward_mean", "win_rate", "kl_nats"] {
            assert!(point[key].is_f64(), "{key} of {point}");
        }
        for key in ["reward_ci", "win_rate_ci"] {
            let [lo, hi] = [&point[key][0], &point[key][1]].map(|end| end.as_f64().unwrap());
            assert!(
                lo <= hi && point[key].as_array().unwrap().len() == 2,
                "{key} of {point}"
            );
        }
        assert!(point["num_candidates"].is_u64() && point["tokens_generated"].is_u64());
        assert!(["exact", "bound", "estimate"].contains(&point["kl_kind"].as_str().unwrap()));
    }
    assert_eq!(points[0]["method"], "sample:t=0.7");
    assert_eq!(points[1]["kl_kind"], "bound");
}

#[test]
fn json_round_trips() {
    let frontier = report().frontier;
    let read: Frontier = serde_json::from_str(&frontier.to_json().unwrap()).unwrap();
    assert_eq!(read, frontier);
}

#[test]
fn csv_has_one_row_a_method_and_the_numbers_of_the_json() {
    let frontier = report().frontier;
    let text = frontier.to_csv().unwrap();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), frontier.points.len());
    let column = |name: &str| header.iter().position(|title| title == name).unwrap();
    for (row, point) in rows.iter().zip(&frontier.points) {
        assert_eq!(&row[column("method")], point.method);
        assert_eq!(row[column("win_rate")].parse::<f64>().unwrap(), point.win_rate);
        assert_eq!(
            row[column("reward_ci_hi")].parse::<f64>().unwrap(),
            point.reward_ci.unwrap().hi
        );
        assert_eq!(&row[column("kl_kind")], point.kl_kind.name());
        let estimate = point
            .kl_estimate_nats
            .map(|estimate| estimate.to_string())
            .unwrap_or_default();
        assert_eq!(row[column("kl_estimate_nats")], estimate);
    }
}

#[test]
fn texts_stay_texts() {
    let html = report().to_html();
    assert!(!html.contains("<script"), "a response became markup");
    assert!(html.contains("&lt;script&gt;alert('x')&lt;/script&gt; &amp; &quot;quotes&quot; &lt;/p&gt;"));
    assert!(html.contains("table &lt;lm&gt; &amp; &quot;friends&quot;"));
}

#[test]
fn the_page_fetches_nothing_and_says_what_numbers_are() {
    let html = report().to_html();
    for fetched in ["http:", "https:", "src=", "url(", "@import", "<link", "<iframe"] {
        assert!(!html.contains(fetched), "the page has {fetched:?}");
    }
    for said in [
        "(nats)",
        "bound",
        "exact",
        "95%",
        "matches",
        "tokens drawn",
        "5ca1ab1e",
        "closed form",
    ] {
        assert!(html.contains(said), "the page lacks {said:?}");
    }
    assert_eq!(html.matches("role=\"img\"").count(), 4);
    assert!(
        !html.contains("NaN") && !html.contains("inf\""),
        "a number is none"
    );
}

#[test]
fn a_report_is_the_same_bytes_whatever_the_order_of_the_journal() {
    let mut input = frontier_input(&SPECS, 12);
    let report_of = |input: &FrontierInput| Report {
        frontier: Frontier::compute(input).unwrap(),
        examples: Vec::new(),
    };
    let forwards = report_of(&input);
    input.references.reverse();
    for method in &mut input.methods {
        method.runs.reverse();
    }
    let backwards = report_of(&input);
    assert_eq!(forwards.to_html(), backwards.to_html());
    assert_eq!(
        forwards.frontier.to_json().unwrap(),
        backwards.frontier.to_json().unwrap()
    );
    assert_eq!(
        forwards.frontier.to_csv().unwrap(),
        backwards.frontier.to_csv().unwrap()
    );
}

#[test]
fn files_appear_whole_and_replace_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("report.html"), "old").unwrap();
    let report = report();
    let files = report.write(folder.path()).unwrap();
    assert_eq!(std::fs::read_to_string(&files.html).unwrap(), report.to_html());
    assert_eq!(
        std::fs::read_to_string(&files.json).unwrap(),
        report.frontier.to_json().unwrap()
    );
    assert_eq!(
        std::fs::read_to_string(&files.csv).unwrap(),
        report.frontier.to_csv().unwrap()
    );
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        3,
        "parts are left behind"
    );
    let error = report.write(&folder.path().join("missing")).unwrap_err();
    assert!(error.to_string().contains("frontier.json"), "{error}");
}

#[test]
fn the_table_fits_the_terminal() {
    let mut frontier = report().frontier;
    let text = frontier.to_table(None);
    assert!(
        text.contains("bon:4")
            && text.contains("bound, est.")
            && text.contains("95% intervals over 12 prompts")
    );
    let rules = text
        .lines()
        .filter(|line| line.contains("\u{2500}\u{2500}"))
        .count();
    assert_eq!(rules, 2, "one above and one below:\n{text}");
    let num_lines = text.lines().filter(|line| line.contains('[')).count();
    assert_eq!(num_lines, SPECS.len(), "no row wraps:\n{text}");
    frontier.facts.reward =
        "keywords:thanks|please|sorry|welcome + length*-0.1 + json*2 + regex:[a-z]+ and so on, very long"
            .into();
    frontier.facts.reward_unit = "a weighted sum".into();
    frontier.points[1].method = "majority:n=16,answer=number,t=0.7,top_p=0.95,min_p=0.05".into();
    frontier.points[1].reward_mean = f64::NAN;
    frontier.points[2].reward_mean = -123_456.7;
    frontier.points[2].kl_nats = f64::INFINITY;
    for (width, expect) in [(None, 100), (Some(200), 100), (Some(72), 72)] {
        let text = frontier.to_table(width);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= expect, "{line}");
        }
    }
}
