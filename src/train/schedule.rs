//! Learning-rate schedules, as transformers computes them (`transformers/optimization.py`).

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// The shape of a schedule after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Falls to zero in a straight line.
    #[default]
    Linear,
    /// Falls to zero along half a cosine.
    Cosine,
    /// Stays.
    Constant,
}

impl std::str::FromStr for Shape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "linear" => Ok(Self::Linear),
            "cosine" => Ok(Self::Cosine),
            "constant" => Ok(Self::Constant),
            _ => Err(Error::usage(format!("--schedule {text}: there are linear, cosine and constant"))),
        }
    }
}

/// A schedule over a known number of steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: Shape,
    pub warmup: usize,
    /// Its length.
    pub steps: usize,
    /// The step it begins at: not 0 where a run was prolonged.
    pub begin: usize,
}

impl Schedule {
    /// The step at which it ends.
    #[must_use]
    pub fn end(&self) -> usize {
        self.begin + self.steps
    }

    /// Factor of the learning rate at `step`, from 0. With a warm-up the first step's is 0, as in transformers.
    #[must_use]
    pub fn factor(&self, step: usize) -> f64 {
        let step = step.saturating_sub(self.begin);
        let (s, w, t) = (step as f64, self.warmup as f64, self.steps as f64);
        if step < self.warmup {
            return s / w.max(1.0);
        }
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => ((t - s) / (t - w).max(1.0)).max(0.0),
            Shape::Cosine => (0.5 * (1.0 + (PI * (s - w) / (t - w).max(1.0)).cos())).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_those_of_transformers() {
        let linear = Schedule { shape: Shape::Linear, warmup: 0, steps: 10, begin: 0 };
        assert_eq!((linear.factor(0), linear.factor(5), linear.factor(10)), (1.0, 0.5, 0.0));
        let cosine = Schedule { shape: Shape::Cosine, warmup: 2, steps: 6, begin: 0 };
        let expected = [0.0, 0.5, 1.0, 0.853_553_390_593_273_7, 0.5, 0.146_446_609_406_726_24];
        for (step, expected) in expected.into_iter().enumerate() {
            assert!((cosine.factor(step) - expected).abs() < 1e-12, "step {step}");
        }
        let constant = Schedule { shape: Shape::Constant, warmup: 4, steps: 10, begin: 0 };
        let prolonged = Schedule { begin: 7, ..linear };
        assert_eq!((prolonged.factor(7), prolonged.factor(12), prolonged.end()), (1.0, 0.5, 17));
        assert_eq!((constant.factor(1), constant.factor(4), constant.factor(99)), (0.25, 1.0, 1.0));
    }

    #[test]
    fn a_warm_up_longer_than_the_run_and_unknown_shapes() {
        let s = Schedule { shape: Shape::Linear, warmup: 10, steps: 5, begin: 0 };
        assert!((0..5).all(|i| s.factor(i) < 1.0));
        assert!("sqrt".parse::<Shape>().unwrap_err().message().contains("sqrt"));
    }
}
