//! Where names of marks go, so that they cover neither each other nor a mark. Knows boxes, no SVG.

/// A rectangle on the page; `top` is the smaller coordinate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Box2 {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Box2 {
    /// Area shared with another.
    fn overlap(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    fn area(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

/// Width of a character and height of a line of the page's 12-unit bold type, of the wider system fonts.
const CHAR_WIDTH: f64 = 7.2;
const LINE_HEIGHT: f64 = 13.0;
/// Distance of a name from its mark.
const GAP: f64 = 8.0;

/// Start and baseline of each name, one for each `(x, y, name)`.
///
/// Greedy: each name takes the place around its mark that covers least of the names before it, the marks and the
/// `bars`, and least of what lies outside `area`.
pub(super) fn place_labels(anchors: &[(f64, f64, &str)], bars: &[Box2], area: Box2) -> Vec<(f64, f64)> {
    let around = |x: f64, y: f64| Box2 {
        left: x - 6.0,
        right: x + 6.0,
        top: y - 6.0,
        bottom: y + 6.0,
    };
    let mut taken: Vec<Box2> = anchors
        .iter()
        .map(|&(x, y, _)| around(x, y))
        .chain(bars.iter().copied())
        .collect();
    let mut places = Vec::with_capacity(anchors.len());
    for &(x, y, name) in anchors {
        let width = name.chars().count() as f64 * CHAR_WIDTH;
        let cost = |place: &Box2| -> f64 {
            let outside = place.area() - place.overlap(&area);
            4.0 * outside + taken.iter().map(|other| place.overlap(other)).sum::<f64>()
        };
        let best = candidates(x, y, width)
            .min_by(|a, b| cost(a).total_cmp(&cost(b)))
            .expect("there are places");
        taken.push(best);
        places.push((best.left, best.bottom - 3.0));
    }
    places
}

/// Places around a mark, the best-looking first: right and left, above and below, further and further away.
fn candidates(x: f64, y: f64, width: f64) -> impl Iterator<Item = Box2> {
    let rows = [-0.9, 0.9, 0.0, -1.8, 1.8, -2.7, 2.7].map(|row| y + row * LINE_HEIGHT);
    rows.into_iter().flat_map(move |middle| {
        [x + GAP, x - GAP - width].map(|left| Box2 {
            left,
            right: left + width,
            top: middle - LINE_HEIGHT / 2.0,
            bottom: middle + LINE_HEIGHT / 2.0,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_marks_in_one_place_do_not_cover_each_other() {
        let anchors: Vec<(f64, f64, &str)> = (0..6).map(|_| (100.0, 100.0, "bon:16,t=0.7")).collect();
        let area = Box2 {
            left: 0.0,
            right: 300.0,
            top: 0.0,
            bottom: 200.0,
        };
        let places = place_labels(&anchors, &[], area);
        for (idx, a) in places.iter().enumerate() {
            for b in &places[idx + 1..] {
                assert!((a.1 - b.1).abs() >= LINE_HEIGHT - 2.0 || (a.0 - b.0).abs() >= 12.0 * CHAR_WIDTH);
            }
        }
    }

    #[test]
    fn names_stay_inside() {
        let area = Box2 {
            left: 0.0,
            right: 300.0,
            top: 0.0,
            bottom: 200.0,
        };
        let places = place_labels(&[(298.0, 3.0, "best-of-16")], &[], area);
        assert!(
            places[0].0 + 10.0 * CHAR_WIDTH <= 300.0 && places[0].1 > LINE_HEIGHT - 4.0,
            "{places:?}"
        );
    }
}
