//! [`LockStep`]: two devices side by side, compared after every operation.

use core::fmt;

use super::{Buffer, DeviceError, Ops, Quantized, Row, TokenId};
use crate::sampler::Sampler;

/// Runs every operation on a reference and on a candidate and compares what it wrote.
///
/// After each comparison the candidate gets the reference's buffer, so each operation is judged on
/// equal inputs: what a disagreement within the tolerance would grow to in the layers after it does
/// not matter. Being an [`Ops`] itself, it needs no copy of the transformer:
///
/// ```text
/// let mut both = LockStep::new(cpu, gpu, |_| Tolerance::Exact);
/// forward(&mut both, layers, &rows, &Cancel::default())?;
/// ```
///
/// Keys and values stay on their device; `attend` is the operation that would show them. The INT8
/// values of a ternary linear's input, their units and their sums have to be equal to the bit,
/// whatever the policy, where both devices can show them ([`Ops::quantized`]).
#[derive(Debug)]
pub struct LockStep<R, C> {
    reference: R,
    candidate: C,
    policy: fn(Operation) -> Tolerance,
    /// Largest part of its tolerance that an operation took, and which.
    worst: Option<(Operation, f32)>,
    /// Inputs of linears that were compared as INT8 values.
    quantized: usize,
}

/// How far a candidate may be from its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Equal bits.
    Exact,
    /// `|got - expected| <= absolute + relative * |expected|`; equal bits will always do.
    Within {
        /// In the unit of the buffer.
        absolute: f32,
        /// As a part of the expected value.
        relative: f32,
    },
}

impl Tolerance {
    /// Whether `got` will do for `expected`. NaN is close to nothing.
    #[must_use]
    pub fn accepts(self, expected: f32, got: f32) -> bool {
        expected.to_bits() == got.to_bits()
            || match self {
                Self::Exact => false,
                Self::Within { absolute, relative } => {
                    let difference = (got - expected).abs();
                    difference.is_finite() && difference <= absolute + relative * expected.abs()
                }
            }
    }

    /// The part of what is allowed that `got` takes: 1 at the border, 0 for equal bits and
    /// where only those will do.
    #[must_use]
    pub fn part(self, expected: f32, got: f32) -> f32 {
        match self {
            Self::Within { absolute, relative } if expected.to_bits() != got.to_bits() => {
                (got - expected).abs() / (absolute + relative * expected.abs())
            }
            _ => 0.0,
        }
    }
}

/// An operation of [`Ops`], as a policy and a message name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the methods of `Ops` say what each does")]
pub enum Operation {
    Embed,
    Qkv,
    Attend,
    AttentionOut,
    GateUp,
    Down,
    Logits,
    Choose,
}

impl Operation {
    /// The name of its method.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Qkv => "qkv",
            Self::Attend => "attend",
            Self::AttentionOut => "attention_out",
            Self::GateUp => "gate_up",
            Self::Down => "down",
            Self::Logits => "logits",
            Self::Choose => "choose",
        }
    }
}

/// An operation and its layer: `down(17)`, `logits`.
struct Site(Operation, Option<usize>);

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(operation, layer) = self;
        match layer {
            Some(layer) => write!(f, "{}({layer})", operation.name()),
            None => f.write_str(operation.name()),
        }
    }
}

impl Site {
    fn divergence(&self, index: usize, expected: f32, got: f32) -> DeviceError {
        DeviceError::Divergence { site: self.to_string(), index, expected, got }
    }

    /// That both devices read the same integers.
    fn same_quantized(&self, expected: &Quantized, got: &Quantized) -> Result<(), DeviceError> {
        #[allow(clippy::cast_precision_loss, reason = "below 2^24: 127 times fewer than 2^17")]
        let numbers = |of: &Quantized| {
            [
                ("INT8 values", of.values.iter().map(|&value| f32::from(value)).collect()),
                ("units", of.units.iter().map(|row| row.unit).collect::<Vec<_>>()),
                ("sums of values", of.units.iter().map(|row| row.sum as f32).collect()),
            ]
        };
        for ((what, expected), (_, got)) in numbers(expected).into_iter().zip(numbers(got)) {
            assert_eq!(expected.len(), got.len(), "{what} of {self} on the two devices");
            let differs = |(expected, got): (&f32, &f32)| expected.to_bits() != got.to_bits();
            if let Some(index) = expected.iter().zip(&got).position(differs) {
                let site = format!("{self}, {what} of its input");
                let (expected, got) = (expected[index], got[index]);
                return Err(DeviceError::Divergence { site, index, expected, got });
            }
        }
        Ok(())
    }
}

impl<R: Ops, C: Ops> LockStep<R, C> {
    /// Two devices with the same model and limits, both without a step so far. `policy` says what
    /// each operation may differ by.
    #[must_use]
    pub fn new(reference: R, candidate: C, policy: fn(Operation) -> Tolerance) -> Self {
        Self { reference, candidate, policy, worst: None, quantized: 0 }
    }

    /// Judges the operations from here on by another policy.
    pub fn judge_by(&mut self, policy: fn(Operation) -> Tolerance) {
        self.policy = policy;
    }

    /// The operation that took the largest part of its tolerance so far, and that part.
    #[must_use]
    pub fn worst(&self) -> Option<(Operation, f32)> {
        self.worst
    }

    /// The candidate, to see of it what is not compared here.
    pub fn candidate_mut(&mut self) -> &mut C {
        &mut self.candidate
    }

    /// How many inputs of linears both devices have quantised where it can be seen so far.
    #[must_use]
    pub fn quantized(&self) -> usize {
        self.quantized
    }

    /// Compares what the linear of `operation` read, where both devices show it; then what it
    /// wrote.
    fn compare_linear(
        &mut self,
        operation: Operation,
        layer: usize,
        buffer: Buffer,
    ) -> Result<(), DeviceError> {
        let both = (self.reference.quantized()?, self.candidate.quantized()?);
        if let (Some(expected), Some(got)) = both {
            Site(operation, Some(layer)).same_quantized(&expected, &got)?;
            self.quantized += 1;
        }
        self.compare(operation, Some(layer), buffer)
    }

    /// Compares what `operation` wrote, then makes the candidate's equal.
    fn compare(
        &mut self,
        operation: Operation,
        layer: Option<usize>,
        buffer: Buffer,
    ) -> Result<(), DeviceError> {
        let expected = self.reference.read(buffer)?;
        let got = self.candidate.read(buffer)?;
        assert_eq!(expected.len(), got.len(), "elements of {buffer:?} on the two devices");
        let tolerance = (self.policy)(operation);
        let differs = |(expected, got): (&f32, &f32)| !tolerance.accepts(*expected, *got);
        if let Some(index) = expected.iter().zip(&got).position(differs) {
            let site = Site(operation, layer);
            return Err(site.divergence(index, expected[index], got[index]));
        }
        let parts =
            expected.iter().zip(&got).map(|(&expected, &got)| tolerance.part(expected, got));
        let part = parts.fold(0.0, f32::max);
        if part > self.worst.map_or(0.0, |(_, worst)| worst) {
            self.worst = Some((operation, part));
        }
        self.candidate.write(buffer, &expected)
    }
}

impl<R: Ops, C: Ops> Ops for LockStep<R, C> {
    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError> {
        self.reference.embed(rows)?;
        self.candidate.embed(rows)?;
        self.compare(Operation::Embed, None, Buffer::Hidden)
    }

    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.reference.qkv(layer)?;
        self.candidate.qkv(layer)?;
        self.compare_linear(Operation::Qkv, layer, Buffer::Qkv)
    }

    fn attend(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.reference.attend(layer)?;
        self.candidate.attend(layer)?;
        self.compare(Operation::Attend, Some(layer), Buffer::Mixed)
    }

    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.reference.attention_out(layer)?;
        self.candidate.attention_out(layer)?;
        self.compare_linear(Operation::AttentionOut, layer, Buffer::Hidden)
    }

    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.reference.gate_up(layer)?;
        self.candidate.gate_up(layer)?;
        self.compare_linear(Operation::GateUp, layer, Buffer::Gated)
    }

    fn down(&mut self, layer: usize) -> Result<(), DeviceError> {
        self.reference.down(layer)?;
        self.candidate.down(layer)?;
        self.compare_linear(Operation::Down, layer, Buffer::Hidden)
    }

    fn logits(&mut self) -> Result<(), DeviceError> {
        self.reference.logits()?;
        self.candidate.logits()?;
        self.compare(Operation::Logits, None, Buffer::Logits)
    }

    /// Both choose from the same logits and the same random state, so they must agree whatever the
    /// policy says.
    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        let mut copy = sampler.clone();
        let expected = self.reference.choose(asked, sampler)?;
        let got = self.candidate.choose(asked, &mut copy)?;
        if got == expected {
            return Ok(expected);
        }
        // Ids are below 2^24, so they are exact as singles.
        Err(Site(Operation::Choose, None).divergence(asked, expected as f32, got as f32))
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        self.reference.finish()?;
        self.candidate.finish()
    }

    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        self.reference.read(buffer)
    }

    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.reference.write(buffer, values)?;
        self.candidate.write(buffer, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_bits_are_exact() {
        assert!(Tolerance::Exact.accepts(1.0, 1.0));
        assert!(!Tolerance::Exact.accepts(0.0, -0.0));
        assert!(!Tolerance::Exact.accepts(1.0, 1.0 + f32::EPSILON));
        assert!(Tolerance::Exact.accepts(f32::NAN, f32::NAN));
    }

    #[test]
    fn closeness_adds_both_parts_and_refuses_what_is_no_number() {
        let close = Tolerance::Within { absolute: 0.5, relative: 0.25 };
        assert!(close.accepts(2.0, 3.0));
        assert!(!close.accepts(2.0, 3.1));
        assert!(close.accepts(-2.0, -1.0));
        assert!(!close.accepts(1.0, f32::NAN));
        assert!(!close.accepts(f32::NAN, 1.0));
        assert!(close.accepts(f32::INFINITY, f32::INFINITY));
        assert!(!close.accepts(f32::INFINITY, 1.0));
        assert!(!close.accepts(f32::MAX, f32::NEG_INFINITY));
    }

    #[test]
    fn the_part_of_a_tolerance_ends_at_its_border() {
        let close = Tolerance::Within { absolute: 0.5, relative: 0.25 };
        assert!((close.part(2.0, 2.5) - 0.5).abs() < f32::EPSILON);
        assert!(close.part(-2.0, -3.1) > 1.0);
        assert!(close.part(2.0, 2.0).abs() < f32::EPSILON);
        assert!(Tolerance::Exact.part(2.0, 3.0).abs() < f32::EPSILON);
    }
}
