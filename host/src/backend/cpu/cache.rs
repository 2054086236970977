//! The key/value cache in memory.

use core::marker::PhantomData;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::MmapMut;
use tercet_core::{Simd, Stored};

use crate::backend::DeviceError;
use crate::kv::KvLayout;

/// A number the cache can hold.
pub(super) trait KvNumber: bytemuck::Pod + Send + Sync {
    const ZERO: Self;

    /// `out[i] = x[i]`, rounded to nearest, ties to even; equally many.
    fn round(x: &[f32], out: &mut [Self]);
    /// `out[i] = stored[i]`, equally many.
    fn widen(simd: Simd, stored: &[Self], out: &mut [f32]);
}

impl KvNumber for f32 {
    const ZERO: Self = 0.0;

    fn round(x: &[f32], out: &mut [Self]) {
        out.copy_from_slice(x);
    }

    fn widen(_simd: Simd, stored: &[Self], out: &mut [f32]) {
        out.copy_from_slice(stored);
    }
}

/// An IEEE half, little-endian on every machine.
pub(super) type Half = [u8; 2];

impl KvNumber for Half {
    const ZERO: Self = [0; 2];

    fn round(x: &[f32], out: &mut [Self]) {
        // Through the stack: halves are rounded several at a time, and only in whole slices.
        let mut rounded = [f16::ZERO; STRETCH];
        for (x, out) in x.chunks(STRETCH).zip(out.chunks_mut(STRETCH)) {
            let rounded = &mut rounded[..x.len()];
            rounded.convert_from_f32_slice(x);
            for (out, half) in out.iter_mut().zip(rounded) {
                *out = half.to_le_bytes();
            }
        }
    }

    fn widen(simd: Simd, stored: &[Self], out: &mut [f32]) {
        simd.widen(Stored::F16(stored), out);
    }
}

/// Numbers that are rounded at a time.
const STRETCH: usize = 128;

/// Keys and values, each in [`KvLayout`].
///
/// Anonymous mappings: pages cost memory when they are first written, so a long context that is not
/// used is free, and one that does not fit is an error instead of an abort.
#[derive(Debug)]
pub(super) struct KvCache<T> {
    layout: KvLayout,
    keys: MmapMut,
    values: MmapMut,
    number: PhantomData<T>,
}

impl<T: KvNumber> KvCache<T> {
    pub(super) fn new(layout: KvLayout) -> Result<Self, DeviceError> {
        let bytes = layout.elements().and_then(|elements| elements.checked_mul(size_of::<T>()));
        let half = || {
            let map = bytes.and_then(|bytes| MmapMut::map_anon(bytes).ok());
            map.ok_or(DeviceError::OutOfMemory {
                what: "the key/value cache",
                needed: bytes.map_or(u64::MAX, |bytes| bytes as u64).saturating_mul(2),
            })
        };
        Ok(Self { layout, keys: half()?, values: half()?, number: PhantomData })
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.len() + self.values.len()
    }

    fn range(&self, layer: usize) -> core::ops::Range<usize> {
        let elements = self.layout.layer_elements();
        layer * elements..(layer + 1) * elements
    }

    /// Keys and values of a layer, in [`KvLayout`].
    pub(super) fn layer(&self, layer: usize) -> (&[T], &[T]) {
        let range = self.range(layer);
        (
            &bytemuck::cast_slice(&self.keys)[range.clone()],
            &bytemuck::cast_slice(&self.values)[range],
        )
    }

    /// As [`Self::layer`], to write.
    pub(super) fn layer_mut(&mut self, layer: usize) -> (&mut [T], &mut [T]) {
        let range = self.range(layer);
        (
            &mut bytemuck::cast_slice_mut(&mut self.keys)[range.clone()],
            &mut bytemuck::cast_slice_mut(&mut self.values)[range],
        )
    }

    pub(super) fn layout(&self) -> KvLayout {
        self.layout
    }
}
