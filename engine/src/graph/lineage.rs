//! What a cell was made from, and what was made from it.

use std::collections::BTreeSet;

use super::Graph;
use super::candidate::Owner;
use super::edges::EdgeKey;
use super::ids::{BundleId, CellId};
use super::info::{Extent, Link, Tree, TreeNode};
use super::query::DEPTH_MAX;

/// Most nodes of a tree; what would go beyond is counted.
const NODES_MAX: usize = 100_000;

/// A walk under way.
struct Walk {
    extent: Extent,
    /// Cells that were expanded.
    seen: BTreeSet<CellId>,
    nodes: usize,
}

impl Graph {
    /// The cells that depend on a cell, through the outputs of its readers. Each is expanded once.
    pub fn downstream(&self, cell: CellId, extent: Extent) -> Option<Tree> {
        self.tree(cell, extent, &|cell, child| {
            let Some(source) = self.cells.get(cell.at()) else { return };
            for id in source.readers.bundles() {
                let Some(tally) = self.tallies.get(id.at()) else { continue };
                for (edge, token) in self.edges().between(cell, id) {
                    let link = Link { bundle: id, input: edge.input, token };
                    for output in tally.outputs.iter() {
                        let candidates =
                            self.sheets.get(output.at()).into_iter().flat_map(|s| s.candidates.iter());
                        let mut own = candidates.filter(|candidate| candidate.owner == Owner::Bundle(id));
                        if own.any(|candidate| candidate.rests_on(edge)) {
                            child(TreeNode::Cell(output), link);
                        }
                    }
                }
            }
        })
    }

    /// What a cell depends on, through the inputs of every bundle that gives it: cells, and for groups the scopes
    /// that they read. Each cell is expanded once.
    pub fn upstream(&self, cell: CellId, extent: Extent) -> Option<Tree> {
        self.tree(cell, extent, &|cell, child| {
            let candidates = self.sheets.get(cell.at()).into_iter().flat_map(|sheet| sheet.candidates.iter());
            for (id, candidate) in
                candidates.filter_map(|candidate| Some((candidate.owner.bundle()?, candidate)))
            {
                let Some(bundle) = self.bundles.get(id.at()) else { continue };
                let producer = self.producers.get(bundle.producer.at());
                let inputs = producer.into_iter().flat_map(|producer| producer.required());
                for (scope, (input, slot)) in bundle.scopes.iter().zip(inputs) {
                    let date =
                        producer.and_then(|producer| producer.cell_date(usize::from(input), bundle.date));
                    let node = TreeNode::Scope(slot, date.unwrap_or(bundle.date), u64::from(scope.now.count));
                    let token = scope.token.map(|read| u64::from(read.count));
                    child(node, Link { bundle: id, input, token });
                }
                let is_shown = |edge: EdgeKey| self.is_made(edge.source) && candidate.rests_on(edge);
                for (edge, token) in self.edges_of(id).filter(|(edge, _)| is_shown(*edge)) {
                    child(TreeNode::Cell(edge.source), Link { bundle: id, input: edge.input, token });
                }
            }
        })
    }

    /// The bundles that read what these give, through any number of steps, by number. Those that are asked for are not among them.
    pub fn bundles_behind(&self, bundles: &[BundleId]) -> BTreeSet<BundleId> {
        let mut seen: BTreeSet<BundleId> = bundles.iter().copied().collect();
        let mut left: Vec<BundleId> = bundles.to_vec();
        let mut behind = BTreeSet::new();
        while let Some(id) = left.pop() {
            let Some(tally) = self.tallies.get(id.at()) else { continue };
            let cells = tally.outputs.iter().filter_map(|cell| self.cells.get(cell.at()));
            for reader in cells.flat_map(|cell| cell.readers.bundles()) {
                if seen.insert(reader) {
                    behind.insert(reader);
                    left.push(reader);
                }
            }
        }
        behind
    }

    fn tree(&self, root: CellId, extent: Extent, next: &Next<'_>) -> Option<Tree> {
        self.cells.get(root.at())?;
        let extent = Extent { depth: extent.depth.min(DEPTH_MAX), ..extent };
        let mut walk = Walk { extent, seen: BTreeSet::new(), nodes: 0 };
        Some(grow(TreeNode::Cell(root), None, 0, &mut walk, next))
    }
}

/// Tells the children of a cell.
type Next<'a> = dyn Fn(CellId, &mut dyn FnMut(TreeNode, Link)) + 'a;

fn grow(node: TreeNode, link: Option<Link>, depth: usize, walk: &mut Walk, next: &Next<'_>) -> Tree {
    walk.nodes += 1;
    let mut tree = Tree { node, link, children: Vec::new(), repeated: false, more: 0 };
    let TreeNode::Cell(cell) = node else { return tree };
    if !walk.seen.insert(cell) {
        tree.repeated = true;
        return tree;
    }
    let mut steps = Vec::new();
    next(cell, &mut |node, link| {
        if depth < walk.extent.depth && steps.len() < walk.extent.children {
            steps.push((node, link));
        } else {
            tree.more += 1;
        }
    });
    for (node, link) in steps {
        if walk.nodes < NODES_MAX {
            tree.children.push(grow(node, Some(link), depth + 1, walk, next));
        } else {
            tree.more += 1;
        }
    }
    tree
}
