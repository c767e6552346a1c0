//! Which colour a method has, on the whole page. Knows names of series, no colour.

use crate::frontier::Frontier;

/// Colours by index, in the order of first use.
pub(super) struct Shades {
    /// Of each point.
    pub(super) of_point: Vec<usize>,
    /// Of each series, with its name.
    pub(super) series: Vec<(usize, String)>,
}

/// One colour a series, and one for each method that is in none.
pub(super) fn shades(frontier: &Frontier) -> Shades {
    let mut shades = Shades {
        of_point: Vec::with_capacity(frontier.points.len()),
        series: Vec::new(),
    };
    let mut next = 0;
    for point in &frontier.points {
        let series = point.shown_as.series.as_ref();
        let known = series.and_then(|name| shades.series.iter().find(|(_, known)| known == name));
        let shade = known.map_or(next, |(shade, _)| *shade);
        if known.is_none() {
            next += 1;
            shades.series.extend(series.map(|name| (shade, name.clone())));
        }
        shades.of_point.push(shade);
    }
    shades
}
