//! Where nodes stand and how edges run.
//!
//! Levels follow one another along the *main* axis, the nodes of a level along the *cross* axis. A graph that is not
//! too wide runs from left to right, others from top to bottom; only the last step, from the two axes to x and y, differs.
//! Nodes are ordered by the mean of their neighbours (the barycentre method of Sugiyama, Tagawa and Toda), and each
//! level then lies as near to its neighbours as its order and the gaps allow, in least squares.

use std::fmt::Write;

use underbelly::GraphView;

/// A drawing from left to right is no wider than this where one from top to bottom is narrower.
const WIDTH_MAX: f64 = 1_500.0;
/// Room between levels, from left to right and from top to bottom, and between the nodes of a level.
const LEVEL_GAP: f64 = 52.0;
const LEVEL_GAP_DOWN: f64 = 42.0;
const NODE_GAP: f64 = 20.0;
/// Rounds in which nodes move towards what they are joined to.
const ROUNDS: usize = 8;
/// The length of an arrow's head.
const HEAD: f64 = 9.0;
/// How far edges keep from boxes that they pass, and from one another.
const CLEAR: f64 = 6.0;
const LANE: f64 = 5.0;
/// How far apart the loops beside the drawing lie.
const LOOP: f64 = 14.0;

/// A node's box.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// An edge's path, and where its label stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    pub(super) path: String,
    pub(super) label: (f64, f64),
    /// Whether the label ends there; it begins there otherwise.
    pub(super) label_ends: bool,
}

/// Boxes in order of the nodes, routes in order of the edges; an edge to no node has an empty path.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) places: Vec<Place>,
    pub(super) routes: Vec<Route>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A node along the two axes.
#[derive(Clone, Copy, Debug, Default)]
struct Spot {
    main: f64,
    cross: f64,
    /// Along the main axis: that of the whole level. Along the cross axis: its own.
    length: f64,
    /// Along the main axis: its own, in the middle of the level's.
    own: f64,
    breadth: f64,
}

impl Spot {
    fn middle(&self) -> f64 {
        self.cross + 0.5 * self.breadth
    }

    /// Where its own box begins and ends along the main axis.
    fn ends(&self) -> (f64, f64) {
        let before = 0.5 * (self.length - self.own);
        (self.main + before, self.main + before + self.own)
    }
}

/// Nodes of each level, ordered so that few edges cross.
fn order(view: &GraphView, neighbours: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let levels = view.nodes.iter().map(|node| node.level + 1).max().unwrap_or(0);
    // Empty levels take no room.
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); levels.min(view.nodes.len())];
    let mut used: Vec<usize> = view.nodes.iter().map(|node| node.level).collect();
    used.sort();
    used.dedup();
    for (at, node) in view.nodes.iter().enumerate() {
        let row = used.binary_search(&node.level).unwrap_or(0);
        if let Some(row) = rows.get_mut(row) {
            row.push(at);
        }
    }
    rows.retain(|row| !row.is_empty());
    let mut position = vec![0.5f64; view.nodes.len()];
    let place = |row: &[usize], position: &mut Vec<f64>| {
        for (i, at) in row.iter().enumerate() {
            if let Some(position) = position.get_mut(*at) {
                *position = (i as f64 + 0.5) / row.len() as f64;
            }
        }
    };
    rows.iter().for_each(|row| place(row, &mut position));
    for round in 0..ROUNDS {
        let mut visit: Vec<usize> = (0..rows.len()).collect();
        if round % 2 == 1 {
            visit.reverse();
        }
        for row in visit {
            let Some(row) = rows.get_mut(row) else { continue };
            let mean = |at: usize| mean(neighbours, at, |n| position.get(n).copied()).unwrap_or(0.5);
            row.sort_by(|a, b| mean(*a).total_cmp(&mean(*b)));
            place(row, &mut position);
        }
    }
    rows
}

/// The mean of what a node's neighbours have.
fn mean(neighbours: &[Vec<usize>], at: usize, of: impl Fn(usize) -> Option<f64>) -> Option<f64> {
    let found: Vec<f64> = neighbours.get(at)?.iter().filter_map(|n| of(*n)).collect();
    (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
}

/// Moves a level's nodes as near to the middles that they want as their order and gaps allow, in least squares: the
/// pool-adjacent-violators algorithm.
fn settle(row: &[usize], wanted: &[f64], spots: &mut [Spot]) {
    // Each pool is a run of nodes without room between them: the sum of the starts that they want for the first, and
    // how many they are.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    let mut offsets = Vec::with_capacity(row.len());
    let mut offset = 0.0;
    for (at, wanted) in row.iter().zip(wanted) {
        let breadth = spots.get(*at).map_or(0.0, |spot| spot.breadth);
        offsets.push(offset);
        pools.push((wanted - 0.5 * breadth - offset, 1));
        offset += breadth + NODE_GAP;
        while let [.., a, b] = pools.as_slice() {
            if a.0 / (a.1 as f64) <= b.0 / b.1 as f64 {
                break;
            }
            let joined = (a.0 + b.0, a.1 + b.1);
            pools.truncate(pools.len() - 2);
            pools.push(joined);
        }
    }
    let starts = pools.iter().flat_map(|(sum, count)| std::iter::repeat_n(sum / *count as f64, *count));
    for ((at, start), offset) in row.iter().zip(starts).zip(offsets) {
        if let Some(spot) = spots.get_mut(*at) {
            spot.cross = start + offset;
        }
    }
}

/// The clear stretches of a level, in which edges pass it: beside its boxes and between them.
struct Lanes {
    main: f64,
    length: f64,
    clear: Vec<(f64, f64)>,
    taken: Vec<f64>,
}

impl Lanes {
    fn new(row: &[usize], spots: &[Spot]) -> Lanes {
        let mut lanes = Lanes { main: 0.0, length: 0.0, clear: Vec::new(), taken: Vec::new() };
        let mut from = f64::NEG_INFINITY;
        for spot in row.iter().filter_map(|at| spots.get(*at)) {
            (lanes.main, lanes.length) = (spot.main, spot.length);
            lanes.clear.push((from, spot.cross - CLEAR));
            from = spot.cross + spot.breadth + CLEAR;
        }
        lanes.clear.push((from, f64::INFINITY));
        lanes
    }

    /// A place in the stretch that is nearest, apart from edges that pass there already where there is room.
    fn take(&mut self, near: f64) -> f64 {
        let at = |(low, high): (f64, f64)| if near < low { low } else { near.min(high) };
        let far = |stretch: &(f64, f64)| (at(*stretch) - near).abs();
        let Some(stretch) = self.clear.iter().copied().min_by(|a, b| far(a).total_cmp(&far(b))) else {
            return near;
        };
        let first = at(stretch);
        let steps = (1..40).flat_map(|step| [f64::from(step) * LANE, f64::from(step) * -LANE]);
        let free = |place: &f64| {
            (stretch.0..=stretch.1).contains(place)
                && self.taken.iter().all(|t| (t - place).abs() >= LANE - 0.1)
        };
        let place = std::iter::once(0.0).chain(steps).map(|step| first + step).find(free).unwrap_or(first);
        self.taken.push(place);
        place
    }
}

/// Where edges end along a node's side: spread, in order of where they come from.
fn ports(view: &GraphView, spots: &[Spot], loops: &[Option<bool>]) -> Vec<f64> {
    let mut ports = vec![0.0; view.edges.len()];
    for (at, spot) in spots.iter().enumerate() {
        let from = |edge: usize| {
            let source = view.edges.get(edge).and_then(|edge| spots.get(edge.from)).map_or(0.0, Spot::middle);
            match loops.get(edge) {
                Some(Some(true)) => f64::INFINITY,
                Some(Some(false)) => f64::NEG_INFINITY,
                _ => source,
            }
        };
        let mut edges: Vec<usize> =
            view.edges.iter().enumerate().filter(|(_, edge)| edge.to == at).map(|(edge, _)| edge).collect();
        edges.sort_by(|a, b| from(*a).total_cmp(&from(*b)));
        let step = (0.7 * spot.breadth / edges.len().max(1) as f64).min(16.0);
        for (i, edge) in edges.iter().enumerate() {
            if let Some(port) = ports.get_mut(*edge) {
                *port = spot.middle() + (i as f64 - 0.5 * (edges.len() as f64 - 1.0)) * step;
            }
        }
    }
    ports
}

/// Lays a graph out. `sizes` are the boxes of its nodes, width and height; `label_width` is that of the widest label.
pub(super) fn lay_out(view: &GraphView, sizes: &[(f64, f64)], label_width: f64) -> Layout {
    let count = view.nodes.len();
    let mut neighbours: Vec<Vec<usize>> = vec![Vec::new(); count];
    for edge in view.edges.iter().filter(|edge| edge.from.max(edge.to) < count && edge.from != edge.to) {
        neighbours[edge.from].push(edge.to);
        neighbours[edge.to].push(edge.from);
    }
    let rows = order(view, &neighbours);
    let size = |at: &usize| sizes.get(*at).copied().unwrap_or_default();
    let extent =
        |of: fn((f64, f64)) -> f64, row: &[usize]| row.iter().map(|at| of(size(at))).fold(0.0, f64::max);
    let gap = if label_width > 0.0 { LEVEL_GAP.max(label_width + 34.0) } else { LEVEL_GAP };
    let across: f64 = rows.iter().map(|row| extent(|s| s.0, row) + gap).sum::<f64>() - gap;
    let tallest_row = |row: &Vec<usize>| row.iter().map(|at| size(at).0 + NODE_GAP).sum::<f64>();
    let broadest = rows.iter().map(tallest_row).fold(0.0, f64::max);
    let down = across > WIDTH_MAX && broadest < across;
    let gap = if down { LEVEL_GAP_DOWN } else { gap };

    let mut spots = vec![Spot::default(); count];
    let mut main = 0.0;
    for row in &rows {
        let length = if down { extent(|s| s.1, row) } else { extent(|s| s.0, row) };
        let mut cross = 0.0;
        for at in row {
            let (width, height) = size(at);
            let (own, breadth) = if down { (height, width) } else { (length, height) };
            if let Some(spot) = spots.get_mut(*at) {
                *spot = Spot { main, cross, length, own, breadth };
            }
            cross += breadth + NODE_GAP;
        }
        main += length + gap;
    }
    let main_end = (main - gap).max(0.0);
    for round in 0..ROUNDS {
        let mut visit: Vec<&Vec<usize>> = rows.iter().collect();
        if round % 2 == 0 {
            visit.reverse();
        }
        for row in visit {
            let middle = |at: &usize| {
                let own = spots.get(*at).map_or(0.0, Spot::middle);
                mean(&neighbours, *at, |n| spots.get(n).map(Spot::middle)).unwrap_or(own)
            };
            let wanted: Vec<f64> = row.iter().map(middle).collect();
            settle(row, &wanted, &mut spots);
        }
    }

    let low = spots.iter().map(|spot| spot.cross).fold(f64::INFINITY, f64::min);
    let high = spots.iter().map(|spot| spot.cross + spot.breadth).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if count == 0 { (0.0, 0.0) } else { (low, high) };
    // Loops pass on the side that is nearer: `true` is behind the last node.
    let side = |edge: &underbelly::GraphEdge| {
        let middle = 0.5 * (spots[edge.from].middle() + spots[edge.to].middle());
        middle >= 0.5 * (low + high)
    };
    let inside = |edge: &underbelly::GraphEdge| edge.from.max(edge.to) < count;
    let loops: Vec<Option<bool>> =
        view.edges.iter().map(|edge| (inside(edge) && view.loops(edge)).then(|| side(edge))).collect();
    let ports = ports(view, &spots, &loops);
    let mut lanes: Vec<Lanes> = rows.iter().map(|row| Lanes::new(row, &spots)).collect();
    let mut row_of = vec![0; count];
    for (row, members) in rows.iter().enumerate() {
        members.iter().for_each(|at| row_of[*at] = row);
    }

    // Paths first along the two axes; how far they reach decides the origin.
    let (mut reach_low, mut reach_high) = (low, high);
    let mut drafts: Vec<Option<Draft>> = Vec::with_capacity(view.edges.len());
    let mut looped = (0.0, 0.0);
    for ((edge, port), beside) in view.edges.iter().zip(&ports).zip(&loops) {
        if !inside(edge) {
            drafts.push(None);
            continue;
        }
        let (from, to) = (spots[edge.from], spots[edge.to]);
        let start = (from.ends().1, from.middle());
        let end = (to.ends().0 - HEAD, *port);
        let first = *port < to.middle() - 0.1;
        let mut draft = Draft { start, steps: Vec::new(), end, first };
        match beside {
            Some(behind) => {
                let lane = if *behind {
                    looped.1 += LOOP;
                    high + looped.1
                } else {
                    looped.0 += LOOP;
                    low - looped.0
                };
                let shift = 0.3 * from.breadth * if *behind { 1.0 } else { -1.0 };
                draft.start.1 += shift;
                let bulge = 0.75 * gap;
                let (a, b) = ((start.0 + bulge, draft.start.1), (start.0 + bulge, lane));
                draft.steps.push(Step::Curve(a, b, (start.0, lane)));
                draft.steps.push(Step::Line((to.main, lane)));
                let (a, b) = ((to.main - bulge - HEAD, lane), (to.main - bulge - HEAD, end.1));
                draft.steps.push(Step::Curve(a, b, end));
            }
            None => {
                let mut at = start;
                let between = lanes.get_mut(row_of[edge.from] + 1..row_of[edge.to]).unwrap_or_default();
                for level in between {
                    let share = (level.main + 0.5 * level.length - start.0) / (end.0 - start.0).max(1.0);
                    let cross = level.take(start.1 + (end.1 - start.1) * share);
                    draft.bend(at, (level.main, cross));
                    at = (level.main + level.length, cross);
                    draft.steps.push(Step::Line(at));
                }
                draft.bend(at, end);
            }
        }
        for cross in draft.crosses() {
            (reach_low, reach_high) = (reach_low.min(cross), reach_high.max(cross));
        }
        drafts.push(Some(draft));
    }

    // Loops bulge beyond the first and the last level.
    let is_loop = loops.iter().any(Option::is_some);
    let before = if is_loop { 0.75 * gap } else { 0.0 };
    let point = |(main, cross): (f64, f64)| {
        let (main, cross) = (main + before, cross - reach_low);
        if down { (cross, main) } else { (main, cross) }
    };
    let places = spots.iter().map(|spot| {
        let (x, y) = point((spot.ends().0, spot.cross));
        let (width, height) = if down { (spot.breadth, spot.own) } else { (spot.own, spot.breadth) };
        Place { x, y, width, height }
    });
    let routes = drafts.into_iter().map(|draft| {
        let Some(draft) = draft else { return Route::default() };
        let (x, y) = point(draft.end);
        // From top to bottom, labels stand outside of the arrows that end side by side.
        let (label, label_ends) = match (down, draft.first) {
            (true, true) => ((x - 7.0, y + 1.0), true),
            (true, false) => ((x + 7.0, y + 1.0), false),
            (false, _) => ((x - 3.0, y - 5.0), true),
        };
        Route { path: draft.path(&point), label, label_ends }
    });
    let (main_size, cross_size) = (main_end + 2.0 * before, reach_high - reach_low);
    let (width, height) = if down { (cross_size, main_size) } else { (main_size, cross_size) };
    Layout { places: places.collect(), routes: routes.collect(), width, height }
}

type Point = (f64, f64);

enum Step {
    Line(Point),
    Curve(Point, Point, Point),
}

/// A path along the two axes.
struct Draft {
    start: Point,
    steps: Vec<Step>,
    end: Point,
    /// Whether it ends before the middle of its node.
    first: bool,
}

impl Draft {
    /// A curve that leaves and arrives along the main axis.
    fn bend(&mut self, from: Point, to: Point) {
        let bend = (0.55 * (to.0 - from.0)).max(12.0);
        self.steps.push(Step::Curve((from.0 + bend, from.1), (to.0 - bend, to.1), to));
    }

    fn crosses(&self) -> Vec<f64> {
        let ends = self.steps.iter().map(|step| match step {
            Step::Line(to) | Step::Curve(_, _, to) => to.1,
        });
        std::iter::once(self.start.1).chain(ends).collect()
    }

    fn path(&self, point: &dyn Fn(Point) -> Point) -> String {
        let (x, y) = point(self.start);
        let mut path = format!("M{x:.1} {y:.1}");
        // Writing to a string does not fail.
        for step in &self.steps {
            let _ = match step {
                Step::Line(to) => {
                    let (x, y) = point(*to);
                    write!(path, "L{x:.1} {y:.1}")
                }
                Step::Curve(a, b, to) => {
                    let [a, b, to] = [a, b, to].map(|p| point(*p));
                    write!(path, "C{:.1} {:.1} {:.1} {:.1} {:.1} {:.1}", a.0, a.1, b.0, b.1, to.0, to.1)
                }
            };
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use underbelly::{EdgeRole, GraphEdge, GraphNode};

    fn view(nodes: usize, edges: &[(usize, usize)]) -> GraphView {
        let mut view = GraphView::default();
        view.nodes = (0..nodes).map(|at| GraphNode::slot(format!("n{at}"))).collect();
        view.edges = edges.iter().map(|(a, b)| GraphEdge::new(*a, *b, EdgeRole::REQUIRED)).collect();
        view.settle_levels();
        view
    }

    fn overlap(a: &Place, b: &Place) -> bool {
        a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
    }

    /// Boxes that a path's horizontal stretch passes through are those of no node.
    #[test]
    fn edges_pass_beside_the_boxes_and_boxes_beside_one_another() {
        // A chain of four with every shortcut, and two nodes beside it.
        let view = view(6, &[(0, 1), (1, 2), (2, 3), (0, 2), (0, 3), (1, 3), (0, 4), (4, 5), (5, 3)]);
        for size in [(150.0, 60.0), (900.0, 60.0)] {
            let layout = lay_out(&view, &[size; 6], 0.0);
            let below = layout.places[3].y >= layout.places[0].y + 60.0;
            assert_eq!(below, size.0 > 500.0, "from top to bottom where it is wide");
            for (i, a) in layout.places.iter().enumerate() {
                assert!(a.x >= 0.0 && a.x + a.width <= layout.width + 0.01, "{a:?}");
                assert!(a.y >= -0.01 && a.y + a.height <= layout.height + 0.01, "{a:?}");
                assert!(layout.places.iter().skip(i + 1).all(|b| !overlap(a, b)));
            }
            for (edge, route) in view.edges.iter().zip(&layout.routes) {
                let numbers: Vec<f64> =
                    route.path.split(['M', 'L', 'C', ' ']).filter_map(|number| number.parse().ok()).collect();
                assert!(numbers.iter().all(|number| number.is_finite() && *number >= -0.01));
                for passed in route.path.split('L').skip(1) {
                    let end: Vec<f64> =
                        passed.split(['C', ' ']).filter_map(|number| number.parse().ok()).take(2).collect();
                    let point = Place { x: end[0] - 1.0, y: end[1] - 1.0, width: 0.5, height: 0.5 };
                    assert!(
                        layout.places.iter().all(|place| !overlap(place, &point)),
                        "{} to {}: {} is hidden",
                        edge.from,
                        edge.to,
                        route.path
                    );
                }
            }
        }
    }

    #[test]
    fn loops_and_strangers_are_no_trouble() {
        let looped = view(3, &[(0, 1), (1, 2), (2, 0), (1, 1), (0, 9)]);
        let layout = lay_out(&looped, &[(100.0, 50.0); 3], 40.0);
        assert_eq!(layout.routes.iter().filter(|route| route.path.is_empty()).count(), 1);
        assert!(layout.routes.iter().filter(|route| route.path.contains('L')).count() >= 2);
        let nothing = lay_out(&GraphView::default(), &[], 0.0);
        assert_eq!((nothing.width, nothing.height), (0.0, 0.0));
    }
}
