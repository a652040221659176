//! Logistic regression with running scalers, one row at a time.

use std::collections::VecDeque;

use underbelly::{CommitError, Model, Parts};

use crate::stream::{FEATURES, Row};

/// How far one row moves the weights.
const RATE: f64 = 0.1;
/// Rows over which accuracy is measured.
const WINDOW: usize = 1_000;

/// Mean and spread of each feature so far (Welford's method).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaler {
    rows: f64,
    mean: [f64; FEATURES],
    squares: [f64; FEATURES],
}

impl Scaler {
    fn learn(&mut self, features: &[f64; FEATURES]) {
        self.rows += 1.0;
        for (at, feature) in features.iter().enumerate() {
            let off = feature - self.mean[at];
            self.mean[at] += off / self.rows;
            self.squares[at] += off * (feature - self.mean[at]);
        }
    }

    fn scaled(&self, features: &[f64; FEATURES]) -> [f64; FEATURES] {
        std::array::from_fn(|at| {
            let spread = (self.squares[at] / self.rows.max(1.0)).sqrt();
            if spread > 0.0 { (features[at] - self.mean[at]) / spread } else { 0.0 }
        })
    }
}

/// All that is learnt; saved and restored as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Learner {
    scaler: Scaler,
    weights: [f64; FEATURES],
    bias: f64,
    /// Rows that were predicted, and how many of them rightly.
    seen: u64,
    right: u64,
    /// Whether each of the last rows was.
    recent: VecDeque<bool>,
}

impl Learner {
    /// Predicts a row, and learns from what it was. Answers whether the prediction was right.
    pub fn learn(&mut self, row: &Row) -> bool {
        let features = self.scaler.scaled(&row.features);
        let score = self.bias + features.iter().zip(&self.weights).map(|(x, w)| x * w).sum::<f64>();
        let likely = 1.0 / (1.0 + (-score).exp());
        let is_right = (likely >= 0.5) == row.label;
        let step = RATE * (f64::from(u8::from(row.label)) - likely);
        self.weights.iter_mut().zip(&features).for_each(|(w, x)| *w += step * x);
        self.bias += step;
        self.scaler.learn(&row.features);
        self.seen += 1;
        self.right += u64::from(is_right);
        self.recent.push_back(is_right);
        if self.recent.len() > WINDOW {
            self.recent.pop_front();
        }
        is_right
    }

    /// Rows that it learnt from.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The share of all rows that were predicted rightly.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.seen.max(1) as f64
    }

    /// The same of the last rows.
    pub fn recent_accuracy(&self) -> f64 {
        self.recent.iter().filter(|right| **right).count() as f64 / self.recent.len().max(1) as f64
    }

    /// The model, the scaler and the counts, as parts of one version.
    pub fn parts(&self) -> Parts {
        let bytes =
            |numbers: &[f64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        let scaler = [&[self.scaler.rows], &self.scaler.mean[..], &self.scaler.squares[..]].concat();
        let mut counts = [self.seen.to_le_bytes(), self.right.to_le_bytes()].concat();
        counts.extend(self.recent.iter().map(|right| u8::from(*right)));
        Parts::new()
            .with("model", bytes(&[&self.weights[..], &[self.bias]].concat()))
            .with("scaler", bytes(&scaler))
            .with("counts", counts)
    }

    /// What a version holds; a new one where there is none.
    ///
    /// # Errors
    /// Where a part is missing or cannot be read, or is not what [`Learner::parts`] wrote.
    pub fn restore(saved: Option<&Model>) -> Result<Learner, CommitError> {
        let Some(saved) = saved else { return Ok(Learner::default()) };
        let odd =
            |part: &str| CommitError::Abandoned { reason: format!("part {part} is not of this program") };
        let numbers = |part: &str| -> Result<Vec<f64>, CommitError> {
            let data = saved.tensor(part)?.data;
            let (numbers, rest) = data.as_chunks::<8>();
            if rest.is_empty() {
                Ok(numbers.iter().map(|n| f64::from_le_bytes(*n)).collect())
            } else {
                Err(odd(part))
            }
        };
        let (model, scaler, counts) = (numbers("model")?, numbers("scaler")?, saved.tensor("counts")?.data);
        let read = || {
            let (weights, bias) = model.split_first_chunk::<FEATURES>()?;
            let (rows, rest) = scaler.split_first()?;
            let (mean, squares) = rest.split_first_chunk::<FEATURES>()?;
            let (seen, rest) = counts.split_first_chunk::<8>()?;
            let (right, recent) = rest.split_first_chunk::<8>()?;
            Some(Learner {
                scaler: Scaler { rows: *rows, mean: *mean, squares: squares.try_into().ok()? },
                weights: *weights,
                bias: *bias.first()?,
                seen: u64::from_le_bytes(*seen),
                right: u64::from_le_bytes(*right),
                recent: recent.iter().map(|right| *right != 0).collect(),
            })
        };
        read().ok_or_else(|| odd("model, scaler or counts"))
    }
}
