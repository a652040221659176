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

impl Graph {
    /// The cells that depend on a cell, through the outputs of its readers. Each is expanded once, where it is nearest.
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
    /// that they read. Each cell is expanded once, where it is nearest.
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

    /// The bundles that read what these give or these cells hold, through any number of steps, by number. Those that are
    /// asked for are not among them.
    pub fn bundles_behind(&self, bundles: &[BundleId], cells: &[CellId]) -> BTreeSet<BundleId> {
        let mut seen: BTreeSet<BundleId> = bundles.iter().copied().collect();
        let cells = cells.iter().filter_map(|cell| self.cells.get(cell.at()));
        let readers = cells.flat_map(|cell| cell.readers.bundles());
        let mut behind: BTreeSet<BundleId> = readers.filter(|reader| seen.insert(*reader)).collect();
        let mut left: Vec<BundleId> = bundles.iter().chain(&behind).copied().collect();
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

    /// Grown level by level, so that what lies within the depth is there, by whichever way it is met first.
    fn tree(&self, root: CellId, extent: Extent, next: &Next<'_>) -> Option<Tree> {
        self.cells.get(root.at())?;
        let depth = extent.depth.min(DEPTH_MAX);
        let mut expanded = BTreeSet::new();
        let mut grown = vec![Grown { tree: leaf(TreeNode::Cell(root), None), parent: 0, depth: 0 }];
        let mut at = 0;
        while let Some(Grown { tree, depth: own, .. }) = grown.get_mut(at) {
            let own = *own;
            if let TreeNode::Cell(cell) = tree.node {
                tree.repeated = !expanded.insert(cell);
                let (mut steps, mut more) = (Vec::new(), 0);
                if !tree.repeated {
                    next(cell, &mut |node, link| match own < depth && steps.len() < extent.children {
                        true => steps.push((node, link)),
                        false => more += 1,
                    });
                }
                let shown = steps.len().min(NODES_MAX.saturating_sub(grown.len()));
                let left = (steps.len() - shown) as u64;
                grown[at].tree.more = more + left;
                let children = steps.into_iter().take(shown);
                let child = |(node, link)| Grown { tree: leaf(node, Some(link)), parent: at, depth: own + 1 };
                grown.extend(children.map(child));
            }
            at += 1;
        }
        // What has no children left to come goes to its parent, the last first.
        while grown.len() > 1 {
            let Some(Grown { mut tree, parent, .. }) = grown.pop() else { break };
            tree.children.reverse();
            grown.get_mut(parent)?.tree.children.push(tree);
        }
        let mut tree = grown.pop()?.tree;
        tree.children.reverse();
        Some(tree)
    }
}

/// Tells the children of a cell.
type Next<'a> = dyn Fn(CellId, &mut dyn FnMut(TreeNode, Link)) + 'a;

/// A node of a tree that grows.
struct Grown {
    tree: Tree,
    parent: usize,
    depth: usize,
}

fn leaf(node: TreeNode, link: Option<Link>) -> Tree {
    Tree { node, link, children: Vec::new(), repeated: false, more: 0 }
}
