//! Steps that begin before the host knows their token: which rows reach the stand-in for a device.

use tercet_host::backend::cuda::driver::usable;
use tercet_host::backend::cuda::kernels::KernelSet;
use tercet_host::backend::cuda::{CudaBackend, CudaOps};
use tercet_host::backend::{Buffer, DeviceError, KvType, Ops, Row};
use tercet_host::sampler::{Sampler, Sampling};
use tercet_tests::cpu::{limits, step};
use tercet_tests::fixture::{Form, Shape, Tiny};
use tercet_tests::on;

use super::inside;

/// A session's buffers, and what is known of the model.
struct Trial<'w> {
    ops: CudaOps<'w>,
    tiny: &'w Tiny,
    sampler: Sampler,
}

impl Trial<'_> {
    /// Steps one row.
    fn step(&mut self, position: usize, token: u32) {
        let row = Row { slot: 0, position, token, logits: true };
        step(&mut self.ops, self.tiny.shape.layers, &[row]).unwrap();
        self.assert_embedded(token);
    }

    /// The residual stream is that of `token`: no other kernel of the stand-in changes it.
    fn assert_embedded(&mut self, token: u32) {
        let width = self.tiny.shape.hidden;
        let table = self.tiny.values("model.embed_tokens.weight");
        let expected = &table[token as usize * width..][..width];
        assert_eq!(self.ops.read(Buffer::Hidden).unwrap(), expected, "token {token}");
    }

    /// Makes `token` the likeliest, with logit `logit`.
    fn prefer(&mut self, token: u32, logit: f32) {
        let mut logits = vec![0.0; self.tiny.shape.vocab];
        logits[token as usize] = logit;
        self.ops.write(Buffer::Logits, &logits).unwrap();
    }

    fn choose_ahead(&mut self, position: usize) -> Result<u32, DeviceError> {
        self.ops.choose_ahead(&mut self.sampler, 0, position)
    }
}

fn trial(work: impl FnOnce(Trial<'_>)) {
    let tiny = Tiny::new(Shape::LLAMA, 1);
    let package = tiny.folder(Form::Multiply).package();
    let backend = CudaBackend::new(&usable(None).unwrap(), KernelSet::program()).unwrap();
    let limits = limits(8, 4, KvType::F16);
    on::with_ops(&backend, &package, limits, |ops| {
        work(Trial { ops, tiny: &tiny, sampler: Sampler::new(Sampling::GREEDY, 0) });
    });
}

#[test]
fn the_next_step_begins_with_the_token_that_the_device_chose() {
    const NAME: &str = "cuda::ahead::the_next_step_begins_with_the_token_that_the_device_chose";
    if !inside(NAME, &[("FAKE_CUDA_KERNEL", "idle")]) {
        return;
    }
    trial(|mut trial| {
        trial.step(0, 3);
        for (position, token) in [(1, 5), (2, 9), (3, 5)] {
            trial.prefer(token, 1.0);
            assert_eq!(trial.choose_ahead(position).unwrap(), token);
            // The step is done (the stand-in waits for nobody), so asking for it does nothing more.
            trial.assert_embedded(token);
            trial.ops.write(Buffer::Hidden, &vec![0.5; trial.tiny.shape.hidden]).unwrap();
            let row = Row { slot: 0, position, token, logits: true };
            step(&mut trial.ops, trial.tiny.shape.layers, &[row]).unwrap();
            assert_eq!(trial.ops.read(Buffer::Hidden).unwrap()[0], 0.5);
        }
    });
}

#[test]
fn whoever_steps_something_else_gets_that() {
    const NAME: &str = "cuda::ahead::whoever_steps_something_else_gets_that";
    if !inside(NAME, &[("FAKE_CUDA_KERNEL", "idle")]) {
        return;
    }
    trial(|mut trial| {
        trial.step(0, 3);
        trial.prefer(5, 1.0);
        assert_eq!(trial.choose_ahead(1).unwrap(), 5);
        trial.step(1, 6); // another token
        trial.prefer(5, 1.0);
        assert_eq!(trial.choose_ahead(2).unwrap(), 5);
        trial.step(1, 5); // another place
        trial.prefer(5, 1.0);
        assert_eq!(trial.choose_ahead(2).unwrap(), 5);
        let rows = [(2, 5), (3, 7)];
        let rows = rows.map(|(position, token)| Row { slot: 0, position, token, logits: false });
        step(&mut trial.ops, trial.tiny.shape.layers, &rows).unwrap(); // more rows
        let width = trial.tiny.shape.hidden;
        let table = trial.tiny.values("model.embed_tokens.weight").to_vec();
        let hidden = trial.ops.read(Buffer::Hidden).unwrap();
        assert_eq!(hidden[width..], table[7 * width..][..width]);
        // After several rows there is nothing to begin.
        trial.step(4, 1);
    });
}

#[test]
fn a_logit_that_is_no_number_ends_the_answer_not_the_session() {
    const NAME: &str = "cuda::ahead::a_logit_that_is_no_number_ends_the_answer_not_the_session";
    if !inside(NAME, &[("FAKE_CUDA_KERNEL", "idle")]) {
        return;
    }
    trial(|mut trial| {
        trial.step(0, 3);
        trial.prefer(4, f32::INFINITY);
        match trial.choose_ahead(1) {
            Err(DeviceError::NotFinite { got, token: 4 }) => assert_eq!(got, f32::INFINITY),
            other => panic!("{other:?}"),
        }
        // The step was done once more, and the next one is like any other.
        trial.assert_embedded(3);
        trial.prefer(5, 1.0);
        assert_eq!(trial.choose_ahead(1).unwrap(), 5);
        trial.step(1, 5);
    });
}
