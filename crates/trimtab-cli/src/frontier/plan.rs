//! Which candidates must be drawn for a set of methods. Knows methods, not prompts or results.
//!
//! Candidate `i` of a prompt is the same whatever the number of candidates, so plain sampling and best-of-4 are the
//! first candidates of best-of-16 when all draw from one policy: drawn once, used by all.

use serde::{Deserialize, Serialize};
use trimtab_base::Seed;
use trimtab_decode::{DecodeSpec, Sampling};

/// Candidates drawn together for every prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// How they are drawn.
    pub(crate) decode: DecodeSpec,
    /// Seed of their random streams.
    pub(crate) seed: Seed,
}

/// Everything to draw, and which group serves which method.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// The first group is the reference's.
    pub(crate) groups: Vec<Group>,
    /// Index into `groups` of each method, in the methods' order.
    pub(crate) group_of_method: Vec<usize>,
}

/// Index of the reference answers' group.
pub(crate) const REFERENCE_GROUP: usize = 0;

impl Plan {
    /// The fewest draws that serve all `methods`.
    pub(crate) fn new(methods: &[DecodeSpec], reference_samples: usize, seed: u64) -> Self {
        let reference = Group {
            decode: DecodeSpec::BestOfN {
                num_candidates: reference_samples,
                sampling: Sampling::REFERENCE,
            },
            seed: reference_seed(seed),
        };
        let mut groups = vec![reference];
        let mut group_of_method = Vec::with_capacity(methods.len());
        for method in methods {
            let wanted = Group {
                decode: drawn_by(method),
                seed: Seed(seed),
            };
            let serving = groups
                .iter_mut()
                .enumerate()
                .skip(1)
                .find_map(|(idx, group)| widen(&mut group.decode, &wanted.decode).then_some(idx));
            group_of_method.push(serving.unwrap_or_else(|| {
                groups.push(wanted);
                groups.len() - 1
            }));
        }
        Self {
            groups,
            group_of_method,
        }
    }
}

/// Seed of the reference answers: another stream than the methods', so that no answer is compared with itself.
fn reference_seed(seed: u64) -> Seed {
    Seed(seed ^ 0x7265_6665_7265_6e63)
}

/// Whether a method is a choice among independent draws from one policy.
pub(crate) fn is_drawn(method: &DecodeSpec) -> bool {
    !matches!(method, DecodeSpec::Beam(_) | DecodeSpec::Greedy)
}

/// What must be drawn for `method`: choices among draws differ only in the rule, which is applied afterwards.
fn drawn_by(method: &DecodeSpec) -> DecodeSpec {
    if is_drawn(method) {
        DecodeSpec::BestOfN {
            num_candidates: method.num_candidates(),
            sampling: method.sampling(),
        }
    } else {
        method.clone()
    }
}

/// Makes `group` serve `wanted` as well, if both draw from one policy.
fn widen(group: &mut DecodeSpec, wanted: &DecodeSpec) -> bool {
    match (group, wanted) {
        (
            DecodeSpec::BestOfN {
                num_candidates,
                sampling,
            },
            DecodeSpec::BestOfN {
                num_candidates: wanted,
                sampling: wanted_sampling,
            },
        ) if sampling == wanted_sampling => {
            *num_candidates = (*num_candidates).max(*wanted);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(methods: &[&str], expect: &[&str], expect_groups: &[usize]) {
        let methods: Vec<DecodeSpec> = methods.iter().map(|method| method.parse().unwrap()).collect();
        let plan = Plan::new(&methods, 4, 7);
        let groups: Vec<String> = plan.groups.iter().map(|group| group.decode.to_string()).collect();
        assert_eq!(
            (groups, plan.group_of_method),
            (
                expect.iter().map(|&s| s.to_owned()).collect(),
                expect_groups.to_vec()
            )
        );
    }

    #[test]
    fn methods_on_one_policy_share_their_draws() {
        check(&["sample", "bon:4", "bon:16"], &["bon:4", "bon:16"], &[1, 1, 1]);
        check(
            &["won:8", "majority:2", "sample"],
            &["bon:4", "bon:8"],
            &[1, 1, 1],
        );
        check(
            &["sample:t=0.5", "bon:4"],
            &["bon:4", "bon:n=1,t=0.5", "bon:4"],
            &[1, 2],
        );
        check(
            &["greedy", "beam:3", "sample"],
            &["bon:4", "greedy", "beam:3", "bon:1"],
            &[1, 2, 3],
        );
    }

    #[test]
    fn reference_answers_have_coins_of_their_own() {
        let plan = Plan::new(&["sample".parse().unwrap()], 4, 7);
        assert_ne!(plan.groups[0].seed, plan.groups[1].seed);
        assert_ne!(plan.groups[0].seed, Plan::new(&[], 4, 8).groups[0].seed);
    }
}
