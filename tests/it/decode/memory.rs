//! What backends say that a session holds, beside what was announced and what the system says.

use core::ops::ControlFlow;
use core::time::Duration;
use std::time::Instant;

use tercet_host::backend::{Backend, HeadType, KvType, Limits, OpsBytes};
use tercet_host::convert::{Kernels, write_tercet};
use tercet_host::event::Event;
use tercet_host::forward::Cancel;
use tercet_host::inspect::describe;
use tercet_host::layout::WeightLayout;
use tercet_host::measure::memory::{Held, MemoryKind};
use tercet_host::measure::sampler::{Sampler, Snapshot};
use tercet_host::measure::{session_bytes, upload_bytes};
use tercet_host::package::{Package, Source};
use tercet_host::sampler::Sampling;
use tercet_host::session::{Request, Session};
use tercet_tests::cpu::Cpu;
use tercet_tests::fixture::{Form, Shape, Tiny};

use crate::oracle::builtin;

#[test]
fn bytes_are_those_that_were_announced() {
    let folders = Shape::ALL.map(|shape| Tiny::new(shape, 5).folder(Form::Multiply));
    let packages = folders.iter().flat_map(|folder| {
        let file = folder.join("base3.tercet");
        let (layout, with) = (WeightLayout::Base3, Kernels::LeaveOut);
        write_tercet(&folder.package(), &file, layout, with, &mut |_, _| {}).unwrap();
        [folder.package(), Package::open(&Source::Path(file)).unwrap()]
    });
    for package in packages {
        let model = package.bind().unwrap();
        for (kv, rows_max) in [(KvType::F16, 1), (KvType::F32, 7)] {
            let limits = Limits { slots: 2, positions_max: 64, rows_max, logits_max: 2, kv };
            let backend = Cpu::fast().backend();
            let weights = backend.upload(&model, &mut |_, _| {}).unwrap();
            let said = describe(&package, 64).unwrap().memory;
            assert_eq!(backend.weights_bytes(&weights), said.weights_bytes);
            let session =
                Session::new(backend.ops(&weights, limits).unwrap(), &model.config, limits);
            let OpsBytes { cache, work } = session.bytes();
            let number = if kv == KvType::F16 { 1 } else { 2 };
            assert_eq!(cache, 2 * number * said.kv_bytes, "two sequences");
            assert!(work > 0);
            let most = session_bytes(&model, &limits, backend.threads());
            assert!(cache + work <= most, "{cache} and {work}, announced as {most}");
        }
        // A head in INT8 is held beside the embedding.
        let backend = Cpu::fast().with_head(HeadType::Int8).backend();
        let weights = backend.upload(&model, &mut |_, _| {}).unwrap();
        let said = describe(&package, 64).unwrap().memory.weights_bytes;
        let head = upload_bytes(&model, HeadType::Int8) - upload_bytes(&model, HeadType::Stored);
        let float_head = if model.tied() { 0 } else { model.head.bytes.len() as u64 };
        assert_eq!(backend.weights_bytes(&weights), said + head - float_head);
    }
}

#[test]
fn a_session_is_seen_from_another_thread_while_it_answers() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let package = builtin::package();
    let model = package.bind().unwrap();
    let backend = Cpu::fast().backend();
    let limits =
        Limits { slots: 1, positions_max: 256, rows_max: 16, logits_max: 1, kv: KvType::F16 };
    let weights = backend.upload(&model, &mut |_, _| {}).unwrap();
    let ops = backend.ops(&weights, limits).unwrap();
    let mut session = Session::new(ops, &package.config, limits);
    let OpsBytes { cache, work } = session.bytes();
    let held = Held { weights: backend.weights_bytes(&weights), cache, work };

    let sampler = Sampler::start(Duration::from_millis(5)).unwrap();
    let probe = sampler.probe();
    probe.session(held, limits.positions_max, None);
    let mut seen: Vec<Snapshot> = Vec::new();
    let mut sink = |event: Event| {
        if let Event::Token { position, .. } = event {
            probe.reached(position + 1);
        }
        let now = probe.latest();
        if seen.last().is_none_or(|last| last.looks < now.looks) {
            seen.push(now);
        }
        ControlFlow::Continue(())
    };
    let request = Request {
        prompt: &[1, 2, 3, 4],
        max_tokens: 100,
        sampling: Sampling::GREEDY,
        seed: 1,
        stop_tokens: &[],
        stop_texts: &[],
    };
    session.generate(&request, None, &Cancel::default(), &mut sink).unwrap();
    let (start, looks) = (Instant::now(), probe.latest().looks);
    while probe.latest().looks < looks + 2 {
        assert!(start.elapsed() < Duration::from_secs(20), "the sampler looks");
        std::thread::sleep(Duration::from_millis(1));
    }
    let memory = probe.latest().memory.unwrap();
    assert_eq!(memory.kind, MemoryKind::Main);
    // All weights were read and 103 or 104 of 256 positions used.
    assert_eq!((memory.weights.bytes, memory.work.bytes), (held.weights, work));
    let used = memory.cache.bytes * 256;
    assert!((103 * cache..=104 * cache).contains(&used), "{} of {cache}", memory.cache.bytes);
    assert!(seen.len() > 1, "looks while it answers: {seen:?}");
    let parts = [memory.others, memory.free].map(|part| part.bytes).iter().sum::<u64>();
    assert_eq!(memory.ours() + parts, memory.total.bytes);
}
