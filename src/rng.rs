//! The only source of randomness: counter-based streams named by (seed, name, a, b).
//!
//! Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") has no state but a key and a
//! counter, so any image's noise can be drawn anywhere, in any order, with the same bits.

use rand::RngCore;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds of Philox 4x32: 128 counter bits and 64 key bits to 128 random bits.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter =
            [(p1 >> 32) as u32 ^ counter[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ counter[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// One random stream. Implements `rand::RngCore`, so `rand`'s distributions and shuffles work on it.
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    /// Counter words 2 and 3: the stream's two indices.
    indices: [u32; 2],
    block: u64,
    buffer: [u32; 4],
    used: usize,
}

impl Rng {
    /// The stream `name` of `seed` at indices `(a, b)`, for example ("noise", class, index) or ("batch", epoch, 0).
    pub fn stream(seed: u64, name: &str, a: u32, b: u32) -> Self {
        let key = splitmix64(seed ^ splitmix64(fnv1a(name)));
        Rng { key: [key as u32, (key >> 32) as u32], indices: [a, b], block: 0, buffer: [0; 4], used: 4 }
    }

    /// The 32-bit draws so far.
    pub fn position(&self) -> u64 {
        4 * self.block + self.used as u64 - 4
    }

    /// Leaves out the next `draws` 32-bit draws.
    pub fn skip(&mut self, draws: u64) {
        let position = self.position() + draws;
        (self.block, self.used) = (position / 4, 4);
        for _ in 0..position % 4 {
            self.next_u32();
        }
    }

    /// Where a kernel of the GPU goes on: the key, the stream's two indices, and [`Rng::position`].
    pub fn place(&self) -> ([u32; 2], [u32; 2], u64) {
        (self.key, self.indices, self.position())
    }

    /// Uniform in [0, 1) with 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [lo, hi).
    pub fn uniform_in(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * self.uniform()
    }

    /// Uniform in 0..n (Lemire's multiply-shift; its bias of at most n / 2^32 is below every use here).
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next_u32()) * n as u64) >> 32) as usize
    }

    /// Fills `out` with standard normal values (Box-Muller in f64, two values a pair of 32-bit draws).
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let u = (f64::from(self.next_u32()) + 1.0) / 4_294_967_296.0; // (0, 1]: its logarithm is finite
            let v = f64::from(self.next_u32()) / 4_294_967_296.0;
            let radius = (-2.0 * u.ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
            pair[0] = (radius * cos) as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = (radius * sin) as f32;
            }
        }
    }

    /// `n` standard normal values.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        self.fill_normal(&mut out);
        out
    }

    /// A uniformly drawn order of 0..n (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [self.block as u32, (self.block >> 32) as u32, self.indices[0], self.indices[1]];
            self.buffer = philox(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(4) {
            chunk.copy_from_slice(&self.next_u32().to_le_bytes()[..chunk.len()]);
        }
    }
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that come with the authors' Random123 library.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        assert_eq!(
            philox([0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344], [0xA409_3822, 0x299F_31D0]),
            [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]
        );
    }

    #[test]
    fn streams_differ_in_every_coordinate_and_repeat() {
        let first = |seed, name, a, b| Rng::stream(seed, name, a, b).next_u64();
        let base = first(0, "noise", 3, 5);
        assert_eq!(base, first(0, "noise", 3, 5));
        for other in
            [first(1, "noise", 3, 5), first(0, "batch", 3, 5), first(0, "noise", 5, 3), first(0, "noise", 3, 6)]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn skipping_is_drawing_unseen() {
        let mut whole = Rng::stream(4, "test", 1, 2);
        let values: Vec<u32> = (0..40).map(|_| whole.next_u32()).collect();
        for (before, skipped) in [(0, 0), (0, 1), (0, 4), (1, 2), (3, 1), (3, 6), (4, 4), (5, 11), (2, 30)] {
            let mut rng = Rng::stream(4, "test", 1, 2);
            (0..before).for_each(|_| _ = rng.next_u32());
            rng.skip(skipped);
            assert_eq!(rng.position(), before + skipped);
            assert_eq!(rng.next_u32(), values[(before + skipped) as usize], "{skipped} after {before}");
        }
    }

    #[test]
    fn normal_has_the_normal_moments() {
        let n = 200_000;
        let values = Rng::stream(7, "test", 0, 0).normal(n);
        let moment = |p: i32| values.iter().map(|v| f64::from(*v).powi(p)).sum::<f64>() / n as f64;
        assert!(moment(1).abs() < 0.01);
        assert!((moment(2) - 1.0).abs() < 0.02);
        assert!((moment(4) - 3.0).abs() < 0.1);
    }

    #[test]
    fn permutation_holds_each_index_once() {
        let mut order = Rng::stream(0, "order", 0, 0).permutation(1000);
        assert_ne!(order[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &v)| i as u32 == v));
    }
}
