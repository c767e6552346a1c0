//! What policies are called in figures: what they were trained on, and as much more as tells them apart. Knows cards alone.

use crate::policy_card::PolicyCard;

/// What one policy is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// The same for policies that differ in nothing but how far they got; without a card the name by which it was given.
    pub(super) method: String,
    /// The same without seeds: what runs have in common that may be averaged.
    pub(super) family: String,
    /// Of the training, as its card tells it.
    pub(super) training_seed: Option<u64>,
}

/// The names of all policies, which tell them apart.
pub(super) fn names(policies: &[String], cards: &[Option<PolicyCard>]) -> Vec<Named> {
    let families = families(policies, cards);
    let named = methods(policies, cards).into_iter().zip(families).zip(cards);
    named
        .map(|((method, family), card)| Named {
            method,
            family,
            training_seed: card.as_ref().map(|card| card.seed),
        })
        .collect()
}

fn methods(policies: &[String], cards: &[Option<PolicyCard>]) -> Vec<String> {
    named(policies, cards, |card| {
        let mut all = settings(card);
        all.push(Some(format!("seed {}", card.seed)));
        all
    })
}

fn families(policies: &[String], cards: &[Option<PolicyCard>]) -> Vec<String> {
    named(policies, cards, settings)
}

fn named(
    policies: &[String],
    cards: &[Option<PolicyCard>],
    settings: impl Fn(&PolicyCard) -> Vec<Option<String>>,
) -> Vec<String> {
    let named: Vec<(String, Vec<Option<String>>)> = policies
        .iter()
        .zip(cards)
        .map(|(policy, card)| match card {
            Some(card) => (kind(card), settings(card)),
            None => (policy.clone(), Vec::new()),
        })
        .collect();
    let name = |(kind, settings): &(String, Vec<Option<String>>)| {
        let of_kind: Vec<&Vec<Option<String>>> = named
            .iter()
            .filter(|(other, _)| other == kind)
            .map(|(_, settings)| settings)
            .collect();
        let telling = settings.iter().enumerate().filter_map(|(idx, setting)| {
            let is_telling = of_kind.iter().any(|other| other.get(idx) != Some(setting));
            setting.as_ref().filter(|_| is_telling)
        });
        let parts: Vec<&str> = std::iter::once(kind).chain(telling).map(String::as_str).collect();
        parts.join(", ")
    };
    named.iter().map(name).collect()
}

/// The objective, and the transform where rewards are transformed: winners and pairs are the same under any.
fn kind(card: &PolicyCard) -> String {
    match card.objective.as_str() {
        "rl" => format!("rl {}", card.transform),
        other => other.to_owned(),
    }
}

/// What else a policy was trained with, in the order in which it is told.
fn settings(card: &PolicyCard) -> Vec<Option<String>> {
    let advantage = card.advantage.and_then(|advantage| {
        let value = serde_json::to_value(advantage).ok()?;
        Some(format!("advantage {}", value.as_str()?))
    });
    let calibration = card.calibration_sha256.as_ref();
    vec![
        Some(format!("from {}", card.base.name)),
        Some(format!("reward {}", card.reward)),
        Some(format!("for {}", card.procedure)),
        card.beta.map(|beta| format!("beta {beta}")),
        advantage,
        card.interpolated
            .filter(|&interpolated| interpolated)
            .map(|_| "interpolated".to_owned()),
        calibration.map(|sha256| format!("calibration {}", sha256.get(..8).unwrap_or(sha256))),
    ]
}

#[cfg(test)]
mod tests {
    use trimtab_train::policy::Advantage;

    use super::*;
    use crate::policy_card::tests::card;

    fn methods_of(cards: Vec<PolicyCard>) -> Vec<String> {
        let cards: Vec<Option<PolicyCard>> = cards.into_iter().map(Some).collect();
        let policies = vec!["p".to_owned(); cards.len()];
        methods(&policies, &cards)
    }

    #[test]
    fn names_hold_what_tells_policies_apart() {
        let plain = || card("model");
        let check =
            |other: PolicyCard, expect: [&str; 2]| assert_eq!(methods_of(vec![plain(), other]), expect);
        check(plain(), ["rl exp:10"; 2]);
        // How far one run got is what lines are along.
        let further = PolicyCard {
            step: 9,
            kl_nats: Some(2.0),
            ..plain()
        };
        check(further, ["rl exp:10"; 2]);
        let other_beta = PolicyCard {
            beta: Some(0.5),
            seed: 1,
            ..plain()
        };
        check(
            other_beta,
            ["rl exp:10, beta 0.1, seed 0", "rl exp:10, beta 0.5, seed 1"],
        );
        let round = PolicyCard {
            advantage: Some(Advantage::Round),
            ..plain()
        };
        check(
            round,
            ["rl exp:10, advantage group", "rl exp:10, advantage round"],
        );
        let lines = PolicyCard {
            interpolated: Some(true),
            procedure: "won:4".to_owned(),
            ..plain()
        };
        check(
            lines,
            ["rl exp:10, for bon:4", "rl exp:10, for won:4, interpolated"],
        );
        let raw = PolicyCard {
            transform: "raw".to_owned(),
            beta: Some(0.5),
            ..plain()
        };
        check(raw, ["rl exp:10", "rl raw"]);
    }

    #[test]
    fn seeds_are_of_one_family() {
        let seed = |seed, beta| {
            Some(PolicyCard {
                seed,
                beta: Some(beta),
                ..card("model")
            })
        };
        let cards = [seed(0, 0.1), seed(1, 0.1), seed(1, 0.5)];
        let policies = vec!["p".to_owned(); 3];
        let (one, other) = ("rl exp:10, beta 0.1", "rl exp:10, beta 0.5");
        assert_eq!(families(&policies, &cards), [one, one, other]);
        assert_eq!(
            methods(&policies, &cards),
            [
                format!("{one}, seed 0"),
                format!("{one}, seed 1"),
                format!("{other}, seed 1")
            ]
        );
    }

    #[test]
    fn pairs_and_winners_have_no_transform() {
        let of = |objective: &str| PolicyCard {
            objective: objective.to_owned(),
            transform: "identity".to_owned(),
            ..card("model")
        };
        let objectives = ["dpo", "ipo", "sft", "bonbon"];
        assert_eq!(methods_of(objectives.map(of).to_vec()), objectives);
    }

    #[test]
    fn models_without_a_card_are_called_by_their_names() {
        let policies = ["a.gguf", "p", "b.gguf"].map(str::to_owned);
        let trained = PolicyCard {
            seed: 5,
            ..card("model")
        };
        let cards = [None, Some(trained), None];
        let named = |name: &str, training_seed| Named {
            method: name.to_owned(),
            family: name.to_owned(),
            training_seed,
        };
        assert_eq!(
            names(&policies, &cards),
            [
                named("a.gguf", None),
                // One seed tells no policies apart, and pairs runs all the same.
                named("rl exp:10", Some(5)),
                named("b.gguf", None)
            ]
        );
    }
}
