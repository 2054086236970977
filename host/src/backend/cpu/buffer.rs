//! Memory of a session, asked for politely.

use crate::backend::DeviceError;

/// `(rows, width)` zeros, or an error instead of an abort.
pub(super) fn zeros<T: Copy + Default>(
    what: &'static str,
    rows: usize,
    width: usize,
) -> Result<Vec<T>, DeviceError> {
    let count = rows.checked_mul(width);
    let mut buffer = Vec::new();
    if count.is_none_or(|count| buffer.try_reserve_exact(count).is_err()) {
        let bytes = size_of::<T>() as u64;
        let needed = count.map_or(u64::MAX, |count| count as u64).saturating_mul(bytes);
        return Err(DeviceError::OutOfMemory { what, needed });
    }
    buffer.resize(rows * width, T::default());
    Ok(buffer)
}
