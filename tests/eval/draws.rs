//! Augmentations are drawn uniformly, over the whole of their ranges.

use distill::eval::Augmentation;
use distill::rng::Rng;

/// The least and the greatest of what was drawn.
#[derive(Clone, Copy)]
struct Range(f32, f32);

impl Range {
    fn see(&mut self, v: f32) {
        *self = Range(self.0.min(v), self.1.max(v));
    }

    /// All values lie in [lo, hi] and come within `slack` of both ends.
    fn assert_fills(&self, what: &str, lo: f32, hi: f32, slack: f32) {
        assert!(self.0 >= lo && self.1 <= hi, "{what}: {}..{} leaves {lo}..{hi}", self.0, self.1);
        assert!(self.0 <= lo + slack && self.1 >= hi - slack, "{what}: {}..{} of {lo}..{hi}", self.0, self.1);
    }
}

#[test]
fn draws_are_uniform_over_kinds_and_ranges() {
    for size in [32, 64] {
        let mut rng = Rng::stream(5, "draws", size as u32, 0);
        let mut kinds = [0; 6];
        let mut seen = [Range(f32::MAX, f32::MIN); 9];
        let mut flips = 0;
        for _ in 0..6000 {
            let kind = Augmentation::draw(&mut rng, 4, size);
            let two = |seen: &mut [Range], a: f32, b: f32| {
                seen[0].see(a);
                seen[1].see(b);
            };
            kinds[match &kind {
                Augmentation::Color(p) => {
                    for p in p {
                        two(&mut seen[0..2], p.brightness, p.saturation);
                        seen[2].see(p.contrast);
                    }
                    0
                }
                Augmentation::Crop(p) => {
                    p.iter().for_each(|p| two(&mut seen[3..5], p[0] as f32, p[1] as f32));
                    1
                }
                Augmentation::Cutout(p) => {
                    p.iter().for_each(|p| two(&mut seen[5..7], p[0] as f32, p[1] as f32));
                    2
                }
                Augmentation::Flip(p) => {
                    flips += p.iter().filter(|&&f| f).count();
                    3
                }
                Augmentation::Scale(p) => {
                    p.iter().flatten().for_each(|&v| seen[7].see(v));
                    4
                }
                Augmentation::Rotate(p) => {
                    p.iter().for_each(|&v| seen[8].see(v.to_degrees()));
                    5
                }
            }] += 1;
        }
        // 1000 of each are expected, with a standard deviation of 29; of about 4000 flips half, with 32.
        assert!(kinds.iter().all(|n| (850..1150).contains(n)), "{kinds:?}");
        assert!((flips as f32 / (4 * kinds[3]) as f32 - 0.5).abs() < 0.05, "{flips}");
        let side = size as f32;
        let ends = [
            ("brightness", -0.5, 0.5, 0.01),
            ("saturation", 0.0, 2.0, 0.02),
            ("contrast", 0.5, 1.5, 0.01),
            ("crop down", -side / 8.0, side / 8.0, 0.0),
            ("crop right", -side / 8.0, side / 8.0, 0.0),
            ("cutout row", 0.0, side, 0.0),
            ("cutout column", 0.0, side, 0.0),
            ("scale", 1.0 / 1.2, 1.2, 0.01),
            ("rotate", -15.001, 15.001, 0.1),
        ];
        for (seen, (what, lo, hi, slack)) in seen.iter().zip(ends) {
            seen.assert_fills(what, lo, hi, slack);
        }
    }
}
