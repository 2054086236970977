//! `ternary_gemm` beside [`tercet_core::reference::gemm`]: equal to the bit.

#![allow(unsafe_code, reason = "launches a kernel")]

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use tercet_core::{PackedTernary, Tile16x32, reference};
use tercet_kernels_ptx::contract::TernaryGemmArgs;
use tercet_kernels_ptx::launch::TernaryGemmShape;

use super::{Rig, TrialError};
use crate::backend::cuda::driver::{CudaError, DeviceBuffer, Function, Launch, Module};

/// Numbers on either side of the output that must stay what they are.
const GUARD: usize = 64;
/// Every byte of them.
const UNTOUCHED: u8 = 0xa5;

/// Around every size at which the kernel does something else: tiles, quads of rows of values,
/// loops of several tiles, strides beyond the columns.
fn shapes() -> impl Iterator<Item = TernaryGemmShape> {
    const ROWS: [u32; 3] = [16, 48, 256];
    const COLS: [u32; 6] = [32, 64, 96, 544, 1024, 2592];
    const BATCHES: [u32; 5] = [1, 3, 4, 5, 9];
    ROWS.into_iter().flat_map(|rows| {
        COLS.into_iter().flat_map(move |cols| {
            BATCHES.into_iter().map(move |batch| {
                let stride = if batch == 3 { cols + 16 } else { cols };
                TernaryGemmShape::new(rows, cols, batch, stride)
            })
        })
    })
}

pub(super) fn trial(rig: &Rig, module: &Module) -> Result<usize, TrialError> {
    let function = module.function::<TernaryGemmArgs>()?;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut cases = 0;
    for shape in shapes() {
        case(rig, &function, shape, &mut random)?;
        cases += 1;
    }
    Ok(cases)
}

fn case(
    rig: &Rig,
    function: &Function<TernaryGemmArgs>,
    shape: TernaryGemmShape,
    random: &mut ChaCha8Rng,
) -> Result<(), TrialError> {
    let (rows, cols) = (shape.rows() as usize, shape.cols() as usize);
    let (batch, stride) = (shape.batch() as usize, shape.stride() as usize);
    // Any bytes will do: codes that are no trits have a meaning too, and so has −128.
    let mut codes = vec![0_u32; rows * cols / 16];
    random.fill_bytes(bytemuck::cast_slice_mut(&mut codes));
    let mut values = vec![0_i8; batch * stride];
    random.fill_bytes(bytemuck::cast_slice_mut(&mut values));
    let sums_of = |row: &[i8]| row[..cols].iter().map(|&value| i32::from(value)).sum::<i32>();
    let value_sums: Vec<i32> = values.chunks(stride).map(sums_of).collect();

    let mut expected = vec![0_i32; rows * batch];
    let weights = PackedTernary::<Tile16x32>::new(bytemuck::cast_slice(&codes), rows, cols)
        .expect("whole tiles, and bytes for each");
    reference::gemm(weights, &values, stride, batch, &mut expected);

    let got = on_device(rig, function, shape, &codes, &values, &value_sums)?;
    let case = || format!("{rows} x {cols} weights, {batch} rows of values");
    let untouched = i32::from_ne_bytes([UNTOUCHED; 4]);
    let (before, rest) = got.split_at(GUARD);
    let (sums, after) = rest.split_at(rows * batch);
    for (side, guard) in [("before", before), ("after", after)] {
        if guard.iter().any(|&number| number != untouched) {
            return Err(TrialError::Guard { case: case(), side });
        }
    }
    match expected.iter().zip(sums).position(|(expected, got)| expected != got) {
        None => Ok(()),
        Some(index) => Err(TrialError::Wrong {
            case: case(),
            index,
            expected: expected[index].into(),
            got: sums[index].into(),
        }),
    }
}

/// The kernel's sums with a guard on either side.
fn on_device(
    rig: &Rig,
    function: &Function<TernaryGemmArgs>,
    shape: TernaryGemmShape,
    codes: &[u32],
    values: &[i8],
    value_sums: &[i32],
) -> Result<Vec<i32>, CudaError> {
    let context = &rig.context;
    let len = usize::try_from(shape.sums()).expect("made on the host before");
    let codes = DeviceBuffer::from_slice(context, "a trial's weights", codes)?;
    let values = DeviceBuffer::from_slice(context, "a trial's values", values)?;
    let value_sums = DeviceBuffer::from_slice(context, "a trial's values", value_sums)?;
    let mut sums = DeviceBuffer::<i32>::uninitialized(context, "a trial's sums", len + 2 * GUARD)?;
    sums.fill(UNTOUCHED)?;
    let args = TernaryGemmArgs {
        codes: codes.ptr(0),
        values: values.ptr(0),
        value_sums: value_sums.ptr(0),
        sums: sums.ptr_mut(GUARD),
        rows: shape.rows(),
        cols: shape.cols(),
        batch: shape.batch(),
        stride: shape.stride(),
    };
    let grid = shape.grid();
    // SAFETY: the buffers have the lengths that `shape` asks for: `codes` and `value_sums` exactly,
    // `values` a whole last row, `sums` from the guard on; each starts at a multiple of 16 bytes,
    // the guard being 256 bytes long. They outlive the kernel, for which `read` waits.
    unsafe { function.launch(Launch::grid(grid.x, grid.y, grid.z), &rig.stream, &args) }?;
    rig.stream.synchronize()?;
    sums.to_vec()
}
