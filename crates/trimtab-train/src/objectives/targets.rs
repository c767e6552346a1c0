//! Targets of prefix scorers on plain slices: what each prefix's value is drawn to. No tensors here.

/// CD-FUDGE's target (CD Eq. 4, arXiv 2310.17022v3): the final reward at every prefix. `out`: `[T + 1]`
pub fn final_reward(reward: f32, out: &mut [f32]) {
    out.fill(reward);
}

/// CD-Q's target (CD Eq. 5, arXiv 2310.17022v3) and its extensions:
///
/// `v_t = E_{z ~ pi_ref(. | y^t)} V([x, y^t, z])` for `t < T`, and `v_T = r`;
/// target `G_t = (1 - lambda) v_t + lambda G_{t+1}`, `G_T = r`.
///
/// `lambda` 0 is the paper's. Differs: above 0 these are lambda-returns (Sutton & Barto 2018, 12.1), which equal the
/// paper's in expectation only on responses drawn from the reference.
///
/// `expected`: `v_t` of each prefix, `[T + 1]`; its last value is not read, for nothing follows the end.
pub fn lambda_return(expected: &[f32], reward: f32, lambda: f32, out: &mut [f32]) {
    let mut next = reward;
    for (prefix_idx, target) in out.iter_mut().enumerate().rev() {
        if prefix_idx + 1 < expected.len() {
            next = (1.0 - lambda) * expected[prefix_idx] + lambda * next;
        }
        *target = next;
    }
}

/// The target that follows the response for `num_steps - 1` tokens before it reads a value: `v_{t + num_steps - 1}`, or
/// `r` where the response has ended by then. Differs: an extension; 1 is CD Eq. 5. Shapes as [`lambda_return`].
pub fn num_step_return(expected: &[f32], reward: f32, num_steps: usize, out: &mut [f32]) {
    for (prefix_idx, target) in out.iter_mut().enumerate() {
        let read_at = prefix_idx + num_steps - 1;
        *target = if read_at + 1 < expected.len() {
            expected[read_at]
        } else {
            reward
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: [f32; 4] = [1.0, 2.0, 4.0, f32::NAN];

    fn check_lambda(lambda: f32, expect: [f32; 4]) {
        let mut out = [0.0; 4];
        lambda_return(&EXPECTED, 8.0, lambda, &mut out);
        assert_eq!(out, expect, "lambda {lambda}");
    }

    fn check_steps(num_steps: usize, expect: [f32; 4]) {
        let mut out = [0.0; 4];
        num_step_return(&EXPECTED, 8.0, num_steps, &mut out);
        assert_eq!(out, expect, "{num_steps} steps");
    }

    #[test]
    fn lambda_goes_from_one_step_to_the_final_reward() {
        check_lambda(0.0, [1.0, 2.0, 4.0, 8.0]);
        check_lambda(1.0, [8.0; 4]);
        check_lambda(0.5, [2.5, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn steps_go_from_one_step_to_the_final_reward() {
        check_steps(1, [1.0, 2.0, 4.0, 8.0]);
        check_steps(2, [2.0, 4.0, 8.0, 8.0]);
        check_steps(9, [8.0; 4]);
    }

    #[test]
    fn an_empty_response_has_only_its_reward() {
        let mut out = [0.0];
        lambda_return(&[5.0], 3.0, 0.0, &mut out);
        assert_eq!(out, [3.0]);
    }
}
