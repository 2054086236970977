//! What a checker of memory would say to the kernel of all layers: nothing of it is computed.

use tercet_kernels_ptx::contract::{DecodeLayersArgs, EmbedArgs};
use tercet_kernels_ptx::launch::{DecodeLayersShape, DeviceShape, LayersModel};

use super::{attribute, numbers};

/// Multiprocessors and shared memory of a block, as drivers number what they are asked.
const MULTIPROCESSORS: u32 = 16;
const SHARED_BYTES: u32 = 97;

/// Looks at everything that a kernel with `args` would touch.
pub(super) fn look(args: &DecodeLayersArgs, entry: &str, grid: [u32; 3], shared_bytes: u32) {
    let &DecodeLayersArgs { hidden_cols: hidden, heads, kv_heads, head_dim, ffn, .. } = args;
    let model = LayersModel { layers: args.count, hidden, heads, kv_heads, head_dim, ffn };
    let asked = |which| u32::try_from(attribute(which)).unwrap();
    let (multiprocessors, shared) = (asked(MULTIPROCESSORS), asked(SHARED_BYTES));
    let device = DeviceShape { multiprocessors, shared_bytes: shared };
    let shape = DecodeLayersShape::new(model, true, device).unwrap();
    assert_eq!((entry, grid), (shape.entry(), [shape.grid().x, 1, 1]));
    assert_eq!(shared_bytes, shape.shared_bytes());
    assert_eq!(args.slots_of_weights, shape.slots_of_weights());

    let (query, kv) = (heads * head_dim, kv_heads * head_dim);
    // Row tiles and columns of each linear.
    let linears = [
        ((query + 2 * kv).div_ceil(16), hidden),
        (hidden.div_ceil(16), query),
        (2 * ffn.div_ceil(16), hidden),
        (hidden.div_ceil(16), ffn),
    ];
    let words = DecodeLayersArgs::WORDS as usize;
    let table = numbers::<u64>(args.layers.address(), args.count as usize * words);
    for layer in table.chunks_exact(words) {
        for (at, (row_tiles, cols)) in linears.into_iter().enumerate() {
            let tiles = (row_tiles * cols.div_ceil(128)) as usize;
            assert!(layer[at].is_multiple_of(16) && layer[8 + at].is_multiple_of(16));
            // No code of a whole tile is 3.
            let codes = numbers::<u8>(layer[at], 512 * tiles).iter();
            assert!(codes.into_iter().all(|byte| byte & (byte >> 1) & 0x55 == 0), "codes");
            let units = numbers::<f32>(layer[4 + at], 16 * row_tiles as usize);
            assert!(units[0] > 0.0 && units.iter().all(|unit| (0.0..1e3).contains(unit)), "units");
            if layer[8 + at] != 0 {
                let norm = numbers::<f32>(layer[8 + at], cols as usize);
                assert!(norm.iter().all(|weight| weight.is_finite()), "norms");
            }
        }
    }

    numbers::<f32>(args.hidden.address(), hidden as usize);
    let rooms = numbers::<u32>(args.rooms.address(), shape.rooms_words() as usize);
    assert!(rooms.iter().all(|&word| word == DecodeLayersArgs::UNWRITTEN), "rooms");
    let position = numbers::<u32>(args.positions.address(), 1)[0];
    let slot = numbers::<u32>(args.slots.address(), 1)[0];
    assert!(position != EmbedArgs::NONE && position < args.capacity, "position {position}");
    let angles = ((position + 1) * head_dim / 2) as usize;
    numbers::<f32>(args.cos.address(), angles);
    numbers::<f32>(args.sin.address(), angles);
    // The slot's part of the last layer.
    let of_slot = (kv * args.capacity) as usize;
    let last = (args.count - 1) as usize * args.layer_stride as usize * 16;
    for cache in [args.keys, args.values] {
        numbers::<u8>(cache.address(), last + (slot as usize + 1) * of_slot * 2);
    }
}
