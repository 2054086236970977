//! A session takes its memory when it is made.

use std::fs;

use tercet_host::backend::cuda::CudaBackend;
use tercet_host::backend::cuda::driver::usable;
use tercet_host::backend::cuda::kernels::KernelSet;
use tercet_host::backend::{KvType, Limits, Ops, Row};
use tercet_host::forward::{Cancel, forward};
use tercet_host::sampler::{Sampler, Sampling};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::on;

use super::inside;

/// Every way to step: a prompt in chunks, batches with a recording and without, one row, one ahead.
#[test]
fn steps_allocate_nothing() {
    const NAME: &str = "cuda::memory::steps_allocate_nothing";
    const LOG: &str = "FAKE_CUDA_ALLOCATIONS";
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("allocations");
    if !inside(NAME, &[("FAKE_CUDA_KERNEL", "idle"), (LOG, log.to_str().unwrap())]) {
        return;
    }
    let allocations = || fs::read_to_string(std::env::var_os(LOG).unwrap()).unwrap();
    let row = |slot, position, logits| Row { slot, position, token: 3, logits };
    let prompt: Vec<_> = (0..20).map(|position| row(0, position, position == 19)).collect();
    let batch: Vec<_> = (1..5).map(|slot| row(slot, 0, true)).collect();
    let quiet: Vec<_> = (1..5).map(|slot| row(slot, 1, slot == 2)).collect();
    let steps = [&prompt[..7], &prompt[7..], &batch, &quiet, &[row(0, 20, true)]];
    let device = usable(None).unwrap();
    for shape in [Shape::ONE_BIT, Shape::LLAMA] {
        let package = Tiny::new(shape.clone(), 2).folder(Form::Multiply).package();
        for kv in [KvType::F16, KvType::F32] {
            let limits = Limits { slots: 5, positions_max: 32, rows_max: 16, logits_max: 8, kv };
            let backend = CudaBackend::new(&device, KernelSet::program()).unwrap();
            on::with_ops(&backend, &package, limits, |mut ops| {
                let mut greedy = Sampler::new(Sampling::GREEDY, 1);
                let before = allocations();
                let pinned = before.lines().filter(|&call| call == "cuMemHostAlloc").count();
                assert!(
                    pinned > 0 && before.lines().count() > pinned,
                    "a session takes both kinds"
                );
                for rows in steps {
                    forward(&mut ops, shape.layers, rows, &Cancel::default()).unwrap();
                    if rows.iter().any(|row| row.logits) {
                        ops.choose(0, &mut greedy).unwrap();
                    }
                }
                ops.choose_ahead(&mut greedy, 0, 21).unwrap();
                ops.finish().unwrap();
                assert_eq!(allocations(), before, "{shape:?}, {kv:?}");
            });
        }
    }
}
