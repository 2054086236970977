//! The transformer, once for every device.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::backend::{DeviceError, Ops, Row};

/// Asks a running forward pass to stop. Clones ask the same one.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// The flag behind it, for signal handlers.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Asks for the stop. Heard before the next layer.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Forgets a stop that was asked for.
    pub fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a forward pass ran to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Logits are there.
    Done,
    /// Stopped between layers; the cache holds no complete entry for the rows of this step.
    Cancelled,
}

/// One step of a pre-norm decoder. Both topologies are this sequence: a LLaMA, a BitNet b1.58 and
/// an OPT differ in what the operations find in [`ModelConfig`](crate::config::ModelConfig) (norms,
/// positions, gate, biases, ternary linears or float ones), not in their order.
///
/// # Errors
///
/// The first error of an operation; the rows of this step must then be stepped again.
pub fn forward<O: Ops>(
    ops: &mut O,
    layers: usize,
    rows: &[Row],
    cancel: &Cancel,
) -> Result<Pass, DeviceError> {
    ops.embed(rows)?; //                     tokens → hidden
    for layer in 0..layers {
        if cancel.requested() {
            return Ok(Pass::Cancelled);
        }
        forward_layer(ops, layer)?; //       hidden → hidden
    }
    ops.logits()?; //                        hidden → norm → logits of the rows that ask
    Ok(Pass::Done)
}

/// One layer of the step whose rows are embedded.
///
/// # Errors
///
/// As [`forward`].
pub fn forward_layer<O: Ops>(ops: &mut O, layer: usize) -> Result<(), DeviceError> {
    ops.qkv(layer)?; //                      hidden → norm → int8 → q, k, v
    ops.attend(layer)?; //                   q, k, v → cache → mixed
    ops.attention_out(layer)?; //            mixed → sub-norm → int8 → hidden += ...
    ops.gate_up(layer)?; //                  hidden → norm → int8 → gated
    ops.down(layer) //                       gated → sub-norm → int8 → hidden += ...
}
