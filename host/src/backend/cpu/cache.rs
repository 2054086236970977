//! The key/value cache in memory.

use core::marker::PhantomData;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::MmapMut;

use crate::backend::DeviceError;
use crate::kv::KvLayout;

/// A number the cache can hold.
pub(super) trait KvNumber: bytemuck::Pod + Send + Sync {
    /// `x`, rounded to nearest, ties to even.
    fn round(x: f32) -> Self;
    /// The numbers of `stored` as singles: themselves, or decoded into `scratch`.
    fn load<'a>(stored: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32];
}

impl KvNumber for f32 {
    fn round(x: f32) -> Self {
        x
    }

    fn load<'a>(stored: &'a [Self], _scratch: &'a mut [f32]) -> &'a [f32] {
        stored
    }
}

impl KvNumber for f16 {
    fn round(x: f32) -> Self {
        Self::from_f32(x)
    }

    fn load<'a>(stored: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
        let scratch = &mut scratch[..stored.len()];
        stored.convert_to_f32_slice(scratch);
        scratch
    }
}

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
