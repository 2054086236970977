//! The way from a package to the operations of a device, in one call.

use tercet_host::backend::{Backend, KvType, Limits, TokenId};
use tercet_host::package::Package;
use tercet_host::session::Session;

use crate::cpu::limits;

/// Calls `work` with the operations of `package` on `backend`.
///
/// # Panics
///
/// When the package is no valid model, or the device refuses it.
pub fn with_ops<B: Backend, R>(
    backend: &B,
    package: &Package,
    limits: Limits,
    work: impl FnOnce(B::Ops<'_>) -> R,
) -> R {
    let mut model = package.bind().expect("a valid model");
    model.centre_keys(limits.kv, &mut |_, _| {}).expect("a model that runs");
    let weights = backend.upload(&model, &mut |_, _| {}).expect("valid weights");
    work(backend.ops(&weights, limits).expect("memory"))
}

/// Calls `work` with a session of `package` on `backend`.
///
/// # Panics
///
/// As [`with_ops`].
pub fn with_session<B: Backend, R>(
    backend: &B,
    package: &Package,
    limits: Limits,
    work: impl FnOnce(Session<B::Ops<'_>>) -> R,
) -> R {
    with_ops(backend, package, limits, |ops| work(Session::new(ops, &package.config, limits)))
}

/// Logits of every token, `(tokens, vocab)`, prefilled in chunks of `chunk`.
///
/// # Panics
///
/// As [`with_ops`].
pub fn logits<B: Backend>(
    backend: &B,
    package: &Package,
    tokens: &[TokenId],
    chunk: usize,
    kv: KvType,
) -> Vec<f32> {
    with_session(backend, package, limits(tokens.len(), chunk, kv), |mut session| {
        let mut all = Vec::new();
        session.logits(tokens, |logits| all.extend_from_slice(logits)).expect("finite logits");
        all
    })
}
