//! The levels that codes stand for, and the bounds between them.

/// A 4-bit type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FourBitKind {
    Nf4,
    Fp4,
}

/// Levels of NF4 by code (bitsandbytes `functional.py`, `get_4bit_type`).
const NF4_LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Levels of FP4 by code: the sign is bit 3, the magnitude in twelfths follows from the other three.
const FP4_LEVELS: [f32; 16] = {
    let twelfths = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
    let mut levels = [0.0; 16];
    let mut i = 0;
    while i < 8 {
        levels[i] = twelfths[i] / 12.0;
        // Code 8 is a second zero; bitsandbytes' table has no negative zero.
        levels[i + 8] = if i == 0 { 0.0 } else { -levels[i] };
        i += 1;
    }
    levels
};

/// Codes in the order of their levels. Of FP4's two zeros code 0 takes what is below and at zero, code 8 what is above,
/// as in bitsandbytes (`backends/default/ops.py`, `_get_4bit_quantize_bounds`).
pub(super) const NF4_ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
pub(super) const FP4_ORDER: [u8; 16] = [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3];

/// FP4's levels in the order of [`FP4_ORDER`]; NF4's are in that order already.
static FP4_ASCENDING: [f32; 16] = {
    let mut levels = [0.0; 16];
    let mut rank = 0;
    while rank < 16 {
        levels[rank] = FP4_LEVELS[FP4_ORDER[rank] as usize];
        rank += 1;
    }
    levels
};

/// For two ranks in a byte the two codes.
static FP4_ORDER_PAIRS: [u8; 256] = {
    let mut pairs = [0; 256];
    let mut ranks = 0;
    while ranks < 256 {
        pairs[ranks] = FP4_ORDER[ranks >> 4] << 4 | FP4_ORDER[ranks & 15];
        ranks += 1;
    }
    pairs
};

pub(super) const NF4_BOUNDS: [f32; 15] = bounds(&NF4_LEVELS, &NF4_ORDER);
pub(super) const FP4_BOUNDS: [f32; 15] = bounds(&FP4_LEVELS, &FP4_ORDER);

/// Midpoints between neighbouring levels; a value above one belongs to the upper level, a value on it to the lower.
const fn bounds(levels: &[f32; 16], order: &[u8; 16]) -> [f32; 15] {
    let mut bounds = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        bounds[i] = (levels[order[i] as usize] + levels[order[i + 1] as usize]) / 2.0;
        i += 1;
    }
    bounds
}

static NF4_PAIRS: [[f32; 2]; 256] = pairs(&NF4_LEVELS);
static FP4_PAIRS: [[f32; 2]; 256] = pairs(&FP4_LEVELS);

const fn pairs(levels: &[f32; 16]) -> [[f32; 2]; 256] {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [levels[byte >> 4], levels[byte & 15]];
        byte += 1;
    }
    pairs
}

impl FourBitKind {
    /// Its name: `nf4`, `fp4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FourBitKind::Nf4 => "nf4",
            FourBitKind::Fp4 => "fp4",
        }
    }

    /// The level each code stands for, from -1 to 1.
    #[must_use]
    pub fn levels(self) -> &'static [f32; 16] {
        match self {
            FourBitKind::Nf4 => &NF4_LEVELS,
            FourBitKind::Fp4 => &FP4_LEVELS,
        }
    }

    /// The two levels each byte stands for; the first element is in the high four bits.
    #[must_use]
    pub fn pairs(self) -> &'static [[f32; 2]; 256] {
        match self {
            FourBitKind::Nf4 => &NF4_PAIRS,
            FourBitKind::Fp4 => &FP4_PAIRS,
        }
    }

    /// The levels from the lowest to the highest, and the bounds between them.
    pub(super) fn ladder(self) -> (&'static [f32; 16], &'static [f32; 15]) {
        match self {
            FourBitKind::Nf4 => (&NF4_LEVELS, &NF4_BOUNDS),
            FourBitKind::Fp4 => (&FP4_ASCENDING, &FP4_BOUNDS),
        }
    }

    /// Packs pairs of values scaled to [-1, 1]: each takes the level whose bounds it lies between.
    #[inline]
    pub(super) fn pack(self, values: &[[f32; 2]; 16]) -> [u8; 16] {
        match self {
            // NF4's codes are in the order of its levels.
            FourBitKind::Nf4 => ranks(&NF4_BOUNDS, values),
            FourBitKind::Fp4 => ranks(&FP4_BOUNDS, values).map(|ranks| FP4_ORDER_PAIRS[usize::from(ranks)]),
        }
    }
}

/// For each pair of values the numbers of bounds below them, in the high and the low four bits of a byte.
///
/// With the bounds constant the loop over them disappears and that over pairs becomes vector code; the sums stay 32 bits
/// wide, like what is compared, until all are there.
#[inline(always)]
fn ranks(bounds: &[f32; 15], values: &[[f32; 2]; 16]) -> [u8; 16] {
    let mut sums = [[0i32; 16]; 2];
    for (pair, &[first, second]) in values.iter().enumerate() {
        sums[0][pair] = bounds.iter().map(|&bound| i32::from(first > bound)).sum();
        sums[1][pair] = bounds.iter().map(|&bound| i32::from(second > bound)).sum();
    }
    std::array::from_fn(|pair| (sums[0][pair] << 4 | sums[1][pair]) as u8)
}

/// The 256 levels of the signed dynamic 8-bit type, ascending (bitsandbytes `functional.py`, `create_dynamic_map`; Dettmers,
/// arXiv 1511.04561): decade `e` of 7 holds `2^e` equal steps of [0.1, 1)·10^(e-6), each sign; 0 and 1 complete them.
pub static DYNAMIC_LEVELS: [f32; 256] = {
    const DECADES: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut levels = [0.0; 256];
    let mut decade = 0;
    let mut above_zero = 1;
    while decade < 7 {
        let steps = 1 << decade;
        let mut step = 0;
        while step < steps {
            let middle = (boundary(step, steps) + boundary(step + 1, steps)) / 2.0;
            levels[127 + above_zero] = DECADES[decade] * middle;
            levels[127 - above_zero] = -levels[127 + above_zero];
            above_zero += 1;
            step += 1;
        }
        decade += 1;
    }
    levels[255] = 1.0;
    levels
};

/// Boundary `i` of `steps` equal steps from 0.1 to 1 as `torch.linspace` has it: counted from the nearer end in steps of f32,
/// rounded once.
const fn boundary(i: usize, steps: usize) -> f32 {
    let step = ((1.0 - 0.1f32) / steps as f32) as f64;
    let exact = if i < steps.div_ceil(2) { 0.1f32 as f64 + step * i as f64 } else { 1.0 - step * (steps - i) as f64 };
    exact as f32
}

pub(super) static DYNAMIC_BOUNDS: [f32; 255] = {
    let mut bounds = [0.0; 255];
    let mut i = 0;
    while i < 255 {
        bounds[i] = (DYNAMIC_LEVELS[i] + DYNAMIC_LEVELS[i + 1]) / 2.0;
        i += 1;
    }
    bounds
};

/// The code of the dynamic level nearest to `value`; halfway between two, the lower.
pub(super) fn nearest_dynamic(value: f32) -> u8 {
    DYNAMIC_BOUNDS.partition_point(|&bound| bound < value) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thresholds of bitsandbytes' CUDA kernels (`csrc/kernels.cu`, `dQuantizeNF4`).
    const NF4_THRESHOLDS: [f64; 15] = [
        -0.8480964004993439,
        -0.6106329262256622,
        -0.4599952697953906,
        -0.33967943489551544,
        -0.23460740596055984,
        -0.13791173323988914,
        -0.045525018125772476,
        0.03979014977812767,
        0.1202552504837513,
        0.2035212516784668,
        0.2920137718319893,
        0.3893125355243683,
        0.5016634166240692,
        0.6427869200706482,
        0.8614784181118011,
    ];

    #[test]
    fn nf4_bounds_are_the_thresholds_of_the_cuda_kernels() {
        assert_eq!(NF4_BOUNDS, NF4_THRESHOLDS.map(|threshold| threshold as f32));
    }

    #[test]
    fn orders_are_ascending() {
        for kind in [FourBitKind::Nf4, FourBitKind::Fp4] {
            let order = if kind == FourBitKind::Nf4 { NF4_ORDER } else { FP4_ORDER };
            assert!(order.map(|code| kind.levels()[code as usize]).is_sorted(), "{kind:?}");
        }
        assert!(DYNAMIC_LEVELS.is_sorted());
        assert_eq!(DYNAMIC_LEVELS[127], 0.0);
    }

    #[test]
    fn a_value_on_a_bound_takes_the_lower_level() {
        for kind in [FourBitKind::Nf4, FourBitKind::Fp4] {
            let (bounds, order) = match kind {
                FourBitKind::Nf4 => (&NF4_BOUNDS, &NF4_ORDER),
                FourBitKind::Fp4 => (&FP4_BOUNDS, &FP4_ORDER),
            };
            for (rank, &bound) in bounds.iter().enumerate() {
                let code = |value: f32| kind.pack(&[[value; 2]; 16])[0] & 15;
                assert_eq!(code(bound.next_down()), order[rank], "{kind:?} below {bound}");
                assert_eq!(code(bound), order[rank], "{kind:?} at {bound}");
                assert_eq!(code(bound.next_up()), order[rank + 1], "{kind:?} above {bound}");
            }
        }
    }

    #[test]
    fn dynamic_codes_round_to_the_nearest_level() {
        for (i, &level) in DYNAMIC_LEVELS.iter().enumerate() {
            assert_eq!(nearest_dynamic(level) as usize, i);
        }
        for (i, &bound) in DYNAMIC_BOUNDS.iter().enumerate() {
            assert_eq!(nearest_dynamic(bound) as usize, i);
            assert_eq!(nearest_dynamic(bound.next_up()) as usize, i + 1);
        }
        assert_eq!((nearest_dynamic(-9.0), nearest_dynamic(9.0), nearest_dynamic(f32::NAN)), (0, 255, 0));
    }
}
